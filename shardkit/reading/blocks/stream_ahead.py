"""Read shards of a store from first byte to last, one after another; chunks are fetched ahead, across shards.

For shards without a manifest, which can't be read in any other way.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Generator, Sequence
from itertools import islice
from time import perf_counter

from shardkit.errors import StorageError
from shardkit.location import Location
from shardkit.reading.blocks.fetch_ahead import chunk_bytes
from shardkit.reading.stats.record import Recorder
from shardkit.shards.objects import Objects
from shardkit.storage.access import Remote
from shardkit.storage.cache.store import Cached, Content
from shardkit.storage.fetchers import REQUESTS, Fetchers, Job
from shardkit.storage.store import ObjectInfo, read

OPENED = 8
"""The number of shards whose size is requested ahead."""


class RemoteFile(io.RawIOBase):
    """A shard as a file that is read from front to back; the pieces in `jobs` have been requested."""

    def __init__(self, streams: RemoteStreams, shard: Location) -> None:
        self.shard = shard
        self._contents: dict[str, Content] = {}
        self._store = Cached(streams.objects.patient(shard.parent), streams.objects.cache, self._contents)
        self.jobs: deque[Job] = deque()
        self.asked = 0
        """How many of its bytes have been requested."""
        self._streams = streams
        self._piece = memoryview(b"")
        self.facts: Job = streams.fetchers.submit(self._facts, str(shard))  # last: it runs at once

    def _facts(self) -> ObjectInfo:
        found = self._store.info(self.shard.name)
        sign = found.crc32c or found.version
        if sign is not None:  # otherwise a change would go unnoticed
            crc = -1 if found.crc32c is None else int(found.crc32c, 16)
            self._contents[self.shard.name] = Content(f"{self.shard} {sign}", found.bytes, crc)
        return found

    @property
    def size(self) -> int | None:
        """Its length; None until it is known."""
        return int(self.facts.value().bytes) if self.facts.done.is_set() else None

    def ask(self, chunk_bytes: int) -> None:
        """Request the next chunk."""
        assert self.size is not None
        start, end = self.asked, min(self.asked + chunk_bytes, self.size)
        self.asked = end
        self.jobs.append(self._streams.fetchers.submit(lambda: self._fetch(start, end), str(self.shard)))

    def _fetch(self, start: int, end: int) -> memoryview:
        begun = perf_counter()
        data = memoryview(read(self._store, self.shard.name, start, end))
        self._streams.record.request(perf_counter() - begun, 0.0, data.nbytes)
        return data

    def readable(self) -> bool:
        """Always."""
        return True

    def peek(self, size: int) -> bytes:
        """The next bytes without consuming them: at least `size`, if the chunk has that many."""
        if not self._piece:
            self._next()
        return bytes(self._piece[:size])

    def read(self, size: int | None = -1, /) -> bytes:
        """At most `size` bytes, and none only at the end. NotFoundError, StorageError."""
        if not self._piece:
            self._next()
        count = len(self._piece) if size is None or size < 0 else size
        data, self._piece = bytes(self._piece[:count]), self._piece[count:]
        return data

    def _next(self) -> None:
        with self._streams.record.waiting():
            self.facts.value()
        self._streams.fill()
        if self.jobs:
            with self._streams.record.waiting():
                self._piece = self.jobs.popleft().value()
            self._streams.fill()
        elif self.asked < (self.size or 0):
            raise StorageError(str(self.shard), "it was closed before its end", "read it again")


class RemoteStreams:
    """The files of some shards, in order. Requests ahead of use take at most half of ahead_bytes."""

    def __init__(self, shards: Sequence[Location], how: Remote, record: Recorder | None = None) -> None:
        """record: of the iteration."""
        self.how, self.record = how, record or Recorder()
        self.fetchers = Fetchers(how.timeout_seconds)
        self.chunk = chunk_bytes(how)
        self._flight = max(1, min(REQUESTS, how.ahead_bytes // 2 // self.chunk))
        self._coming = iter(shards)
        self._files: deque[RemoteFile] = deque()
        self.objects = Objects(how)

    def files(self) -> Generator[RemoteFile, None, None]:
        """Each shard's file in turn; the previous one is then closed."""
        try:
            while True:
                self._open()
                if not self._files:
                    return
                yield self._files[0]
                self._files.popleft()
        finally:
            self.fetchers.close()

    def _open(self) -> None:
        self._files += [RemoteFile(self, shard) for shard in islice(self._coming, OPENED - len(self._files))]

    def fill(self) -> None:
        """Request as much as may be in flight, in order."""
        free = self._flight - sum(len(file.jobs) for file in self._files)
        for file in self._files:
            if not file.facts.done.is_set():
                return
            if file is not self._files[0] and file.facts.failed:
                return  # reported when its turn comes
            while free > 0 and file.asked < (file.size or 0):
                file.ask(self.chunk)
                free -= 1
            if free <= 0:
                return
