"""Lists of files that are in memory: a DataFrame, an Arrow table, columns by name, or (paths, labels)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard, cast

from shardkit.errors import UsageError
from shardkit.sources.lists.rows import LABEL_COLUMNS, PATH_COLUMNS, Listed, listed_table
from shardkit.sources.options import TableColumns

if TYPE_CHECKING:
    import pyarrow as pa

NAME = "samples"
"""What a dataset of a source without a file name is called."""


class ArrowStream(Protocol):
    """What hands over its columns as Arrow: DataFrames of pandas 2.2 and polars, Arrow tables, DuckDB relations."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...


TableLike = ArrowStream | Mapping[str, Any] | tuple[Any, Any] | list[Any]
"""A DataFrame of pandas or polars, an Arrow table, columns by name, or (paths, labels)."""

_FRAMES = ("__arrow_c_stream__", "to_arrow", "iloc")
"""What the tables of pyarrow, pandas, polars, and DuckDB have, one or another."""

_CURE = "give the paths as text and the labels as numbers, texts, or lists of them"


@dataclass(frozen=True, slots=True, eq=False)
class TableInMemory:
    """A list of files in memory. place: what messages call it."""

    place: str
    table: pa.Table


def is_table(value: object) -> TypeGuard[TableLike]:
    """Whether a value is a list of files in memory, and not an iterable of samples."""
    if isinstance(value, (tuple, list)):
        return len(value) == 2 and not any(isinstance(each, Mapping) for each in value)
    return isinstance(value, Mapping) or any(hasattr(value, name) for name in _FRAMES)


def in_memory(source: str | os.PathLike[str] | TableLike) -> str | os.PathLike[str] | TableInMemory:
    """Turn `source` into a table, unless it is a path.

    A tuple or list of two is (paths, labels). Labels are class numbers, names, lists of either (several classes),
    floats (numbers to be predicted), or a 2-D array with a column for each class: one-hot rows become class numbers,
    rows of zeros and ones lists of them, and other rows lists of numbers.

    Raises UsageError for what is none of these, for columns of different length, and for arrays of objects.
    """
    if isinstance(source, (str, os.PathLike)):
        return source
    if isinstance(source, Mapping):
        return TableInMemory("the columns", _table({str(name): column for name, column in source.items()}))
    if isinstance(source, (tuple, list)):
        if len(source) != 2 or any(isinstance(part, (str, bytes)) for part in source):
            fact = f"a {type(source).__name__} of {len(source)} is not (paths, labels)"
            raise UsageError("source", fact, "give two sequences of the same length, or a DataFrame")
        return TableInMemory("the paths", _table({PATH_COLUMNS[0]: source[0], LABEL_COLUMNS[0]: source[1]}))
    return TableInMemory(f"the {type(source).__name__}", _frame(source))


def open_table(found: TableInMemory, columns: TableColumns) -> Listed:
    """Tell the columns of a table apart. Paths are relative to `columns.root`, or the working directory.

    Raises SourceError as `open_list` does.
    """
    root = os.path.abspath(os.curdir if columns.root is None else columns.root)
    return listed_table(found.table, found.place, root, columns)


def _frame(source: object) -> pa.Table:
    import pyarrow as pa

    try:
        if isinstance(source, pa.Table):
            return source.combine_chunks()
        if hasattr(source, "__arrow_c_stream__"):  # pandas 2.2, polars, DuckDB …
            return _without_index(pa.table(source))
        if hasattr(source, "to_arrow"):
            return cast("pa.Table", source.to_arrow())
        if hasattr(source, "iloc") and hasattr(source, "columns"):
            return pa.Table.from_pandas(source, preserve_index=False)
    except (pa.ArrowException, TypeError, ValueError) as exc:
        raise _no_table(type(source).__name__, exc) from exc
    fact = f"{type(source).__name__} is not something that can be packed"
    raise UsageError("source", fact, "give a path, a DataFrame, columns by name, or (paths, labels)")


def _without_index(table: pa.Table) -> pa.Table:
    """The table without the index that pandas adds as a column of this name."""
    names = [name for name in table.column_names if not name.startswith("__index_level_")]
    return table.select(names).combine_chunks()


def _table(columns: Mapping[str, Any]) -> pa.Table:
    import pyarrow as pa

    made = {name: label_column(name, values) for name, values in columns.items()}
    sizes = {name: len(column) for name, column in made.items()}
    if len(set(sizes.values())) > 1:
        shown = ", ".join(f"{name} has {size}" for name, size in sizes.items())
        raise UsageError("source", f"the columns differ in length: {shown}", "give a label for each path")
    if not sizes or not next(iter(sizes.values())):
        raise UsageError("source", "it has no rows", "name at least one file")
    return pa.table(made)


def label_column(name: str, values: Any) -> pa.Array:
    """A column of labels or paths as an Arrow array. UsageError for what is not a sequence of plain values."""
    import numpy as np
    import pyarrow as pa

    if isinstance(values, (str, bytes)) or (not isinstance(values, Sequence) and not hasattr(values, "__array__")):
        raise UsageError("source", f"the column {name!r} is a {type(values).__name__}, not a sequence", _CURE)
    try:
        if isinstance(values, Sequence):
            plain = [os.fspath(value) if isinstance(value, os.PathLike) else value for value in values]
            if not any(isinstance(value, (np.ndarray, np.generic)) for value in plain):
                return pa.array(plain)
            values = np.asarray(plain)
        if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
            raise UsageError("source", f"the column {name!r} has masked values", "leave out their rows")
        array = np.asarray(values)
        array = array.astype(array.dtype.newbyteorder("="), copy=False)  # Arrow takes the machine's byte order only
        if array.dtype == object:
            return pa.array([os.fspath(v) if isinstance(v, os.PathLike) else v for v in array.tolist()])
        if array.ndim == 2 and array.shape[1] == 1:  # as Keras' datasets have their labels
            array = array[:, 0]
        return pa.array(array if array.ndim == 1 else rows_of_labels(name, array))
    except UsageError:
        raise
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as exc:
        raise _no_table(f"the column {name!r}", exc) from exc


def rows_of_labels(name: str, array: Any) -> list[Any]:
    """The labels in a 2-D array with a row for each sample. UsageError for more dimensions."""
    import numpy as np

    if array.ndim != 2:
        raise UsageError("source", f"the column {name!r} has {array.ndim} dimensions", "give one label for each path")
    if array.dtype.kind in "biuf" and bool(((array == 0) | (array == 1)).all()):
        if bool((array.sum(axis=1) == 1).all()):
            return cast("list[Any]", array.argmax(axis=1).tolist())
        return [np.flatnonzero(row).tolist() for row in array]
    return cast("list[Any]", array.tolist())


def _no_table(what: str, exc: Exception) -> UsageError:
    text = next(iter(str(exc).splitlines()), "") or type(exc).__name__
    return UsageError("source", f"{what} can't be read as columns ({text})", _CURE)
