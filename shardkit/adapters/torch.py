"""A Dataset as a torch IterableDataset of whole batches, for use alone or in a DataLoader."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from shardkit.errors import MissingExtraError
from shardkit.reading.batch import Batch

if TYPE_CHECKING:
    from shardkit.reading.dataset import Dataset

try:
    import torch
    from torch.utils.data import IterableDataset, get_worker_info
except ImportError as exc:
    raise MissingExtraError("to_torch()", "torch is not installed", 'pip install "shardkit[torch]"') from exc


class TorchDataset(IterableDataset[Any]):  # type: ignore[misc]  # torch is not there when types are checked
    """The items of a Dataset with arrays as tensors that share their memory. Each new iteration is the next epoch.

    In a DataLoader give `batch_size=None`, since the items are batches already. Its workers take turns: worker w of V
    makes the batches w, w + V, …, so that the order is the same for any number of them.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __iter__(self) -> Iterator[Any]:
        epoch = self.dataset.epochs.next()
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        for _, item in self.dataset.run(epoch, worker=worker, workers=workers):
            yield as_tensors(item)

    def __len__(self) -> int:
        return len(self.dataset)

    def set_epoch(self, epoch: int) -> None:
        """Make `epoch` the number of the next iteration."""
        self.dataset.set_epoch(epoch)


def to_torch(dataset: Dataset) -> TorchDataset:
    """The Dataset for torch."""
    return TorchDataset(dataset)


def as_tensors(item: Any) -> Any:
    """The item with every number array in it as a tensor of the same memory; a Batch stays a Batch."""
    if isinstance(item, Batch):
        fields = {name: as_tensors(value) for name, value in item.fields.items()}
        return Batch(
            as_tensors(item.images), as_tensors(item.labels), keys=item.keys, fields=fields, repeats=item.repeats
        )
    if isinstance(item, np.ndarray):
        return torch.from_numpy(item) if item.dtype.kind in "biuf" else item
    if isinstance(item, dict):
        return {name: as_tensors(value) for name, value in item.items()}
    if isinstance(item, tuple):
        return tuple(as_tensors(value) for value in item)
    return item
