"""A file of added fields: values of further columns for some samples, a row for each. It is a Parquet file.

    shard      int32               number of the shard, rising
    row        int32               number of the sample in its shard as packed, rising within the shard
    key        string              the sample's key, for people and for joins: readers go by the numbers
    meta.NAME  columns/types.py    the value; null: the sample keeps what it had

A version has some of these files, in the order in which they were written. A sample has the value of the last one that
gives it one, otherwise that of the index, otherwise null. Row groups end where a shard does, and the file's metadata
says which shards are where ("0-16,17-33"), so that a reader of some shards reads some row groups. (Its statistics say
that too, but pyarrow ends the process when it reads damaged ones.)
"""

from __future__ import annotations

import io
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from itertools import pairwise
from threading import RLock
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from shardkit.errors import ManifestError, ShardkitError
from shardkit.shards.columns.arrays import present
from shardkit.shards.columns.types import PREFIX, TEXT_BYTES, Types, column_type, fields_of, known_types
from shardkit.shards.columns.values import fitted_column
from shardkit.shards.corrections.block import FieldsEntry
from shardkit.shards.index import TEXT_BYTES as KEY_BYTES
from shardkit.shards.index import as_numpy
from shardkit.shards.parquet.sources import FileKind, open_parquet, raise_unreadable, span_of
from shardkit.storage.ranged import RangedFile

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = b"shardkit.fields"
VERSION = b"1"

SHARDS = b"shardkit.fields.shards"

CURE = "restore it, or open another version: NAME@N"

FIELDS = FileKind("file of added fields", CURE)

GROUP_ROWS = 1 << 14
"""The rows of a row group, and those that are left of its last shard."""

GROUP_BYTES = 150
"""About the bytes of a file's own description for a column of a row group."""

KEPT_BYTES = 64 << 20
"""The bytes of row groups of a file that are kept, at least one group."""

_PLACE = ("shard", "row")


def encode_fields(places: NDArray[np.int64], keys: pa.Array, values: pa.Table, types: Types) -> bytes:
    """The file. places: shard << 32 | row, rising (int64, n). keys: strings (n). values: the columns `types` by NAME (n
    rows each)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays = [pa.array((places >> 32).astype(np.int32)), pa.array((places & 0xFFFFFFFF).astype(np.int32)), keys]
    ends = list(_ends(places))
    shards = (f"{places[first] >> 32}-{places[stop - 1] >> 32}" for first, stop in pairwise(ends))
    schema = _schema(types).with_metadata({FORMAT: VERSION, SHARDS: ",".join(shards).encode()})
    table = pa.Table.from_arrays([*arrays, *(values[name] for name in types)], schema=schema)
    sink = io.BytesIO()
    options: dict[str, Any] = {
        "compression": "zstd", "use_dictionary": False, "write_page_checksum": True, "write_statistics": False,
        "column_encoding": dict.fromkeys(_PLACE, "DELTA_BINARY_PACKED"),
    }  # fmt: skip
    with pq.ParquetWriter(sink, schema, **options) as writer:
        for start, stop in pairwise(ends):
            writer.write_table(table.slice(start, stop - start), stop - start)
    return sink.getvalue()


def _schema(types: Types) -> pa.Schema:
    import pyarrow as pa

    numbers = [pa.field(name, pa.int32(), nullable=False) for name in _PLACE]
    return pa.schema([*numbers, pa.field("key", pa.string(), nullable=False), *fields_of(types)])


def _ends(places: NDArray[np.int64]) -> Iterator[int]:
    """Where row groups begin and end: with a shard, after GROUP_ROWS."""
    shards = places >> 32
    yield 0
    at = 0
    while at + GROUP_ROWS < len(places):
        at = int(np.searchsorted(shards, shards[at + GROUP_ROWS - 1], side="right"))
        yield at
    if at < len(places):
        yield len(places)


class FieldsFile:
    """An open file of added fields. Thread-safe. Its methods raise ManifestError for a file that is damaged.

    names: its columns as in the index, of the types that this version knows.
    """

    def __init__(
        self,
        source: Any,
        entry: FieldsEntry,
        samples: Sequence[int],
        *,
        place: str,
        ranged: RangedFile | None = None,
    ) -> None:
        """source: a pyarrow file whose size and CRC-32C have been checked. samples: those in each shard as packed.
        place: its name in messages. ranged: what fetches it, if only its parts are fetched."""
        self.place, self.entry, self._ranged = place, entry, ranged
        self.names = {PREFIX + name: text for name, text in known_types(entry.columns).items()}
        self._samples = np.array(samples, np.int64)
        self._kept: OrderedDict[int, dict[str, Any]] = OrderedDict()
        self._lock = RLock()
        try:
            self._file = open_parquet(source, pre_buffer=False)
            self._require_version()
            self._require_columns()
            self._firsts, self._lasts = self._shards_of_groups()
        except ShardkitError:
            raise
        except Exception as exc:  # pyarrow raises nearly anything on damaged data
            self._unreadable(exc)

    def __len__(self) -> int:
        return self.entry.rows

    def values(self, shards: NDArray[np.int64], names: Sequence[str]) -> tuple[NDArray[np.int64], pa.Table]:
        """(shard << 32 | row as packed, the columns) of the samples in some shards that have any, rising. shards: their
        numbers, rising."""
        import pyarrow as pa

        at = np.searchsorted(self._lasts, shards)
        inside = at < len(self._lasts)
        at, shards = at[inside], shards[inside]
        there = self._firsts[at] <= shards
        at, shards = at[there], shards[there]
        places, tables = [np.zeros(0, np.int64)], []
        for group in np.unique(at).tolist():
            found, table = self.group(group, names)
            wanted = np.isin(found >> 32, shards[at == group])
            if not wanted.all():
                found, table = found[wanted], table.take(pa.array(np.flatnonzero(wanted)))
            places.append(found)
            tables.append(table)
        kinds = pa.schema([pa.field(name, column_type(self.names[name])) for name in names])
        return np.concatenate(places), pa.concat_tables(tables) if tables else kinds.empty_table()

    @property
    def groups(self) -> int:
        """The number of its row groups."""
        return len(self._firsts)

    def group(self, group: int, names: Sequence[str]) -> tuple[NDArray[np.int64], pa.Table]:
        """(shard << 32 | row as packed, the columns) of a row group; `key` is one of its columns too."""
        import pyarrow as pa

        with self._lock:
            kept = self._kept.setdefault(group, {})
            self._kept.move_to_end(group)
            missing = [name for name in names if name not in kept]
            if missing or "places" not in kept:
                table = self._read(group, [*missing, *(() if "places" in kept else _PLACE)])
                kept |= {name: table[name] for name in missing}
                if "places" not in kept:
                    kept["places"] = self._places(group, table)
            found = kept["places"], pa.table({name: kept[name] for name in names})
            while len(self._kept) > 1 and self._size() > KEPT_BYTES:
                self._kept.popitem(last=False)
            return found

    def _size(self) -> int:
        return sum(column.nbytes for kept in self._kept.values() for column in kept.values())

    def _read(self, group: int, names: Sequence[str]) -> pa.Table:
        about = self._file.metadata.row_group(group)
        numbers = {name: at for at, name in enumerate(self._file.schema_arrow.names)}  # no column is nested deeper
        columns = {name: about.column(numbers[name]) for name in names}
        for name, column in columns.items():
            self._require_bounded(name, column, about.num_rows)
        try:
            spans = [span_of(column) for column in columns.values()]
            with nullcontext() if self._ranged is None else self._ranged.holding(spans):
                table = self._file.read_row_group(group, columns=list(names), use_threads=False).select(list(names))
            if len(table) != about.num_rows:
                raise ValueError(f"{len(table)} rows where {about.num_rows} are expected")
        except ShardkitError:
            raise
        except Exception as exc:  # as above
            self._unreadable(exc)
        return table

    def _places(self, group: int, table: pa.Table) -> NDArray[np.int64]:
        """The places of a row group's rows. ManifestError unless they rise, and are those of samples."""
        shards, rows = (as_numpy(table[name]).astype(np.int64) for name in _PLACE)
        places: NDArray[np.int64] = shards << 32 | rows
        limits = self._firsts[group], self._lasts[group]
        if not len(rows) or (shards[0], shards[-1]) != limits or rows.min() < 0:
            self._unreadable(ValueError("its row groups have other shards than it says"))
        if not bool(np.all(np.diff(places) > 0)):
            self._unreadable(ValueError("its rows are not in order"))
        if bool((rows >= self._samples[shards]).any()):
            raise ManifestError(self.place, "it has values for samples that the shards do not have", CURE)
        return places

    def _shards_of_groups(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The first and the last shard of each row group."""
        about = self._file.metadata
        limits = re.findall(rb"([0-9]{1,9})-([0-9]{1,9})", (about.metadata or {}).get(SHARDS, b""))
        if len(limits) != about.num_row_groups:
            raise ValueError("it does not say which shards are where")
        firsts, lasts = (np.array([int(pair[end]) for pair in limits], np.int64) for end in (0, 1))
        if len(limits) and ((firsts > lasts).any() or (firsts[1:] <= lasts[:-1]).any()):
            raise ValueError("its shards are not in order")
        if len(limits) and lasts[-1] >= len(self._samples):
            raise ManifestError(self.place, "it has values for shards that the dataset does not have", CURE)
        return firsts, lasts

    def _require_version(self) -> None:
        version = (self._file.metadata.metadata or {}).get(FORMAT, b"")
        if version != VERSION:
            shown = version.decode(errors="replace") or "?"
            fact = f"the file of added fields has version {shown}, and this shardkit reads 1"
            raise ManifestError(self.place, fact, "install a newer shardkit")
        if self._file.metadata.num_rows != self.entry.rows:
            raise ValueError(f"it has {self._file.metadata.num_rows} rows, and {self.entry.rows} are expected")

    def _require_columns(self) -> None:
        found = self._file.schema_arrow
        for wanted in _schema({name.removeprefix(PREFIX): text for name, text in self.names.items()}):
            if found.names.count(wanted.name) != 1 or found.field(wanted.name).type != wanted.type:
                raise ValueError(f"it has no column {wanted.name!r} of the type {wanted.type}")
        if found.names[0] != "shard" or len(self._file.metadata.schema) != len(found.names):
            raise ValueError("it has other columns than its version says")

    def _require_bounded(self, name: str, column: Any, rows: int) -> None:
        """ManifestError for a column that may expand to far more than its bytes."""
        if name in _PLACE:
            return
        others = set(column.encodings) - {"PLAIN", "RLE", "BIT_PACKED"}
        most = KEY_BYTES if name == "key" else TEXT_BYTES
        texts = name == "key" or self.names[name] == "string"
        if others or (texts and column.total_uncompressed_size > (rows + 1) * most):
            size = f"{column.total_uncompressed_size} bytes as {', '.join(sorted(column.encodings))}"
            self._unreadable(ValueError(f"its column {name!r} has {size} for {rows} samples"))

    def _unreadable(self, exc: Exception) -> NoReturn:
        raise_unreadable(exc, self.place, FIELDS)


class AppliedFields:
    """Added fields as readers of an index file apply them.

    by_name: the fields with their types, those of the manifest; types: the same by the names of the index.
    """

    def __init__(
        self, entries: Sequence[FieldsEntry], opened: Callable[[int], FieldsFile], columns: Types, first: int
    ) -> None:
        """entries: the files in their order. opened: opens one by its number. columns: all further columns of the
        dataset. first: the index file's first shard."""
        self._entries, self._opened, self._first = entries, opened, first
        given = {name for entry in entries for name in entry.columns}
        self.by_name = {name: text for name, text in columns.items() if name in given}
        self.types = {PREFIX + name: text for name, text in self.by_name.items()}

    def table(self, table: pa.Table, names: Sequence[str], groups: Sequence[int], sizes: Sequence[int]) -> pa.Table:
        """The columns `names` of some shards. table: those that the index file has. sizes: the shards' samples."""
        import pyarrow as pa

        found = {name: table[name] for name in names if name in table.column_names}
        added = [name for name in names if name in self.types]
        if added:
            for name, mixed in self._mixed(added, groups, sizes).items():
                own = found.get(name)
                text = self.types[name]
                base = pa.nulls(len(table), column_type(text)) if own is None else fitted_column(own, text)
                found[name] = mixed.column(base)
        return pa.Table.from_arrays([found[name] for name in names], list(names))

    def _mixed(self, names: Sequence[str], groups: Sequence[int], sizes: Sequence[int]) -> dict[str, MixedColumn]:
        shards, counts = np.array(groups, np.int64) + self._first, np.array(sizes, np.int64)
        begins, order = np.cumsum(counts) - counts, np.argsort(shards)
        rising = shards[order]
        mixed = {name: MixedColumn(self.types[name], int(counts.sum())) for name in names}
        for number, entry in enumerate(self._entries):
            there = [name for name in names if name.removeprefix(PREFIX) in entry.columns]
            if not there:
                continue
            places, values = self._opened(number).values(rising, there)
            at = begins[order[np.searchsorted(rising, places >> 32)]] + (places & 0xFFFFFFFF)
            for name in there:
                mixed[name].add(at, values[name])
        return mixed


class MixedColumn:
    """A column of which each value is the last one that was given."""

    def __init__(self, text: str, rows: int) -> None:
        self._text = text
        self._whole: Any = None
        self._parts: list[Any] = []
        self._which = np.arange(rows)
        self._count = rows

    def add(self, at: NDArray[np.int64], values: pa.ChunkedArray) -> None:
        """Give values to the rows `at`; null gives nothing."""
        values = fitted_column(values, self._text)
        some = present(values)
        if some is None and len(at) == len(self._which) and bool((at == np.arange(len(at))).all()):
            self._whole, self._parts, self._count = values, [], len(at)
            self._which = np.arange(len(at))
            return
        numbers = np.arange(self._count, self._count + len(values))
        self._which[at if some is None else at[some]] = numbers if some is None else numbers[some]
        self._parts.append(values)
        self._count += len(values)

    def column(self, base: Any) -> pa.ChunkedArray:
        """The column. base: the values of rows that were given none."""
        import pyarrow as pa

        whole = base if self._whole is None else self._whole
        if not self._parts:
            return whole if isinstance(whole, pa.ChunkedArray) else pa.chunked_array([whole])
        chunks = [chunk for part in (whole, *self._parts) for chunk in getattr(part, "chunks", [part])]
        return pa.chunked_array([pa.concat_arrays(chunks).take(pa.array(self._which))])
