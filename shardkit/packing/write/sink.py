"""The output file of a shard, and the progress of reading."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from shardkit.checksums import crc32c
from shardkit.formats.tar.fast_write import Gathered, Gatherer
from shardkit.native import load
from shardkit.storage.files import translated

Advance = Callable[[int, int], None]
"""Called with the numbers of samples and bytes read since the last call."""

VECTOR = 512
"""Pieces that one call writes: well under every system's IOV_MAX."""


class Sink:
    """The shard being written, and the CRC-32C of all its bytes."""

    FLUSH_BYTES = 1 << 18
    """The bytes to buffer before writing: large enough for few calls, small enough to stay in the core's cache."""

    call_bytes: int | None = None
    """About the bytes that one call of the C extension writes; None for the usual number."""

    def __init__(self, fd: int, place: bytes) -> None:
        self.fd, self.place = fd, place
        self.bytes = 0
        self.crc = 0

    def write(self, pieces: list[bytes], size: int) -> None:
        """Write the pieces, which have `size` bytes in total."""
        if size < 16384 * len(pieces):  # many small ones: joining costs less than a long vector
            pieces = [b"".join(pieces)]
        for piece in pieces:
            self.crc = crc32c(piece, self.crc)
        with translated(self.place):
            for first in range(0, len(pieces), VECTOR):
                _write_all(self.fd, pieces[first : first + VECTOR])
        self.bytes += size

    def gather(self, gatherer: Gatherer, number: int) -> Gathered | None:
        """Let the C extension write samples from file `number` on; None if it does not take that file."""
        with translated(self.place):
            some = gatherer.write(number, self.fd, self.bytes, self.crc, self.call_bytes)
        if some is not None:
            self.bytes += some.size
            self.crc = some.crc
        return some


class ThreadSink(Sink):
    """A sink whose thread, in the C extension `framing`, checksums and writes without the GIL and has the disk begin,
    while the caller goes on. At most WAITING_BYTES and a sample wait. `bytes` and `crc` are those of the file after
    `end`; errors of writing are raised later, at the latest by `end`."""

    FLUSH_BYTES = 0
    """`output` is filled by others too, who go on where this sink is."""

    WAITING_BYTES = 2 << 20
    """As in native/include/framing/output.h."""

    def __init__(self, fd: int, place: bytes, native: Any) -> None:
        super().__init__(fd, place)
        self.output = native.Output(fd)

    def write(self, pieces: list[bytes], size: int) -> None:
        """Write the pieces, which have `size` bytes in total, in the thread."""
        with translated(self.place):
            self.output.write(tuple(pieces))

    def end(self) -> None:
        """Wait until everything is written."""
        with translated(self.place):
            self.bytes, self.crc = self.output.end()

    def abort(self) -> None:
        """Write nothing more; the file may be closed then."""
        self.output.abort()


class PoolSink(Sink):
    """The plain twin of ThreadSink, which writes in the thread of a pool."""

    FLUSH_BYTES = 1 << 22
    """The bytes to buffer before writing: each turn of the thread may wait for the GIL for 5 ms."""

    TURNS = 2
    """How often FLUSH_BYTES wait."""

    def __init__(self, fd: int, place: bytes, pool: ThreadPoolExecutor) -> None:
        super().__init__(fd, place)
        self._pool = pool
        self._waiting = deque[Future[None]]()  # a turn that failed stays the first

    def write(self, pieces: list[bytes], size: int) -> None:
        """Write the pieces, which have `size` bytes in total, in the thread."""
        while len(self._waiting) >= self.TURNS:
            self._end_first()
        self._waiting.append(self._pool.submit(super().write, pieces, size))

    def end(self) -> None:
        """Wait until everything is written."""
        while self._waiting:
            self._end_first()

    def abort(self) -> None:
        """Write nothing more; the file may be closed then."""
        for turn in self._waiting:
            turn.cancel()
        wait(self._waiting)

    def _end_first(self) -> None:
        self._waiting[0].result()
        self._waiting.popleft()


ShardSink = ThreadSink | PoolSink


def shard_sink(fd: int, place: bytes, pool: ThreadPoolExecutor) -> ShardSink:
    """The sink for a file: a ThreadSink if it can be had. pool: of one thread, for the other."""
    native = load("framing")[0]
    return PoolSink(fd, place, pool) if native is None else ThreadSink(fd, place, native)


def _write_all(fd: int, pieces: list[bytes]) -> None:
    wanted = sum(map(len, pieces))
    written = os.writev(fd, pieces)
    if written < wanted:
        rest = memoryview(b"".join(pieces))[written:]
        while rest:
            rest = rest[os.write(fd, rest) :]


class Meter:
    """Reports to `advance` from time to time how much of a task has been read; the reports add up to the task's
    `extent`.

    Bytes are those of the source, including skipped samples, regardless of how many end up in the shard.
    """

    TELL_BYTES, TELL_FILES = 4 << 20, 2000
    """The bytes read between two calls of `advance`."""

    def __init__(self, advance: Advance, extent: tuple[int, int]) -> None:
        self._advance = advance
        self._left, self._left_bytes = extent
        self._samples = self._bytes = 0

    def read(self, size: int) -> None:
        """Count one more sample of `size` bytes."""
        self._samples += 1
        self._bytes += size
        if self._bytes >= self.TELL_BYTES or self._samples >= self.TELL_FILES:
            self._tell(self._samples, self._bytes)

    def end(self) -> None:
        """Report the rest."""
        self._tell(self._left, self._left_bytes)

    def _tell(self, samples: int, size: int) -> None:
        self._advance(samples, size)
        self._left -= samples
        self._left_bytes -= size
        self._samples = self._bytes = 0
