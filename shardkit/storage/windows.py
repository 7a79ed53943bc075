"""An object that is read from front to back with large parts left out, by as few and small ranges as possible."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from shardkit.storage.ranged import GAP_BYTES

FIRST_BYTES = 2048
"""The first range, before it is known how much is read between two parts that are left out."""

MOST_BYTES = 4 << 20
"""The largest range: where little is left out, everything is read in such pieces."""

REMEMBERED = 8
"""How many runs of bytes between parts that were left out determine how much is read after the next one."""


class Windows:
    """The function `fetch(at, n)` of an object of `size` bytes, for offsets that ascend: a call for bytes that are not
    held reads a window of the object.

    How much is read after a part that was left out follows from the runs before it. Where less than GAP_BYTES is left
    out, windows grow instead, since a request costs more than these bytes. Not thread-safe.
    """

    def __init__(self, read: Callable[[int, int], bytes], size: int) -> None:
        """read: the bytes start … end - 1 of the object."""
        self._read, self._size = read, size
        self._start, self._data = 0, b""
        self._run = self._used = 0  # where the current run of bytes began, and how far it was used
        self._ahead = FIRST_BYTES
        self._runs: deque[int] = deque(maxlen=REMEMBERED)

    def __call__(self, at: int, n: int) -> bytes:
        """The n bytes from byte `at` on, fewer at the end of the object."""
        stop = min(at + n, self._size)
        if at >= stop:
            return b""
        if at < self._start or stop > self._start + len(self._data):
            self._move(at, stop)
        self._used = max(self._used, stop)
        return self._data[at - self._start : stop - self._start]

    def _move(self, at: int, stop: int) -> None:
        held = self._start + len(self._data)
        if not self._data or at < self._start or at - self._used > GAP_BYTES:
            if self._data:
                self._runs.append(min(self._used - self._run, GAP_BYTES))
                self._ahead = max(self._runs)
            self._run = self._used = at
            first = at
        else:  # the run is longer than those before it
            self._ahead = min(MOST_BYTES, 2 * max(self._ahead, held - self._run))
            first = max(at, held)
        end = min(self._size, max(stop, first + self._ahead))
        kept = self._data[at - self._start :] if self._start <= at < held and first == held else b""
        self._start, self._data = at if kept else first, kept + self._read(first, end)
