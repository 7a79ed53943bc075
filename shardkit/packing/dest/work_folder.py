"""The folder in which a job works until its commit.

.train.packing/    lock, and for each finished shard NAME, NAME.rows, NAME.receipt; then index files, and train.json

The commit is decided once train.json is in the work folder. If it is interrupted after that, the next run finishes it;
every step may be repeated.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec
import numpy as np

from shardkit.checksums import crc32c
from shardkit.errors import ShardkitError
from shardkit.packing.dest.destination import Destination
from shardkit.packing.write.receipt import COLUMNS, Rows, Skipped, rows_path
from shardkit.sample import fs_text
from shardkit.shards.index import INTEGERS, ShardRows, write_index
from shardkit.shards.manifest import IndexEntry, Manifest, ShardEntry, decode_manifest, encode_manifest
from shardkit.shards.names import LOCK, index_name, manifest_name, skipped_name
from shardkit.storage.files import FolderLock, storage_error, sync_folder, translated, whole_file
from shardkit.storage.parts import PART, remove_abandoned
from shardkit.system import POSIX

INDEX_SHARDS = 1024
"""Row groups in one index file. Its footer, read as a whole, then stays under about 2 MB."""


@contextlib.contextmanager
def locked_folder(work: str, resume: Callable[[], None]) -> Iterator[FolderLock]:
    """Make and lock the work folder; at the end it is removed if nothing is left to resume from.

    resume: called first, to finish an interrupted commit. Raises BusyError if another run holds the lock.
    """
    parent = os.path.dirname(work)
    made = _missing_folders(parent)
    lock = FolderLock(work)
    try:
        remove_abandoned(parent)
        resume()
        yield lock
    finally:
        try:
            _tidy(work, made)
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
    """Remove what an earlier run wrote for another plan, from the work folder and from the destination.

    shards: the names of those to keep.
    """
    wanted = {LOCK, *(name + ending for name in shards for ending in ("", ".rows", ".receipt"))}
    with translated(destination.work):
        unwanted = {name for name in os.listdir(destination.work) if name not in wanted}
    destination.withdraw({name.removesuffix(".receipt") for name in unwanted})
    remove(destination.work, lambda name: name not in wanted)


def write_index_files(
    destination: Destination,
    shards: Sequence[ShardEntry],
    before: Sequence[IndexEntry] = (),
    *,
    seek: bool = False,
) -> tuple[IndexEntry, ...]:
    """Write the index of the finished shards to the work folder: a file for each INDEX_SHARDS shards.

    before: the index files of the dataset that is added to, whose names are taken. seek: with the images' seek points.
    """
    entries = []
    starts = range(0, len(shards), INDEX_SHARDS)
    for number, first in enumerate(starts, len(before)):
        name = index_name(destination.base, None if len(starts) == 1 and not before else number)
        path = os.path.join(destination.work, name)
        run = shards[first : first + INDEX_SHARDS]
        with whole_file(path) as file:
            write_index(file, _rows(destination.work, run), seek=seek)
        entries.append(IndexEntry(name, len(run), *_size_and_crc(path)))
    return tuple(entries)


def _size_and_crc(path: str) -> tuple[int, str]:
    """(bytes, CRC-32C in hex) of a file, read in pieces: the index of a large dataset takes gigabytes."""
    size = crc = 0
    with translated(path), open(path, "rb") as file:
        while piece := file.read(1 << 20):
            size += len(piece)
            crc = crc32c(piece, crc)
    return size, f"{crc:08x}"


def _rows(work: str, shards: Iterable[ShardEntry]) -> Iterator[ShardRows]:
    for entry in shards:
        path = rows_path(os.fsencode(work), entry.name)
        with translated(path), open(path, "rb") as file:
            rows = msgspec.msgpack.decode(file.read(), type=Rows)
        numbers = {name: np.frombuffer(rows.numbers[name], np.int64).astype(INTEGERS[name]) for name in COLUMNS}
        yield ShardRows(entry.name, rows.keys, rows.paths, numbers, rows.seek)


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
