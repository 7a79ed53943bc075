"""The order of an epoch: a pure function of the shards' sample counts, the seed, the epoch, the buffer and the lanes.

    1. The shards are permuted by (seed, epoch) and laid end to end: a line of N samples.
    2. The N samples are shared by V sections, N // V + (1 if v < N % V else 0) each, and the n of a section by L lanes,
       n_l = n // L + (1 if l < n % L else 0) each. A lane is a run of the line. Groups of 8 sections follow each other;
       in a group, first lane 0 of each section, then lane 1 of each, so that a section draws from all of its group. In
       a shuffled order, the sections of a group are permuted by (seed, epoch) in each lane: otherwise samples from two
       lanes of a section would share a section again in most epochs.
    3. In a lane, samples are sorted by the key  k(i) = i + 2 b u(i),  where b is the lane's buffer and
       u(i) is uniform on [0, 1), from (seed, epoch, lane, i); the key is truncated to 16 binary digits after the
       point, and ties are in the order of i. With b >= n_l the key is u(i): a full permutation of the lane.
    4. Lanes are merged round-robin, and so are sections: place p of the epoch is the next sample of section p % V, and
       there of lane (p // V) % L.
    With several sections, the line is turned by a random distance of (seed, epoch), so that samples of one shard do not
    always share a section. With nodes, the sections of a node are a group, and the shards are dealt to the nodes by
    (seed) alone: a node's part of the line has the same samples in all epochs, is permuted by (seed, epoch, node), and
    is turned by itself.
    If the buffer holds the whole dataset, B >= N, the order is instead a full permutation by (seed, epoch); with nodes,
    of each node's part by (seed, epoch, node).

The shuffle buffer B is for a section, that is for a rank: each lane has b = ceil(B / L). So about B samples of a
section wait at a time, and a sample moves by at most 2 b in its lane, that is by at most about 2 B places of its
section (on average B / 2 or less).

Any place can be computed without the preceding ones. Of the samples of a lane before `lo`, all have keys below lo + 2
b, and of those from `hi` on, none has a key below hi. So among the sorted keys of samples lo … hi - 1, those between lo
+ 2 b and hi have the same position as in the lane's whole order; and the r-th sample has a key in [r, r + 2 b].
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import gcd
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from shardkit.rng import permutation, stream_key, uniform
from shardkit.threads import cached_property

Positions = NDArray[np.int64]

GROUP = 8
"""Sections that share a part of the line: as many as a node often has ranks, so that it reads few shards."""

CHUNK = 4096
"""Smallest number of samples of a lane to sort together. Larger numbers cost memory, smaller ones repeat work."""


class Order(Protocol):
    """The order of one epoch: which row is at which place."""

    @property
    def samples(self) -> int:
        """The number of places."""
        ...

    def rows_at(self, places: Positions) -> Positions:
        """The rows at these places (int64, ascending), in the order of `places`."""
        ...


@dataclass(frozen=True)
class EpochOrder:
    """The order of one epoch. `counts`: the samples of each shard (int64).

    With `buffer` 0 the line keeps its order, and the shards are not permuted either. Places are 0 … N - 1 in the epoch;
    rows are 0 … N - 1 in the dataset as packed. Thread safe.
    """

    counts: NDArray[np.int64]
    buffer: int
    seed: int
    epoch: int
    lanes: int
    """Of each section."""
    sections: int = 1
    node: int = 0
    """The sections of a node that keeps its part of the line; 0 for none."""

    @cached_property
    def samples(self) -> int:
        """N, the number of samples in the dataset."""
        return int(self.counts.sum())

    @cached_property
    def _line(self) -> tuple[Positions, Positions]:
        """For each shard on the line: its start (plus N at the end), and the offset from line positions to rows."""
        first_rows = np.cumsum(self.counts) - self.counts
        if self.buffer and self.node:
            return self._line_of_nodes(first_rows)
        if self.buffer:
            shards = permutation(len(self.counts), stream_key("shards", self.seed, self.epoch))
        else:
            shards = np.arange(len(self.counts))
        starts = np.zeros(len(shards) + 1, np.int64)
        np.cumsum(self.counts[shards], out=starts[1:])
        return starts, first_rows[shards] - starts[:-1]

    def _line_of_nodes(self, first_rows: Positions) -> tuple[Positions, Positions]:
        """The same if nodes keep their samples; a shard at the boundary of two nodes is in two parts."""
        fixed = permutation(len(self.counts), stream_key("nodes", self.seed))
        starts = np.cumsum(self.counts[fixed]) - self.counts[fixed]
        begins = np.unique(np.concatenate([starts, self._parts[:-1]]))
        begins = begins[begins < self.samples]
        shards = np.searchsorted(starts, begins, side="right") - 1
        lengths = np.diff(begins, append=self.samples)
        rows = first_rows[fixed[shards]] + begins - starts[shards]
        bounds = np.searchsorted(begins, self._parts).tolist()
        pieces = np.concatenate([
            low + permutation(high - low, stream_key("shards", self.seed, self.epoch, node))
            for node, (low, high) in enumerate(pairwise(bounds))
        ])  # fmt: skip
        line = np.zeros(len(pieces) + 1, np.int64)
        np.cumsum(lengths[pieces], out=line[1:])
        return line, rows[pieces] - line[:-1]

    @cached_property
    def _parts(self) -> Positions:
        """The start of each node's part of the line, and N at the end."""
        node = self.node or self.sections
        sections = np.minimum(np.arange(-(-self.sections // node) + 1) * node, self.sections)
        base, longer = divmod(self.samples, self.sections)
        return sections * base + np.minimum(sections, longer)

    @cached_property
    def _turns(self) -> Positions:
        """By how much each node's part of the line is turned."""
        chance = uniform(stream_key("turn", self.seed, self.epoch), np.arange(len(self._parts) - 1))
        return (chance * np.diff(self._parts)).astype(np.int64)

    @cached_property
    def _whole(self) -> Positions:
        """All rows in a random order, for when the buffer holds them all; with nodes, line positions, node by node."""
        if not self.node:
            return permutation(self.samples, stream_key("whole", self.seed, self.epoch))
        return np.concatenate([
            low + permutation(high - low, stream_key("whole", self.seed, self.epoch, node))
            for node, (low, high) in enumerate(pairwise(self._parts.tolist()))
        ])  # fmt: skip

    def _numbers(self, places: Positions) -> Positions:
        """The numbers of places sorted by section."""
        turns, sections = np.divmod(places, self.sections)
        base, longer = divmod(self.samples, self.sections)
        found: Positions = sections * base + np.minimum(sections, longer) + turns
        return found

    @cached_property
    def _chunks(self) -> dict[int, tuple[int, Positions]]:
        return {}

    @cached_property
    def _used(self) -> int:
        """The lanes of a section that may have samples: with more lanes than samples, each has one."""
        return max(1, min(self.lanes, -(-self.samples // self.sections)))

    def lane_range(self, lane: int) -> tuple[int, int]:
        """(start, length) of a lane on the line. lane: section x lanes of each + lane of it."""
        starts, lengths = self._lanes
        return int(starts[lane]), int(lengths[lane])

    @cached_property
    def _lanes(self) -> tuple[Positions, Positions]:
        """(start on the line, length) of each lane, by section and lane."""
        base, longer = divmod(self.samples, self.sections)
        sections = base + (np.arange(self.sections) < longer)
        bases, longer_lanes = np.divmod(sections[:, None], self._used)
        lengths = bases + (np.arange(self._used) < longer_lanes)
        starts, at, chances = np.empty_like(lengths), 0, self._chances()
        for low in range(0, self.sections, self.node or GROUP):
            group = slice(low, low + (self.node or GROUP))
            turn = np.argsort(chances[group].T, axis=1, kind="stable")
            own = np.take_along_axis(lengths[group].T, turn, 1)  # on the line by lane, then by the turn of the section
            ends = np.cumsum(own).reshape(own.shape) + at
            np.put_along_axis(starts[group].T, turn, ends - own, 1)
            at = int(ends[-1, -1])
        return starts.ravel(), lengths.ravel()

    def _chances(self) -> NDArray[np.float64]:
        """What the sections of a group are sorted by in each lane (float64, sections x lanes)."""
        if not self.buffer:
            return np.zeros((self.sections, self._used))
        numbers = np.arange(self.sections * self._used).reshape(self.sections, self._used)
        return uniform(stream_key("sections", self.seed, self.epoch), numbers)

    def _turned(self, line: Positions) -> Positions:
        """The positions from which those of the lanes are taken."""
        if self.sections == 1:
            return line
        part = np.searchsorted(self._parts, line, side="right") - 1
        start = self._parts[part]
        found: Positions = start + (line - start + self._turns[part]) % (self._parts[part + 1] - start)
        return found

    def rows_of_line(self, line: Positions) -> Positions:
        """The rows at these positions of the line."""
        starts, shifts = self._line
        found: Positions = line + shifts[np.searchsorted(starts, line, side="right") - 1]
        return found

    def line(self, rows: Positions | None = None) -> Positions:
        """The rows in line order, before lanes and buffer: all, or those of `rows`, which may repeat."""
        if rows is None:
            return self.rows_of_line(np.arange(self.samples))
        ascending = rows if bool((rows[1:] >= rows[:-1]).all()) else np.sort(rows)
        starts, shifts = self._line
        first_rows = starts[:-1] + shifts
        lows = np.searchsorted(ascending, first_rows)
        highs = np.searchsorted(ascending, first_rows + np.diff(starts))
        found, at = np.empty(len(rows), np.int64), 0
        for low, high in zip(lows.tolist(), highs.tolist(), strict=True):
            found[at : at + high - low] = ascending[low:high]
            at += high - low
        return found

    def rows_at(self, places: Positions) -> Positions:
        """The rows at these places (int64, ascending, within 0 … N - 1)."""
        if not self.buffer and self.lanes == 1:
            return self.rows_of_line(places)
        if self.buffer >= self.samples:
            found: Positions = self._whole[self._numbers(places) if self.node else places]
            return self.rows_of_line(found) if self.node else found
        line = np.empty(len(places), np.int64)
        for where, lane, index in self._by_lane(places):
            line[where] = self._lane_positions(lane, index)
        return self.rows_of_line(self._turned(line))

    def _by_lane(self, places: Positions) -> Iterator[tuple[slice | Positions, int, slice | Positions]]:
        """(indices into the places, lane, their numbers in it) for each lane that has some."""
        step = int(places[1] - places[0]) if len(places) > 1 else self.sections
        turns, sections = np.divmod(places, self.sections)
        if step > 0 and step % self.sections == 0 and bool((np.diff(places) == step).all()):
            step //= self.sections  # the places of one lane are evenly spaced
            period = self._used // gcd(step, self._used)
            stride = step * period // self._used
            for turn, place in enumerate(turns[:period].tolist()):
                count = -(-(len(places) - turn) // period)
                first, lane = divmod(place, self._used)
                lane += int(sections[0]) * self._used
                yield slice(turn, None, period), lane, slice(first, first + count * stride, stride)
            return
        index, lanes = np.divmod(turns, self._used)
        lanes += sections * self._used
        by_lane = np.argsort(lanes, kind="stable")
        firsts = np.flatnonzero(np.diff(lanes[by_lane], prepend=-1)).tolist()
        for begin, stop in zip(firsts, [*firsts[1:], len(places)], strict=True):
            where = by_lane[begin:stop]
            yield where, int(lanes[where[0]]), index[where]

    def _lane_positions(self, lane: int, index: slice | Positions) -> Positions:
        """Line positions of the samples with these (ascending) numbers in a lane's order."""
        start, length = self.lane_range(lane)
        if not self.buffer:
            numbers = np.arange(index.start, index.stop, index.step) if isinstance(index, slice) else index
            found: Positions = start + numbers
            return found
        size = self.chunk_size(length)
        low, high = (index.start, index.stop - index.step) if isinstance(index, slice) else (index[0], index[-1])
        first, last = int(low) // size, int(high) // size
        parts = [self._chunk(lane, chunk, start, length) for chunk in range(first, last + 1)]
        whole, base = parts[0] if len(parts) == 1 else np.concatenate(parts), first * size
        if isinstance(index, slice):
            return whole[index.start - base : index.stop - base : index.step]
        return whole[index - base]

    def lane_buffer(self) -> int:
        """b, the share of the shuffle buffer that each lane has."""
        return -(-self.buffer // self._used)

    def chunk_size(self, length: int) -> int:
        """The number of samples to sort together in a lane of this length."""
        buffer = self.lane_buffer()
        return length if buffer >= length else max(CHUNK, 4 * buffer)

    def _chunk(self, lane: int, chunk: int, start: int, length: int) -> Positions:
        """Line positions of the samples of one chunk of a lane's order; the lane's latest chunk is cached."""
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
            found = low + sorted_by_key(key, low, high, buffer)[begin - low : end - low]
        found += start
        self._chunks[lane] = (chunk, found)
        return found


FRACTION = 16
"""Binary digits of a sort key after the point. They do not depend on the window, so the order does not either."""

PACKED_WINDOW = 1 << 22
"""Samples whose key and number fit in one 64-bit word, which NumPy sorts several times as fast as by argsort."""


def sorted_by_key(key: int, low: int, high: int, buffer: int) -> Positions:
    """The numbers 0 … high - low - 1 in the order of the sort keys of samples low … high - 1 of a lane (int64)."""
    count = high - low
    scaled = uniform(key, np.arange(low, high, dtype=np.int64))
    scaled *= 2 * buffer << FRACTION
    words = scaled.astype(np.uint64)
    numbers = np.arange(count, dtype=np.uint64)
    words += numbers << np.uint64(FRACTION)
    if count + 2 * buffer >= PACKED_WINDOW:
        return np.argsort(words, kind="stable")
    shift = np.uint64(64 - FRACTION - 24)  # 24 bits for the integer part of the key, which is below 2 ** 23
    words <<= shift
    words |= numbers
    words.sort()
    words &= (np.uint64(1) << shift) - np.uint64(1)
    return words.astype(np.int64)


def default_lanes(shuffled: bool) -> int:
    """The default number of lanes: one without shuffling, which keeps the order of the shards."""
    return 16 if shuffled else 1
