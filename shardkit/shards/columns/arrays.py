"""Further columns as NumPy arrays, for batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
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


class Values(msgspec.Struct, frozen=True):
    """Values of a column. array: (n,) or, for lists, (n, N). missing: bool (n,), True for null; None if there is none.

    Under a null is NaN, NaT or None where the type has it, otherwise 0.
    """

    array: NDArray[Any]
    missing: NDArray[np.bool_] | None


def values_of(column: pa.ChunkedArray, text: str) -> Values:
    """A column of this type as arrays: from the buffers, since Arrow's own ways load pandas or `pyarrow.compute`, which
    take longer than most columns."""
    import pyarrow as pa

    found = column.combine_chunks()
    array = found.chunk(0) if isinstance(found, pa.ChunkedArray) else found
    dtype, shape = shape_of(text)
    missing = ~_bits(array.buffers()[0], array) if array.null_count else None
    if dtype.hasobject:
        texts = np.empty(len(array), object)
        texts[:] = array.to_pylist()
        return Values(texts, missing)
    if shape:
        first, size = array.offset * shape[0], len(array) * shape[0]
        numbers = _numbers(array.values.slice(first, size), dtype).reshape(-1, *shape)
    else:
        numbers = _numbers(array, dtype)
    if missing is not None:
        numbers = np.where(missing.reshape(-1, *(1 for _ in shape)), _nothing(dtype), numbers)
    return Values(numbers, missing)


def present(column: pa.ChunkedArray) -> NDArray[np.bool_] | None:
    """Which values of a column are not null (bool, n); None if all are."""
    if not column.null_count:
        return None
    return np.concatenate([_present(chunk) for chunk in column.chunks])


def _present(chunk: pa.Array) -> NDArray[np.bool_]:
    if chunk.null_count in (0, len(chunk)):
        return np.full(len(chunk), not chunk.null_count)
    return _bits(chunk.buffers()[0], chunk)


def _bits(buffer: pa.Buffer | None, array: pa.Array) -> NDArray[np.bool_]:
    """The bits of an array in a buffer."""
    bits = np.unpackbits(np.frombuffer(buffer or b"", np.uint8), bitorder="little")
    return bits[array.offset : array.offset + len(array)].astype(np.bool_)


def _numbers(array: pa.Array, dtype: np.dtype[Any]) -> NDArray[Any]:
    data = array.buffers()[1]
    if dtype.kind == "b":
        return _bits(data, array)
    stored = (
        np.dtype("int32") if dtype == np.dtype("datetime64[D]") else np.dtype("int64" if dtype.kind == "M" else dtype)
    )
    values = np.frombuffer(data or b"", stored)[array.offset : array.offset + len(array)]
    return values.astype(np.int64, copy=False).view(dtype) if dtype.kind == "M" else values


def _nothing(dtype: np.dtype[Any]) -> Any:
    """What is under a null."""
    if dtype.kind == "M":
        return np.datetime64("NaT").astype(dtype)
    return np.array(np.nan if dtype.kind == "f" else 0, dtype)


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
