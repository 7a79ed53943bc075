"""The index: a Parquet table with one row for each sample, one row group for each shard, in the shards' order.

    shard         dictionary<string>   the shard's file name
    key           string               the sample's key
    path          string               the file's path below the root as it was, escaped by `sample.text_of_path`
    label         int64                the class number; null if there is none
    offset, size  int64                the whole sample in the shard, headers and padding included
    image_offset, image_size  int64    the image's bytes in the shard; null if the sample has no image
    width, height int32                of the image as stored, before any EXIF rotation; 0 if not known
    crc32c        uint32               of the image's bytes
    meta.NAME     columns/types.py     the further columns of a list, or null
    phash         uint64               only if they were asked for: the quality columns (shards/quality.py), or null
    brightness, sharpness, entropy  float32
    seek          binary               only if they were asked for: the image's seek points (shards/seek.py), or null

pyarrow is imported when an index is opened or written, not before.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec
import numpy as np
from numpy.typing import NDArray

from shardkit.errors import DatasetError
from shardkit.formats.columns import Strings, Texts, as_strings
from shardkit.sample import MAX_KEY_BYTES
from shardkit.shards.columns.types import PREFIX, Types, fields_of
from shardkit.shards.columns.values import whole_columns
from shardkit.shards.quality import BRIGHTNESS, ENTROPY, PHASH, QUALITY, RECORD, SHARPNESS

if TYPE_CHECKING:
    import pyarrow as pa

INTEGERS: dict[str, Any] = {
    "label": np.int64,
    "offset": np.int64,
    "size": np.int64,
    "image_offset": np.int64,
    "image_size": np.int64,
    "width": np.int32,
    "height": np.int32,
    "crc32c": np.uint32,
}
"""The number columns with their NumPy types. -1 stands for null in `label`, `image_offset` and `image_size`."""

NULLABLE = ("label", "image_offset", "image_size")

SEEK = "seek"
"""The column of seek points, which most indexes do not have."""

INDEX_SHARDS = 1024
"""Row groups in one index file. Its footer, read as a whole, then stays under about 2 MB."""

TEXT_BYTES = 16 << 10
"""The maximum bytes of a key or path: a path has 4,096, and each byte may be escaped."""


SHOWN_KEY = 40
"""The characters of a key that is too long which a message shows."""

QUALITY_TYPES = np.dtype([(PHASH, "<u8"), (BRIGHTNESS, "<f4"), (SHARPNESS, "<f4"), (ENTROPY, "<f4")])
"""The quality columns, which most indexes do not have, as the fields of one array: NaN stands for null."""

assert QUALITY_TYPES.itemsize == RECORD.size


class ShardRows(msgspec.Struct, frozen=True):
    """The index rows of one shard. `numbers` has the columns of INTEGERS, each of length n; `keys`, `paths`: of
    each row. seek: the seek points of each image, b"" for one that has none; None if they were not asked for.
    columns: further columns by NAME, of the types of the index or fitting them; None if there are none. quality: an
    array of QUALITY_TYPES; None if it was not asked for."""

    shard: str
    keys: Texts
    paths: Texts
    numbers: dict[str, NDArray[Any]]
    seek: Sequence[bytes] | None = None
    columns: pa.Table | None = None
    quality: NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(self.keys)


def schema(*, seek: bool = False, columns: Types | None = None, quality: bool = False) -> pa.Schema:
    """The index's Arrow schema. seek: with the column of seek points. columns: further columns. quality: with the
    quality columns."""
    import pyarrow as pa

    fields = [
        pa.field("shard", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
    ]
    for name, dtype in INTEGERS.items():
        fields.append(pa.field(name, pa.from_numpy_dtype(dtype), nullable=name in NULLABLE))
    fields += fields_of(columns or {})
    if quality:
        fields += [pa.field(name, pa.from_numpy_dtype(QUALITY_TYPES[name])) for name in QUALITY]
    if seek:
        fields.append(pa.field(SEEK, pa.binary()))
    return pa.schema(fields)


def write_index(
    sink: BinaryIO | io.BytesIO,
    shards: Iterable[ShardRows],
    *,
    seek: bool = False,
    columns: Types | None = None,
    quality: bool = False,
) -> None:
    """Write an index file to `sink`, a row group for each of `shards`; one shard at a time is in memory.

    seek, columns, quality: as in `schema`; null for shards without them. ValueError for a value that does not fit its
    column.
    """
    with index_writer(sink, seek=seek, columns=columns, quality=quality) as add:
        for rows in shards:
            add(rows)


@contextmanager
def index_writer(
    sink: BinaryIO | io.BytesIO, *, seek: bool = False, columns: Types | None = None, quality: bool = False
) -> Iterator[Callable[[ShardRows], None]]:
    """A function that writes the row group of the next shard to `sink`; the end of the block completes the file. The
    rest is as in `write_index`."""
    looks: dict[str, Any] = {"seek": seek, "columns": columns, "quality": quality}
    with table_writer(sink, schema(**looks)) as write:
        yield lambda rows: write(to_table(rows, **looks))


@contextmanager
def table_writer(sink: BinaryIO | io.BytesIO, of: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    """A function that writes a table with this schema, that of an index, as the row group of the next shard."""
    import pyarrow.parquet as pq

    options: dict[str, Any] = {
        "compression": "zstd",
        "use_dictionary": ["shard", "label", "width", "height"],
        "write_page_checksum": True,
        "write_statistics": [*STATISTICS, *(field.name for field in of if _is_summed(field))],
        "store_schema": True,
    }
    with pq.ParquetWriter(sink, of, **options) as writer:
        yield lambda table: writer.write_table(table, max(1, len(table)))


STATISTICS = ("shard", "label", "width", "height", "size", "image_size")
"""The columns of which the smallest and largest value of each shard are stored, besides further ones of numbers, truth
values, dates and times."""


def _is_summed(field: pa.Field) -> bool:
    import pyarrow as pa

    return field.name.startswith(PREFIX) and not (pa.types.is_string(field.type) or pa.types.is_nested(field.type))


def to_table(rows: ShardRows, *, seek: bool = False, columns: Types | None = None, quality: bool = False) -> pa.Table:
    """The rows as an Arrow table with the index's schema. seek, columns, quality: as in `schema`.

    Raises DatasetError for a key or path that is too long, which readers would refuse.
    """
    import pyarrow as pa

    n = len(rows)
    keys, paths = as_strings(rows.keys), as_strings(rows.paths)
    _require_short(rows, "key", keys, keys, MAX_KEY_BYTES)
    _require_short(rows, "path", paths, keys, TEXT_BYTES)
    zeros = pa.Array.from_buffers(pa.int32(), n, [None, pa.py_buffer(bytes(4 * n))])
    shard = pa.DictionaryArray.from_arrays(zeros, _strings(Strings.of_texts([rows.shard])))
    arrays: list[pa.Array] = [shard, _strings(keys), _strings(paths)]
    for name, dtype in INTEGERS.items():
        values = np.ascontiguousarray(rows.numbers[name], dtype)
        null = values < 0 if name in NULLABLE else np.zeros(0, bool)
        valid = pa.py_buffer(np.packbits(~null, bitorder="little")) if null.any() else None
        arrays.append(pa.Array.from_buffers(pa.from_numpy_dtype(dtype), n, [valid, pa.py_buffer(values)]))
    arrays += whole_columns(rows.columns, columns or {}, n)
    if quality:
        arrays += _quality_columns(rows.quality, n)
    if seek:
        arrays.append(pa.array([points or None for points in rows.seek or ()] or [None] * n, pa.binary()))
    return pa.Table.from_arrays(arrays, schema=schema(seek=seek, columns=columns, quality=quality))


def _require_short(rows: ShardRows, what: str, texts: Strings, keys: Strings, limit: int) -> None:
    """DatasetError for the first text of more than `limit` bytes."""
    sizes = np.diff(np.frombuffer(texts.offsets, np.int64))
    for row in np.flatnonzero(sizes > limit).tolist():
        fact = f"a {what} has {sizes[row]:,} bytes, and an index holds at most {limit:,}"
        offset = int(rows.numbers["offset"][row])
        cure = "rename the sample with 'shardkit repair'"
        raise DatasetError(rows.shard, fact, cure, offset, f"{keys[row].decode()[:SHOWN_KEY]}…")


def _quality_columns(values: NDArray[Any] | None, count: int) -> list[pa.Array]:
    import pyarrow as pa

    if values is None:
        return [pa.nulls(count, pa.from_numpy_dtype(QUALITY_TYPES[name])) for name in QUALITY]
    known = ~np.isnan(values[BRIGHTNESS])
    valid = None if known.all() else pa.py_buffer(np.packbits(known, bitorder="little"))
    return [
        pa.Array.from_buffers(
            pa.from_numpy_dtype(QUALITY_TYPES[name]),
            count,
            [valid, pa.py_buffer(np.ascontiguousarray(values[name]))],
        )
        for name in QUALITY
    ]


def quality_array(columns: pa.Table) -> NDArray[Any]:
    """The quality columns of a table as an array of QUALITY_TYPES, NaN for null."""
    found = np.zeros(len(columns), QUALITY_TYPES)
    known = np.ones(len(columns), np.bool_)
    for name in QUALITY:
        column = combine(columns[name])
        first, last = column.offset, column.offset + len(column)
        valid, data = column.buffers()
        found[name] = np.frombuffer(data or b"", QUALITY_TYPES[name])[first:last]
        if column.null_count:
            known &= np.unpackbits(np.frombuffer(valid, np.uint8), bitorder="little")[first:last].astype(np.bool_)
    found[~known] = (0, np.nan, np.nan, np.nan)
    return found


def _strings(texts: Strings) -> pa.Array:
    """Texts as an Arrow array."""
    import pyarrow as pa

    if len(texts.data) > np.iinfo(np.int32).max:
        raise pa.ArrowCapacityError(f"{len(texts.data)} bytes of text in one column of a shard")
    offsets = np.frombuffer(texts.offsets, np.int64).astype(np.int32)
    return pa.Array.from_buffers(pa.string(), len(texts), [None, pa.py_buffer(offsets), pa.py_buffer(texts.data)])


def as_numpy(column: pa.ChunkedArray | pa.Array) -> NDArray[Any]:
    """A column of integers as a NumPy array, null as -1.

    From the buffers, since `to_numpy` and `fill_null` load pandas and `pyarrow.compute`, which take longer than most
    indexes.
    """
    array = combine(column)
    valid, data = array.buffers()
    first, last = array.offset, array.offset + len(array)
    values: NDArray[Any] = np.frombuffer(data or b"", np.dtype(str(array.type)))[first:last]
    if not array.null_count:
        return values
    bits = np.unpackbits(np.frombuffer(valid, np.uint8), bitorder="little")[first:last]
    return np.where(bits, values, values.dtype.type(-1))


def combine(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """The column as one contiguous array."""
    array = column.combine_chunks() if hasattr(column, "combine_chunks") else column
    return array.chunk(0) if hasattr(array, "chunks") else array
