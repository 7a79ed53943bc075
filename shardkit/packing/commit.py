"""The destination of a job, the folder it works in, and the commit that makes its result a dataset.

shards/.train.packing/     lock, and for each finished shard: NAME, NAME.rows, NAME.receipt
shards/train-000000.tar …  moved here by the commit, then train.parquet, train.skipped.json, and train.json last
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import google_crc32c
import msgspec
import numpy as np

from shardkit.errors import DestinationError, StorageError
from shardkit.index import INTEGERS, ShardRows, write_index
from shardkit.manifest import IndexEntry, Manifest, ShardEntry, decode_manifest, encode_manifest
from shardkit.packing.shard import COLUMNS, Receipt, Rows, ShardTask, Skipped, receipt_path, rows_path
from shardkit.sample import fs_text
from shardkit.storage.local import FolderLock, sync_folder, translated, whole_file

INDEX_SHARDS = 1024
"""Row groups in one index file. Its footer, read as a whole, then stays under about 2 MB."""

_STRENGTH = {"none": 0, "header": 1, "full": 2}


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a dataset goes: the file names start with `stem`, in `folder`."""

    folder: str
    stem: str

    @property
    def work(self) -> str:
        """The folder that a job writes in until its commit."""
        return os.path.join(self.folder, f".{self.stem}.packing")

    def path(self, ending: str) -> str:
        """The path of the file that is named after the dataset, with this ending."""
        return os.path.join(self.folder, self.stem + ending)

    @property
    def manifest(self) -> str:
        """The path of the manifest."""
        return self.path(".json")

    def shards(self) -> list[str]:
        """The names of files there that are named as shards of this dataset are."""
        pattern = re.compile(re.escape(self.stem) + r"-\d{6,}\.(tar|tfrecord)")
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return sorted(name for name in os.listdir(self.folder) if pattern.fullmatch(name))
        return []

    def read_manifest(self) -> Manifest | None:
        """The manifest that is there, or None."""
        try:
            with open(self.manifest, "rb") as file:
                data = file.read()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return decode_manifest(data, place=fs_text(self.manifest))


def destination_of(dest: str, source: str) -> Destination:
    """The destination that a user's DEST means: a prefix, or a folder in which the source's own name is the prefix.

    Raises DestinationError where DEST is a file, inside the source, or below a file.
    """
    dest_path = os.path.abspath(dest)
    if os.path.isdir(dest_path) or dest.endswith(("/", os.sep)):
        dest_path = os.path.join(dest_path, os.path.basename(os.path.abspath(source)))
    elif os.path.lexists(dest_path):
        fact = "the destination is a file, and the shards' names start with it"
        raise DestinationError(fs_text(dest), fact, "give a prefix such as shards/train")
    real, root = os.path.realpath(dest_path), os.path.realpath(source)
    if os.path.commonpath([real, root]) == root:
        fact = f"the destination is inside the source {fs_text(source)}"
        raise DestinationError(fs_text(dest), fact, "choose a place outside it")
    folder, stem = os.path.split(dest_path)
    return Destination(folder, stem)


def check_free(destination: Destination, *, overwrite: bool) -> None:
    """Raises DestinationError where shards of somebody else are in the way."""
    if overwrite or os.path.isdir(destination.work) or os.path.exists(destination.manifest):
        return
    shards = destination.shards()
    if shards:
        place = os.path.join(destination.folder, shards[0])
        fact = "a shard is there, without a manifest, that this run did not write"
        raise DestinationError(fs_text(place), fact, "choose another destination, or replace it with --overwrite")


@contextlib.contextmanager
def working(destination: Destination) -> Iterator[FolderLock]:
    """The work folder, made and locked. A commit that was interrupted is finished first; an empty folder is removed."""
    with translated(destination.work):
        os.makedirs(destination.work, exist_ok=True)
    lock = FolderLock(destination.work)
    try:
        if os.path.exists(os.path.join(destination.work, destination.stem + ".json")):
            _move_into_place(destination)  # which removes the folder
            lock.release()
            with translated(destination.work):
                os.makedirs(destination.work, exist_ok=True)
            lock = FolderLock(destination.work)
        _remove_parts(destination.work)
        yield lock
    finally:
        with contextlib.suppress(OSError, StorageError):  # a finished job's folder is gone
            _remove_parts(destination.work)  # of workers that were ended
            if os.listdir(destination.work) == ["lock"]:
                shutil.rmtree(destination.work)
        lock.release()


def _remove_parts(work: str) -> None:
    with translated(work):
        for name in os.listdir(work):
            if name.endswith(".part"):
                os.unlink(os.path.join(work, name))


def kept_receipt(task: ShardTask) -> Receipt | None:
    """The receipt of a shard that an earlier run finished and that this task would write the same, or None."""
    try:
        with open(receipt_path(task.folder, task.name), "rb") as file:
            receipt = msgspec.msgpack.decode(file.read(), type=Receipt)
        size = os.stat(os.path.join(task.folder, os.fsencode(task.name))).st_size
        whole = size == receipt.entry.bytes and os.path.exists(rows_path(task.folder, task.name))
    except (OSError, msgspec.MsgspecError):
        return None
    strict = _STRENGTH[receipt.check] >= _STRENGTH[task.check] and (task.skip_bad or not receipt.skipped)
    return receipt if whole and strict and receipt.digest == task.digest else None


def write_index_files(destination: Destination, shards: Sequence[ShardEntry]) -> tuple[IndexEntry, ...]:
    """The index of the finished shards, in the work folder: a file for each INDEX_SHARDS shards."""
    entries = []
    starts = range(0, len(shards), INDEX_SHARDS)
    for number, first in enumerate(starts):
        name = destination.stem + (".parquet" if len(starts) == 1 else f".{number:05d}.parquet")
        path = os.path.join(destination.work, name)
        run = shards[first : first + INDEX_SHARDS]
        with whole_file(path) as file:
            write_index(file, _rows(destination, run))
        with open(path, "rb") as file:
            data = file.read()
        entries.append(IndexEntry(name, len(run), len(data), f"{google_crc32c.value(data):08x}"))
    return tuple(entries)


def _rows(destination: Destination, shards: Iterable[ShardEntry]) -> Iterator[ShardRows]:
    for entry in shards:
        with open(rows_path(os.fsencode(destination.work), entry.name), "rb") as file:
            rows = msgspec.msgpack.decode(file.read(), type=Rows)
        numbers = {name: np.frombuffer(rows.numbers[name], np.int64).astype(INTEGERS[name]) for name in COLUMNS}
        yield ShardRows(entry.name, rows.keys, rows.paths, numbers)


def commit(destination: Destination, manifest: Manifest, skipped: Sequence[Skipped]) -> None:
    """Make the finished shards of the work folder, with the index that is there, the dataset at the destination.

    From the moment that the manifest is in the work folder the commit is decided: if it is cut short, the next run
    finishes it.
    """
    if skipped:
        with whole_file(os.path.join(destination.work, destination.stem + ".skipped.json")) as file:
            listed = [{"path": item.path, "reason": item.reason} for item in skipped]
            file.write(json.dumps(listed, ensure_ascii=False, indent=1).encode() + b"\n")
    with whole_file(os.path.join(destination.work, destination.stem + ".json")) as file:
        file.write(encode_manifest(manifest))
    with translated(destination.work):
        sync_folder(destination.work)
    _move_into_place(destination)


def _move_into_place(destination: Destination) -> None:
    work, folder = destination.work, destination.folder
    decided = os.path.join(work, destination.stem + ".json")
    with translated(folder):
        with open(decided, "rb") as file:
            manifest = decode_manifest(file.read(), place=fs_text(decided))
        names = [*(entry.name for entry in manifest.shards), *(entry.name for entry in manifest.index)]
        others = [destination.stem + ".skipped.json"] if manifest.skipped else []
        with contextlib.suppress(FileNotFoundError):
            os.unlink(destination.manifest)  # the old dataset ends here, before its first shard is replaced
        for name in _stale(destination, {*names, *others}):
            os.unlink(os.path.join(folder, name))
        for name in (*names, *others):
            with contextlib.suppress(FileNotFoundError):  # moved by a run that was cut short
                os.replace(os.path.join(work, name), os.path.join(folder, name))
        sync_folder(folder)
        os.replace(decided, destination.manifest)
        sync_folder(folder)
        shutil.rmtree(work)


def _stale(destination: Destination, wanted: set[str]) -> list[str]:
    """The files of an older dataset of the same name that the new one does not replace."""
    stem = re.escape(destination.stem)
    ours = re.compile(rf"{stem}(-\d{{6,}}\.(tar|tfrecord)|(\.\d{{5}})?\.parquet|\.skipped\.json)")
    return [name for name in sorted(os.listdir(destination.folder)) if ours.fullmatch(name) and name not in wanted]
