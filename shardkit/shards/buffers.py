"""The bytes of local shards: mapped files, opened on demand, and read ahead by the kernel.

A sample's bytes go from the page cache to the decoder without a copy. Read-ahead is requested with `posix_fadvise` in
large runs, from a separate thread, so that a cold disk sees long sequential reads however the samples are shuffled.
"""

from __future__ import annotations

import io
import os
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from shardkit.checksums import crc32c
from shardkit.errors import ManifestError, ReplacedError, ShardkitError, StorageError
from shardkit.formats.tar.stream import gunzip
from shardkit.location import Location
from shardkit.shards.objects import missing_file
from shardkit.storage.mapped import LOOK_SECONDS, shorter_error
from shardkit.storage.mapping import Mapping, let_go, map_file, view_of
from shardkit.system import READ_ONLY

UNPACKED_BYTES, UNPACKED_SHARDS = 4 << 30, 17
"""The memory limit for unpacked gzip shards. But one more than the 16 lanes read at a time is always kept: an evicted
shard would be unpacked again for each run of its samples."""

MAPPED_SHARDS = 8192
"""Shards that stay mapped. A process may have 65,530 mappings on Linux (vm.max_map_count)."""

HOLD_SECONDS = 0.5
"""How long the first samples wait for all shards to be mapped. That takes 10 ms for 1,000 shards on a disk; if each
takes long to open, as on a network disk, the rest are mapped while samples are delivered."""

READ_AHEAD_BYTES = 4 << 20
"""The bytes that one call asks the kernel to read. The kernel splits it into requests of the disk's size."""


CELL_BYTES = 128 << 10
"""The parts of a shard that the kernel is asked to read, each once in an epoch."""

GAP_CELLS = 8
"""The largest gap between two parts to read along with them: less than a disk reads in the time of one seek."""


PROBED_BYTES = 1 << 20

PROBED_RUNS = 16
"""How many of the runs of a block are looked for in the page cache: if these are there, the others are, too."""

OPEN_SHARDS = 64
"""Files that a reader keeps open to find out what is in the page cache."""


class ShardFile(msgspec.Struct, frozen=True):
    """The location of a shard, and its expected size and checksum. crc32c: -1 if not known. unpacked: the bytes of a
    gzip shard's tar, else 0. version: the store's version (ETag) when the shard was indexed, if it is known."""

    location: Location
    bytes: int
    crc32c: int
    unpacked: int = 0
    version: str | None = None

    @property
    def url(self) -> str:
        """The shard's name for users."""
        return str(self.location)


Stamp = tuple[int, int, int, int]
"""(device, number, bytes, time of the last change) of a file."""


class ShardBuffers(Protocol):
    """The shards of a dataset as buffers, wherever they are. Thread-safe."""

    @property
    def files(self) -> Sequence[ShardFile]:
        """The shards, by number."""
        ...

    def buffer(self, shard: int) -> Mapping:
        """The shard's bytes, of a gzip shard the unpacked ones.

        Raises NotFoundError, StorageError; ManifestError or DamagedError if it is not as expected.
        """
        ...

    def hold(self) -> None:
        """Keep the current shards, if that is cheap. ReplacedError if one was removed since the manifest was read."""
        ...


class BuffersInUse:
    """The buffers of at most `limit` shards; the least recently used are evicted first. Unpacked ones take at most
    UNPACKED_BYTES. Thread-safe."""

    def __init__(self, files: Sequence[ShardFile], limit: int) -> None:
        self._files, self._limit = files, limit
        self._open: OrderedDict[int, Mapping] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, shard: int) -> Mapping | None:
        """The buffer of a shard, if it is in use."""
        with self._lock:
            found = self._open.get(shard)
            if found is not None:
                self._open.move_to_end(shard)
            return found

    def add(self, shard: int, buffer: Mapping) -> list[tuple[int, Mapping]]:
        """Add a buffer. Returns (shard, buffer) of those that are evicted."""
        gone = []
        with self._lock:
            self._open[shard] = buffer
            while len(self._open) > self._limit or self._too_large():
                gone.append(self._open.popitem(last=False))
        return gone

    def _too_large(self) -> bool:
        if len(self._open) <= UNPACKED_SHARDS:
            return False
        return sum(self._files[shard].unpacked for shard in self._open) > UNPACKED_BYTES


class MappedShards:
    """The shards of a dataset on a disk. At most `limit` are in use at a time, the least recently used are dropped
    first. Up to MAPPED_SHARDS stay mapped nevertheless, so that a reader keeps the files with which it began.

    A gzip shard is unpacked into memory as a whole, and kept within UNPACKED_BYTES.

    verify: check the CRC-32C of a whole shard when it is first opened. Thread-safe. A mapping lives as long as anything
    refers to it, so a buffer that was returned stays valid.
    """

    keeps = True
    """Whether unused files stay mapped."""

    def __init__(self, files: Sequence[ShardFile], *, verify: bool, limit: int) -> None:
        self.files = files
        self.stamps: dict[int, Stamp] = {}
        """The last stamps of the mapped files."""
        self.proven: dict[int, Stamp] = {}
        """The shards found to match the index, with the file's stamp at that time."""
        self._looked: dict[int, float] = {}
        self._verify = verify
        self._in_use = BuffersInUse(files, limit)
        self._maps: dict[int, Mapping] = {}
        self._checked: set[int] = set()
        self._lock = threading.Lock()
        self._held = False
        self._replaced: ReplacedError | None = None

    def buffer(self, shard: int) -> Mapping:
        """The shard's bytes, of a gzip shard the unpacked ones.

        A mapped file is checked again after LOOK_SECONDS: reading beyond the end of a file that became shorter would
        kill the process.
        """
        found = self._in_use.get(shard)
        if found is not None:
            self.require_unchanged(shard)
            return found
        file, mapped = self.files[shard], self._mapped(shard)
        self.require_unchanged(shard)
        if self._verify and shard not in self._checked:
            require_crc(file, crc32c(mapped))
            self._checked.add(shard)
        found = unpack(file, mapped) if file.unpacked else mapped
        for number, least in self._in_use.add(shard, found):
            if number in self._maps and not self.files[number].unpacked:
                let_go(least)
        return found

    def hold(self) -> None:
        """Map all shards in a separate thread, so that replacing the dataset affects later readers only.

        Waits for the thread for at most HOLD_SECONDS. Raises ReplacedError if a shard was removed since the manifest
        was read.
        """
        with self._lock:
            held, self._held = self._held, True
        if self.keeps and not held and len(self.files) <= MAPPED_SHARDS:
            thread = threading.Thread(target=self._map_all, name="shardkit-map", daemon=True)
            thread.start()
            thread.join(HOLD_SECONDS)
            if self._replaced is not None:
                raise self._replaced

    def _map_all(self) -> None:
        for shard in range(len(self.files)):
            try:
                self._mapped(shard)
            except ReplacedError as exc:
                self._replaced = exc
                return
            except ShardkitError:
                continue  # reading the shard will report it

    def _mapped(self, shard: int) -> Mapping:
        found = self._maps.get(shard)
        if found is None:
            found = self._map(shard)
            with self._lock:
                if self.keeps and len(self._maps) < MAPPED_SHARDS:
                    found = self._maps.setdefault(shard, found)
        return found

    def _map(self, shard: int) -> Mapping:
        """The shard's file as a buffer."""
        file = self.files[shard]
        try:
            descriptor = os.open(file.location.path, READ_ONLY)
            try:
                status = os.fstat(descriptor)
                require_size(file, status.st_size)
                mapping = map_file(descriptor, status.st_size)
            finally:
                os.close(descriptor)
        except FileNotFoundError as exc:
            raise missing_file(file.location) from exc
        except OSError as exc:
            raise StorageError(file.url, exc.strerror or str(exc), "check the disk and its permissions") from exc
        with self._lock:
            self.stamps.setdefault(shard, _stamp(status))
        return mapping

    def require_unchanged(self, shard: int) -> None:
        """StorageError for a mapped file that became shorter. Its stamp shows any other change. A file that was
        removed, or replaced by another, is still read as it was."""
        stamp, now = self.stamps.get(shard), time.monotonic()
        if stamp is None or now - self._looked.get(shard, -LOOK_SECONDS) < LOOK_SECONDS:
            return
        self._looked[shard] = now
        file = self.files[shard]
        try:
            found = _stamp(os.stat(file.location.path))
        except OSError:  # removed or replaced: the mapping stays unchanged
            return
        if found == stamp or found[:2] != stamp[:2]:
            return
        if found[2] < file.bytes:
            raise shorter_error(file.url, found[2], file.bytes)
        self.stamps[shard] = found
        self._checked.discard(shard)
        if self._verify:
            require_crc(file, crc32c(self._mapped(shard)))
            self._checked.add(shard)


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def require_size(file: ShardFile, size: int) -> None:
    """ManifestError for a shard whose size is not the one in the manifest."""
    if size != file.bytes:
        fact = f"the shard has {size} bytes, but its manifest says {file.bytes}"
        raise ManifestError(file.url, fact, "copy it again, pack again, or run 'shardkit index'")


def require_version(file: ShardFile, version: str | None) -> None:
    """ManifestError for a shard that was written again since it was indexed, as its store's version tells."""
    if file.version is not None and version is not None and version != file.version:
        fact = f"the shard was replaced since it was indexed: its version was {file.version}, and is {version}"
        cure = "run 'shardkit index' again with --overwrite; with index='auto', open the dataset again"
        raise ManifestError(file.url, fact, cure)


def require_crc(file: ShardFile, crc: int) -> None:
    """ManifestError for a shard whose checksum is not the one in the manifest."""
    if file.crc32c not in (-1, crc):
        fact = f"the shard's CRC-32C is {crc:08x}, but its manifest says {file.crc32c:08x}"
        raise ManifestError(file.url, fact, "the shard is damaged: copy it again or pack again")


def unpack(file: ShardFile, data: Mapping) -> bytes:
    """The unpacked bytes of a shard; no more are made than the manifest says."""
    cure = "copy it again, or recreate the index with 'shardkit index'"
    source, pieces, size = gunzip(io.BytesIO(view_of(data)), place=file.url), list[bytes](), 0
    while size <= file.unpacked and (piece := source.read(READ_AHEAD_BYTES)):
        pieces.append(piece)
        size += len(piece)
    if size != file.unpacked:
        made = f"more than {file.unpacked}" if size > file.unpacked else str(size)
        fact = f"unpacked, the shard has {made} bytes, but its manifest says {file.unpacked}"
        raise ManifestError(file.url, fact, cure)
    return b"".join(pieces)


class ReadAhead:
    """Asks the kernel to read runs of local files before they are used, unless it has them. `close` ends it. Errors are
    ignored here, since reading the bytes raises them too."""

    def __init__(self, files: Sequence[ShardFile]) -> None:
        self._files = files
        cells = [-(-max(file.bytes, file.unpacked) // CELL_BYTES) + GAP_CELLS + 1 for file in files]
        self._bases: NDArray[np.int64] = np.cumsum([0, *cells])  # the cells of all shards, with gaps between them
        self._bytes = np.array([file.bytes for file in files], np.int64)
        self._asked = np.zeros(self._bases[-1], np.bool_)
        self._open: OrderedDict[int, int] = OrderedDict()
        self._jobs: queue.SimpleQueue[list[tuple[int, int, int]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False

    def want(self, shards: NDArray[np.int64], firsts: NDArray[np.int64], stops: NDArray[np.int64]) -> None:
        """Announce that the bytes firsts … stops - 1 of shards will be used soon: n spans (int64). Each part of a shard
        is requested only once."""
        bases = self._bases[shards]
        low, high = bases + firsts // CELL_BYTES, bases + (stops - 1) // CELL_BYTES
        new = ~(self._asked[low] & self._asked[high])
        if not new.any():
            return
        low, high = np.sort(low[new]), np.sort(high[new])
        breaks = np.flatnonzero(low[1:] - high[:-1] > GAP_CELLS)
        low, high = low[np.append(0, breaks + 1)], high[np.append(breaks, -1)]
        for first, last in zip(low.tolist(), high.tolist(), strict=True):
            self._asked[first : last + 1] = True
        numbers = np.searchsorted(self._bases, low, side="right") - 1
        bases = self._bases[numbers]
        starts, ends = (low - bases) * CELL_BYTES, np.minimum((high + 1 - bases) * CELL_BYTES, self._bytes[numbers])
        self._ask(list(zip(numbers.tolist(), starts.tolist(), ends.tolist(), strict=True)))

    def _ask(self, runs: list[tuple[int, int, int]]) -> None:
        with suppress(OSError):
            if all(is_cached(self._descriptor(run[0]), *run[1:]) for run in runs[:: 1 + len(runs) // PROBED_RUNS]):
                return
            if self._thread is None:  # a request may wait until the disk takes it
                self._thread = threading.Thread(target=self._serve, name="shardkit-read-ahead", daemon=True)
                self._thread.start()
            self._jobs.put(runs)

    def _descriptor(self, shard: int) -> int:
        """The file of a shard, opened; the last few are kept. Only the reader's thread uses them."""
        found = self._open.pop(shard, None)
        if found is None:
            found = os.open(self._files[shard].location.path, READ_ONLY)
        self._open[shard] = found
        if len(self._open) > OPEN_SHARDS:
            os.close(self._open.popitem(last=False)[1])
        return found

    def close(self) -> None:
        """End the thread, dropping pending requests."""
        self._closed = True
        self._jobs.put(None)
        while self._open:
            os.close(self._open.popitem()[1])

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None and not self._closed:
            for shard, start, end in job:
                with suppress(OSError):
                    self._advise(self._files[shard].location.path, start, end)

    def _advise(self, path: str, start: int, end: int) -> None:
        fd = os.open(path, os.O_RDONLY)
        try:
            for offset in range(start, end, READ_AHEAD_BYTES):
                if self._closed:
                    return
                os.posix_fadvise(fd, offset, min(READ_AHEAD_BYTES, end - offset), os.POSIX_FADV_WILLNEED)
        finally:
            os.close(fd)


def is_cached(descriptor: int, start: int, end: int) -> bool:
    """Whether bytes of a file are in the page cache, judged by the last one and one in PROBED_BYTES before it: to look
    for all pages takes the kernel a fifth of the time of copying them. False where the system does not tell."""
    if not hasattr(os, "RWF_NOWAIT"):
        return False
    byte = [bytearray(1)]
    try:
        for place in range(end - 1, start - 1, -PROBED_BYTES):
            os.preadv(descriptor, byte, place, os.RWF_NOWAIT)
    except OSError:  # BlockingIOError: it would have to be read
        return False
    return True


def can_read_ahead() -> bool:
    """Whether this system has posix_fadvise."""
    return hasattr(os, "posix_fadvise")
