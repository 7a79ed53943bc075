"""The folder in which a job works until its commit.

.train.packing/    lock, and for each finished shard NAME, NAME.rows, NAME.receipt; then index files, and train.json

The commit is decided once train.json is in the work folder. If it is interrupted after that, the next run finishes it;
every step may be repeated.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack

import msgspec
import numpy as np

from shardkit.checksums import crc32c
from shardkit.errors import ShardkitError, StorageError
from shardkit.packing.dest.destination import Destination
from shardkit.packing.dest.shared import SharedFolder
from shardkit.packing.parts.names import is_of_parts
from shardkit.packing.parts.part import Part
from shardkit.packing.write.receipt import COLUMNS, Rows, Skipped, rows_path
from shardkit.sample import fs_text
from shardkit.shards.columns.types import Types
from shardkit.shards.columns.values import decoded_columns
from shardkit.shards.index import INDEX_SHARDS, INTEGERS, QUALITY_TYPES, ShardRows, index_writer
from shardkit.shards.manifest import IndexEntry, Manifest, ShardEntry, decode_manifest, encode_manifest
from shardkit.shards.names import LOCK, index_name, manifest_name, skipped_name
from shardkit.storage.files import FolderLock, storage_error, sync_folder, translated, whole_file
from shardkit.storage.parts import PART, remove_abandoned
from shardkit.system import POSIX


@contextlib.contextmanager
def locked_folder(
    work: str, resume: Callable[[], None], shared: SharedFolder, part: Part | None = None, *, wanted: bool = False
) -> Iterator[FolderLock]:
    """Make and lock the work folder; at the end it is removed if nothing is left to resume from.

    resume: called first, to finish an interrupted commit. part: share the lock with other parts. wanted: hold a lease
    too, since other machines may write to this destination; a part always does, and any run where the file system has
    no locks. Raises BusyError if another run holds the lock or the lease.
    """
    parent = os.path.dirname(work)
    made = _missing_folders(parent)
    lock = FolderLock(work, shared=part is not None)
    try:
        remove_abandoned(parent)
        with contextlib.ExitStack() as stack:
            if wanted or part is not None or not lock.by_system:
                stack.enter_context(shared.claimed(part))
            else:
                shared.require_no_parts()
            if part is None:
                resume()
            yield lock
    finally:
        try:
            if lock.alone():
                _tidy(work, made)
            else:
                remove_abandoned(work)
        finally:
            lock.release()
            if not POSIX:  # which removes no open file, and so not the lock
                _tidy(work, made)


def _tidy(work: str, made: Sequence[str]) -> None:
    """Remove what terminated workers left half-written, and the folder if it contains nothing but its lock."""
    with contextlib.suppress(OSError, ShardkitError):
        remove(work, lambda name: name.endswith(PART))
        if os.listdir(work) == [LOCK]:
            os.unlink(os.path.join(work, LOCK))
            for folder in (work, *made):
                os.rmdir(folder)


def _missing_folders(folder: str) -> list[str]:
    """The folders to make for `folder`, itself first."""
    missing = []
    while not os.path.lexists(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    return missing


def remove(work: str, unwanted: Callable[[str], bool]) -> None:
    """Remove the files of the work folder whose names `unwanted` accepts."""
    with translated(work):
        for name in os.listdir(work):
            if unwanted(name):
                os.unlink(os.path.join(work, name))


def keep_only(destination: Destination, shards: Iterable[str]) -> None:
    """Remove what an earlier run wrote for another plan, from the work folder and from the destination. What parts
    wrote stays: only a merge removes it.

    shards: the names of those to keep.
    """
    kept = {*shards, *destination.shared.planned()}
    wanted = {LOCK, *(name + ending for name in kept for ending in ("", ".rows", ".receipt"))}
    with translated(destination.work):
        unwanted = {name for name in os.listdir(destination.work) if name not in wanted and not is_of_parts(name)}
    destination.withdraw({name.removesuffix(".receipt") for name in unwanted})
    remove(destination.work, unwanted.__contains__)


class IndexFiles:
    """The index of the finished shards, written to the work folder: a file for each INDEX_SHARDS shards.

    Shards are added in their order, while others may still be written. In a `with` block: what is not complete at its
    end is discarded. before: the index files of the dataset that is added to, whose names are taken. seek: with the
    images' seek points. columns: with these further columns. quality: with their quality
    columns.
    """

    def __init__(
        self,
        destination: Destination,
        before: Sequence[IndexEntry] = (),
        *,
        seek: bool = False,
        columns: Types | None = None,
        quality: bool = False,
    ) -> None:
        self._destination, self._first = destination, len(before)
        self._seek, self._columns, self._quality = seek, columns, quality
        self._done: list[tuple[str, int]] = []  # (name, shards) of each complete file
        self._name, self._shards = "", 0
        self._open = ExitStack()
        self._write: Callable[[ShardRows], None] | None = None

    def __enter__(self) -> IndexFiles:
        return self

    def __exit__(self, *error: object) -> None:
        unfinished = RuntimeError("the index is not complete")
        self._open.__exit__(RuntimeError, unfinished, None)  # nothing is open after `end`

    def add(self, shard: ShardEntry, rows: bytes | None = None) -> None:
        """Add the rows of the next shard. rows: as `keep_receipt` writes them (None: they are in the work folder)."""
        data = _kept(self._destination.work, shard.name) if rows is None else rows
        self.add_rows(shard.name, _decoded(shard.name, data))

    def add_rows(self, shard: str, rows: Rows) -> None:
        """Add the rows of the next shard, whose name this is."""
        if self._shards == INDEX_SHARDS:
            self._complete()
        if self._write is None:
            self._write = self._begin()
        self._write(_as_arrays(shard, rows))
        self._shards += 1

    def end(self) -> tuple[IndexEntry, ...]:
        """Complete the files; returns their entries, in order."""
        self._complete()
        found = []
        for name, shards in self._done:
            found.append(IndexEntry(name, shards, *_size_and_crc(os.path.join(self._destination.work, name))))
        return tuple(found)

    def _begin(self) -> Callable[[ShardRows], None]:
        base, work, number = self._destination.base, self._destination.work, self._first + len(self._done)
        if number == 1 and self._first == 0:  # the first has the name of an only one
            name, shards = self._done[0]
            self._done[0] = (index_name(base, 0), shards)
            with translated(work):
                os.replace(os.path.join(work, name), os.path.join(work, self._done[0][0]))
        self._name = index_name(base, number or None)
        file = self._open.enter_context(whole_file(os.path.join(work, self._name)))
        writer = index_writer(file, seek=self._seek, columns=self._columns, quality=self._quality)
        return self._open.enter_context(writer)

    def _complete(self) -> None:
        if self._write is not None:
            self._open.close()
            self._done.append((self._name, self._shards))
            self._write, self._shards = None, 0


def write_index_files(
    destination: Destination,
    shards: Iterable[ShardEntry],
    *,
    seek: bool = False,
    columns: Types | None = None,
    quality: bool = False,
) -> tuple[IndexEntry, ...]:
    """Write the index of these finished shards, as `IndexFiles` does."""
    with IndexFiles(destination, seek=seek, columns=columns, quality=quality) as index:
        for shard in shards:
            index.add(shard)
        return index.end()


def write_index_of_parts(
    destination: Destination,
    shards: Sequence[ShardEntry],
    before: Sequence[IndexEntry],
    *,
    rows: Mapping[str, int],
    seek: bool,
    columns: Types,
    quality: bool,
) -> tuple[IndexEntry, ...]:
    """Write the index of shards whose rows parts left at the destination. The rest as for IndexFiles.

    rows: the CRC-32C of the rows of each shard. Raises StorageError for rows that are missing or damaged.
    """
    with IndexFiles(destination, before, seek=seek, columns=columns, quality=quality) as index:
        for shard, data in zip(shards, destination.rows([entry.name for entry in shards]), strict=True):
            if data is None or crc32c(data) != rows[shard.name]:
                fact = f"the index rows of {shard.name} are missing or damaged"
                raise StorageError(str(destination.shared), fact, "run the part that wrote it again")
            index.add(shard, data)
        return index.end()


def _size_and_crc(path: str) -> tuple[int, str]:
    """(bytes, CRC-32C in hex) of a file, read in pieces: the index of a large dataset takes gigabytes."""
    size = crc = 0
    with translated(path), open(path, "rb") as file:
        while piece := file.read(1 << 20):
            size += len(piece)
            crc = crc32c(piece, crc)
    return size, f"{crc:08x}"


def _kept(work: str, name: str) -> bytes:
    path = rows_path(os.fsencode(work), name)
    with translated(path), open(path, "rb") as file:
        return file.read()


def kept_rows(work: str, name: str) -> bytes | None:
    """The index rows of a shard in the work folder; None if they are not there."""
    with contextlib.suppress(FileNotFoundError), open(rows_path(os.fsencode(work), name), "rb") as file:
        return file.read()
    return None


def _decoded(shard: str, data: bytes) -> Rows:
    try:
        return msgspec.msgpack.decode(data, type=Rows)
    except msgspec.MsgspecError as exc:  # those of a part; what a run itself left has another digest
        fact = f"the index rows can't be read, or are of another version of shardkit ({exc})"
        raise StorageError(shard, fact, "run the part that wrote it again") from exc


def _as_arrays(shard: str, rows: Rows) -> ShardRows:
    numbers = {name: np.frombuffer(rows.numbers[name], np.int64).astype(INTEGERS[name]) for name in COLUMNS}
    columns = decoded_columns(rows.columns, rows.kept) if rows.columns else None
    quality = None if rows.quality is None else np.frombuffer(rows.quality, QUALITY_TYPES)
    return ShardRows(shard, rows.keys, rows.paths, numbers, rows.seek, columns, quality)


def decided_path(destination: Destination) -> str:
    """The path of the manifest in the work folder. Once it exists, the commit is decided."""
    return os.path.join(destination.work, manifest_name(destination.stem))


def decide(destination: Destination, manifest: Manifest, skipped: Sequence[Skipped]) -> None:
    """Decide the commit: from now on, the next run finishes it if this one does not."""
    if skipped:
        with whole_file(os.path.join(destination.work, skipped_name(destination.base))) as file:
            listed = [{"path": item.path, "reason": item.reason} for item in skipped]
            file.write(json.dumps(listed, ensure_ascii=False, indent=1).encode() + b"\n")
    with whole_file(decided_path(destination)) as file:
        file.write(encode_manifest(manifest))
    with translated(destination.work):
        sync_folder(destination.work)


def read_manifest_file(path: str) -> Manifest:
    """The manifest at `path`. FileNotFoundError if there is none; other errors of the disk are translated."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        raise
    except OSError as exc:
        raise storage_error(path, exc) from exc
    return decode_manifest(data, place=fs_text(path))
