"""The shards that were read and their index rows, on disk until the labels of all of them are known.

    record = head bytes (4), body bytes (8), CRC-32C of head and body (4), head, body      little-endian
    head   = what is known of the shard, as JSON; body = its rows, as an Arrow stream

With a name, the file outlasts an interruption: the next run finds the records that are whole. A cut end is dropped.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from struct import Struct
from threading import Lock
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from shardkit.checksums import crc32c
from shardkit.shards.class_names import Mixed, ShardLabels
from shardkit.shards.columns.types import PREFIX
from shardkit.shards.index import INTEGERS, SEEK, ShardRows, as_numpy, quality_array, to_table
from shardkit.shards.indexing.shard import IndexedShard
from shardkit.shards.manifest import ShardEntry
from shardkit.storage.files import translated
from shardkit.system import BINARY

if TYPE_CHECKING:
    import pyarrow as pa

SPOOL = "shards.read"
"""The file of an index that is being made, in its work folder."""

_FRAME = Struct("<IQI")


class Spool:
    """Shards and their index rows by number, in a file of `folder`. Thread-safe."""

    def __init__(
        self,
        folder: str,
        *,
        seek: bool = False,
        quality: bool = False,
        columns: Sequence[str] = (),
        name: str | None = None,
    ) -> None:
        """seek, quality: keep the seek points, the quality columns too. columns: keep these further columns, as JSON
        texts. name: of the file, which may hold shards of an earlier run; without one, the file ends with this object.
        Raises DestinationError, StorageError if the folder can't be written to."""
        self._folder, self._seek, self._quality = folder, seek, quality
        self._columns = dict.fromkeys(columns, "string")
        self._path = None if name is None else os.path.join(folder, name)
        with translated(folder):
            self._file = unnamed_file(folder) if self._path is None else _opened(self._path)
        weakref.finalize(self, self._file.close)
        self._lock = Lock()
        self._bodies: list[tuple[int, int]] = []
        self._records: list[tuple[int, int]] = []
        self._shards: list[IndexedShard] = []
        self._numbers: dict[str, int] = {}
        self._end = 0
        if name is not None:
            self._recover()

    def find(self, key: str) -> int | None:
        """The number of a shard that an earlier run, or this one, has read."""
        return self._numbers.get(key)

    def add(self, key: str, shard: IndexedShard, rows: ShardRows) -> int:
        """Keep a shard; its number. StorageError if the disk is full, DatasetError for rows that no index can hold."""
        import pyarrow as pa

        table = to_table(rows, seek=self._seek, quality=self._quality, columns=self._columns).drop_columns(["shard"])
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
            writer.write_table(table)
        head, body = _encoded(key, shard), sink.getbuffer()
        frame = _FRAME.pack(len(head), len(body), crc32c(body, crc32c(head)))
        with self._lock:
            with translated(self._folder):
                self._file.seek(self._end)
                self._file.write(b"".join((frame, head, body)))
                self._file.flush()
            return self._note(key, shard, len(head), len(body))

    def shard(self, number: int) -> IndexedShard:
        """What is known of a shard."""
        return self._shards[number]

    def rows(self, number: int) -> ShardRows:
        """The rows of a shard."""
        table = self._table(number)
        numbers: dict[str, Any] = {name: as_numpy(table[name]) for name in INTEGERS}
        seek = [points or b"" for points in table[SEEK].to_pylist()] if self._seek else None
        name = self._shards[number].entry.name
        columns = self._further(table) if self._columns else None
        quality = quality_array(table) if self._quality else None
        keys, paths = table["key"].to_pylist(), table["path"].to_pylist()
        return ShardRows(name, keys, paths, numbers, seek, columns=columns, quality=quality)

    def further(self, number: int) -> pa.Table:
        """The further columns of a shard, as JSON texts."""
        return self._further(self._table(number))

    def _further(self, table: pa.Table) -> pa.Table:
        return table.select([PREFIX + name for name in self._columns]).rename_columns(list(self._columns))

    def _table(self, number: int) -> pa.Table:
        import pyarrow as pa

        start, size = self._bodies[number]
        with self._lock, translated(self._folder):
            self._file.seek(start)
            data = self._file.read(size)
        return pa.ipc.open_stream(data).read_all()

    def bytes_of(self, numbers: Iterable[int]) -> int:
        """The bytes of some shards in the file."""
        return sum(self._records[number][1] for number in numbers)

    def copy(self, numbers: Iterable[int], file: BinaryIO) -> None:
        """Write some shards to another file, which is then a spool too."""
        for start, size in map(self._records.__getitem__, numbers):
            with self._lock, translated(self._folder):
                self._file.seek(start)
                record = self._file.read(size)
            file.write(record)

    def remove(self) -> None:
        """Remove the file, whose shards are in an index now."""
        self._file.close()
        if self._path is not None:
            with translated(self._path):
                os.unlink(self._path)

    def _note(self, key: str, shard: IndexedShard, head: int, body: int) -> int:
        self._bodies.append((self._end + _FRAME.size + head, body))
        self._records.append((self._end, _FRAME.size + head + body))
        self._shards.append(shard)
        self._numbers[key] = len(self._shards) - 1
        self._end += _FRAME.size + head + body
        return self._numbers[key]

    def _recover(self) -> None:
        with translated(self._folder):
            for head, body in _records(self._file):
                try:
                    key, shard = _decoded(head)
                except (ValueError, TypeError):  # of another version of shardkit
                    break
                self._note(key, shard, len(head), body)
            self._file.truncate(self._end)


def _records(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """(head, length of the body) of each record that is whole."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    while len(frame := file.read(_FRAME.size)) == _FRAME.size:
        head_bytes, body_bytes, crc = _FRAME.unpack(frame)
        if file.tell() + head_bytes + body_bytes > size:
            return
        head = file.read(head_bytes)
        if crc32c(file.read(body_bytes), crc32c(head)) != crc:
            return
        yield head, body_bytes


def _encoded(key: str, shard: IndexedShard) -> bytes:
    """What is known of a shard, as JSON, which also holds names that are not UTF-8."""
    labels, entry = shard.labels, shard.entry
    pairs = [(label, folder, count) for (label, folder), count in labels.pairs.items()]
    said = (pairs, list(labels.texts.items()), labels.mixed)
    named = (entry.name, entry.samples, entry.bytes, entry.crc32c)
    rest = (shard.unpacked, shard.format, shard.version, shard.undecoded)
    return json.dumps((key, named, shard.fields, said, *rest)).encode()


def _decoded(data: bytes) -> tuple[str, IndexedShard]:
    """Raises ValueError, TypeError for what another version of shardkit has written."""
    key, named, fields, (pairs, texts, mixed), *rest = json.loads(data)
    unpacked, form, version, undecoded = rest
    counts = Counter({(label, folder): count for label, folder, count in pairs})
    labels = ShardLabels(counts, dict(texts), None if mixed is None else Mixed(*mixed))
    return key, IndexedShard(ShardEntry(*named), tuple(fields), labels, unpacked, form, version, undecoded)


def _opened(path: str) -> BinaryIO:
    return cast(BinaryIO, os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | BINARY, 0o644), "r+b"))


def unnamed_file(folder: str) -> BinaryIO:
    """A new file that ends when it is closed. DestinationError or StorageError if the folder can't be written to."""
    with translated(folder):
        return cast(BinaryIO, tempfile.TemporaryFile(dir=folder))
