"""The shards of a dataset in a store: ranges of them, and those that the cache has as a whole."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from shardkit.checksums import crc32c
from shardkit.shards.buffers import BuffersInUse, ShardFile, require_crc, require_size, unpacked
from shardkit.shards.objects import Objects
from shardkit.storage.cache.entry import Entry
from shardkit.storage.mapped import MappedFile
from shardkit.storage.mapping import Mapping

if TYPE_CHECKING:
    from typing_extensions import Buffer


KEPT_OPEN = 32
"""Files of the cache that are kept open without being in use: those can't be removed to make room."""
REFUSED_SECONDS = 10.0
"""How long a shard for which the cache has no room is not offered to it again."""


class FetchedShards:
    """The shards of a dataset in a store: ranges of them, and buffers of those that are here as a whole, which are the
    unpacked ones, and those in the cache. At most `limit` of these are in use at a time. Thread safe.

    verify: what the store says of a shard's CRC-32C is held against the manifest; and the copy in the cache is summed
    when it is first opened.
    """

    def __init__(self, files: Sequence[ShardFile], objects: Objects, *, verify: bool, limit: int) -> None:
        self.files, self.objects = files, objects
        self._verify = verify
        self._in_use = BuffersInUse(files, min(limit, KEPT_OPEN) if objects.cache else limit)
        self._checked: set[int] = set()
        self._sized: set[int] = set()
        self._summed: set[int] = set()
        self._entries: OrderedDict[int, Entry] = OrderedDict()
        self._refused: dict[int, float] = {}
        self._locks: dict[int, threading.Lock] = {}
        self._lock = threading.Lock()

    def read(self, shard: int, start: int, end: int) -> Buffer:
        """The bytes start … end - 1 of a shard, unpacked ones of a gzip shard, as the store or the cache has them.

        NotFoundError, StorageError, ManifestError, DamagedError.
        """
        if self.files[shard].unpacked:
            return memoryview(self.buffer(shard))[start:end]
        entry = self._entry(shard)
        if entry is None:
            return self.again(shard, start, end)
        return entry.read(start, end, lambda first, stop: self.again(shard, first, stop))

    def pieces(self, shard: int, start: int, end: int) -> Iterator[Buffer]:
        """As `read`, in pieces as they come. Waits as long as the store takes."""
        if self.objects.cache is not None or self.files[shard].unpacked:
            yield self.read(shard, start, end)
            return
        self._require_fit(shard)
        place = self.files[shard].location
        with self.objects.opened(place):
            yield from self.objects.patient(place.parent).pieces(place.name, start, end)

    def again(self, shard: int, start: int, end: int) -> Buffer:
        """As `read`, from the store in any case."""
        self._require_fit(shard)
        with self.objects.opened(self.files[shard].location):
            return self.objects.span(self.files[shard].location, start, end)

    def replace_damaged(self, shard: int, start: int, data: Buffer) -> None:
        """These bytes, which differ from what `read` gave, are right."""
        entry = self._entry(shard)
        if entry is not None:
            entry.replace_damaged(start, data)

    def here(self, shard: int) -> MappedFile | None:
        """The shard's bytes where the cache has all of them."""
        if self.objects.cache is None or self.files[shard].unpacked:
            return None
        entry = self._entry(shard)
        return None if entry is None else self._copy(shard, entry)

    def buffer(self, shard: int) -> Mapping:
        """The shard's bytes, of a gzip shard the unpacked ones. It is fetched as a whole where it is not here."""
        with self._lock_of(shard):
            found = self._in_use.get(shard)
            if found is None:
                file, data = self.files[shard], self._whole(shard)
                if self._verify and shard not in self._checked:
                    require_crc(file, crc32c(data))
                    self._checked.add(shard)
                found = unpacked(file, data) if file.unpacked else data
                self._in_use.add(shard, found)
            return found

    def hold(self) -> None:
        """Nothing: a store has no files that could be held."""

    def _whole(self, shard: int) -> Mapping:
        entry, size = self._entry(shard), self.files[shard].bytes
        if entry is None:
            return bytes(self.again(shard, 0, size))
        copy = self._copy(shard, entry)
        if copy is not None:
            return copy
        return bytes(entry.read(0, size, lambda first, stop: self.again(shard, first, stop)))

    def _copy(self, shard: int, entry: Entry) -> MappedFile | None:
        """The shard as the cache has it; summed the first time, if that is wanted."""
        copy = entry.mapped(check=self._verify and shard not in self._summed)
        if copy is not None:
            self._summed.add(shard)
        return copy

    def _require_fit(self, shard: int) -> None:
        """ManifestError where the object is not as the manifest says. Asked once."""
        if shard in self._sized:
            return
        with self._lock_of(~shard):
            if shard not in self._sized:
                file, objects = self.files[shard], self.objects
                with objects.opened(file.location):
                    found = objects.info(file.location)
                require_size(file, found.bytes)
                if self._verify and found.crc32c is not None:
                    require_crc(file, int(found.crc32c, 16))
                self._sized.add(shard)

    def _lock_of(self, number: int) -> threading.Lock:
        with self._lock:
            return self._locks.setdefault(number, threading.Lock())

    def _entry(self, shard: int) -> Entry | None:
        """The shard in the cache. None where there is none, or no room in it."""
        cache, file = self.objects.cache, self.files[shard]
        if cache is None:
            return None
        with self._lock:
            found = self._entries.get(shard)
            if found is not None and found.usable:
                self._entries.move_to_end(shard)
                return found
            if time.monotonic() - self._refused.get(shard, -REFUSED_SECONDS) < REFUSED_SECONDS:
                return None
        made = cache.entry(file.url, file.bytes, file.crc32c)
        with self._lock:
            if made is None:
                self._refused[shard] = time.monotonic()
                return None
            self._entries[shard] = made
            while len(self._entries) > KEPT_OPEN:
                self._entries.popitem(last=False)
        return made
