"""The folder that a job works in, and the commit that makes its result a dataset.

shards/.train.packing/     lock, and for each finished shard: NAME, NAME.rows, NAME.receipt
shards/train-000000.tar …  moved here by the commit, then train.parquet, train.skipped.json, and train.json last

The commit is decided from the moment that train.json is in the work folder. Cut short after it, it is finished by the
next run; every step may be repeated. A dataset that is replaced stays whole until the new manifest takes the place of
its own: the new files have the names of another generation (see shardkit.names).
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec
import numpy as np

from shardkit.checksums import crc32c
from shardkit.errors import ManifestError, ShardkitError, StorageError
from shardkit.packing.dest.bucket import commit_there, remove_there
from shardkit.packing.dest.destination import Destination, destination_of, files_of
from shardkit.packing.write.shard import COLUMNS, Rows, Skipped, rows_path
from shardkit.sample import fs_text
from shardkit.shards.index import INTEGERS, ShardRows, write_index
from shardkit.shards.index_file import is_index
from shardkit.shards.manifest import IndexEntry, Manifest, ShardEntry, all_names, decode_manifest, encode_manifest
from shardkit.shards.names import LOCK, REPLACED, index_name, skipped_beside, skipped_name
from shardkit.storage.files import FolderLock, size_of, storage_error, sync_folder, translated, whole_file
from shardkit.storage.parts import PART, remove_abandoned

__all__ = [
    "INDEX_SHARDS",
    "Destination",
    "commit",
    "destination_of",
    "discard",
    "keep_only",
    "working",
    "write_index_files",
]

INDEX_SHARDS = 1024
"""Row groups in one index file. Its footer, read as a whole, then stays under about 2 MB."""


@contextlib.contextmanager
def working(destination: Destination) -> Iterator[FolderLock]:
    """The work folder, made and locked; it is removed at the end if nothing is left to go on from.

    A commit that was interrupted is finished first. Raises BusyError where another run works there.
    """
    made = _missing_folders(destination.folder)
    lock = FolderLock(destination.work)
    try:
        remove_abandoned(destination.folder)
        _go_on(destination)
        yield lock
    finally:
        try:
            _tidy(destination.work, made)
        finally:
            lock.release()


def _tidy(work: str, made: Sequence[str]) -> None:
    """Remove what workers that were ended left half-written; and the folder, if nothing but its lock is in it."""
    with contextlib.suppress(OSError, ShardkitError):
        _remove(work, lambda name: name.endswith(PART))
        if os.listdir(work) == [LOCK]:
            os.unlink(os.path.join(work, LOCK))
            for folder in (work, *made):
                os.rmdir(folder)


def _missing_folders(folder: str) -> list[str]:
    """The folders that are to be made for `folder`, itself first."""
    missing = []
    while not os.path.lexists(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    return missing


def keep_only(destination: Destination, shards: Iterable[str]) -> None:
    """Remove from the work folder what an earlier run left there for another plan: it would take up the disk."""
    wanted = {LOCK, *(name + ending for name in shards for ending in ("", ".rows", ".receipt"))}
    if destination.place is not None and len(wanted) > 1:
        remove_there(destination, destination.place, lambda name: name not in wanted)
    _remove(destination.work, lambda name: name not in wanted)


def discard(destination: Destination) -> None:
    """Empty the work folder after an error, unless the commit is decided, or the files of what it replaced are still to
    be removed: the next run finishes that."""
    if not any(map(os.path.exists, (destination.decided, os.path.join(destination.work, REPLACED)))):
        keep_only(destination, ())


def _remove(work: str, unwanted: Callable[[str], bool]) -> None:
    with translated(work):
        for name in os.listdir(work):
            if unwanted(name):
                os.unlink(os.path.join(work, name))


def write_index_files(
    destination: Destination, shards: Sequence[ShardEntry], before: Sequence[IndexEntry] = ()
) -> tuple[IndexEntry, ...]:
    """The index of the finished shards, in the work folder: a file for each INDEX_SHARDS shards.

    before: the index files of the dataset that these are added to, whose names are taken.
    """
    entries = []
    starts = range(0, len(shards), INDEX_SHARDS)
    for number, first in enumerate(starts, len(before)):
        name = index_name(destination.base, None if len(starts) == 1 and not before else number)
        path = os.path.join(destination.work, name)
        run = shards[first : first + INDEX_SHARDS]
        with whole_file(path) as file:
            write_index(file, _rows(destination, run))
        entries.append(IndexEntry(name, len(run), *_size_and_crc(path)))
    return tuple(entries)


def _size_and_crc(path: str) -> tuple[int, str]:
    """(bytes, CRC-32C in hex) of a file, read in pieces: the index of a large dataset has gigabytes."""
    size = crc = 0
    with translated(path), open(path, "rb") as file:
        while piece := file.read(1 << 20):
            size += len(piece)
            crc = crc32c(piece, crc)
    return size, f"{crc:08x}"


def _rows(destination: Destination, shards: Iterable[ShardEntry]) -> Iterator[ShardRows]:
    for entry in shards:
        path = rows_path(os.fsencode(destination.work), entry.name)
        with translated(path), open(path, "rb") as file:
            rows = msgspec.msgpack.decode(file.read(), type=Rows)
        numbers = {name: np.frombuffer(rows.numbers[name], np.int64).astype(INTEGERS[name]) for name in COLUMNS}
        yield ShardRows(entry.name, rows.keys, rows.paths, numbers)


def commit(destination: Destination, manifest: Manifest, skipped: Sequence[Skipped]) -> None:
    """Make the finished shards of the work folder, with the index that is there, the dataset at the destination."""
    if skipped:
        with whole_file(os.path.join(destination.work, skipped_name(destination.base))) as file:
            listed = [{"path": item.path, "reason": item.reason} for item in skipped]
            file.write(json.dumps(listed, ensure_ascii=False, indent=1).encode() + b"\n")
    with whole_file(destination.decided) as file:
        file.write(encode_manifest(manifest))
    with translated(destination.work):
        sync_folder(destination.work)
    _finish(destination)


def _finish(destination: Destination) -> None:
    """Go on with a commit that is decided, to its end."""
    if destination.place is None:
        _move_into_place(destination)
        return
    commit_there(destination, destination.place, _read(destination.decided))
    _remove(destination.work, lambda name: name != LOCK)


def _go_on(destination: Destination) -> None:
    """Finish what an earlier run has decided, and remove what it had to remove."""
    if not os.path.exists(destination.decided):
        if destination.place is None:
            if os.path.exists(os.path.join(destination.work, REPLACED)):
                _sweep(destination)
                _clear(destination.work)
            _remove_widowed(destination.work)
        return
    if destination.place is not None:
        there = destination.place.files()
        if any(there.get(entry.name) != entry.bytes for entry in _read(destination.decided).shards):
            os.unlink(destination.decided)  # its shards are gone from the bucket: they are to be sent again
            return
    _finish(destination)


def _remove_widowed(work: str) -> None:
    """Remove what tells of shards that are no longer in the work folder: a commit moved them, and was then killed."""
    with translated(work):
        there = set(os.listdir(work))
    _remove(work, lambda name: name.endswith((".rows", ".receipt")) and name.rpartition(".")[0] not in there)


def _move_into_place(destination: Destination) -> None:
    """Move all to its place, the manifest last; then remove what the replaced dataset had.

    The new files have other names than the old ones, unless an older shardkit decided it: then the old dataset ends
    before the first file is moved.
    """
    work, folder = destination.work, destination.folder
    manifest = _read(destination.decided)
    moved = all_names(manifest, destination.stem)
    appended = _goes_on_from_what_is_there(destination, manifest)
    if not appended:
        _keep_replaced(destination, moved)
    for name in moved:
        target = os.path.join(folder, name)
        with translated(target), contextlib.suppress(FileNotFoundError):  # moved by a run that was cut short
            os.replace(os.path.join(work, name), target)
    _demand_all(destination, manifest)
    with translated(destination.manifest):
        sync_folder(folder)
        os.replace(destination.decided, destination.manifest)
        sync_folder(folder)
    if appended and not manifest.skipped:  # the list of a dataset that was added to, whose bad files are repaired
        with translated(folder), contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(folder, skipped_beside(moved, destination.stem)))
    if not appended:
        _sweep(destination)
    _clear(work)


def _goes_on_from_what_is_there(destination: Destination, manifest: Manifest) -> bool:
    """Whether all shards and index files of the dataset that is there stay: it is whole until the manifest is moved."""
    try:
        before = _read(destination.manifest)
    except (ManifestError, FileNotFoundError):  # no dataset is there
        return False
    shards, index = manifest.shards[: len(before.shards)], manifest.index[: len(before.index)]
    return "appended" in manifest.options and before.shards == shards and before.index == index


def _keep_replaced(destination: Destination, moved: Sequence[str]) -> None:
    """Keep a copy of the manifest that is replaced, to tell later which files are to be removed."""
    kept = os.path.join(destination.work, REPLACED)
    with translated(destination.manifest):
        try:
            with open(destination.manifest, "rb") as file:
                data = file.read()
        except FileNotFoundError:
            return
    with whole_file(kept) as file:
        file.write(data)
    with translated(destination.manifest):
        sync_folder(destination.work)
        if not set(moved).isdisjoint(_names_in(kept, destination)):
            os.unlink(destination.manifest)
            sync_folder(destination.folder)


def _sweep(destination: Destination) -> None:
    """Remove the files of the dataset that was replaced, and others of our names."""
    kept = os.path.join(destination.work, REPLACED)
    with translated(destination.folder):
        ours = _names_in(destination.manifest, destination)
        if not ours:
            return
        theirs = _names_in(kept, destination)
        for name in sorted(theirs.union(destination.files()) - ours):
            path = os.path.join(destination.folder, name)
            if name in theirs or not name.endswith(".parquet") or is_index(path):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
        sync_folder(destination.folder)


def _clear(work: str) -> None:
    """Empty the work folder: what is left is of no use. The manifest that was replaced tells the next run to go on."""
    with contextlib.suppress(ShardkitError):
        _remove(work, lambda name: name not in (LOCK, REPLACED))
        _remove(work, lambda name: name == REPLACED)


def _names_in(path: str, destination: Destination) -> set[str]:
    """The names of the files of a manifest; none where it can't be read."""
    with contextlib.suppress(ManifestError, FileNotFoundError):
        return set(all_names(_read(path), destination.stem))
    return set()


def _read(path: str) -> Manifest:
    """The manifest at `path`. FileNotFoundError where there is none; what else the disk fails in is translated."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        raise
    except OSError as exc:
        raise storage_error(path, exc) from exc
    return decode_manifest(data, place=fs_text(path))


def _demand_all(destination: Destination, manifest: Manifest) -> None:
    """StorageError unless everything that the manifest names is in its place."""
    for name, size in files_of(manifest):
        path = os.path.join(destination.folder, name)
        if size_of(path) != size:
            fact = f"it was written with {size} bytes, and is missing or has another size since"
            cure = f"remove {fs_text(destination.work)} and pack again with `overwrite=True`"
            raise StorageError(fs_text(path), fact, cure)
