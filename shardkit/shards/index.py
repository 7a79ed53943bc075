"""The index: a Parquet table with one row for each sample, one row group for each shard, in the shards' order.

    shard         dictionary<string>   the shard's file name
    key           string               the sample's key
    path          string               the file's path below the root as it was, escaped by `sample.text_of_path`
    label         int64                the class number; null if there is none
    offset, size  int64                the whole sample in the shard, headers and padding included
    image_offset, image_size  int64    the image's bytes in the shard; null if the sample has no image
    width, height int32                of the image as stored, before any EXIF rotation; 0 if not known
    crc32c        uint32               of the image's bytes

pyarrow is imported when an index is opened or written, not before.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

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


@dataclass(frozen=True, slots=True)
class ShardRows:
    """The index rows of one shard. `numbers` has the columns of INTEGERS, each of length n; `keys`, `paths`: n str."""

    shard: str
    keys: Sequence[str]
    paths: Sequence[str]
    numbers: dict[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(self.keys)


def schema() -> pa.Schema:
    """The index's Arrow schema."""
    import pyarrow as pa

    fields = [
        pa.field("shard", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
    ]
    for name, dtype in INTEGERS.items():
        fields.append(pa.field(name, pa.from_numpy_dtype(dtype), nullable=name in NULLABLE))
    return pa.schema(fields)


def write_index(sink: BinaryIO | io.BytesIO, shards: Iterable[ShardRows]) -> None:
    """Write an index file to `sink`, a row group for each of `shards`; one shard at a time is in memory."""
    import pyarrow.parquet as pq

    options: dict[str, Any] = {
        "compression": "zstd",
        "use_dictionary": ["shard", "label", "width", "height"],
        "write_page_checksum": True,
        "write_statistics": ["shard", "label", "width", "height", "size", "image_size"],
        "store_schema": True,
    }
    with pq.ParquetWriter(sink, schema(), **options) as writer:
        for rows in shards:
            writer.write_table(to_table(rows), row_group_size=max(1, len(rows)))


def to_table(rows: ShardRows) -> pa.Table:
    """The rows as an Arrow table with the index's schema."""
    import pyarrow as pa

    n = len(rows)
    shard = pa.DictionaryArray.from_arrays(np.zeros(n, np.int32), pa.array([rows.shard], pa.string()))
    columns: list[pa.Array] = [shard, pa.array(rows.keys, pa.string()), pa.array(rows.paths, pa.string())]
    for name, dtype in INTEGERS.items():
        values = np.ascontiguousarray(rows.numbers[name], dtype)
        mask = values < 0 if name in NULLABLE else None
        columns.append(pa.array(values, mask=mask))
    return pa.Table.from_arrays(columns, schema=schema())


def as_numpy(column: pa.ChunkedArray) -> NDArray[Any]:
    """A number column as a NumPy array, null as -1."""
    values: NDArray[Any] = (column.fill_null(-1) if column.null_count else column).to_numpy()
    return values


def combine(column: pa.ChunkedArray) -> pa.Array:
    """The column as one contiguous array."""
    array = column.combine_chunks()
    return array.chunk(0) if hasattr(array, "chunks") else array
