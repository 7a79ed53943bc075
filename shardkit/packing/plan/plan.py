"""The plan: which row of the source goes to which shard, decided before anything is written.

Pure: the same for the same sizes, limits and seed, on any machine and for any number of workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import msgspec
import numpy as np
from numpy.typing import NDArray

from shardkit import rng
from shardkit.errors import UsageError
from shardkit.packing.plan.cut import split_evenly
from shardkit.shards.names import shard_name
from shardkit.sources.scratch import pieces, release, scratch, sort_rows

Sizes = NDArray[np.int64]

SPREAD = 8
SPREAD_BYTES = 8 << 20


class ShardNames(msgspec.Struct, frozen=True):
    """The file names of shards: their beginning and ending, and the number in the name of the first."""

    base: str
    suffix: str
    first: int = 0

    def name(self, number: int, count: int) -> str:
        """The name of one of `count` shards. All have six digits, or as many as the last one needs."""
        digits = max(6, len(str(self.first + count - 1)))
        return shard_name(self.base, self.first + number, self.suffix, digits=digits)


class ShardPlan(msgspec.Struct, frozen=True, eq=False):
    """One shard: its number, file name, rows of the source in order (int64), and exact size in bytes."""

    number: int
    name: str
    rows: NDArray[np.int64]
    bytes: int


class Plan(msgspec.Struct, frozen=True, eq=False):
    """All shards. Shard k has the rows `order[bounds[k]:bounds[k + 1]]` and `shard_bytes[k]` bytes.

    order: int32, or int64 from 2^31 rows on. bounds: int64, shards + 1. shard_bytes: int64, overhead included.
    """

    order: NDArray[np.integer]
    bounds: NDArray[np.int64]
    shard_bytes: NDArray[np.int64]
    naming: ShardNames

    def __len__(self) -> int:
        return len(self.shard_bytes)

    @property
    def names(self) -> Sequence[str]:
        """The file names of the shards, in order."""
        return [self.name(number) for number in range(len(self))]

    def name(self, number: int) -> str:
        """The file name of a shard."""
        return self.naming.name(number, len(self))

    def shard(self, number: int) -> ShardPlan:
        """Shard `number`, 0 … len - 1; IndexError beyond."""
        if not 0 <= number < len(self):
            raise IndexError(f"shard {number} of {len(self)}")
        rows = self.order[self.bounds[number] : self.bounds[number + 1]].astype(np.int64)
        return ShardPlan(number, self.name(number), rows, int(self.shard_bytes[number]))


def plan_shards(
    sample_bytes: NDArray[np.int64],
    names: ShardNames,
    *,
    overhead: int,
    max_bytes: int,
    max_count: int | None,
    shuffle: bool,
    seed: int,
) -> Plan:
    """Distribute rows over shards of about equal bytes, none over `max_bytes` or `max_count` samples.

    sample_bytes: the bytes of each row in a shard (int64). overhead: the bytes of a shard besides its samples. A sample
    that alone is over `max_bytes` gets a shard of its own. With `shuffle`, the order is a permutation drawn from
    `seed`.

    There are as few shards as the limits allow, but at least 8 of 8 MiB or more (fewer for a dataset under 64 MiB):
    readers such as webdataset give each worker whole shards, so that one shard would leave all but one without work.

    Raises UsageError for limits that leave no room for any sample.
    """
    count = len(sample_bytes)
    _check_limits(max_bytes, overhead, max_count)
    order, ends = _ordered(sample_bytes, shuffle, seed)
    least = max(1, min(SPREAD, int(ends[-1]) // SPREAD_BYTES))
    bounds = split_evenly(ends, max_bytes=max_bytes - overhead, max_count=max_count or max(1, count), least=least)
    return Plan(order, bounds, np.diff(ends[bounds]) + overhead, names)


def _ordered(sample_bytes: Sizes, shuffle: bool, seed: int) -> tuple[NDArray[np.integer], Sizes]:
    """The order of the rows, and n + 1 sums: of the bytes of the first 0, 1, 2 … rows in this order."""
    count = len(sample_bytes)
    order, ends = scratch(count, order_type(count)), scratch(count + 1, np.int64)

    def values(start: int, end: int) -> Sizes:
        release(sample_bytes)
        return sample_bytes[start:end]

    if shuffle:
        sort_rows(order, partial(rng.bits, rng.stream_key("pack", seed)), values, ends[1:])
    ends[0] = total = 0
    for start, end in pieces(count):
        if not shuffle:
            order[start:end] = np.arange(start, end)
        np.cumsum(ends[start + 1 : end + 1] if shuffle else values(start, end), out=ends[start + 1 : end + 1])
        ends[start + 1 : end + 1] += total
        total = int(ends[end])
        release(order, ends)
    return order, ends


def order_type(count: int) -> type[np.integer]:
    """The type that holds the numbers of `count` rows."""
    return np.int32 if count < 2**31 else np.int64


def _check_limits(max_bytes: int, overhead: int, max_count: int | None) -> None:
    if max_bytes <= overhead:
        fact = f"{max_bytes} bytes can't hold a sample: an empty shard takes {overhead}"
        raise UsageError("max_bytes", fact, "allow more, such as 256MB")
    if max_count is not None and max_count < 1:
        raise UsageError("max_count", f"a shard of {max_count} samples is empty", "allow at least 1")
