"""List a tree in a thread while the process still loads what packs it: about half of a scan is over by then.

The walk takes what was listed (`taken`), folder by folder, and lists all others itself; the result is the same.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

from shardkit.sample import DEFAULT_EXTENSIONS
from shardkit.sources.tree.native import Listed, lister
from shardkit.sources.tree.walk import taking_from, wanted_extensions

DEPTH = 2
"""Folders below the root that are listed: splits, and classes in them."""

MOST_NAMES = 1 << 20
"""No more folders are listed when this many names wait."""


@contextmanager
def listing_early(root: str) -> Iterator[None]:
    """Begin to list the folders of `root`, if it is one; within the block, walks for the default extensions take
    them."""
    wanted = wanted_extensions(DEFAULT_EXTENSIONS)
    listed = lister(wanted)
    if listed is None or not os.path.isdir(root):
        yield
        return
    early = _Early(root, wanted)
    thread = threading.Thread(target=early.run, daemon=True, name="shardkit-scan")
    thread.start()
    try:
        with taking_from(early):
            yield
    finally:
        early.stopped = True


class _Early:
    """The folders that were listed, or are being listed."""

    def __init__(self, root: str, wanted: frozenset[str]) -> None:
        self.root, self.wanted = root, wanted
        self.stopped = False
        self._known: dict[str, Future[Listed | None] | None] = {}
        self._lock = threading.Lock()
        self._names = 0

    def taken(self, place: str) -> Listed | None:
        """The listing of a folder, once; None if it was not listed, and will not be any more."""
        with self._lock:
            future = self._known.pop(place.rstrip("/"), None)
            if not self.stopped:  # the thread must not list it again
                self._known[place.rstrip("/")] = None
        found = None if future is None else future.result()
        with self._lock:
            self._names -= 0 if found is None else len(found[0])
        return found

    def run(self) -> None:
        """List the root and the folders below it, level by level."""
        waiting = deque([(self.root.rstrip("/") or "/", 0)])
        while waiting and not self.stopped and self._names < MOST_NAMES:
            place, depth = waiting.popleft()
            with self._lock:
                if place in self._known:
                    continue
                future = self._known[place] = Future()
            found = self._list(place)
            with self._lock:
                self._names += 0 if found is None else len(found[0])
            future.set_result(found)
            if found is not None and depth < DEPTH:
                below = sorted(name for name in found[1] if not name.startswith("."))
                waiting += [(os.path.join(place, name), depth + 1) for name in below]
        self.stopped = True

    def _list(self, place: str) -> Listed | None:
        """The listing of a folder; None for anything that is not one, and for what the walk has to report."""
        listed = lister(self.wanted)
        try:
            folder = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            return None
        try:
            return None if listed is None else listed(folder)
        except Exception:  # whatever it is, the walk meets it again
            return None
        finally:
            os.close(folder)
