"""The index rows of the shards that were read, on disk until the labels of all of them are known."""

from __future__ import annotations

import io
import tempfile
import weakref
from typing import Any, BinaryIO, cast

from shardkit.shards.index import INTEGERS, SEEK, ShardRows, as_numpy, to_table
from shardkit.storage.files import translated


class RowSpool:
    """Index rows by the number of their shard, in a file without a name in `folder`, which ends with this object."""

    def __init__(self, folder: str, *, seek: bool) -> None:
        """seek: keep the seek points too. Raises DestinationError, StorageError if the folder can't be written to."""
        self._folder, self._seek = folder, seek
        self._file = unnamed_file(folder)
        weakref.finalize(self, self._file.close)
        self._ends, self._names = [0], list[str]()

    def add(self, rows: ShardRows) -> None:
        """Keep the rows of the next shard. StorageError if the disk is full."""
        import pyarrow as pa

        table = to_table(rows, seek=self._seek).drop_columns(["shard"])
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        with translated(self._folder):
            self._file.seek(self._ends[-1])
            self._file.write(sink.getbuffer())
        self._ends.append(self._ends[-1] + sink.tell())
        self._names.append(rows.shard)

    def rows(self, number: int) -> ShardRows:
        """The rows of a shard."""
        import pyarrow as pa

        with translated(self._folder):
            self._file.seek(self._ends[number])
            data = self._file.read(self._ends[number + 1] - self._ends[number])
        table = pa.ipc.open_stream(data).read_all()
        numbers: dict[str, Any] = {name: as_numpy(table[name]) for name in INTEGERS}
        seek = [points or b"" for points in table[SEEK].to_pylist()] if self._seek else None
        return ShardRows(self._names[number], table["key"].to_pylist(), table["path"].to_pylist(), numbers, seek)


def unnamed_file(folder: str) -> BinaryIO:
    """A new file that ends when it is closed. DestinationError or StorageError if the folder can't be written to."""
    with translated(folder):
        return cast(BinaryIO, tempfile.TemporaryFile(dir=folder))
