"""A bucket prefix (or any other store) as a source: its objects are listed here, and read by the workers."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Sequence

import msgspec

from shardkit.errors import NotFoundError, SourceError
from shardkit.events import Progress, ProgressFn, no_progress
from shardkit.location import Location
from shardkit.sources import left_out
from shardkit.sources.columns import PathColumn, PathColumnBuilder
from shardkit.sources.listing import FileListing
from shardkit.sources.scratch import Growing
from shardkit.sources.tree.walk import MAX_DEPTH
from shardkit.storage.patient import Patient, open_patient
from shardkit.storage.store import ObjectInfo, StorageOptions
from shardkit.threads import in_threads

LISTINGS = 16
"""Folders that are listed at once, if the store can list a single folder."""

_TELL_OBJECTS = 10_000


class Bucket(msgspec.Struct, frozen=True, eq=False):
    """The objects below a folder of a store. versions: one for each object of the listing."""

    folder: Location
    listing: FileListing
    versions: PathColumn


def read_bucket(folder: Location, options: StorageOptions, progress: ProgressFn = no_progress) -> Bucket:
    """List all objects below `folder`. Raises SourceError if there are none, and the store's errors."""
    folder = Location(folder.scheme, folder.path.rstrip("/"))
    store = open_patient(folder, options)
    try:
        return _list(store, folder, progress)
    except NotFoundError as exc:
        raise SourceError(str(folder), "it does not exist", "check the name of the bucket and the prefix") from exc


class _Found:
    """Collect objects as columns. Thread safe."""

    def __init__(self, progress: ProgressFn) -> None:
        self.names, self.sizes, self.versions = PathColumnBuilder(), Growing("q"), PathColumnBuilder()
        self.folders = list[str]()
        self.left_out: list[tuple[str, str]] = []
        self._progress, self._lock, self._bytes = progress, threading.Lock(), 0

    def add(self, items: Sequence[ObjectInfo]) -> None:
        """Add some objects. A name that ends with a slash stands for an empty folder, as some programs write it."""
        reasons = [_reason(item.name) for item in items]
        plain = [item for item, reason in zip(items, reasons, strict=True) if reason is None]
        with self._lock:
            for item, reason in zip(items, reasons, strict=True):
                if reason is not None and item.name.endswith("/") and _reason(item.name[:-1]) is None:
                    self.folders.append(item.name[:-1])
                elif reason is not None:
                    self.left_out.append((reason, item.name))
            self.names.extend("", [item.name for item in plain])
            self.sizes.extend([item.bytes for item in plain])
            for item in plain:
                self.versions.append((item.version or item.crc32c or "").encode())
            self._bytes += sum(item.bytes for item in plain)
            self._progress(Progress("scan", len(self.names), 0, self._bytes))


def _list(store: Patient, folder: Location, progress: ProgressFn) -> Bucket:
    found = _Found(progress)
    prefixes = _prefixes(store, found)

    def below(prefix: str) -> None:
        objects = store.list(prefix)
        while items := list(itertools.islice(objects, _TELL_OBJECTS)):
            found.add(items)

    for _ in in_threads(below, prefixes, LISTINGS, ahead=len(prefixes), name="shardkit-list"):
        pass
    names, sizes = found.names.build(), found.sizes.build()
    if not len(names):
        raise SourceError(str(folder), "it has no objects", "check the name of the bucket and the prefix")
    listing = FileListing(str(folder), names, sizes, found.folders, sorted(found.left_out))
    return Bucket(folder, listing, found.versions.build())


def _prefixes(store: Patient, found: _Found) -> list[str]:
    """The folders to list separately: those at the top level, and while these are few, their subfolders. Only the root
    if the store can't list folders."""
    folders = [""]
    while len(folders) < LISTINGS:
        below: list[str] = []
        for name in folders:
            there = store.folders(name)
            if there is None:
                return [""]
            names, objects = there
            below += names
            found.add(objects)
        if not below:
            return []
        folders = below
    return [f"{name}/" for name in folders]


def _reason(name: str) -> str | None:
    """Why an object's name, which may be any text, can't be a path below a folder; None if it can."""
    if {"", ".", ".."} & set(name.split("/")) or b"\0" in os.fsencode(name):
        return left_out.NO_PATHS
    return left_out.TOO_DEEP if name.count("/") > MAX_DEPTH else None
