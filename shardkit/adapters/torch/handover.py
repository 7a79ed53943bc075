"""`to_torch`: which of the classes of this folder a Dataset becomes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from shardkit.adapters.inputs import column_names
from shardkit.adapters.names import checked_names
from shardkit.adapters.torch.iterable import TorchDataset
from shardkit.adapters.torch.numbered import TorchMap
from shardkit.adapters.torch.tensors import as_named, as_tensors
from shardkit.errors import UsageError

if TYPE_CHECKING:
    from shardkit.reading.dataset import Dataset


def to_torch(
    dataset: Dataset, *, map_style: bool = False, channels_last: bool = False, names: tuple[str, str] | None = None
) -> TorchDataset | TorchMap:
    """The Dataset for torch."""
    decode = dataset.steps.decode
    if channels_last and (decode is None or decode.options.layout != "hwc"):
        cure = 'decode() with a size and without layout="chw", which has a different memory order'
        raise UsageError("channels_last", "there are no images of (height, width, channels)", cure)
    chosen = None if names is None else checked_names(dataset, names)
    if map_style:
        return TorchMap(dataset, channels_last=channels_last, names=chosen)
    if chosen is not None:
        columns = column_names(dataset)
        convert = partial(as_named, names=chosen, channels_last=channels_last, columns=columns)
        return TorchDataset(dataset, convert=convert)
    return TorchDataset(dataset, convert=partial(as_tensors, channels_last=channels_last))
