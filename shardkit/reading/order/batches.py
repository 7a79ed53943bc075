"""The order of an epoch of batches: each has samples of one bucket, and the buckets alternate.

    1. The samples of each bucket have an order of their own (epoch_order.py), laid out for V ranks.
    2. In a bucket, each V n samples that follow each other are a group of V batches of n: sorted by section, lane and
       place (layout.py), batch v has the v-th run. So in a step of V ranks all batches have the same shape, and each
       rank reads its own part of the shards.
    3. What is left of a bucket, fewer than V n samples, gives single batches, the last of which may be smaller. Those
       of all buckets, taken in an order by (seed, epoch), form groups of V too.
    4. The K groups of a bucket are at the moments (k + u) / K, with u in [0, 1) from (seed, epoch, bucket, k), and are
       merged in the order of these; so all buckets advance through the shards together. Without shuffling, u is 1/2,
       and what is left comes last. An incomplete group of single batches is always the last.

All of it is a function of the buckets' sizes, seed and epoch: whoever knows them can name the samples of any batch.
A place is batch x n + number in the batch. A smaller batch has its samples at the last of its places, and -1 before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shardkit.reading.order.epoch_order import Order, Positions
from shardkit.reading.order.layout import Layout, deal
from shardkit.rng import permutation, stream_key, uniform
from shardkit.threads import cached_property

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class BatchOrder:
    """The batches of an epoch. orders: of the samples of each bucket, laid out as `layout` says. size: n.

    seed, epoch: of the sequence of the batches, if it is shuffled. drop_last: without smaller batches.
    """

    orders: Sequence[Order]
    size: int
    layout: Layout
    seed: int
    epoch: int
    shuffled: bool
    drop_last: bool

    @property
    def samples(self) -> int:
        """The number of places."""
        return self.batches * self.size

    @property
    def batches(self) -> int:
        """The number of batches."""
        return int(self._groups.sum()) * self.layout.sections + len(self._single)

    @cached_property
    def _counts(self) -> Numbers:
        return np.array([order.samples for order in self.orders], np.int64)

    @cached_property
    def _groups(self) -> Numbers:
        """The complete groups of each bucket."""
        found: Numbers = self._counts // (self.size * self.layout.sections)
        return found

    @cached_property
    def _single(self) -> Numbers:
        """The bucket of each single batch, in the order in which they come."""
        left = self._counts - self._groups * self.size * self.layout.sections
        count = left // self.size if self.drop_last else -(-left // self.size)
        buckets = np.arange(len(self.orders))
        if self.shuffled:
            buckets = permutation(len(self.orders), stream_key("buckets", self.seed, self.epoch))
        return np.repeat(buckets, count[buckets])

    @cached_property
    def _single_turns(self) -> Numbers:
        """The number of each single batch in its bucket."""
        begins = np.flatnonzero(np.diff(self._single, prepend=-1))
        return np.arange(len(self._single)) - np.repeat(begins, np.diff(begins, append=len(self._single)))

    @cached_property
    def _line(self) -> tuple[NDArray[np.int32], Numbers]:
        """(bucket, number in it) of each group in order; the number of buckets stands for groups of single batches."""
        counts = [*self._groups.tolist(), len(self._single) // self.layout.sections]
        buckets = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        turns = np.concatenate([np.arange(count) for count in counts])
        order = np.argsort(np.concatenate(list(map(self._moments, range(len(counts)), counts))), kind="stable")
        return buckets[order], turns[order]

    def _moments(self, bucket: int, count: int) -> NDArray[np.float64]:
        turns, chance = np.arange(count), np.full(count, 0.5)
        if self.shuffled:
            chance = uniform(stream_key("bucket", self.seed, self.epoch, bucket), turns)
        elif bucket == len(self.orders):
            chance += count
        found: NDArray[np.float64] = (turns + chance) / max(1, count)
        return found

    def bucket_of(self, batches: Numbers) -> Numbers:
        """The bucket of each of these batches."""
        return self._find(batches)[0]

    def lengths(self, batches: Numbers) -> Numbers:
        """The samples of each of these batches."""
        buckets, singles = self._find(batches)
        left = self._counts % (self.size * self.layout.sections)
        found: Numbers = np.where(
            singles < 0, self.size, np.minimum(self.size, left[buckets] - np.maximum(singles, 0) * self.size)
        )
        return found

    def _find(self, batches: Numbers) -> tuple[Numbers, Numbers]:
        """The bucket of each batch, and its number among the single batches of the bucket, -1 for one of a group."""
        buckets, _, singles = self._located(batches)
        return buckets, singles

    def _located(self, batches: Numbers) -> tuple[Numbers, Numbers, Numbers]:
        """(bucket, first place of the batch's group in the bucket, number among the single batches or -1)."""
        width, (line, turns) = self.layout.sections, self._line
        numbers, within = np.divmod(batches, width)
        last = numbers >= len(line)  # the incomplete group
        kept = np.minimum(numbers, max(0, len(line) - 1))
        bucket, turn = (
            (line[kept].astype(np.int64), turns[kept])
            if len(line)
            else (np.zeros_like(batches), np.zeros_like(batches))
        )
        single = last | (bucket == len(self.orders))
        turn = np.where(last, len(self._single) // width, turn)
        found = np.where(single, turn * width + within, 0)
        if len(self._single):
            bucket = np.where(single, self._single[found], bucket)
            number = np.where(single, self._single_turns[found], -1)
        else:
            number = np.full_like(bucket, -1)
        group = self.size * width
        return bucket, np.where(single, self._groups[bucket], turn) * group, number

    def rows_at(self, places: Positions) -> Positions:
        """The rows at these places, -1 where a smaller batch has none."""
        batches, slots = np.divmod(places, self.size)
        chosen, which = np.unique(batches, return_inverse=True)
        return self._rows(chosen)[which, slots]

    def _rows(self, batches: Numbers) -> Positions:
        """The rows of these batches (int64, batches x size)."""
        width = self.layout.sections
        buckets, firsts, singles = self._located(batches)
        rows = np.full((len(batches), self.size), -1, np.int64)
        places = np.full((len(batches), self.size), -1, np.int64)
        within = np.where(singles < 0, batches % width, singles)
        sizes = np.where(singles < 0, self.size * width, self._counts[buckets] - firsts)
        slots = np.arange(self.size)
        for size in np.unique(sizes).tolist():  # of groups, and what is left of each bucket
            mine = np.flatnonzero(sizes == size)
            numbers = within[mine, None] * self.size + slots
            inside = numbers < size
            found = deal(np.minimum(numbers, size - 1), firsts[mine, None], size, self.layout)
            found[~inside] = -1
            places[mine] = np.sort(found, axis=1)  # those that are missing come first
        for bucket in np.unique(buckets).tolist():
            mine = np.flatnonzero(buckets == bucket)
            own = places[mine]
            there = own >= 0
            order = np.argsort(own[there], kind="stable")
            found = np.empty(len(order), np.int64)
            found[order] = self.orders[bucket].rows_at(own[there][order])
            part = rows[mine]
            part[there] = found
            rows[mine] = part
        return rows


@dataclass(frozen=True, slots=True)
class BatchShare:
    """The part of `rank` of `world_size` in the batches of an epoch, of which the first `done` are finished.

    Each takes one batch of a step in turn. remainder: how to treat the batches of an incomplete last step: "drop" omits
    them, "pad" repeats the first ones, "uneven" gives some ranks one more.
    """

    batches: int
    size: int
    rank: int
    world_size: int
    remainder: str
    done: int

    def __len__(self) -> int:
        """The places of this rank's batches."""
        left = max(0, self.batches - self.done)
        if self.remainder == "drop":
            return left // self.world_size * self.size
        if self.remainder == "pad":
            return -(-left // self.world_size) * self.size
        return max(0, -(-(left - self.rank) // self.world_size)) * self.size

    def batches_at(self, numbers: Numbers) -> Numbers:
        """The batches of the epoch that are this rank's with these numbers; those of repeats are beyond its end."""
        found: Numbers = self.done + self.rank + numbers * self.world_size
        return found

    def places(self, numbers: Numbers) -> Numbers:
        """The places in the epoch of this rank's places with these numbers."""
        batches, slots = np.divmod(numbers, self.size)
        found: Numbers = self.batches_at(batches) * self.size + slots
        return found

    def rows(self, order: Order, numbers: Numbers) -> tuple[Positions, NDArray[np.bool_] | None]:
        """The rows at this rank's places with these numbers, -1 for none; and which are repeats (None: none)."""
        places = self.places(numbers)
        end = self.batches * self.size
        marks = places >= end
        rows = order.rows_at(np.where(marks, places % max(1, end), places))
        return rows, marks if marks.any() else None
