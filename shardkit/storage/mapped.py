"""Memory-mapped files whose size is checked again while they are read.

Reading a mapped file beyond its end kills the process (SIGBUS). So readers check its size before they take samples:
a file that has become shorter since it was mapped raises an error that names it. A check is a system call, and its
result is valid for LOOK_SECONDS.
"""

from __future__ import annotations

import mmap
import os
import sys
import time
from collections.abc import Iterator
from typing import Any, TypeVar

from shardkit.errors import StorageError
from shardkit.sample import fs_text

_Found = TypeVar("_Found")

LOOK_SECONDS = 0.01
"""How long a size check is valid: at 1 ms the checks of 16 shards took 6 % of a shuffled read."""


class MappedFile(mmap.mmap):
    """A whole file, mapped read-only. place: its name for users. The mapping keeps the file open."""

    READ = mmap.ACCESS_READ
    place = ""
    _looked = 0.0
    _there = sys.maxsize

    def there(self) -> int:
        """The size of the file in bytes, at most LOOK_SECONDS old."""
        now = time.monotonic()
        if now - self._looked >= LOOK_SECONDS:
            self._looked, self._there = now, self.size()
        return self._there

    def look(self) -> None:
        """Raise StorageError if the file has become shorter since it was mapped."""
        if self.there() < len(self):
            raise shorter_error(self.place, self._there, len(self))

    def read(self, n: int | None = None) -> bytes:
        """The next `n` bytes, after a size check."""
        self.look()
        return super().read(n)


def map_whole(path: str | bytes) -> MappedFile | bytes:
    """Map a whole file; `b""` for an empty file, which can't be mapped. Raises OSError."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            return b""
        mapped = MappedFile(file.fileno(), size, access=MappedFile.READ)
    mapped.place = fs_text(path)
    return mapped


def look(data: Any) -> None:
    """Call `data.look()` if it is a mapped file: bytes in memory can't change."""
    if isinstance(data, MappedFile):
        data.look()


def check_each(found: Iterator[_Found], data: Any) -> Iterator[_Found]:
    """Yield the items of `found`, which reads from `data`, with a size check before each."""
    if not isinstance(data, MappedFile):
        yield from found
        return
    clock, due = time.monotonic, 0.0
    while True:
        if clock() >= due:
            data.look()
            due = clock() + LOOK_SECONDS
        sample = next(found, None)
        if sample is None:
            return
        yield sample


def shorter_error(place: str, size: int, expected: int) -> StorageError:
    """The error for a file that has `size` bytes and had `expected` when it was mapped."""
    fact = f"the file became shorter while it was read: it has {size} of its {expected} bytes"
    return StorageError(place, fact, "restore it, and never write to the shards of a dataset in place")
