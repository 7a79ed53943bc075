"""Descriptions of the files of one shard, and their readers.

They are sent to a worker as data: `opened(paths, sizes)` returns a reader, whose `read(n)` returns the whole file n.
Files are read in ascending order. A ValueError or OSError describes a problem with one file. Nothing here needs NumPy.

    TreeFiles        below the source's root
    DiskFiles        anywhere on this machine
    ArchiveMembers   in an archive, or in the file that it was unpacked to
    StoreObjects     in a store
"""

from __future__ import annotations

import collections
import contextlib
import os
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import msgspec

from shardkit.errors import NotFoundError, SourceError
from shardkit.formats.columns import Strings, int64s
from shardkit.formats.tar.fast_write import IN_TAR
from shardkit.formats.tar.read_ahead import ReadAhead
from shardkit.location import Location
from shardkit.sample import fs_text
from shardkit.sources.tree.early import read_ahead
from shardkit.system import READ_ONLY, read_at

_DEFLATED = 8
_LOCAL_BYTES = 30
_SLACK = 128
"""Extra bytes to read after a zip member's local header and name, for extra fields, so that one read is enough."""

REQUESTS = 16
REQUEST_BYTES = 64 << 20
"""Objects of a store that a worker requests at once, and the limit on their bytes; at least one object."""


class Reader(Protocol):
    """Reads the files of a shard."""

    @property
    def archive(self) -> int | None:
        """The descriptor of the archive that they are in; None if there is none."""
        ...

    @property
    def ahead(self) -> ReadAhead | None:
        """What was read of them before; None if nothing was."""
        ...

    def read(self, number: int) -> bytes:
        """The whole file."""
        ...


class TreeFiles(msgspec.Struct, frozen=True, tag=True):
    """Files below `root`, at the paths of the samples."""

    root: bytes

    def watched(self, paths: Strings) -> Iterator[bytes]:
        """The files themselves."""
        prefix = os.path.join(self.root, b"")
        return (prefix + path for path in paths)

    @contextlib.contextmanager
    def opened(self, paths: Strings, sizes: Sequence[int]) -> Iterator[Reader]:
        """The reader of these files."""
        yield _Disk(os.path.join(self.root, b""), paths, sizes, read_ahead(self.root))


class DiskFiles(msgspec.Struct, frozen=True, tag=True):
    """Local files by their absolute paths."""

    paths: Strings

    def watched(self, paths: Strings) -> Iterator[bytes]:
        """The files themselves."""
        return iter(self.paths)

    @contextlib.contextmanager
    def opened(self, paths: Strings, sizes: Sequence[int]) -> Iterator[Reader]:
        """The reader of these files."""
        yield _Disk(b"", self.paths, sizes, read_ahead(b"/"))


class _Disk:
    archive = None

    def __init__(self, prefix: bytes, paths: Strings, sizes: Sequence[int], ahead: ReadAhead | None = None) -> None:
        self.prefix, self.paths, self.sizes, self.ahead = prefix, paths, sizes, ahead

    def read(self, number: int) -> bytes:
        return read_file(self.prefix + self.paths[number], self.sizes[number])


class ArchiveMembers(msgspec.Struct, frozen=True, tag=True):
    """Members of an archive with random access: a zip file, a plain tar, or the spool of another archive.

    archive: the archive itself. file: the file to read: the archive or its spool. stamp: size in bytes and time of the
    last change (ns) of `file` at the scan. numbers: as in `StoredMembers`.
    """

    archive: bytes
    file: bytes
    stamp: tuple[int, int]
    numbers: bytes

    @property
    def methods(self) -> memoryview[int]:
        """The method of each member."""
        return int64s(self.numbers)[2::4]

    def watched(self, paths: Strings) -> Iterator[bytes]:
        """The archive file."""
        return iter((self.archive,))

    @contextlib.contextmanager
    def opened(self, paths: Strings, sizes: Sequence[int]) -> Iterator[Reader]:
        """The reader of these members. SourceError if the archive has changed since the scan."""
        place = fs_text(self.file)
        try:
            fd = os.open(self.file, READ_ONLY)
        except OSError as exc:
            raise _unreadable(self.file, exc) from exc
        try:
            try:
                status = os.fstat(fd)
            except OSError as exc:
                raise _unreadable(self.file, exc) from exc
            if (status.st_size, status.st_mtime_ns) != self.stamp:
                raise SourceError(place, "it has changed since the scan", "run again when nothing is changing it")
            stored = IN_TAR in self.methods[:1]
            yield (_Ranges if stored else _Zipped)(int64s(self.numbers), fd, sizes)
        finally:
            os.close(fd)


def stamp_of(path: str | bytes) -> tuple[int, int]:
    """(bytes, time of the last change in ns) of an archive. Raises SourceError."""
    try:
        status = os.stat(path)
    except OSError as exc:
        raise _unreadable(path, exc) from exc
    return status.st_size, status.st_mtime_ns


def _unreadable(path: str | bytes, exc: OSError) -> SourceError:
    return SourceError(fs_text(path), f"can't be read ({exc.strerror or exc})", "restore it, then run again")


class _Ranges:
    """Members that are stored uncompressed, one after the other."""

    ahead = None

    def __init__(self, numbers: memoryview[int], fd: int, sizes: Sequence[int]) -> None:
        self.numbers, self.archive, self.sizes = numbers, fd, sizes

    def read(self, number: int) -> bytes:
        return _read_at(self.archive, self.numbers[4 * number], self.sizes[number])


class _Zipped:
    """Members of a zip file, checked by their CRC-32."""

    ahead = None

    def __init__(self, numbers: memoryview[int], fd: int, sizes: Sequence[int]) -> None:
        self.numbers, self.archive, self.sizes = numbers, fd, sizes

    def read(self, number: int) -> bytes:
        size = self.sizes[number]
        at, packed, method, crc = self.numbers[4 * number : 4 * number + 4]
        held = _read_at(self.archive, at, _LOCAL_BYTES + _SLACK + packed, short=True)
        if held[:4] != b"PK\3\4" or len(held) < _LOCAL_BYTES:
            raise ValueError(
                "there is no local header at the offset in the archive's directory: the archive is damaged"
            )
        start = _LOCAL_BYTES + int.from_bytes(held[26:28], "little") + int.from_bytes(held[28:30], "little")
        data = held[start : start + packed]
        if len(data) < packed:
            data += _read_at(self.archive, at + start + len(data), packed - len(data))
        if method == _DEFLATED:
            data = _inflated(data, size)
        if zlib.crc32(data) != crc:
            raise ValueError("its CRC-32 is not the one in the archive's directory: the archive is damaged")
        return data


def _inflated(data: bytes, size: int) -> bytes:
    inflate = zlib.decompressobj(-15)
    try:
        found = inflate.decompress(data, size + 1)
    except zlib.error as exc:
        raise ValueError(f"its compressed data is damaged ({exc})") from exc
    if len(found) != size or not (inflate.eof or inflate.decompress(inflate.unconsumed_tail, 1) == b""):
        raise ValueError(f"it does not unpack to the {size} bytes given in the archive's directory")
    return found


def _read_at(fd: int, at: int, size: int, *, short: bool = False) -> bytes:
    data = read_at(fd, size, at)
    while len(data) < size and (more := read_at(fd, size - len(data), at + len(data))):
        data += more
    if len(data) < size and not short:
        raise ValueError("the archive ends inside it")
    return data


class StoreObjects(msgspec.Struct, frozen=True, tag=True):
    """Objects of a store: names below its root. options: credentials and the like, never included in a message."""

    scheme: str
    path: str
    names: list[str]
    options: dict[str, Any]

    def __repr__(self) -> str:
        return f"StoreObjects({len(self.names)} objects)"

    def watched(self, paths: Strings) -> Iterator[bytes]:
        """Empty: the objects are not on this machine."""
        return iter(())

    @contextlib.contextmanager
    def opened(self, paths: Strings, sizes: Sequence[int]) -> Iterator[Reader]:
        """The reader of these objects, which requests several at once."""
        from shardkit.storage.patient import open_patient

        store = open_patient(Location(self.scheme, self.path), self.options)
        pool = ThreadPoolExecutor(REQUESTS, thread_name_prefix="shardkit-fetch")
        try:
            yield _Objects(store, pool, self.names, sizes)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


class _Objects:
    archive = ahead = None

    def __init__(self, store: Any, pool: ThreadPoolExecutor, names: list[str], sizes: Sequence[int]) -> None:
        self.store, self.pool, self.names, self.sizes = store, pool, names, sizes
        self.coming: collections.deque[tuple[int, Future[bytes]]] = collections.deque()
        self.next = self.waiting = 0

    def read(self, number: int) -> bytes:
        while self.coming and self.coming[0][0] < number:
            self._pop()
        self.next = max(self.next, number)
        self._ask()
        return self._pop().result()

    def _pop(self) -> Future[bytes]:
        number, future = self.coming.popleft()
        self.waiting -= self.sizes[number]
        return future

    def _ask(self) -> None:
        while self.next < len(self.names) and len(self.coming) < REQUESTS:
            size = self.sizes[self.next]
            if self.coming and self.waiting + size > REQUEST_BYTES:
                return
            self.coming.append((self.next, self.pool.submit(self._fetch, self.next)))
            self.waiting += size
            self.next += 1

    def _fetch(self, number: int) -> bytes:
        from shardkit.storage.store import read

        size = self.sizes[number]
        try:
            return bytes(read(self.store, self.names[number], 0, size))
        except NotFoundError as exc:
            raise ValueError("the object has vanished since the scan") from exc


AnyFiles = TreeFiles | DiskFiles | ArchiveMembers | StoreObjects


_WITHOUT_WAITING = READ_ONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
"""A path that was a file at the scan may be a pipe by now, and a blocking open would wait forever for its writer."""


def read_file(path: bytes, size: int) -> bytes:
    """Read the whole file, which must have `size` bytes: one more byte is requested to detect growth. Raises ValueError
    if the size differs, and OSError."""
    fd = os.open(path, _WITHOUT_WAITING)
    try:
        data = os.read(fd, size + 1)
        while len(data) < size:  # short read: a signal, a network file system, or more than 2 GiB
            more = os.read(fd, size + 1 - len(data))
            if not more:
                break
            data += more
    finally:
        os.close(fd)
    if len(data) != size:
        change = "grown" if len(data) > size else f"shrunk to {len(data)}"
        raise ValueError(f"the file had {size} bytes at the scan and has {change} since")
    return data
