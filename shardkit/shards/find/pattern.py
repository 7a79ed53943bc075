"""The meaning of a name with `*`, `?`, `[` and braces: the file, folder or dataset with that name, or else a
pattern."""

from __future__ import annotations

import glob
import re

import msgspec
from msgspec.structs import replace

from shardkit.location import Location, expand_braces, has_range
from shardkit.shards import names
from shardkit.shards.find.files import Files


class Pattern(msgspec.Struct, frozen=True):
    """A path that begins with `known`, taken literally. rest: may be a glob and have braces."""

    known: Location
    rest: str

    @property
    def place(self) -> Location:
        """The literal path."""
        if not self.rest:
            return self.known
        return Location(self.known.scheme, self.known.path + self.rest, self.known.query)

    @property
    def is_glob(self) -> bool:
        """Whether it may match several names."""
        return glob.has_magic(self.rest)

    @property
    def is_open(self) -> bool:
        """Whether it means more than the literal name."""
        return is_ambiguous(self.rest)

    @property
    def has_range(self) -> bool:
        """Whether it has a range of numbers, some of which a dataset may lack."""
        return has_range(self.rest)

    @property
    def name_glob(self) -> str:
        """Its last part as a glob."""
        _, slash, name = self.rest.rpartition("/")
        return name if slash else glob.escape(self.known.name) + name

    def expanded(self) -> list[Pattern]:
        """The patterns without braces, one for each choice in them, in order."""
        return [Pattern(self.known, text) for text in expand_braces(self.rest)] if "{" in self.rest else [self]


def is_ambiguous(text: str) -> bool:
    """Whether a name may be a pattern."""
    return "{" in text or glob.has_magic(text)


def is_numbered(name: str) -> bool:
    """Whether a name, or everything that a pattern means, is that of numbered shards, which no dataset has."""
    return names.numbered_stem(_CHOICE.sub("0", name)) is not None


_CHOICE = re.compile(r"\{[^{}]*\}|\[[^\[\]]*\]|[*?]")


def read_pattern(place: Location, files: Files) -> Pattern:
    """The pattern in a user's path.

    Whatever exists under the literal name is known: the file, folders, and a dataset with a manifest.
    """
    if not is_ambiguous(place.path) or files.is_file(place):
        return Pattern(place, "")
    known = _known(place, files)
    return Pattern(replace(place, path=known), place.path[len(known) :])


def _known(place: Location, files: Files) -> str:
    stem, dash, number = place.path.rpartition("-")
    if dash and "/" not in number and is_ambiguous(stem):
        folder, slash, base = stem.rpartition("/")
        manifests = (f"{folder}{slash}{names.manifest_name(own)}" for own in names.stems_of(base))
        if any(files.is_file(replace(place, path=path)) for path in manifests):
            return stem + dash
    known, parts = "", place.path.split("/")
    while len(parts) > 1 and (not is_ambiguous(parts[0]) or files.is_folder(replace(place, path=known + parts[0]))):
        known += parts.pop(0) + "/"
    return known
