"""Samples of a Dataset by number or key, and checks of who requests them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from shardkit.errors import NotFoundError, SampleIndexError, UsageError
from shardkit.reading.batches.pipeline import Run
from shardkit.reading.blocks.source import OneBlock

if TYPE_CHECKING:
    from shardkit.reading.dataset import Dataset

LOADERS = ("torch.utils.data.", "torchdata.")
"""Modules that read a DataLoader's dataset by number."""


def read_by_loader(depth: int) -> bool:
    """Whether torch's data loading called the function that is `depth` callers up: 1 is the caller of this function."""
    module: str = sys._getframe(depth + 1).f_globals.get("__name__", "")
    return module.startswith(LOADERS)


def require_numbered(data: Dataset) -> None:
    """UsageError for a Dataset that a DataLoader would read by number with different results than iterating.

    Numbers ignore shuffling, ranks and batches, and provide no epoch for random crops.
    """
    decode, world_size = data.steps.decode, data.reading.ranks[1]
    cure = "give the DataLoader dataset.to_torch() with batch_size=None, or to_torch(map_style=True) with shuffle=True"
    if data.steps.batch is not None:
        fact, cure = "batches are not numbered", "iterate over batches.to_torch().loader(num_workers=…)"
    elif data.reading.buffer:
        fact = "it requests samples by number, in the order of the shards, but this dataset is shuffled"
    elif world_size > 1:
        fact = f"it requests samples by number, which count over all {world_size} ranks, but this is the part of one"
        cure = "give the DataLoader to_torch(map_style=True) with a DistributedSampler, or dataset.to_torch()"
    elif decode is not None and decode.options.random:
        fact = "it requests samples by number, and their random crops, flips and so on would be the same in each epoch"
    else:
        return
    raise UsageError("DataLoader(dataset)", fact, cure)


def one_of(data: Dataset, item: Any) -> Any:
    """A sample by its number or key, as returned by `Dataset.__getitem__`."""
    if data.steps.batch is not None:
        raise UsageError("dataset[…]", "batches are not numbered", "select samples before batch()")
    source = OneBlock(data.content.catalog, _row_of(data, item), data.reading.seed)
    found = next(Run(source, data.steps, 1, 1, data.reading.decoders).items(), None)
    if found is None:
        raise NotFoundError(repr(data.content), f"filter() drops sample {item!r}", "use the unfiltered dataset")
    return found[1]


def _row_of(data: Dataset, item: Any) -> int:
    rows = data.content.members(data.rows())
    if isinstance(item, str):
        for row in data.content.catalog.rows_of(item):
            if rows is None or row in rows:
                return row
        raise NotFoundError(repr(data.content), f"there is no sample {item!r}", "check the key")
    total = data.epoch_samples
    if not -total <= item < total:
        fact = f"there is no sample {item} among {total}"
        raise SampleIndexError(repr(data.content), fact, "sample numbers start at 0")
    return int(item) % total if rows is None else int(rows[item])
