"""Download a dataset from a bucket: shards first, the manifest last; each file complete and checked, or absent."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from shardkit.errors import ManifestError, NotFoundError, UsageError
from shardkit.events import ProgressFn, no_progress
from shardkit.location import Location, locate
from shardkit.options.fields import checked_by
from shardkit.packing.dest.dataset_files import DatasetFiles, dataset_files_at
from shardkit.shards.names import datasets_in, is_manifest_name, without_versions
from shardkit.storage.patient import open_patient
from shardkit.storage.store import StorageOptions
from shardkit.threads import TransferPool, thread_count
from shardkit.tools.settings import TRANSFERS, DownloadSettings
from shardkit.tools.transfer.copy import DatasetCopy, TransferProgress, Transferred, copy_dataset, plan_copy
from shardkit.tools.transfer.upload import lock_target


@checked_by(DownloadSettings)
def download(
    source: str | os.PathLike[str],
    dest: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    workers: int | None = None,
    storage_options: Mapping[str, Any] | None = None,
    progress: ProgressFn = no_progress,
) -> Transferred:
    """Copy a dataset from a bucket or web server to this machine, byte for byte.

    source: its prefix (`s3://bucket/train`) or manifest; a folder, ending with `/`, means all datasets in it.
    dest: prefix of the file names; an existing folder, or a path ending with `/`, keeps the dataset's name.
    overwrite: replace another dataset at `dest`. workers: files in transfer at a time (default: 4), each in several
    ranges.
    storage_options: credentials, endpoint etc., which are never written anywhere.

    Each file is checked against the CRC-32C in the manifest during the transfer, and appears when it is complete. Files
    already there with the same size and CRC-32C are kept, so that an interrupted download resumes. The manifest comes
    last. Raises UsageError, DatasetError (NotFoundError, DamagedError, ManifestError), DestinationError, BusyError,
    StorageError.
    """
    threads = TRANSFERS if workers is None else thread_count(workers)
    to = locate(dest)
    if not to.is_local:
        raise UsageError(str(to), "the destination of a download is on this machine", "give a path")
    with TransferPool(threads) as pool:
        copies = _copies(locate(source), storage_options)
        targets = [_target(copy, to, several=len(copies) > 1) for copy in copies]
        moving = TransferProgress("download", copies, progress)
        with ExitStack() as stack:
            for target in targets:
                lock_target(stack, target)
            return Transferred(tuple(
                copy_dataset(copy, target, pool, check="none", keep="store", overwrite=overwrite, progress=moving)
                for copy, target in zip(copies, targets, strict=True)
            ))  # fmt: skip


def _target(copy: DatasetCopy, to: Location, *, several: bool) -> DatasetFiles:
    stem = copy.source.stem
    place = DatasetFiles(open_patient(to), stem) if several or to.path.endswith("/") else dataset_files_at(to, stem)
    if place.stem != stem:
        fact = f"the dataset is called {stem!r}, and its index names its shards"
        raise UsageError(str(to), fact, f"give {place.location(stem)}, or the folder {to}/")
    return place


def _copies(source: Location, options: StorageOptions | None) -> Sequence[DatasetCopy]:
    """The datasets that `source` refers to. NotFoundError if there are none."""
    if source.is_local:
        raise UsageError(
            str(source), "the source is already on this machine", "copy it with 'shardkit upload SRC FOLDER/'"
        )
    name = source.name.removesuffix(".json")
    if set(name) & set("*?{["):
        raise UsageError(str(source), "the source is a pattern", "give the dataset's prefix, such as s3://bucket/train")
    if name and "/" in source.path:
        place = DatasetFiles(open_patient(source.parent, options), name)
        try:
            return [plan_copy(place)]
        except NotFoundError:
            if source.scheme in ("http", "https"):  # which can't be listed
                raise
    copies = _of_folder(source, options)
    if not copies:
        fact = "there is no dataset: there is neither a manifest of this name nor one in a folder of this name"
        raise NotFoundError(str(source), fact, "check the name; shards without a manifest need 'shardkit index'")
    return copies


def _of_folder(folder: Location, options: StorageOptions | None) -> list[DatasetCopy]:
    store = open_patient(Location(folder.scheme, folder.path.rstrip("/")), options)
    names = {info.name for info in store.list() if "/" not in info.name}
    found, with_shards = [], set(datasets_in(names))
    for name in without_versions(names):
        stem = name.removesuffix(".json")
        if is_manifest_name(name):
            try:
                found.append(plan_copy(DatasetFiles(store, stem)))
            except ManifestError:
                if stem in with_shards:
                    raise
    return found
