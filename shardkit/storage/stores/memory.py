"""A store in this process's memory, for tests and trials: `memory://NAME/…`; all users of NAME see the same objects."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import BinaryIO

from shardkit.checksums import crc32c
from shardkit.errors import NotFoundError, StorageError, UsageError
from shardkit.location import Location
from shardkit.storage.store import ObjectInfo, StorageOptions, require_name

PIECE_BYTES = 1 << 20

_OBJECTS: dict[str, bytes] = {}
"""Full path -> content."""
_LOCK = threading.Lock()


class MemoryStore:
    """The objects below `root`. It takes no options. crc32c and version: computed from the content."""

    def __init__(self, root: Location, options: StorageOptions) -> None:
        if options:
            names = ", ".join(sorted(options))
            raise UsageError(str(root), f"storage options ({names}) for a store in memory", "omit them")
        self.root = root

    def __repr__(self) -> str:
        return f"MemoryStore({self.root})"

    def _path(self, name: str) -> str:
        return self.root.child(require_name(name)).path

    def _content(self, name: str) -> bytes:
        with _LOCK:
            data = _OBJECTS.get(self._path(name))
        if data is None:
            raise NotFoundError(str(self.root.child(name)), "there is no such object", "check the name")
        return data

    def info(self, name: str) -> ObjectInfo:
        """The size and CRC-32C of an object."""
        data = self._content(name)
        crc = _crc(data)
        return ObjectInfo(name, len(data), crc, crc)

    def pieces(self, name: str, start: int = 0, end: int | None = None) -> Iterator[memoryview]:
        """The bytes start … end - 1."""
        data = self._content(name)
        stop = len(data) if end is None else end
        if not 0 <= start <= stop <= len(data):
            fact = f"bytes {start} to {stop} were requested, and it has {len(data)}"
            raise StorageError(str(self.root.child(name)), fact, "check its entry in the manifest")
        view = memoryview(data)
        for at in range(start, stop, PIECE_BYTES):
            yield view[at : min(at + PIECE_BYTES, stop)]

    def put(self, name: str, data: BinaryIO, *, crc32c: str | None = None) -> None:
        """Write an object."""
        content = b"".join(iter(lambda: data.read(PIECE_BYTES), b""))
        with _LOCK:
            _OBJECTS[self._path(name)] = content

    def put_if(self, name: str, data: bytes, *, version: str | None, crc32c: str | None = None) -> str | None:
        """Write an object on a condition."""
        path = self._path(name)
        with _LOCK:
            there = _OBJECTS.get(path)
            if (None if there is None else _crc(there)) != version:
                return None
            _OBJECTS[path] = data
        return _crc(data)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """The objects whose names begin with `prefix`."""
        base = self.root.path.rstrip("/") + "/"
        with _LOCK:
            found = {path[len(base) :]: data for path, data in _OBJECTS.items() if path.startswith(base + prefix)}
        for name in sorted(found, key=str.encode):
            crc = _crc(found[name])
            yield ObjectInfo(name, len(found[name]), crc, crc)

    def delete(self, name: str) -> None:
        """Remove an object."""
        with _LOCK:
            _OBJECTS.pop(self._path(name), None)


def _crc(data: bytes) -> str:
    return f"{crc32c(data):08x}"
