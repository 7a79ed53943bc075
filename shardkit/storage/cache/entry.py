"""One object of the cache: a complete file, or one that is filled chunk by chunk (see folder.py for the layout)."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from shardkit.checksums import crc32c
from shardkit.storage.mapped import MappedFile
from shardkit.system import read_at, read_into, write_at

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from shardkit.storage.cache.folder import Cache

try:
    import fcntl
except ImportError:  # Windows has no record locks: there each process works on its own
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

Fetch = Callable[[int, int], "Buffer"]
"""The bytes start … end - 1 of the object, from its store."""

CHUNK = 4 << 20
WAIT_SECONDS = 20.0
"""How long to wait for a chunk that another process is fetching; then it is fetched here too, which is harmless."""


def chunks_of(size: int) -> int:
    """The number of chunks of an object."""
    return -(-size // CHUNK)


class Entry:
    """An object of the cache, whole or partial; this process holds it as long as anything refers to it. Thread safe."""

    def __init__(self, cache: Cache, name: str, size: int, crc: int, url: str, fd: int, map_fd: int | None) -> None:
        self.cache, self.name, self.size, self.crc, self.url = cache, name, size, crc, url
        self.whole = map_fd is None
        self.usable = True
        """Whether its bytes may still be used."""
        self._fd, self._map_fd = fd, map_fd
        self._mapping: MappedFile | None = None
        self._looked = False
        self._chunks = chunks_of(size)
        self._each: dict[int, threading.Lock] = {}
        self._lock = threading.Lock()

    def __del__(self) -> None:
        for fd in (self._fd, self._map_fd):
            if fd is not None:
                os.close(fd)

    def mapped(self, *, check: bool = False) -> MappedFile | None:
        """The whole object as a buffer, which keeps the file open; None if the object is not whole.

        check: verify its CRC-32C first, and drop the object if it is wrong.
        """
        with self._lock:
            if self.whole and self.usable:  # checked each time: reading beyond a file cut while mapped is fatal
                if os.fstat(self._fd).st_size != self.size or (check and not self.crc_is_right()):
                    self.drop("is damaged; fetching it again")
                elif self._mapping is None:
                    self._mapping = MappedFile(self._fd, self.size, access=MappedFile.READ)
            return self._mapping if self.usable else None

    def read(self, start: int, end: int, fetch: Fetch) -> Buffer:
        """The bytes start … end - 1: missing chunks are fetched whole, and kept."""
        missed: dict[int, Buffer] = {}
        if not self.whole:
            if not self._looked:  # the writer may have been killed just before it was whole
                self._looked = True
                self._finish(fetch)
            for chunk in range(start // CHUNK, -(-end // CHUNK)):
                data = self._chunk(chunk, fetch)
                if data is not None:
                    missed[chunk] = data
        try:
            return self._join(start, end, missed) if missed else self._pread(start, end)
        except OSError as exc:
            self.drop(f"can't be read ({exc.strerror or exc}); fetching it again")
            return fetch(start, end)

    def replace_damaged(self, start: int, data: Buffer) -> None:
        """Replace damaged bytes with correct ones. A whole object is dropped: none of it can be trusted."""
        if self.whole:
            self.drop("is damaged; fetching it again")
            return
        with contextlib.suppress(OSError):
            self._pwrite(start, data)

    def drop(self, why: str) -> None:
        """Remove the object from the cache, and log why."""
        self.usable = False
        log.warning("%s: the copy in the cache %s", self.url, why)
        self.cache.remove(self.name, self.size, "whole" if self.whole else "part", self._fd)

    def crc_is_right(self) -> bool:
        """Whether the cached bytes have the object's CRC-32C; True if no CRC-32C is known."""
        if self.crc < 0:
            return True
        crc = 0
        for start in range(0, self.size, CHUNK):
            crc = crc32c(bytes(self._pread(start, min(start + CHUNK, self.size))), crc)
        return bool(crc == self.crc)

    def _chunk(self, chunk: int, fetch: Fetch) -> Buffer | None:
        """Make sure that a chunk is cached. Returns its bytes if they can't be kept, otherwise None."""
        if self._has(chunk):
            return None
        with self._lock:
            lock = self._each.setdefault(chunk, threading.Lock())
        with lock:
            if self._claim_chunk(chunk):
                return None
            try:
                start, end = chunk * CHUNK, min((chunk + 1) * CHUNK, self.size)
                data = fetch(start, end)
                if self.cache.full or not self._keep(chunk, start, data):
                    return data
            finally:
                _release(self._map_fd, chunk)
        self._finish(fetch)
        return None

    def _has(self, chunk: int) -> bool:
        return self.whole or self._marks(chunk, 1) == b"\1"

    def _marks(self, first: int, count: int) -> bytes:
        """The map's bytes for `count` chunks from `first`: 1 for each cached chunk."""
        return b"" if self._map_fd is None else read_at(self._map_fd, count, first)

    def _claim_chunk(self, chunk: int) -> bool:
        """Claim a chunk that must be fetched. True if another process has fetched it meanwhile."""
        ends, pause = time.monotonic() + WAIT_SECONDS, 0.005
        while not self._has(chunk):
            if _claim(self._map_fd, chunk):
                if self._has(chunk):
                    _release(self._map_fd, chunk)
                    return True
                return False
            if time.monotonic() > ends:
                return False
            time.sleep(pause)
            pause = min(0.1, pause * 1.5)
        return True

    def _keep(self, chunk: int, start: int, data: Buffer) -> bool:
        try:
            self._pwrite(start, data)
            assert self._map_fd is not None
            write_at(self._map_fd, b"\1", chunk)
        except OSError as exc:
            self.cache.give_up(exc)
            return False
        return True

    def _finish(self, fetch: Fetch) -> None:
        """Mark the object as whole once all of its chunks are cached. The last chunk is fetched here if missing: it
        may contain no sample, so that no reader requests it."""
        if self._map_fd is None or not self.size or self.whole or not self.usable:
            return
        marks = self._marks(0, self._chunks).ljust(self._chunks, b"\0")
        missing = marks.count(0)
        if missing == 1 and not marks[-1] and self._chunks > 1:
            self._chunk(self._chunks - 1, fetch)
        if missing:
            return
        with self._lock:
            if self.whole or not self.usable:
                return
            if not self.crc_is_right():
                self.drop("arrived damaged; fetching it again")
                return
            # Windows renames no open file: the object stays partial there, with all its chunks
            with self.cache.alone(), contextlib.suppress(FileNotFoundError, PermissionError):
                part, whole = (self.cache.path(f"{self.name}.{kind}") for kind in ("part", "whole"))
                if os.path.samestat(os.stat(part), os.fstat(self._fd)):
                    os.replace(part, whole)
                    self.cache.unlink(self.name, "map")
            self.whole = True

    def _pread(self, start: int, end: int) -> Buffer:
        data, done = bytearray(end - start), 0
        with memoryview(data) as view:
            while done < len(data):
                count = read_into(self._fd, view[done:], start + done)
                if not count:
                    raise OSError(errno.EIO, "the copy in the cache was cut")
                done += count
        return data

    def _pwrite(self, start: int, data: Buffer) -> None:
        with memoryview(data) as view, view.cast("B") as rest:
            done = 0
            while done < len(rest):
                done += write_at(self._fd, rest[done:], start + done)

    def _join(self, start: int, end: int, missed: dict[int, Buffer]) -> bytearray:
        """The bytes start … end - 1, taking the chunks in `missed` from there and the rest from the file."""
        data = bytearray()
        for chunk in range(start // CHUNK, -(-end // CHUNK)):
            base = chunk * CHUNK
            first, stop = max(start, base), min(end, base + CHUNK)
            if chunk in missed:
                data += memoryview(missed[chunk])[first - base : stop - base]
            else:
                data += memoryview(self._pread(first, stop))
        return data


def _claim(fd: int | None, chunk: int) -> bool:
    """Lock a chunk's byte of the map against other processes; False if another holds it."""
    if fcntl is None or fd is None:
        return True
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, chunk)
    except (BlockingIOError, PermissionError):  # POSIX allows EAGAIN and EACCES
        return False
    except OSError:  # no locks on this file system: at worst a chunk is fetched twice
        return True
    return True


def _release(fd: int | None, chunk: int) -> None:
    if fcntl is not None and fd is not None:
        with contextlib.suppress(OSError):
            fcntl.lockf(fd, fcntl.LOCK_UN, 1, chunk)
