"""Lists of values of fields for samples: a file, a table in memory, or records by key in Python."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shardkit.errors import SourceError, UsageError, printable, reason_of
from shardkit.shards.columns.types import PREFIX, Types, column_type, type_text
from shardkit.shards.columns.values import fitted_column, natural_column
from shardkit.shards.index import INTEGERS, QUALITY_TYPES, SEEK
from shardkit.sources.lists.in_memory import TableLike, column_of, label_column
from shardkit.sources.lists.typed import as_recognized
from shardkit.tools.corrections.lists import KEY_COLUMNS, By, even, names_in, names_of, table_of

if TYPE_CHECKING:
    import pyarrow as pa

FieldLists = str | os.PathLike[str] | TableLike | Mapping[str, Mapping[str, Any]] | Sequence[Mapping[str, Any]]
"""A file, a table, a dict of records (fields by name) by key, or a list of records with a key or path each."""

BUILT_IN = frozenset({"shard", "key", "path", *INTEGERS, *(QUALITY_TYPES.names or ()), SEEK})
"""The columns that an index has of its own."""

NAMES = (*KEY_COLUMNS, "path")
"""The columns that name samples, and are no fields."""


@dataclass(frozen=True, slots=True, eq=False)
class FieldList:
    """A list that was read. place: its name in messages. names: the keys, or paths as in the index, row for row.
    columns: the values by the names of the fields. faults: all that is wrong with these."""

    place: str
    by: By
    names: list[str]
    columns: dict[str, pa.ChunkedArray]
    faults: list[str]

    @property
    def types(self) -> dict[str, str]:
        """The fields with their types."""
        return {name: type_text(column.type) or "" for name, column in self.columns.items()}


def read_fields(given: FieldLists, by: By | None, wanted: Sequence[str] | str | None, known: Types) -> FieldList:
    """The samples that a list names, with the values of their fields. wanted: the columns to take; None for all. known:
    the further columns that the dataset has.

    Raises SourceError, UsageError; what is wrong with values is in `faults`.
    """
    texts = [prefix + name for name, text in known.items() if text == "string" for prefix in ("", PREFIX)]
    made = _as_table(given, by)
    table, place, _ = table_of(made, (), texts)
    place = place if made is given else "the fields"
    by, column = names_in(table, place, by)
    names = names_of(table, column, place, by)
    chosen = _chosen(table, column, place, wanted)
    columns, faults = {}, list[str]()
    for source, name in chosen.items():
        fault = _collides(name, known)
        found = None
        if not fault:
            found, fault = _typed(table.schema.field(source), table[source], name, known.get(name))
        if found is None:
            faults.append(fault)
        else:
            columns[name] = found
    return FieldList(place, by, names, columns, faults)


def _as_table(given: FieldLists, by: By | None) -> Any:
    """Records as columns by name; anything else as it is."""
    import pyarrow as pa

    if isinstance(given, Mapping) and given and all(isinstance(each, Mapping) for each in given.values()):
        records = [{by or KEY_COLUMNS[0]: key} | dict(values) for key, values in given.items()]
    elif isinstance(given, (list, tuple)):
        if not given or not all(isinstance(each, Mapping) for each in given):
            raise UsageError("fields", "it is not a list of records", "give a dict for each sample, or a table")
        records = [dict(each) for each in given]
    elif isinstance(given, Mapping):
        return pa.table({str(name): column_of(str(name), values) for name, values in even(given, "fields").items()})
    else:
        return given
    names = dict.fromkeys(str(name) for record in records for name in record)
    return pa.table({name: label_column(name, [record.get(name) for record in records]) for name in names})


def _chosen(table: pa.Table, named_by: str, place: str, wanted: Sequence[str] | str | None) -> dict[str, str]:
    """Column of the list -> name of the field. SourceError for one that is not there, and if there is none."""
    if wanted is None:
        columns = [name for name in table.column_names if name != named_by and name.lower() not in NAMES]
    else:
        if not isinstance(wanted, Iterable):
            raise UsageError("columns", f"{wanted!r} is not a list of names", "give the columns of the list by name")
        given = [name.strip() for name in wanted.split(",")] if isinstance(wanted, str) else wanted
        columns = [str(name) for name in dict.fromkeys(given)]
        missing = [name for name in columns if name not in table.column_names or name == named_by]
        if missing:
            shown = ", ".join(map(printable, table.column_names))
            fact = f"it has no column {printable(missing[0])!r} beside its {named_by}; its columns are {shown}"
            raise SourceError(place, fact, "name others with `columns`")
    if not columns:
        raise SourceError(place, f"it has no column besides {printable(named_by)}", "add a column for each field")
    found = {name: name.removeprefix(PREFIX) for name in columns}
    twice = [name for name in found if list(found.values()).count(found[name]) > 1]
    if twice:
        raise SourceError(place, f"the columns {' and '.join(twice)} are one field", "rename one of them")
    return found


def _collides(name: str, known: Types) -> str:
    """What is wrong with the name of a field; "" if nothing is."""
    if not name:
        return "a column has no name"
    if name in BUILT_IN and name not in known:
        return f"its column {name!r} has the name of a column that every index has: rename it, or leave it out"
    return ""


def _typed(field: pa.Field, values: pa.ChunkedArray, name: str, known: str | None) -> tuple[Any, str]:
    """(the values of a field, what is wrong with them). known: the type that the column has in the dataset."""
    import pyarrow as pa

    shown = printable(name)
    try:
        column, why = natural_column(as_recognized(field, values))
    except (pa.ArrowException, UnicodeDecodeError) as exc:
        return None, f"its column '{shown}' can't be read ({printable(reason_of(exc))})"
    if column is None:
        return None, f"its column '{shown}' can't be a field: {why}"
    if known is None:
        return column, ""
    try:
        return fitted_column(column, known), ""
    except ValueError:
        row = _first_misfit(column, known)
        value = column[row].as_py()
        return None, f"its column '{shown}' is {known} in the dataset, and row {row + 1} has {printable(repr(value))}"


def _first_misfit(column: pa.ChunkedArray, text: str) -> int:
    """The first row whose value is not of a type; the first that has a value, if all could be converted."""
    import pyarrow as pa

    def fits(count: int) -> bool:
        try:
            column.slice(0, count).cast(column_type(text))
        except pa.ArrowException:
            return False
        return True

    if fits(len(column)):
        return next(row for row, value in enumerate(column) if value.is_valid)
    low, high = 0, len(column)  # the first `low` rows fit, the first `high` do not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
