"""Columns of an index as Arrow gives them: their places in the file, their types, and their values as arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from shardkit.shards.index import INTEGERS, TEXT_BYTES, as_numpy, combine

if TYPE_CHECKING:
    import pyarrow as pa


TEXT_COLUMN_BYTES = 1 << 30
"""The maximum bytes of all keys or paths of a shard."""


def first_leaves(found: pa.Schema) -> dict[str, int]:
    """The number of each column among those of the file, which has several for one that is nested."""
    numbers, at = dict[str, int](), 0
    for field in found:
        numbers.setdefault(field.name, at)
        at += _leaves(field.type)
    return numbers


def _leaves(kind: pa.DataType) -> int:
    import pyarrow.types as of

    if of.is_map(kind):
        return _leaves(kind.key_type) + _leaves(kind.item_type)
    if of.is_struct(kind):
        return sum(_leaves(field.type) for field in kind)
    return _leaves(kind.value_type) if of.is_nested(kind) else 1


def fits(kind: pa.DataType, name: str) -> bool:
    """Whether a column of the index may have this type."""
    import pyarrow as pa

    if name in INTEGERS:
        return bool(pa.types.is_integer(kind))
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def numbers(column: pa.ChunkedArray, name: str) -> Any:
    """A column of numbers as an array of its type."""
    import pyarrow as pa

    wanted = pa.from_numpy_dtype(INTEGERS[name])
    values = as_numpy(column if column.type == wanted else column.cast(wanted))
    return values if values.dtype == INTEGERS[name] else np.asarray(values, INTEGERS[name])


def texts(column: pa.ChunkedArray) -> pa.Array:
    """Keys or paths as one contiguous array of strings."""
    import pyarrow as pa

    if column.null_count:
        raise ValueError("a name is missing")
    array = combine(column)
    if pa.types.is_dictionary(array.type):  # as other programs write it; loading this takes longer than most indexes
        import pyarrow.compute as pc

        used = pc.sum(pc.binary_length(array.dictionary).take(array.indices)).as_py() or 0
        if used > min(TEXT_COLUMN_BYTES, (len(array) + 1) * TEXT_BYTES):
            raise ValueError(f"{used} bytes of text for a shard")
        array = array.dictionary_decode()
    return array if pa.types.is_string(array.type) else array.cast(pa.string())
