"""The bytes of local shards: mapped files, opened when they are needed, and read ahead of use by the kernel.

A sample's bytes go from the page cache to the decoder without a copy. Reading ahead is asked for by `posix_fadvise` in
large runs, from a thread of its own, so that a cold disk sees long sequential reads however the samples are shuffled.
"""

from __future__ import annotations

import gzip
import mmap
import os
import queue
import threading
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import google_crc32c

from shardkit.errors import DamagedError, ManifestError, NotFoundError, StorageError
from shardkit.location import Location

UNPACKED_BYTES, UNPACKED_SHARDS = 4 << 30, 17
"""What is kept of unpacked gzip shards. But one more than the 16 lanes read at a time is kept in any case: a shard that
went would be unpacked again for each run of its samples."""

READ_AHEAD_BYTES = 4 << 20
"""What one call asks the kernel to read. It is split there into requests as large as the disk takes."""


@dataclass(frozen=True, slots=True)
class ShardFile:
    """Where a shard is, and what it must be. crc32c -1: not known. unpacked: bytes of a gzip shard's tar, else 0."""

    location: Location
    bytes: int
    crc32c: int
    unpacked: int = 0

    @property
    def url(self) -> str:
        """The shard's name for users."""
        return str(self.location)


class MappedShards:
    """The shards of a dataset as buffers. At most `limit` are mapped at a time, the least recently used go first.

    A gzip shard can't be mapped: it is unpacked into memory as a whole, and kept within UNPACKED_BYTES.

    verify: check the CRC-32C of a whole shard when it is first opened. Thread safe. A mapping lives on while anything
    refers to it, so that a buffer that was given away stays good.
    """

    def __init__(self, files: Sequence[ShardFile], *, verify: bool, limit: int) -> None:
        self.files = files
        self._verify = verify
        self._limit = limit
        self._open: OrderedDict[int, mmap.mmap | bytes] = OrderedDict()
        self._checked: set[int] = set()
        self._lock = threading.Lock()

    def buffer(self, shard: int) -> mmap.mmap | bytes:
        """The shard's bytes, of a gzip shard the unpacked ones.

        Raises NotFoundError, StorageError; ManifestError or DamagedError where it is not as it should be.
        """
        with self._lock:
            found = self._open.get(shard)
            if found is not None:
                self._open.move_to_end(shard)
                return found
        file = self.files[shard]
        mapped = self._map(shard)
        if self._verify and shard not in self._checked:
            demand_crc(file, crc_of(mapped))
            self._checked.add(shard)
        found = _unpacked(file, mapped) if file.unpacked else mapped
        with self._lock:
            self._open[shard] = found
            while len(self._open) > self._limit or self._too_large():
                self._open.popitem(last=False)
        return found

    def _too_large(self) -> bool:
        if len(self._open) <= UNPACKED_SHARDS:
            return False
        return sum(self.files[shard].unpacked for shard in self._open) > UNPACKED_BYTES

    def _map(self, shard: int) -> mmap.mmap | bytes:
        """The shard's file as a buffer."""
        file = self.files[shard]
        try:
            fd = os.open(file.location.path, os.O_RDONLY)
        except FileNotFoundError as exc:
            raise NotFoundError(file.url, "the shard is missing", "bring it back, or pack again") from exc
        except OSError as exc:
            raise StorageError(file.url, exc.strerror or str(exc), "check the disk and its rights") from exc
        try:
            size = os.fstat(fd).st_size
            demand_size(file, size)
            return mmap.mmap(fd, size, access=mmap.ACCESS_READ)
        finally:
            os.close(fd)


def demand_size(file: ShardFile, size: int) -> None:
    """ManifestError for a shard of another size than its manifest says."""
    if size != file.bytes:
        fact = f"the shard has {size} bytes, and its manifest says {file.bytes}"
        raise ManifestError(file.url, fact, "copy it again, pack again, or run 'shardkit index'")


def demand_crc(file: ShardFile, crc: int) -> None:
    """ManifestError for a shard of another checksum than its manifest says."""
    if file.crc32c not in (-1, crc):
        fact = f"the shard's CRC-32C is {crc:08x}, and its manifest says {file.crc32c:08x}"
        raise ManifestError(file.url, fact, "the shard is damaged: copy it again or pack again")


def crc_of(data: mmap.mmap | bytes) -> int:
    """The CRC-32C of a whole buffer."""
    view, crc = memoryview(data), 0
    for start in range(0, len(data), 1 << 24):
        crc = google_crc32c.extend(crc, bytes(view[start : start + (1 << 24)]))
    return crc


def _unpacked(file: ShardFile, data: mmap.mmap | bytes) -> bytes:
    cure = "copy it again, or make the index again with 'shardkit index'"
    try:
        unpacked = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as exc:
        raise DamagedError(file.url, f"the gzip shard can't be unpacked ({exc})", cure) from exc
    if len(unpacked) != file.unpacked:
        fact = f"unpacked, the shard has {len(unpacked)} bytes, and its manifest says {file.unpacked}"
        raise ManifestError(file.url, fact, cure)
    return unpacked


class ReadAhead:
    """Asks the kernel for runs of local files before they are used. `close` ends its thread; errors are ignored here,
    since whoever then reads the bytes meets them too."""

    def __init__(self, files: Sequence[ShardFile]) -> None:
        self._files = files
        self._asked: dict[int, int] = {}
        self._jobs: queue.SimpleQueue[tuple[int, int, int] | None] = queue.SimpleQueue()
        self._closed = False
        threading.Thread(target=self._serve, name="shardkit-read-ahead", daemon=True).start()

    def want(self, shard: int, start: int, end: int) -> None:
        """Bytes start … end of a shard will be used soon. What was asked for already is not asked for again."""
        asked = self._asked.get(shard)
        if asked is not None and start <= asked:
            start = asked
        if end > start:
            self._asked[shard] = end
            self._jobs.put((shard, start, end))

    def close(self) -> None:
        """End the thread, leaving what is not asked for yet."""
        self._closed = True
        self._jobs.put(None)

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None and not self._closed:
            shard, start, end = job
            try:
                self._advise(self._files[shard].location.path, start, end)
            except OSError:
                continue

    def _advise(self, path: str, start: int, end: int) -> None:
        fd = os.open(path, os.O_RDONLY)
        try:
            for offset in range(start, end, READ_AHEAD_BYTES):
                if self._closed:
                    return
                os.posix_fadvise(fd, offset, min(READ_AHEAD_BYTES, end - offset), os.POSIX_FADV_WILLNEED)
        finally:
            os.close(fd)


def can_read_ahead() -> bool:
    """Whether this system has posix_fadvise."""
    return hasattr(os, "posix_fadvise")
