"""Lists of corrections: a file (CSV, TSV, JSON lines, Parquet), a table in memory, or names and labels in Python."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from shardkit.errors import SourceError, UsageError, printable
from shardkit.sample import fs_text, text_of_path
from shardkit.sources.lists.in_memory import TableLike, in_memory, label_column, labels_in
from shardkit.sources.lists.labels import Labels, labels_of
from shardkit.sources.lists.tables import LABEL_COLUMNS, PATH_COLUMNS, is_json, read_table

if TYPE_CHECKING:
    import pyarrow as pa

By = Literal["key", "path"]
"""What a list names samples by."""

KEY_COLUMNS = ("key", "__key__")

CorrectionList = str | os.PathLike[str] | TableLike | Mapping[str, Any] | Sequence[str]
"""A file, a table, a dict of labels by key, or keys."""


@dataclass(frozen=True, slots=True, eq=False)
class NamedList:
    """A list that was read. place: its name in messages. names: the keys, or paths as in the index. shown: as they are
    in the list. labels: of each, if they were asked for."""

    place: str
    by: By
    names: list[str]
    labels: Labels | None


def read_names(given: CorrectionList, by: By | None) -> NamedList:
    """The samples that a list names. Raises SourceError, UsageError."""
    if isinstance(given, (str, os.PathLike)) or _is_table(given):
        table, place, _ = table_of(given)
    else:
        place = "the keys"
        table = _columns({by or "key": _sequence(given)})
    by, column = names_in(table, place, by)
    return NamedList(place, by, names_of(table, column, place, by), None)


def read_labels(given: CorrectionList, by: By | None, column: str | None, separator: str | None) -> NamedList:
    """The samples that a list names, with their labels. column: that of the labels. Raises SourceError, UsageError."""
    if isinstance(given, Mapping) and not _has_columns(given):
        table, place, all_text = _columns({by or "key": list(given), "label": list(given.values())}), "the dict", False
    elif isinstance(given, (tuple, list)):
        if len(given) != 2 or any(isinstance(part, (str, bytes)) for part in given):
            raise UsageError("labels", "it is not (keys, labels)", "give two sequences of the same length, or a dict")
        table, place, all_text = _columns({by or "key": given[0], "label": given[1]}), "the labels", False
    else:
        table, place, all_text = table_of(given, LABEL_COLUMNS if column is None else (column,))
    by, names = names_in(table, place, by)
    wanted = (column,) if column else LABEL_COLUMNS
    lower = {name.lower(): name for name in reversed(table.column_names)}
    label = next((lower[name.lower()] for name in wanted if name.lower() in lower), None)
    if label is None:
        shown = ", ".join(map(printable, table.column_names))
        fact = f"it has no column of labels{f' named {column!r}' if column else ''}; its columns are {shown}"
        raise SourceError(place, fact, "name one with `label_column`")
    labels = labels_of(labels_in(table, label), place, label, separator, all_text=all_text)
    return NamedList(place, by, names_of(table, names, place, by), labels)


def _is_table(given: object) -> bool:
    return isinstance(given, Mapping) or hasattr(given, "__arrow_c_stream__") or hasattr(given, "columns")


def _has_columns(given: Mapping[str, Any]) -> bool:
    """Whether a dict has columns by name, and not labels by key."""
    names = {str(name).lower() for name in given}
    columns = all(not isinstance(each, (str, bytes)) and hasattr(each, "__len__") for each in given.values())
    return columns and bool(names & {*KEY_COLUMNS, *PATH_COLUMNS}) and bool(names)


def table_of(
    given: Any, first_of: Sequence[str] = LABEL_COLUMNS, texts: Sequence[str] = ()
) -> tuple[pa.Table, str, bool]:
    """(the table, its name in messages, whether it has only text). first_of: in a CSV, the first of these columns is
    text; texts: and all of these."""
    if isinstance(given, (str, os.PathLike)):
        path = os.fspath(given)
        names = (*KEY_COLUMNS, *PATH_COLUMNS)
        table = read_table(path, text_columns=names, csv_texts=tuple(first_of), csv_columns=tuple(texts))
        return table, fs_text(path), not path.lower().endswith(".parquet") and not is_json(path)
    found = in_memory(given)
    assert not isinstance(found, (str, os.PathLike))
    return found.table, found.place, False


def _sequence(given: object) -> list[Any]:
    if isinstance(given, (bytes, int, float)) or not isinstance(given, Iterable):
        raise UsageError("keys", f"{given!r} is not a list of keys", "give a list, or the path of one")
    return list(given)


def _columns(columns: Mapping[str, Any]) -> pa.Table:
    import pyarrow as pa

    made = {name: label_column(name, values) for name, values in columns.items()}
    return pa.table(even(made, "labels" if len(made) > 1 else "keys"))


def even(columns: Mapping[Any, Any], place: str) -> Mapping[Any, Any]:
    """Columns of one length. place: the parameter that they were given for. UsageError if they differ, or if there are
    no rows."""
    sizes = {str(name): len(values) for name, values in columns.items() if hasattr(values, "__len__")}
    if len(set(sizes.values())) > 1:
        shown = ", ".join(f"{printable(name)} has {size}" for name, size in sizes.items())
        raise UsageError(place, f"the columns differ in length: {shown}", "give a value for each sample")
    if not any(sizes.values()):
        raise UsageError(place, "it has no rows", "name at least one sample")
    return columns


def names_in(table: pa.Table, place: str, by: By | None) -> tuple[By, str]:
    """("key" or "path", the column with them). SourceError if there is none."""
    lower = {name.lower(): name for name in reversed(table.column_names)}
    usual: dict[By, Sequence[str]] = {"key": KEY_COLUMNS, "path": PATH_COLUMNS}
    for what, names in usual.items():
        found = next((lower[name] for name in names if name in lower), None)
        if found is not None and by in (None, what):
            return what, found
    shown = ", ".join(map(printable, table.column_names))
    fact = f"it has no column of {by}s" if by else "it has no column of keys or paths"
    cure = "name one 'key' or 'path'; the first line of a CSV names the columns"
    raise SourceError(place, f"{fact}; its columns are {shown}", cure)


def names_of(table: pa.Table, column: str, place: str, by: By) -> list[str]:
    """The keys, or the paths as in the index. SourceError for a row without one."""
    values = table[column].to_pylist()
    missing = next((row for row, value in enumerate(values) if value in (None, "")), None)
    if missing is not None:
        raise SourceError(f"{place}: row {missing + 1}", f"it names no {by}", "fix the row")
    texts = [os.fsdecode(value) if isinstance(value, bytes) else str(value) for value in values]
    return texts if by == "key" else [text_of_path(os.fsencode(text)) for text in texts]
