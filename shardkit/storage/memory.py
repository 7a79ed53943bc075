"""A store in this process's memory, for tests and trials: `memory://NAME/…`; all that use NAME see the same objects."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import BinaryIO

import google_crc32c

from shardkit.errors import NotFoundError, StorageError
from shardkit.location import Location
from shardkit.storage.store import ObjectInfo, StorageOptions, demand_name

PIECE_BYTES = 1 << 20

_OBJECTS: dict[str, bytes] = {}
"""Full path -> content."""
_LOCK = threading.Lock()


class MemoryStore:
    """The objects below `root`."""

    def __init__(self, root: Location, options: StorageOptions) -> None:
        self.root = root

    def _path(self, name: str) -> str:
        return self.root.child(demand_name(name)).path

    def _content(self, name: str) -> bytes:
        with _LOCK:
            data = _OBJECTS.get(self._path(name))
        if data is None:
            raise NotFoundError(str(self.root.child(name)), "there is no such object", "check the name")
        return data

    def info(self, name: str) -> ObjectInfo:
        """What is known of an object."""
        data = self._content(name)
        crc = f"{google_crc32c.value(data):08x}"
        return ObjectInfo(name, len(data), crc, crc)

    def pieces(self, name: str, start: int = 0, end: int | None = None) -> Iterator[memoryview]:
        """The bytes start … end - 1."""
        data = self._content(name)
        stop = len(data) if end is None else end
        if not 0 <= start <= stop <= len(data):
            fact = f"bytes {start} to {stop} were asked for, and it has {len(data)}"
            raise StorageError(str(self.root.child(name)), fact, "check what the manifest says of it")
        view = memoryview(data)
        for at in range(start, stop, PIECE_BYTES):
            yield view[at : min(at + PIECE_BYTES, stop)]

    def put(self, name: str, data: BinaryIO, *, crc32c: str | None = None) -> None:
        """Write an object."""
        content = data.read()
        with _LOCK:
            _OBJECTS[self._path(name)] = content

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """The objects whose names begin with `prefix`."""
        base = self.root.path.rstrip("/") + "/"
        with _LOCK:
            names = sorted(path[len(base) :] for path in _OBJECTS if path.startswith(base + prefix))
        return map(self.info, names)

    def delete(self, name: str) -> None:
        """Remove an object."""
        with _LOCK:
            _OBJECTS.pop(self._path(name), None)
