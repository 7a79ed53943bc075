"""The contents of a dataset by row (0 … N - 1, in the order of the shards), as blocks of samples.

A catalog knows its counts at once, reads the index rows of a shard when they are needed, and keeps those of the shards
in use. It opens no shard before a sample's bytes are requested.
"""

from __future__ import annotations

import threading
import weakref
import zlib
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from hashlib import blake2b
from itertools import accumulate, groupby
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from shardkit.errors import DamagedError, ManifestError
from shardkit.formats.format import format_named, require_names_fit
from shardkit.formats.tfrecord.samples import FieldNames
from shardkit.location import Location
from shardkit.reading.batches.labels import FIELD, Kind
from shardkit.reading.blocks.block import Labels, Rows
from shardkit.reading.blocks.held import COLUMNS, ShardAccess, Table, split_rows
from shardkit.reading.blocks.indexed import IndexBlock
from shardkit.reading.blocks.mapped import MappedAccess
from shardkit.sample import IMAGE_FIELDS
from shardkit.shards.buffers import ShardFile
from shardkit.shards.columns.arrays import Values, gathered, values_of
from shardkit.shards.columns.ranges import Holds
from shardkit.shards.columns.types import PREFIX, Types, fields_of
from shardkit.shards.corrections.overlay import AppliedOverlay, Overlay
from shardkit.shards.corrections.read import AddedFields, completed_tables, read_overlay
from shardkit.shards.index import schema
from shardkit.shards.index_file import IndexFile, index_entries, open_index_at
from shardkit.shards.manifest import CORRECTED_VERSION, Manifest
from shardkit.shards.objects import Objects
from shardkit.shards.parquet.sources import INDEX_CURE
from shardkit.shards.quality import QUALITY
from shardkit.storage.access import Remote
from shardkit.storage.mapping import Mapping
from shardkit.storage.node_files import shared_array

if TYPE_CHECKING:
    import pyarrow as pa

KEPT_SHARDS = 48
KEPT_ROWS = 500_000
"""The index rows that are kept: those of this many shards in use, or of more small ones, up to this many rows (100
bytes each). A shuffle of 10,000 samples through shards of 200, or of many lanes, has far more than 48 in use."""

SHARED_BYTES = 4 << 20
"""A column of all rows from this size on is kept in a file that the processes of this machine share."""

TABLE_COLUMNS = (*COLUMNS, "key")

INDEX_BYTES, KEPT_INDEXES = 96 << 20, 128
"""The index files that are kept open, at least one: up to this memory, and as many files. One of 1,024 shards takes
10 MiB, and 14 ms to open again."""


class IndexCatalog:
    """A dataset with manifest and index. `shards` limits it to some of the manifest's shards. `remote`: how to read a
    store.

    verify: None checks the CRC-32C of each decoded image, and of those others for which the format or a store requires
    it; True also that of each whole shard, when it is first opened; False only what the format or a store requires.
    """

    def __init__(
        self,
        manifest: Manifest,
        location: Location,
        *,
        shards: Sequence[int] | None = None,
        verify: bool | None = None,
        tables: int | None = None,
        names: FieldNames | None = None,
        remote: Remote | None = None,
    ) -> None:
        self.format = format_named(manifest.shard_format, str(location))
        require_names_fit(self.format, names, str(location))
        self.names = names
        self.manifest = manifest
        self.location = location
        self.numbers = list(range(len(manifest.shards))) if shards is None else list(shards)
        entries = [manifest.shards[number] for number in self.numbers]
        self.counts = np.array(manifest.counts, np.int64)[self.numbers]
        self.classes = manifest.classes
        self.fields = manifest.fields
        self.mean_bytes = max(1, sum(entry.bytes for entry in entries) // max(1, int(self.counts.sum())))
        self.identity = f"{manifest.plan or _digest(manifest)}:{_ranges(self.numbers)}"
        unpacked = manifest.unpacked_bytes
        versions, beside = manifest.shard_versions, manifest.shards_beside(location)
        files = [
            ShardFile(
                beside.sibling(entry.name),
                entry.bytes,
                int(entry.crc32c or "-1", 16),
                unpacked[number],
                versions[number],
            )
            for entry, number in zip(entries, self.numbers, strict=True)
        ]
        if tables is None:
            tables = max(KEPT_SHARDS, KEPT_ROWS * len(entries) // max(1, int(self.counts.sum())))
        self._objects = Objects(remote)
        self.access = _access_to(beside, files, self._objects, bool(verify), KEPT_SHARDS if any(unpacked) else tables)
        self.prefetch = self.access.prefetch
        self.urls = [file.url for file in files]
        self.image_fields = [name for name in manifest.fields if name in IMAGE_FIELDS]
        others = [name for name in manifest.fields if name not in IMAGE_FIELDS]
        packed = manifest.one_image_each  # whose path tells the field
        self.summed = manifest.has_checksums
        """Whether the index has checksums. Without them, a sample is read as a whole, and proves that it is the right
        one by its key, in TFRecord also by the checksums of its record."""
        self.plain = (
            self.summed and names is None and others in (["cls"], []) and (packed or len(self.image_fields) == 1)
        )
        self.checked_raw = self.summed and (self.format.checks_itself or self.access.unsure)
        """Whether images that are not decoded are checked: if the format has its own checksums, or a store may send
        wrong bytes."""
        self.checked = self.checked_raw or (self.summed and verify is not False)
        """Whether decoded images are checked."""
        self._verify = bool(verify)
        self._first = np.concatenate([[0], np.cumsum(self.counts)])
        self.starts = self._first[[0, -1]]
        self._tables: OrderedDict[int, Table] = OrderedDict()
        self._limit = tables
        self._labels: Labels | None = None
        self._key_sums: NDArray[np.uint32] | None = None
        self._entries = list(index_entries(manifest))
        self._part_ends = list(accumulate(entry.shards for entry in manifest.index))
        self._corrected: tuple[Overlay | None, AddedFields] | None = None
        self._indexes: OrderedDict[int, IndexFile] = OrderedDict()
        self._whole = sum(entry.bytes for entry, _ in self._entries) <= INDEX_BYTES
        self._lock = threading.RLock()

    @property
    def kind(self) -> Kind:
        """The kind of the labels."""
        return cast(Kind, self.manifest.labels) if self.manifest.labels in ("multi", "number") else ""

    @property
    def corrects_targets(self) -> bool:
        """Whether labels that are not class numbers may be corrected."""
        return self.kind != "" and self.manifest.version >= CORRECTED_VERSION

    @property
    def one_image_each(self) -> bool:
        """Whether each sample is one image with a label of some kind."""
        fields = set(self.fields) - {FIELD}
        return self.plain or (self.kind != "" and len(fields) == 1 and fields <= IMAGE_FIELDS)

    def files(self) -> Sequence[ShardFile]:
        """The shards, by number."""
        return self.access.shards.files

    def labels(self) -> Labels:
        """The labels of all rows."""
        with self._lock:
            if self._labels is None:
                kind = np.dtype(np.min_scalar_type(-max(1, len(self.classes))))
                self._labels = self._shared("labels", kind, self._read_labels) if self.classes else self._read_labels()
            return self._labels

    def _shared(self, what: str, dtype: np.dtype[Any], make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """An array of all rows, in memory once for all processes of this machine if it is large."""
        if self._verify or int(self.counts.sum()) * dtype.itemsize < SHARED_BYTES:
            return make()
        rows = "\0".join(f"{self.manifest.shards[n].name} {self.manifest.shards[n].samples}" for n in self.numbers)
        files = "\0".join(f"{entry.shards} {entry.bytes} {entry.crc32c}" for entry, _ in self._entries)
        corrections = self.manifest.corrections
        if corrections is not None and corrections.overlay is not None:
            files += f"\0{corrections.overlay.bytes} {corrections.overlay.crc32c}"
        text = f"{_ranges(self.numbers)}\0{len(self.classes)}\0{rows}\0{files}"
        return shared_array(f"{what}-1-{blake2b(text.encode(), digest_size=16).hexdigest()}", dtype, make)

    def _read_labels(self) -> Labels:
        found: Labels = np.empty(int(self.counts.sum()), np.min_scalar_type(-max(1, len(self.classes))))
        at = 0
        for index, groups in self._parts():
            for part in index.numbers("label", groups):
                highest = int(part.max(initial=-1))
                if self.classes and highest >= len(self.classes):  # classes are counted by label
                    fact = f"the index has the label {highest}, but the manifest has {len(self.classes)} classes"
                    raise ManifestError(str(self.location), fact, INDEX_CURE)
                if highest > np.iinfo(found.dtype).max:  # without classes, the highest label is not known before
                    found = found.astype(np.min_scalar_type(-1 - highest))
                found[at : at + len(part)] = part
                at += len(part)
        return found

    def index_schema(self) -> pa.Schema:
        """The names and types of the index's columns."""
        import pyarrow as pa

        types, quality = self.manifest.columns, self.manifest.quality_columns
        if not self.numbers:
            return schema(columns=types, quality=quality)
        found = self._index(self._row_group(self.numbers[0])[0]).schema
        further = fields_of(types)
        gone = {field.name for field in further} | (set() if quality else set(QUALITY))  # not all files have these
        return pa.schema([*(field for field in found if field.name not in gone), *further])

    def index_tables(self, names: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The index in parts."""
        wanted = self.index_schema().names if names is None else names
        if not self.manifest.columns:
            return (table for index, groups in self._parts() for table in index.tables(wanted, groups))
        places = [self._row_group(number) for number in self.numbers]
        return self._tables_of(wanted, self.manifest.columns, places)

    def _tables_of(self, names: Sequence[str], types: Types, places: Sequence[tuple[int, int]]) -> Iterator[pa.Table]:
        """Columns of the row groups at these places, in parts. A further column that was added later is null in the
        files before."""
        for index, groups in self._parts(places):
            yield from completed_tables(index, names, types, groups, str(self.location))

    def candidates(self, names: Sequence[str], holds: Holds) -> Iterator[tuple[Rows, pa.Table]]:
        """(rows, their columns of these names) in parts, without the shards that `holds` rules out."""
        places = [self._row_group(number) for number in self.numbers]
        held: list[bool] = []
        for index, groups in self._parts(places):
            held += holds([index.ranges(group, names) for group in groups])
        shards = np.flatnonzero(held)
        tables = self._tables_of(names, self.manifest.columns, [places[shard] for shard in shards.tolist()])
        return _with_rows(tables, self._first[shards], self.counts[shards])

    def rows_of(self, key: str) -> list[int]:
        """The row of a key, found by the checksums of all keys, which are kept from the first call on."""
        with self._lock:
            if self._key_sums is None:
                self._key_sums = self._shared("keys", np.dtype(np.uint32), self._read_key_sums)
        for row in np.flatnonzero(self._key_sums == key_sum(key)).tolist():
            shard = int(np.searchsorted(self._first, row, side="right")) - 1
            if self.table(shard).key[row - int(self._first[shard])].as_py() == key:
                return [row]
        return []

    def _read_key_sums(self) -> NDArray[np.uint32]:
        found, at = np.empty(int(self.counts.sum()), np.uint32), 0
        for table in self.index_tables(["key"]):
            found[at : at + len(table)] = key_sums(table["key"])
            at += len(table)
        return found

    def _parts(self, places: Iterable[tuple[int, int]] | None = None) -> Iterator[tuple[IndexFile, list[int]]]:
        """(index file, row groups in it) for all rows, or these row groups, in order."""
        if places is None:
            places = (self._row_group(number) for number in self.numbers)
        for part, group in groupby(places, key=lambda place: place[0]):
            yield self._index(part), [row_group for _, row_group in group]

    def block(self, rows: Rows) -> IndexBlock:
        """The samples at these rows, with their index rows."""
        return IndexBlock(self, rows, *split_rows(self._first, rows))

    def table(self, shard: int) -> Table:
        """The index rows of a shard. Raises ManifestError if the index does not match."""
        with self._lock:
            found = self._tables.get(shard)
            if found is None:
                found = self._tables[shard] = self._read_table(shard)
                while len(self._tables) > self._limit:
                    self._tables.popitem(last=False)
            else:
                self._tables.move_to_end(shard)
            return found

    def tables(self, shards: Sequence[int]) -> list[Table]:
        """The index rows of some shards, ascending. Those of a store that are missing are fetched at the same time."""
        with self._lock:
            missing = [self._row_group(self.numbers[shard]) for shard in shards if shard not in self._tables]
            with ExitStack() as held:
                if not self.location.is_local and len(missing) > 1:
                    for part, group in groupby(missing, key=lambda place: place[0]):
                        held.enter_context(self._index(part).fetched([number for _, number in group], TABLE_COLUMNS))
                return [self.table(shard) for shard in shards]

    def seek_points(self, shard: int) -> Any:
        """The seek points of a shard's images as an Arrow array with nulls; None if the index has none. Read when they
        are first asked for. Raises ManifestError for a damaged index."""
        with self._lock:
            table = self.table(shard)
            if table.seek is None and table.has_seek:
                part, row_group = self._row_group(self.numbers[shard])
                table.seek = self._index(part).seek_points(row_group)
                table.has_seek = table.seek is not None
            return table.seek

    def further(self, rows: Rows, types: Types) -> dict[str, Values]:
        """The values of some rows in further columns, which are read for whole shards when they are first asked for."""
        shards, slots, local = split_rows(self._first, rows)
        with self._lock:
            tables = self.tables(shards)
            missing = [(shard, table) for shard, table in zip(shards, tables, strict=True)
                       if not types.items() <= table.further.keys()]  # fmt: skip
            wanted = [PREFIX + name for name in types]
            places = [self._row_group(self.numbers[shard]) for shard, _ in missing]
            with ExitStack() as held:
                for part, group in groupby(places, key=lambda place: place[0]):
                    index = self._index(part)
                    there = [name for name in wanted if name in index.schema.names]
                    held.enter_context(index.fetched([number for _, number in group], there))
                for (_, table), place in zip(missing, places, strict=True):
                    (found,) = self._tables_of(wanted, types, [place])
                    table.further |= {each: values_of(found[PREFIX + each[0]], each[1]) for each in types.items()}
        return {
            name: gathered([table.further[name, text] for table in tables], slots, local, text)
            for name, text in types.items()
        }

    def further_table(self, shard: int) -> pa.Table | None:
        """The further columns of a shard by NAME, in the types of the manifest; None if it has none."""
        types = self.manifest.columns
        if not types:
            return None
        names = [PREFIX + name for name in types]
        (table,) = self._tables_of(names, types, [self._row_group(self.numbers[shard])])
        return table.rename_columns(list(types))

    def targets(self, shard: int) -> dict[int, bytes]:
        """The corrected labels of a shard that are not class numbers, by the number of the sample in it."""
        with self._lock:
            table = self.table(shard)
            if table.targets is None:
                part, row_group = self._row_group(self.numbers[shard])
                table.targets = self._index(part).targets(row_group)
            return table.targets

    def corrected_fields(self, shard: int) -> dict[int, tuple[str, bytes]]:
        """The corrected labels of a shard as the fields of the samples, by the number of the sample in it."""
        found: dict[int, tuple[str, bytes]] = {}
        with self._lock:
            part, row_group = self._row_group(self.numbers[shard])
            for number, label in self._index(part).new_labels(row_group).items():
                found[number] = ("cls", b"%d" % label)
        return found | {number: (FIELD, target) for number, target in self.targets(shard).items()}

    def require_own(self, shard: int, data: Mapping) -> None:
        """ManifestError if the first or last sample of a shard is not the one in the index."""
        table, url = self.table(shard), self.urls[shard]
        for at in sorted({0, int(self.counts[shard]) - 1}):
            start, key = int(table.offset[at]), table.key[at].as_py()
            end = start + int(table.size[at])
            try:
                found = next(self.format.read(data, place=url, start=start, end=end, names=self.names), None)
            except DamagedError as exc:
                raise DamagedError(url, exc.fact, f"copy the shard again, or {INDEX_CURE}", exc.offset, key) from exc
            image = int(table.image_offset[at]), int(table.image_size[at])
            if found is None or found.key != key or (image[0] >= 0 and image not in found.fields.values()):
                fact = f"this is not the shard of the index, which has the sample {key!r} at byte {start}"
                raise ManifestError(url, fact, f"copy the shard again, or {INDEX_CURE}")

    def hold(self) -> None:
        """Keep the current files until this catalog is gone, if that is cheap."""
        self.access.shards.hold()

    def _read_table(self, shard: int) -> Table:
        columns = self._columns(shard, TABLE_COLUMNS)
        catalog = weakref.ref(self)  # which keeps the tables: a cycle would hold its files and memory

        def more(*names: str) -> dict[str, Any]:
            kept = catalog()
            assert kept is not None, "whoever uses a table keeps its catalog"
            return kept._columns(shard, names)

        table = Table(columns, more)
        file = self.files()[shard]
        stops, ends = table.offset + table.size, table.image_offset + table.image_size
        has_image = table.image_offset >= 0
        outside = has_image & ((table.image_size < 0) | (table.image_offset < table.offset) | (ends > stops))
        if bool((stops > (file.unpacked or file.bytes)).any() or outside.any()):
            raise ManifestError(str(self.location), f"the index does not match {self.urls[shard]}", INDEX_CURE)
        return table

    def _columns(self, shard: int, names: Sequence[str]) -> dict[str, Any]:
        """Columns of the index for one shard. Raises ManifestError if it is damaged or does not match."""
        part, row_group = self._row_group(self.numbers[shard])
        return self._index(part).columns(row_group, names)

    def _row_group(self, number: int) -> tuple[int, int]:
        """(index file, row group in it) of a shard of the manifest."""
        part = bisect_right(self._part_ends, number)
        if part < len(self._part_ends):
            return part, number - (self._part_ends[part - 1] if part else 0)
        raise ManifestError(str(self.location), "the manifest names no index", "run 'shardkit index' to make one")

    def _index(self, part: int) -> IndexFile:
        """An index file, opened and checked. The last few are kept, up to INDEX_BYTES."""
        with self._lock:
            found = self._indexes.pop(part, None) or self._opened_index(part)
            self._indexes[part] = found
            while len(self._indexes) > 1 and self._too_many_indexes():
                self._indexes.popitem(last=False)
            return found

    def _too_many_indexes(self) -> bool:
        memory = sum(index.memory for index in self._indexes.values())
        return memory > INDEX_BYTES or len(self._indexes) > KEPT_INDEXES

    def _opened_index(self, part: int) -> IndexFile:
        entry, shards = self._entries[part]
        place = self.location.sibling(entry.name)
        how = {"again": self._verify, "whole": self._whole}
        if self._corrected is None:
            overlay = read_overlay(self._objects, self.location, self.manifest)
            self._corrected = overlay, AddedFields(self._objects, self.location, self.manifest, **how)
        overlay, added = self._corrected
        first = self._part_ends[part - 1] if part else 0
        applied = None if overlay is None else AppliedOverlay(overlay, first)
        return open_index_at(self._objects, place, entry, shards, overlay=applied, fields=added.applied(first), **how)


def _with_rows(
    tables: Iterable[pa.Table], firsts: NDArray[np.int64], counts: NDArray[np.int64]
) -> Iterator[tuple[Rows, pa.Table]]:
    """Each table with its rows. The tables together are of runs of rows: `counts` from each of `firsts` on."""
    ends = np.cumsum(counts)
    shifts, begin = firsts - (ends - counts), 0
    for table in tables:
        end = begin + len(table)
        first, last = np.searchsorted(ends, [begin, end - 1], side="right")
        inside = np.minimum(ends[first : last + 1], end) - np.maximum((ends - counts)[first : last + 1], begin)
        yield np.arange(begin, end) + np.repeat(shifts[first : last + 1], np.maximum(inside, 0)), table
        begin = end


def key_sum(key: str) -> int:
    """A checksum of a key, by which its row is looked up: four bytes for each sample in place of all keys."""
    return zlib.crc32(key.encode())


def key_sums(keys: pa.ChunkedArray) -> NDArray[np.uint32]:
    """The checksums of some keys (uint32, n)."""
    import pyarrow as pa

    sums = map(zlib.crc32, keys.cast(pa.binary()).to_pylist())
    return np.fromiter(sums, np.uint32, len(keys))


def _access_to(
    location: Location, files: Sequence[ShardFile], objects: Objects, verify: bool, limit: int
) -> ShardAccess:
    """The access to the shards beside a location."""
    if location.is_local:
        return MappedAccess(files, verify=verify, limit=limit)
    from shardkit.reading.blocks.fetched import FetchedAccess

    return FetchedAccess(files, location.parent, objects, verify=verify, limit=limit)


def _digest(manifest: Manifest) -> str:
    signs = (entry.crc32c or version for entry, version in zip(manifest.shards, manifest.shard_versions, strict=True))
    text = "\0".join(f"{e.samples} {e.bytes} {sign}" for e, sign in zip(manifest.shards, signs, strict=True))
    found = manifest.corrections
    if found is not None:
        overlay = () if found.overlay is None else (found.overlay,)
        text += "".join(f"\0{each.rows} {each.crc32c}" for each in (*overlay, *found.fields))
    return blake2b(text.encode(), digest_size=16).hexdigest()


def _ranges(numbers: Sequence[int]) -> str:
    """Numbers as short text: "0-7,9"."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][1] == number - 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(f"{first}-{last}" if last > first else f"{first}" for first, last in parts)
