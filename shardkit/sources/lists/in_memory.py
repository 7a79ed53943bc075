"""Lists of files that are in memory: a DataFrame, an Arrow table, columns by name, or (paths, labels)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard, cast

import msgspec

from shardkit.errors import UsageError, reason_of
from shardkit.sample import IMAGE_FIELDS
from shardkit.sources.lists.tables import LABEL_COLUMNS, PATH_COLUMNS, require_distinct
from shardkit.sources.options import TableColumns

if TYPE_CHECKING:
    import pyarrow as pa

    from shardkit.sources.lists.rows import Listed

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


class TableInMemory(msgspec.Struct, frozen=True, eq=False):
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
        _require_two(source)
        return TableInMemory("the paths", _table({PATH_COLUMNS[0]: source[0], LABEL_COLUMNS[0]: source[1]}))
    return TableInMemory(f"the {type(source).__name__}", _frame(source))


def open_table(found: TableInMemory, columns: TableColumns) -> Listed:
    """Tell the columns of a table apart. Paths are relative to `columns.root`, or the working directory.

    Raises SourceError as `open_list` does.
    """
    from shardkit.sources.lists.rows import listed_table

    root = os.path.abspath(os.curdir if columns.root is None else columns.root)
    require_distinct(found.table.column_names, found.place)
    return listed_table(found.table, found.place, root, columns)


def _require_two(source: Sequence[Any]) -> None:
    """UsageError unless the source is (paths, labels), and not (path, label) for each of some files."""
    pairs = bool(source) and all(isinstance(each, (tuple, list)) and len(each) == 2 for each in source)
    if pairs and (len(source) != 2 or (not _is_image(source[0][1]) and _is_image(source[1][0]))):
        fact = f"it is a {type(source).__name__} of {len(source)} pairs (path, label)"
        raise UsageError("source", fact, "give (paths, labels): `paths, labels = zip(*pairs)`")
    if len(source) != 2 or any(isinstance(part, (str, bytes)) for part in source):
        fact = f"a {type(source).__name__} of {len(source)} is not (paths, labels)"
        raise UsageError("source", fact, "give two sequences of the same length, or a DataFrame")


def _is_image(value: object) -> bool:
    """Whether it is the path of a file with an image's ending."""
    if not isinstance(value, (str, bytes, os.PathLike)):
        return False
    return os.fsdecode(value).rpartition(".")[2].lower() in IMAGE_FIELDS


def _frame(source: object) -> pa.Table:
    import pyarrow as pa

    kind = type(source).__name__
    if hasattr(source, "iloc") and not hasattr(source, "columns"):
        fact = f"a {kind} is a single column, without paths or without labels"
        raise UsageError("source", fact, "give (paths, labels), or a DataFrame")
    try:
        if isinstance(source, pa.Table):
            return source.combine_chunks()
        if hasattr(source, "__arrow_c_stream__"):  # pandas 2.2, polars, DuckDB …
            return _without_index(pa.table(source))
        if hasattr(source, "to_arrow"):
            return cast("pa.Table", source.to_arrow())
    except (pa.ArrowException, TypeError, ValueError) as exc:
        if not hasattr(source, "iloc"):
            raise _no_table(kind, exc) from exc
    if hasattr(source, "iloc") and hasattr(source, "columns"):
        return _by_column(source)
    fact = f"{kind} is not something that can be packed"
    raise UsageError("source", fact, "give a path, a DataFrame, columns by name, or (paths, labels)")


def _by_column(frame: Any) -> pa.Table:
    """A DataFrame of pandas, one column after the other, so that an error names the column."""
    names = [str(name) for name in frame.columns]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UsageError("source", f"two columns have the name {twice[0]!r}", "rename one of them")
    return _table({name: frame.iloc[:, number] for number, name in enumerate(names)})


def _without_index(table: pa.Table) -> pa.Table:
    """The table without the index that pandas adds as a column of this name."""
    names = [name for name in table.column_names if not name.startswith("__index_level_")]
    return table.select(names).combine_chunks()


def _table(columns: Mapping[str, Any]) -> pa.Table:
    import pyarrow as pa

    made = {name: column_of(name, values) for name, values in columns.items()}
    sizes = {name: len(column) for name, column in made.items()}
    if len(set(sizes.values())) > 1:
        shown = ", ".join(f"{name} has {size}" for name, size in sizes.items())
        raise UsageError("source", f"the columns differ in length: {shown}", "give a label for each path")
    if not sizes or not next(iter(sizes.values())):
        raise UsageError("source", "it has no rows", "name at least one file")
    arrays = {name: _OF_ARRAY for name, column in made.items() if pa.types.is_fixed_size_list(column.type)}
    fields = [pa.field(name, column.type, metadata=arrays.get(name)) for name, column in made.items()]
    return pa.table(list(made.values()), schema=pa.schema(fields))


_OF_ARRAY = {b"shardkit": b"2-D array"}
"""The metadata of a column that was a 2-D array: as labels, it has a column for each class."""


def labels_in(table: pa.Table, name: str) -> pa.ChunkedArray:
    """The labels in a column, for `labels_of`: a 2-D array as class numbers, or lists of them or of numbers."""
    import numpy as np
    import pyarrow as pa

    column = table[name]
    if table.schema.field(name).metadata != _OF_ARRAY:
        return column
    rows = np.concatenate([chunk.flatten().to_numpy() for chunk in column.chunks])
    return pa.chunked_array([pa.array(rows_of_labels(name, rows.reshape(len(column), -1)))])


def column_of(name: str, values: Any) -> pa.Array:
    """A column in memory as an Arrow array: one of any values, as `label_column`, but a 2-D array has a list of numbers
    in each row, 0 and 1 for truth values."""
    import numpy as np
    import pyarrow as pa

    array = np.asarray(values) if hasattr(values, "__array__") else None
    if array is None or array.ndim != 2 or array.dtype.kind not in "biuf" or array.shape[1] < 2:
        return label_column(name, values)
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise _masked(name)
    kinds = {"b": np.dtype(np.int64), "f": np.dtype(np.float64)}
    array = np.ascontiguousarray(array, kinds.get(array.dtype.kind, array.dtype.newbyteorder("=")))
    return pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1)), array.shape[1])


def _masked(name: str) -> UsageError:
    return UsageError("source", f"the column {name!r} has masked values", "leave out their rows")


def label_column(name: str, values: Any) -> pa.Array:
    """A column of labels or paths as an Arrow array. UsageError for what is not a sequence of plain values."""
    import numpy as np
    import pyarrow as pa

    if isinstance(values, (str, bytes)) or (not isinstance(values, Sequence) and not hasattr(values, "__array__")):
        raise UsageError("source", f"the column {name!r} is a {type(values).__name__}, not a sequence", _CURE)
    try:
        if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
            raise _masked(name)
        array = None if isinstance(values, Sequence) else np.asarray(values)
        if array is None or (array.dtype == object and array.ndim == 1):
            plain = [_plain(value) for value in (values if array is None else array.tolist())]
            if not plain or {type(value) for value in plain} != {np.ndarray}:
                return _of_objects(name, [v.tolist() if isinstance(v, np.ndarray) else v for v in plain])
            array = _stacked(plain)
        return _of_array(name, array)
    except UsageError:
        raise
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as exc:
        raise _no_table(f"the column {name!r}", exc) from exc


def _plain(value: Any) -> Any:
    """A value of a column as a Python object, or as an array where it has axes."""
    import numpy as np

    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "__array__") and not isinstance(value, str):  # of NumPy, or a tensor; np.str_ is a str
        array = np.asarray(value)
        array = array.astype(np.float64) if array.dtype.char == "g" else array
        return array if array.ndim else array.item()
    return value


def _stacked(rows: Sequence[Any]) -> Any:
    """Arrays as the rows of one array, or of an array of lists where they differ in shape."""
    import numpy as np

    if len({row.shape for row in rows}) == 1:
        return np.stack(rows)
    made = np.empty(len(rows), object)
    made[:] = [row.tolist() for row in rows]
    return made


def _of_array(name: str, array: Any) -> pa.Array:
    import numpy as np
    import pyarrow as pa

    if array.dtype.names:
        fact = f"the column {name!r} has the fields {', '.join(array.dtype.names)}"
        raise UsageError("source", fact, f"give one of them, such as labels[{array.dtype.names[0]!r}]")
    if array.dtype.kind in "cVm":
        fact = f"the column {name!r} is an array of {array.dtype}"
        raise UsageError("source", fact, _CURE)
    if array.dtype.char == "g":  # Arrow has no long double
        array = array.astype(np.float64)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)  # nor another byte order
    if array.ndim == 2 and array.shape[1] == 1:  # as Keras' datasets have their labels
        array = array[:, 0]
    if array.ndim != 1:
        return pa.array(rows_of_labels(name, array))
    return _of_objects(name, array.tolist()) if array.dtype.kind in "UO" else pa.array(array)


def _of_objects(name: str, values: list[Any]) -> pa.Array:
    """A column of Python objects; what pandas calls missing is null. Text that is not UTF-8 makes it one of bytes."""
    import pyarrow as pa

    try:
        try:
            return pa.array(values)
        except (pa.ArrowException, TypeError):  # NaN and NA among texts are what pandas has for missing ones
            return pa.array(values, from_pandas=True)
    except UnicodeEncodeError:  # file names with bytes that are not UTF-8, as os.listdir() returns them
        return pa.array([os.fsencode(value) if isinstance(value, str) else value for value in values], pa.binary())
    except (pa.ArrowException, TypeError) as exc:
        kinds = sorted({type(value).__name__ for value in values if value is not None})
        if len(kinds) < 2:
            raise
        fact = f"the column {name!r} mixes values of the types {', '.join(kinds[:-1])} and {kinds[-1]}"
        raise UsageError("source", fact, "convert them to one type, such as [str(value) for value in labels]") from exc


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
    return UsageError("source", f"{what} can't be read as columns ({reason_of(exc)})", _CURE)
