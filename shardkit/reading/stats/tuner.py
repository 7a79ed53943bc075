"""Act on auto.py: look at the figures of a running iteration, and set its threads and batches ahead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from time import perf_counter
from typing import Any, Protocol

import numpy as np

from shardkit.reading.batches.encoded import EncodedBatch
from shardkit.reading.stats.auto import (
    MOST_AHEAD,
    WINDOW_BATCHES,
    WINDOW_SECONDS,
    Limits,
    Point,
    State,
    decided,
    within,
)  # fmt: skip
from shardkit.reading.stats.record import Counts, Recorder
from shardkit.reading.stats.stats import figures_of


class Resized(Protocol):
    """Threads whose number can be changed."""

    def resize(self, count: int) -> None:
        """Make it this number of threads."""


class Tuner:
    """Sets the threads and the batches ahead of one epoch. `made` may be called from any thread."""

    def __init__(self, record: Recorder, start: Point, limits: Limits, most_bytes: int) -> None:
        """start: what is set in the first epoch. most_bytes: what batches ahead may take together."""
        self._record, self._limits, self._most_bytes = record, limits, most_bytes
        self._kept = record.kept
        self._before = Counts()
        self._due = 0.0
        self._state = replace(record.kept.state or State(start), trial=None)

    @property
    def threads(self) -> int:
        """The number of threads now."""
        return self._state.point.threads

    def _now(self) -> Limits:
        """The limits, with the batches that fit into memory: one while their size is not known."""
        size = self._kept.batch_bytes
        return replace(self._limits, most_ahead=min(MOST_AHEAD, max(1, self._most_bytes // size)) if size else 1)

    def made(self, *items: Any) -> None:
        """Note the size of a batch."""
        self._kept.batch_bytes = max(1, self._kept.batch_bytes, *map(bytes_of, items))

    def ahead(self, threads: Resized) -> int:
        """How many batches may be ahead now; the number of threads is changed, too, if it is time to."""
        now = perf_counter()
        if now >= self._due and self._kept.batch_bytes:
            self._look(now, threads)
        return within(self._state.point, self._now()).ahead

    def _look(self, now: float, threads: Resized) -> None:
        counts = self._record.counts()
        if self._due:  # not the first batch, whose window had none before it
            if counts.batches - self._before.batches < WINDOW_BATCHES:
                return
            figures = figures_of(counts.plus(self._before, -1), self._record.setting)
            self._state = self._kept.state = decided(self._state, figures, self._now())
        point = within(self._state.point, self._now())
        if point.threads != self._record.threads:
            threads.resize(point.threads)
        self._record.begin(replace(self._record.setting, threads=point.threads, ahead=point.ahead))
        self._before, self._due = counts, now + WINDOW_SECONDS


def bytes_of(item: Any) -> int:
    """The bytes of the arrays in an item, as far as they can be seen."""
    if isinstance(item, np.ndarray):
        return item.nbytes
    if isinstance(item, Mapping):
        return sum(map(bytes_of, item.values()))
    if isinstance(item, (list, tuple)):
        return sum(map(bytes_of, item))
    if isinstance(item, EncodedBatch):
        return int(item.sizes.sum())
    if isinstance(item, bytes):
        return len(item)
    return int(getattr(item, "nbytes", 0))
