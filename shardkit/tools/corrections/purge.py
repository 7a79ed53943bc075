"""`shardkit delete --purge`: rewrite the shards that hold some samples, so that no byte of these is left.

New files get the names of the next generation: the shards without the samples, and the index files that cover them. The
manifest is swapped, and then all files that have anything of the samples are removed: their shards and index files, and
all older versions.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from shardkit.checksums import crc32c
from shardkit.errors import DatasetError, DestinationError, NotFoundError, UsageError
from shardkit.formats.format import FORMATS
from shardkit.packing.dest.dataset_files import DatasetFiles
from shardkit.shards.columns.types import PREFIX
from shardkit.shards.corrections.block import (
    OPTION,
    Corrections,
    FieldsEntry,
    OverlayEntry,
    VersionEntry,
    block_of,
    corrected_plan,
)
from shardkit.shards.corrections.fields import encode_fields
from shardkit.shards.corrections.overlay import Overlay, encode_overlay
from shardkit.shards.corrections.read import AddedFields
from shardkit.shards.corrections.version import fields_name, overlay_name
from shardkit.shards.index import table_writer
from shardkit.shards.index_file import index_entries
from shardkit.shards.manifest import (
    CORRECTED_VERSION,
    JPEGS,
    ClassEntry,
    IndexEntry,
    Manifest,
    ShardEntry,
    all_names,
    encode_manifest,
    file_names,
)
from shardkit.shards.names import (
    base_of,
    generation_of,
    in_generation,
    next_generation,
    skipped_beside,
    skipped_name,
)
from shardkit.shards.objects import Objects
from shardkit.shards.parquet.sources import INDEX_CURE, open_parquet
from shardkit.tools.corrections.place import Base, CorrectedPlace

MOVED = ("offset", "image_offset")
"""The columns of the index that change when samples before are left out."""


@dataclass(slots=True)
class _Purged:
    """What is written. left: for each rewritten shard, the rows as packed that stay."""

    files: DatasetFiles
    base: Base
    left: dict[int, NDArray[np.int64]]
    generation: int
    written: int = 0
    sizes: dict[str, int] = field(default_factory=dict)

    def write(self, name: str, data: bytes) -> str:
        """Write a file; its CRC-32C."""
        self.files.write(name, data)
        self.written += len(data)
        self.sizes[name] = len(data)
        return f"{crc32c(data):08x}"

    def name(self, name: str) -> str:
        """The name of what replaces a file."""
        return in_generation(name, self.files.stem, self.generation)


def purge(
    place: CorrectedPlace, base: Base, places: NDArray[np.int64], classes: tuple[ClassEntry, ...], message: str
) -> tuple[Manifest, int]:
    """Rewrite the shards with these samples, without them and all others that are deleted there. (The new manifest, the
    bytes written.) The folder is locked.

    Raises UsageError for shards that can't be rewritten, DestinationError if another dataset names one of them too.
    """
    files = place.files
    _require_own(files, base, places)
    purged = _Purged(files, base, _left(base, places), _next_generation(files, base))
    shards = list(base.manifest.shards)
    for number, rows in purged.left.items():
        shards[number] = _write_shard(purged, number, rows)
    index = list(_write_indexes(purged, shards))
    kept = [number for number, shard in enumerate(shards) if shard.samples]
    overlay = _renumbered(base.overlay, purged.left, kept)
    fields = tuple(_write_fields(purged, kept))
    left = [shards[number] for number in kept]
    manifest = _manifest(purged, left, index, overlay, fields, classes, len(places), message)
    _keep_skipped(purged)
    data = encode_manifest(manifest)
    purged.sizes |= {shard.name: shard.bytes for shard in manifest.shards}
    purged.sizes |= {entry.name: entry.bytes for entry in manifest.index}
    files.finish(data, purged.sizes, sweep=False)
    return manifest, purged.written + len(data)


def _require_own(files: DatasetFiles, base: Base, places: NDArray[np.int64]) -> None:
    manifest, where = base.manifest, str(base.place)
    if manifest.elsewhere:
        raise UsageError(where, "its shards are elsewhere, and belong to somebody else", "delete without purging")
    if any(manifest.unpacked_bytes):
        raise UsageError(where, "compressed shards can't be rewritten", "write plain ones with 'shardkit convert'")
    if not manifest.index:
        raise DatasetError(where, "the dataset has no index", INDEX_CURE)
    named = {manifest.shards[number].name for number in np.unique(places >> 32).tolist()}
    older = {name for name in all_names(manifest, files.stem) if name.endswith(".json")}
    for name, dataset in sorted(files.named_by_others(named | older).items()):
        fact = f"the dataset {dataset} names this shard too, and would keep the samples"
        raise DestinationError(files.place(name), fact, "remove that dataset first, and merge it again afterwards")


def _keep_skipped(purged: _Purged) -> None:
    """Write the list of skipped files again, whose name has the generation."""
    manifest, stem = purged.base.manifest, purged.files.stem
    if manifest.skipped:
        with suppress(NotFoundError):
            data = purged.files.read(skipped_beside(file_names(manifest), stem))
            purged.write(skipped_name(base_of(stem, purged.generation)), data)


def _next_generation(files: DatasetFiles, base: Base) -> int:
    known = all_names(base.manifest, files.stem)
    return next_generation(generation_of(known, files.stem), files.stem, files.beside())


def _left(base: Base, places: NDArray[np.int64]) -> dict[int, NDArray[np.int64]]:
    """The rows that stay in each shard that is rewritten: those that are not deleted in this version either."""
    gone = np.union1d(places, base.overlay.places[base.overlay.deleted])
    found = {}
    for number in np.unique(places >> 32).tolist():
        rows = np.arange(base.manifest.shards[number].samples)
        found[number] = np.setdiff1d(rows, gone[gone >> 32 == number] & 0xFFFFFFFF)
    return found


def _write_shard(purged: _Purged, number: int, rows: NDArray[np.int64]) -> ShardEntry:
    """Write a shard with some of its samples, whose bytes stay as they are."""
    entry = purged.base.manifest.shards[number]
    if not len(rows):
        return replace(entry, samples=0, bytes=0)
    old = purged.files.read(entry.name, size=entry.bytes)
    if f"{crc32c(old):08x}" != entry.crc32c:
        cure = "check the dataset with 'shardkit verify', and repair it first"
        raise DatasetError(purged.files.place(entry.name), "the shard is damaged: its CRC-32C is wrong", cure)
    offsets, sizes = _spans(purged, number)
    view = memoryview(old)
    parts = [view[offsets[row] : offsets[row] + sizes[row]] for row in rows.tolist()]
    data = b"".join([*parts, FORMATS[purged.base.manifest.shard_format].end])
    name = purged.name(entry.name)
    return ShardEntry(name, len(rows), len(data), purged.write(name, data))


def _spans(purged: _Purged, number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    first = 0
    for entry, shards in index_entries(purged.base.manifest):
        if number < first + len(shards):
            columns = purged.files.open_index(entry, shards).columns(number - first, ["offset", "size"])
            return columns["offset"], columns["size"]
        first += len(shards)
    raise AssertionError("the index covers all shards")


def _write_indexes(purged: _Purged, shards: list[ShardEntry]) -> Iterator[IndexEntry]:
    """The index files: those of rewritten shards are written again, the others stay."""
    first = 0
    for entry, old in index_entries(purged.base.manifest):
        numbers = range(first, first + len(old))
        first += len(old)
        if purged.left.keys().isdisjoint(numbers):
            yield entry
            continue
        left = [number for number in numbers if shards[number].samples]
        if not left:
            continue
        purged.files.open_index(entry, old)  # which checks it
        data = _rewritten(purged, purged.files.read(entry.name, size=entry.bytes), numbers, left, shards)
        name = purged.name(entry.name)
        yield IndexEntry(name, len(left), len(data), purged.write(name, data))


def _rewritten(purged: _Purged, data: bytes, numbers: range, left: list[int], shards: list[ShardEntry]) -> bytes:
    """An index file with the rows that are left, all columns included."""
    import pyarrow as pa

    source, sink = open_parquet(pa.BufferReader(data)), io.BytesIO()
    with table_writer(sink, source.schema_arrow) as write:
        for number in left:
            table = source.read_row_group(number - numbers[0])
            write(_moved(table, purged.left[number], shards[number].name) if number in purged.left else table)
    return sink.getvalue()


def _moved(table: Any, rows: NDArray[np.int64], shard: str) -> Any:
    """The index rows of a rewritten shard: where its samples are now."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kept = table.take(pa.array(rows))
    sizes = kept["size"].to_numpy()
    shift = np.cumsum(sizes) - sizes - kept["offset"].to_numpy()
    for name in MOVED:
        column = kept.column_names.index(name)
        moved = pc.add(kept[name], pa.array(shift)).cast(kept.schema.field(name).type)
        kept = kept.set_column(column, kept.schema.field(name), moved)
    column = kept.column_names.index("shard")
    names = pa.array([shard] * len(kept)).cast(pa.string())
    kind = kept.schema.field("shard").type
    named = names.dictionary_encode().cast(kind) if pa.types.is_dictionary(kind) else names.cast(kind)
    return kept.set_column(column, kept.schema.field("shard"), named)


def _renumbered(overlay: Overlay, left: dict[int, NDArray[np.int64]], kept: list[int]) -> Overlay:
    """The corrections that are left, with the new numbers of shards and rows."""
    places, stays = _new_places(overlay.places, left, kept)
    return Overlay(places, overlay.deleted, overlay.labels, overlay.targets, overlay.keys).pick(stays)


def _new_places(
    old: NDArray[np.int64], left: dict[int, NDArray[np.int64]], kept: list[int]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(the new places of samples, whether they are left). old: rising."""
    places, stays = old.copy(), np.ones(len(old), np.bool_)
    for number, rows in left.items():
        first, stop = np.searchsorted(old, [number << 32, (number + 1) << 32])
        before = old[first:stop] & 0xFFFFFFFF
        stays[first:stop] = np.isin(before, rows)
        places[first:stop] = number << 32 | np.searchsorted(rows, before)
    new = np.full(1 + max([*kept, *left, int((old >> 32).max(initial=0))], default=0), -1, np.int64)
    new[kept] = np.arange(len(kept))
    shards = new[places >> 32]
    return shards << 32 | (places & 0xFFFFFFFF), stays & (shards >= 0)


def _write_fields(purged: _Purged, kept: list[int]) -> Iterator[FieldsEntry]:
    """The files of added fields: those whose samples have other numbers, or are purged, are written again."""
    import pyarrow as pa

    base = purged.base
    added = AddedFields(Objects(base.remote), base.place, base.manifest, again=True)
    for number, entry in enumerate(added.entries):
        file = added.file(number)
        groups = [file.group(group, ["key", *file.names]) for group in range(file.groups)]
        old = np.concatenate([places for places, _ in groups])
        places, stays = _new_places(old, purged.left, kept)
        if stays.all() and bool((places == old).all()):
            yield entry
            continue
        if not stays.any():
            continue
        table = pa.concat_tables([found for _, found in groups]).take(pa.array(np.flatnonzero(stays)))
        types = {name.removeprefix(PREFIX): text for name, text in file.names.items()}
        keys = table["key"].combine_chunks()
        values = table.select(list(file.names)).rename_columns(list(types))
        data = encode_fields(places[stays], keys, values, types)
        base_name = base_of(purged.files.stem, purged.generation)
        name = fields_name(base_name, base.manifest.number + 1, f"{crc32c(data):08x}")
        yield FieldsEntry(name, types, int(stays.sum()), len(data), purged.write(name, data))


def _manifest(
    purged: _Purged,
    shards: list[ShardEntry],
    index: list[IndexEntry],
    overlay: Overlay,
    fields: tuple[FieldsEntry, ...],
    classes: tuple[ClassEntry, ...],
    count: int,
    message: str,
) -> Manifest:
    """The manifest of the next version: the older ones are only lines of its log."""
    before, number = purged.base.manifest, purged.base.manifest.number + 1
    entry: OverlayEntry | None = None
    if len(overlay):
        data = encode_overlay(overlay)
        name = overlay_name(base_of(purged.files.stem, purged.generation), number, f"{crc32c(data):08x}")
        entry = OverlayEntry(name, len(overlay), len(data), purged.write(name, data))
    found = before.corrections
    log = (VersionEntry(version=1, kind="pack", samples=before.samples),) if found is None else found.log
    deleted = overlay.deleted_counts()
    samples = sum(shard.samples for shard in shards) - sum(gone for _, gone in deleted)
    made = VersionEntry(
        version=number, kind="purge", samples=samples, deleted=count, message=message, overlay=entry, fields=fields
    )
    corrections = Corrections(
        version=number, overlay=entry, deleted=deleted, fields=fields,
        log=(*(replace(each, manifest=None, overlay=None, fields=()) for each in log), made),
    )  # fmt: skip
    sums = " ".join(shard.crc32c for shard in shards)
    purged_as = OverlayEntry("", number, 0, f"{crc32c(sums.encode()):08x}")
    return replace(
        before, version=CORRECTED_VERSION, samples=samples, bytes=sum(shard.bytes for shard in shards), classes=classes,
        shards=tuple(shards), index=tuple(index), plan=corrected_plan(before.plan, purged_as),
        options=_parts_gone(before.options) | {OPTION: block_of(corrections)},
    )  # fmt: skip


def _parts_gone(options: dict[str, Any]) -> dict[str, Any]:
    """The options without what counts shards and samples of parts, or images."""
    return {name: value for name, value in options.items() if name not in ("merged", "appended", JPEGS)}
