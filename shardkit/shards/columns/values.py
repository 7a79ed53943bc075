"""The values of further columns: from what somebody has to one of the types of types.py, and as bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shardkit.shards.columns.types import LIST_NUMBERS, PREFIX, TEXT_BYTES, Types, column_type, type_text

if TYPE_CHECKING:
    import pyarrow as pa

INT64 = 1 << 63


def natural_column(values: pa.ChunkedArray) -> tuple[pa.ChunkedArray | None, str]:
    """Values in the type that is natural for them, or None and why they can't be a column.

    Whole numbers become int64 (text if one does not fit), others float64; texts of any kind string; points in time
    timestamp, whose nanoseconds are cut off; lists with as many numbers in each row int64[n] or float64[n]. Categories
    are what they stand for.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as of

    kind = values.type
    if of.is_dictionary(kind):
        return natural_column(values.cast(kind.value_type))
    if values.null_count == len(values):
        return None, "it has no value"
    if type_text(kind) is not None and not (of.is_string(kind) or of.is_fixed_size_list(kind)):
        return values, ""
    if of.is_integer(kind):
        huge = of.is_uint64(kind) and pc.max(values).as_py() >= INT64
        return values.cast(pa.string() if huge else pa.int64()), ""
    if of.is_floating(kind) or of.is_decimal(kind):
        return values.cast(pa.float64(), safe=False), ""
    if of.is_timestamp(kind):
        return values.cast(pa.timestamp("us", None if kind.tz is None else "UTC"), safe=False), ""
    if of.is_date(kind):
        return values.cast(pa.date32(), safe=False), ""
    if of.is_time(kind):
        return values.cast(pa.string()), ""
    if _is_text(kind):
        return _texts(values)
    if of.is_list(kind) or of.is_large_list(kind) or of.is_fixed_size_list(kind):
        return _lists(values)
    return None, f"values of the type {kind} have no column"


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow.types as of

    views = getattr(of, "is_string_view", lambda _: False)
    return bool(of.is_string(kind) or of.is_large_string(kind) or views(kind))


def _texts(values: pa.ChunkedArray) -> tuple[pa.ChunkedArray | None, str]:
    import pyarrow as pa
    import pyarrow.compute as pc

    values.validate(full=True)  # ArrowInvalid for text that is not UTF-8
    longest = pc.max(pc.binary_length(values)).as_py()
    if longest > TEXT_BYTES:
        return None, f"it has a text of {longest} bytes, and a column holds {TEXT_BYTES}"
    return values.cast(pa.string()), ""


def _lists(values: pa.ChunkedArray) -> tuple[pa.ChunkedArray | None, str]:
    """Lists of numbers of one length."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as of

    each = values.type.value_type
    if not (of.is_integer(each) or of.is_floating(each)):
        return None, f"lists of the type {each} have no column"
    lengths = pc.min_max(pc.list_value_length(values)).as_py()
    least, most = lengths["min"], lengths["max"]
    if least != most:
        return None, f"its lists have {least} to {most} numbers, and a column needs as many in each row"
    if not 1 <= most <= LIST_NUMBERS:
        return None, f"its lists have {most} numbers, and a column holds 1 to {LIST_NUMBERS}"
    huge = of.is_uint64(each) and (pc.max(pc.list_flatten(values)).as_py() or 0) >= INT64
    number = pa.float64() if huge or of.is_floating(each) else pa.int64()
    chunks = [_fixed(chunk, number, most) for chunk in values.chunks]
    return pa.chunked_array(chunks, pa.list_(number, most)), ""


def _fixed(lists: pa.Array, number: pa.DataType, length: int) -> pa.Array:
    """Lists of one length as an Arrow array of fixed-size lists; zeros are under a null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    flat = pc.list_flatten(lists).cast(number, safe=False)
    if not lists.null_count:
        return pa.FixedSizeListArray.from_arrays(flat, length)
    found = iter(range(len(flat) // length))
    at = [None if null else next(found) for null in pc.is_null(lists).to_pylist()]
    kept = pa.FixedSizeListArray.from_arrays(flat, length)
    return kept.take(pa.array(at, pa.int64()))


def fitted_column(values: pa.ChunkedArray, text: str) -> pa.ChunkedArray:
    """Values in this type. ValueError if a value would change: 1.5 is no whole number, and text no number."""
    import pyarrow as pa

    kind = column_type(text)
    if type_text(values.type) == text:
        return values
    if values.null_count == len(values):
        return pa.chunked_array([pa.nulls(len(values), kind)])
    own = type_text(values.type) or str(values.type)
    fits = {own, text} == {"int64", "float64"} or (text == "string" and not own.endswith("]"))
    fits = fits or (own.startswith("int64[") and text == own.replace("int64", "float64"))
    if not fits:
        raise ValueError(f"its values are {own}, not {text}")
    try:
        return values.cast(kind)
    except pa.ArrowInvalid as exc:
        raise ValueError(f"its values are {own}, and not all of them can be {text}") from exc


def encoded_columns(table: pa.Table) -> bytes:
    """A table as bytes, which `decoded_columns` reads."""
    import pyarrow as pa

    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def decoded_columns(data: bytes, kept: Sequence[int] | None) -> pa.Table:
    """The table in `data`; kept: the numbers of the rows to keep, None for all."""
    import pyarrow as pa

    table = pa.ipc.open_stream(data).read_all()
    return table if kept is None else table.take(pa.array(kept, pa.int64()))


def completed_table(table: pa.Table, names: Sequence[str], types: Types) -> pa.Table:
    """The columns `names` of a part of an index, in this order. A further column is made of its type in `types`, and is
    null if the table does not have it. ValueError for values of another type."""
    import pyarrow as pa

    found = []
    for name in names:
        text = types.get(name.removeprefix(PREFIX)) if name.startswith(PREFIX) else None
        if text is not None and name not in table.column_names:
            found.append(pa.nulls(len(table), column_type(text)))
        else:
            found.append(table[name] if text is None else fitted_column(table[name], text))
    return pa.Table.from_arrays(found, list(names))


def gathered_table(
    tables: Mapping[int, pa.Table | None], sources: NDArray[np.int64], local: NDArray[np.int64], types: Types
) -> pa.Table:
    """Row `local` of table `sources` for each of n samples; null where there is no table, row (-1), or column."""
    import pyarrow as pa

    pieces, places = list[pa.Table](), list[NDArray[np.int64]]()
    for number in np.unique(sources).tolist():
        where = np.flatnonzero(sources == number)
        table = tables[number]
        rows = pa.array(np.maximum(local[where], 0), mask=local[where] < 0)
        taken = None if table is None or not len(table) else table.take(rows)
        pieces.append(pa.table(whole_columns(taken, types, len(where)), names=list(types)))
        places.append(where)
    order = np.empty(len(sources), np.int64)
    order[np.concatenate([np.empty(0, np.int64), *places])] = np.arange(len(sources))
    whole = pa.concat_tables(pieces) if pieces else pa.table(whole_columns(None, types, 0), names=list(types))
    return whole.take(pa.array(order))


def whole_columns(table: Any, types: Types, rows: int) -> list[pa.Array]:
    """The columns of these types, in their order, each as one array; null where `table` (or None) has no such column.
    ValueError for values of another type."""
    import pyarrow as pa

    found = []
    for name, text in types.items():
        if table is None or name not in table.column_names:
            found.append(pa.nulls(rows, column_type(text)))
        else:
            column = fitted_column(table[name], text).combine_chunks()
            found.append(column.chunk(0) if isinstance(column, pa.ChunkedArray) else column)
    return found
