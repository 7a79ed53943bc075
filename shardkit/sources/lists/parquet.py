"""Read a list in Parquet in batches, and estimate the memory of each before it is expanded.

A Parquet file may expand to far more than its own size: by values that rows refer to by number, values that share a
prefix with the row before (DELTA_BYTE_ARRAY), or runs of one level. So texts stay references until their sizes are
summed.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from shardkit.errors import SourceError, printable
from shardkit.sources.lists.coded import numbers_of, texts_of
from shardkit.sources.lists.limits import MAX_COLUMNS, require_room, room_of

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_BATCH_ROWS = 16_384
_BATCH_BYTES = 32 << 20
"""How many bytes the rows of a batch may take before their sizes are summed, if they can't be kept as references."""


def read_parquet(path: str, place: str, *, references: bool = False) -> pa.Table:
    """Read the rows of a Parquet file. Raises SourceError if they need more memory than `room_of` its size.

    references: text that the file stores once for several rows stays so, as a column of categories.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    room = room_of(os.path.getsize(path))
    with pq.ParquetFile(path) as file:
        about, schema = file.metadata, file.schema_arrow
        if about.num_columns > MAX_COLUMNS:
            raise SourceError(place, f"it has over {MAX_COLUMNS} columns", "remove those that are not needed")
        _require_announced(about, room, place)
        texts = _by_dictionary(about)
    batches: list[pa.RecordBatch] = []
    used = rows = 0
    with pq.ParquetFile(path, read_dictionary=texts, pre_buffer=False) as file:
        target = _with_references(schema, file.schema_arrow) if references else schema
        for group in range(about.num_row_groups):
            count = _batch_rows(about.row_group(group))
            for batch in file.iter_batches(count, row_groups=[group], use_threads=False):  # batches are small
                used += sum(map(_expanded_bytes, batch.columns))
                require_room(used, rows + batch.num_rows, room, place, f"rows up to {rows + batch.num_rows}")
                rows += batch.num_rows
                batches.append(batch if batch.schema.equals(target) else batch.cast(target))
    return pa.Table.from_batches(batches, target)


def _with_references(schema: pa.Schema, read: pa.Schema) -> pa.Schema:
    """The schema of a file, with the columns of text as they are read."""
    import pyarrow as pa
    import pyarrow.types as types

    kept = [
        field.with_type(now.type) if types.is_string(field.type) and types.is_dictionary(now.type) else field
        for field, now in zip(schema, read, strict=True)
    ]
    return pa.schema(kept, schema.metadata)


def _require_announced(about: pq.FileMetaData, room: int, place: str) -> None:
    """Check the sizes in the file's metadata: rows, values, and bytes before compression."""
    used = 0
    for group in map(about.row_group, range(about.num_row_groups)):
        for at in range(group.num_columns):
            column = group.column(at)
            leaf = about.schema.column(at)
            width = max(8 if leaf.max_repetition_level else 1, leaf.length)  # length: of fixed-size values, else 0
            used += max(column.total_uncompressed_size, column.num_values * width)
            if used > room:
                name = printable(column.path_in_schema)
                require_room(used, 0, room, place, f"columns up to {name!r}")
    require_room(used, about.num_rows, room, place, "rows")


def _by_dictionary(about: pq.FileMetaData) -> list[str]:
    """The text columns with dictionary encoding: values are stored once and referred to."""
    found = set()
    for group in map(about.row_group, range(about.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            if column.physical_type == "BYTE_ARRAY" and any("DICTIONARY" in each for each in column.encodings):
                found.add(column.path_in_schema)
    return sorted(found)


def _batch_rows(group: pq.RowGroupMetaData) -> int:
    """The rows per batch: few if a value may be as long as its whole column and every row may have it."""
    sizes = [
        column.total_uncompressed_size
        for column in map(group.column, range(group.num_columns))
        if "DELTA_BYTE_ARRAY" in column.encodings
    ]
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(sizes, default=1)))


def _expanded_bytes(array: Any) -> int:
    """The size of an array in memory in bytes, after each dictionary text is copied into its rows."""
    import pyarrow.types as types

    kind = array.type
    if types.is_dictionary(kind) and (types.is_string(kind.value_type) or types.is_binary(kind.value_type)):
        if not array.null_count and (texts := texts_of(array.dictionary)) is not None:
            numbers = numbers_of(array.indices)
            return int(array.indices.nbytes + np.diff(texts.offsets)[numbers].sum())
        import pyarrow.compute as pc  # takes longer to load than most lists to read

        lengths = pc.binary_length(array.dictionary).cast("int64")
        return int(array.indices.nbytes + (pc.sum(lengths.take(array.indices)).as_py() or 0))
    if types.is_struct(kind):
        return sum(_expanded_bytes(array.field(at)) for at in range(kind.num_fields))
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return 4 * len(array) + _expanded_bytes(array.flatten())
    if types.is_map(kind):
        return 4 * len(array) + _expanded_bytes(array.keys) + _expanded_bytes(array.items)
    return int(array.nbytes)
