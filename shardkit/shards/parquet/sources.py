"""Open the Parquet files of a dataset, after a check that size and CRC-32C are those in the manifest.

The CRC-32C is checked once per file and process. A small file is read into memory; a larger one stays open, and of a
store's, only what is needed is fetched. Files are never mapped: truncating a mapped file would kill the process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from shardkit.checksums import crc32c, crc32c_of_file
from shardkit.errors import ManifestError, NotFoundError, StorageError, reason_of
from shardkit.location import Location
from shardkit.shards.corrections.block import FieldsEntry, OverlayEntry
from shardkit.shards.index import INTEGERS
from shardkit.shards.manifest import IndexEntry, ShardEntry
from shardkit.shards.objects import Objects
from shardkit.storage.ranged import RangedFile

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

INDEX_CURE = "restore it, pack again, or run 'shardkit index'"


class FileKind(msgspec.Struct, frozen=True):
    """What a Parquet file of a dataset is called in messages, and the cure for a missing or damaged one."""

    name: str
    cure: str


INDEX = FileKind("index", INDEX_CURE)

TableEntry = IndexEntry | FieldsEntry | OverlayEntry
"""What a manifest says of a Parquet file with rows of samples."""

WHOLE_BYTES = 32 << 20
"""An index file up to this size is read into memory as a whole."""

FETCHED_WHOLE_BYTES = 8 << 20
"""An index file in a store up to this size is fetched as a whole, with one request."""

_vouched: dict[str, tuple[int, ...]] = {}
"""The files whose CRC-32C was correct: path -> `_state_of` at that time, and the CRC-32C."""


@contextmanager
def source_at(
    objects: Objects,
    place: Location,
    entry: TableEntry,
    footer: int,
    what: FileKind = INDEX,
    *,
    again: bool = False,
    whole: bool = True,
) -> Iterator[tuple[pa.NativeFile, RangedFile | None]]:
    """A Parquet file at any location for pyarrow, and what fetches it, if only its parts are fetched: `open_index_at`
    has the rules, and the errors. Within the block, the `footer` last bytes are held."""
    import pyarrow as pa

    with objects.opened(place, what.name, what.cure):
        if place.is_local:
            try:
                source = source_on_disk(place.path, entry, str(place), what, again=again)
            except FileNotFoundError as exc:
                raise NotFoundError(str(place), f"the {what.name} is missing", what.cure) from exc
            ranged = None
        elif again or (whole and entry.bytes <= FETCHED_WHOLE_BYTES):
            source, ranged = _whole_source(objects, place, entry, what), None
        else:
            found = objects.info(place)
            if found.bytes != entry.bytes or found.crc32c not in (None, entry.crc32c):
                raise other_file(str(place), what)
            ranged = RangedFile(objects.store(place.parent), place.name, entry.bytes)
            source = pa.PythonFile(ranged, mode="r")
    with nullcontext() if ranged is None else ranged.holding([(max(0, entry.bytes - footer), entry.bytes)]):
        yield source, ranged


def source_on_disk(
    path: str | bytes, entry: TableEntry, place: str, what: FileKind = INDEX, *, again: bool = False
) -> pa.NativeFile:
    """A Parquet file on a disk for pyarrow, after a check of its size and CRC-32C. again: of the CRC-32C even if this
    process already did. Raises FileNotFoundError, StorageError; ManifestError if it is not the one that its manifest
    names."""
    import pyarrow as pa

    path = os.fsdecode(path)
    try:
        with open(path, "rb", buffering=0) as file:
            state = (*_state_of(file.fileno()), int(entry.crc32c, 16))
            if state[0] != entry.bytes:
                raise other_file(place, what)
            known = _vouched.get(path) == state and not again
            if not known and entry.bytes <= WHOLE_BYTES:
                with open(file.fileno(), "rb", closefd=False) as whole:
                    data = whole.read(entry.bytes + 1)
                source = index_source(data, entry, place, what)
            else:
                if not known and crc32c_of_file(file, entry.bytes) != state[-1]:
                    raise other_file(place, what)
                source = pa.OSFile(path)
                if _state_of(path) != state[:-1]:  # replaced meanwhile
                    raise other_file(place, what)
            _vouched[path] = state
    except FileNotFoundError:
        raise
    except OSError as exc:
        raise StorageError(place, exc.strerror or str(exc), "check the disk and its permissions") from exc
    return source


def _whole_source(objects: Objects, place: Location, entry: TableEntry, what: FileKind) -> pa.BufferReader:
    crc = int(entry.crc32c, 16)
    kept = objects.cache.load(str(place), entry.bytes, crc)
    if kept is not None:
        return index_source(kept, entry, str(place), what)
    for last in (False, True):  # bytes damaged in transit are fetched once more
        data = objects.whole(place, entry.bytes, FETCHED_WHOLE_BYTES)
        try:
            source = index_source(data, entry, str(place), what)
        except ManifestError:
            if last:
                raise
            continue
        objects.cache.save(str(place), data, crc)
        return source
    raise AssertionError("two turns end in a return or a raise")


def index_source(data: bytes, entry: TableEntry, place: str, what: FileKind = INDEX) -> pa.BufferReader:
    """The bytes of an index file, or another Parquet file, for pyarrow. ManifestError if they are not those in the
    manifest."""
    import pyarrow as pa

    if len(data) != entry.bytes or crc32c(data) != int(entry.crc32c, 16):
        raise other_file(place, what)
    return pa.BufferReader(data)


def other_file(place: str, what: FileKind) -> ManifestError:
    """The error for a file whose size or CRC-32C is not the one in its manifest."""
    return ManifestError(place, f"the {what.name} is not the one that its manifest names", what.cure)


def open_parquet(source: Any, **options: Any) -> pq.ParquetFile:
    """A Parquet file, the checksum of each page of which is checked when it is read. source: a pyarrow file, or what
    pyarrow opens. options: those of `pyarrow.parquet.ParquetFile`. Raises nearly anything for damaged data."""
    import pyarrow.parquet as pq

    return pq.ParquetFile(source, page_checksum_verification=True, **options)


def span_of(column: pq.ColumnChunkMetaData) -> tuple[int, int]:
    """The place in the file (first byte, end) of a column of a row group."""
    first = column.data_page_offset
    if column.has_dictionary_page and column.dictionary_page_offset is not None:
        first = min(first, column.dictionary_page_offset)
    return first, first + column.total_compressed_size


def raise_unreadable(exc: Exception, place: str, what: FileKind) -> NoReturn:
    """Raise StorageError for an error of the disk, and ManifestError for anything else that pyarrow raised."""
    if isinstance(exc, OSError) and exc.errno is not None:
        raise StorageError(place, exc.strerror or str(exc), "check the disk and its permissions") from exc
    raise ManifestError(place, f"the {what.name} is damaged ({reason_of(exc)})", what.cure) from exc


def is_index(file: Any) -> bool:
    """Whether a Parquet file (a path, or a file object) has the columns of an index. Any other file is not one."""
    try:
        with open_parquet(file) as opened:
            return {"shard", "key", "path", *INTEGERS} <= set(opened.schema_arrow.names)
    except Exception:  # pyarrow raises nearly anything for files that are not Parquet
        return False


def groups_of(source: Any, columns: Sequence[str]) -> list[ShardEntry]:
    """The shards that an index names, with their samples: for an index without a manifest.

    source: a pyarrow file. columns: those that it must have besides `shard`. Raises ValueError, and nearly anything for
    damaged data.
    """
    with open_parquet(source) as file:
        missing = {"shard", *columns}.difference(file.schema_arrow.names)
        if missing:
            raise ValueError(f"it has no column {min(missing)}")
        groups = [file.read_row_group(n, columns=["shard"]) for n in range(file.num_row_groups)]
        return [ShardEntry(group["shard"][0].as_py() if len(group) else "", len(group), 0, "") for group in groups]


def _state_of(file: int | str) -> tuple[int, int, int, int]:
    """A stamp that changes with a file's content: size, device, inode, and time of the last change."""
    status = os.stat(file)
    return status.st_size, status.st_dev, status.st_ino, status.st_mtime_ns
