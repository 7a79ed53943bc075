"""The bytes of samples in local shards: views of mapped files, which are checked again while they are used."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from shardkit.errors import DamagedError
from shardkit.reading.blocks.held import AT_ONCE, Columns, Read, Spans, T, samples_extension
from shardkit.reading.blocks.prefetch import KernelPrefetch
from shardkit.sample import AnySample
from shardkit.shards.buffers import MappedShards, ShardFile
from shardkit.storage.mapped import LOOK_SECONDS
from shardkit.storage.mapping import Mapping, view_of
from shardkit.threads import cached_property

if TYPE_CHECKING:
    from shardkit.reading.blocks.fetched import FetchedBytes


class MappedAccess:
    """Shards on a disk: mapped, and read ahead by the kernel."""

    unsure = False

    def __init__(self, files: Sequence[ShardFile], *, verify: bool, limit: int) -> None:
        self.shards = MappedShards(files, verify=verify, limit=limit)
        self.prefetch = KernelPrefetch()

    def bytes_of(self, spans: Spans) -> MappedBytes:
        """The bytes of a block's samples."""
        return MappedBytes(self.shards, spans)


class MappedBytes:
    """The bytes of a block's samples, in mapped shards."""

    whole = True
    arriving: Sequence[FetchedBytes] = ()

    __slots__ = ("__dict__", "_due", "_shards", "_spans")

    def __init__(self, shards: MappedShards, spans: Spans) -> None:
        self._shards, self._spans = shards, spans
        self._due = 0.0

    @cached_property
    def _maps(self) -> dict[int, Mapping]:
        return {shard: self._shards.buffer(shard) for shard in self._spans.used}

    @cached_property
    def _buffers(self) -> dict[int, memoryview]:
        return {shard: view_of(data) for shard, data in self._maps.items()}

    def _look(self) -> float:
        """Check the shards; returns when to check again. StorageError if one became shorter. A check is valid until
        `_due`: a block may be in use for long, and code that reads many samples calls this itself."""
        now = time.monotonic()
        if now >= self._due:
            self._due = now + LOOK_SECONDS
            for shard in self._maps:
                self._shards.require_unchanged(shard)
        return self._due

    def view(self, number: int, read: Read[T]) -> T:
        """What `read` extracts from a view of the whole shard."""
        self._look()
        return read(number, self._buffers[self._spans.images[0][number]], 0)

    def parse(self, number: int, read: Read[T]) -> T:
        """What `read` extracts from the whole shard."""
        self._look()
        return read(number, self._maps[self._spans.images[0][number]], 0)

    def again(self, number: int, read: Read[T], error: DamagedError) -> T:
        """Raise the error: a disk has no other bytes."""
        raise error

    def views(self, begin: int, end: int) -> list[memoryview]:
        """The bytes of the images of some samples."""
        shards, starts, ends = self._spans.images
        buffers = self._buffers
        self._look()
        columns = zip(shards[begin:end], starts[begin:end], ends[begin:end], strict=True)
        return [buffers[shard][start:stop] for shard, start, stop in columns]

    def copies(self) -> Iterator[list[bytes]]:
        """The bytes of all images in order."""
        maps, clock, due = self._maps, time.monotonic, 0.0
        columns = zip(*self._spans.images, strict=True)
        for _ in range(0, len(self._spans), AT_ONCE):
            if clock() >= due:
                due = self._look()
            yield [maps[shard][start:end] for shard, start, end in itertools.islice(columns, AT_ONCE)]

    def dicts(self, columns: Columns) -> Iterator[AnySample] | None:
        """All samples in order, made in C; None without the C extension."""
        native, spans = samples_extension(), self._spans
        if native is None:
            return None
        offsets, texts = zip(*columns.texts, strict=True)
        found: Iterator[AnySample] = native.Samples(
            list(self._maps.values()), spans.slots, spans.starts, spans.ends, offsets, texts, columns.rows,
            columns.labels, columns.urls, columns.fields, self._look,
        )  # fmt: skip
        return found

    def prove(self, require: Callable[[int, Mapping], None]) -> None:
        """Call `require` for each shard that is new or was written to."""
        proven, stamps = self._shards.proven, self._shards.stamps
        for shard, data in self._maps.items():
            stamp = stamps.get(shard)
            if stamp is not None and proven.get(shard) != stamp:
                require(shard, data)
                proven[shard] = stamp
