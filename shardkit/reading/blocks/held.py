"""The bytes of a block's samples: where they lie in their shards, and what holds them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from shardkit.errors import DamagedError
from shardkit.reading.blocks.block import Buffer, Prefetch, Rows
from shardkit.shards.buffers import ShardBuffers
from shardkit.storage.mapping import Mapping

if TYPE_CHECKING:
    from shardkit.reading.blocks.fetched import FetchedBytes

T = TypeVar("T")

Read = Callable[[int, Any, int], T]
"""`read(number, data, base)` takes a sample from bytes of its shard: data[0] is byte `base`. DamagedError where they
are not right."""

AT_ONCE = 16
"""Samples that are copied at once: one look at a mapped shard serves them all."""


class Spans:
    """Where the samples of a block lie.

    shards: the number of each sample's shard. starts, ends: the images, -1 and less where a sample has none. firsts,
    stops: what is read of each sample, which is all of it where it is not a plain one. (int64, n)
    """

    __slots__ = ("__dict__", "ends", "firsts", "shards", "starts", "stops")

    def __init__(self, shards: Rows, starts: Rows, ends: Rows, firsts: Rows, stops: Rows) -> None:
        self.shards, self.starts, self.ends, self.firsts, self.stops = shards, starts, ends, firsts, stops

    def __len__(self) -> int:
        return len(self.shards)

    @cached_property
    def images(self) -> tuple[list[int], list[int], list[int]]:
        """(shards, starts, ends) as lists."""
        return self.shards.tolist(), self.starts.tolist(), self.ends.tolist()

    @cached_property
    def wholes(self) -> tuple[list[int], list[int]]:
        """(firsts, stops) as lists."""
        return self.firsts.tolist(), self.stops.tolist()

    def runs(self, gap: int) -> list[tuple[int, int, int]]:
        """The runs of bytes in each shard that hold samples, split where more than `gap` bytes lie between two."""
        order = np.lexsort((self.firsts, self.shards))
        shards, starts, ends = self.shards[order], self.firsts[order], self.stops[order]
        apart: NDArray[np.bool_] = (np.diff(shards) != 0) | (starts[1:] - ends[:-1] > gap)
        firsts = np.concatenate([[0], np.flatnonzero(apart) + 1])
        lasts = np.append(firsts[1:], len(order)) - 1
        return list(zip(shards[firsts].tolist(), starts[firsts].tolist(), ends[lasts].tolist(), strict=True))


class SampleBytes(Protocol):
    """Holds the bytes of a block's samples. Its methods may be called from any thread.

    They raise NotFoundError, StorageError, and ManifestError or DamagedError for a shard that is not as it should be.
    """

    whole: bool
    """Whether the shards are here as a whole, and not only the samples' own spans of them."""

    @property
    def arriving(self) -> Sequence[FetchedBytes]:
        """Itself where it is to be asked for ahead of use."""
        ...

    def view(self, number: int, read: Read[T]) -> T:
        """What `read` takes from the bytes of a sample, without a copy. Bytes that may be wrong on their way alone are
        fetched once more where it raises DamagedError."""
        ...

    def parse(self, number: int, read: Read[T]) -> T:
        """As `view`, of data whose slices are bytes."""
        ...

    def again(self, number: int, read: Read[T], error: DamagedError) -> T:
        """As `view`, of a sample whose bytes were found to be wrong: `error` is raised where they can't be had anew."""
        ...

    def views(self, begin: int, end: int) -> list[Buffer] | None:
        """The bytes of the images of some samples, without a copy; None where each has to be waited for."""
        ...

    def copies(self) -> Iterator[list[bytes]]:
        """The bytes of all images in order, at most AT_ONCE at a time, each as soon as it is there."""
        ...

    def prove(self, require: Callable[[int, Mapping], None]) -> None:
        """Have `require(shard, data)` look at each shard that is new, or was written to: it may be another's."""
        ...


class ShardAccess(Protocol):
    """How the shards of a catalog are reached."""

    @property
    def shards(self) -> ShardBuffers:
        """The shards as buffers."""
        ...

    @property
    def prefetch(self) -> Prefetch:
        """What brings their bytes in ahead of use."""
        ...

    @property
    def unsure(self) -> bool:
        """Whether bytes may be wrong on their way, so that each image is checked."""
        ...

    def bytes_of(self, spans: Spans) -> SampleBytes:
        """The bytes of a block's samples."""
        ...
