"""A destination on this machine: finished shards stay in the work folder until the commit moves everything into place.

shards/.train.packing/     the work folder, and replaced.json: the manifest of the dataset that is replaced
shards/train-000000.tar …  moved here by the commit, then train.parquet, train.skipped.json, and train.json last

A dataset that is replaced stays intact until the new manifest replaces its own: the new files have names of another
generation (see shardkit.shards.names).
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

import msgspec
from msgspec.structs import replace

from shardkit.errors import DestinationError, ManifestError, ShardkitError
from shardkit.events import ProgressFn
from shardkit.location import Location
from shardkit.packing.dest.dataset_files import DatasetFiles, continues, sizes_in
from shardkit.packing.dest.destination import Delivery
from shardkit.packing.dest.shared import SharedFolder
from shardkit.packing.dest.work_folder import (
    decide,
    decided_path,
    keep_only,
    kept_rows,
    locked_folder,
    read_manifest_file,
    remove,
)
from shardkit.packing.parts.part import Part
from shardkit.packing.write.receipt import Receipt, Skipped
from shardkit.sample import fs_text
from shardkit.shards.manifest import Manifest, ShardEntry, all_names
from shardkit.shards.names import LOCK, REPLACED, base_of, files_of_stem, manifest_name, skipped_beside, work_name
from shardkit.shards.parquet.sources import is_index
from shardkit.storage.files import FolderLock, sync_folder, translated, whole_file
from shardkit.storage.patient import open_patient
from shardkit.system import POSIX

log = logging.getLogger(__name__)


class DiskDestination(msgspec.Struct, frozen=True):
    """A dataset in a local folder."""

    files: DatasetFiles
    generation: int = 1

    def __str__(self) -> str:
        return fs_text(self.manifest_path)

    @property
    def folder(self) -> str:
        """The folder that the files go to."""
        return self.files.store.root.path

    @property
    def stem(self) -> str:
        """The name of the dataset."""
        return self.files.stem

    @property
    def base(self) -> str:
        """What the names of the shards and index files start with."""
        return base_of(self.stem, self.generation)

    @property
    def work(self) -> str:
        """The folder in which a job writes until its commit."""
        return os.path.join(self.folder, work_name(self.stem))

    @property
    def manifest_path(self) -> str:
        """The path of the manifest."""
        return os.path.join(self.folder, manifest_name(self.stem))

    def in_generation(self, generation: int) -> DiskDestination:
        """The same destination for files of another generation."""
        return replace(self, generation=generation)

    @property
    def shared(self) -> SharedFolder:
        """The folder in which parts leave what the merge needs: the work folder."""
        return SharedFolder(self.files)

    def locked(self, part: Part | None = None) -> AbstractContextManager[FolderLock]:
        """Make and lock the work folder, and finish an interrupted commit."""
        return locked_folder(self.work, self._resume, self.shared, part, wanted=bool(self.shared.planned()))

    def clear(self) -> None:
        """Remove the markers of a download that had written its manifest. DestinationError if a folder is in the
        way."""
        self.files.clear()
        for name in [*self._names(), manifest_name(self.stem)]:
            path = os.path.join(self.folder, name)
            if os.path.isdir(path):
                raise DestinationError(
                    fs_text(path), "a folder already exists at this path", "choose another destination"
                )

    def wrote(self, there: Mapping[str, int]) -> set[str]:
        """None: what a run writes stays in the work folder until its commit."""
        return set()

    def fetch(self, shards: Sequence[str]) -> None:
        """Do nothing: parts leave their receipts in the work folder."""

    def rows(self, shards: Sequence[str]) -> Iterator[bytes | None]:
        """The index rows of shards, from the work folder."""
        return (kept_rows(self.work, name) for name in shards)

    def withdraw(self, names: Collection[str]) -> None:
        """Do nothing: no file is delivered before the commit."""

    def discard(self) -> None:
        """Empty the work folder, unless the commit is decided or files of the replaced dataset remain to be removed:
        the next run finishes that."""
        if not any(map(os.path.exists, (decided_path(self), os.path.join(self.work, REPLACED)))):
            keep_only(self, ())

    def delivery(self, *, part: bool = False) -> AbstractContextManager[Delivery]:
        """Shards wait in the work folder for the commit."""
        return contextlib.nullcontext(_Waiting())

    def commit(self, manifest: Manifest, skipped: Sequence[Skipped]) -> None:
        """Make the shards and index files of the work folder a dataset."""
        self.shared.require_held()
        decide(self, manifest, skipped)
        _move_into_place(self)

    def committed_at(self, manifest: Manifest) -> int | None:
        """When the manifest was written."""
        return os.stat(self.manifest_path).st_mtime_ns

    def _names(self) -> list[str]:
        """Everything in the folder that is named like a file of the dataset, folders included."""
        with translated(self.folder), contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return files_of_stem(os.listdir(self.folder), self.stem)
        return []

    def _resume(self) -> None:
        """Finish the commit that an earlier run decided, and remove what it had yet to remove."""
        if os.path.exists(decided_path(self)):
            _move_into_place(self)
            return
        if os.path.exists(os.path.join(self.work, REPLACED)):
            _sweep(self)
            _empty(self.work)
        _remove_widowed(self.work)


def disk_destination(folder: str, stem: str) -> DiskDestination:
    """The dataset `stem` in a local folder."""
    return DiskDestination(DatasetFiles(open_patient(Location("", folder)), stem))


class _Waiting:
    """The delivery of shards that stay in the work folder until the commit."""

    def holds(self, entry: ShardEntry) -> bool:
        return False

    def deliver(self, receipt: Receipt) -> None:
        pass

    def wait_for_room(self) -> None:
        pass

    def finish(self, progress: ProgressFn) -> None:
        pass


def _remove_widowed(work: str) -> None:
    """Remove the receipts of shards that are no longer in the work folder: a commit moved them, and was then killed."""
    with translated(work):
        there = set(os.listdir(work))
    remove(work, lambda name: name.endswith((".rows", ".receipt")) and name.rpartition(".")[0] not in there)


def _move_into_place(destination: DiskDestination) -> None:
    """Move everything into place, the manifest last; then remove the files of the replaced dataset.

    The new files have other names than the old ones, unless an older shardkit decided the commit: then the old dataset
    is removed before the first file is moved.
    """
    work, folder = destination.work, destination.folder
    manifest = read_manifest_file(decided_path(destination))
    moved = all_names(manifest, destination.stem)
    appended = _continues_what_is_there(destination, manifest)
    if not appended:
        _keep_replaced(destination, moved)
    for name in moved:
        target = os.path.join(folder, name)
        with translated(target), contextlib.suppress(FileNotFoundError):  # moved by an interrupted run
            os.replace(os.path.join(work, name), target)
    destination.files.require_all(sizes_in(manifest), f"remove {fs_text(work)} and pack again with `overwrite=True`")
    with translated(destination.manifest_path):
        sync_folder(folder)
        os.replace(decided_path(destination), destination.manifest_path)
        sync_folder(folder)
    if appended and not manifest.skipped:  # the list of the existing dataset, whose bad files have since been fixed
        with translated(folder), contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(folder, skipped_beside(moved, destination.stem)))
    if not appended:
        _sweep(destination)
    _empty(work)


def _continues_what_is_there(destination: DiskDestination, manifest: Manifest) -> bool:
    """Whether all shards and index files of the existing dataset stay, so that it is intact until the manifest is
    moved."""
    try:
        before = read_manifest_file(destination.manifest_path)
    except (ManifestError, FileNotFoundError):  # no dataset is there
        return False
    return continues(before, manifest)


def _keep_replaced(destination: DiskDestination, moved: Sequence[str]) -> None:
    """Keep a copy of the manifest that is replaced, to know later which files to remove."""
    kept = os.path.join(destination.work, REPLACED)
    with translated(destination.manifest_path):
        try:
            with open(destination.manifest_path, "rb") as file:
                data = file.read()
        except FileNotFoundError:
            return
    with whole_file(kept) as file:
        file.write(data)
    with translated(destination.manifest_path):
        sync_folder(destination.work)
        if not set(moved).isdisjoint(_names_in(kept, destination.stem)):
            os.unlink(destination.manifest_path)
            sync_folder(destination.folder)


def _sweep(destination: DiskDestination) -> None:
    """Remove the files of the replaced dataset, and others that are named like ours."""
    kept = os.path.join(destination.work, REPLACED)
    with translated(destination.folder):
        ours = _names_in(destination.manifest_path, destination.stem)
        if not ours:
            return
        theirs = _names_in(kept, destination.stem)
        unwanted = theirs.union(destination._names()) - ours
        for name in sorted(unwanted - destination.files.named_by_others(unwanted).keys()):
            path = os.path.join(destination.folder, name)
            if name in theirs or not name.endswith(".parquet") or is_index(path):
                _remove_replaced(path)
        if unwanted:
            sync_folder(destination.folder)


def _remove_replaced(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except PermissionError:
        if POSIX:
            raise
        log.warning("%s: another program is reading it; the next overwrite removes it", fs_text(path))


def _empty(work: str) -> None:
    """Empty the work folder. The replaced manifest is removed last: it tells the next run to resume."""
    with contextlib.suppress(ShardkitError):
        remove(work, lambda name: name not in (LOCK, REPLACED))
        remove(work, lambda name: name == REPLACED)


def _names_in(path: str, stem: str) -> set[str]:
    """The names of the files in a manifest; empty if it can't be read."""
    with contextlib.suppress(ManifestError, FileNotFoundError):
        return set(all_names(read_manifest_file(path), stem))
    return set()
