"""Files of a dataset by location, wherever they are: on a disk, or objects in stores, with or without time limits."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from threading import Lock
from typing import TYPE_CHECKING

from shardkit.checksums import crc32c
from shardkit.errors import DestinationError, ManifestError, NotFoundError, ReplacedError, StorageError
from shardkit.location import Location, locate
from shardkit.shards import names
from shardkit.shards.corrections.block import FileEntry
from shardkit.shards.manifest import Manifest, decode_manifest, file_names
from shardkit.storage.access import Remote
from shardkit.storage.patient import Timed, open_timed
from shardkit.storage.store import ObjectInfo, Store, open_store, read
from shardkit.threads import cached_property

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from shardkit.storage.cache.folder import Cache, NoCache
    from shardkit.storage.node.chunks import NodeCache
    from shardkit.storage.node.client import Node

CURE = "restore it, or open another version"

LISTED = 1_000_000
"""The number of names in a folder to look at: more than a dataset has shards."""


def require_disk(what: str, dest: str | os.PathLike[str], cure: str) -> None:
    """DestinationError for a destination in a store."""
    place = locate(dest)
    if not place.is_local:
        raise DestinationError(str(place), f"{what} writes to a disk, and {place.scheme}:// is not one", cure)


def has_lists(folder: Location) -> bool:
    """Whether the names in a folder can be listed: not on web servers."""
    return folder.scheme.rpartition("+")[2] not in ("http", "https")


class Objects:
    """Reads files and objects. how: access to stores, not needed for paths. Thread-safe; for one process."""

    def __init__(self, how: Remote | None = None) -> None:
        self.how = how or Remote()
        self._stores: dict[Location, Store] = {}
        self._lock = Lock()

    @cached_property
    def cache(self) -> Cache | NoCache | NodeCache:
        """The local cache for objects of stores, or the memory that the processes of this machine share."""
        from shardkit.storage.cache.folder import open_cache
        from shardkit.storage.node.chunks import NodeCache

        if self.how.cache is None and self.node is not None:
            return NodeCache(self.node)
        return open_cache(self.how.cache, self.how.cache_bytes)

    @cached_property
    def node(self) -> Node | None:
        """The access to the memory that the processes of this machine share; None where they share nothing."""
        from shardkit.storage.node.client import open_node

        return open_node(self.how.shared, self.how.ahead_bytes)

    def store(self, folder: Location) -> Store:
        """The store of a folder: a disk, or a store whose calls have a time limit."""
        with self._lock:
            if folder not in self._stores:
                self._stores[folder] = open_store(folder) if folder.is_local else open_timed(folder, self.how)
            return self._stores[folder]

    def patient(self, folder: Location) -> Store:
        """The same without a time limit, for large transfers, and for threads that are awaited with a time limit."""
        found = self.store(folder)
        return found.store if isinstance(found, Timed) else found

    def info(self, place: Location) -> ObjectInfo:
        """Size and checksum of an object according to its store. NotFoundError, StorageError."""
        return self.store(place.parent).info(place.name)

    def small(self, place: Location) -> bytes:
        """All bytes of a small file, with one request. NotFoundError, StorageError."""
        return b"".join(self.store(place.parent).pieces(place.name))

    def whole(self, place: Location, size: int, most: int) -> bytes:
        """All bytes of a file whose size should be `size`, of which a request takes at most `most`; another number of
        bytes if it has another size. NotFoundError, StorageError."""
        if size <= most or self.info(place).bytes != size:
            return self.small(place)
        return b"".join(bytes(self.span(place, at, min(at + most, size))) for at in range(0, size, most))

    def read(self, place: Location) -> bytes:
        """All bytes of a file of any size. NotFoundError, StorageError."""
        return bytes(read(self.patient(place.parent), place.name, 0, self.info(place).bytes))

    def span(self, place: Location, start: int, end: int) -> Buffer:
        """The bytes start … end - 1 of a file. NotFoundError, StorageError."""
        return read(self.store(place.parent), place.name, start, end)

    def names(self, folder: Location, prefix: str) -> list[str]:
        """The names in a folder that begin with `prefix`, sorted; empty if the folder can't be listed. StorageError."""
        if not folder.is_local:
            return self._stored_names(folder, prefix) if has_lists(folder) else []
        try:  # the folder only, not everything below it
            return sorted(name for name in os.listdir(folder.path) if name.startswith(prefix))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as exc:
            raise StorageError(str(folder), exc.strerror or str(exc), "check the disk and its permissions") from exc

    def _stored_names(self, folder: Location, prefix: str) -> list[str]:
        store = self.store(folder)
        # there may be millions of objects below a folder: only those directly in it are requested, if possible
        directly = store.folders() if isinstance(store, Timed) and not prefix else None
        if directly is not None:
            return sorted(found.name for found in directly[1])
        return sorted(name for name in self.listed(folder, prefix, LISTED) if "/" not in name)

    def listed(self, folder: Location, prefix: str, limit: int) -> list[str]:
        """The names of the objects that begin with `prefix`, at any depth, at most `limit`."""
        return [found.name for found in islice(self.store(folder).list(prefix), limit)]

    def manifest(self, place: Location) -> Manifest:
        """The current manifest of a dataset. NotFoundError, ManifestError, StorageError."""
        return self._manifest(self.small(place), place)

    def older_manifest(self, place: Location, entry: FileEntry) -> Manifest:
        """The manifest of an older version. ManifestError if it is not the one that was kept; as `manifest`."""
        with self.opened(place, "manifest of this version", CURE):
            data = self.small(place)
        if len(data) != entry.bytes or crc32c(data) != int(entry.crc32c, 16):
            raise ManifestError(str(place), "this is not the manifest that was kept of this version", CURE)
        return self._manifest(data, place)

    def _manifest(self, data: bytes, place: Location) -> Manifest:
        manifest = decode_manifest(data, place=str(place))
        if manifest.elsewhere and not place.is_local:  # or a store could name any file or host
            fact = "this is an index of shards elsewhere, which is read from a disk only"
            raise ManifestError(str(place), fact, "copy the manifest and the index to a disk")
        return manifest

    @contextmanager
    def opened(self, place: Location, what: str = "shard", cure: str = "restore it, or pack again") -> Iterator[None]:
        """A context in which a file of an open dataset is used: if it is missing, raises the error of
        `missing_file`."""
        try:
            yield
        except NotFoundError as exc:
            raise missing_file(place, what, cure, self.manifest) from exc


def missing_file(
    place: Location,
    what: str = "shard",
    cure: str = "restore it, or pack again",
    read: Callable[[Location], Manifest] | None = None,
) -> NotFoundError:
    """The error for a missing file of an open dataset: a ReplacedError if the manifest beside it is now of another
    dataset. read: reads a manifest; by default, from a file."""
    base = names.numbered_stem(place.name) or place.name.split(".")[0]
    for stem in names.stems_of(base):
        with suppress(NotFoundError, ManifestError, StorageError):
            manifest = (read or Objects().manifest)(place.sibling(names.manifest_name(stem)))
            if place.name not in file_names(manifest):
                fact = f"the {what} is gone: the dataset was replaced by another one since it was opened"
                return ReplacedError(str(place), fact, "open the dataset again")
    return NotFoundError(str(place), f"the {what} is missing", cure)
