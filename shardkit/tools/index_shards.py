"""Write a manifest and index for existing shards, which makes them countable, shufflable and resumable.

Each shard is read once and checked: its structure, keys, labels and image headers. A compressed shard is unpacked into
memory; its index rows count unpacked bytes. `options["unpacked_bytes"]` of the manifest has the unpacked size of each
shard (0: not compressed), since a compressed shard can only be read as a whole.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import msgspec
import numpy as np
from numpy.typing import NDArray

from shardkit.checksums import crc32c
from shardkit.errors import DatasetError, DestinationError, ManifestError, UsageError
from shardkit.events import Progress, ProgressFn, no_progress
from shardkit.formats.format import format_of_name
from shardkit.images.header import image_header
from shardkit.location import Location, locate
from shardkit.options.fields import checked_by
from shardkit.options.old_keywords import accept_old_keywords
from shardkit.packing.dest.dataset_files import DatasetFiles
from shardkit.packing.dest.disk import disk_destination
from shardkit.packing.dest.work_folder import INDEX_SHARDS
from shardkit.packing.engine.options import EngineLike, EngineOptions, engine_options, move_engine
from shardkit.packing.options import class_names
from shardkit.packing.settings import Classes
from shardkit.sample import path_of_member
from shardkit.shards.class_names import (
    ShardLabels,
    classes_of_shards,
    folder_of,
    shard_labels,
    two_names,
)
from shardkit.shards.find.files import Disk
from shardkit.shards.find.find import resolve
from shardkit.shards.find.shards import SourceLike, find_shards
from shardkit.shards.find.unfinished import require_finished
from shardkit.shards.index import ShardRows, write_index
from shardkit.shards.index_file import is_index
from shardkit.shards.keys import KeyHashes, ShardKeys, hashes_of, require_unique_hashes
from shardkit.shards.manifest import (
    ELSEWHERE_VERSION,
    VERSION,
    IndexEntry,
    Manifest,
    ShardEntry,
    content_options,
    decode_manifest,
    encode_manifest,
    file_names,
    is_ours,
)
from shardkit.shards.names import (
    files_of_stem,
    generation_of,
    in_generation,
    index_name,
    manifest_name,
    next_generation,
    stem_of_shard,
    stems_of,
)
from shardkit.shards.objects import Objects, require_disk
from shardkit.shards.scan import ShardBytes, ShardContent, open_shard, read_shard
from shardkit.shards.seek import require_available, seek_points_of
from shardkit.storage.access import Remote
from shardkit.storage.files import sync_folder, translated, whole_file
from shardkit.storage.patient import open_patient
from shardkit.tools.index_spool import RowSpool, unnamed_file
from shardkit.tools.over_shards import over_shards
from shardkit.tools.settings import IndexSettings

COPY_BYTES = 4 << 20


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
    seek_points: bool = False,
    overwrite: bool = False,
    progress: ProgressFn = no_progress,
) -> Manifest:
    """Write the manifest and index of shards that have none; the shards are not changed.

    source: a glob, brace range, prefix, folder or list of shards (tar, PAX, TFRecord; gzip too), all in one folder and
    of one format, on a disk or in a store, from which each shard is read once, as a whole.
    out: the prefix of the files to write, or a folder for them (default: the common prefix of the shards' names, in
    their folder). In another folder than the shards', the manifest names theirs, and the prefix or the folder is then
    the dataset; it must be on a disk. Shards in a store need it.
    storage_options: credentials and the like for the shards' store, as in `dataset`; they are not kept.
    classes: names in label order, or a file with one per line. Labels are the numbers in `cls`, which in TFRecord is
    `image/class/label`. If no sample has one, labels come from the first directory of the keys, provided that every
    sample is an image and there are at least two directories (or `classes` names them); otherwise there are no labels.
    In TFRecord, names come from `image/class/text`; unknown names are "0", "1", ….
    seek_points: store in the index where the C decoder can enter each baseline JPEG, for faster crops, as `pack` does.
    overwrite: replace an existing manifest.
    workers: threads (default: one per core).
    engine: a `shardkit.Ray` reads each shard on a node of its cluster.

    Raises DatasetError (DamagedError) for the first defect in a shard, DestinationError if a manifest exists, BusyError
    if another run is writing it, NotFoundError, UsageError, StorageError.
    """
    if seek_points:
        require_available()
    where = engine_options(engine, workers)
    remote = Remote(storage_options)
    shards = _find(source, where, remote)
    names = class_names(classes)
    prefix = _prefix(shards, out)
    with disk_destination(*os.path.split(prefix)).locked():
        shards = _find(source, where, remote)  # an interrupted commit is completed first
        return _index(prefix, shards, names, where, remote, seek=seek_points, overwrite=overwrite, progress=progress)


def _index(
    prefix: str,
    shards: Sequence[Location],
    names: Sequence[str] | None,
    where: EngineOptions,
    remote: Remote,
    *,
    seek: bool,
    overwrite: bool,
    progress: ProgressFn,
) -> Manifest:
    elsewhere = _elsewhere(prefix, shards)
    before = _before(prefix, overwrite=overwrite)
    _require_no_other_files(prefix, before, elsewhere)
    if not elsewhere and not os.path.lexists(manifest_name(prefix)):
        folder, stem = os.path.split(prefix)
        require_finished(Location("", folder), stem, Disk())
    read, hashes, spool = list[_Indexed](), KeyHashes(), RowSpool(os.path.dirname(prefix), seek=seek)
    samples = size = 0
    for one, rows in over_shards(_index_one, ((shard, (shard, seek, remote)) for shard in shards), where):
        read.append(one)
        spool.add(rows)
        hashes.add(hashes_of(rows.keys, len(rows)))
        samples, size = samples + one.entry.samples, size + one.entry.bytes
        progress(Progress("index", samples, 0, size))
    _require_one_format(read)
    beside = shards[0]

    def keys_of(number: int) -> ShardKeys:
        rows = spool.rows(number)
        return beside.sibling(rows.shard), rows.keys, rows.numbers["offset"]

    require_unique_hashes(hashes, keys_of)
    return _write(prefix, read, spool, names, before, seek=seek, elsewhere=elsewhere)


def _find(source: SourceLike, where: EngineOptions, remote: Remote) -> Sequence[Location]:
    if _is_far(source):
        found = resolve(source, remote)
        found.require_dataset("name its shards")
        return found.places
    shards = find_shards(source)
    if where.name == "local":
        return shards
    return [
        replace(shard, path=os.path.abspath(shard.path)) for shard in shards
    ]  # a node may have another working directory


def _is_far(source: SourceLike) -> bool:
    """Whether the shards are in a store."""
    parts = [source] if isinstance(source, (str, os.PathLike)) else () if isinstance(source, Manifest) else source
    return any(not locate(part).is_local for part in parts)


def _elsewhere(prefix: str, shards: Sequence[Location]) -> str:
    """The shards' folder, a path or a URL; "" if it is that of the manifest. UsageError for one with a secret in it."""
    folder = shards[0].parent
    if folder.is_local:
        path = os.path.abspath(folder.path)
        return "" if path == os.path.dirname(prefix) else path
    if folder.query or str(folder) != folder.url:
        fact = "its URL has a query or a password, which a manifest must not keep"
        raise UsageError(str(shards[0]), fact, "give credentials as storage options")
    return folder.url


_Files = list[tuple[IndexEntry, BinaryIO]]


@dataclass(frozen=True, slots=True)
class _Indexed:
    """A shard that was read: its entry, field names, labels, unpacked bytes (0: not compressed)."""

    entry: ShardEntry
    fields: tuple[str, ...]
    labels: ShardLabels
    unpacked: int
    format: str
    version: str | None


def _prefix(shards: Sequence[Location], out: str | os.PathLike[str] | None) -> str:
    folders = sorted({_folder_of(shard) for shard in shards})
    if len(folders) > 1:
        fact = (
            f"the shards are in {len(folders)} folders ({folders[0]}, {folders[1]} …), and a manifest covers only one"
        )
        raise UsageError("source", fact, "index each folder separately")
    folder = folders[0] if shards[0].is_local else ""
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


def _folder_of(shard: Location) -> str:
    return os.path.abspath(shard.parent.path) if shard.is_local else str(shard.parent)


def _stem_there(folder: str, base: str) -> str:
    """The dataset that shards with generation names belong to, if it has a manifest."""
    stems = stems_of(base)
    return next((stem for stem in stems if os.path.lexists(os.path.join(folder, manifest_name(stem)))), base)


def _index_one(task: tuple[Location, bool, Remote]) -> tuple[_Indexed, ShardRows]:
    """A shard and its rows (labels as in `cls`), with the seek points of its images if they are asked for."""
    shard, seek, remote = task
    objects = Objects(remote)
    version = None if shard.is_local else objects.info(shard).version  # before its content: what changes then is told
    data = open_shard(shard, objects=objects)
    content = read_shard(data)
    if content.error is not None:
        raise content.error
    numbers, renamed = content.numbers, None if content.renamed is None else two_names(*content.renamed)
    labels = shard_labels(
        numbers["label"], content.keys, content.image_fields, numbers["offset"],
        place=content.place, texts=content.texts, renamed=renamed,
    )  # fmt: skip
    rows = shard_rows(shard.name, data, content)
    if seek:
        images = (content.numbers[name].tolist() for name in ("image_offset", "image_size", "crc32c"))
        rows = replace(rows, seek=seek_points_of(data.buffer, zip(*images, strict=True)))
    entry = ShardEntry(shard.name, len(content), content.file_bytes, f"{content.crc32c:08x}")
    unpacked = content.unpacked_bytes if content.gzip else 0
    return _Indexed(entry, tuple(content.fields), labels, unpacked, data.format, version), rows


def shard_rows(name: str, data: ShardBytes, content: ShardContent) -> ShardRows:
    """The index rows of a shard that was read, with image sizes (0 if the header does not give one).

    Raises DatasetError for a key or path that is not UTF-8, which an index can't hold.
    """
    offsets = content.numbers["offset"].tolist()
    cure = "rename it with 'shardkit repair'"
    paths = content.paths or list(map(path_of_member, content.keys, content.image_fields))
    for row, (key, path) in enumerate(zip(content.keys, paths, strict=True)):
        if not _is_utf8(key) or not _is_utf8(path):
            fact = f"its {'path' if _is_utf8(key) else 'key'} is not UTF-8, which an index can't hold"
            raise DatasetError(content.place, fact, cure, offsets[row], key)
    starts, sizes = content.numbers["image_offset"].tolist(), content.numbers["image_size"].tolist()
    both = [_size(data, start, size) for start, size in zip(starts, sizes, strict=True)]
    numbers: dict[str, NDArray[Any]] = {
        **content.numbers,
        "width": np.array([width for width, _ in both], np.int32),
        "height": np.array([height for _, height in both], np.int32),
    }
    return ShardRows(name, content.keys, paths, numbers)


def _is_utf8(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text)


def _size(data: ShardBytes, start: int, size: int) -> tuple[int, int]:
    if start < 0:
        return 0, 0
    try:
        _, width, height = image_header(bytes(data.buffer[start : start + size]))
    except ValueError:  # the size is unknown, like that of an image packed with check="none"
        return 0, 0
    return width, height


def _require_one_format(read: Sequence[_Indexed]) -> None:
    other = next((item for item in read if item.format != read[0].format), None)
    if other is not None:
        fact = f"{read[0].entry.name} is {read[0].format}, and {other.entry.name} is {other.format}"
        raise UsageError("source", fact, "index the shards of each format separately")


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
        return decode_manifest(data, place=path)
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


def _write(
    prefix: str,
    read: Sequence[_Indexed],
    spool: RowSpool,
    names: Sequence[str] | None,
    before: Manifest | None,
    *,
    seek: bool,
    elsewhere: str,
) -> Manifest:
    """Write index files first, under names that the existing manifest does not use; write the manifest last."""
    found = classes_of_shards([(item.entry.name, item.labels) for item in read], names, place=prefix)

    def rows(numbers: Sequence[int]) -> Iterator[ShardRows]:
        for item in map(spool.rows, numbers):
            labels = found.labels(item.numbers["label"], [folder_of(key) for key in item.keys])
            yield replace(item, numbers={**item.numbers, "label": labels})

    folder, stem = os.path.split(prefix)
    files: _Files = []
    starts = range(0, len(read), INDEX_SHARDS)
    for number, first in enumerate(starts):
        part = range(len(read))[first : first + INDEX_SHARDS]
        sink = unnamed_file(folder)
        with translated(folder):
            write_index(sink, rows(part), seek=seek)
            size, crc = sink.tell(), _checksum(sink)
        name = index_name(stem, None if len(starts) == 1 else number)
        files.append((IndexEntry(name, len(part), size, f"{crc:08x}"), sink))
    files = _in_free_names(files, folder, stem, [item.entry.name for item in read], before)
    manifest = Manifest(
        samples=sum(item.entry.samples for item in read),
        bytes=sum(item.entry.bytes for item in read),
        classes=found.classes,
        fields=tuple(sorted({name for item in read for name in item.fields})),
        shards=tuple(item.entry for item in read),
        index=tuple(entry for entry, _ in files),
        shard_format=read[0].format,
        version=ELSEWHERE_VERSION if elsewhere else VERSION,
        options=content_options(
            unpacked_bytes=[item.unpacked for item in read], seek_points=seek, elsewhere=elsewhere,
            shard_versions=[item.version for item in read],
        ),
    )  # fmt: skip
    for entry, sink in files:
        sink.seek(0)
        with sink, whole_file(os.path.join(folder, entry.name)) as file:
            shutil.copyfileobj(sink, file, COPY_BYTES)
    with translated(folder):
        sync_folder(folder)
    with whole_file(manifest_name(prefix)) as file:
        file.write(encode_manifest(manifest))
    with translated(folder):
        sync_folder(folder)
        kept = {entry.name for entry in manifest.index}
        unwanted = [name for name in files_of_stem(os.listdir(folder), stem) if name.endswith(".parquet")]
        kept |= DatasetFiles(open_patient(Location("", folder)), stem).named_by_others(unwanted).keys()
        for name in unwanted:
            if name not in kept and is_index(os.path.join(folder, name)):
                os.unlink(os.path.join(folder, name))
    return manifest


def _checksum(file: BinaryIO) -> int:
    file.seek(0)
    crc = 0
    while piece := file.read(COPY_BYTES):
        crc = crc32c(piece, crc)
    return crc


def _in_free_names(files: _Files, folder: str, stem: str, shards: Sequence[str], before: Manifest | None) -> _Files:
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
        return os.fstat(file.fileno()).st_size == entry.bytes and f"{_checksum(file):08x}" == entry.crc32c
