"""`shardkit diff`: what differs between two versions of a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from shardkit.errors import UsageError
from shardkit.options.fields import checked_by
from shardkit.shards.find.shards import SourceLike
from shardkit.shards.index import as_numpy
from shardkit.storage.access import Remote
from shardkit.threads import cached_property
from shardkit.tools.corrections.commit import different
from shardkit.tools.corrections.place import Base, find_dataset
from shardkit.tools.corrections.values import OtherValues, other_values, rows_at
from shardkit.tools.settings import DiffSettings
from shardkit.units import short_repr

if TYPE_CHECKING:
    import pyarrow as pa

CHANGES = ("deleted", "restored", "relabelled", "other fields")
"""What may have happened to a sample that both versions have in their shards."""


@dataclass(frozen=True)
class Difference:
    """What differs between two versions of a dataset.

    before, after: their numbers. deleted, restored, relabelled: how many samples are only in the first, only in the
    second, and in both with different labels. other_fields: how many are in both with different values of the fields
    `fields`. added, removed: samples of shards that only the second or the first has.
    classes: the names of new classes.
    """

    before: int
    after: int
    deleted: int
    restored: int
    relabelled: int
    other_fields: int
    added: int
    removed: int
    classes: tuple[str, ...]
    fields: tuple[str, ...]
    _rows: Any = field(repr=False, compare=False)

    __repr__ = short_repr

    @cached_property
    def table(self) -> pa.Table:
        """The samples that were deleted, restored or relabelled, or have other fields, in the order of the shards:
        `key`, `change`, and the labels `before` and `after` (class names, numbers or lists as JSON; null where there is
        none), for fields the values that differ, as JSON objects. A sample with another label and other fields has two
        rows."""
        found: pa.Table = self._rows()
        return found

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        changed = self.deleted or self.restored or self.relabelled or self.other_fields
        return not (changed or self.added or self.removed or self.classes)


@checked_by(DiffSettings)
def diff(a: SourceLike, b: SourceLike, *, storage_options: Mapping[str, Any] | None = None) -> Difference:
    """What differs between two versions of a dataset, such as `shards/train@1` and `shards/train`.

    a, b: as for `dataset()`. storage_options: for a bucket. No shard is read, and the index only for `table` and added
    fields: labels of several classes, and numbers, are there as far as they were corrected.

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
    gone, there = (_deleted_among(each, changed) for each in (one, other))
    names = set(one.manifest.class_names)
    values = other_values(one, other)
    in_both = ~(_deleted_among(one, values.places) | _deleted_among(other, values.places))
    values = values.pick(in_both)
    return Difference(
        one.manifest.number, other.manifest.number,
        deleted=int((there & ~gone).sum()), restored=int((gone & ~there).sum()), relabelled=int((~gone & ~there).sum()),
        other_fields=len(values.places), fields=values.names,
        added=sum(other.manifest.counts[same:]), removed=sum(one.manifest.counts[same:]),
        classes=tuple(name for name in other.manifest.class_names if name not in names),
        _rows=lambda: _table(one, other, changed[~(gone & there)], values),
    )  # fmt: skip


def _version(source: SourceLike, remote: Remote) -> Base:
    found = find_dataset(source, remote.storage_options)
    assert found.manifest is not None and found.location is not None
    return Base(found.location, found.manifest, b"", None, remote)


def _deleted_among(version: Base, places: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each of these samples is deleted."""
    return np.isin(places, version.overlay.places[version.overlay.deleted], assume_unique=True)


def _table(one: Base, other: Base, places: NDArray[np.int64], values: OtherValues) -> pa.Table:
    import pyarrow as pa

    rows = _corrected_rows(one, other, places)
    if not len(values.places):
        return rows
    both = pa.concat_tables([rows, _other_fields(one, values)])
    order = np.argsort(np.concatenate([places, values.places]), kind="stable")
    return both.take(pa.array(order))


def _other_fields(one: Base, values: OtherValues) -> pa.Table:
    """The rows of samples with other fields."""
    import pyarrow as pa

    assert values.before is not None and values.after is not None
    keys = rows_at(one, ["key"], values.places)["key"].cast(pa.string())
    before, after = (_records(table, values) for table in (values.before, values.after))
    return pa.table(
        {
            "key": keys,
            "change": pa.array([CHANGES[3]] * len(keys), pa.string()),
            "before": pa.array(before, pa.string()),
            "after": pa.array(after, pa.string()),
        }
    )


def _records(table: pa.Table, values: OtherValues) -> list[str | None]:
    """The values that differ, of each sample as a JSON object; None if it has none of them."""
    found: list[dict[str, Any]] = [{} for _ in range(len(table))]
    for name in values.names:
        column = table[name].to_pylist()
        for row in np.flatnonzero(values.differ[name]).tolist():
            if column[row] is not None:
                found[row][name] = column[row]
    return [msgspec.json.encode(record).decode() if record else None for record in found]


def _corrected_rows(one: Base, other: Base, places: NDArray[np.int64]) -> pa.Table:
    """The rows of samples that were deleted, restored or relabelled."""
    import pyarrow as pa

    keys = _keys(one, other, places)
    packed = as_numpy(rows_at(one, ["label"], places)["label"]).astype(np.int64)
    gone, there = (_deleted_among(each, places) for each in (one, other))
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


def _keys(one: Base, other: Base, places: NDArray[np.int64]) -> list[str]:
    """The keys of samples, each of which is corrected in one of the versions."""
    keys = np.full(len(places), None, object)
    for version in (one, other):
        _, at, there = np.intersect1d(places, version.overlay.places, assume_unique=True, return_indices=True)
        keys[at] = version.overlay.keys[there]
    found: list[str] = keys.tolist()
    return found


def _labels(
    version: Base, places: NDArray[np.int64], packed: NDArray[np.int64], gone: NDArray[np.bool_]
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
