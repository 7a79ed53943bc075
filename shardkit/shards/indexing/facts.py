"""What stores say of many shards: sizes and versions, by a listing where that is cheaper than asking for each."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from itertools import islice

from shardkit.errors import ShardkitError
from shardkit.location import Location
from shardkit.shards.buffers import ShardFile, require_size, require_version
from shardkit.shards.objects import Objects, has_lists
from shardkit.storage.store import ObjectInfo
from shardkit.threads import in_threads

log = logging.getLogger(__name__)

ASKED = 64
"""Questions to a store at a time."""

FEW = 8
"""So many shards are asked for one by one."""

LISTED_SHARE = 4
"""A listing ends after so many times as many names as there are shards: the folder may hold far more."""


def facts_of(shards: Sequence[Location], objects: Objects) -> list[ObjectInfo]:
    """Size and version of each of some shards of one folder. NotFoundError, StorageError."""
    store, folder = objects.patient(shards[0].parent), shards[0].parent
    first = store.info(shards[0].name)
    known = {first.name: first}
    if len(shards) > FEW and not folder.is_local and has_lists(folder):
        listed = _listed(shards, objects)
        if listed.get(first.name) == first:  # else the listing has other versions
            known |= listed

    def fact(shard: Location) -> ObjectInfo:
        return known.get(shard.name) or store.info(shard.name)

    return list(in_threads(fact, shards, ASKED if len(known) < len(shards) else 1))


def require_unchanged(files: Sequence[ShardFile], objects: Objects) -> None:
    """NotFoundError for a shard of a store that is gone, ManifestError for one that was replaced since it was packed or
    indexed, as far as size and version tell. files: all in one folder."""
    for file, info in zip(files, facts_of([file.location for file in files], objects), strict=True):
        require_size(file, info.bytes)
        require_version(file, info.version)


def tell_unversioned(shards: Sequence[Location], infos: Sequence[ObjectInfo]) -> None:
    """Say once of all shards that changes go unnoticed where the store does not say when or how one was written."""
    without = [shard for shard, info in zip(shards, infos, strict=True) if info.version is None]
    if without:
        what = f"{len(without):,} shards" if len(without) > 1 else without[0].name
        log.warning(
            "%s: the server gives neither ETag nor Last-Modified for %s: that one was replaced by another of the same "
            "size can't be noticed", shards[0].parent, what,
        )  # fmt: skip


def _listed(shards: Sequence[Location], objects: Objects) -> dict[str, ObjectInfo]:
    names = [shard.name for shard in shards]
    low, high = min(names), max(names)
    prefix = low[: next((n for n, pair in enumerate(zip(low, high, strict=False)) if pair[0] != pair[1]), len(low))]
    found: dict[str, ObjectInfo] = {}
    try:
        listing: Iterator[ObjectInfo] = objects.patient(shards[0].parent).list(prefix)
        for info in islice(listing, LISTED_SHARE * len(names)):
            found[info.name] = info
    except ShardkitError:  # it may be allowed to read, and not to list
        return {}
    return found
