"""The samples of a Dataset by their number, as a torch map-style dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import Dataset as MapDataset

from shardkit.adapters.inputs import column_names
from shardkit.adapters.torch.tensors import as_named, as_tensors, channels_before
from shardkit.errors import DatasetError, SampleIndexError, UsageError
from shardkit.reading.batches.batch import image_field
from shardkit.reading.ops import Map

if TYPE_CHECKING:
    from shardkit.reading.dataset import Dataset

ANY_EPOCH = -1
"""Marker: no epoch was set."""
ANY_EPOCH_BELOW = 1 << 62


class TorchMap(MapDataset[Any]):  # type: ignore[misc]  # as above
    """Single samples by their number, for samplers and for code that needs a map-style dataset.

    Decoded samples are (image, label), like those of torchvision's ImageFolder, or only the image if there is no label;
    with further columns (`decode(columns=)`) also a dict of them, and with `names` a dict of all. Others, and the
    output of map(), are unchanged. Random crops and flips are new each time, from torch's own random numbers, as in
    torchvision; after `set_epoch`, which reaches running workers, they are those of that epoch. A DataLoader requests a
    whole batch at a time, which shardkit's threads then decode in parallel.
    """

    def __init__(self, dataset: Dataset, *, channels_last: bool = False, names: tuple[str, str] | None = None) -> None:
        if dataset.steps.batch is not None:
            raise UsageError("to_torch(map_style=True)", "batches are not numbered", "omit .batch()")
        if not dataset.steps.counted:
            raise UsageError(
                "to_torch(map_style=True)", "with filter() the numbers are not known", "use where() or select()"
            )
        if dataset.steps.window:
            fact = "take() and skip() apply to the order of an epoch, which numbers ignore"
            raise UsageError("to_torch(map_style=True)", fact, "use a view instead: dataset[:1000]")
        reading = replace(dataset.reading, buffer=0, lanes=1, rank=0, world_size=1, turns=1)
        self.dataset = replace(dataset, reading=reading)
        self.channels_last = channels_last
        self.names = names
        self._epoch = torch.tensor([dataset.position.where().epoch or ANY_EPOCH], dtype=torch.int64).share_memory_()
        mapped = any(isinstance(op, Map) for op in dataset.ops)
        self._columns = column_names(dataset)
        self._pairs = dataset.steps.decode is not None and not mapped

    @property
    def classes(self) -> list[str]:
        """The names of the classes in label order."""
        return self.dataset.classes

    @property
    def class_to_idx(self) -> dict[str, int]:
        """Class name -> label."""
        return {name: label for label, name in enumerate(self.dataset.classes)}

    @property
    def targets(self) -> list[int]:
        """The label of each sample."""
        targets: list[int] = self.dataset.content.catalog.labels()[self.dataset.epoch(0).rows_in_order].tolist()
        return targets

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, number: int) -> Any:
        count = len(self)
        if not -count <= number < count:
            raise SampleIndexError(
                repr(self.dataset), f"there is no sample {number} among {count}", "numbers start at 0"
            )
        return self.__getitems__([number])[0]

    def __getitems__(self, numbers: Sequence[int]) -> list[Any]:
        """Several samples, decoded in parallel; called by torch's DataLoader."""
        chosen = self.dataset[np.asarray(numbers, np.int64)]
        found = [self._item(item) for _, item in chosen.run(self._chances())]
        if len(found) != len(numbers):  # on_error="skip"
            fact = f"{len(numbers) - len(found)} of these samples can't be decoded"
            raise DatasetError(repr(self.dataset), fact, 'each number needs its sample: use on_error="raise"')
        return found

    def set_epoch(self, epoch: int) -> None:
        """Use the random numbers of `epoch`, in running workers too."""
        self._epoch[0] = epoch

    def _chances(self) -> int:
        """The epoch whose random numbers are used."""
        epoch, decode = int(self._epoch[0]), self.dataset.steps.decode
        if epoch != ANY_EPOCH:
            return epoch
        random = decode is not None and decode.options.random
        return int(torch.randint(ANY_EPOCH_BELOW, ())) if random else 0

    def _item(self, item: Any) -> Any:
        if self.names is not None:
            return as_named(item, names=self.names, channels_last=self.channels_last, columns=self._columns)
        if not self._pairs:
            return as_tensors(item, channels_last=self.channels_last)
        image = as_tensors(item[image_field(item)])
        image = channels_before(image) if self.channels_last else image
        pair = (image, item["cls"]) if "cls" in item else (image,)
        if self._columns:
            return (*pair, {name: as_tensors(item[name]) for name in self._columns})
        return pair if len(pair) > 1 else image
