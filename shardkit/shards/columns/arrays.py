"""Further columns as NumPy arrays, for batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

_DTYPES = {
    "int64": "int64", "float64": "float64", "bool": "bool", "string": "object", "date": "datetime64[D]",
    "timestamp": "datetime64[us]", "timestamp UTC": "datetime64[us]",
}  # fmt: skip


def shape_of(text: str) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """(dtype, shape) of one value of a type: texts are objects, a list of N numbers has the shape (N,)."""
    each, _, length = text.removesuffix("]").partition("[")
    return np.dtype(_DTYPES[each]), (int(length),) if length else ()


@dataclass(frozen=True, slots=True)
class Values:
    """Values of a column. array: (n,) or, for lists, (n, N). missing: bool (n,), True for null; None if there is none.

    Under a null is NaN, NaT or None where the type has it, otherwise 0.
    """

    array: NDArray[Any]
    missing: NDArray[np.bool_] | None


def values_of(column: pa.ChunkedArray, text: str) -> Values:
    """A column of this type as arrays."""
    import pyarrow as pa

    dtype, shape = shape_of(text)
    array = column.combine_chunks()
    array = array.chunk(0) if isinstance(array, pa.ChunkedArray) else array
    missing = np.asarray(array.is_null().to_numpy(zero_copy_only=False), np.bool_) if array.null_count else None
    if shape:
        array = _numbers_of(array, missing, shape[0])
    elif missing is not None and dtype.kind in "ib":
        array = array.fill_null(False if dtype.kind == "b" else 0)
    elif dtype.kind == "M":
        array = array.cast("int32" if text == "date" else "int64").cast("int64").fill_null(np.iinfo(np.int64).min)
        return Values(array.to_numpy().view(dtype), missing)
    found = array.to_numpy(zero_copy_only=False).astype(dtype, copy=False).reshape((-1, *shape))
    if missing is not None and dtype.kind == "f":
        found = np.where(missing.reshape((-1,) + (1,) * len(shape)), np.nan, found)
    return Values(found, missing)


def _numbers_of(lists: pa.Array, missing: NDArray[np.bool_] | None, length: int) -> pa.Array:
    """The numbers of all lists, with zeros for those of a null."""
    import pyarrow as pa

    if missing is None:
        return lists.flatten()
    at = np.cumsum(~missing) - 1
    zeros = pa.array(np.zeros(length), lists.type.value_type)
    numbers = pa.concat_arrays([lists.drop_null().flatten(), zeros])
    first = np.where(missing, (len(numbers) - length) // length, at) * length
    return numbers.take(pa.array((first[:, None] + np.arange(length)).ravel()))


def gathered(parts: Sequence[Values], slots: NDArray[np.int64], local: NDArray[np.int64], text: str) -> Values:
    """Value `local` of part `slots` for each of n samples."""
    dtype, shape = shape_of(text)
    array = np.empty((len(slots), *shape), dtype)
    some = any(part.missing is not None for part in parts)
    missing = np.zeros(len(slots), np.bool_) if some else None
    for slot, part in enumerate(parts):
        where = slice(None) if len(parts) == 1 else np.flatnonzero(slots == slot)
        array[where] = part.array[local[where]]
        if missing is not None and part.missing is not None:
            missing[where] = part.missing[local[where]]
    return Values(array, missing if missing is not None and missing.any() else None)


def nothing(count: int, text: str) -> Values:
    """As many nulls."""
    import pyarrow as pa

    from shardkit.shards.columns.types import column_type

    return values_of(pa.chunked_array([pa.nulls(count, column_type(text))]), text)
