"""What a name with `*`, `?`, `[` and braces means: the file, folder or dataset that is called so, else a pattern."""

from __future__ import annotations

import glob
import re
from dataclasses import dataclass, replace

from shardkit.location import Location, expand_braces, has_range
from shardkit.shards import names
from shardkit.shards.find.files import Files


@dataclass(frozen=True, slots=True)
class Pattern:
    """A path that begins with `known`, which stands for itself. rest: may be a glob and have braces."""

    known: Location
    rest: str

    @property
    def place(self) -> Location:
        """The path as it is written."""
        if not self.rest:
            return self.known
        return Location(self.known.scheme, self.known.path + self.rest, self.known.query)

    @property
    def is_glob(self) -> bool:
        """Whether it may match several names."""
        return glob.has_magic(self.rest)

    @property
    def is_open(self) -> bool:
        """Whether it means more than the name that is written."""
        return is_ambiguous(self.rest)

    @property
    def has_range(self) -> bool:
        """Whether it runs over numbers, some of which a dataset may leave out."""
        return has_range(self.rest)

    @property
    def name_glob(self) -> str:
        """The glob that its last part is."""
        _, slash, name = self.rest.rpartition("/")
        return name if slash else glob.escape(self.known.name) + name

    def expanded(self) -> list[Pattern]:
        """One without braces for each choice in them, in order."""
        return [Pattern(self.known, text) for text in expand_braces(self.rest)] if "{" in self.rest else [self]


def is_ambiguous(text: str) -> bool:
    """Whether a name may be a pattern."""
    return "{" in text or glob.has_magic(text)


def is_numbered(name: str) -> bool:
    """Whether a name, or all that a pattern means, is of shards with a number, so that no dataset is called so."""
    return names.numbered_stem(_CHOICE.sub("0", name)) is not None


_CHOICE = re.compile(r"\{[^{}]*\}|\[[^\[\]]*\]|[*?]")


def read_pattern(place: Location, files: Files) -> Pattern:
    """The pattern that a user's path is.

    What is there by the name as it stands is known: the file, folders, and a dataset whose manifest is there.
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
