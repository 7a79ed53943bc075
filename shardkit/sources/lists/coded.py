"""Columns of a list without a Python object for each row: texts as bytes, and values by their distinct ones."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from shardkit.native import load
from shardkit.sources.columns import PathColumn

if TYPE_CHECKING:
    import pyarrow as pa

SECRET = os.urandom(16)
"""For the tables of the C extension: nobody can write a list whose texts all meet in one place."""


class Coded(Sequence[Any]):
    """The values of rows: that of row r is `distinct[codes[r]]` (int32). Each of `distinct` occurs."""

    __slots__ = ("codes", "distinct")

    def __init__(self, distinct: Sequence[Any], codes: NDArray[np.int32]) -> None:
        self.distinct, self.codes = distinct, codes

    def __len__(self) -> int:
        return len(self.codes)

    def __iter__(self) -> Iterator[Any]:
        return map(self.distinct.__getitem__, self.codes.tolist())

    @overload
    def __getitem__(self, row: int) -> Any: ...
    @overload
    def __getitem__(self, row: slice) -> Coded: ...
    def __getitem__(self, row: int | slice) -> Any:
        """The value of a row, or those of several."""
        if isinstance(row, slice):
            return coded(self.distinct[code] for code in self.codes[row].tolist())
        return self.distinct[self.codes[row]]

    def map(self, function: Callable[[Any], Any]) -> Coded:
        """The rows with `function` of each value."""
        return Coded([function(value) for value in self.distinct], self.codes)


def coded(values: Iterable[Any]) -> Coded:
    """Values of one type, which can be hashed, and None."""
    known: dict[Any, int] = {}
    codes = array("i", [known.setdefault(value, len(known)) for value in values])
    return Coded(list(known), np.frombuffer(codes, np.int32))


def coded_texts(column: pa.ChunkedArray) -> Coded:
    """The texts of a column of text, or of categories of text; None where it is null. Raises UnicodeDecodeError."""
    import pyarrow.types as of

    if column.null_count:
        return coded(column.to_pylist())
    if of.is_dictionary(column.type):
        return _categories(column)
    texts = text_column(column)
    if texts is None:
        return coded(column.to_pylist())
    codes, firsts = numbered(texts)
    return Coded([texts[row].decode() for row in firsts], codes)


def text_column(column: pa.ChunkedArray) -> PathColumn | None:
    """The UTF-8 of a column of text, or of categories of text; None if a value is null, or it is of another type."""
    import pyarrow.types as of

    if column.null_count:
        return None
    whole = column.combine_chunks()
    if of.is_dictionary(whole.type):
        values = texts_of(whole.dictionary)
        return None if values is None else PathColumn.of_strings(values.at(numbers_of(whole.indices)))
    return texts_of(whole)


def numbered(texts: PathColumn, stop: bytes = b"") -> tuple[NDArray[np.int32], Sequence[int]]:
    """Number the distinct texts of a column as they come: (the number of each row, the first row of each number).

    stop: one byte; only what is before the first of it counts.
    """
    native = load("lists")[0]
    found = None
    if native is not None:
        found = native.numbers(texts.blob, texts.offsets, SECRET, stop[0] if stop else -1)
    if found is not None:
        return np.frombuffer(found[0], np.int32), array("q", found[1])
    values = coded(text.partition(stop)[0] for text in texts) if stop else coded(texts)
    return values.codes, np.unique(values.codes, return_index=True)[1].tolist()


def _categories(column: pa.ChunkedArray) -> Coded:
    """The texts of a column of categories, of which some may not occur."""
    whole = column.combine_chunks()
    names, numbers = whole.dictionary.to_pylist(), numbers_of(whole.indices)
    codes, firsts = np.unique(numbers, return_inverse=True)
    return Coded([names[number] for number in codes.tolist()], firsts.astype(np.int32))


def texts_of(array: Any) -> PathColumn | None:
    """The UTF-8 of an Arrow array of text; None if a value is null, or it is of another type."""
    import pyarrow.types as of

    wide = of.is_large_string(array.type)
    if array.null_count or not (wide or of.is_string(array.type)):
        return None
    _, offsets, data = array.buffers()
    if not len(array):
        return PathColumn.of(())
    numbers = np.frombuffer(offsets, np.int64 if wide else np.int32)[array.offset : array.offset + len(array) + 1]
    first, last = int(numbers[0]), int(numbers[-1])
    blob = np.frombuffer(data if last > first else b"", np.uint8)[first:last]
    return PathColumn(blob, numbers.astype(np.int64) - first)


def numbers_of(array: Any) -> NDArray[np.int64]:
    """The numbers of an Arrow array of integers without nulls."""
    _, data = array.buffers()
    kind = np.dtype(str(array.type))
    return np.frombuffer(data, kind)[array.offset : array.offset + len(array)].astype(np.int64)
