"""Which methods may follow which in a chain.

Each method applies to what precedes it, or raises an error with the right order, according to the table below.
docs/chains.md explains it, and tests/reading/test_chains.py compares it with plain Python.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from shardkit.errors import UsageError
from shardkit.reading.blocks.block import Catalog, Rows
from shardkit.reading.content import Mixed
from shardkit.reading.ops import ALL, Filter, Skip, Take, clip
from shardkit.reading.order.derived import line_counts
from shardkit.reading.order.epoch_order import EpochOrder
from shardkit.reading.select import AtNumbers, Selection

if TYPE_CHECKING:
    from shardkit.reading.dataset import Dataset


@dataclass(frozen=True)
class _Before:
    """Something that may precede a method: a test for it, why it is a problem, and the cure."""

    stands: Callable[[Dataset], bool]
    fact: str
    cure: str = "call {} before"


BEFORE: Mapping[str, _Before] = {
    "batch": _Before(
        lambda data: data.steps.batch is not None,
        "it applies to samples, but comes after batch()",
        "call {} before batch()",
    ),
    "filter": _Before(
        lambda data: any(isinstance(op, Filter) for op in data.ops),
        "it comes after filter(), whose result is not known before it is read",
        "call {} before filter(), or use where() or select() instead of filter()",
    ),
    "cut": _Before(
        lambda data: is_cut(data) and not is_view(data),
        "it comes after take() or skip() of an order that is shuffled, weighted, mixed, batched or filtered, which may "
        "differ in each epoch",
        "call {} before them, or use a view instead: dataset[:1000]",
    ),
    "repeat": _Before(
        lambda data: data.reading.turns != 1,
        "it comes after repeat(), and would apply to each epoch separately",
        "call {} before repeat(), or use epoch_size() instead of repeat(): its epochs continue one after the other",
    ),
    "endless": _Before(
        lambda data: data.reading.turns is None, "it comes after an endless repeat()", "call {} before repeat()"
    ),
    "epoch_size": _Before(
        lambda data: data.reading.epoch_size is not None,
        "it comes after epoch_size(), whose epochs have different samples",
        "call {} before epoch_size()",
    ),
    "weights": _Before(
        lambda data: data.weights is not None,
        "it comes after weight() or balance(), which determine how often samples occur",
        "call {} before weight() and balance()",
    ),
    "buckets": _Before(
        lambda data: data.steps.buckets is not None,
        "it comes after buckets(), which are those of all samples",
        "call {} before buckets()",
    ),
    "pack_to": _Before(
        lambda data: data.content.whole_only,
        "with `pack_to` whole epochs are read, since all samples are packed meanwhile",
        "pack first, and call {} on the dataset of the shards",
    ),
    "mix": _Before(
        lambda data: isinstance(data.content, Mixed),
        "a mix keeps the order and the samples of its parts",
        "call {} on them, before mix()",
    ),
}
"""Things that may precede a method, by name. `{}` is the method."""

_SAMPLES = ("pack_to", "mix", "batch", "cut", "epoch_size", "weights", "buckets")

NOT_AFTER: Mapping[str, Sequence[str]] = {
    "select()": _SAMPLES,
    "where()": _SAMPLES,
    "split()": (*_SAMPLES, "filter"),
    "dataset[…]": (*_SAMPLES, "filter", "repeat"),
    "dataset[number]": ("batch", "cut", "epoch_size", "weights", "buckets", "filter", "repeat"),
    "dataset[key]": ("batch", "cut", "buckets"),
    "labels": ("cut", "epoch_size", "weights", "filter", "repeat"),
    "keys": ("cut", "epoch_size", "weights", "filter", "repeat"),
    "paths": ("cut", "epoch_size", "weights", "filter", "repeat"),
    "buckets()": ("pack_to", "mix", "batch", "cut", "epoch_size", "weights", "filter", "repeat"),
    "weight()": (*_SAMPLES, "filter"),
    "balance()": (*_SAMPLES, "filter"),
    "shuffle()": ("mix", "batch", "cut", "epoch_size"),
    "epoch_size()": ("cut", "filter", "repeat", "epoch_size", "buckets"),
    "take()": ("repeat",),
    "skip()": ("repeat",),
    "batch()": ("repeat",),
    "to_ray()": ("pack_to",),
    "concat()": ("pack_to",),
    "mix()": ("pack_to",),
    "class_counts": ("cut", "epoch_size", "weights", "filter", "endless"),
}
"""What must not precede each method; all other combinations are allowed."""


def require_order(data: Dataset, method: str) -> None:
    """UsageError for a method that can't apply to what precedes it."""
    for name in NOT_AFTER[method]:
        before = BEFORE[name]
        if before.stands(data):
            raise UsageError(method, before.fact, before.cure.format(method))


def is_cut(data: Dataset) -> bool:
    """Whether there is a take() or skip()."""
    return any(isinstance(op, Take | Skip) for op in data.ops)


def is_view(data: Dataset) -> bool:
    """Whether each take() and skip() cuts an order that is the same in all epochs, so that a view is equivalent."""
    fixed = not data.reading.buffer and data.weights is None and not isinstance(data.content, Mixed)
    steps = data.steps
    early = not steps.batch_window and not any(isinstance(op, Take | Skip) for op in steps.after)
    return fixed and early and data.reading.epoch_size is None and not data.content.whole_only


def as_view(data: Dataset) -> Dataset:
    """The same samples with a selection instead of take() and skip() if `is_view`; otherwise unchanged."""
    if not (data.steps.window and is_view(data)):
        return data
    low, high = clip(0, ALL, data.steps.window)
    bounds = slice(low, None if high == ALL else high)
    step: Selection = (
        AtNumbers(bounds) if data.reading.order_lanes == 1 else InReadingOrder(bounds, data.reading.order_lanes)
    )
    rest = tuple(op for op in data.ops if not isinstance(op, Take | Skip))
    return replace(data, ops=rest, selection=(*data.selection, step))


@dataclass(frozen=True, eq=False)
class InReadingOrder:
    """The samples at some places of the order in which several lanes are read without shuffling."""

    places: slice
    lanes: int

    def rows(self, catalog: Catalog, before: Rows | None) -> Rows:
        """The rows at these places, in shard order."""
        counts = catalog.counts if before is None else line_counts(before, np.cumsum(catalog.counts) - catalog.counts)
        order = EpochOrder(counts, 0, 0, 0, self.lanes)
        chosen = np.sort(order.rows_at(np.arange(*self.places.indices(order.samples))))
        return chosen if before is None else before[chosen]

    def describe(self, catalog: Catalog, before: Rows | None) -> str:
        """The places and the lanes."""
        return f"{self.places}of{self.lanes}"
