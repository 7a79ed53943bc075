"""Read index files; every reader uses this module.

When a file is opened, it is checked that the columns and their types are those of the index. For each row group: that
it is of the manifest's shard, with as many rows; the checksum of each page that is read; that no number is negative or
too large to be summed; that its text is not larger than names can be. Of a larger file in a store, only the columns and
row groups that are needed are fetched.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from shardkit.errors import ManifestError, NotFoundError, ShardkitError
from shardkit.location import Location
from shardkit.shards.columns.ranges import Range, ranges_of
from shardkit.shards.columns.types import PREFIX, fields_of, types_in
from shardkit.shards.columns.types import TEXT_BYTES as MOST_TEXT_BYTES
from shardkit.shards.corrections.fields import AppliedFields
from shardkit.shards.corrections.overlay import AppliedOverlay
from shardkit.shards.index import (
    INTEGERS,
    NULLABLE,
    QUALITY_TYPES,
    SEEK,
    TEXT_BYTES,
    as_numpy,
    combine,
    quality_array,
    schema,
)
from shardkit.shards.manifest import IndexEntry, Manifest, ShardEntry
from shardkit.shards.objects import Objects
from shardkit.shards.parquet.columns import TEXT_COLUMN_BYTES, first_leaves, fits, numbers, texts
from shardkit.shards.parquet.sources import (
    INDEX,
    INDEX_CURE,
    open_parquet,
    raise_unreadable,
    source_at,
    source_on_disk,
    span_of,
)
from shardkit.shards.quality import QUALITY
from shardkit.shards.seek import MOST_BYTES
from shardkit.storage.ranged import RangedFile

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq


FETCHED_BYTES = 16 << 20
"""Of a larger one, the bytes of successive row groups that are fetched together."""

FOOTER_BYTES = 1200
"""About the bytes of a file's own description for each row group, which are fetched when it is opened."""

FOOTER_MEMORY = 11
"""The memory that this description takes, in multiples of its bytes."""


TEXTS = ("key", "path", "shard")
"""The columns of text."""

ROWS_TOGETHER = 1 << 17
TEXT_TOGETHER = 64 << 20
"""Where a column of the whole dataset is needed, the rows of successive shards are read together: as many rows, or
bytes of text. One call for each shard costs as much as a thousand rows."""

NUMBER_LIMIT = 1 << 62
"""Larger than any file; the sum of two still fits into 64 bits."""


class IndexFile:
    """The rows of some shards, which are the row groups of one file, in the manifest's order. Thread-safe.

    With an overlay, all rows are as it corrects them: deleted ones are left out, and labels are replaced. Added fields
    are further columns like its own. Every method raises ManifestError for a file that is damaged, or not of these
    shards.
    """

    def __init__(
        self,
        source: Any,
        shards: Sequence[ShardEntry],
        *,
        place: str,
        ranged: RangedFile | None = None,
        overlay: AppliedOverlay | None = None,
        fields: AppliedFields | None = None,
    ) -> None:
        """source: a pyarrow file whose size and CRC-32C have been checked. place: its name in messages. ranged: what
        fetches it, if only its parts are fetched."""
        import pyarrow as pa

        self.place, self.shards, self._ranged = place, shards, ranged
        self._overlay, self._fields = overlay, fields
        try:
            self._file = open_parquet(source, pre_buffer=False)  # `fetched` holds what is read
            self._require_columns(self._file.schema_arrow)
            if self._file.num_row_groups != len(shards):
                fact = f"the index has {self._file.num_row_groups} row groups, but covers {len(shards)} shards"
                raise ManifestError(place, fact, INDEX_CURE)
            self._at = first_leaves(self._file.schema_arrow)
            self._further = {PREFIX + name: text for name, text in types_in(self._file.schema_arrow).items()}
            texts = self._texts_by_dictionary()
            if texts:
                self._file = open_parquet(source, pre_buffer=False, read_dictionary=texts)
            whole = source.size() if isinstance(source, pa.BufferReader) else 0
            self.memory = FOOTER_MEMORY * self._file.metadata.serialized_size + whole
            """The bytes of memory that it takes, about."""
        except ShardkitError:
            raise
        except Exception as exc:  # pyarrow raises nearly anything on damaged data
            self._unreadable(exc)

    def columns(self, group: int, names: Sequence[str]) -> dict[str, Any]:
        """Columns of one shard: numbers as NumPy arrays (null as -1), `key` and `path` as Arrow string arrays. Further
        columns are read with `tables`."""
        return self._checked(self._read([group], names), names)

    def groups(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """`columns` of each shard in turn."""
        return (self.columns(group, names) for group in range(len(self.shards)))

    def tables(self, names: Sequence[str] | None = None, groups: Sequence[int] | None = None) -> Iterator[pa.Table]:
        """Columns of many shards, unchanged, a table for some successive shards at a time. None: all of them."""
        wanted = self.schema.names if names is None else names
        for run in self._fetches(range(len(self.shards)) if groups is None else groups, wanted):
            with self.fetched(run, wanted):
                for together in self._together(run):
                    yield self._read(together, wanted)

    def ranges(self, group: int, names: Sequence[str]) -> dict[str, Range]:
        """What the file says of the values that a shard has in some columns, without reading them."""
        single = {name: self._at[name] for name in names if name in INTEGERS or name in self._further}
        found = ranges_of(self._about(group), {name: at for name, at in single.items() if self._is_single(name)})
        corrected = () if self._fields is None else self._fields.types
        changed = {*corrected, *(("label",) if self._overlay is not None else ())}
        return {name: known for name, known in found.items() if name not in changed}

    def _is_single(self, name: str) -> bool:
        return not self._further.get(name, "").endswith("]")

    def numbers(self, name: str, groups: Sequence[int] | None = None) -> Iterator[NDArray[Any]]:
        """A number column of many shards, an array for some successive shards at a time, null as -1."""
        for table in self.tables([name], groups):
            yield self._checked(table, [name])[name]

    def fetched(self, groups: Sequence[int], names: Sequence[str]) -> AbstractContextManager[None]:
        """A context in which columns of some shards are held, if the file is in a store: fetched at the same time."""
        return nullcontext() if self._ranged is None else self._ranged.holding(self._spans(groups, names))

    def _fetches(self, groups: Sequence[int], names: Sequence[str]) -> Iterator[Sequence[int]]:
        """The groups to fetch together: up to FETCHED_BYTES."""
        if self._ranged is None:
            yield groups
            return
        found, size = list[int](), 0
        for group in groups:
            found.append(group)
            size += sum(end - start for start, end in self._spans([group], names))
            if size >= FETCHED_BYTES:
                yield found
                found, size = [], 0
        if found:
            yield found

    def _spans(self, groups: Sequence[int], names: Sequence[str]) -> list[tuple[int, int]]:
        """The places in the file of columns of some shards."""
        found = list[tuple[int, int]]()
        for group in groups:
            about = self._about(group)
            found += [span_of(about.column(self._at[name])) for name in self._columns_of(about, group, names)]
        return found

    def _columns_of(self, about: pq.RowGroupMetaData, group: int, names: Sequence[str]) -> list[str]:
        """The columns to read for these names: also `shard`, unless the file's description says what it contains, and
        more bytes would be fetched for it."""
        wanted = dict.fromkeys(self._own(names))
        if self._ranged is None or not self._says_shard(about, group):
            wanted["shard"] = None
        return list(wanted)

    def _own(self, names: Sequence[str]) -> list[str]:
        """Those of the columns that the file has; one of its own, if it has none of them."""
        if self._fields is None:
            return list(names)
        return [name for name in names if name in self._at or name not in self._fields.types] or ["label"]

    def _says_shard(self, about: pq.RowGroupMetaData, group: int) -> bool:
        found = about.column(self._at["shard"]).statistics
        name = self.shards[group].name
        return bool(found is not None and found.has_min_max and found.min == found.max == name)

    @property
    def schema(self) -> pa.Schema:
        """The names and types of all columns but that of the seek points, which only the decoder uses."""
        import pyarrow as pa

        found = self._file.schema_arrow
        if self._fields is None and SEEK not in found.names:
            return found
        further = {} if self._fields is None else {field.name: field for field in fields_of(self._fields.by_name)}
        own = [further.pop(field.name, field) for field in found if field.name != SEEK]
        return pa.schema([*own, *further.values()])

    def _together(self, groups: Sequence[int]) -> Iterator[list[int]]:
        """The shards whose rows are read at once: up to ROWS_TOGETHER, and not too much text."""
        found: list[int] = []
        rows = text = 0
        for group in groups:
            about = self._about(group)
            found.append(group)
            rows += about.num_rows
            text += sum(about.column(self._at[name]).total_uncompressed_size for name in TEXTS)
            if rows >= ROWS_TOGETHER or text >= TEXT_TOGETHER:
                yield found
                found, rows, text = [], 0, 0
        if found:
            yield found

    def _checked(self, table: pa.Table, names: Sequence[str]) -> dict[str, Any]:
        try:
            found = {name: numbers(table[name], name) if name in INTEGERS else texts(table[name]) for name in names}
        except Exception as exc:  # a cast that does not fit
            self._unreadable(exc)
        for name, values in found.items():
            least = -1 if name in NULLABLE else 0
            if name in INTEGERS and len(values) and not least <= values.min() <= values.max() < NUMBER_LIMIT:
                fact = f"the index is damaged: its column {name} holds {values.min()} to {values.max()}"
                raise ManifestError(self.place, fact, INDEX_CURE)
        return found

    @property
    def has_seek_points(self) -> bool:
        """Whether there is a column of seek points as we write it: other encodings may repeat one value endlessly."""
        import pyarrow as pa

        found, about = self._file.schema_arrow, self._file.metadata
        if found.names.count(SEEK) != 1 or not pa.types.is_binary(found.field(SEEK).type):
            return False
        groups = map(about.row_group, range(about.num_row_groups))
        return all({"PLAIN", "RLE"}.issuperset(group.column(self._at[SEEK]).encodings) for group in groups)

    def seek_points(self, group: int) -> pa.Array | None:
        """The seek points of a shard's images, as a contiguous binary array with nulls; None if there is no such
        column. They are not checked: the decoder does that."""
        if not self.has_seek_points:
            return None
        table = self._read([group], [SEEK])
        return combine(table[SEEK])

    @property
    def further_types(self) -> dict[str, str]:
        """The further columns of this file in their order and added fields, with their types."""
        own = {name.removeprefix(PREFIX): text for name, text in self._further.items()}
        return own if self._fields is None else own | self._fields.by_name

    def further(self, group: int) -> pa.Table | None:
        """The further columns of one shard by NAME; None if the file has none."""
        types = self.further_types
        return self._read([group], [PREFIX + name for name in types]).rename_columns(list(types)) if types else None

    @property
    def has_quality(self) -> bool:
        """Whether there are all quality columns, of their types."""
        import pyarrow as pa

        found = self._file.schema_arrow
        types = {name: pa.from_numpy_dtype(QUALITY_TYPES[name]) for name in QUALITY}
        return all(found.names.count(name) == 1 and found.field(name).type == types[name] for name in QUALITY)

    def quality(self, group: int) -> NDArray[Any] | None:
        """The quality columns of a shard as an array of QUALITY_TYPES, NaN for null; None if there are none."""
        return quality_array(self._read([group], QUALITY)) if self.has_quality else None

    def targets(self, group: int) -> dict[int, bytes]:
        """The corrected labels of a shard that are not class numbers, by the number of the row."""
        return {} if self._overlay is None else self._overlay.targets(group)

    def new_labels(self, group: int) -> dict[int, int]:
        """The corrected class numbers of a shard, by the number of the row."""
        return {} if self._overlay is None else self._overlay.new_labels(group)

    def _about(self, group: int) -> pq.RowGroupMetaData:
        """What the file says of a shard's rows. ManifestError if they are not as many as the shard has."""
        try:
            about = self._file.metadata.row_group(group)
        except Exception as exc:  # as above
            self._unreadable(exc)
        if about.num_rows != self.shards[group].samples:
            self._wrong_rows(group, about.num_rows)
        return about

    def _wrong_rows(self, group: int, rows: int) -> NoReturn:
        shard = self.shards[group]
        fact = f"its rows do not match {shard.name}: the index has {rows}, but the manifest says {shard.samples}"
        raise ManifestError(self.place, fact, INDEX_CURE)

    def _read(self, groups: Sequence[int], names: Sequence[str]) -> pa.Table:
        for group in groups:
            self._require_bounded(self._about(group), names)
        shards = [self.shards[group] for group in groups]
        try:
            columns = [
                *dict.fromkeys(name for group in groups for name in self._columns_of(self._about(group), group, names))
            ]
            with self.fetched(groups, columns):
                table = self._file.read_row_groups(list(groups), columns=columns, use_threads=False)
            if len(table) != sum(shard.samples for shard in shards):
                self._wrong_rows(groups[0], len(table))
            if "shard" in columns:
                self._require_shards(table["shard"], shards)
            table, sizes = table.select(self._own(names)), [shard.samples for shard in shards]
            if self._fields is not None:
                table = self._fields.table(table, names, groups, sizes)
            return table if self._overlay is None else self._overlay.table(table, groups, sizes)
        except ShardkitError:
            raise
        except Exception as exc:  # as above
            self._unreadable(exc)

    def _require_shards(self, column: pa.ChunkedArray, shards: Sequence[ShardEntry]) -> None:
        """ManifestError if rows name another shard than the one whose row group they are in."""
        import pyarrow as pa

        encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
        array = combine(encoded.unify_dictionaries())
        if not len(array):
            return
        names = array.dictionary.to_pylist()
        found = as_numpy(pa.chunked_array([array.indices]))
        at = {name: number for number, name in enumerate(names)}
        wanted = np.repeat([at.get(shard.name, -2) for shard in shards], [shard.samples for shard in shards])
        wrong = np.flatnonzero(found != wanted)
        if len(wrong):
            number = int(found[wrong[0]])
            other = names[number] if number >= 0 else None
            ends = np.cumsum([shard.samples for shard in shards])
            own = shards[int(np.searchsorted(ends, wrong[0], side="right"))].name
            raise ManifestError(
                self.place, f"the index has rows of {other!r} where those of {own!r} belong", INDEX_CURE
            )

    def _require_bounded(self, about: pq.RowGroupMetaData, names: Sequence[str]) -> None:
        """ManifestError for too much text: names are read into memory, and a small file may expand to any amount of
        it."""
        for name in self._further_read(names):
            self._require_bounded_column(about, name)
        for name in (*TEXTS, SEEK):
            if name not in self._at:
                continue
            each = MOST_BYTES if name == SEEK else TEXT_BYTES
            size = about.column(self._at[name]).total_uncompressed_size
            if size > min(TEXT_COLUMN_BYTES, (about.num_rows + 1) * each):
                fact = f"the index is damaged: its column {name!r} has {size} bytes for {about.num_rows} samples"
                raise ManifestError(self.place, fact, INDEX_CURE)

    def _further_read(self, names: Sequence[str]) -> list[str]:
        """The further columns of text and of lists that are read with these: pyarrow takes a name for the beginning of
        others too, up to a dot."""
        wanted = tuple(name for name in names if name.startswith(PREFIX))
        several = [name for name, text in self._further.items() if text == "string" or text.endswith("]")]
        return [name for name in several if any(name == each or name.startswith(each + ".") for each in wanted)]

    def _require_bounded_column(self, about: pq.RowGroupMetaData, name: str) -> None:
        """ManifestError for a further column that may expand to far more than its bytes."""
        column = about.column(self._at[name])
        others = set(column.encodings) - {"PLAIN", "RLE", "BIT_PACKED"}
        if others:
            fact = f"its column {name!r} is encoded as {', '.join(sorted(others))}"
            raise ManifestError(self.place, f"the index is not as shardkit writes it: {fact}", INDEX_CURE)
        size = column.total_uncompressed_size
        if self._further[name] == "string" and size > (about.num_rows + 1) * MOST_TEXT_BYTES:
            fact = f"the index is damaged: its column {name!r} has {size} bytes for {about.num_rows} samples"
            raise ManifestError(self.place, fact, INDEX_CURE)

    def _require_columns(self, found: pa.Schema) -> None:
        for wanted in schema():
            if found.names.count(wanted.name) != 1:
                raise ManifestError(self.place, f"the index has no column {wanted.name!r}, or several", INDEX_CURE)
            if not fits(found.field(wanted.name).type, wanted.name):
                fact = f"its column {wanted.name!r} is of the type {found.field(wanted.name).type}, not {wanted.type}"
                raise ManifestError(self.place, f"the index is damaged: {fact}", INDEX_CURE)

    def _texts_by_dictionary(self) -> list[str]:
        """The columns of keys and paths with dictionary encoding, which we do not write: they are read as dictionaries,
        so that one long text can't fill the memory. ManifestError for other encodings that repeat text."""
        found = set()
        about = self._file.metadata
        for group in map(about.row_group, range(about.num_row_groups)):
            for name in ("key", "path"):
                column = group.column(self._at[name])
                encodings = column.encodings
                if any(encoding.startswith("DELTA") for encoding in encodings):
                    fact = f"its column {name!r} is encoded as {', '.join(encodings)}"
                    raise ManifestError(self.place, f"the index is not as shardkit writes it: {fact}", INDEX_CURE)
                if any("DICTIONARY" in encoding for encoding in encodings):
                    found.add(name)
        return sorted(found)

    def _unreadable(self, exc: Exception) -> NoReturn:
        raise_unreadable(exc, self.place, INDEX)


def open_index(
    path: str | bytes,
    entry: IndexEntry,
    shards: Sequence[ShardEntry],
    *,
    place: str,
    again: bool = False,
) -> IndexFile:
    """An index file on a disk. again: check its CRC-32C even if this process already did.

    Raises NotFoundError, StorageError; ManifestError if it is not the one that its manifest names.
    """
    try:
        source = source_on_disk(path, entry, place, again=again)
    except FileNotFoundError as exc:
        raise NotFoundError(place, "the index is missing", INDEX_CURE) from exc
    return IndexFile(source, shards, place=place)


def index_entries(manifest: Manifest) -> Iterator[tuple[IndexEntry, tuple[ShardEntry, ...]]]:
    """(index entry, the entries of its shards) for each index file of a manifest."""
    first = 0
    for entry in manifest.index:
        yield entry, manifest.shards[first : first + entry.shards]
        first += entry.shards


def open_index_at(
    objects: Objects,
    place: Location,
    entry: IndexEntry,
    shards: Sequence[ShardEntry],
    *,
    again: bool = False,
    whole: bool = True,
    overlay: AppliedOverlay | None = None,
    fields: AppliedFields | None = None,
) -> IndexFile:
    """An index file at any location, opened and checked. again: check all of it, even if this process already did.

    A small file in a store (or with `again`, any) is fetched as a whole, unless `whole` is False. For a larger one, the
    store's size and CRC-32C are compared, and it is read in parts, whose pages have checksums. Raises NotFoundError,
    StorageError; ManifestError if it is not the one that its manifest names.
    """
    footer = FOOTER_BYTES * (64 + len(shards))
    with source_at(objects, place, entry, footer, again=again, whole=whole) as (source, ranged):
        return IndexFile(source, shards, place=str(place), ranged=ranged, overlay=overlay, fields=fields)
