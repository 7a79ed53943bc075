"""Files mapped into memory that are looked at again while they are read.

To read a mapped file beyond its end ends the process (SIGBUS). So whoever reads one checks its size before samples are
taken: a file that became shorter since it was mapped is an error that names it. A look is a system call, and what it
saw counts for LOOK_SECONDS.
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
"""How long what was seen of a mapped file counts: at 1 ms the looks at 16 shards took 6 % of a shuffled read."""


class MappedFile(mmap.mmap):
    """A whole file, to be read only. place: its name for users. It holds the file open by itself."""

    READ = mmap.ACCESS_READ
    place = ""
    _looked = 0.0
    _there = sys.maxsize

    def there(self) -> int:
        """The bytes that the file had at the last look, all that it has where that is LOOK_SECONDS ago."""
        now = time.monotonic()
        if now - self._looked >= LOOK_SECONDS:
            self._looked, self._there = now, self.size()
        return self._there

    def look(self) -> None:
        """Raises StorageError where the file became shorter since it was mapped."""
        if self.there() < len(self):
            raise shorter_error(self.place, self._there, len(self))

    def read(self, n: int | None = None) -> bytes:
        """The next `n` bytes, after a look."""
        self.look()
        return super().read(n)


def map_whole(path: str | bytes) -> MappedFile | bytes:
    """A file's bytes; empty ones where it is empty, since nothing can't be mapped. Raises OSError."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            return b""
        mapped = MappedFile(file.fileno(), size, access=MappedFile.READ)
    mapped.place = fs_text(path)
    return mapped


def look(data: Any) -> None:
    """`data.look()`, where it is a mapped file: bytes in memory stay as they are."""
    if isinstance(data, MappedFile):
        data.look()


def looked(found: Iterator[_Found], data: Any) -> Iterator[_Found]:
    """What `found` reads from `data`, which is looked at before each."""
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
    """The error for a file that has `size` bytes, and had `expected` when it was mapped."""
    fact = f"the file became shorter while it was read: it has {size} of its {expected} bytes"
    return StorageError(place, fact, "restore it, and never write to the shards of a dataset in place")
