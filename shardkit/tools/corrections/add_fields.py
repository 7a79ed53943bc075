"""`shardkit add-fields`: values of further columns for the samples of a dataset, without a change of its shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shardkit.errors import SourceError
from shardkit.options.fields import checked_by
from shardkit.shards.columns.arrays import present
from shardkit.shards.corrections.block import VersionEntry
from shardkit.shards.corrections.overlay import no_corrections
from shardkit.shards.find.shards import SourceLike
from shardkit.tools.corrections.commit import Change, Corrected, GivenValues, correct
from shardkit.tools.corrections.field_lists import FieldList, FieldLists, read_fields
from shardkit.tools.corrections.lists import By
from shardkit.tools.corrections.place import Base, place_of
from shardkit.tools.corrections.rows import faults_of, find_rows, told, twice_in
from shardkit.tools.corrections.values import same_values, values_at
from shardkit.tools.settings import AddFieldsSettings

Flags = NDArray[np.bool_]


@checked_by(AddFieldsSettings)
def add_fields(
    source: SourceLike,
    fields: FieldLists,
    *,
    by: By | None = None,
    columns: Sequence[str] | str | None = None,
    overwrite: bool = False,
    message: str = "",
    storage_options: Mapping[str, Any] | None = None,
) -> Corrected:
    """Give samples of a dataset values of fields: a new version of it, with the same shards.

    source, by, message, storage_options: as for `relabel`. fields: a list (CSV, TSV, JSON lines, Parquet), a DataFrame
    or Arrow table, columns by name, a dict of records by key, or a list of records. It has a column `key` or `path`;
    its other columns are the fields. columns: those of them to add, such as ["age", "city"] or "age,city" (default:
    all).

    The fields are typed columns `meta.NAME` like those of a packed list: for `where()`, `decode(columns=…)` and
    `batch(columns=…)`. A sample that the list does not name has null, and so has one for which its value is null. A
    field, and a column that was packed, may get values several times: samples without one get theirs, and a value that
    would be another one is an error. overwrite: replace such values.

    The version is a file beside the index and a new manifest. Older versions stay: `dataset("shards/train@1")`. Shards
    and index files are unchanged; `convert` writes the fields into the index of new shards.

    Returns the new version; the current one if all samples had these values. Raises SourceError with all that is wrong
    with the list (an unknown key, a key that occurs twice, a value of another type than its column has, a value that is
    there already), BusyError if another run gives the same samples values of the same fields, or deletes them,
    DestinationError, DatasetError, StorageError. Nothing is written then.
    """
    place = place_of(source, storage_options)
    given = read_fields(fields, by, columns, place.current().manifest.columns)
    return correct(place, lambda base: _change(base, given, overwrite=overwrite, message=message))


def _change(base: Base, given: FieldList, *, overwrite: bool, message: str) -> Change:
    import pyarrow as pa

    names = list(dict.fromkeys(given.names))
    found = find_rows(base, given.by, names)
    faults = [*twice_in(given.names, given.by), *faults_of(found, names, given.by), *given.faults]
    _raise_faults(faults, given, "fix the list")
    order = np.argsort(found.places)
    places, keys = found.places[order], found.keys[order]
    rows = pa.array(found.which[order])
    values = pa.table({name: column.take(rows) for name, column in given.columns.items()})
    new, clashing = _news(base, values, given.types, places)
    if not overwrite:
        there = {name: told(keys[which].tolist(), f"another value of '{name}' is set already for the key")
                 for name, which in clashing.items()}  # fmt: skip
        _raise_faults([text for texts in there.values() for text in texts], given,
                      "fix the list, or replace values with `overwrite=True`")  # fmt: skip
    some = pa.array(np.flatnonzero(new))
    count = int(new.sum())
    entry = VersionEntry(
        version=0, kind="add-fields", samples=0, filled=count, columns=tuple(given.columns), message=message
    )
    added = GivenValues(places[new], keys[new], values.take(some), given.types)
    return Change(no_corrections(), entry, base.manifest.classes, unchanged=len(new) - count, values=added)


def _raise_faults(faults: list[str], given: FieldList, cure: str) -> None:
    if faults:
        raise SourceError(given.place, "; ".join(faults), cure)


def _news(
    base: Base, values: Any, types: Mapping[str, str], places: NDArray[np.int64]
) -> tuple[Flags, dict[str, Flags]]:
    """(whether a sample gets any value that it does not have, by field whether it has another one already)."""
    known = [name for name in types if name in base.manifest.columns]
    before = values_at(base, known, places)
    new, clashing = np.zeros(len(places), np.bool_), {}
    for name, text in types.items():
        given = _there(values[name])
        if name in known:
            other = given & ~same_values(before[name], values[name], text)
            clashing[name] = other & _there(before[name])
            new |= other
        else:
            new |= given
    return new, clashing


def _there(column: Any) -> Flags:
    found = present(column)
    return np.ones(len(column), np.bool_) if found is None else found
