"""Copy a dataset from one place to another: the common part of upload and download.

Files already there with the same size and CRC-32C are kept. Shards go first, in parallel; then the index; the manifest
last. So the next run resumes an interrupted one, and nobody reads half a dataset. If the copy replaces a dataset whose
files have the same names but other contents, it gets the names of the next generation.
"""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from threading import Lock

import numpy as np
from msgspec.structs import replace

from shardkit.checksums import crc32c
from shardkit.errors import DamagedError, DestinationError, NotFoundError, StorageError
from shardkit.events import Progress, ProgressFn
from shardkit.location import Location
from shardkit.packing.dest.dataset_files import OVERWRITE, DatasetFiles
from shardkit.packing.dest.in_the_way import readable_manifest, refuse_file
from shardkit.shards.corrections.block import OPTION, Corrections, FieldsEntry, FileEntry, block_of
from shardkit.shards.index import INTEGERS, ShardRows, write_index
from shardkit.shards.index_file import IndexFile, index_entries
from shardkit.shards.manifest import (  # fmt: skip
    IndexEntry,
    Manifest,
    ShardEntry,
    decode_manifest,
    encode_manifest,
    file_names,
    require_beside,
)
from shardkit.shards.names import generation_of, in_generation, skipped_beside
from shardkit.storage.store import ObjectInfo
from shardkit.storage.transfer import Pieces, TransferCheck, crc_of, file_pieces, object_pieces, send
from shardkit.threads import TransferPool
from shardkit.units import short_repr

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Copied:
    """A dataset at its new place: its manifest (or the folder of shards without one), and its contents.

    sent: files sent by this run; kept: files that were already there. samples: 0 if there is no manifest.
    """

    dataset: str
    samples: int
    shards: int
    bytes: int
    sent: int
    sent_bytes: int
    kept: int
    kept_bytes: int


@dataclass(frozen=True, slots=True)
class Transferred:
    """Result of `upload` or `download`: a Copied for each dataset."""

    datasets: tuple[Copied, ...]

    __repr__ = short_repr


@dataclass(frozen=True, slots=True)
class DatasetCopy:
    """A dataset to copy: its shards and other files with size and CRC-32C, and its manifest as stored.

    Shards that have no manifest are copied without one. origin: the source names of files that are renamed. made:
    generated files, which the source does not have in this form.
    """

    source: DatasetFiles
    shards: tuple[ObjectInfo, ...]
    others: tuple[ObjectInfo, ...] = ()
    manifest: bytes | None = None
    samples: int = 0
    origin: Mapping[str, str] = field(default_factory=dict)
    made: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def files(self) -> tuple[ObjectInfo, ...]:
        """All files except the manifest."""
        return (*self.shards, *self.others)

    @property
    def bytes(self) -> int:
        """Total size of all files except the manifest."""
        return sum(file.bytes for file in self.files)


def plan_copy(source: DatasetFiles) -> DatasetCopy:
    """List the files of the dataset at `source`. Raises NotFoundError if there is none, ManifestError, StorageError."""
    data = source.read(source.manifest)
    manifest = decode_manifest(data, place=str(source.location(source.manifest)))
    require_beside(manifest, str(source.location(source.manifest)))
    shards = tuple(map(_wanted, manifest.shards))
    others = (*map(_wanted, manifest.index), *_list_of_skipped(source, manifest), *_of_versions(manifest))
    return DatasetCopy(source, shards, others, data, manifest.samples)


def _of_versions(manifest: Manifest) -> list[ObjectInfo]:
    """The files of all versions, beside those of the current one."""
    corrections = manifest.corrections
    return [] if corrections is None else [ObjectInfo(f.name, f.bytes, f.crc32c) for f in corrections.files()]


def _wanted(entry: ShardEntry | IndexEntry) -> ObjectInfo:
    return ObjectInfo(entry.name, entry.bytes, entry.crc32c)


def _list_of_skipped(source: DatasetFiles, manifest: Manifest) -> list[ObjectInfo]:
    """The list of skipped files, if there is one: the manifest has neither its size nor its checksum."""
    name = skipped_beside(file_names(manifest), source.stem)
    try:
        data = source.read(name) if manifest.skipped else b""
    except NotFoundError:
        log.warning("%s: the list of skipped files is missing", source.location(name))
        return []

    return [ObjectInfo(name, len(data), f"{crc32c(data):08x}")] if data else []


class TransferProgress:
    """Counts what was transferred, and reports it."""

    def __init__(self, step: str, copies: Iterable[DatasetCopy], progress: ProgressFn) -> None:
        self.step, self.progress = step, progress
        files = [file.bytes for copy in copies for file in copy.files]
        self.files, self.bytes = len(files), sum(files)
        self._done = self._bytes = 0
        self._lock = Lock()

    def moved(self, count: int) -> None:
        """Record that `count` bytes were transferred (negative: that they have to be transferred again)."""
        self._report(0, count)

    def done(self) -> None:
        """Record that a file is finished."""
        self._report(1, 0)

    def kept(self, file: ObjectInfo) -> None:
        """Record that a file was already there."""
        self._report(1, file.bytes)

    def _report(self, files: int, count: int) -> None:
        with self._lock:
            self._done += files
            self._bytes += count
            self.progress(Progress(self.step, self._done, self.files, self._bytes, self.bytes))


def copy_dataset(
    copy: DatasetCopy,
    target: DatasetFiles,
    pool: TransferPool,
    *,
    check: TransferCheck,
    keep: TransferCheck,
    overwrite: bool,
    progress: TransferProgress,
    before_manifest: Callable[[DatasetCopy], None] = lambda _: None,
) -> Copied:
    """Copy a dataset to `target`, under the same name. check: for files that were sent; keep: for files already there.
    before_manifest: called with the dataset as it is at `target`, when all its files but the manifest are there.

    Raises DestinationError if something else is in the way, DamagedError, NotFoundError, StorageError.
    """
    target.clear()
    found = target.manifest_bytes()
    copy = fit_copy(copy, target, found, overwrite=overwrite)
    kept = kept_files(copy, target, pool, found, check=keep, overwrite=overwrite)
    if found is None:
        target.begin()
    for file in copy.files:
        if file.name in kept:
            progress.kept(file)

    def one(file: ObjectInfo) -> None:
        pieces, place = pieces_of(copy, file, pool), copy.source.location(copy.origin.get(file.name, file.name))
        send(pieces, place, target.store, file, check=check, stop=pool.stop, on_progress=progress.moved)
        progress.done()

    for part in (copy.shards, copy.others):
        for _ in pool.map(one, [file for file in part if file.name not in kept]):
            pass
    before_manifest(copy)
    if copy.manifest is None:
        target.clear(without_manifest=True)
    elif found != copy.manifest:
        target.finish(copy.manifest, {file.name: file.bytes for file in copy.files}, sweep=overwrite)
    sent = [file.bytes for file in copy.files if file.name not in kept]
    there = target.store.root if copy.manifest is None else target.location(target.manifest)
    return Copied(
        dataset=str(there), samples=copy.samples, shards=len(copy.shards),
        bytes=sum(file.bytes for file in copy.shards), sent=len(sent), sent_bytes=sum(sent), kept=len(kept),
        kept_bytes=copy.bytes - sum(sent),
    )  # fmt: skip


def pieces_of(copy: DatasetCopy, file: ObjectInfo, pool: TransferPool) -> Pieces:
    """The bytes of a file, from wherever it is."""
    made = copy.made.get(file.name)
    if made is not None:
        return partial(_at_once, made)
    source, name = copy.source, copy.origin.get(file.name, file.name)
    place = source.location(name)
    if place.is_local:
        return file_pieces(place)
    return object_pieces(source.store, name, file.bytes, pool.stop)


def _at_once(data: bytes) -> Generator[bytes, None, None]:
    yield data


def fit_copy(copy: DatasetCopy, target: DatasetFiles, found: bytes | None, *, overwrite: bool) -> DatasetCopy:
    """The copy; renamed to the next generation if the dataset that it replaces has files of the same names.

    found: the existing manifest. DestinationError if it is another dataset's, without `overwrite`, or not readable.
    """
    if found is None or found == copy.manifest:
        return copy
    theirs = readable_manifest(target, found)
    mine = None if copy.manifest is None else decode_manifest(copy.manifest, place=str(copy.source))
    if mine is not None and theirs is not None and _contents(mine) == _contents(theirs):
        same = rename_copy(copy, mine, generation_of(file_names(theirs), target.stem))
        if same.manifest == found:
            return same
    if not overwrite:
        raise DestinationError(target.place(target.manifest), "another dataset is there", OVERWRITE)
    if mine is None or theirs is None or not _clash(mine, theirs):
        return copy
    return rename_copy(copy, mine, target.next_generation(theirs))


def _contents(manifest: Manifest) -> list[tuple[int, int, str]]:
    return [(entry.samples, entry.bytes, entry.crc32c) for entry in manifest.shards]


def _clash(mine: Manifest, theirs: Manifest) -> bool:
    """Whether two datasets have files with the same name but different contents."""
    before = {entry.name: entry.crc32c for entry in theirs.shards} | {
        entry.name: entry.crc32c for entry in theirs.index
    }
    after = {entry.name: entry.crc32c for entry in mine.shards} | {entry.name: entry.crc32c for entry in mine.index}
    return any(before.get(name, crc) != crc for name, crc in after.items())


def rename_copy(copy: DatasetCopy, manifest: Manifest, generation: int) -> DatasetCopy:
    """The same dataset under the names of another generation; the index, which contains the shards' names, is
    rewritten.
    """
    stem = copy.source.stem
    new = {file.name: in_generation(file.name, stem, generation) for file in copy.files}
    renaming = _Renaming(copy.source, new)
    text = renaming.all_versions(manifest)
    made = {name: ObjectInfo(name, len(data), f"{crc32c(data):08x}") for name, data in renaming.made.items()}
    return DatasetCopy(
        copy.source,
        tuple(ObjectInfo(new[file.name], file.bytes, file.crc32c) for file in copy.shards),
        tuple(made.get(new[f.name]) or ObjectInfo(new[f.name], f.bytes, f.crc32c) for f in copy.others),
        text, copy.samples, {name: old for old, name in new.items()}, renaming.made,
    )  # fmt: skip


class _Renaming:
    """Gives the files of a dataset other names, in all of its versions. made: the files that name others."""

    def __init__(self, source: DatasetFiles, new: Mapping[str, str]) -> None:
        self.source, self.new, self.made = source, new, dict[str, bytes]()

    def all_versions(self, manifest: Manifest) -> bytes:
        """The manifest under the new names, after those of its older versions."""
        log = () if manifest.corrections is None else manifest.corrections.log
        for entry in (each.manifest for each in log if each.manifest is not None):
            data = self.source.read(entry.name, size=entry.bytes)
            older = decode_manifest(data, place=self.source.place(entry.name))
            self.made[self.new[entry.name]] = self.manifest(older)
        return self.manifest(manifest)

    def manifest(self, manifest: Manifest) -> bytes:
        """A manifest under the new names."""
        index = []
        for entry, shards in index_entries(manifest):
            name = self.new[entry.name]
            if name not in self.made:
                self.made[name] = _with_names(self.source, entry, shards, self.new)
            data = self.made[name]
            index.append(replace(entry, name=name, bytes=len(data), crc32c=f"{crc32c(data):08x}"))
        shards = tuple(replace(entry, name=self.new[entry.name]) for entry in manifest.shards)
        options, corrections = manifest.options, manifest.corrections
        if corrections is not None:
            options = options | {OPTION: block_of(self._corrections(corrections))}
        return encode_manifest(replace(manifest, shards=shards, index=tuple(index), options=options))

    def _corrections(self, found: Corrections) -> Corrections:
        log = tuple(
            replace(
                each, overlay=None if each.overlay is None else replace(each.overlay, name=self.new[each.overlay.name]),
                fields=self._fields(each.fields), manifest=None if each.manifest is None else self._file(each.manifest),
            )
            for each in found.log
        )  # fmt: skip
        kept, fields = tuple(map(self._file, found.kept)), self._fields(found.fields)
        return replace(found, overlay=log[-1].overlay, log=log, kept=kept, fields=fields)

    def _fields(self, entries: Sequence[FieldsEntry]) -> tuple[FieldsEntry, ...]:
        return tuple(replace(entry, name=self.new[entry.name]) for entry in entries)

    def _file(self, entry: FileEntry) -> FileEntry:
        name = self.new[entry.name]
        data = self.made.get(name)
        if data is None:
            return replace(entry, name=name)
        return FileEntry(name, len(data), f"{crc32c(data):08x}")


def _with_names(source: DatasetFiles, entry: IndexEntry, shards: Sequence[ShardEntry], new: Mapping[str, str]) -> bytes:
    """The bytes of an index file with new shard names."""
    index = source.open_index(entry, shards)
    groups = zip(shards, index.groups(["key", "path", *INTEGERS]), strict=True)
    sink = io.BytesIO()
    write_index(
        sink,
        (
            ShardRows(new[shard.name], columns["key"].to_pylist(), columns["path"].to_pylist(),
                      {name: np.asarray(columns[name]) for name in INTEGERS}, _seek_points(index, group),
                      index.further(group), index.quality(group))
            for group, (shard, columns) in enumerate(groups)
        ),
        seek=index.has_seek_points, columns=index.further_types, quality=index.has_quality,
    )  # fmt: skip
    return sink.getvalue()


def _seek_points(index: IndexFile, group: int) -> list[bytes] | None:
    found = index.seek_points(group)
    return None if found is None else [points or b"" for points in found.to_pylist()]


def kept_files(
    copy: DatasetCopy,
    target: DatasetFiles,
    pool: TransferPool,
    found: bytes | None,
    *,
    check: TransferCheck,
    overwrite: bool,
) -> set[str]:
    """Return the names of the files that are already there.

    Raises DestinationError if something that this run may not replace is in the way.
    """
    same = found is not None and found == copy.manifest
    listed = target.sizes(file.name for file in copy.files)
    alike = [file for file in copy.files if listed.get(file.name) == file.bytes]
    if same and len(alike) == len(copy.files) and check != "read":
        return {file.name for file in alike}
    holds = pool.map(lambda file: target.holds(file, check=check, stop=pool.stop), alike)
    kept = {file.name for file, held in zip(alike, holds, strict=True) if held}
    target.require_unnamed((listed.keys() & {file.name for file in copy.files}) - kept)
    if found is None:
        ours = {file.name for file in copy.files}
        others = set(listed) - kept - target.replaced()
        for name in sorted(others & ours if copy.manifest is None else others):
            refuse_file(target, name, "does not belong to this dataset", overwrite=overwrite)
    return kept


def require_sizes(copy: DatasetCopy) -> None:
    """NotFoundError or DamagedError if a local file is missing or has the wrong size."""
    for file in copy.files:
        place = copy.source.location(file.name)
        try:
            size = os.stat(place.path).st_size
        except FileNotFoundError as exc:
            cure = "restore it, or check the dataset with 'shardkit verify'"
            raise NotFoundError(str(place), "the manifest names this file, but it is missing", cure) from exc
        except OSError as exc:
            raise StorageError(str(place), exc.strerror or str(exc), "check the disk and its permissions") from exc
        if size != file.bytes:
            fact = f"it has {size} bytes, but its manifest says {file.bytes}"
            raise DamagedError(str(place), fact, "check the dataset with 'shardkit verify'")


def shards_without_manifest(source: DatasetFiles, shards: Sequence[Location], pool: TransferPool) -> DatasetCopy:
    """A copy of shards without a manifest; each is read once for its checksum."""

    def one(shard: Location) -> ObjectInfo:
        crc = crc_of(file_pieces(shard))
        return ObjectInfo(shard.name, os.stat(shard.path).st_size, crc)

    return DatasetCopy(source, tuple(pool.map(one, shards)))
