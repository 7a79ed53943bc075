"""What of a dataset lies in a store: ranges of its shards, and its index, as a whole or in parts."""

from __future__ import annotations

import io
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from shardkit.errors import ManifestError
from shardkit.location import Location
from shardkit.shards.buffers import MappedShards, ShardFile, require_crc, require_size
from shardkit.shards.index_file import INDEX_CURE, WHOLE_BYTES, IndexFile, index_source, open_index, other_index
from shardkit.shards.manifest import IndexEntry, ShardEntry
from shardkit.shards.objects import Objects
from shardkit.storage.cache.entry import Entry
from shardkit.storage.mapped import MappedFile
from shardkit.storage.mapping import Mapping
from shardkit.storage.store import Store, read

if TYPE_CHECKING:
    import pyarrow as pa
    from typing_extensions import Buffer


KEPT_OPEN = 32
"""Files of the cache that are kept open without being in use: those can't be removed to make room."""
REFUSED_SECONDS = 10.0
"""How long a shard for which the cache has no room is not offered to it again."""


class RemoteShards(MappedShards):
    """The shards of a dataset in a store: ranges of them, and buffers of those that are here as a whole, which are the
    unpacked ones, and those in the cache.

    verify: what the store says of a shard's CRC-32C is held against the manifest; and the copy in the cache is summed
    when it is first opened.
    """

    keeps = False

    def __init__(self, files: Sequence[ShardFile], objects: Objects, *, verify: bool, limit: int) -> None:
        super().__init__(files, verify=verify, limit=min(limit, KEPT_OPEN) if objects.cache else limit)
        self.objects = objects
        self._sized: set[int] = set()
        self._summed: set[int] = set()
        self._entries: OrderedDict[int, Entry] = OrderedDict()
        self._refused: dict[int, float] = {}
        self._locks: dict[int, threading.Lock] = {}

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
            return super().buffer(shard)

    def _map(self, shard: int) -> Mapping:
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


class RangedFile(io.RawIOBase):
    """An object as a file that Parquet's reader can seek in. The latest blocks that were read are kept."""

    BLOCK = 1 << 20
    KEPT = 16

    def __init__(self, store: Store, name: str, size: int) -> None:
        self._store, self._name = store, name
        self._size, self._at = size, 0
        self._blocks: OrderedDict[tuple[int, int], bytes] = OrderedDict()

    def size(self) -> int:
        """Its length."""
        return self._size

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Where the next byte is read."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go there."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int | None = -1, /) -> bytes:
        """The next bytes: whole blocks are fetched, neighbours in one request."""
        end = self._size if size is None or size < 0 else min(self._size, self._at + size)
        start, self._at = self._at, max(self._at, end)
        if start >= end:
            return b""
        first, stop = start // self.BLOCK, -(-end // self.BLOCK)
        data = self._blocks.get((first, stop))
        if data is None:
            low, high = first * self.BLOCK, min(stop * self.BLOCK, self._size)
            data = self._blocks[first, stop] = bytes(read(self._store, self._name, low, high))
            while len(self._blocks) > self.KEPT:
                self._blocks.popitem(last=False)
        return data[start - first * self.BLOCK : end - first * self.BLOCK]


def open_index_at(
    objects: Objects, place: Location, entry: IndexEntry, shards: Sequence[ShardEntry], *, again: bool = False
) -> IndexFile:
    """An index file, wherever it lies, opened and checked. again: all of it, even if this process did before.

    Of a store it is fetched as a whole where it is small (or `again`). Of a larger one, size and CRC-32C are those that
    the store tells, and it is read in parts, whose pages have checksums. Raises NotFoundError, StorageError;
    ManifestError where it is not the one that its manifest names.
    """
    import pyarrow as pa

    with objects.opened(place, "index", INDEX_CURE):
        if place.is_local:
            return open_index(place.path, entry, shards, place=str(place), again=again)
        if again or entry.bytes <= WHOLE_BYTES:
            return IndexFile(_whole_index(objects, place, entry), shards, place=str(place))
        found = objects.info(place)
    if found.bytes != entry.bytes or found.crc32c not in (None, entry.crc32c):
        raise other_index(str(place))
    source = pa.PythonFile(RangedFile(objects.store(place.parent), place.name, entry.bytes), mode="r")
    return IndexFile(source, shards, place=str(place), pre_buffer=True)


def _whole_index(objects: Objects, place: Location, entry: IndexEntry) -> pa.BufferReader:
    crc = int(entry.crc32c, 16)
    kept = None if objects.cache is None else objects.cache.load(str(place), entry.bytes, crc)
    if kept is not None:
        return index_source(kept, entry, str(place))
    for last in (False, True):  # wrong bytes on the way are fetched once more
        data = objects.small(place)
        try:
            source = index_source(data, entry, str(place))
        except ManifestError:
            if last:
                raise
            continue
        if objects.cache is not None:
            objects.cache.save(str(place), data, crc)
        return source
    raise AssertionError("two turns end in a return or a raise")
