"""The shards of a dataset in a store: ranges of them, and those that the cache has as a whole."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from shardkit.checksums import crc32c
from shardkit.location import Location
from shardkit.shards.buffers import BuffersInUse, ShardFile, require_crc, require_size, unpacked
from shardkit.shards.objects import Objects
from shardkit.storage.cache.store import Cached, Content
from shardkit.storage.mapped import MappedFile
from shardkit.storage.mapping import Mapping
from shardkit.storage.store import ObjectInfo, Readable, read

if TYPE_CHECKING:
    from typing_extensions import Buffer


class Fitting:
    """Around a store of shards: each is looked at before it is first read. Thread safe.

    Raises ManifestError if a shard does not have the size that its manifest says, or, with `verify`, the CRC-32C, if
    the store knows it.
    """

    def __init__(self, store: Readable, files: dict[str, ShardFile], *, verify: bool) -> None:
        self.store, self.root = store, store.root
        self._files, self._verify = files, verify
        self._fit: set[str] = set()
        self._locks = {name: threading.Lock() for name in files}

    def info(self, name: str) -> ObjectInfo:
        """What is known of a shard."""
        found, file = self.store.info(name), self._files[name]
        require_size(file, found.bytes)
        if self._verify and found.crc32c is not None:
            require_crc(file, int(found.crc32c, 16))
        return found

    def pieces(self, name: str, start: int = 0, end: int | None = None) -> Iterator[Buffer]:
        """The bytes start … end - 1 of a shard."""
        self.require(name)
        return self.store.pieces(name, start, end)

    def require(self, name: str) -> None:
        """Look at a shard, once."""
        if name in self._fit:
            return
        with self._locks[name]:
            if name not in self._fit:
                self.info(name)
                self._fit.add(name)


class FetchedShards:
    """The shards of a dataset in a folder of a store: ranges of them, and buffers of those that are here as a whole,
    which are the unpacked ones, and those in the cache. At most `limit` unpacked ones are kept. Thread safe.

    verify: what the store says of a shard's CRC-32C is held against the manifest; and the copy in the cache is summed
    when it is first opened.
    """

    def __init__(
        self, files: Sequence[ShardFile], folder: Location, objects: Objects, *, verify: bool, limit: int
    ) -> None:
        self.files, self.folder, self.objects = files, folder, objects
        named = {file.location.name: file for file in files}
        contents = {name: Content(file.url, file.bytes, file.crc32c) for name, file in named.items()}
        self._store = Fitting(objects.store(folder), named, verify=verify)
        self._cached = Cached(self._store, objects.cache, contents)
        self._verify = verify
        self._in_use = BuffersInUse(files, limit)
        self._checked: set[int] = set()
        self._locks = [threading.Lock() for _ in files]

    def read(self, shard: int, start: int, end: int) -> Buffer:
        """The bytes start … end - 1 of a shard, unpacked ones of a gzip shard, as the store or the cache has them.

        NotFoundError, StorageError, ManifestError, DamagedError.
        """
        if self.files[shard].unpacked:
            return memoryview(self.buffer(shard))[start:end]
        return self._read(self._cached, shard, start, end)

    def pieces(self, shard: int, start: int, end: int) -> Iterator[Buffer]:
        """As `read`, in pieces as they come. Waits as long as the store takes."""
        place = self.files[shard].location
        if self.files[shard].unpacked or self._cached.keeps(place.name):
            yield self.read(shard, start, end)
            return
        with self.objects.opened(place):
            self._store.require(place.name)
            yield from self.objects.patient(self.folder).pieces(place.name, start, end)

    def again(self, shard: int, start: int, end: int) -> Buffer:
        """As `read`, from the store in any case."""
        return self._read(self._store, shard, start, end)

    def replace_damaged(self, shard: int, start: int, data: Buffer) -> None:
        """These bytes, which differ from what `read` gave, are right."""
        self._cached.replace_damaged(self.files[shard].location.name, start, data)

    def here(self, shard: int) -> MappedFile | None:
        """The shard's bytes where the cache has all of them, and they are not packed."""
        file = self.files[shard]
        return None if file.unpacked else self._cached.mapped(file.location.name, check=self._verify)

    def buffer(self, shard: int) -> Mapping:
        """The shard's bytes, of a gzip shard the unpacked ones. It is fetched as a whole where it is not here."""
        with self._locks[shard]:
            found = self._in_use.get(shard)
            if found is None:
                file = self.files[shard]
                data: Mapping = self._cached.mapped(file.location.name, check=self._verify)
                if data is None:
                    data = bytes(self._read(self._cached, shard, 0, file.bytes))
                if self._verify and shard not in self._checked:
                    require_crc(file, crc32c(data))
                    self._checked.add(shard)
                found = unpacked(file, data) if file.unpacked else data
                self._in_use.add(shard, found)
            return found

    def hold(self) -> None:
        """Nothing: a store has no files that could be held."""

    def _read(self, store: Readable, shard: int, start: int, end: int) -> Buffer:
        place = self.files[shard].location
        with self.objects.opened(place):
            return read(store, place.name, start, end)
