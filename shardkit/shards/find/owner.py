"""Find the dataset to which shards belong: the one whose manifest is beside them, whatever their generation."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from contextlib import suppress

import msgspec

from shardkit.errors import ManifestError, NotFoundError, UsageError
from shardkit.formats.format import format_of_name
from shardkit.location import Location
from shardkit.shards import names
from shardkit.shards.corrections.block import Corrections
from shardkit.shards.find.files import Files
from shardkit.shards.find.found import Found
from shardkit.shards.find.unfinished import require_finished


class Meant(msgspec.Struct, frozen=True):
    """The shards that a user selects, in order. named: the paths that were written out; globs: the globs for names that
    were given."""

    shards: tuple[Location, ...]
    named: tuple[str, ...] = ()
    globs: tuple[str, ...] = ()


def with_manifest(meant: Meant, files: Files) -> Found:
    """The shards as part of the dataset whose manifest is beside them, if there is one.

    Files of another generation of that dataset are not part of it: they are ignored, unless they are named.
    NotFoundError for a missing shard of the manifest that a glob would match, and for shards without a manifest if
    there are signs that it is still to come. UsageError for shards of several datasets or formats.
    """
    _require_one_format(meant.shards)
    first = {_family(shard): shard for shard in reversed(meant.shards)}
    owners = {family: _owner(shard, files) for family, shard in first.items()}
    found = {str(whole.location): whole for whole in owners.values() if whole is not None}
    if not found:
        for folder, base in owners:
            require_finished(folder, base, files)
        return Found(shards=meant.shards)
    if len(found) > 1 or None in owners.values():
        stems = sorted({*found, *(str(folder.child(base)) for (folder, base), one in owners.items() if one is None)})
        fact = f"these are the shards of more than one dataset ({', '.join(stems)})"
        raise UsageError("dataset()", fact, "name one of them, such as 'shards/train'")
    [whole] = found.values()
    return _of_manifest(whole, meant)


def _of_manifest(whole: Found, meant: Meant) -> Found:
    """The selection as shards of a manifest."""
    assert whole.manifest is not None and whole.location is not None
    number = {entry.name: place for place, entry in enumerate(whole.manifest.shards)}
    corrections = whole.manifest.corrections
    shards = _of_generation(meant.shards, number, whole.location, set(meant.named), corrections)
    there = {shard.name for shard in shards}
    for lost in sorted(set(number) - there) if meant.globs else ():
        if any(fnmatch.fnmatchcase(lost, pattern) for pattern in meant.globs):
            raise missing_of_manifest(whole.location.sibling(lost))
    if not shards:
        owner = str(whole.location)
        fact = f"the files that match are of a generation that was replaced, and the manifest {owner} names others"
        cure = f"name the dataset: {owner.removesuffix('.json')}"
        raise NotFoundError(", ".join((*meant.named, *meant.globs)) or owner, fact, cure)
    numbers = tuple(number[shard.name] for shard in shards)
    every = numbers == tuple(range(len(number)))
    return Found(whole.manifest, whole.location, None if every else numbers)


def known_shards(shards: Sequence[Location], files: Files) -> list[set[str] | None]:
    """For each shard, the shards in the manifest of its dataset; None if there is no manifest."""
    known: dict[tuple[Location, str], set[str] | None] = {}
    for shard in shards:
        if (family := _family(shard)) not in known:
            owner = _owner(shard, files)
            whole = None if owner is None else owner.manifest
            known[family] = None if whole is None else {entry.name for entry in whole.shards}
    return [known[_family(shard)] for shard in shards]


def require_not_index(place: Location, files: Files) -> None:
    """UsageError for an index file of a dataset, which is not the dataset itself."""
    base = names.base_of_index(place.name)
    if base is None or place.query:
        return
    for stem in names.stems_of(base):
        if files.is_file(place.sibling(names.manifest_name(stem))):
            dataset = place.sibling(stem)
            raise UsageError(str(place), "this is the index of a dataset, not the dataset", f"open {dataset}")


def missing_of_manifest(shard: Location) -> NotFoundError:
    """The error for a shard that a manifest names."""
    cure = "restore it, pack again, or run 'shardkit index'"
    return NotFoundError(str(shard), "the manifest names this shard, but it is missing", cure)


def _family(shard: Location) -> tuple[Location, str]:
    """(folder, beginning of the name) of a shard."""
    return shard.parent, names.stem_of_shard(shard.name)


def _owner(shard: Location, files: Files) -> Found | None:
    """The dataset to which a shard and others of its family belong, of any generation; None if there is no manifest.

    For a shard without a number, the manifest must name it: other writers make JSON files with such names too.
    """
    folder, base = _family(shard)
    if names.numbered_stem(shard.name) is None:
        with suppress(ManifestError):
            found = files.manifest(folder.child(names.manifest_name(base)))
            if found is not None and found.manifest is not None and not found.manifest.elsewhere:
                return found if shard.name in {entry.name for entry in found.manifest.shards} else None
        return None
    for stem in names.stems_of(base):
        found = files.manifest(folder.child(names.manifest_name(stem)))
        if found is not None and not (found.manifest is not None and found.manifest.elsewhere):
            return found
    return None


def _of_generation(
    shards: Sequence[Location],
    number: Mapping[str, int],
    manifest: Location,
    named: set[str],
    corrections: Corrections | None,
) -> list[Location]:
    """The shards that the manifest knows. UsageError for others, unless they are left over from a replaced dataset, or
    only older versions have them."""
    stem = manifest.name.removesuffix(".json")
    ours = {names.file_generation(name, stem) for name in number} - {None}
    older = {entry.name for entry in corrections.kept} if corrections is not None else set()
    kept = []
    for shard in shards:
        if shard.name in number:
            kept.append(shard)
            continue
        generation = names.file_generation(shard.name, stem)
        replaced = (bool(ours) and generation is not None and generation not in ours) or shard.name in older
        if not replaced:
            cure = "remove it, or make the manifest again with 'shardkit index'"
            raise UsageError(str(shard), f"this shard is not in the manifest {manifest}", cure)
        if shard.path in named:
            what = "only older versions of the dataset have this shard" if shard.name in older else _REPLACED
            fact = f"{what}: the manifest {manifest} names other shards"
            raise UsageError(str(shard), fact, f"name the dataset: {str(manifest).removesuffix('.json')}")
    return kept


_REPLACED = "this shard is of a dataset that was replaced"


def _require_one_format(shards: Sequence[Location]) -> None:
    """UsageError if, by their names, shards are of more than one format."""
    endings = {shard.name.partition(".")[2]: shard for shard in reversed(shards)}  # one name for each ending
    first: dict[str, Location] = {}
    for shard in reversed(endings.values()):
        form = format_of_name(shard.name)
        if form is not None:
            first.setdefault(form, shard)
    if len(first) > 1:
        fact = "these are shards of more than one format: " + ", ".join(shard.name for shard in first.values())
        raise UsageError("dataset()", fact, "name the shards of one, or make them one with 'shardkit convert'")
