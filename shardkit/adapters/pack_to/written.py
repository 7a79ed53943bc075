"""The samples that a packing has written already, read back from its shards while these grow.

A file is then read once for both, the shard and the training: the image is in the system's memory when it is used.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from contextlib import suppress
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shardkit.adapters.pack_to.patience import Patience
from shardkit.formats.tar.fast_write import Gathered, Gatherer
from shardkit.packing.plan.plan import Plan
from shardkit.packing.write.sink import Sink
from shardkit.storage.mapping import map_file, view_of
from shardkit.storage.parts import part_of

Rows = NDArray[np.int64]

CALL_BYTES = 4 << 20
"""About the bytes after which samples count as written."""

NEAR_BYTES = 64 << 20
"""How far behind the reader a packing may be, in bytes of files, for it to be waited for."""

KEPT_SAMPLES = 1 << 21
"""The samples whose places are remembered, 16 bytes each, besides those of the last two shards."""


class _Shard:
    """A shard that is being written, or was. starts, stops: of the image of each sample (int64), -1 if it is not known
    to be written."""

    def __init__(self, samples: int) -> None:
        self.starts = np.full(samples, -1, np.int64)
        self.stops = np.full(samples, -1, np.int64)
        self.view: memoryview | None = None

    def map(self, path: bytes, size: int) -> None:
        """Map the file at `path`, which will have `size` bytes; only what is written may be read. If it can't be
        mapped, nothing is."""
        with suppress(OSError):
            fd = os.open(path, os.O_RDONLY)
            try:
                self.view = view_of(map_file(fd, size))
            finally:
                os.close(fd)


class _Sink(Sink):
    """A sink that notes where the images are."""

    call_bytes = CALL_BYTES

    def __init__(self, fd: int, place: bytes, written: WrittenSamples, number: int) -> None:
        super().__init__(fd, place)
        self._written, self._number = written, number
        self._begun = False

    def gather(self, gatherer: Gatherer, number: int) -> Gathered | None:
        if not self._begun:
            self._begun = True
            self._written.begin(self._number, part_of(self.place))
        some = super().gather(gatherer, number)
        if some is not None:
            self._written.add(self._number, number, some)
        return some


class Views(NamedTuple):
    """The images of some samples: of each, its bytes are `buffers[shard][start:stop]`."""

    buffers: list[memoryview]
    shards: list[int]
    starts: list[int]
    stops: list[int]

    def some(self, begin: int, end: int) -> list[memoryview]:
        """The bytes of the images begin … end - 1."""
        columns = zip(self.shards[begin:end], self.starts[begin:end], self.stops[begin:end], strict=True)
        return [self.buffers[shard][start:stop] for shard, start, stop in columns]


class WrittenSamples:
    """Where the images of a plan's samples are in its shards, as far as this process wrote them. Thread-safe."""

    def __init__(self, plan: Plan, sizes: NDArray[np.int64]) -> None:
        self._plan, self._sizes = plan, sizes
        self._near = NEAR_BYTES * len(sizes) // max(1, int(sizes.sum())) + 1
        self._change = threading.Condition()
        self._shards: OrderedDict[int, _Shard] = OrderedDict()
        self._writing = False
        self._at: int | None = None
        self._patience = Patience()

    def sink(self, number: int, fd: int, place: bytes) -> Sink:
        """The sink for a shard."""
        return _Sink(fd, place, self, number)

    def writing(self, active: bool) -> None:
        """Writing begins, or has ended."""
        with self._change:
            self._writing, self._at = active, None
            self._change.notify_all()

    def begin(self, number: int, path: bytes) -> None:
        """Shard `number` is begun, in the file at `path`."""
        bounds = self._plan.bounds
        shard = _Shard(int(bounds[number + 1] - bounds[number]))
        shard.map(path, int(self._plan.shard_bytes[number]))
        with self._change:
            self._shards.pop(number, None)
            self._shards[number] = shard
            while len(self._shards) > 2 and sum(len(each.starts) for each in self._shards.values()) > KEPT_SAMPLES:
                self._shards.popitem(last=False)
            self._at = int(bounds[number])

    def add(self, number: int, first: int, some: Gathered) -> None:
        """Some samples of a shard are written, from its sample `first` on."""
        begin = int(self._plan.bounds[number]) + first
        end = begin + some.count
        with self._change:
            shard = self._shards[number]
            if shard.view is not None:
                starts = np.frombuffer(some.starts, np.int64)
                stops = starts + self._sizes[self._plan.order[begin:end]]
                if int(stops[-1]) <= len(shard.view):  # more only if files grew since the scan
                    shard.stops[first : first + some.count] = stops
                    shard.starts[first : first + some.count] = starts
            self._at = end
            self._change.notify_all()

    def views(self, rows: Rows) -> Views | None:
        """The images of these rows of the plan; None unless all of them are written, or will be in a moment."""
        with self._change:
            found = self._views(rows)
            seconds = 0.0 if found is not None or not self._expected(rows) else self._patience.seconds()
            if seconds:
                end = time.monotonic() + seconds
                while found is None and self._expected(rows) and (left := end - time.monotonic()) > 0:
                    self._change.wait(left)
                    found = self._views(rows)
            self._patience.asked(seconds, served=found is not None)
            return found

    def _expected(self, rows: Rows) -> bool:
        """Whether those of these rows that are not written yet are the next ones."""
        if self._at is None:
            return self._writing
        late = rows[rows >= self._at]
        return self._writing and len(late) > 0 and int(late.max()) < self._at + self._near

    def _views(self, rows: Rows) -> Views | None:
        numbers = np.searchsorted(self._plan.bounds, rows, side="right") - 1
        used, slots = np.unique(numbers, return_inverse=True)
        starts, stops = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
        buffers = []
        for slot, number in enumerate(used.tolist()):
            shard = self._shards.get(number)
            if shard is None or shard.view is None:
                return None
            where = slots == slot
            local = rows[where] - self._plan.bounds[number]
            starts[where], stops[where] = shard.starts[local], shard.stops[local]
            buffers.append(shard.view)
        if len(starts) and int(starts.min()) < 0:
            return None
        return Views(buffers, slots.tolist(), starts.tolist(), stops.tolist())
