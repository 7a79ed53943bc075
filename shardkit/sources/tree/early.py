"""List a tree, and read its first images, in a thread while the process still loads what packs them: the C extension
`gather` needs no GIL for it.

`shardkit/__main__.py` begins before the command line is loaded, so this file imports little. The walk takes what was
listed (`taken`), folder by folder, and lists all others itself; the packer takes what was read (`read_ahead`), and
reads all others itself. The result is the same, whatever was begun.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from shardkit.formats.tar.read_ahead import ReadAhead
from shardkit.native import load
from shardkit.sample import DEFAULT_EXTENSIONS
from shardkit.sources.tree.native import Listed, in_both_cases, joined_extensions
from shardkit.system import POSIX
from shardkit.units import cores

DEPTH = 2
"""Folders below the root that are listed: splits, and classes in them."""

MOST_NAMES = 1 << 20
"""No more folders are listed when this many names wait."""

READ_BYTES = 1 << 26
"""The most bytes of images that are read, and kept until they are packed."""


_early: list[_Early] = []


def begin(root: str) -> None:
    """Begin to list the folders of `root`, if it is one, and to read its images. `listing_early` goes on with it."""
    native = load("gather")[0] if POSIX and sys.getfilesystemencoding() == "utf-8" else None
    if native is None or not root or "\0" in root:
        return
    early = _Early(native, root, READ_BYTES if cores() > 1 else 0)  # one core has no time left
    with suppress(RuntimeError):  # no thread can be started
        threading.Thread(target=early.images.run, daemon=True, name="shardkit-scan").start()
        _early.append(early)


def begin_files() -> Any:
    """In place of all that was begun, what looks at files anywhere and reads them, in a thread that calls its `visit`.
    None without the C extension, or where no processor has time for it."""
    end()
    native = load("gather")[0] if POSIX and cores() > 1 else None
    if native is None:
        return None
    _early.append(_Early(native, "/", READ_BYTES))
    return _early[-1].images


@contextmanager
def listing_early(root: str, *, reading: bool = False) -> Iterator[None]:
    """List the folders of `root` early, and read its images if `reading`; within the block, walks for the default
    extensions take them, and `read_ahead` tells of them. What was begun for another root ends."""
    if not (_early and _early[-1].root == _plain(root)):
        end()
        begin(root)
    if _early and not reading:
        _early[-1].images.list_only()
    try:
        yield
    finally:
        end()


def end() -> None:
    """End all that was begun."""
    for each in _early:
        each.images.stop()
    _early.clear()


def taken(place: str, wanted: frozenset[str]) -> Listed | None:
    """The listing of a folder, once; None if it was not listed for these extensions, and will not be any more."""
    return _early[-1].taken(place, wanted) if _early else None


def read_ahead(root: bytes) -> ReadAhead | None:
    """What was read of the files below `root`, if anything may have been."""
    return _early[-1].below(root) if _early else None


class _Early:
    """The folders that are listed, and the images that are read, below `root`."""

    def __init__(self, native: Any, root: str, room: int) -> None:
        self.root, self.wanted = _plain(root), in_both_cases(DEFAULT_EXTENSIONS)
        self.images = native.Ahead(os.fsencode(self.root), joined_extensions(self.wanted), room, MOST_NAMES, DEPTH)

    def taken(self, place: str, wanted: frozenset[str]) -> Listed | None:
        """As the function."""
        if wanted != self.wanted:
            self.images.stop()
            return None
        path = _below(os.fsencode(self.root), os.fsencode(place))
        found: Listed | None = None if path is None else self.images.take(path)
        return found

    def below(self, root: bytes) -> ReadAhead | None:
        """What was read below `root`; None if that is elsewhere."""
        path = _below(os.fsencode(self.root), root)
        return None if path is None else ReadAhead(self.images, path)


def _plain(root: str) -> str:
    return root.rstrip("/") or "/"


def _below(root: bytes, place: bytes) -> bytes | None:
    """The path of `place` below `root`, empty for the root itself; None if it is elsewhere."""
    prefix, place = os.path.join(root, b""), place.rstrip(b"/") or b"/"
    if os.path.join(place, b"") == prefix:
        return b""
    return place[len(prefix) :] if place.startswith(prefix) else None
