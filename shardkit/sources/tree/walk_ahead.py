"""List folders ahead in threads if that pays off: on slow disks, such as network file systems.

The result is the same as without threads, in the same order. On a fast disk threads would only get in each other's
way, so the scan begins without them, and compares elapsed time with CPU time.
"""

from __future__ import annotations

import copy
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress

from shardkit.sources.left_out import LeftOutCounter
from shardkit.sources.tree.walk import ClassWalk, Folder, Listing, Walk, folders_in_order

THREADS = 16
TRIAL_SECONDS = 0.25
"""How long folders are listed before deciding on threads."""
BUSY = 0.5
"""The share of CPU time from which on threads do not help."""
_WAITING_FILES = 1 << 20
"""No more folders are listed ahead while this many files wait; each takes about 150 bytes until it is used."""


@contextmanager
def listed_ahead(walk: ClassWalk, tops: Sequence[str]) -> Iterator[ClassWalk]:
    """A walk that lists the folders `tops` ahead, in this order. A walk of anything else is returned unchanged."""
    if not isinstance(walk, Walk):
        yield walk
        return
    ahead = _Ahead(walk, tops)
    try:
        yield ahead
    finally:
        ahead.close()


class _Notes(LeftOutCounter):
    """What was left out in one folder, to be counted when that folder is used."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[tuple[str, str]] = []

    def add(self, reason: str, path: str) -> None:
        """Note an entry for later."""
        self.notes.append((reason, path))


class _Ahead:
    """A walk that lists known folders before they are requested."""

    def __init__(self, walk: Walk, tops: Sequence[str]) -> None:
        self.walk, self.root, self.left_out = walk, walk.root, walk.left_out
        self.known = deque(tops)  # in the order in which they will be requested, as far as known
        self.coming: dict[str, Future[tuple[Listing, _Notes]]] = {}
        self.pool: ThreadPoolExecutor | None = None
        self.seconds = self.computed = 0.0
        self.files, self.lock = 0, threading.Lock()

    def class_folders(self) -> list[str]:
        """As the walk's."""
        return self.walk.class_folders()

    def look(self, folder: str) -> tuple[bool, bool]:
        """As the walk's."""
        return self.walk.look(folder)

    def folders(self, top: str) -> Iterator[Folder]:
        """As the walk's."""
        return folders_in_order(top, self._listing)

    def close(self) -> None:
        """End the threads."""
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)

    def _listing(self, path: str) -> Listing:
        found = self._timed(path) if self.pool is None else self._taken(path)
        self.known.extendleft(sorted(found[1], reverse=True))
        return found

    def _timed(self, path: str) -> Listing:
        self._forget(path)
        began, computed = time.perf_counter(), time.thread_time()
        found = self.walk._list(path)
        self.seconds += time.perf_counter() - began
        self.computed += time.thread_time() - computed
        if self.seconds >= TRIAL_SECONDS:
            if self.computed < BUSY * self.seconds:
                self.pool = ThreadPoolExecutor(THREADS, "shardkit-scan")
            self.seconds = self.computed = 0.0
        return found

    def _taken(self, path: str) -> Listing:
        """The listing of a folder, after starting the next ones."""
        self._begin_more()
        coming = self.coming.pop(path, None)
        if coming is None:  # too many files are waiting
            self._forget(path)
            return self.walk._list(path)
        found, notes = coming.result()
        with self.lock:
            self.files -= len(found[0].names)
        for reason, where in notes.notes:
            self.left_out.add(reason, where)
        return found

    def _forget(self, path: str) -> None:
        with suppress(ValueError):
            self.known.remove(path)  # the first, except for names such as "a-b" beside "a/b"

    def _begin_more(self) -> None:
        assert self.pool is not None
        while self.known and len(self.coming) < 2 * THREADS and self.files < _WAITING_FILES:
            path = self.known.popleft()
            self.coming[path] = self.pool.submit(self._listed, path)

    def _listed(self, path: str) -> tuple[Listing, _Notes]:
        part = copy.copy(self.walk)
        part.left_out = notes = _Notes()
        found = part._list(path)
        with self.lock:
            self.files += len(found[0].names)
        return found, notes
