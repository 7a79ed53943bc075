"""The shards of a dataset in a store: ranges of them, and shards that the cache has as a whole."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from shardkit.checksums import crc32c
from shardkit.location import Location
from shardkit.shards.buffers import BuffersInUse, ShardFile, require_crc, require_size, require_version, unpack
from shardkit.shards.objects import Objects
from shardkit.storage.cache.store import Cached, Content
from shardkit.storage.mapped import MappedFile
from shardkit.storage.mapping import Mapping
from shardkit.storage.node.chunks import Chunks
from shardkit.storage.store import ObjectInfo, Readable, read

if TYPE_CHECKING:
    from typing_extensions import Buffer


class Fitting:
    """Wraps a store of shards, and checks each before it is first read. Thread-safe.

    Raises ManifestError if a shard does not have the size that its manifest says, or, with `verify`, not the CRC-32C,
    if the store knows it.
    """

    def __init__(self, store: Readable, files: dict[str, ShardFile], *, verify: bool) -> None:
        self.store, self.root = store, store.root
        self._files, self._verify = files, verify
        self._fit: set[str] = set()
        self._locks = {name: threading.Lock() for name in files}

    def info(self, name: str) -> ObjectInfo:
        """What is known about a shard."""
        found, file = self.store.info(name), self._files[name]
        require_size(file, found.bytes)
        require_version(file, found.version)
        if self._verify and found.crc32c is not None:
            require_crc(file, int(found.crc32c, 16))
        return found

    def pieces(self, name: str, start: int = 0, end: int | None = None) -> Iterator[Buffer]:
        """The bytes start … end - 1 of a shard."""
        self.require(name)
        return self.store.pieces(name, start, end)

    def require(self, name: str) -> None:
        """Check a shard, once."""
        if name in self._fit:
            return
        with self._locks[name]:
            if name not in self._fit:
                self.info(name)
                self._fit.add(name)


def _content(file: ShardFile) -> Content | None:
    """What a shard must be, by its checksum or else by the store's version; None if a change would go unnoticed."""
    if file.crc32c < 0 and file.version is None:
        return None
    return Content(file.url if file.crc32c >= 0 else f"{file.url} {file.version}", file.bytes, file.crc32c)


class FetchedShards:
    """The shards of a dataset in a folder of a store: ranges of them, and buffers of those that are available locally
    as a whole: unpacked ones, and those in the cache. At most `limit` unpacked ones are kept. Thread-safe.

    verify: compare the store's CRC-32C of each shard with the manifest, and check the copy in the cache when it is
    first opened.
    """

    def __init__(
        self, files: Sequence[ShardFile], folder: Location, objects: Objects, *, verify: bool, limit: int
    ) -> None:
        self.files, self.folder, self.objects = files, folder, objects
        named = {file.location.name: file for file in files}
        contents = {name: content for name, file in named.items() if (content := _content(file)) is not None}
        self._contents = contents
        self._chunks = None if objects.node is None else Chunks(objects.node)
        self._store = Fitting(objects.store(folder), named, verify=verify)
        self._cached = Cached(self._store, objects.cache, contents)
        self._verify = verify
        self._in_use = BuffersInUse(files, limit)
        self._checked: set[int] = set()
        self._locks = [threading.Lock() for _ in files]

    def read(self, shard: int, start: int, end: int) -> Buffer:
        """The bytes start … end - 1 of a shard (unpacked bytes of a gzip shard), from the store or the cache.

        NotFoundError, StorageError, ManifestError, DamagedError.
        """
        if self.files[shard].unpacked:
            return memoryview(self.buffer(shard))[start:end]
        return self._read(self._cached, shard, start, end)

    @property
    def shares(self) -> bool:
        """Whether the processes of this machine share what they fetch."""
        return self._chunks is not None

    def pieces(self, shard: int, start: int, end: int, *, chunk: int = 0) -> Iterator[Buffer]:
        """As `read`, in pieces as they arrive, without a time limit. chunk: in whole chunks of so many bytes, each
        fetched by one of the processes that share."""
        place = self.files[shard].location
        if self.files[shard].unpacked or self._cached.keeps(place.name):
            yield self.read(shard, start, end)
        elif chunk and self._chunks is not None and place.name in self._contents:
            fetch = partial(self._patiently, place)
            yield from self._chunks.pieces(self._contents[place.name], start, end, chunk, fetch)
        else:
            yield from self._patiently(place, start, end)

    def _patiently(self, place: Location, start: int, end: int) -> Iterator[Buffer]:
        with self.objects.opened(place):
            self._store.require(place.name)
            yield from self.objects.patient(self.folder).pieces(place.name, start, end)

    def again(self, shard: int, start: int, end: int) -> Buffer:
        """As `read`, but always from the store."""
        return self._read(self._store, shard, start, end)

    def replace_damaged(self, shard: int, start: int, data: Buffer) -> None:
        """Replace the bytes from `read`, which were wrong, with these."""
        name = self.files[shard].location.name
        self._cached.replace_damaged(name, start, data)
        if self._chunks is not None and name in self._contents:
            self._chunks.drop(self._contents[name], start)

    def here(self, shard: int) -> MappedFile | None:
        """The shard's bytes, if the cache has all of them and they are not compressed."""
        file = self.files[shard]
        return None if file.unpacked else self._cached.mapped(file.location.name, check=self._verify)

    def buffer(self, shard: int) -> Mapping:
        """The shard's bytes, of a gzip shard the unpacked ones. It is fetched as a whole if it is not available
        locally."""
        with self._locks[shard]:
            found = self._in_use.get(shard)
            if found is None:
                file = self.files[shard]
                data: Mapping = self._cached.mapped(file.location.name, check=self._verify)
                if data is None:
                    data = self._whole(shard)
                if self._verify and shard not in self._checked:
                    require_crc(file, crc32c(data))
                    self._checked.add(shard)
                found = unpack(file, data) if file.unpacked else data
                self._in_use.add(shard, found)
            return found

    def hold(self) -> None:
        """Do nothing: a store has no files to keep open."""

    def _whole(self, shard: int) -> bytes:
        file = self.files[shard]
        name = file.location.name
        if self._chunks is None or name not in self._contents or self._cached.keeps(name):
            return bytes(self._read(self._cached, shard, 0, file.bytes))

        def fetch(start: int, end: int) -> list[Buffer]:
            return [self._read(self._store, shard, start, end)]

        return b"".join(self._chunks.pieces(self._contents[name], 0, file.bytes, file.bytes, fetch))

    def _read(self, store: Readable, shard: int, start: int, end: int) -> Buffer:
        place = self.files[shard].location
        with self.objects.opened(place):
            return read(store, place.name, start, end)
