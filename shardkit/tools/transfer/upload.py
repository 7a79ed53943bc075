"""Upload a dataset to a bucket: shards first, then the index, the manifest last."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from msgspec.structs import replace

from shardkit.errors import DestinationError, ManifestError, UsageError
from shardkit.events import ProgressFn, no_progress
from shardkit.location import Location, locate
from shardkit.options.fields import checked_by
from shardkit.packing.dest.dataset_files import DatasetFiles, dataset_files_at
from shardkit.packing.dest.disk import disk_destination
from shardkit.packing.dest.in_the_way import require_no_plan
from shardkit.packing.dest.shared import SharedFolder
from shardkit.shards.find.find import resolve
from shardkit.shards.find.shards import find_shards
from shardkit.shards.manifest import decode_manifest
from shardkit.shards.names import datasets_in, is_manifest_name, stem_of_shard, without_versions
from shardkit.storage.patient import open_patient
from shardkit.storage.stores.hub import SCHEME
from shardkit.storage.transfer import TransferCheck
from shardkit.threads import TransferPool, thread_count
from shardkit.tools.export.digests import Digests
from shardkit.tools.export.export import kinds_of
from shardkit.tools.settings import TRANSFERS, ExportKind, UploadSettings
from shardkit.tools.transfer.copy import (
    DatasetCopy,
    TransferProgress,
    Transferred,
    copy_dataset,
    plan_copy,
    require_sizes,
    shards_without_manifest,
)
from shardkit.tools.transfer.exports import Exports
from shardkit.tools.transfer.hub import upload_to_hub

Source = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


@checked_by(UploadSettings)
def upload(
    source: Source,
    dest: str | os.PathLike[str],
    *,
    check: TransferCheck = "store",
    overwrite: bool = False,
    workers: int | None = None,
    export: Sequence[ExportKind] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    progress: ProgressFn = no_progress,
) -> Transferred:
    """Copy a dataset from this machine to a bucket (or another folder), byte for byte.

    source: a prefix, manifest or folder; all datasets of a folder that contains several; or shards without a manifest.
    dest: prefix of the file names, as for `pack`: `s3://bucket/train`; a bucket, an existing folder, or a path ending
    with `/`, keeps the dataset's name. The name must stay the same, since the index names the shards.
    check: "store" compares what arrived with the store's own checksum if it has one (the ETag of S3), and otherwise
    reads it back; "read" always reads it back; "none" does neither. Each local shard is checked against the manifest
    while it is sent, so that a damaged one never arrives.
    overwrite: replace another dataset at `dest`. workers: files in transfer at a time (default: 4).
    export: formats whose files are written beside the dataset, before the manifest, as by `shardkit.export`.
    storage_options: credentials, endpoint etc., which are never written anywhere.

    On `hf://datasets/USER/NAME/` everything is one commit, and the Hub itself checks what arrives, whatever `check` is.

    Files already there with the same size and checksum are not sent again, so that an interrupted upload resumes. The
    manifest goes last: until then there is no dataset at `dest`; with `overwrite` the old one remains until then. If
    both have files of the same names, the new one gets the names of the next generation (`train-g2-000000.tar`). Raises
    UsageError, DatasetError (NotFoundError, DamagedError, ManifestError), DestinationError, BusyError if another run
    writes there, StorageError.
    """
    threads = TRANSFERS if workers is None else thread_count(workers)
    to = locate(dest)
    with TransferPool(threads) as pool:
        copies = _copies(source, pool)
        targets = _targets(copies, to, storage_options)
        for copy in copies:
            require_sizes(copy)
        exports = None
        if export is not None:
            exports = Exports(kinds_of(export), targets[0], Digests(pool, progress), overwrite=overwrite)
            exports.require(copies)
        moving = TransferProgress("upload", copies, progress)
        if to.scheme == SCHEME:
            return upload_to_hub(copies, targets, pool, overwrite=overwrite, exports=exports, options=storage_options,
                                 progress=moving)  # fmt: skip
        before = _nothing if exports is None else exports.sent
        with ExitStack() as stack:
            for target in targets:
                lock_target(stack, target)
            return Transferred(tuple(
                copy_dataset(copy, target, pool, check=check, keep=check, overwrite=overwrite, progress=moving,
                             before_manifest=before)
                for copy, target in zip(copies, targets, strict=True)
            ))  # fmt: skip


def _nothing(_: DatasetCopy) -> None:
    """What is done before the manifest if there is nothing to export."""


def lock_target(stack: ExitStack, place: DatasetFiles) -> None:
    """Hold the lock of a local destination, or the lease of one in a bucket, so that no other run writes there.

    BusyError if one does, DestinationError if parts of a packing wait there for their merge.
    """
    root, shared = place.store.root, SharedFolder(place)
    if root.is_local:
        stack.enter_context(disk_destination(os.path.abspath(root.path), place.stem).locked())
    else:
        stack.enter_context(shared.claimed(None))
    require_no_plan(shared)


def _copies(source: Source, pool: TransferPool) -> list[DatasetCopy]:
    """The datasets that `source` refers to."""
    if isinstance(source, (str, os.PathLike)):
        place = locate(source)
        if not place.is_local:
            cure = "download it first with 'shardkit download'"
            raise UsageError(str(place), "the source of an upload is on this machine", cure)
        stems = _stems(place) if os.path.isdir(place.path) else []
        if stems:
            return [plan_copy(_files_of(place, stem)) for stem in stems]
    found = resolve(source)
    found.require_dataset("pack it straight to the bucket: shardkit pack SOURCE s3://bucket/train")
    if found.numbers is not None:
        fact = "these are only some of the shards that the dataset's manifest names"
        raise UsageError(
            str(found.location), fact, "give the dataset's prefix, or write a smaller dataset with 'shardkit convert'"
        )
    found.require_current("copy all of its versions")
    if found.manifest is not None and found.location is not None:
        return [plan_copy(_files_of(found.location.parent, found.location.name.removesuffix(".json")))]
    return _headless(find_shards(source), pool)


def _files_of(folder: Location, stem: str) -> DatasetFiles:
    return DatasetFiles(open_patient(folder), stem)


def _stems(folder: Location) -> list[str]:
    """The names of the datasets in a folder. ManifestError for a damaged manifest."""
    names = without_versions(os.listdir(folder.path))
    found, with_shards = [], set(datasets_in(names))
    for name in names:
        stem = name.removesuffix(".json")
        if not is_manifest_name(name):
            continue
        try:
            with open(os.path.join(folder.path, name), "rb") as file:
                decode_manifest(file.read(), place=str(folder.child(name)))
        except ManifestError:
            if stem in with_shards:
                raise
            continue  # some other JSON file
        found.append(stem)
    return found


def _headless(shards: Sequence[Location], pool: TransferPool) -> list[DatasetCopy]:
    folders = sorted({shard.parent for shard in shards}, key=str)
    stems = sorted({stem_of_shard(shard.name) for shard in shards})
    if len(folders) > 1 or len(stems) > 1:
        fact = "these shards have no manifest, and are in several folders or have several prefixes"
        raise UsageError(str(shards[0]), fact, "upload each set separately, or run 'shardkit index' first")
    return [shards_without_manifest(_files_of(folders[0], stems[0]), shards, pool)]


def _targets(copies: Sequence[DatasetCopy], to: Location, options: Mapping[str, Any] | None) -> list[DatasetFiles]:
    """The target of each dataset. UsageError if its name would change, DestinationError if it is the source."""
    folder = replace(to, path=to.path.rstrip("/") or "/") if len(copies) > 1 or to.path.endswith("/") else None
    targets = []
    for copy in copies:
        source = copy.source
        at = to if folder is None else folder.child(source.stem)
        place = dataset_files_at(at, source.stem, options=options)
        if place.stem != source.stem:
            fact = f"the dataset is called {source.stem!r}, and its index names its shards"
            cure = f"give {place.location(source.stem)}, or the folder {to}/; 'shardkit convert' gives another name"
            raise UsageError(str(to), fact, cure)
        here, there = source.store.root, place.store.root
        if there.is_local and os.path.realpath(there.path) == os.path.realpath(here.path):
            raise DestinationError(str(to), "the destination is the source", "choose another")
        targets.append(place)
    return targets
