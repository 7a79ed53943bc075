"""An object of a store as a file that can be sought in."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock

from shardkit.storage.store import Store, read
from shardkit.threads import in_threads

GAP_BYTES = 32 << 10
"""Bytes between two spans that are fetched along with them: about what a request costs in transfer time."""

REQUESTS = 16
"""Requests at a time."""

Span = tuple[int, int]
"""The first byte, and the one after the last."""


class RangedFile(io.RawIOBase):
    """An object as a file for Parquet's reader, which seeks in it. Each read is a request, unless its bytes are held.

    `holding` may be called from any thread; reading and seeking need the reader's lock, as with any file.
    """

    def __init__(self, store: Store, name: str, size: int) -> None:
        self._store, self._name = store, name
        self._size, self._at = size, 0
        self._held: list[tuple[int, bytes]] = []
        self._lock = Lock()

    def size(self) -> int:
        """Its length."""
        return self._size

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Where the next byte is read."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Read from there on. The new position."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int | None = -1, /) -> bytes:
        """The next bytes."""
        end = self._size if size is None or size < 0 else min(self._size, self._at + size)
        start, self._at = self._at, max(self._at, end)
        if start >= end:
            return b""
        held = self._held_at(start, end)
        return self._fetch((start, end)) if held is None else held[1][start - held[0] : end - held[0]]

    @contextmanager
    def holding(self, spans: Sequence[Span]) -> Iterator[None]:
        """Fetch these spans at the same time, neighbours in one request, and hold them in this context."""
        limits = ((max(0, start), min(end, self._size)) for start, end in spans)
        missing = [(start, end) for start, end in limits if start < end and self._held_at(start, end) is None]
        wanted = merged(missing)
        fetched = list(in_threads(self._fetch, wanted, min(REQUESTS, max(1, len(wanted)))))
        held = [(start, data) for (start, _), data in zip(wanted, fetched, strict=True)]
        with self._lock:
            self._held = [*self._held, *held]
        try:
            yield
        finally:
            with self._lock:
                self._held = [one for one in self._held if not any(one is own for own in held)]

    def _held_at(self, start: int, end: int) -> tuple[int, bytes] | None:
        return next((one for one in self._held if one[0] <= start and end <= one[0] + len(one[1])), None)

    def _fetch(self, span: Span) -> bytes:
        return bytes(read(self._store, self._name, *span))


def merged(spans: Sequence[Span]) -> list[Span]:
    """Spans that cover the given ones, ascending, with gaps of more than GAP_BYTES between them."""
    found: list[Span] = []
    for start, end in sorted(spans):
        if found and start - found[-1][1] <= GAP_BYTES:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((start, end))
    return found
