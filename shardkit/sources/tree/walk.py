"""Walk folders of images: which entries count, and in which order.

The order is that of Keras (`iter_valid_files`: `sorted(os.walk(…))`, then sorted names): all folders below a class by
their whole path, and the files of each by name, compared as text by code points (an invalid UTF-8 byte as U+DC00 plus
the byte), so that the order is the same on every file system. Paths here are text from `os.fsdecode`.
"""

from __future__ import annotations

import errno
import heapq
import os
import stat
import sys
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from shardkit.errors import MissingSourceError, SourceError, UsageError
from shardkit.sample import fs_text
from shardkit.sources import left_out as leftout
from shardkit.sources.left_out import LeftOutCounter
from shardkit.sources.tree.early import taken
from shardkit.sources.tree.names import JoinedNames
from shardkit.sources.tree.native import Named, in_both_cases, lister

SYSTEM_NAMES = frozenset(
    ("thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "#recycle", "$recycle.bin", "lost+found")
)
"""Files and folders of the system, which are left out, in lower case."""

MAX_DEPTH = 1000
"""The maximum nesting of folders: deeper trees are an attack, and no other program could unpack them."""


class Entry(Protocol):
    """An entry of a folder: an `os.DirEntry`, or a name that the C extension left to Python."""

    @property
    def name(self) -> str:
        """The name, as text from `os.fsdecode`."""
        ...

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """Whether it is a folder; False if it is gone."""
        ...

    def is_file(self) -> bool:
        """Whether it is, or leads to, a regular file; False if it is gone."""
        ...

    def is_symlink(self) -> bool:
        """Whether it is a link."""
        ...

    def stat(self) -> os.stat_result:
        """The status of what it is or leads to. Raises OSError."""
        ...


@dataclass(frozen=True, slots=True)
class Folder:
    """The images of one folder: its path below the root, their names in order, and their sizes in bytes."""

    path: str
    names: Sequence[str]
    sizes: Sequence[int]


def folder_of(path: str, sizes: Mapping[str, int]) -> Folder:
    """The folder whose images have these sizes, by name."""
    names = in_order(sizes)
    return Folder(path, names, [sizes[name] for name in names])


Listing = tuple[Folder, list[str]]
"""(the images of a folder, the paths of the folders in it)."""


def wanted_extensions(extensions: Collection[str]) -> frozenset[str]:
    """The extensions in lower and upper case. UsageError for an empty list or an invalid extension."""
    cure = "give extensions such as jpg, png"
    if isinstance(extensions, str) or not extensions:
        raise UsageError("extensions", f"a list of at least one extension is expected, not {extensions!r}", cure)
    lower = {extension.lower().removeprefix(".") for extension in extensions}
    for extension in lower:
        if not extension or "." in extension or "/" in extension:
            raise UsageError("extensions", f"{extension!r} is not the last part of a file name", cure)
    return in_both_cases(lower)


def check_root(root: str) -> None:
    """SourceError unless `root` is a folder that can be read."""
    try:
        if stat.S_ISDIR(os.stat(root).st_mode):
            os.scandir(root).close()
            return
    except FileNotFoundError as exc:
        raise MissingSourceError(fs_text(root), "there is no such folder", "check the path of the source") from exc
    except OSError as exc:
        raise _unreadable(root, exc) from exc
    raise SourceError(fs_text(root), "this is a file; a folder of class folders is expected", "give its folder")


class ClassWalk(Protocol):
    """What a scan needs from a tree: a Walk of folders, or the listing of an archive or a bucket."""

    @property
    def root(self) -> str:
        """The tree's name in messages."""
        ...

    @property
    def left_out(self) -> LeftOutCounter:
        """The counter for entries that are left out."""
        ...

    def class_folders(self) -> list[str]:
        """The names of the visible folders directly below the root, in order."""
        ...

    def folders(self, top: str) -> Iterator[Folder]:
        """Yield the folders at and below `top`, in order, including those without images."""
        ...

    def look(self, folder: str) -> tuple[bool, bool]:
        """(whether `folder` directly contains an image, whether it contains a folder to walk)."""
        ...


def folders_in_order(top: str, look_into: Callable[[str], Listing]) -> Iterator[Folder]:
    """Yield the folders at and below `top`, in order.

    look_into: lists a folder. A folder's path begins with its parent's, so that the smallest known path is always
    next.
    """
    waiting = [(_order(top), top)]
    while waiting:
        _, path = heapq.heappop(waiting)
        folder, below = look_into(path)
        for each in below:
            heapq.heappush(waiting, (_order(each), each))
        yield folder


def in_order(names: Iterable[str]) -> list[str]:
    """Names in the order of a scan."""
    return sorted(names) if _order is str else sorted(names, key=_order)


def hidden_or_system(name: str, *, is_folder: bool) -> str | None:
    """Why an entry is left out because of its name alone; None if it is not."""
    if name.startswith("."):
        return leftout.HIDDEN_FOLDERS if is_folder else leftout.HIDDEN_FILES
    return leftout.SYSTEM if name.lower() in SYSTEM_NAMES else None


class Walk:
    """One scan below `root`: its rules, and the counter for what is left out."""

    def __init__(self, root: str, extensions: Collection[str], left_out: LeftOutCounter) -> None:
        self.root = root
        self.left_out = left_out
        self._wanted = wanted_extensions(extensions)
        self._lister = lister(self._wanted)
        self._above = _identities_above(root)

    def class_folders(self) -> list[str]:
        """The names of the visible folders directly below the root, in order; everything else there is left out."""
        found = []
        with _entries(self.root) as entries:
            for entry in sorted(entries, key=_name_order):
                reason = self._reason(entry, entry.name)
                if reason is None and entry.is_dir():
                    found.append(entry.name)
                else:
                    is_file = reason in (None, leftout.OTHER_EXTENSIONS)
                    self.left_out.add(leftout.NOT_IN_A_CLASS if is_file else str(reason), entry.name)
        return found

    def folders(self, top: str) -> Iterator[Folder]:
        """Yield the folders at and below `top` (relative to the root), in order, including those without images."""
        return folders_in_order(top, self._list)

    def look(self, folder: str) -> tuple[bool, bool]:
        """(whether `folder` directly contains an image, whether it contains a folder to walk)."""
        images, below = self._list(folder)
        return bool(images.names), bool(below)

    def _list(self, path: str) -> Listing:
        """List a folder; other entries are counted as left out."""
        sizes: dict[str, int] = {}
        others: list[Entry] = []
        if path.count("/") >= MAX_DEPTH:
            fact = f"it is over {MAX_DEPTH} folders deep"
            raise SourceError(fs_text(os.path.join(self.root, path)), fact, "move it up, or out of the source")
        wanted, place = self._wanted, os.path.join(self.root, path)
        if self._lister is not None:
            with _opened(place) as folder:
                found = taken(place, self._wanted) or self._lister(folder)
                if found is not None:
                    names, listed = found[0], array("q", found[1])
                    below = self._sort_out(path, [Named(name, folder) for name in in_order(found[2])], sizes)
                    if not sizes:
                        return Folder(path, JoinedNames(names, len(listed)), listed), below
                    return folder_of(path, sizes | dict(zip(names.split("/"), listed, strict=False))), below
        with _entries(place) as entries:
            for entry in entries:
                name = entry.name
                dot = name.rfind(".")
                if dot > 0 and name[0] != "." and name[dot + 1 :] in wanted:
                    try:
                        if entry.is_file():  # known from the listing, except for links
                            sizes[name] = entry.stat().st_size
                            continue
                    except OSError:  # a link that loops, a file that vanished: see `_reason`
                        pass
                others.append(entry)
            others.sort(key=_name_order)
            below = self._sort_out(path, others, sizes)
            return folder_of(path, sizes), below

    def _sort_out(self, path: str, others: Sequence[Entry], sizes: dict[str, int]) -> list[str]:
        """Count the entries that are left out, add images to `sizes`, and return the paths of the folders."""
        below = []
        for entry in others:
            where = f"{path}/{entry.name}" if path else entry.name
            if (reason := self._reason(entry, where)) is not None:
                self.left_out.add(reason, where)
            elif entry.is_dir():
                below.append(where)
            else:
                sizes[entry.name] = entry.stat().st_size
        return below

    def _reason(self, entry: Entry, path: str) -> str | None:
        """Why the entry at `path` is left out; None for an image and for a folder to walk."""
        if entry.name.startswith(".") or entry.name.lower() in SYSTEM_NAMES:
            return hidden_or_system(entry.name, is_folder=entry.is_dir(follow_symlinks=False))
        try:
            mode = entry.stat().st_mode
        except OSError as exc:
            return _reason_of_failure(entry, os.path.join(self.root, path), exc)
        if stat.S_ISDIR(mode):
            return leftout.LINK_LOOPS if entry.is_symlink() and self._leads_back(path) else None
        if not stat.S_ISREG(mode):
            return leftout.SPECIAL
        stem, _, extension = entry.name.rpartition(".")
        return None if stem and extension.lower() in self._wanted else leftout.OTHER_EXTENSIONS

    def _leads_back(self, path: str) -> bool:
        """Whether the link at `path` leads to one of its own parent folders, so that the walk would never end."""
        target = _identity(os.path.join(self.root, path))
        parts = path.split("/")
        parents = ("/".join(parts[:depth]) for depth in range(1, len(parts)))
        return target in self._above or any(_identity(os.path.join(self.root, p)) == target for p in parents)


@contextmanager
def _entries(path: str) -> Iterator[Iterator[Entry]]:
    """The entries of a folder, unordered, for use inside the `with` block. SourceError if it can't be read.

    Listed through a descriptor if possible: a file's stat then looks up one name instead of the whole path.
    """
    if os.scandir not in os.supports_fd:
        try:
            with os.scandir(path) as entries:
                yield entries
        except OSError as exc:
            raise _unreadable(path, exc) from exc
        return
    with _opened(path) as descriptor, os.scandir(descriptor) as entries:
        yield entries


@contextmanager
def _opened(path: str) -> Iterator[int]:
    """A descriptor of a folder, for use inside the `with` block. SourceError if it can't be read."""
    descriptor = None
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        yield descriptor
    except OSError as exc:
        raise _unreadable(path, exc) from exc
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _unreadable(path: str, exc: OSError) -> SourceError:
    fact = f"the folder can't be read ({exc.strerror or exc})"
    return SourceError(fs_text(path), fact, "check that it exists and is readable, or move it out of the source")


def _reason_of_failure(entry: Entry, path: str, exc: OSError) -> str:
    if exc.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
        return leftout.BROKEN_LINKS if entry.is_symlink() else leftout.VANISHED
    fact = f"the file can't be accessed ({exc.strerror or exc})"
    raise SourceError(fs_text(path), fact, "check its permissions, or move it out of the source") from exc


def _identity(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError as exc:
        raise _unreadable(path, exc) from exc
    return status.st_dev, status.st_ino


def _identities_above(root: str) -> frozenset[tuple[int, int]]:
    """The identities of the root and all of its parent folders."""
    path, found = os.path.realpath(root), set()
    while True:
        found.add(_identity(path))
        parent = os.path.dirname(path)
        if parent == path:
            return frozenset(found)
        path = parent


def _as_utf8(path: str) -> str:
    return os.fsencode(path).decode("utf-8", "surrogateescape")


# The sort key of names: the text itself, unless the locale decodes the same bytes to other text.
_order: Callable[[str], str] = str if sys.getfilesystemencoding() == "utf-8" else _as_utf8


def _name_order(entry: Entry) -> str:
    return _order(entry.name)
