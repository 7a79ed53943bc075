"""The bytes of a block's samples: their places in the shards, and the protocols of what holds them."""

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
"""`read(number, data, base)` extracts a sample from bytes of its shard: data[0] is byte `base`. DamagedError if they
are wrong."""

AT_ONCE = 16
"""The number of samples to copy at once: one check of a mapped shard serves them all."""


class Spans:
    """The places of a block's samples.

    shards: the number of each sample's shard. starts, ends: the images, -1 or less for a sample without one. firsts,
    stops: the bytes to read of each sample, which is all of it unless it is plain. (int64, n)
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
        """The runs of bytes in each shard that hold samples, split where two are more than `gap` bytes apart."""
        order = np.lexsort((self.firsts, self.shards))
        shards, starts, ends = self.shards[order], self.firsts[order], self.stops[order]
        apart: NDArray[np.bool_] = (np.diff(shards) != 0) | (starts[1:] - ends[:-1] > gap)
        firsts = np.concatenate([[0], np.flatnonzero(apart) + 1])
        lasts = np.append(firsts[1:], len(order)) - 1
        return list(zip(shards[firsts].tolist(), starts[firsts].tolist(), ends[lasts].tolist(), strict=True))


class SampleBytes(Protocol):
    """Holds the bytes of a block's samples. Its methods may be called from any thread.

    They raise NotFoundError, StorageError, and ManifestError or DamagedError for a shard that is not as expected.
    """

    whole: bool
    """Whether whole shards are available locally, and not only the samples' own spans."""

    @property
    def arriving(self) -> Sequence[FetchedBytes]:
        """Itself, if it should be requested ahead of use."""
        ...

    def view(self, number: int, read: Read[T]) -> T:
        """What `read` extracts from the bytes of a sample, without a copy. If it raises DamagedError, bytes that may
        have been damaged in transit are fetched once more."""
        ...

    def parse(self, number: int, read: Read[T]) -> T:
        """As `view`, from data whose slices are bytes."""
        ...

    def again(self, number: int, read: Read[T], error: DamagedError) -> T:
        """As `view`, for a sample whose bytes were wrong: `error` is raised if they can't be fetched again."""
        ...

    def views(self, begin: int, end: int) -> list[Buffer] | None:
        """The bytes of the images of some samples, without a copy; None if each has to be awaited."""
        ...

    def copies(self) -> Iterator[list[bytes]]:
        """The bytes of all images in order, at most AT_ONCE at a time, each as soon as it is available."""
        ...

    def prove(self, require: Callable[[int, Mapping], None]) -> None:
        """Call `require(shard, data)` for each shard that is new or was written to: it may be another dataset's."""
        ...


class ShardAccess(Protocol):
    """Access to the shards of a catalog."""

    @property
    def shards(self) -> ShardBuffers:
        """The shards as buffers."""
        ...

    @property
    def prefetch(self) -> Prefetch:
        """Loads their bytes ahead of use."""
        ...

    @property
    def unsure(self) -> bool:
        """Whether bytes may be damaged in transit, so that each image is checked."""
        ...

    def bytes_of(self, spans: Spans) -> SampleBytes:
        """The bytes of a block's samples."""
        ...
