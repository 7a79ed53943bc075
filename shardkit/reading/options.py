"""Reading options: those of `dataset()`, checked once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from shardkit.errors import UsageError
from shardkit.options.keywords import cure_of_choice
from shardkit.reading.batches.fields import FIELD_DECODERS
from shardkit.reading.order.epoch_order import default_lanes
from shardkit.reading.order.layout import MOST_SECTIONS, Layout
from shardkit.reading.order.ranks import find_node, find_rank
from shardkit.reading.order.share import Remainder
from shardkit.reading.stats.live import StatsFn
from shardkit.units import cores

Auto = Literal["auto"]
"""Chosen while reading, see stats/auto.py."""

SampleWeight = str | Sequence[float] | NDArray[Any]
"""The name of a value in the samples' JSON field, or a number for each sample in the order of `Dataset.labels`."""

DEFAULT_BUFFER = 10_000
"""The shuffle buffer for shuffle=True, in samples."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Reading options. Raises UsageError for invalid values. None: determined when reading starts."""

    buffer: int = 0
    seed: int = 0
    lanes: int | None = None
    layout: int | None = None
    node_affinity: bool | int = False
    rank: int | None = None
    world_size: int | None = None
    remainder: Remainder | None = None
    threads: int | Auto | None = None
    ahead: int | Auto | None = None
    decoders: Mapping[str, Callable[[bytes], Any]] = field(default_factory=lambda: FIELD_DECODERS)
    turns: int | None = 1
    """Epochs in one iteration; None for endless."""
    shared: bool | str | None = None
    """Whether the processes of this machine share decoded batches: see storage/access.py."""
    on_stats: StatsFn | None = None
    """Called with statistics while reading."""
    progress: bool = False
    epoch_size: int | None = None
    """Items per epoch, each epoch continuing where the last one stopped; None for the dataset's own epochs."""

    def __post_init__(self) -> None:
        at_least("shuffle", self.buffer, 0)
        at_least("seed", self.seed, 0)
        for name in ("lanes", "layout", "threads", "ahead", "turns", "epoch_size"):
            value = getattr(self, name)
            if name in ("threads", "ahead") and isinstance(value, str):
                if value != "auto":
                    raise UsageError(name, f"{value!r} is not a number of {name}", 'give a number, or "auto"')
            elif value is not None:
                at_least(name, value, 1)
        if self.layout is not None and self.layout > MOST_SECTIONS:
            raise UsageError("layout", f"{self.layout:,} is above {MOST_SECTIONS:,}", "give the usual number of ranks")
        if not isinstance(self.node_affinity, bool):
            at_least("node_affinity", self.node_affinity, 1)
        if self.rank is not None or self.world_size is not None:
            find_rank(self.rank, self.world_size)
        if self.remainder not in (None, "drop", "pad", "uneven"):
            cure = cure_of_choice("remainder", self.remainder, get_args(Remainder))
            raise UsageError("remainder", f"{self.remainder!r} is not one of drop, pad, uneven", cure)

    @property
    def ranks(self) -> tuple[int, int]:
        """(rank, world size), as found by order/ranks.py."""
        return find_rank(self.rank, self.world_size)

    @property
    def decoding_threads(self) -> int:
        """The number of threads that decode, with "auto" at first."""
        return self.threads if isinstance(self.threads, int) else cores()

    @property
    def batches_ahead(self) -> int:
        """The number of batches, or runs of samples, that are decoded ahead, with "auto" at first."""
        return self.ahead if isinstance(self.ahead, int) else self.decoding_threads + 2

    @property
    def order_lanes(self) -> int:
        """The number of lanes of an epoch's order."""
        return self.lanes or default_lanes(self.buffer > 0)

    @property
    def order_layout(self) -> Layout:
        """The layout of an epoch's order, by default for as many ranks as there are; one section without shuffling."""
        if not self.buffer:
            return Layout(self.order_lanes)
        sections = self.layout or min(self.ranks[1], MOST_SECTIONS)
        node = find_node() if self.node_affinity is True and sections > 1 else int(self.node_affinity)
        return Layout(self.order_lanes, sections, min(node, sections))

    @property
    def order_remainder(self) -> Remainder:
        """How to treat samples that can't be shared evenly: "drop" for a shuffled dataset, "pad" for one in order."""
        return self.remainder or ("drop" if self.buffer else "pad")


def at_least(name: str, value: object, least: int) -> int:
    """`value` as an int. Raises UsageError unless it is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise UsageError(name, f"{value!r} is not a whole number from {least} on", "give such a number")
    return int(value)


def callable_of(name: str, fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`fn`. Raises UsageError if it is not callable."""
    if not callable(fn):
        raise UsageError(name, f"{fn!r} is not callable", "give a function of one item")
    return fn


def buffer_size(shuffle: bool | int) -> int:
    """The size of the shuffle buffer in samples, from a user's option."""
    if isinstance(shuffle, bool):
        return DEFAULT_BUFFER if shuffle else 0
    return at_least("shuffle", shuffle, 0)
