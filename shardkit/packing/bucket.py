"""The source that is a bucket's prefix, or any other store: its objects are listed, and read by the workers."""

from __future__ import annotations

import os
from array import array
from dataclasses import dataclass

import numpy as np

from shardkit.errors import NotFoundError, SourceError
from shardkit.events import Progress, ProgressFn, silent
from shardkit.location import Location
from shardkit.storage.retry import Retry, retried
from shardkit.storage.store import ObjectInfo, StorageOptions, Store, open_store
from shardkit.tree.columns import PathColumnBuilder
from shardkit.tree.listing import Listing

_TELL_OBJECTS = 10_000


@dataclass(frozen=True, slots=True, eq=False)
class Bucket:
    """What is below a store's folder. versions: of each object of the listing."""

    folder: Location
    listing: Listing
    versions: tuple[str, ...]


def read_bucket(folder: Location, options: StorageOptions, progress: ProgressFn = silent) -> Bucket:
    """List all objects below `folder`. SourceError where there are none; what the store raises."""
    folder = Location(folder.scheme, folder.path.rstrip("/"))
    store = open_store(folder, options)
    try:
        return retried(lambda: _listed(store, folder, progress), Retry())
    except NotFoundError as exc:
        raise SourceError(str(folder), "there is nothing", "check the name of the bucket and the prefix") from exc


def _listed(store: Store, folder: Location, progress: ProgressFn) -> Bucket:
    names, sizes, folders, versions = PathColumnBuilder(), array("q"), list[str](), list[str]()
    waiting: list[ObjectInfo] = []
    size = 0

    def add() -> None:
        names.extend("", [item.name for item in waiting])
        sizes.extend([item.bytes for item in waiting])
        versions.extend([item.version or item.crc32c or "" for item in waiting])
        waiting.clear()
        progress(Progress("scan", len(names), 0, size))

    for item in store.list():
        if item.name.endswith("/"):  # what some programs write for an empty folder
            folders.append(item.name.rstrip("/"))
        elif _is_plain(item.name):
            waiting.append(item)
            size += item.bytes
            if len(waiting) == _TELL_OBJECTS:
                add()
    add()
    if not len(names):
        raise SourceError(str(folder), "there is nothing below it", "check the name of the bucket and the prefix")
    column = names.build()
    return Bucket(folder, Listing(str(folder), column, np.frombuffer(sizes, np.int64), folders), tuple(versions))


def _is_plain(name: str) -> bool:
    """Whether a path below a folder can be made of an object's name, which may be any text."""
    return not {"", ".", ".."} & set(name.split("/")) and os.fsencode(name).find(b"\0") < 0
