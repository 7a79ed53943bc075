"""From what a user writes to what there is: a manifest, shards without one, or a class directory."""

from __future__ import annotations

import contextlib
import fnmatch
import glob
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shardkit.errors import ManifestError, NotFoundError, ReplacedError, StorageError, UsageError
from shardkit.formats.format import format_of_name
from shardkit.location import Location, expanded, has_range, locate, matching
from shardkit.shards import names
from shardkit.shards.manifest import Manifest, decode_manifest

if TYPE_CHECKING:
    from shardkit.storage.access import Remote

SourceLike = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Manifest

_TFRECORD = r"\.(?:tfrecords?|tfrec|tfr)"
_SHARD_NAME = re.compile(
    r"(?P<stem>.+?)(?:"
    rf"-\d+(?:-of-\d+)?(?:\.(?:tar|tar\.gz|tgz)|{_TFRECORD}(?:\.gz|\.gzip|\.zlib)?)"
    rf"|(?:{_TFRECORD})?-\d+-of-\d+)"
)
"""`train-000000.tar`, and `train-00000-of-00010.tfrecord`, `train.tfrecord-00000-of-00010` as TensorFlow's tools name
them."""
_ENDING = re.compile(rf"(?:\.(?:tar|tar\.gz|tgz)|{_TFRECORD}(?:\.gz|\.gzip|\.zlib)?)$")
_NO_SHARDS = (".json", ".parquet", ".tmp", ".part")


TRIES = 5
"""How often a name is looked up while what is there changes under it."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a source is: a manifest (and which of its shards), or shards without one, or a class directory."""

    manifest: Manifest | None = None
    location: Location | None = None
    numbers: tuple[int, ...] | None = None
    shards: tuple[Location, ...] = ()
    tree: Location | None = None


def resolve(source: SourceLike, remote: Remote | None = None) -> Found:
    """What `source` names: a glob, brace range, prefix, list, manifest, or class directory.

    remote: how stores are read; without it a URL is an error, for what needs the files on a disk. Raises NotFoundError
    where nothing is there, UsageError where more than one dataset is, ManifestError, StorageError.
    """
    said = None
    for _ in range(TRIES):
        try:
            return _resolve(source, remote)
        except (NotFoundError, UsageError) as exc:
            # a dataset that is replaced between the list of a folder and its manifest does not fit: it is looked up
            # again until it does, or the answer stays the same
            if _is_url(source) or str(exc) == said:
                raise
            said = str(exc)
    return _resolve(source, remote)


def _is_url(source: SourceLike) -> bool:
    return isinstance(source, (str, os.PathLike)) and not locate(source).is_local


def _resolve(source: SourceLike, remote: Remote | None) -> Found:
    if isinstance(source, (str, os.PathLike)):
        place = locate(source)
        return _resolve_one(source) if remote is None or place.is_local else _resolve_urls([place], remote)
    if isinstance(source, Manifest):
        raise UsageError("dataset()", "a Manifest does not say where its shards are", "give its file or their prefix")
    if not isinstance(source, Iterable) or isinstance(source, (bytes, dict)):
        raise UsageError("dataset()", f"{source!r} names no dataset", "give a path, a glob, or a list of them")
    parts = list(source)
    places = [locate(part) for part in parts if isinstance(part, (str, os.PathLike))]
    if remote is not None and len(places) == len(parts) and not all(place.is_local for place in places):
        return _resolve_urls(places, remote, listed=True)
    paths = [path for part in parts for path in _listed(part)]
    if not paths:
        raise UsageError("dataset()", "the list of shards is empty", "name at least one shard")
    return with_manifest(paths, [text for place in places for text in expanded(place.path)])


def _resolve_urls(places: Sequence[Location], remote: Remote, *, listed: bool = False) -> Found:
    from shardkit.shards.find_remote import resolve_remote

    local = next((place for place in places if place.is_local), None)
    if local is not None:
        fact = "the list has both paths of this machine and URLs"
        raise UsageError(str(local), fact, "open both as datasets, and put them together with shardkit.concat")
    return resolve_remote(places, remote, listed=listed)


def _listed(part: str | os.PathLike[str]) -> list[Location]:
    """The shards that one entry of a list means."""
    if not isinstance(part, (str, os.PathLike)):
        raise UsageError("dataset()", f"{part!r} in the list is not a path", "give paths, globs or prefixes")
    place = locate(part)
    named = format_of_name(place.name) or glob.has_magic(place.path)
    if named or (os.path.isfile(place.path) and not place.path.endswith(".json")):
        return _shards_of(place)
    found = _resolve_one(part)
    if found.tree is not None:
        cure = "read each class directory as a dataset, and put them together with shardkit.concat"
        raise UsageError(str(place), "a list is of shards, and this is a folder without any", cure)
    if found.manifest is None or found.location is None:
        return list(found.shards)
    return [found.location.sibling(entry.name) for entry in found.manifest.shards]


def _resolve_one(source: str | os.PathLike[str]) -> Found:
    place = locate(source)
    require_local(place)
    if place.path.endswith(".json"):
        return _of_manifest(place)
    if not place.path.endswith("/") and os.path.isfile(place.path + ".json"):
        return _of_manifest(Location("", place.path + ".json"))
    if os.path.isdir(place.path):
        return _of_folder(place)
    patterned = glob.has_magic(place.path) or "{" in place.name
    if format_of_name(place.name) or patterned or os.path.isfile(place.path):
        return with_manifest(_shards_of(place), expanded(place.path))
    beside = sorted(glob.glob(glob.escape(place.path) + "-*"))
    shards = [path for path in beside if format_of_name(os.path.basename(path))]
    if not shards:
        fact = "no dataset is there: neither a manifest, nor shards, nor a class directory of this name"
        raise NotFoundError(str(place), fact, _unfinished(place) or "check the path")
    return with_manifest([Location("", path) for path in shards])


def require_local(place: Location) -> None:
    """Raises UsageError for a URL."""
    if not place.is_local:
        fact = f"this needs the files on a disk, and {place.scheme}:// is not one"
        raise UsageError(str(place), fact, f"copy them with: shardkit download {place} FOLDER")


def _unfinished(place: Location) -> str:
    work = place.sibling(names.work_name(place.name))
    if os.path.isdir(work.path) or sign_here(place.parent, place.name):
        return "a packing was interrupted there: run it again to finish it"
    return ""


def _shards_of(place: Location) -> list[Location]:
    """The shards that a path, a glob or a brace range means. NotFoundError for one that is not there, unless it is a
    number in a range that the manifest does not name: shards without a sample are not written."""
    require_local(place)
    if os.path.isfile(place.path):
        return [place]
    found = []
    missing: list[Location] = []
    for pattern in expanded(place.path):
        if glob.has_magic(pattern) and not os.path.lexists(pattern):
            matches = matching(pattern)
            paths = [path for path in matches if format_of_name(os.path.basename(path))]
            paths = paths or [path for path in matches if not path.endswith(_NO_SHARDS) and os.path.isfile(path)]
            if not paths:
                fact = f"no shard matches, only {matches[0]} and the like" if matches else "no file matches"
                raise NotFoundError(pattern, fact, "check the pattern and the working directory")
        elif os.path.isfile(pattern):
            paths = [pattern]
        elif has_range(place.path):
            missing.append(Location("", pattern))
            continue
        else:
            raise _no_such(Location("", pattern))
        found += [Location("", path) for path in paths]
    _require_left_out(missing, found)
    return found


def _no_such(shard: Location) -> NotFoundError:
    return NotFoundError(str(shard), "there is no such shard", "check the name and the working directory")


def _require_left_out(missing: Sequence[Location], found: Sequence[Location]) -> None:
    """NotFoundError for the first of the missing shards of a range that no manifest leaves out."""
    if missing and not found:
        raise _no_such(missing[0])
    known = known_shards(missing, _manifest_file)
    for shard in missing:
        names_there = known[_family(shard)]
        if names_there is None:
            raise _no_such(shard)
        if shard.name in names_there:
            raise _missing_of_manifest(shard)


def known_shards(
    shards: Sequence[Location], manifest: Callable[[Location], Found | None]
) -> dict[tuple[Location, str], set[str] | None]:
    """By folder and base of the names: the shards that a manifest names; None where there is none."""
    known: dict[tuple[Location, str], set[str] | None] = {}
    for shard in shards:
        if (key := _family(shard)) not in known:
            owner = _owner(shard, manifest)
            whole = None if owner is None else owner.manifest
            known[key] = None if whole is None else {entry.name for entry in whole.shards}
    return known


def in_manifest(shards: Sequence[Location], manifest: Callable[[Location], Found | None]) -> list[Location]:
    """Those of the shards of a range that their manifest names; all where there is no manifest, or it names none."""
    known = known_shards(shards, manifest)
    named = [shard for shard in shards if (there := known[_family(shard)]) is None or shard.name in there]
    return named or list(shards)


def _missing_of_manifest(shard: Location) -> NotFoundError:
    cure = "restore it, pack again, or run 'shardkit index'"
    return NotFoundError(str(shard), "the manifest names this shard, and it is missing", cure)


def with_manifest(
    shards: Sequence[Location],
    patterns: Sequence[str] = (),
    manifest: Callable[[Location], Found | None] | None = None,
    sign: Callable[[Location, str], str | None] | None = None,
) -> Found:
    """The shards as part of the dataset whose manifest is beside them, if there is one.

    Files of another generation of that dataset are no part of it: they are ignored, unless `patterns` name them.
    NotFoundError for a shard of the manifest that a glob among `patterns` would match, and that is not there; and for
    shards without a manifest where something tells that it is still to come.

    manifest: reads one that may not be there; by default a file. sign: as `sign_here`, by default that.
    """
    require_one_format(shards)
    first = {_family(shard): shard for shard in reversed(shards)}
    owners = {key: _owner(shard, manifest or _manifest_file) for key, shard in first.items()}
    found = {str(whole.location): whole for whole in owners.values() if whole is not None}
    if not found:
        for folder, base in owners:
            require_finished(folder, base, sign)
        return Found(shards=tuple(shards))
    if len(found) > 1 or None in owners.values():
        stems = sorted({*found, *(str(folder.child(base)) for (folder, base), one in owners.items() if one is None)})
        fact = f"these are the shards of more than one dataset ({', '.join(stems)})"
        raise UsageError("dataset()", fact, "name one of them, such as 'shards/train'")
    [(owner, whole)] = found.items()
    assert whole.manifest is not None and whole.location is not None
    number = {entry.name: place for place, entry in enumerate(whole.manifest.shards)}
    shards = _of_generation(shards, number, whole.location, {text for text in patterns if not glob.has_magic(text)})
    globs = [os.path.basename(text) for text in patterns if glob.has_magic(text)]
    there = {shard.name for shard in shards}
    for lost in sorted(set(number) - there) if globs else ():
        if any(fnmatch.fnmatchcase(lost, pattern) for pattern in globs):
            raise _missing_of_manifest(whole.location.sibling(lost))
    if not shards:
        fact = f"the files that match are of a generation that was replaced, and the manifest {owner} names others"
        raise NotFoundError(", ".join(patterns) or owner, fact, f"name the dataset: {owner.removesuffix('.json')}")
    numbers = tuple(number[shard.name] for shard in shards)
    every = numbers == tuple(range(len(number)))
    return Found(whole.manifest, whole.location, None if every else numbers)


def _family(shard: Location) -> tuple[Location, str]:
    """(folder, what the name begins with) of a shard."""
    return shard.parent, _stem_of(shard.name) or _ENDING.sub("", shard.name)


def _owner(shard: Location, read: Callable[[Location], Found | None]) -> Found | None:
    """The dataset that a shard, and others of its family, belong to, whichever generation; None where no manifest is.

    For a shard without a number, that is a manifest which names it: others make JSON files of such names too.
    """
    folder, base = _family(shard)
    if _stem_of(shard.name) is None:
        with contextlib.suppress(ManifestError):
            found = read(folder.child(names.manifest_name(base)))
            if found is not None and found.manifest is not None:
                return found if shard.name in {entry.name for entry in found.manifest.shards} else None
        return None
    for stem in names.stems_of(base):
        found = read(folder.child(names.manifest_name(stem)))
        if found is not None:
            return found
    return None


def _of_generation(
    shards: Sequence[Location], number: Mapping[str, int], manifest: Location, named: set[str]
) -> list[Location]:
    """The shards that the manifest knows. UsageError for others, unless they are what a replaced dataset has left."""
    stem = manifest.name.removesuffix(".json")
    ours = {names.file_generation(name, stem) for name in number} - {None}
    kept = []
    for shard in shards:
        if shard.name in number:
            kept.append(shard)
            continue
        generation = names.file_generation(shard.name, stem)
        replaced = bool(ours) and generation is not None and generation not in ours
        if not replaced:
            cure = "remove it, or make the manifest again with 'shardkit index'"
            raise UsageError(str(shard), f"the manifest {manifest} does not know this shard", cure)
        if shard.path in named:
            fact = f"this shard is of a dataset that was replaced: the manifest {manifest} names other shards"
            raise UsageError(str(shard), fact, f"name the dataset: {str(manifest).removesuffix('.json')}")
    return kept


def require_finished(folder: Location, base: str, sign: Callable[[Location, str], str | None] | None = None) -> None:
    """NotFoundError where something tells that shards whose names begin with `base` are of a dataset that is not
    finished: its manifest is still to come."""
    for stem in names.stems_of(base):
        found = (sign or sign_here)(folder, stem)
        if found is not None:
            fact = (
                f"there is no manifest, and {found} says that it is still to come: the shards alone may be half of it"
            )
            cure = "wait, or run the same pack, upload or download again to finish it"
            raise NotFoundError(str(folder.child(names.manifest_name(stem))), fact, cure)


def sign_here(folder: Location, stem: str) -> str | None:
    """The name of what tells that a dataset in this folder is not finished: a work folder with something in it, a
    manifest that was put aside, or the mark of a transfer. None where nothing does."""
    work = os.path.join(folder.path, names.work_name(stem))
    with contextlib.suppress(OSError):
        if any(name != names.LOCK for name in os.listdir(work)):
            return names.work_name(stem)
    for name in names.signs(stem):
        if os.path.lexists(os.path.join(folder.path, name)):
            return name
    return None


def missing_file(
    place: Location,
    what: str = "shard",
    cure: str = "restore it, or pack again",
    read: Callable[[Location], Found] | None = None,
) -> NotFoundError:
    """The error for a file of a dataset that was opened, and that is gone now: a ReplacedError where the manifest
    beside it is of another dataset since. read: gives a manifest; by default of a file."""
    base = _stem_of(place.name) or place.name.split(".")[0]
    for stem in names.stems_of(base):
        with contextlib.suppress(NotFoundError, ManifestError, StorageError):
            manifest = (read or _of_manifest)(place.sibling(names.manifest_name(stem))).manifest
            assert manifest is not None
            known = {entry.name for entry in manifest.shards} | {entry.name for entry in manifest.index}
            if place.name not in known:
                fact = f"the {what} is gone: the dataset was replaced by another one since it was opened"
                return ReplacedError(str(place), fact, "open the dataset again")
    return NotFoundError(str(place), f"the {what} is missing", cure)


def _manifest_file(place: Location) -> Found | None:
    if not os.path.isfile(place.path):
        return None
    return _of_manifest(place)


def require_one_format(shards: Sequence[Location]) -> None:
    """UsageError where the names say that shards are of more than one format."""
    first: dict[str, Location] = {}
    for shard in shards:
        form = format_of_name(shard.name)
        if form is not None:
            first.setdefault(form, shard)
    if len(first) > 1:
        fact = "these are shards of more than one format: " + ", ".join(shard.name for shard in first.values())
        raise UsageError("dataset()", fact, "name the shards of one, or make them one with 'shardkit convert'")


def _stem_of(name: str) -> str | None:
    """What a shard's name begins with; None for a name without a number."""
    match = _SHARD_NAME.fullmatch(name)
    return None if match is None else match["stem"]


def _of_folder(place: Location) -> Found:
    """A folder: of the shards of one dataset, or a class directory."""
    there = sorted(os.listdir(place.path))
    stems = {_stem_of(name) for name in there}
    manifests = [
        name for name in there if name.endswith(".json")
        and (name[:-5] in stems or any(n.startswith(f"{name[:-5]}-") for n in there))
    ]  # fmt: skip
    if len(manifests) == 1:
        return _of_manifest(place.child(manifests[0]))
    if len(manifests) > 1:
        fact = f"the folder holds {len(manifests)} datasets: {', '.join(name[:-5] for name in manifests)}"
        raise UsageError(str(place), fact, f"name one, such as '{place.child(manifests[0][:-5])}'")
    shards = [place.child(name) for name in there if format_of_name(name)]
    return with_manifest(shards) if shards else Found(tree=place)


def _of_manifest(place: Location) -> Found:
    try:
        with open(place.path, "rb") as file:
            data = file.read()
    except FileNotFoundError as exc:
        raise NotFoundError(str(place), "there is no such manifest", "check the path") from exc
    except OSError as exc:
        raise StorageError(str(place), exc.strerror or str(exc), "check the disk and its permissions") from exc
    return Found(decode_manifest(data, place=str(place)), place)
