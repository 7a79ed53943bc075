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
    """Sets the threads and the batches ahead of one epoch. `made` may be called from any thread.

    Where an epoch ends in the middle of a window, the next one goes on with it: epochs may be shorter than a window.
    """

    def __init__(self, record: Recorder, start: Point, limits: Limits, most_bytes: int) -> None:
        """start: what is set in the first epoch. most_bytes: what batches ahead may take together."""
        self._record, self._limits, self._most_bytes = record, limits, most_bytes
        self._kept = record.kept
        self._before = record.counts() if record.batches else None
        self._due = perf_counter() + WINDOW_SECONDS - record.kept.window.seconds
        self._state = record.kept.state or State(start)
        self._begun = False

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
        if self._kept.batch_bytes and (now >= self._due or not self._begun):
            self._look(now, threads)
        return within(self._state.point, self._now()).ahead

    def _look(self, now: float, threads: Resized) -> None:
        if self._begun or now >= self._due:
            window = self._window()
            if window.batches < WINDOW_BATCHES:
                return
            figures = figures_of(window, self._record.setting)
            self._state = self._kept.state = decided(self._state, figures, self._now())
            self._kept.window, self._before, self._due = Counts(), self._record.counts(), now + WINDOW_SECONDS
        self._begun = True
        point = within(self._state.point, self._now())
        if point.threads != self._record.threads:
            threads.resize(point.threads)
        self._record.begin(replace(self._record.setting, threads=point.threads, ahead=point.ahead))

    def _window(self) -> Counts:
        """What was counted since the last decision, without what came before the first batch of an iteration."""
        if not self._record.batches:
            return self._kept.window
        before = self._record.early() if self._before is None else self._before
        return self._kept.window.plus(self._record.counts().plus(before, -1))

    def close(self) -> None:
        """Keep the window that is not over for the next epoch."""
        self._kept.window, self._before = self._window(), self._record.counts()


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
