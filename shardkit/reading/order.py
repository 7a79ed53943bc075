"""The order of an epoch: a pure function of the shards' sample counts, the seed, the epoch, the buffer and the lanes.

    1. The shards are permuted by (seed, epoch) and laid end to end: a line of N samples.
    2. The line is cut into L lanes; lane l is the next n_l samples, n_l = N // L + (1 if l < N % L else 0).
    3. In a lane, sample i leaves in the order of its sort key  k(i) = i + 2 b u(i),  where b is the lane's buffer and
       u(i) is uniform on [0, 1), from (seed, epoch, lane, i). With b >= n_l the key is u(i): a full permutation.
    4. Lanes are merged round-robin: place p of the epoch is lane p % L's next sample.

The shuffle buffer B is for the epoch as a whole: each lane has b = ceil(B / L). So about B samples wait at a time, and
a sample moves by at most 2 b in its lane, that is by at most about 2 B places in the epoch (on average B / 2 or less).

Any place is found without the ones before it. Of the samples of a lane before `lo`, all have keys below lo + 2 b, and
of those from `hi` on, none has a key below hi. So in the sorted keys of samples lo … hi - 1, those between lo + 2 b
and hi stand where they stand in the lane's whole order; and the sample that leaves r-th has a key in [r, r + 2 b].
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from shardkit.rng import permutation, stream_key, uniform

Positions = NDArray[np.int64]

CHUNK = 4096
"""Samples of a lane that are put in order together, at least. Larger ones cost memory, smaller ones repeat work."""


class Order(Protocol):
    """The order of one epoch: which row is at which place."""

    @property
    def samples(self) -> int:
        """The number of places."""
        ...

    def rows_at(self, places: Positions) -> Positions:
        """The rows at these places (int64, rising), in the order of `places`."""
        ...


@dataclass(frozen=True)
class EpochOrder:
    """The order of one epoch. `counts`: the samples of each shard (int64). `buffer` 0 keeps the line's order, and
    then the shards are not permuted either.

    Places are 0 … N - 1 in the epoch; rows are 0 … N - 1 in the dataset as it is packed. Thread safe.
    """

    counts: NDArray[np.int64]
    buffer: int
    seed: int
    epoch: int
    lanes: int

    @cached_property
    def samples(self) -> int:
        """N, the samples of the dataset."""
        return int(self.counts.sum())

    @cached_property
    def _line(self) -> tuple[Positions, Positions]:
        """For each shard on the line: where it begins there (and N at the end), and what to add to get rows."""
        first_rows = np.cumsum(self.counts) - self.counts
        if self.buffer:
            shards = permutation(len(self.counts), stream_key("shards", self.seed, self.epoch))
        else:
            shards = np.arange(len(self.counts))
        starts = np.zeros(len(shards) + 1, np.int64)
        np.cumsum(self.counts[shards], out=starts[1:])
        return starts, first_rows[shards] - starts[:-1]

    @cached_property
    def _chunks(self) -> dict[int, tuple[int, Positions]]:
        return {}

    def lane_range(self, lane: int) -> tuple[int, int]:
        """(start, length) of a lane on the line."""
        base, longer = divmod(self.samples, self.lanes)
        return lane * base + min(lane, longer), base + (lane < longer)

    def rows_of_line(self, line: Positions) -> Positions:
        """The rows at these positions of the line."""
        starts, shifts = self._line
        found: Positions = line + shifts[np.searchsorted(starts, line, side="right") - 1]
        return found

    def line(self, rows: Positions | None = None) -> Positions:
        """The rows as they lie on the line, before lanes and buffer: all, or those of `rows`."""
        line = self.rows_of_line(np.arange(self.samples))
        if rows is None:
            return line
        wanted = np.zeros(self.samples, np.int64)
        np.add.at(wanted, rows, 1)
        return np.repeat(line, wanted[line])

    def rows_at(self, places: Positions) -> Positions:
        """The rows at these places (int64, rising, within 0 … N - 1)."""
        if not self.buffer and self.lanes == 1:
            return self.rows_of_line(places)
        line = np.empty(len(places), np.int64)
        lanes, index = places % self.lanes, places // self.lanes
        by_lane = np.argsort(lanes, kind="stable")
        firsts = np.flatnonzero(np.diff(lanes[by_lane], prepend=-1)).tolist()
        for first, stop in zip(firsts, [*firsts[1:], len(places)], strict=True):
            where = by_lane[first:stop]
            line[where] = self._lane_positions(int(lanes[where[0]]), index[where])
        return self.rows_of_line(line)

    def _lane_positions(self, lane: int, index: Positions) -> Positions:
        """Positions on the line of the samples that leave a lane at these (rising) indices."""
        start, length = self.lane_range(lane)
        if not self.buffer:
            found: Positions = start + index
            return found
        size = self.chunk_size(length)
        first, last = int(index[0]) // size, int(index[-1]) // size
        parts = [self._chunk(lane, chunk, start, length) for chunk in range(first, last + 1)]
        return (parts[0] if len(parts) == 1 else np.concatenate(parts))[index - first * size]

    def lane_buffer(self) -> int:
        """b, the share of the shuffle buffer that each lane has."""
        return -(-self.buffer // self.lanes)

    def chunk_size(self, length: int) -> int:
        """Samples of a lane of this length that are put in order together."""
        buffer = self.lane_buffer()
        return length if buffer >= length else max(CHUNK, 4 * buffer)

    def _chunk(self, lane: int, chunk: int, start: int, length: int) -> Positions:
        """Positions on the line of the samples that leave a lane in one chunk; the lane's latest chunk is kept."""
        kept = self._chunks.get(lane)
        if kept is not None and kept[0] == chunk:
            return kept[1]
        size, buffer = self.chunk_size(length), self.lane_buffer()
        begin, end = chunk * size, min(length, (chunk + 1) * size)
        key = stream_key("lane", self.seed, self.epoch, lane)
        if buffer >= length:
            found = permutation(length, key)
        else:
            low, high = max(0, begin - 2 * buffer), min(length, end + 2 * buffer)
            keys = sort_keys(key, low, high, buffer)
            found = low + np.argsort(keys, kind="stable")[begin - low : end - low]
        found += start
        self._chunks[lane] = (chunk, found)
        return found


def sort_keys(key: int, low: int, high: int, buffer: int) -> NDArray[np.float64]:
    """The sort keys of samples low … high - 1 of a lane: i + 2 b u(i) (float64).

    Exact enough: a float64 holds i + 2 b u(i) to within 2^-20 for i below 2^33, and ties go by i.
    """
    index = np.arange(low, high, dtype=np.int64)
    keys = uniform(key, index)
    keys *= 2 * buffer
    keys += index
    return keys


def default_lanes(shuffled: bool) -> int:
    """The lanes where none are given: one without shuffling, which keeps the order of the shards."""
    return 16 if shuffled else 1
