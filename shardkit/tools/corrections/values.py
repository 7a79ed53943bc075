"""The values that samples have in further columns, and where those of two versions differ."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from shardkit.shards.columns.arrays import present, values_of
from shardkit.shards.columns.types import PREFIX, Types, column_type, type_text
from shardkit.shards.corrections.block import FieldsEntry
from shardkit.shards.corrections.fields import MixedColumn
from shardkit.shards.corrections.read import AddedFields, completed_tables, corrected_index_files
from shardkit.shards.index_file import IndexFile
from shardkit.shards.manifest import Manifest
from shardkit.shards.objects import Objects
from shardkit.tools.corrections.place import Base

if TYPE_CHECKING:
    import pyarrow as pa

Places = NDArray[np.int64]
"""Samples, rising: shard << 32 | row as packed."""


def rows_at(version: Base, names: Sequence[str], places: Places) -> pa.Table:
    """Columns of the index of a version as packed for some samples. Only the shards that have any of them are read."""
    import pyarrow as pa

    manifest, place = version.manifest, version.place
    shards, rows = places >> 32, places & 0xFFFFFFFF
    samples = np.array([shard.samples for shard in manifest.shards], np.int64)
    tables, first = list[pa.Table](), 0
    for index in corrected_index_files(Objects(version.remote), place, manifest, None):
        mine = (shards >= first) & (shards < first + len(index.shards))
        used, slots = np.unique(shards[mine], return_inverse=True)
        if len(used) and not set(names).isdisjoint(index.schema.names):
            begins = np.cumsum(samples[used]) - samples[used]
            parts = completed_tables(index, names, manifest.columns, (used - first).tolist(), str(place))
            tables.append(pa.concat_tables(parts).take(pa.array(begins[slots] + rows[mine])))
        else:
            tables.append(_nulls(index, names, manifest.columns, int(mine.sum())))
        first += len(index.shards)
    return pa.concat_tables(tables)


def _nulls(index: IndexFile, names: Sequence[str], types: Types, count: int) -> pa.Table:
    import pyarrow as pa

    further = {PREFIX + name: column_type(text) for name, text in types.items()}
    kinds = {name: further.get(name) or index.schema.field(name).type for name in names}
    return pa.table({name: pa.nulls(count, kind) for name, kind in kinds.items()})


def values_at(version: Base, names: Sequence[str], places: Places) -> pa.Table:
    """The further columns `names` of a version, by NAME, for some samples."""
    import pyarrow as pa

    mixed = {name: MixedColumn(version.manifest.columns[name], len(places)) for name in names}
    added = AddedFields(Objects(version.remote), version.place, version.manifest)
    for number, entry in enumerate(added.entries):
        there = [name for name in names if name in entry.columns]
        if there:
            found, values = added.file(number).values(np.unique(places >> 32), [PREFIX + name for name in there])
            which = np.flatnonzero(np.isin(found, places, assume_unique=True))
            at, rows = np.searchsorted(places, found[which]), pa.array(which)
            for name in there:
                mixed[name].add(at, values[PREFIX + name].take(rows))
    packed = rows_at(version, [PREFIX + name for name in names], places)
    return pa.table({name: mixed[name].column(packed[PREFIX + name]) for name in names})


def same_values(one: pa.ChunkedArray, other: pa.ChunkedArray, text: str) -> NDArray[np.bool_]:
    """Whether the values of two columns of a type are equal (bool, n): NaN equals NaN, and null equals null."""
    first, second = values_of(one, text), values_of(other, text)
    equal = first.array == second.array
    if first.array.dtype.kind == "f":
        equal |= np.isnan(first.array) & np.isnan(second.array)
    equal = equal.reshape(len(equal), -1).all(axis=1)
    nothing = np.zeros(len(equal), np.bool_)
    gone, there = (nothing if each.missing is None else each.missing for each in (first, second))
    same: NDArray[np.bool_] = np.where(gone | there, gone & there, equal)
    return same


def given_between(one: Base, other: Base, names: Collection[str] | None = None) -> Places:
    """The samples in the files of added fields that one of two versions has, and the other has not, or not in this
    order. names: the fields that count; None for all."""
    found = [_fields_of(each.manifest) for each in (one, other)]
    same = next((at for at, (a, b) in enumerate(zip(*found, strict=False)) if a != b), min(map(len, found)))
    parts = [np.zeros(0, np.int64)]
    for version, entries in zip((one, other), found, strict=True):
        added = AddedFields(Objects(version.remote), version.place, version.manifest)
        for number in range(same, len(entries)):
            if names is None or not entries[number].columns.keys().isdisjoint(names):
                file = added.file(number)
                parts += [file.group(group, ())[0] for group in range(file.groups)]
    return np.unique(np.concatenate(parts))


def _fields_of(manifest: Manifest) -> tuple[FieldsEntry, ...]:
    return () if manifest.corrections is None else manifest.corrections.fields


@dataclass(frozen=True, slots=True)
class OtherValues:
    """The samples that have other values of fields in another version. before, after: the fields `names` in both (n
    rows), null where a version has none. differ: whether each value differs (bool, n), by NAME."""

    places: Places
    names: tuple[str, ...] = ()
    before: pa.Table | None = None
    after: pa.Table | None = None
    differ: dict[str, NDArray[np.bool_]] = field(default_factory=dict)

    def pick(self, which: NDArray[np.bool_]) -> OtherValues:
        """Some of the samples."""
        if self.before is None or self.after is None:
            return self
        import pyarrow as pa

        rows = pa.array(np.flatnonzero(which))
        differ = {name: found[which] for name, found in self.differ.items()}
        names = tuple(name for name in self.names if differ[name].any())
        return OtherValues(self.places[which], names, self.before.take(rows), self.after.take(rows), differ)


def other_values(one: Base, other: Base) -> OtherValues:
    """The samples of both versions' shards whose values of fields differ between them."""
    found = [_fields_of(each.manifest) for each in (one, other)]
    if found[0] == found[1]:
        return OtherValues(np.zeros(0, np.int64))
    limit = min(len(one.manifest.shards), len(other.manifest.shards)) << 32
    places = given_between(one, other)
    places = places[places < limit]
    names = list(dict.fromkeys(name for entries in found for entry in entries for name in entry.columns))
    names = [name for name in names if any(name in each.manifest.columns for each in (one, other))]
    before, after = (_completed(version, names, places) for version in (one, other))
    differ = {name: ~_same(before[name], after[name]) for name in names}
    whole = OtherValues(places, tuple(names), before, after, differ)
    return whole.pick(np.any(list(differ.values()), axis=0)) if names else OtherValues(places[:0])


def _completed(version: Base, names: Sequence[str], places: Places) -> pa.Table:
    """The values of a version, null in columns that it does not have."""
    import pyarrow as pa

    there = [name for name in names if name in version.manifest.columns]
    table = values_at(version, there, places)
    return pa.table({name: table[name] if name in there else pa.nulls(len(places)) for name in names})


def _same(one: pa.ChunkedArray, other: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Whether the values of two columns are equal, which may have different types."""
    text = type_text(one.type)
    if one.type == other.type and text is not None:
        return same_values(one, other, text)
    nothing = [np.zeros(len(one), np.bool_) if (found := present(each)) is None else ~found for each in (one, other)]
    return nothing[0] & nothing[1]
