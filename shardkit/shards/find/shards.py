"""Find the shards for a path, glob, brace range or prefix."""

from __future__ import annotations

import os
from collections.abc import Sequence

from msgspec.structs import replace

from shardkit.errors import NotFoundError, UsageError
from shardkit.formats.format import format_of_name
from shardkit.location import Location, locate
from shardkit.shards.find.files import Disk, Files
from shardkit.shards.find.owner import Meant, known_shards, missing_of_manifest, require_not_index
from shardkit.shards.find.pattern import Pattern, read_pattern
from shardkit.shards.find.unfinished import nothing_there
from shardkit.shards.manifest import Manifest
from shardkit.shards.names import file_generation, is_taken, numbered_stem
from shardkit.shards.objects import Objects

SourceLike = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Manifest

_NO_SHARDS = (".json", ".parquet", ".tmp", ".part", ".idx")


def shards_of(place: Location, files: Files) -> Meant:
    """The shards for one path, glob, brace range or prefix. NotFoundError if there are none, and for a missing path,
    unless it is a number in a range that the manifest does not name: shards without samples are not written."""
    if not place.name:
        raise nothing_there(place, files)
    pattern = read_pattern(place, files)
    if not pattern.rest and files.looks and files.is_file(place):
        return Meant((place,), (place.path,))
    if not (pattern.is_open or format_of_name(place.name) or files.is_file(place)):
        return Meant(_of_prefix(place, files))
    each = [(part.place, part if part.is_glob else None) for part in pattern.expanded()]
    plain = [written for written, part in each if part is None]
    there = _present(plain, files, in_range=pattern.has_range, alone=len(plain) == len(each))
    if len(plain) == len(each):
        return Meant(tuple(there), tuple(written.path for written in plain))
    found, known = list[Location](), set(there)
    for written, part in each:
        if part is not None:
            found += _matching(part, files, is_new=len(each) > 1)
        elif written in known:
            found.append(written)
    globs = tuple(part.name_glob for _, part in each if part is not None)
    return Meant(tuple(found), tuple(written.path for written in plain), globs)


def _of_prefix(place: Location, files: Files) -> tuple[Location, ...]:
    """The shards whose names begin with a word and a dash."""
    folder = place.path.removesuffix(place.name)
    names = files.names(place.parent, f"{place.name}-")
    shards = tuple(replace(place, path=folder + name) for name in names if format_of_name(name))
    if not shards:
        raise nothing_there(place, files)
    return shards


def _matching(pattern: Pattern, files: Files, *, is_new: bool) -> list[Location]:
    """The shards that a glob matches. is_new: whether it came from braces, and may be the name of a file."""
    if is_new and files.is_file(pattern.place):
        return [pattern.place]
    matches = files.matching(pattern.known, pattern.rest)
    shards = _shards_among(matches, files)
    if not shards:
        fact = f"no shard matches, only {matches[0]} and the like" if matches else "no file matches"
        raise NotFoundError(str(pattern.place), fact, files.check)
    return shards


def _shards_among(matches: Sequence[Location], files: Files) -> list[Location]:
    """Shards by their names; if there are none, files that may be shards."""
    shards = [match for match in matches if format_of_name(match.name)]
    return shards or files.only_files([match for match in matches if not match.name.endswith(_NO_SHARDS)])


def _present(shards: Sequence[Location], files: Files, *, in_range: bool, alone: bool) -> Sequence[Location]:
    """Those that exist of some shards that were written out, or as a range.

    alone: whether nothing else is selected. NotFoundError for one that should exist but does not, if checking costs
    nothing.
    """
    if files.looks:
        there = [shard for shard in shards if files.is_file(shard)]
        if len(there) < len(shards):
            known = set(there)
            missing = [shard for shard in shards if shard not in known]
            _require_left_out(missing, files, anything=in_range and (bool(there) or not alone))
        return there
    if not in_range:
        return shards
    named = zip(shards, known_shards(shards, files), strict=True)
    return [shard for shard, whole in named if whole is None or shard.name in whole] or shards


def _require_left_out(missing: Sequence[Location], files: Files, *, anything: bool) -> None:
    """NotFoundError for the first missing shard, unless a manifest shows that it was never written. anything: whether
    others exist."""
    for shard, whole in zip(missing, known_shards(missing, files) if anything else [None] * len(missing), strict=True):
        if whole is None:
            raise NotFoundError(str(shard), "there is no such shard", files.check)
        if shard.name in whole:
            raise missing_of_manifest(shard)


def shards_of_stem(beside: Location, stem: str, objects: Objects, generation: int | None = None) -> list[Location]:
    """The shards `STEM-NUMBER` in the folder of `beside`, by name; of one generation, by default the last."""
    folder = beside.parent
    names = objects.names(folder, stem)
    found: dict[int, list[Location]] = {}
    for name in names:
        base = numbered_stem(name)
        own = 1 if base == stem else file_generation(name, stem) if base else None
        if own is not None and not (own > 1 and is_taken(stem, own, set(names))):
            found.setdefault(own, []).append(folder.child(name))
    return found.get(max(found, default=1) if generation is None else generation, [])


def find_shards(source: SourceLike) -> list[Location]:
    """The shards on a disk that `source` (glob, braces, prefix, list, folder) names, regardless of manifests beside
    them.

    Raises NotFoundError, UsageError.
    """
    if isinstance(source, Manifest):
        raise UsageError("source", "a Manifest does not say where its shards are", "give their prefix or a glob")
    parts = [source] if isinstance(source, (str, os.PathLike)) else list(source)
    found = [shard for part in parts for shard in _whatever_manifest(locate(part))]
    if not found:
        raise NotFoundError(", ".join(map(str, parts)), "there are no shards here", Disk.check)
    return list(dict.fromkeys(found))


def _whatever_manifest(place: Location) -> Sequence[Location]:
    if not place.is_local:
        raise UsageError(str(place), f"{place.scheme}:// can't be read here", "copy the shards to a disk")
    disk = Disk()
    require_not_index(place, disk)
    if disk.is_folder(place):
        return [place.child(name) for name in disk.names(place) if format_of_name(name)]
    if place.path.endswith(".json"):
        return shards_of_stem(place, place.name.removesuffix(".json"), Objects())
    found: list[Location] = []
    for part in read_pattern(place, disk).expanded():
        if disk.is_file(part.place):
            found.append(part.place)
        elif part.is_glob:
            found += _shards_among(disk.matching(part.known, part.rest), disk)
    return found or shards_of_stem(place, place.name, Objects())
