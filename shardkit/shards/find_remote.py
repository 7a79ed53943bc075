"""From a URL to what there is: a manifest, or shards without one. The manifest comes first, and saves the listing."""

from __future__ import annotations

import contextlib
import glob
import re
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from shardkit.errors import NotFoundError, StorageError, UsageError
from shardkit.formats.format import format_of_name
from shardkit.location import Location, expand_braces, has_range, unbracketed
from shardkit.shards import names as named
from shardkit.shards.find import Found, in_manifest, with_manifest
from shardkit.shards.objects import Objects
from shardkit.storage.access import Remote

LISTED = 100_000
"""Names of a folder that are looked at, to find what it holds."""


class Remotes:
    """What URLs mean. Manifests and stores are kept while one source is resolved."""

    def __init__(self, how: Remote) -> None:
        self._objects = Objects(how)
        self._manifests: dict[Location, Found | None] = {}

    def resolve(self, place: Location) -> Found:
        """What a URL names. Errors as in `find.resolve`."""
        if place.query and not _is_shard(place):
            fact = "a query, such as a signature, holds for one object, and a dataset has several"
            cure = "name the shards, each with its own; or use the store's own scheme (az://… with sas_token=…)"
            raise UsageError(str(place), fact, cure)
        if place.path.endswith(".json"):
            found = self.manifest(place)
            if found is None:
                raise NotFoundError(str(place), "there is no such manifest", "check the URL")
            return found
        if _ambiguous(place) and (found := self._exactly(place)):
            return found
        if _patterned(place):
            return with_manifest(
                self.shards(place), [each.path for each in self.expanded(place)], self.manifest, self.sign
            )
        if "/" not in place.path.rstrip("/") or place.path.endswith("/"):
            return self._of_folder(place)
        found = self.manifest(place.sibling(place.name + ".json"))
        if found is not None:
            return found
        shards = self._listed(place.parent, f"{place.name}-")
        if shards:
            return with_manifest(shards, [], self.manifest, self.sign)
        return self._of_folder(replace(place, path=place.path + "/"))

    def shards(self, place: Location) -> list[Location]:
        """The shards that a URL in a list, a glob or a brace range means. NotFoundError where none matches."""
        found = None if _patterned(place) else self.resolve(place)
        if found is None and _ambiguous(place):
            found = self._exactly(place)
        if found is not None:
            if found.manifest is None or found.location is None:
                return list(found.shards)
            numbers = range(len(found.manifest.shards)) if found.numbers is None else found.numbers
            return [found.location.sibling(found.manifest.shards[number].name) for number in numbers]
        shards = [shard for each in self.expanded(place) for shard in (self._matches(each) if _magic(each) else [each])]
        return in_manifest(shards, self.manifest) if has_range(place.path) else shards

    def expanded(self, place: Location) -> list[Location]:
        """What a brace range means; the braces in the name of a dataset whose manifest is there are its own."""
        stem, dash, number = place.name.rpartition("-")
        known = place.path[: len(place.path) - len(number)]
        if dash and "{" in known:
            with contextlib.suppress(StorageError):  # as in `_exactly`
                if self.manifest(place.sibling(f"{stem}.json")) is not None:
                    return [replace(place, path=known + text) for text in expand_braces(number)]
        return [replace(place, path=text) for text in expand_braces(place.path)]

    def manifest(self, place: Location) -> Found | None:
        """The dataset of a manifest; None where there is no such object."""
        if place.query:  # it is not for this object
            return None
        if place not in self._manifests:
            try:
                self._manifests[place] = self._objects.manifest(place)
            except NotFoundError:
                self._manifests[place] = None
        return self._manifests[place]

    def sign(self, folder: Location, stem: str) -> str | None:
        """The name of the object which tells that a dataset is not finished; None where there is none."""
        if folder.query:
            return None
        for name in named.signs(stem):
            with contextlib.suppress(NotFoundError):
                return self._objects.info(folder.child(name)).name
        return None

    def _exactly(self, place: Location) -> Found | None:
        """What has the name itself, in which `*`, `?`, `[` and `{` stand for themselves; None where nothing has."""
        with contextlib.suppress(NotFoundError, StorageError):  # some stores say "denied" of what is not there
            if not _is_shard(place):
                return self.manifest(place.sibling(place.name + ".json")) if place.name else None
            self._objects.info(place)
            return with_manifest([place], [], self.manifest, self.sign)
        return None

    def _matches(self, pattern: Location) -> list[Location]:
        """The shards of a glob: those of the manifest of its stem, else those that a listing finds."""
        plain = re.split(r"[*?\[]", pattern.name, maxsplit=1)[0].rpartition("-")[0]
        for stem in dict.fromkeys((plain, pattern.name.rpartition("-")[0])):
            found = self.manifest(pattern.sibling(stem + ".json")) if stem else None
            if found is not None and found.manifest is not None:
                exact = glob.escape(stem) + pattern.name[len(stem) :]
                names = [entry.name for entry in found.manifest.shards if fnmatchcase(entry.name, exact)]
                if names:
                    return [pattern.sibling(name) for name in names]
                raise NotFoundError(str(pattern), "no shard of the manifest matches", "check the pattern")
        shards = self._found(pattern, pattern.path) or self._found(pattern, unbracketed(pattern.path))
        if not shards:
            raise NotFoundError(str(pattern), "no object matches", "check the pattern")
        return shards

    def _found(self, place: Location, pattern: str) -> list[Location]:
        """What a listing finds for a glob: the shards, or where there are none, everything."""
        folder = place
        while glob.has_magic(folder.path):
            folder = folder.parent
        below = pattern[len(folder.path) :].lstrip("/")
        parts, literal = below.split("/"), re.split(r"[*?\[]", below, maxsplit=1)[0]
        names = [name for name in self._names(folder, literal) if _fits(name.split("/"), parts)]
        return [folder.child(name) for name in [name for name in names if format_of_name(name)] or names]

    def _listed(self, folder: Location, prefix: str) -> list[Location]:
        """The shards whose names begin with `prefix`, in this very folder; none where the store has no lists."""
        try:
            names = self._names(folder, prefix)
        except UsageError:
            return []
        return [folder.child(name) for name in names if "/" not in name and format_of_name(name)]

    def _names(self, folder: Location, prefix: str) -> list[str]:
        """A listing. UsageError where the store has none."""
        if folder.scheme.rpartition("+")[2] in ("http", "https"):
            fact = "a web server has no lists to match a pattern with, and there is no manifest of that name"
            raise UsageError(str(folder), fact, "name the manifest, or the shards by a brace range")
        return self._objects.listed(folder, prefix, LISTED)

    def _of_folder(self, place: Location) -> Found:
        """A folder of the shards of one dataset."""
        folder = Location(place.scheme, place.path.rstrip("/"))
        try:
            names = [name for name in self._names(folder, "") if "/" not in name]
        except UsageError as exc:
            raise NotFoundError(str(place), "there is no manifest of this name", "name the manifest") from exc
        manifests = [n for n in names if n.endswith(".json") and any(o.startswith(f"{n[:-5]}-") for o in names)]
        if len(manifests) > 1:
            fact = f"the folder holds {len(manifests)} datasets: {', '.join(name[:-5] for name in manifests)}"
            raise UsageError(str(place), fact, f"name one, such as '{folder.child(manifests[0][:-5])}'")
        if manifests:
            return self.manifest(folder.child(manifests[0])) or Found()
        shards = [folder.child(name) for name in names if format_of_name(name)]
        if not shards:
            fact = "no dataset is there: neither a manifest nor shards of this name"
            raise NotFoundError(str(place), fact, "check the URL; a class directory is packed first: shardkit pack")
        return with_manifest(shards, [], self.manifest, self.sign)


def resolve_remote(places: Sequence[Location], how: Remote, *, listed: bool) -> Found:
    """What URLs mean: one, or the entries of a list."""
    remotes = Remotes(how)
    if not listed:
        return remotes.resolve(places[0])
    shards = [shard for place in places for shard in remotes.shards(place)]
    patterns = [each.path for place in places for each in remotes.expanded(place)]
    return with_manifest(shards, patterns, remotes.manifest, remotes.sign)


def _is_shard(place: Location) -> bool:
    return format_of_name(place.name) is not None


def _patterned(place: Location) -> bool:
    return _magic(place) or "{" in place.name or format_of_name(place.name) is not None


def _magic(place: Location) -> bool:
    return glob.has_magic(place.path)


def _ambiguous(place: Location) -> bool:
    """Whether a name may be a pattern or stand for itself."""
    return _magic(place) or "{" in place.path


def _fits(name: Sequence[str], parts: Sequence[str]) -> bool:
    return len(name) == len(parts) and all(map(fnmatchcase, name, parts))
