"""Read the overlay and the added fields of a dataset, wherever it is, and open its index files with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from threading import Lock
from typing import TYPE_CHECKING

from shardkit.errors import ManifestError
from shardkit.location import Location
from shardkit.shards.columns.types import PREFIX, Types
from shardkit.shards.columns.values import completed_table
from shardkit.shards.corrections.block import FieldsEntry
from shardkit.shards.corrections.fields import FIELDS, GROUP_BYTES, GROUP_ROWS, AppliedFields, FieldsFile
from shardkit.shards.corrections.overlay import OVERLAY, AppliedOverlay, Overlay, decode_overlay, require_fits
from shardkit.shards.index_file import IndexFile, index_entries, open_index_at
from shardkit.shards.manifest import Manifest
from shardkit.shards.objects import Objects
from shardkit.shards.parquet.sources import INDEX_CURE, source_at

if TYPE_CHECKING:
    import pyarrow as pa


def read_overlay(objects: Objects, beside: Location, manifest: Manifest, *, keys: bool = False) -> Overlay | None:
    """The corrections of a dataset; None if there are none. beside: its manifest. keys: with the keys.

    Raises NotFoundError, StorageError; ManifestError if the file is not the one that the manifest names, damaged, or of
    a later version.
    """
    corrections = manifest.corrections
    if corrections is None or corrections.overlay is None:
        return None
    entry = corrections.overlay
    place = beside.sibling(entry.name)
    with source_at(objects, place, entry, 0, OVERLAY, again=True) as (source, _):
        found = decode_overlay(source, entry, str(place), keys=keys)
    return require_fits(found, corrections, [shard.samples for shard in manifest.shards], str(place))


FOOTER = 4096
"""About the bytes of a file's own description beside those for its row groups."""


class AddedFields:
    """The added fields of a dataset, whose files are opened when they are first read. Thread-safe.

    Raises NotFoundError, StorageError; ManifestError if a file is not the one that the manifest names, damaged, or of a
    later version.
    """

    def __init__(
        self, objects: Objects, beside: Location, manifest: Manifest, *, again: bool = False, whole: bool = True
    ) -> None:
        """beside: the manifest's location. again, whole: as in `open_index_at`."""
        corrections = manifest.corrections
        self.entries = () if corrections is None else corrections.fields
        self._objects, self._beside, self._manifest = objects, beside, manifest
        self._how = {"again": again, "whole": whole}
        self._opened: dict[int, FieldsFile] = {}
        self._lock = Lock()

    def file(self, number: int) -> FieldsFile:
        """One of the files."""
        with self._lock:
            if number not in self._opened:
                self._opened[number] = self._open(self.entries[number])
            return self._opened[number]

    def _open(self, entry: FieldsEntry) -> FieldsFile:
        place, samples = self._beside.sibling(entry.name), [shard.samples for shard in self._manifest.shards]
        footer = FOOTER + GROUP_BYTES * (3 + len(entry.columns)) * (1 + entry.rows // GROUP_ROWS)
        with source_at(self._objects, place, entry, footer, FIELDS, **self._how) as (source, ranged):
            return FieldsFile(source, entry, samples, place=str(place), ranged=ranged)

    def applied(self, first: int) -> AppliedFields | None:
        """Them for the index file whose first shard has this number; None if there are none."""
        return AppliedFields(self.entries, self.file, self._manifest.columns, first) if self.entries else None


def completed_tables(
    index: IndexFile, names: Sequence[str], types: Types, groups: Sequence[int], place: str
) -> Iterator[pa.Table]:
    """Columns of some row groups of an index file, in parts. A further column of the dataset, whose types are `types`,
    is null where the file does not have it. ManifestError for one of another type; place: the dataset's manifest."""
    further, own = {PREFIX + name for name in types}, set(index.schema.names)
    there = [name for name in names if name in own or name not in further]
    for table in index.tables(there or ["label"], groups):
        try:
            yield completed_table(table, names, types)
        except ValueError as exc:
            raise ManifestError(place, f"the index is damaged: {exc}", INDEX_CURE) from exc


def corrected_index_files(
    objects: Objects,
    beside: Location,
    manifest: Manifest,
    overlay: Overlay | None,
    fields: AddedFields | None = None,
) -> Iterator[IndexFile]:
    """The index files of a dataset, whose rows are corrected. overlay: as read by `read_overlay`; None for the rows as
    packed. fields: the added ones, if they are wanted. Raises ManifestError if a file is missing or damaged."""
    first = 0
    for entry, shards in index_entries(manifest):
        applied = None if overlay is None else AppliedOverlay(overlay, first)
        added = None if fields is None else fields.applied(first)
        yield open_index_at(objects, beside.sibling(entry.name), entry, shards, overlay=applied, fields=added)
        first += len(shards)
