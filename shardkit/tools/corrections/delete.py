"""`shardkit delete`: leave samples out of a dataset, without a change of their shards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from shardkit.errors import SourceError
from shardkit.options.fields import checked_by
from shardkit.shards.corrections.block import VersionEntry
from shardkit.shards.corrections.overlay import Overlay
from shardkit.shards.find.shards import SourceLike
from shardkit.shards.manifest import ClassEntry
from shardkit.tools.corrections.commit import Change, Corrected, correct
from shardkit.tools.corrections.lists import By, CorrectionList, NamedList, read_names
from shardkit.tools.corrections.place import Base, CorrectedPlace, place_of
from shardkit.tools.corrections.purge import purge as purge_samples
from shardkit.tools.corrections.rows import NamedRows, faults_of, find_rows, targets_of, twice_in
from shardkit.tools.settings import DeleteSettings


@checked_by(DeleteSettings)
def delete(
    source: SourceLike,
    keys: CorrectionList,
    *,
    by: By | None = None,
    purge: bool = False,
    message: str = "",
    storage_options: Mapping[str, Any] | None = None,
) -> Corrected:
    """Leave some samples out of a dataset: a new version of it, with the same shards.

    source, by, message, storage_options: as for `relabel`. keys: a list of keys (of paths, with by="path"), or a file
    or table with a column `key` or `path`.

    The samples stay in the shards and in older versions, and other readers of the shards see them, until `convert`
    writes new shards. purge: instead, rewrite the shards that hold them, and remove all older versions, so that no byte
    of them is left where the dataset is; samples that are deleted already may be named too. Copies, caches, and a
    bucket that keeps versions of its objects still have them.

    Returns the new version. Raises SourceError with all that is wrong with the list (an unknown key, one that occurs
    twice, a sample that is deleted already), BusyError if another run corrects the same samples, DestinationError,
    DatasetError, StorageError. Nothing is written then.
    """
    place = place_of(source, storage_options)
    wanted = read_names(keys, by)
    if purge:
        return _purge(place, wanted, message)
    return correct(place, lambda base: _change(base, wanted, message))


def _purge(place: CorrectedPlace, wanted: NamedList, message: str) -> Corrected:
    with place.locked():
        base = place.current()
        names = list(dict.fromkeys(wanted.names))
        found = find_rows(base, wanted.by, names)
        present = found.pick(~found.gone)
        faults = twice_in(wanted.names, wanted.by) + faults_of(found, names, wanted.by, deleted=True)
        _raise_faults(faults, wanted)
        manifest, written = purge_samples(place, base, np.sort(found.places), _classes(base, present), message)
    return Corrected(str(base.place), manifest.number, "purge", len(names), 0, written, manifest)


def _raise_faults(faults: list[str], wanted: NamedList) -> None:
    if faults:
        raise SourceError(wanted.place, "; ".join(faults), "fix the list")


def _change(base: Base, wanted: NamedList, message: str) -> Change:
    names = list(dict.fromkeys(wanted.names))
    found = find_rows(base, wanted.by, names)
    faults = twice_in(wanted.names, wanted.by) + faults_of(found, names, wanted.by)
    _raise_faults(faults, wanted)
    order = np.argsort(found.places)
    places, keys = found.places[order], found.keys[order]
    count = len(places)
    overlay = Overlay(
        places, np.ones(count, np.bool_), np.full(count, -1, np.int64), np.full(count, None, object), keys
    )
    entry = VersionEntry(version=0, kind="delete", samples=0, deleted=count, message=message)
    return Change(overlay, entry, _classes(base, found))


def _classes(base: Base, found: NamedRows) -> tuple[ClassEntry, ...]:
    """The classes with the counts that are left."""
    counts = np.array([entry.count for entry in base.manifest.classes], np.int64)
    if base.manifest.labels == "multi":
        for target in targets_of(base, found.places):
            np.subtract.at(counts, msgspec.json.decode(target) if target is not None else [], 1)
    else:
        np.subtract.at(counts, found.labels[found.labels >= 0], 1)
    return tuple(ClassEntry(entry.name, int(count)) for entry, count in zip(base.manifest.classes, counts, strict=True))
