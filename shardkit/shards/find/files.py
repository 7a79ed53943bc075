"""Access to files for the finder: a disk and a store answer the same questions, each in its own way."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import Protocol

from shardkit.errors import NotFoundError, StorageError, UsageError
from shardkit.location import Location, unbracketed
from shardkit.shards import names as named
from shardkit.shards.corrections.block import FileEntry
from shardkit.shards.find.found import Found
from shardkit.shards.objects import Objects, has_lists
from shardkit.storage.access import Remote

TRIES = 5
"""How often to look up a name on a disk whose content changes meanwhile."""

LISTED = 100_000
"""The number of names in a store to look at when matching a glob."""


class Files(Protocol):
    """Access to a disk, or to stores, while one source is resolved. Manifests are read once.

    tries: how often to look up a name whose answer changes. trees: whether a folder without shards is a class
    directory. looks: whether checking for a file costs nothing, so that each is checked; otherwise a missing one is
    reported when it is read. check: what a user should check if nothing is found.
    """

    tries: int
    trees: bool
    looks: bool
    check: str

    def manifest(self, place: Location) -> Found | None:
        """The dataset of a manifest; None if there is no such file. ManifestError, StorageError."""
        ...

    def version(self, place: Location, entry: FileEntry) -> Found:
        """The dataset of the manifest of an older version. ManifestError if it is not the one that was kept;
        NotFoundError, StorageError."""
        ...

    def is_file(self, place: Location) -> bool:
        """Whether there is a readable file."""
        ...

    def is_folder(self, place: Location) -> bool:
        """Whether there is a folder that can be listed."""
        ...

    def tree(self, place: Location) -> Found | None:
        """The folder as a class directory; None if there is none."""
        ...

    def lists(self, folder: Location) -> bool:
        """Whether folders can be listed."""
        ...

    def names(self, folder: Location, prefix: str = "") -> list[str]:
        """The names in a folder that begin with `prefix`, sorted; empty if there is no folder. StorageError."""
        ...

    def matching(self, known: Location, rest: str) -> list[Location]:
        """The matches of a glob that begins with `known`, taken literally. UsageError if folders can't be listed,
        StorageError."""
        ...

    def only_files(self, places: Sequence[Location]) -> list[Location]:
        """Those of the locations from `matching` that are files."""
        ...

    def sign(self, folder: Location, stem: str) -> str | None:
        """The name of a file or folder which shows that a dataset in this folder is unfinished; None if there is
        none."""
        ...

    def begun(self, place: Location) -> bool:
        """Whether there are signs that a dataset of this name was begun, even without any of its files."""
        ...


class Disk:
    """Local files."""

    tries, trees, looks = TRIES, True, True
    check = "check the path and the working directory"

    def __init__(self) -> None:
        self._manifests = _Manifests(Objects())

    def manifest(self, place: Location) -> Found | None:
        """The dataset of a manifest; None if there is no such file."""
        return self._manifests.read(place) if os.path.isfile(place.path) else None

    def version(self, place: Location, entry: FileEntry) -> Found:
        """The dataset of the manifest of an older version."""
        return self._manifests.version(place, entry)

    def is_file(self, place: Location) -> bool:
        """Whether a file is there."""
        return not place.path.endswith("/") and os.path.isfile(place.path)

    def is_folder(self, place: Location) -> bool:
        """Whether a folder is there."""
        return os.path.isdir(place.path)

    def tree(self, place: Location) -> Found | None:
        """The folder as a class directory."""
        return Found(tree=place) if os.path.isdir(place.path) else None

    def lists(self, folder: Location) -> bool:
        """Always."""
        return True

    def names(self, folder: Location, prefix: str = "") -> list[str]:
        """The names in a folder, including folders."""
        return self._manifests.objects.names(folder, prefix) if os.path.isdir(folder.path) else []

    def matching(self, known: Location, rest: str) -> list[Location]:
        """The matches of a glob, sorted by path, including folders; `**` matches any folders."""
        begin = glob.escape(known.path)
        found = glob.glob(begin + rest, recursive=True) or glob.glob(begin + unbracketed(rest), recursive=True)
        return [Location("", path) for path in sorted(found)]

    def only_files(self, places: Sequence[Location]) -> list[Location]:
        """Those that are files."""
        return [place for place in places if os.path.isfile(place.path)]

    def sign(self, folder: Location, stem: str) -> str | None:
        """A work folder that is not empty, a manifest that was put aside, or the marker of a transfer."""
        work = named.work_name(stem)
        with suppress(OSError):
            if any(name != named.LOCK for name in os.listdir(os.path.join(folder.path, work))):
                return work
        return next((name for name in named.signs(stem) if os.path.lexists(os.path.join(folder.path, name))), None)

    def begun(self, place: Location) -> bool:
        """A work folder, even an empty one, or another sign."""
        work = place.sibling(named.work_name(place.name))
        return os.path.isdir(work.path) or self.sign(place.parent, place.name) is not None


class Stores:
    """Objects in stores. The manifest is tried first, which saves the listing."""

    tries, trees, looks = 0, False, False
    check = "check the URL"

    def __init__(self, how: Remote) -> None:
        self._objects = Objects(how)
        self._manifests = _Manifests(self._objects)

    def manifest(self, place: Location) -> Found | None:
        """The dataset of a manifest; None if there is no such object, or for a query, which belongs to another one."""
        return None if place.query else self._manifests.read(place)

    def version(self, place: Location, entry: FileEntry) -> Found:
        """The dataset of the manifest of an older version."""
        return self._manifests.version(place, entry)

    def is_file(self, place: Location) -> bool:
        """Whether an object is there: some stores answer "denied" for missing ones."""
        with suppress(NotFoundError, StorageError):
            self._objects.info(place)
            return True
        return False

    def is_folder(self, place: Location) -> bool:
        """Whether there are objects below it."""
        with suppress(StorageError):
            return self.lists(place) and len(self._objects.listed(place, "", 1)) > 0
        return False

    def tree(self, place: Location) -> None:
        """A class directory in a store is packed, not read."""
        return

    def lists(self, folder: Location) -> bool:
        """Whether folders can be listed: not on web servers."""
        return has_lists(folder)

    def names(self, folder: Location, prefix: str = "") -> list[str]:
        """The names of objects directly in this folder."""
        return self._objects.names(Location(folder.scheme, folder.path.rstrip("/")), prefix)

    def matching(self, known: Location, rest: str) -> list[Location]:
        """The matching shards of the manifest beside them; without a manifest, the matches in a listing, in its
        order."""
        shards = self._of_manifest(known, rest)
        if shards is not None:
            return shards
        return self._found(known, rest) or self._found(known, unbracketed(rest))

    def _of_manifest(self, known: Location, rest: str) -> list[Location] | None:
        if "/" in rest:
            return None
        whole, begin = known.name + rest, known.name + _plain(rest)
        for base in dict.fromkeys((begin.rpartition("-")[0], whole.rpartition("-")[0])):
            for stem in named.stems_of(base) if base else ():
                found = self.manifest(known.sibling(named.manifest_name(stem)))
                if found is not None and found.manifest is not None:
                    pattern = glob.escape(base) + whole[len(base) :]
                    shards = [entry.name for entry in found.manifest.shards if fnmatchcase(entry.name, pattern)]
                    return [known.sibling(name) for name in shards]
        return None

    def _found(self, known: Location, rest: str) -> list[Location]:
        if not self.lists(known):
            fact = "a web server has no lists to match a pattern with, and there is no manifest of that name"
            raise UsageError(str(known.parent), fact, "name the manifest, or the shards by a brace range")
        parts = (glob.escape(known.name) + rest).split("/")
        found = self._objects.listed(known.parent, known.name + _plain(rest), LISTED)
        return [known.parent.child(name) for name in found if _fits(name.split("/"), parts)]

    def only_files(self, places: Sequence[Location]) -> list[Location]:
        """All of them: a listing has no folders."""
        return list(places)

    def sign(self, folder: Location, stem: str) -> str | None:
        """A manifest that was put aside, or the marker of a transfer."""
        if folder.query:
            return None
        for name in named.signs(stem):
            with suppress(NotFoundError):
                return self._objects.info(folder.child(name)).name
        return None

    def begun(self, place: Location) -> bool:
        """A sign."""
        return self.sign(place.parent, place.name) is not None


class _Manifests:
    """A cache of manifests, including missing ones."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self._known: dict[Location, Found | None] = {}

    def read(self, place: Location) -> Found | None:
        if place not in self._known:
            try:
                self._known[place] = Found(self.objects.manifest(place), place)
            except NotFoundError:
                self._known[place] = None
        return self._known[place]

    def version(self, place: Location, entry: FileEntry) -> Found:
        return Found(self.objects.older_manifest(place, entry), place, older=True)


def _plain(pattern: str) -> str:
    """The literal beginning of a glob, up to its first special character."""
    return re.split(r"[*?\[]", pattern, maxsplit=1)[0]


def _fits(name: Sequence[str], parts: Sequence[str]) -> bool:
    """Whether a name matches a glob, both given as parts, by the rules of `glob.glob`: `**` matches any folders, and
    `*` does not match names that begin with a dot."""
    if not name or not parts:
        return not name and not parts
    if parts[0] == "**":
        if _fits(name, parts[1:]) or (len(parts) == 1 == len(name) and not name[0].startswith(".")):
            return True
        return not name[0].startswith(".") and _fits(name[1:], parts)
    hidden = name[0].startswith(".") and not parts[0].startswith(".")
    return not hidden and fnmatchcase(name[0], parts[0]) and _fits(name[1:], parts[1:])
