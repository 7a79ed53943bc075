"""The destinations for a user's DEST."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from shardkit.errors import DestinationError, UsageError
from shardkit.location import Location
from shardkit.packing.dest.dataset_files import DatasetFiles, dataset_files_at, require_stem
from shardkit.packing.dest.destination import Destination
from shardkit.packing.dest.disk import DiskDestination, disk_destination
from shardkit.sample import fs_text
from shardkit.shards.names import manifest_name
from shardkit.storage.patient import open_patient

_log = logging.getLogger(__name__)


def destinations_of(
    dest: Location,
    source: str,
    parts: Sequence[str] | None,
    *,
    work: str | os.PathLike[str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Mapping[str, Destination]:
    """The destination of each split ("" if there are none). dest: a path, or the URL of a bucket.

    work: the folder for shards that await upload. Raises DestinationError, UsageError, and what the store raises.
    """
    if dest.is_local:
        if work is not None or options:
            name = "storage_options" if options else "work"
            raise UsageError(name, f"given for {dest}, which is on this machine", "omit it")
        return (
            {"": destination_of(dest.path, source)} if parts is None else _split_destinations(dest.path, source, parts)
        )
    from shardkit.packing.dest.bucket import bucket_destination

    if parts is None:
        files = dataset_files_at(dest, os.path.basename(os.path.abspath(source)), options=options)
        return {"": bucket_destination(files, work, options)}
    for part in parts:
        require_stem(part, dest)
    store = open_patient(Location(dest.scheme, dest.path.rstrip("/")), options)
    return {part: bucket_destination(DatasetFiles(store, part), work, options) for part in parts}


def destination_of(dest: str, source: str) -> DiskDestination:
    """The destination for a path: a prefix, or a folder in which the source's own name is the prefix.

    Raises DestinationError if DEST is a file, is inside the source, or has a name that a manifest can't hold.
    """
    path = os.path.abspath(dest)
    if os.path.isdir(path) or dest.endswith(("/", os.sep)):
        _warn_of_dataset(dest)
        path = os.path.join(path, os.path.basename(os.path.abspath(source)))
    elif os.path.lexists(path):
        fact = "the destination is a file, and the shards' names start with it"
        raise DestinationError(fs_text(dest), fact, "give a prefix such as shards/train")
    return _checked(*os.path.split(path), dest, source)


def _split_destinations(dest: str, source: str, splits: Sequence[str]) -> dict[str, DiskDestination]:
    """The destination of each split, named after it in the folder DEST. Raises like `destination_of`."""
    path = os.path.abspath(dest)
    if os.path.lexists(path) and not os.path.isdir(path):
        raise DestinationError(fs_text(dest), "the destination is a file", "give a folder for the splits")
    _warn_of_dataset(dest)
    return {split: _checked(path, split, dest, source) for split in splits}


def _warn_of_dataset(dest: str) -> None:
    """Warn if DEST, which is a folder, also names a dataset: readers of that name get the dataset."""
    manifest = manifest_name(dest)
    if not dest.endswith(("/", os.sep)) and os.path.isfile(manifest):
        folder, other = fs_text(os.path.join(dest, "")), fs_text(manifest)
        _log.warning("%s: written into this folder; the dataset %s beside it stays, and is what readers of %s get",
                     folder, other, fs_text(dest))  # fmt: skip


def _checked(folder: str, stem: str, dest: str, source: str) -> DiskDestination:
    destination = disk_destination(folder, stem)
    root = os.path.realpath(source)
    if os.path.commonpath([os.path.realpath(destination.manifest_path), root]) == root:
        fact = f"the destination is inside the source {fs_text(source)}"
        raise DestinationError(fs_text(dest), fact, "choose a place outside it")
    if not stem or "\\" in stem or any("\udc80" <= c <= "\udcff" for c in stem):
        fact = f"{fs_text(stem)!r} can't be the beginning of the shards' names: they must be UTF-8, without a backslash"
        raise DestinationError(fs_text(dest), fact, "choose another name")
    return destination
