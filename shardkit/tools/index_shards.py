"""Write a manifest and index for existing shards, which makes them countable, shufflable and resumable.

Each shard is read once and checked: its structure, keys, labels and image headers. A compressed shard is unpacked into
memory; its index rows count unpacked bytes. `options["unpacked_bytes"]` of the manifest has the unpacked size of each
shard (0: not compressed), since a compressed shard can only be read as a whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec.structs import replace

from shardkit.errors import DestinationError, ManifestError, UsageError
from shardkit.events import ProgressFn, no_progress
from shardkit.formats.format import format_of_name
from shardkit.location import Location, locate
from shardkit.options.fields import checked_by
from shardkit.options.old_keywords import accept_old_keywords
from shardkit.packing.dest.dataset_files import DatasetFiles
from shardkit.packing.dest.disk import disk_destination
from shardkit.packing.engine.options import EngineLike, EngineOptions, engine_options, move_engine
from shardkit.packing.options import class_names
from shardkit.packing.settings import Classes
from shardkit.shards.find.files import Disk
from shardkit.shards.find.find import resolve
from shardkit.shards.find.shards import SourceLike, find_shards
from shardkit.shards.find.unfinished import require_finished
from shardkit.shards.indexing.facts import facts_of, tell_unversioned
from shardkit.shards.indexing.kept import keep_read, kept_file, take_kept
from shardkit.shards.indexing.make import (
    Files,
    Kept,
    Made,
    again,
    checksum,
    collect,
    folder_elsewhere,
    keep,
    make_index,
    reader_into,
    require_one_folder,
    write_made,
)
from shardkit.shards.indexing.shard import ShardTask, index_shard
from shardkit.shards.indexing.spool import SPOOL, Spool
from shardkit.shards.manifest import IndexEntry, Manifest, decode_manifest, file_names, is_ours
from shardkit.shards.names import (
    files_of_stem,
    generation_of,
    in_generation,
    manifest_name,
    next_generation,
    stem_of_shard,
    stems_of,
    work_name,
)
from shardkit.shards.objects import Objects, require_disk
from shardkit.shards.parquet.sources import is_index
from shardkit.shards.seek import require_available
from shardkit.storage.access import Remote
from shardkit.storage.files import translated
from shardkit.storage.patient import open_patient
from shardkit.storage.ranged import REQUESTS
from shardkit.storage.store import ObjectInfo
from shardkit.threads import in_threads, thread_count
from shardkit.tools.over_shards import over_shards
from shardkit.tools.settings import IndexSettings


@accept_old_keywords(move_engine)
@checked_by(IndexSettings)
def index_shards(
    source: SourceLike,
    *,
    out: str | os.PathLike[str] | None = None,
    classes: Classes | None = None,
    workers: int | None = None,
    engine: EngineLike = "local",
    storage_options: Mapping[str, Any] | None = None,
    whole: bool = False,
    seek_points: bool = False,
    quality_columns: bool = False,
    columns: Sequence[str] | str = (),
    overwrite: bool = False,
    progress: ProgressFn = no_progress,
) -> Manifest:
    """Write the manifest and index of shards that have none; the shards are not changed.

    source: a glob, brace range, prefix, folder or list of shards (tar, PAX, TFRecord; gzip too), all in one folder and
    of one format, on a disk or in a store. Shards on a disk are read once, as a whole. Of those in a store, headers and
    lengths are read by ranges, 16 at a time; what lies between is not, nor checked, if it is longer than 32 KiB.
    out: the prefix of the files to write, or a folder for them (default: the common prefix of the shards' names, in
    their folder). In another folder than the shards', the manifest names theirs, and the prefix or the folder is then
    the dataset; it must be on a disk. Shards in a store need it.
    storage_options: credentials and the like for the shards' store, as in `dataset`; they are not kept.
    whole: read shards in a store as a whole too: the index then has checksums, and the sizes of all images.
    classes: names in label order, or a file with one per line. Labels are the numbers in `cls`, which in TFRecord is
    `image/class/label`. If no sample has one, labels come from the first directory of the keys, provided that every
    sample is an image and there are at least two directories (or `classes` names them); otherwise there are no labels.
    In TFRecord, names come from `image/class/text`; unknown names are "0", "1", ….
    seek_points: store in the index where the C decoder can enter each baseline JPEG, for faster crops, as `pack` does.
    quality_columns: store a perceptual hash, brightness, sharpness and entropy of each image, as `pack` does.
    columns: values in the field `json` of the samples, such as "age,city", which become further columns of the index
    with one type each, as `pack` makes them of a list. Shards in a store are then read as a whole.
    overwrite: replace an existing manifest.
    workers: threads (default: one per core; 16 for shards in a store).
    engine: a `shardkit.Ray` reads each shard on a node of its cluster.

    An interrupted run of an index in another folder goes on where it stopped: the shards that it has read are kept,
    unless their size or version has changed. So is what a complete run has read, in the user's cache: indexed again,
    only shards that changed or are new are read.

    Raises DatasetError (DamagedError) for the first defect in a shard, DestinationError if a manifest exists, BusyError
    if another run is writing it, NotFoundError, UsageError, StorageError.
    """
    if seek_points:
        require_available()
    where = engine_options(engine, workers)
    remote = Remote(storage_options)
    shards = _find(source, where, remote)
    names = class_names(classes)
    further = _columns_of(columns)
    prefix = _prefix(shards, out)
    with disk_destination(*os.path.split(prefix)).locked():
        shards = _find(source, where, remote)  # an interrupted commit is completed first
        how = _How(remote, whole=whole, seek=seek_points, quality=quality_columns, columns=further)
        return _index(prefix, shards, names, where, how, overwrite=overwrite, progress=progress)


@dataclass(frozen=True, slots=True)
class _How:
    """How shards are read: as in `index_shards`."""

    remote: Remote
    whole: bool
    seek: bool
    quality: bool
    columns: tuple[str, ...]

    @property
    def looks(self) -> dict[str, Any]:
        """What is found in each image, and in the field `json`."""
        return {"seek": self.seek, "quality": self.quality, "columns": self.columns}

    @property
    def unusual_looks(self) -> tuple[Any, ...]:
        """What distinguishes the rows from those of an index with the usual columns; empty for one of these."""
        return (self.seek, self.quality, *self.columns) if self.seek or self.quality or self.columns else ()

    def tasks(self, shards: Sequence[Location], *, elsewhere: bool, threads: int) -> list[ShardTask]:
        """One for each shard, with what its store says of it if the index is in another folder. threads: those that
        there are for all."""
        infos: Sequence[ObjectInfo | None] = [None] * len(shards)
        if elsewhere:
            known = facts_of(shards, Objects(self.remote))
            tell_unversioned(shards, known)
            infos = known
        parts = max(1, threads // len(shards))
        return [
            ShardTask(shard, self.remote, info, whole=self.whole, parts=parts, **self.looks)
            for shard, info in zip(shards, infos, strict=True)
        ]


def _index(
    prefix: str,
    shards: Sequence[Location],
    names: Sequence[str] | None,
    where: EngineOptions,
    how: _How,
    *,
    overwrite: bool,
    progress: ProgressFn,
) -> Manifest:
    elsewhere = _elsewhere(prefix, shards)
    before = _before(prefix, overwrite=overwrite)
    _require_no_other_files(prefix, before, elsewhere)
    if not elsewhere and not os.path.lexists(manifest_name(prefix)):
        folder, stem = os.path.split(prefix)
        require_finished(Location("", folder), stem, Disk())
    folder, stem = os.path.split(prefix)
    tasks = how.tasks(shards, elsewhere=bool(elsewhere), threads=_threads(shards, where))
    work, name = (os.path.join(folder, work_name(stem)), SPOOL) if elsewhere else (folder, None)
    kept = kept_file(elsewhere, shards[0].name, *how.unusual_looks) if elsewhere else None
    if kept is not None:
        take_kept(kept, os.path.join(work, SPOOL))
    spool = Spool(work, **how.looks, name=name)
    numbers = collect(_kept(spool, tasks, where), tasks, spool, progress)
    made = make_index(spool, numbers, names, prefix=prefix, **how.looks, elsewhere=elsewhere)
    manifest = _commit(prefix, made, before)
    if kept is not None:
        keep_read(spool, numbers, kept)
    spool.remove()
    return manifest


def _columns_of(given: Sequence[str] | str) -> tuple[str, ...]:
    """The names of columns. UsageError for an empty name, and for one that is given twice."""
    names = tuple(name.strip() for name in given.split(",")) if isinstance(given, str) else tuple(given)
    names = () if given == "" else names
    for name in names:
        if not name or names.count(name) > 1:
            raise UsageError("columns", f"{name!r} is named twice" if name else "a name is empty", "name each once")
    return names


def _kept(spool: Spool, tasks: Sequence[ShardTask], where: EngineOptions) -> Iterator[Kept]:
    """Read the shards: from a store with REQUESTS threads, each of which waits for one range at a time."""
    if where.name == "local":
        yield from in_threads(reader_into(spool), tasks, _threads([task.shard for task in tasks], where))
        return
    missing = (task for task in tasks if again(spool, task) is None)
    found = over_shards(index_shard, ((task.shard, task) for task in missing), where)
    for task in tasks:
        yield again(spool, task) or keep(spool, task, *next(found))


def _threads(shards: Sequence[Location], where: EngineOptions) -> int:
    """The threads here; one for each shard on the nodes of a cluster."""
    if where.name != "local":
        return 1
    return REQUESTS if not shards[0].is_local and where.workers is None else thread_count(where.workers)


def _find(source: SourceLike, where: EngineOptions, remote: Remote) -> Sequence[Location]:
    if _is_far(source):
        found = resolve(source, remote)
        found.require_dataset("name its shards")
        return found.places
    shards = find_shards(source)
    if where.name == "local":
        return shards
    return [replace(shard, path=os.path.abspath(shard.path)) for shard in shards]  # a node may be elsewhere


def _is_far(source: SourceLike) -> bool:
    """Whether the shards are in a store."""
    parts = [source] if isinstance(source, (str, os.PathLike)) else () if isinstance(source, Manifest) else source
    return any(not locate(part).is_local for part in parts)


def _elsewhere(prefix: str, shards: Sequence[Location]) -> str:
    """The shards' folder, a path or a URL; "" if it is that of the manifest."""
    folder = folder_elsewhere(shards)
    return "" if folder == os.path.dirname(prefix) else folder


def _prefix(shards: Sequence[Location], out: str | os.PathLike[str] | None) -> str:
    folder = require_one_folder(shards)
    folder = folder if shards[0].is_local else ""
    if out is not None:
        require_disk("an index", out, "give a folder on a disk")
        path = locate(out).path
        if not path.endswith("/") and not os.path.isdir(path):
            return os.path.abspath(path)
        folder = os.path.abspath(path)
    elif not folder:
        fact = "the shards are in a store, and an index is written to a disk"
        raise UsageError("out", fact, "give the prefix or the folder of the index")
    stems = sorted({_stem_there(folder, stem_of_shard(shard.name)) for shard in shards})
    if len(stems) > 1:
        fact = f"the shards' names begin with {len(stems)} different words ({stems[0]}, {stems[1]} …)"
        raise UsageError("source", fact, "index each separately, or give one name for all with `out`")
    return os.path.join(folder, stems[0])


def _stem_there(folder: str, base: str) -> str:
    """The dataset that shards with generation names belong to, if it has a manifest."""
    stems = stems_of(base)
    return next((stem for stem in stems if os.path.lexists(os.path.join(folder, manifest_name(stem)))), base)


def _before(prefix: str, *, overwrite: bool) -> Manifest | None:
    """The existing manifest; None if there is none or it is damaged. DestinationError if it must not be replaced."""
    path = manifest_name(prefix)
    with translated(path):
        try:
            with open(path, "rb") as file:
                data = file.read()
        except FileNotFoundError:
            return None
    if not is_ours(data):
        fact = "this file already exists, and is not a shardkit manifest"
        raise DestinationError(path, fact, "move it elsewhere, or give the manifest another name with `out`")
    if not overwrite:
        cure = "check it with 'shardkit verify', or replace it with `overwrite=True`"
        raise DestinationError(path, "a manifest already exists", cure)
    with suppress(ManifestError):
        found = decode_manifest(data, place=path)
        if found.corrections is not None:
            fact = f"this dataset was corrected (version {found.number}), and a new index would lose its corrections"
            raise DestinationError(path, fact, "write its samples to new shards with 'shardkit convert'")
        return found
    return None


def _require_no_other_files(prefix: str, before: Manifest | None, elsewhere: str) -> None:
    """DestinationError for a file that has the name of an index but is not one, and for shards that are not those of
    this index."""
    folder, stem = os.path.split(prefix)
    known = set() if before is None else set(file_names(before))
    with translated(folder):
        there = os.listdir(folder)
    for name in files_of_stem(there, stem):
        path = os.path.join(folder, name)
        if name.endswith(".parquet") and name not in known and not is_index(path):
            fact = "this file already exists, and is not a shardkit index"
            raise DestinationError(path, fact, "move it elsewhere, or give the index another name with `out`")
        if elsewhere and format_of_name(name):
            fact = f"there are shards of this name, and the index is of those in {locate(elsewhere)}"
            raise DestinationError(path, fact, "choose another folder or name with `out`")


def _commit(prefix: str, made: Made, before: Manifest | None) -> Manifest:
    """Write index files first, under names that the existing manifest does not use; write the manifest last."""
    folder, stem = os.path.split(prefix)
    files = _in_free_names(made.files, folder, stem, [entry.name for entry in made.manifest.shards], before)
    manifest = msgspec.structs.replace(made.manifest, index=tuple(entry for entry, _ in files))
    write_made(folder, stem, Made(manifest, files))
    with translated(folder):
        kept = {entry.name for entry in manifest.index}
        unwanted = [name for name in files_of_stem(os.listdir(folder), stem) if name.endswith(".parquet")]
        kept |= DatasetFiles(open_patient(Location("", folder)), stem).named_by_others(unwanted).keys()
        for name in unwanted:
            if name not in kept and is_index(os.path.join(folder, name)):
                os.unlink(os.path.join(folder, name))
    return manifest


def _in_free_names(files: Files, folder: str, stem: str, shards: Sequence[str], before: Manifest | None) -> Files:
    """The index files, renamed to a generation that no other index of the dataset has, unless it is the same; nor one
    that another dataset names, since it was merged from this."""
    generation = generation_of(shards, stem)
    with translated(folder):
        there = os.listdir(folder)
    if before is not None:
        current = generation_of(file_names(before), stem)
        same = [(each.bytes, each.crc32c) for each in before.index] == [(e.bytes, e.crc32c) for e, _ in files]
        generation = current if same else next_generation(max(current, generation), stem, there)
    beside = DatasetFiles(open_patient(Location("", folder)), stem)
    while True:
        renamed = [(msgspec.structs.replace(entry, name=in_generation(entry.name, stem, generation)), sink)
                   for entry, sink in files]  # fmt: skip
        others = [entry.name for entry, _ in renamed if entry.name in there and not _is_there(folder, entry)]
        if not beside.named_by_others(others):
            return renamed
        generation = next_generation(generation, stem, there)


def _is_there(folder: str, entry: IndexEntry) -> bool:
    """Whether the file of this name has the same content."""
    path = os.path.join(folder, entry.name)
    with translated(path), open(path, "rb") as file:
        return os.fstat(file.fileno()).st_size == entry.bytes and f"{checksum(file):08x}" == entry.crc32c
