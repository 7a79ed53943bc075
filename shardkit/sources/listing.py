"""A tree given only by a list of its files: the content of an archive or a bucket prefix.

It is scanned by the rules of a tree of folders, in the same order, so that it packs to the same bytes.
"""

from __future__ import annotations

import logging
import os
import sys
from array import array
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import pairwise

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from shardkit.errors import SourceError
from shardkit.native import load
from shardkit.sample import fs_text
from shardkit.shards.names import are_splits
from shardkit.sources import left_out as leftout
from shardkit.sources.columns import PathColumn
from shardkit.sources.left_out import LeftOutCounter
from shardkit.sources.origin import Origin
from shardkit.sources.scratch import Growing
from shardkit.sources.source import Source, say_what_is_in_no_split
from shardkit.sources.tree.names import JoinedNames
from shardkit.sources.tree.native import joined_extensions
from shardkit.sources.tree.split_folders import splits_of, splits_of_any_folder
from shardkit.sources.tree.walk import (
    SYSTEM_NAMES,
    Folder,
    Listing,
    folders_in_order,
    hidden_or_system,
    in_order,
    wanted_extensions,
)

_log = logging.getLogger(__name__)

NESTED = "archives inside it"
_ARCHIVES = frozenset(("zip", "tar", "gz", "tgz", "bz2", "tbz2", "xz", "txz", "zst", "tzst", "7z", "rar"))

Rows = NDArray[np.int64]


class FileListing(msgspec.Struct, frozen=True, eq=False):
    """All files of a tree, in any order.

    place: the tree's name in messages, without a trailing slash. names: parts joined by `/`, none of them empty, `.`
    or `..`. sizes: bytes (int64). folders: those with entries of their own, since an empty folder is a class too.
    left_out: (reason, name) of the files that were left out of the list.
    """

    place: str
    names: PathColumn
    sizes: NDArray[np.int64]
    folders: Sequence[str] = ()
    left_out: Sequence[tuple[str, str]] = ()
    _index: dict[str, tuple[array[int], set[str]]] = {}

    def index(self) -> Mapping[str, tuple[array[int], set[str]]]:
        """Folder ("" for the top) -> (rows of its files, names of its folders)."""
        if not self._index:
            self._index[""] = (array("q"), set())
            for first, stop in pairwise([*_folder_starts(self.names), len(self.names)]):
                name = self.names[first]
                self._entry(os.fsdecode(name[: max(0, name.rfind(b"/"))]))[0].extend(range(first, stop))
            for folder in self.folders:
                self._entry(folder)
        return self._index

    def _entry(self, folder: str) -> tuple[array[int], set[str]]:
        found = self._index.get(folder)
        if found is None:
            found = self._index[folder] = (array("q"), set())
            known = False
            while not known:
                folder, _, name = folder.rpartition("/")
                known = folder in self._index
                self._index.setdefault(folder, (array("q"), set()))[1].add(name)
        return found


def _folder_starts(names: PathColumn) -> Sequence[int]:
    """The rows whose folder is not that of the row before."""
    native = load("archives")[0]
    if native is not None:
        return array("q", native.folders(names.blob, names.offsets))
    folders = [name[: max(0, name.rfind(b"/"))] for name in names]
    return [row for row, folder in enumerate(folders) if not row or folder != folders[row - 1]]


class ListedWalk:
    """A scan of a listing, or of its folder `below`. `rows`: the rows of the files yielded by `folders`, in order."""

    def __init__(self, listing: FileListing, below: str, extensions: Collection[str]) -> None:
        self.root = f"{listing.place}/{below}" if below else listing.place
        self.left_out = LeftOutCounter()
        self.rows = Growing("q")
        self._listing, self._below = listing, below
        self._wanted = wanted_extensions(extensions)
        self._rows: dict[str, Sequence[int]] = {}  # of the images in the folders that were listed
        odd = any(self._wanted_or_reason(name) is None for name in SYSTEM_NAMES)
        self._native = None if odd or sys.getfilesystemencoding() != "utf-8" else load("archives")[0]

    def class_folders(self) -> list[str]:
        """The names of the visible folders directly below the root, in order; everything else there is left out."""
        names, folders = self._entries("")
        prefix = f"{self._below}/" if self._below else ""
        for why, name in self._listing.left_out:
            if name.startswith(prefix):
                self.left_out.add(why, name[len(prefix) :])
        found = []
        for name in in_order({*names, *folders}):
            if (reason := hidden_or_system(name, is_folder=name in folders)) is not None:
                self.left_out.add(reason, name)
            elif name in folders:
                found.append(name)
            else:
                nested = self._wanted_or_reason(name) == NESTED
                self.left_out.add(NESTED if nested else leftout.NOT_IN_A_CLASS, name)
        return found

    def folders(self, top: str) -> Iterator[Folder]:
        """The folders at and below `top` (relative to the root), in order; those without images too."""
        for folder in folders_in_order(top, self._list):
            self.rows.extend(self._rows.pop(folder.path))
            yield folder

    def look(self, folder: str) -> tuple[bool, bool]:
        """(holds an image, holds a folder to walk) for a folder itself."""
        images, below = self._list(folder)
        return bool(images.names), bool(below)

    def _inside(self, path: str) -> tuple[Sequence[int], set[str], int]:
        """(rows of the files, names of the folders, bytes of a path before the name) in a folder."""
        inside = "/".join(part for part in (self._below, path) if part)
        rows, folders = self._listing.index().get(inside, (array("q"), set[str]()))
        return rows, folders, len(os.fsencode(inside)) + 1 if inside else 0

    def _entries(self, path: str) -> tuple[dict[str, int], set[str]]:
        """(name -> row of each file, names of the folders) in a folder. SourceError for a duplicate name."""
        rows, folders, cut = self._inside(path)
        return self._named(rows, cut), folders

    def _named(self, rows: Sequence[int], cut: int) -> dict[str, int]:
        """Name -> row. cut: the bytes of a path before the name. SourceError for a duplicate name."""
        names = {os.fsdecode(name[cut:]): row for name, row in zip(self._listing.names.take(rows), rows, strict=True)}
        if len(names) < len(rows):
            _refuse_twice(self._listing, rows)
        return names

    def _list(self, path: str) -> Listing:
        rows, folders, cut = self._inside(path)
        names, images, others = self._plain_images(rows, folders, cut)
        more, below = self._sort_out(path, self._named(others, cut), folders)
        if more:  # without the C extension all, otherwise those with an extension in mixed case, for example
            found = dict(zip(names, images, strict=True)) | more
            names = in_order(found)
            images = array("q", [found[name] for name in names])
        self._rows[path] = images
        sizes = array("q", self._listing.sizes[np.frombuffer(images, np.int64)].tobytes())
        return Folder(path, names, sizes), below

    def _plain_images(
        self, rows: Sequence[int], folders: set[str], cut: int
    ) -> tuple[Sequence[str], array[int], Sequence[int]]:
        """(names of images in order, their rows, the rows of all other files) by the C extension; no images without it,
        or if a name is odd."""
        found = None
        if self._native is not None and not any(self._wanted_or_reason(name) is None for name in folders):
            column, numbers = self._listing.names, np.asarray(rows, np.int64)
            wanted = joined_extensions(self._wanted)
            found = self._native.images(column.blob, column.offsets, numbers, cut, wanted)
        if found is None:
            return [], array("q"), rows
        images = array("q", found[1])
        return JoinedNames(found[0], len(images)), images, array("q", found[2])

    def _sort_out(self, path: str, names: Mapping[str, int], folders: set[str]) -> tuple[dict[str, int], list[str]]:
        """Count the files and folders that are left out. Returns the images, with their rows, and the paths of the
        folders to walk. SourceError for a file and a folder of the same name."""
        images, below = {}, []
        for name in in_order([*names, *folders]):
            where = f"{path}/{name}" if path else name
            if name in names and name in folders:
                cure = "create the archive again with only one of them"
                raise SourceError(f"{self.root}/{fs_text(where)}", "a file and a folder have this name", cure)
            reason = hidden_or_system(name, is_folder=name in folders)
            if reason is None and name in folders:
                below.append(where)
                continue
            reason = reason or self._wanted_or_reason(name)
            if reason is None:
                images[name] = names[name]
            else:
                self.left_out.add(reason, where)
        return images, below

    def _wanted_or_reason(self, name: str) -> str | None:
        stem, _, extension = name.rpartition(".")
        if stem and extension.lower() in self._wanted:
            return None
        return NESTED if stem and extension.lower() in _ARCHIVES else leftout.OTHER_EXTENSIONS


def _refuse_twice(listing: FileListing, rows: Sequence[int]) -> None:
    seen = set[bytes]()
    for name in listing.names.take(rows):
        if name in seen:
            place = f"{listing.place}/{fs_text(name)}"
            raise SourceError(place, "two files have this name", "create the archive again with only one of them")
        seen.add(name)


def inside_top_folder(
    listing: FileListing, extensions: Collection[str], name: str = "", *, any_folder: bool = False
) -> str:
    """The folder that contains the class folders; "" for the top level.

    Archives often wrap the tree in one folder: a folder is entered while it is the only one at its level and has no
    image. A folder with the name of a split is a split, except at the top level if it is also the archive's `name`.
    any_folder: folders are not classes, so that the top folder is entered even if it has images.
    """
    below = ""
    while True:
        walk = ListedWalk(listing, below, extensions)
        images, folders = walk.look("")
        names = walk.class_folders()
        if images or len(names) != 1:
            return below
        images, folders = walk.look(names[0])
        flat = any_folder and images and not below
        if (not flat and (images or not folders)) or (are_splits(names) and (below or names[0] != name)):
            return below
        below = f"{below}/{names[0]}" if below else names[0]


def listed_splits(
    listing: FileListing, below: str, extensions: Collection[str], *, any_folder: bool = False
) -> list[str] | None:
    """As `find_splits`, for a listing. any_folder: as for `splits_of_any_folder`."""
    walk = ListedWalk(listing, below, extensions)
    return splits_of_any_folder(walk) if any_folder else splits_of(walk)


def scan_listing(
    listing: FileListing,
    below: str,
    splits: Sequence[str] | None,
    *,
    extensions: Collection[str],
    scan: Callable[[Mapping[str, ListedWalk]], Mapping[str, Source]],
    origin_of: Callable[[Rows], Origin | None] = lambda rows: None,
) -> dict[str, Source]:
    """The source of each split (or of "" without splits) of the tree in the folder `below` of a listing.

    scan: scans the walks of all splits. origin_of: returns the origin of a source, given the rows of the listing that
    it consists of. Raises as `scan`.
    """
    if splits is None:
        walks = {"": ListedWalk(listing, below, extensions)}
    else:
        say_what_is_in_no_split(ListedWalk(listing, below, extensions), splits)
        prefix = f"{below}/" if below else ""
        walks = {split: ListedWalk(listing, prefix + split, extensions) for split in splits}
    sources = scan(walks)
    rows = {split: walk.rows.build() for split, walk in walks.items()}
    return {split: replace(source, elsewhere=origin_of(rows[split])) for split, source in sources.items()}
