"""The bytes of samples in a store: fetched ahead of use, in the cache, or else fetched when they are used."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shardkit.errors import DamagedError
from shardkit.location import Location
from shardkit.reading.blocks.fetch_ahead import StorePrefetch
from shardkit.reading.blocks.held import AT_ONCE, Columns, Read, Spans, T
from shardkit.reading.stats.record import Recorder
from shardkit.shards.buffers import ShardFile
from shardkit.shards.fetched import FetchedShards
from shardkit.shards.objects import Objects
from shardkit.storage.fetchers import Job
from shardkit.storage.mapped import MappedFile
from shardkit.storage.mapping import Mapping

log = logging.getLogger(__name__)


class FetchedAccess:
    """Shards in a folder of a store: ranges of them, requested ahead of use."""

    unsure = True

    def __init__(
        self, files: Sequence[ShardFile], folder: Location, objects: Objects, *, verify: bool, limit: int
    ) -> None:
        self.shards = FetchedShards(files, folder, objects, verify=verify, limit=limit)
        self.prefetch = StorePrefetch(objects.how)

    def bytes_of(self, spans: Spans) -> FetchedBytes:
        """The bytes of a block's samples."""
        return FetchedBytes(self.shards, spans)


class FetchedBytes:
    """The bytes of a block's samples: requested ahead (`jobs`), in the cache, or else fetched when they are used."""

    whole = False

    def __init__(self, shards: FetchedShards, spans: Spans) -> None:
        self.shards, self.spans = shards, spans
        self.firsts, self.stops = spans.firsts, spans.stops
        self.jobs: list[Job | None] = [None] * len(spans)
        """The job that fetches each sample and puts its bytes into `data`."""
        self.data: list[bytes | memoryview | None] = [None] * len(spans)
        self.chunks: list[int] = []
        """The chunks that hold its samples, in the order of need: shard << 32 | number."""
        self.wanted = 0
        """The bytes of samples that must be fetched."""
        self.here: dict[int, MappedFile] = {}
        """The shards in the cache."""
        self.record: Recorder | None = None
        """Of the iteration that requests them."""

    @property
    def arriving(self) -> Sequence[FetchedBytes]:
        """Itself."""
        return (self,)

    def by_chunk(self, chunk_bytes: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """(chunk, the samples that begin in it), for all samples that must be fetched; sets `chunks` and `wanted`.

        A gzip shard is one chunk.
        """
        of, files = self.spans.shards, self.shards.files
        numbers, chunks = np.arange(len(self.spans)), self.firsts // chunk_bytes
        for shard in np.unique(of).tolist():
            mapped = self.shards.here(shard)
            if mapped is not None:
                self.here[shard] = mapped
            elif files[shard].unpacked:
                chunks[of == shard] = 0
        if self.here:
            numbers = np.flatnonzero(~np.isin(of, list(self.here)))
        keys = (of << 32 | chunks)[numbers]
        order = np.argsort(keys, kind="stable")
        bounds = [*np.flatnonzero(np.diff(keys[order], prepend=-1)).tolist(), len(order)]
        groups = [numbers[order[low:high]] for low, high in pairwise(bounds)]
        groups.sort(key=lambda group: int(group[0]))
        self.chunks = [int(of[group[0]]) << 32 | int(chunks[group[0]]) for group in groups]
        self.wanted = int((self.stops - self.firsts)[numbers].sum())
        return zip(self.chunks, groups, strict=True)

    def view(self, number: int, read: Read[T]) -> T:
        """What `read` extracts from a sample's bytes. Wrong bytes are fetched once more."""
        try:
            return read(number, self._bytes(number), self.spans.wholes[0][number])
        except DamagedError as exc:
            return self.again(number, read, exc)

    def parse(self, number: int, read: Read[T]) -> T:
        """As `view`, from bytes."""
        return self.view(number, lambda number, data, base: read(number, bytes(data), base))

    def again(self, number: int, read: Read[T], error: DamagedError) -> T:
        """Fetch a sample's bytes once more; returns what `read` extracts. For a gzip shard, raises the error."""
        shard, first, stop = self._span(number)
        log.warning("%s; fetching it again", error)
        if self.shards.files[shard].unpacked:
            raise error
        data = self.shards.again(shard, first, stop)
        found = read(number, bytes(data), first)
        self.shards.replace_damaged(shard, first, data)
        return found

    def views(self, begin: int, end: int) -> None:
        """None: each sample has to be awaited, and is fetched once more if it is wrong."""
        return

    def copies(self) -> Iterator[list[bytes]]:
        """The bytes of all images in order: the next one once it has arrived, together with those after it that have
        arrived too."""
        number, count = 0, len(self.spans)
        while number < count:
            datas, limit = [bytes(self._bytes(number))], min(count, number + AT_ONCE)
            number += 1
            while number < limit and (data := self.data[number]) is not None:
                datas.append(bytes(data))
                number += 1
            yield datas

    def dicts(self, columns: Columns) -> None:
        """None: each image is awaited and checked."""
        return

    def prove(self, require: Callable[[int, Mapping], None]) -> None:
        """Do nothing: each image is checked."""

    def _span(self, number: int) -> tuple[int, int, int]:
        firsts, stops = self.spans.wholes
        return self.spans.images[0][number], firsts[number], stops[number]

    def _bytes(self, number: int) -> Any:
        """The bytes to read for a sample: firsts … stops - 1 of its shard. Errors as in `Job.value`."""
        job = self.jobs[number]
        if job is not None:
            if job.done.is_set() or self.record is None:
                job.value()
            else:
                with self.record.waiting():
                    job.value()
            data = self.data[number]
            assert data is not None
            return data
        shard, first, stop = self._span(number)
        if (mapped := self.here.get(shard)) is not None and mapped.there() >= len(mapped):
            return memoryview(mapped)[first:stop]
        return bytes(self.shards.read(shard, first, stop))
