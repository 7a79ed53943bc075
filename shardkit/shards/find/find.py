"""Resolve what a user names: a manifest, shards without one, or a class directory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from msgspec.structs import replace

from shardkit.errors import ManifestError, NotFoundError, UsageError
from shardkit.formats.format import format_of_name
from shardkit.location import Location, locate
from shardkit.shards.find.files import Disk, Files, Stores
from shardkit.shards.find.found import Found
from shardkit.shards.find.owner import Meant, require_not_index, with_manifest
from shardkit.shards.find.pattern import is_ambiguous, is_numbered
from shardkit.shards.find.shards import SourceLike, shards_of
from shardkit.shards.find.version import asked_version, at_version
from shardkit.shards.manifest import OWN_CURE, Manifest
from shardkit.shards.names import base_of_index, datasets_in, is_manifest_name, manifest_name, without_versions

if TYPE_CHECKING:
    from shardkit.storage.access import Remote


def resolve(source: SourceLike, remote: Remote | None = None) -> Found:
    """What `source` names: a glob, brace range, prefix, list, manifest, or class directory.

    remote: how to read stores; without it, a URL is an error, for callers that need the files on a disk. Raises
    NotFoundError if there is nothing, UsageError if there is more than one dataset, ManifestError, StorageError.
    """
    found = _resolve(source, remote)
    if remote is None and found.manifest is not None and found.location is not None:
        far = found.manifest.shards_beside(found.location).parent
        if not far.is_local:
            fact = f"its shards are in a store ({far}), and this needs them on a disk"
            raise UsageError(str(found.location), fact, OWN_CURE)
    return found


def resolve_with(index: str | os.PathLike[str], source: SourceLike, remote: Remote | None = None) -> Found:
    """The shards that `source` names, as those of the dataset `index`, which may be in another folder.

    Raises UsageError if `index` is not an index, or not one of all of these shards; and as `resolve`.
    """
    place, whole = os.fspath(index), resolve(index, remote)
    if whole.manifest is None or whole.location is None:
        raise UsageError("index", f"there is no index at {locate(place)}", "make one with 'shardkit index --out'")
    numbers = {_same(shard): number for number, shard in enumerate(whole.places)}
    found = _resolve(source, remote)
    found.require_dataset("name its shards")
    wanted = [numbers.get(_same(shard)) for shard in found.places]
    kept = tuple(number for number in wanted if number is not None)
    if len(kept) < len(wanted):
        other = found.places[wanted.index(None)]
        fact = f"{locate(place)} is an index of other shards: {other} is not among them"
        raise UsageError("index", fact, "make one of these with 'shardkit index --out'")
    return replace(whole, numbers=None if kept == tuple(range(len(whole.manifest.shards))) else kept)


def require_near(shards: Sequence[Location]) -> None:
    """UsageError for shards in a store without a manifest, where it is needed to read them by ranges."""
    far = next((shard for shard in shards if not shard.is_local), None)
    if far is not None:
        cure = "make an index of them with 'shardkit index --out DIR', and name DIR; or copy them to a disk"
        raise UsageError(str(far), "shards in a store that have no manifest can't be read by this", cure)


def _same(shard: Location) -> str:
    """The location as text, the same for relative and absolute paths."""
    return os.path.abspath(shard.path) if shard.is_local else shard.url


def _resolve(source: SourceLike, remote: Remote | None) -> Found:
    places = _places(source)
    one = places[0] if isinstance(source, (str, os.PathLike)) else None
    said, files = None, _files(places, remote)
    for _ in range(files.tries):
        try:
            return _find(one, places, files)
        except (NotFoundError, UsageError) as exc:
            # if a dataset is replaced between listing its folder and reading its manifest, they do not match:
            # retry until they do, or until the answer stays the same
            if str(exc) == said:
                raise
            said, files = str(exc), _files(places, remote)
    return _find(one, places, files)


def _locate(part: str | os.PathLike[str]) -> Location:
    """The location of a path or URL; a bucket is a folder. UsageError for a pipe, which other libraries read."""
    if isinstance(part, str) and part.startswith("pipe:"):
        fact = "pipes are not supported"
        raise UsageError(part, fact, "name the shards: a path, or a URL such as s3://bucket/train or https://…")
    place = locate(part)
    is_bucket = not place.is_local and "/" not in place.path
    return replace(place, path=f"{place.path}/") if is_bucket else place


def _places(source: SourceLike) -> list[Location]:
    """The locations of which a source consists. UsageError for anything else."""
    if isinstance(source, (str, os.PathLike)):
        return [_locate(source)]
    if isinstance(source, Manifest):
        raise UsageError("dataset()", "a Manifest does not say where its shards are", "give its file or their prefix")
    if not isinstance(source, Iterable) or isinstance(source, (bytes, dict)):
        raise UsageError("dataset()", f"{source!r} names no dataset", "give a path, a glob, or a list of them")
    parts: list[str | os.PathLike[str]] = []
    for part in source:
        if not isinstance(part, (str, os.PathLike)):
            if not isinstance(source, (list, tuple)):  # a Dataset, say, whose parts are samples
                kind = type(source).__name__
                raise UsageError("dataset()", f"a {kind} is not a path", "give the path of a dataset, or of its shards")
            raise UsageError("dataset()", f"{part!r} in the list is not a path", "give paths, globs or prefixes")
        parts.append(part)
    if not parts:
        raise UsageError("dataset()", "the list of shards is empty", "name at least one shard")
    return [_locate(part) for part in parts]


def _files(places: Sequence[Location], remote: Remote | None) -> Files:
    """The access to the locations. UsageError for URLs without `remote`, and for URLs mixed with paths."""
    far = next((place for place in places if not place.is_local), None)
    if far is None:
        return Disk()
    if not remote:
        fact = f"this needs the files on a disk, and {far.scheme}:// is not one"
        raise UsageError(str(far), fact, f"copy them with: shardkit download {far} FOLDER")
    for place in places:
        if place.is_local:
            fact = "the list mixes local paths and URLs"
            raise UsageError(str(place), fact, "open both as datasets, and put them together with shardkit.concat")
    return Stores(remote)


def _find(one: Location | None, places: Sequence[Location], files: Files) -> Found:
    if one is not None:
        return _whole(one, files) or with_manifest(shards_of(one, files), files)
    parts, wholes = [_entry(place, files) for place in places], [_version(place, files) for place in places]
    shards = tuple(shard for part in parts for shard in part.shards)
    named = tuple(path for part in parts for path in part.named)
    globs = tuple(pattern for part in parts for pattern in part.globs)
    found = with_manifest(Meant(shards, named, globs), files)
    for place, whole in zip(places, wholes, strict=True):
        if whole is not None and whole.manifest != found.manifest:
            fact = "this is an older version of a dataset, among other shards: versions can't be mixed"
            raise UsageError(
                str(place), fact, "open each version by itself, and put them together with shardkit.concat"
            )
    return found


def _version(place: Location, files: Files) -> Found | None:
    """The dataset that an entry of a list names with a version, or by a manifest; None for others."""
    if place.path.endswith(".json") or (asked_version(place) and not files.is_file(place)):
        return _whole(place, files)
    return None


def _entry(place: Location, files: Files) -> Meant:
    """The shards for one entry of a list."""
    found = None if format_of_name(place.name) else _whole(place, files)
    if found is None:
        return shards_of(place, files)
    if found.tree is not None:
        cure = "read each class directory as a dataset, and put them together with shardkit.concat"
        raise UsageError(str(place), "a list must name shards, but this folder has none", cure)
    return Meant(tuple(found.places))


def _whole(place: Location, files: Files) -> Found | None:
    """The dataset or folder with exactly this name; None if there is none, so that it may be a pattern."""
    shard = format_of_name(place.name) is not None
    if place.query and not shard:
        fact = "a query, such as a signature, holds for one object, and a dataset has several"
        cure = "name the shards, each with its own; or use the store's own scheme (az://… with sas_token=…)"
        raise UsageError(str(place), fact, cure)
    if place.path.endswith(".json"):
        found = files.manifest(place)
        if found is None:
            raise NotFoundError(str(place), "there is no such manifest", files.check)
        return found
    require_not_index(place, files)
    if place.name and not is_numbered(place.name):
        manifest = replace(place, path=manifest_name(place.path))
        if not is_ambiguous(place.path) or files.is_file(manifest):
            found = files.manifest(manifest)
            if found is not None:
                return found
    if shard and not files.looks:
        return None
    return _at_version(place, files) or _folder(place, files)


def _at_version(place: Location, files: Files) -> Found | None:
    """The version that `NAME@N` means; None if it is another name."""
    asked = None if files.looks and files.is_folder(place) else asked_version(place)
    found = None if asked is None else _whole(asked[0], files)
    return None if asked is None or found is None or found.manifest is None else at_version(found, asked[1], files)


def _unlike_shards(place: Location, there: Sequence[str], files: Files, besides: Sequence[str] = ()) -> list[str]:
    """The datasets in a folder that have no shards named like them: those on a disk whose shards are elsewhere, and
    those that were merged from datasets which are not there. besides: others, whose manifests are not read."""
    if not any(map(base_of_index, there)):
        return []
    found = []
    for name in filter(is_manifest_name, without_versions(there)):
        if name.removesuffix(".json") in besides:
            continue
        with suppress(ManifestError):  # some other JSON file
            one = files.manifest(place.child(name))
            if one is not None and one.manifest is not None and (one.manifest.elsewhere or one.manifest.merged):
                found.append(name.removesuffix(".json"))
    return found


def datasets_of(folder: Location, remote: Remote | None = None) -> list[str]:
    """The datasets in a folder, sorted, whatever their shards are called and wherever they are. StorageError."""
    files = _files([folder], remote)
    there = files.names(folder)
    named = datasets_in(there)
    others = _unlike_shards(folder, there, files, besides=named)
    return sorted({*named, *others})


def _folder(place: Location, files: Files) -> Found | None:
    """A folder with the shards of one dataset, or a class directory; None if there is none."""
    there = files.names(place)
    stems = datasets_in(there) or _unlike_shards(place, there, files)
    if len(stems) > 1:
        fact = f"the folder holds {len(stems)} datasets: {', '.join(stems)}"
        raise UsageError(str(place), fact, f"name one, such as '{place.child(stems[0])}'")
    for stem in stems:
        return files.manifest(place.child(manifest_name(stem)))
    shards = tuple(place.child(name) for name in there if format_of_name(name))
    return with_manifest(Meant(shards), files) if shards else files.tree(place)
