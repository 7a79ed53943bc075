"""Where the bytes of a shard go, and who is told how far the reading is."""

from __future__ import annotations

import os
from collections.abc import Callable

from shardkit.checksums import crc32c
from shardkit.storage.files import translated

Advance = Callable[[int, int], None]
"""Called with the samples and bytes that were read since the last call."""

VECTOR = 512
"""Pieces that one call writes: well under every system's IOV_MAX."""


class Sink:
    """The shard being written, and the CRC-32C of it all."""

    FLUSH_BYTES = 1 << 18
    """Bytes that wait before they are written: large enough for few calls, small enough to stay in the core's cache."""

    def __init__(self, fd: int, place: bytes) -> None:
        self.fd, self.place = fd, place
        self.bytes = 0
        self.crc = 0

    def write(self, pieces: list[bytes], size: int) -> None:
        """Write the pieces, which have `size` bytes together."""
        if size < 16384 * len(pieces):  # many small ones: joining costs less than a long vector
            pieces = [b"".join(pieces)]
        for piece in pieces:
            self.crc = crc32c(piece, self.crc)
        with translated(self.place):
            for first in range(0, len(pieces), VECTOR):
                _write_all(self.fd, pieces[first : first + VECTOR])
        self.bytes += size


def _write_all(fd: int, pieces: list[bytes]) -> None:
    wanted = sum(map(len, pieces))
    written = os.writev(fd, pieces)
    if written < wanted:
        rest = memoryview(b"".join(pieces))[written:]
        while rest:
            rest = rest[os.write(fd, rest) :]


class Meter:
    """Tells `advance` how much of a task has been read, now and then; what it tells adds up to the task's `extent`.

    Bytes are those of the source, also of samples that are left out, however many the shard gets of them.
    """

    TELL_BYTES, TELL_FILES = 4 << 20, 2000
    """How much is read between two calls of `advance`."""

    def __init__(self, advance: Advance, extent: tuple[int, int]) -> None:
        self._advance = advance
        self._left, self._left_bytes = extent
        self._samples = self._bytes = 0

    def read(self, size: int) -> None:
        """One more sample of `size` bytes has been read."""
        self._samples += 1
        self._bytes += size
        if self._bytes >= self.TELL_BYTES or self._samples >= self.TELL_FILES:
            self._tell(self._samples, self._bytes)

    def end(self) -> None:
        """All has been read."""
        self._tell(self._left, self._left_bytes)

    def _tell(self, samples: int, size: int) -> None:
        self._advance(samples, size)
        self._left -= samples
        self._left_bytes -= size
        self._samples = self._bytes = 0
