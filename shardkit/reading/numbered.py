"""Samples of a Dataset by number or key, and checks of who requests them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shardkit.errors import NotFoundError, SampleIndexError, UsageError
from shardkit.reading.batches.pipeline import Run
from shardkit.reading.blocks.source import OneBlock
from shardkit.reading.epoch import column_reader

if TYPE_CHECKING:
    from shardkit.reading.dataset import Dataset

KERAS = ("keras.src.trainers.",)
"""Modules that ask what was given to `fit`, `evaluate` or `predict`, and read it."""


@dataclass(frozen=True, slots=True)
class Reader:
    """A library that reads samples by number.

    modules: that do it. place: what its users write. batched, ordered, ranked, random: what they can do instead where
    the dataset has batches, is shuffled, is the part of one rank, or has random crops and so on.
    """

    modules: tuple[str, ...]
    place: str
    batched: str
    ordered: str
    ranked: str
    random: str


_TO_TORCH = "give the DataLoader dataset.to_torch() with batch_size=None, or to_torch(map_style=True) with shuffle=True"

TORCH = Reader(
    ("torch.utils.data.", "torchdata."),
    "DataLoader(dataset)",
    batched="iterate over batches.to_torch().loader(num_workers=…)",
    ordered=_TO_TORCH,
    ranked="give the DataLoader to_torch(map_style=True) with a DistributedSampler, or dataset.to_torch()",
    random=_TO_TORCH,
)
GRAIN = Reader(
    ("grain.",),
    "MapDataset.source(dataset)",
    batched="omit batch() and call it on the MapDataset",
    ordered="omit shuffle= and call shuffle() on the MapDataset",
    ranked="give dataset() rank=0, world_size=1, and shard the MapDataset: [jax.process_index()::jax.process_count()]",
    random="omit them and use random_map() of the MapDataset",
)


def read_by(modules: tuple[str, ...], depth: int) -> bool:
    """Whether one of these modules called the function that is `depth` callers up: 1 is the caller of this function."""
    return _module(depth + 1).startswith(modules)


def reader(depth: int) -> Reader | None:
    """The library that called the function that is `depth` callers up, if it is one that reads by number."""
    module = _module(depth + 1)
    return next((one for one in (TORCH, GRAIN) if module.startswith(one.modules)), None)


def _module(depth: int) -> str:
    name: str = sys._getframe(depth + 1).f_globals.get("__name__", "")
    return name


def require_numbered(data: Dataset, by: Reader) -> None:
    """UsageError for a Dataset that a library would read by number with different results than iterating.

    Numbers ignore shuffling, ranks and batches, and provide no epoch for random crops.
    """
    decode, world_size = data.steps.decode, data.reading.ranks[1]
    if data.steps.batch is not None:
        raise UsageError(by.place, "batches are not numbered", by.batched)
    if data.reading.buffer:
        fact = "it requests samples by number, in the order of the shards, but this dataset is shuffled"
        raise UsageError(by.place, fact, by.ordered)
    if world_size > 1:
        fact = f"it requests samples by number, which count over all {world_size} ranks, but this is the part of one"
        raise UsageError(by.place, fact, by.ranked)
    if data.steps.random or (decode is not None and decode.options.random):
        fact = "it requests samples by number, and their random crops, flips and so on would be the same in each epoch"
        raise UsageError(by.place, fact, by.random)


def one_of(data: Dataset, item: Any) -> Any:
    """A sample by its number or key, as returned by `Dataset.__getitem__`."""
    if data.steps.batch is not None:
        raise UsageError("dataset[…]", "batches are not numbered", "select samples before batch()")
    source = OneBlock(data.content.catalog, _row_of(data, item), data.reading.seed)
    columns = column_reader(data.content, data.steps)
    found = next(Run(source, data.steps, 1, 1, data.reading.decoders, columns=columns).items(), None)
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
