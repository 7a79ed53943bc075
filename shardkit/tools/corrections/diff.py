"""`shardkit diff`: what differs between two versions of a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shardkit.errors import UsageError
from shardkit.options.fields import checked_by
from shardkit.shards.corrections.overlay import Overlay, no_corrections
from shardkit.shards.corrections.read import corrected_index_files, read_overlay
from shardkit.shards.find.shards import SourceLike
from shardkit.shards.manifest import Manifest
from shardkit.shards.objects import Objects
from shardkit.storage.access import Remote
from shardkit.threads import cached_property
from shardkit.tools.corrections.commit import different
from shardkit.tools.corrections.place import find_dataset
from shardkit.tools.settings import DiffSettings
from shardkit.units import short_repr

if TYPE_CHECKING:
    import pyarrow as pa

    from shardkit.location import Location

CHANGES = ("deleted", "restored", "relabelled")
"""What may have happened to a sample that both versions have in their shards."""


@dataclass(frozen=True)
class Difference:
    """What differs between two versions of a dataset.

    before, after: their numbers. deleted, restored, relabelled: how many samples are only in the first, only in the
    second, and in both with different labels. added, removed: samples of shards that only the second or the first has.
    classes: the names of new classes.
    """

    before: int
    after: int
    deleted: int
    restored: int
    relabelled: int
    added: int
    removed: int
    classes: tuple[str, ...]
    _rows: Any = field(repr=False, compare=False)

    __repr__ = short_repr

    @cached_property
    def table(self) -> pa.Table:
        """The samples that were deleted, restored or relabelled, in the order of the shards: `key`, `change`, and the
        labels `before` and `after` (class names, numbers or lists as JSON; null where there is none)."""
        found: pa.Table = self._rows()
        return found

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return not (self.deleted or self.restored or self.relabelled or self.added or self.removed or self.classes)


@dataclass(frozen=True)
class _Version:
    manifest: Manifest
    place: Location
    overlay: Overlay


@checked_by(DiffSettings)
def diff(a: SourceLike, b: SourceLike, *, storage_options: Mapping[str, Any] | None = None) -> Difference:
    """What differs between two versions of a dataset, such as `shards/train@1` and `shards/train`.

    a, b: as for `dataset()`. storage_options: for a bucket. No shard is read, and the index only for `table`: labels of
    several classes, and numbers, are there as far as they were corrected.

    Raises UsageError for different datasets; NotFoundError, ManifestError, StorageError.
    """
    remote = Remote(storage_options)
    one, other = _version(a, remote), _version(b, remote)
    ours, theirs = one.manifest.shards, other.manifest.shards
    same = min(len(ours), len(theirs))
    if ours[:same] != theirs[:same]:
        cure = "compare two versions of one dataset, such as NAME@1 and NAME"
        raise UsageError(str(other.place), f"this is not a version of {one.place}", cure)
    limit = same << 32
    first, second = (each.overlay.pick(each.overlay.places < limit) for each in (one, other))
    changed = different(first, second)
    gone, there = (_deleted_among(each, changed) for each in (first, second))
    names = set(one.manifest.class_names)
    return Difference(
        one.manifest.number, other.manifest.number,
        deleted=int((there & ~gone).sum()), restored=int((gone & ~there).sum()), relabelled=int((~gone & ~there).sum()),
        added=sum(other.manifest.counts[same:]), removed=sum(one.manifest.counts[same:]),
        classes=tuple(name for name in other.manifest.class_names if name not in names),
        _rows=lambda: _table(one, other, changed[~(gone & there)], remote),
    )  # fmt: skip


def _version(source: SourceLike, remote: Remote) -> _Version:
    found = find_dataset(source, remote.storage_options)
    assert found.manifest is not None and found.location is not None
    overlay = read_overlay(Objects(remote), found.location, found.manifest, keys=True)
    return _Version(found.manifest, found.location, no_corrections() if overlay is None else overlay)


def _deleted_among(overlay: Overlay, places: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each of these samples is deleted."""
    return np.isin(places, overlay.places[overlay.deleted], assume_unique=True)


def _table(one: _Version, other: _Version, places: NDArray[np.int64], remote: Remote) -> pa.Table:
    import pyarrow as pa

    keys, packed = _keys(one, other, places), _packed(one, places, remote)
    gone, there = (_deleted_among(each.overlay, places) for each in (one, other))
    change = np.where(there, CHANGES[0], np.where(gone, CHANGES[1], CHANGES[2]))
    before = _labels(one, places, packed, gone)
    after = _labels(other, places, packed, there)
    return pa.table(
        {
            "key": pa.array(keys, pa.string()),
            "change": pa.array(change.tolist(), pa.string()),
            "before": pa.array(before, pa.string()),
            "after": pa.array(after, pa.string()),
        }
    )


def _keys(one: _Version, other: _Version, places: NDArray[np.int64]) -> list[str]:
    """The keys of samples, each of which is corrected in one of the versions."""
    keys = np.full(len(places), None, object)
    for version in (one, other):
        _, at, there = np.intersect1d(places, version.overlay.places, assume_unique=True, return_indices=True)
        keys[at] = version.overlay.keys[there]
    found: list[str] = keys.tolist()
    return found


def _packed(one: _Version, places: NDArray[np.int64], remote: Remote) -> NDArray[np.int64]:
    """The labels of samples as packed, from the index: only the shards that have any of them are read."""
    shards, rows = places >> 32, places & 0xFFFFFFFF
    samples = np.array([shard.samples for shard in one.manifest.shards], np.int64)
    labels, first = [np.zeros(0, np.int64)], 0
    for index in corrected_index_files(Objects(remote), one.place, one.manifest, None):
        mine = (shards >= first) & (shards < first + len(index.shards))
        used, slots = np.unique(shards[mine], return_inverse=True)
        if len(used):
            found = np.concatenate(list(index.numbers("label", (used - first).tolist())))
            begins = np.cumsum(samples[used]) - samples[used]
            labels.append(found[begins[slots] + rows[mine]].astype(np.int64))
        first += len(index.shards)
    return np.concatenate(labels)


def _labels(
    version: _Version, places: NDArray[np.int64], packed: NDArray[np.int64], gone: NDArray[np.bool_]
) -> list[str | None]:
    """The labels that samples have in a version, as text; None for a deleted one, and where only the shard has it."""
    labels, targets = packed.copy(), np.full(len(places), None, object)
    _, at, there = np.intersect1d(places, version.overlay.places, assume_unique=True, return_indices=True)
    new = version.overlay.labels[there]
    labels[at[new >= 0]] = new[new >= 0]
    targets[at] = version.overlay.targets[there]
    names = version.manifest.class_names
    texts = [target or (names[label] if 0 <= label < len(names) else None)
             for target, label in zip(targets.tolist(), labels.tolist(), strict=True)]  # fmt: skip
    return [None if deleted else text for text, deleted in zip(texts, gone.tolist(), strict=True)]
