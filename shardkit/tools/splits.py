"""The datasets or class trees that a folder stands for: one for each split."""

from __future__ import annotations

import os

from shardkit.location import Location, locate
from shardkit.shards.find.find import datasets_of
from shardkit.shards.names import datasets_in
from shardkit.shards.objects import Objects
from shardkit.sources.source import find_splits
from shardkit.storage.access import Remote


def splits_in(source: str, remote: Remote, *, every: bool = False) -> dict[str, str]:
    """Split -> its source, for a folder of several; empty for a dataset, a class tree, or anything else.

    A folder of datasets gives their prefixes (`shards/train`), a tree of splits its folders (`data/train`). every: also
    datasets that have no shards of their own name: merged ones, and indexes of shards elsewhere. Raises StorageError if
    the folder can't be listed.
    """
    place = locate(source)
    if place.is_local and not os.path.isdir(place.path):
        return {}
    folder = Location(place.scheme, place.path.rstrip("/") or "/")
    stems = datasets_of(folder, remote) if every else datasets_in(Objects(remote).names(folder, ""))
    if stems:
        return {stem: str(place.child(stem)) for stem in stems} if len(stems) > 1 else {}
    names = find_splits(place.path) if place.is_local else None
    return {name: os.path.join(source, name) for name in names or ()}
