"""Files of a dataset wherever they are: on a disk, or objects of a store, read with patience."""

from __future__ import annotations

import os
from threading import Lock

from shardkit.errors import DestinationError, NotFoundError, StorageError
from shardkit.location import Location, locate
from shardkit.shards.remote import Objects
from shardkit.storage.access import Remote
from shardkit.storage.store import ObjectInfo, read

LISTED = 1_000_000
"""Names of a folder that are looked at: more than a dataset has shards."""


def demand_disk(what: str, dest: str | os.PathLike[str], cure: str) -> None:
    """DestinationError for a destination in a store."""
    place = locate(dest)
    if not place.is_local:
        raise DestinationError(str(place), f"{what} writes to a disk, and {place.scheme}:// is none", cure)


class Places:
    """Reads files. how: of stores; None where only a disk can be read. Thread safe."""

    def __init__(self, how: Remote | None = None) -> None:
        self.how = how
        self._objects: dict[Location, Objects] = {}
        self._lock = Lock()

    def info(self, place: Location) -> ObjectInfo:
        """Size and checksum of an object as its store has them. NotFoundError, StorageError."""
        return self._of(place.parent).store.info(place.name)

    def whole(self, place: Location) -> bytes:
        """All bytes of a file. NotFoundError, StorageError."""
        if not place.is_local:
            objects = self._of(place.parent)
            return bytes(read(objects.patient, place.name, 0, objects.store.info(place.name).bytes))
        try:
            with open(place.path, "rb") as file:
                return file.read()
        except FileNotFoundError as exc:
            raise NotFoundError(str(place), "there is no such file", "bring it back") from exc
        except OSError as exc:
            raise StorageError(str(place), exc.strerror or str(exc), "check the disk and its rights") from exc

    def names(self, folder: Location, prefix: str) -> list[str]:
        """The names in a folder that begin with `prefix`, sorted; none where there are no lists. StorageError."""
        if not folder.is_local:
            if folder.scheme.rpartition("+")[2] in ("http", "https"):
                return []
            return sorted(name for name in self._of(folder).names(prefix, LISTED) if "/" not in name)
        try:
            return sorted(name for name in os.listdir(folder.path) if name.startswith(prefix))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as exc:
            raise StorageError(str(folder), exc.strerror or str(exc), "check the disk and its rights") from exc

    def _of(self, folder: Location) -> Objects:
        assert self.how is not None
        with self._lock:
            if folder not in self._objects:
                self._objects[folder] = Objects(folder, self.how)
            return self._objects[folder]
