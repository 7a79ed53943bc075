"""From what a user writes to what there is: a manifest, shards without one, or a class directory."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from shardkit.errors import NotFoundError, StorageError, UsageError
from shardkit.location import Location, expand_braces, locate
from shardkit.manifest import Manifest, decode_manifest

SourceLike = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Manifest

_SHARD_NAME = re.compile(r"(?P<stem>.+)-\d+\.(tar|tar\.gz|tgz|tfrecord)")
_SHARD_ENDINGS = (".tar", ".tar.gz", ".tgz")


@dataclass(frozen=True, slots=True)
class Found:
    """What a source is: a manifest (and which of its shards), or shards without one, or a class directory."""

    manifest: Manifest | None = None
    location: Location | None = None
    numbers: tuple[int, ...] | None = None
    shards: tuple[Location, ...] = ()
    tree: Location | None = None


def resolve(source: SourceLike) -> Found:
    """What `source` names: a glob, brace range, prefix, list, manifest, or class directory.

    Raises NotFoundError where nothing is there, UsageError where more than one dataset is, ManifestError, StorageError.
    """
    if isinstance(source, (str, os.PathLike)):
        return _resolve_one(source)
    if isinstance(source, Manifest):
        raise UsageError("dataset()", "a Manifest does not say where its shards are", "give its file or their prefix")
    paths = [path for part in source for path in _shards_of(locate(part))]
    if not paths:
        raise UsageError("dataset()", "the list of shards is empty", "name at least one shard")
    return _with_manifest(paths)


def _resolve_one(source: str | os.PathLike[str]) -> Found:
    place = locate(source)
    demand_local(place)
    if place.path.endswith(".json"):
        return _of_manifest(place)
    if not place.path.endswith("/") and os.path.isfile(place.path + ".json"):
        return _of_manifest(Location("", place.path + ".json"))
    if os.path.isdir(place.path):
        return _of_folder(place)
    if place.path.endswith(_SHARD_ENDINGS) or os.path.isfile(place.path):
        return _with_manifest(_shards_of(place))
    shards = sorted(path for ending in _SHARD_ENDINGS for path in glob.glob(glob.escape(place.path) + "-*" + ending))
    if not shards:
        fact = "no dataset is there: neither a manifest, nor shards, nor a class directory of this name"
        raise NotFoundError(str(place), fact, _unfinished(place) or "check the path")
    return _with_manifest([Location("", path) for path in shards])


def demand_local(place: Location) -> None:
    """Raises UsageError for a URL."""
    if not place.is_local:
        fact = f"{place.scheme}:// is not a scheme that this version reads"
        raise UsageError(str(place), fact, "copy the shards to a disk, and name them there")


def _unfinished(place: Location) -> str:
    work = place.sibling(f".{place.name}.packing")
    return "a packing was interrupted there: run it again to finish it" if os.path.isdir(work.path) else ""


def _shards_of(place: Location) -> list[Location]:
    """The shards that a path, a glob or a brace range means. NotFoundError for one that is not there."""
    demand_local(place)
    if os.path.isfile(place.path):
        return [place]
    found = []
    for pattern in expand_braces(place.path):
        if glob.has_magic(pattern) and not os.path.lexists(pattern):
            paths = sorted(glob.glob(pattern, recursive=True))
            paths = [path for path in paths if path.endswith(_SHARD_ENDINGS)] or paths
            if not paths:
                raise NotFoundError(pattern, "no file matches", "check the pattern, and where you are")
        elif os.path.isfile(pattern):
            paths = [pattern]
        else:
            raise NotFoundError(pattern, "there is no such shard", "check the name, and where you are")
        found += [Location("", path) for path in paths]
    return found


def _with_manifest(shards: Sequence[Location]) -> Found:
    """The shards as part of the dataset whose manifest is beside them, if there is one."""
    owners = {_manifest_of(shard) for shard in shards}
    owners_found = sorted({str(owner) for owner in owners if owner is not None and os.path.isfile(owner.path)})
    if not owners_found:
        return Found(shards=tuple(shards))
    if len(owners) > 1:
        names = ", ".join(owners_found)
        fact = f"these are the shards of more than one dataset ({names})"
        raise UsageError("dataset()", fact, "name one of them, such as 'shards/train'")
    whole = _of_manifest(Location("", owners_found[0]))
    assert whole.manifest is not None
    number = {entry.name: place for place, entry in enumerate(whole.manifest.shards)}
    missing = next((shard for shard in shards if shard.name not in number), None)
    if missing is not None:
        cure = "remove it, or make the manifest again with 'shardkit index'"
        raise UsageError(str(missing), f"the manifest {owners_found[0]} does not know this shard", cure)
    numbers = tuple(number[shard.name] for shard in shards)
    every = numbers == tuple(range(len(number)))
    return Found(whole.manifest, whole.location, None if every else numbers)


def _manifest_of(shard: Location) -> Location | None:
    match = _SHARD_NAME.fullmatch(shard.name)
    return None if match is None else shard.sibling(match["stem"] + ".json")


def _of_folder(place: Location) -> Found:
    """A folder: of the shards of one dataset, or a class directory."""
    names = sorted(os.listdir(place.path))
    manifests = [name for name in names if name.endswith(".json") and any(n.startswith(f"{name[:-5]}-") for n in names)]
    if len(manifests) == 1:
        return _of_manifest(place.child(manifests[0]))
    if len(manifests) > 1:
        fact = f"the folder holds {len(manifests)} datasets: {', '.join(name[:-5] for name in manifests)}"
        raise UsageError(str(place), fact, f"name one, such as '{place.child(manifests[0][:-5])}'")
    shards = [place.child(name) for name in names if name.endswith(_SHARD_ENDINGS)]
    return _with_manifest(shards) if shards else Found(tree=place)


def _of_manifest(place: Location) -> Found:
    try:
        with open(place.path, "rb") as file:
            data = file.read()
    except FileNotFoundError as exc:
        raise NotFoundError(str(place), "there is no such manifest", "check the path") from exc
    except OSError as exc:
        raise StorageError(str(place), exc.strerror or str(exc), "check the disk and its rights") from exc
    return Found(decode_manifest(data, place=str(place)), place)
