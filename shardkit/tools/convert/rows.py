"""The samples of a finished dataset, or of shards without a manifest, as rows to write again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from shardkit.errors import NotFoundError, UsageError
from shardkit.formats.format import FORMATS, Description, Format, format_of_head, format_of_name, is_packed_as
from shardkit.location import Location
from shardkit.reading.blocks.catalog import IndexCatalog
from shardkit.sample import NO_LABEL, label_of, path_of_member
from shardkit.shards.buffers import ShardFile
from shardkit.shards.class_names import (
    Mixed,
    ShardLabels,
    classes_of_shards,
    folder_of,
    shard_labels,
    two_names,
)
from shardkit.shards.columns.types import Types
from shardkit.shards.find.find import require_near, resolve
from shardkit.shards.find.shards import SourceLike
from shardkit.shards.indexing.facts import require_unchanged
from shardkit.shards.keys import require_unique
from shardkit.shards.manifest import ClassEntry, Manifest
from shardkit.shards.objects import Objects
from shardkit.storage.access import Remote
from shardkit.storage.files import size_of, translated
from shardkit.storage.mapped import check_each, map_whole
from shardkit.threads import in_threads

if TYPE_CHECKING:
    import pyarrow as pa

Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class StoredRows:
    """The samples of one shard. labels, image_sizes: -1 if absent. crcs: of the images, -1 if unknown. columns: the
    further columns of the index, None if it has none.

    offsets: -1 if the shard can only be read from front to back and there is no index.
    """

    keys: list[str]
    paths: list[str]
    labels: Numbers
    offsets: Numbers
    sizes: Numbers
    image_sizes: Numbers
    crcs: Numbers
    columns: pa.Table | None = None
    corrected: dict[int, tuple[str, bytes]] = field(default_factory=dict)
    """The number of a sample -> the name and the bytes of its corrected label."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A dataset to convert. rows: returns the rows of a shard by number. packed: some shards are gzip, and all are read
    from front to back.

    plain: each sample is one image with its label. columns: the further columns of the index.
    """

    shards: Sequence[Location]
    format: str
    classes: tuple[ClassEntry, ...]
    fields: tuple[str, ...]
    counts: Numbers
    rows: Callable[[int], StoredRows]
    packed: bool
    plain: bool
    manifest: Manifest | None = None
    place: Location | None = None
    columns: Types = field(default_factory=dict)
    files: Sequence[ShardFile] = ()
    """What the manifest says of the shards; empty without one."""
    corrections: str = ""
    """What tells apart the versions of a dataset; "" if it was not corrected."""

    @property
    def is_far(self) -> bool:
        """Whether the shards are in a store."""
        return not self.shards[0].is_local

    @property
    def bytes(self) -> int:
        """Total bytes of the shards."""
        if self.is_far:
            return sum(file.bytes for file in self.files)
        return sum(size_of(shard.path) or 0 for shard in self.shards)


def open_stored(source: SourceLike, *, threads: int, remote: Remote) -> Stored:
    """Open what `source` names. Shards without a manifest, which must be on a disk, are read once.

    Raises UsageError for a class directory, NotFoundError, DamagedError, ManifestError, StorageError.
    """
    found = resolve(source, remote)
    found.require_dataset("make one with 'shardkit pack'")
    if found.manifest is None or found.location is None:
        require_near(found.shards)
        return _scanned(found.shards, threads)
    catalog = IndexCatalog(found.manifest, found.location, shards=found.numbers, remote=remote)
    shards = [file.location for file in catalog.files()]
    _require_there(catalog.files(), remote)
    packed = any(found.manifest.unpacked_bytes)

    def rows(number: int) -> StoredRows:
        table = catalog.table(number)
        keys, paths = table.key.to_pylist(), table.path.to_pylist()
        crcs = np.where((table.image_size >= 0) & catalog.summed, table.crc32c.astype(np.int64), -1)
        columns, corrected = catalog.further_table(number), catalog.corrected_fields(number)
        sizes = table.size, table.image_size
        return StoredRows(keys, paths, table.label, table.offset, *sizes, crcs, columns, corrected)

    _require_readable(found.manifest, str(found.location))
    manifest: Manifest | None = found.manifest
    classes = found.manifest.classes
    if found.numbers is not None:
        labels = catalog.labels()
        counts = np.bincount(labels[labels >= 0], minlength=len(classes)).tolist()
        classes = tuple(ClassEntry(entry.name, count) for entry, count in zip(classes, counts, strict=True))
        manifest = None  # it covers more than what is converted
    return Stored(
        shards, found.manifest.shard_format, classes, found.manifest.fields, catalog.counts, rows, packed,
        catalog.plain and found.manifest.plan != "", manifest, found.location, found.manifest.columns, catalog.files(),
        _corrections_of(found.manifest),
    )  # fmt: skip


def _require_there(files: Sequence[ShardFile], remote: Remote) -> None:
    """NotFoundError for a shard that is missing; ManifestError for one in a store that was replaced since."""
    if files and not files[0].location.is_local:
        require_unchanged(files, Objects(remote))
        return
    for file in files:
        if not os.path.exists(file.location.path):
            raise NotFoundError(file.url, "the shard is missing", "restore it, or check with 'shardkit verify'")


def _corrections_of(manifest: Manifest) -> str:
    found = manifest.corrections
    if found is None:
        return ""
    overlay = [] if found.overlay is None else [found.overlay.crc32c]
    return " ".join([*overlay, *(entry.crc32c for entry in found.fields)])


def _require_readable(manifest: Manifest, place: str) -> None:
    """UsageError for compressed shards of which samples are deleted: they are read as a whole."""
    corrections = manifest.corrections
    if any(manifest.unpacked_bytes) and corrections is not None and corrections.deleted:
        fact = "samples of compressed shards are deleted, and those can only be read as a whole"
        cure = "convert version 1 to plain shards (NAME@1), and delete the samples there"
        raise UsageError(place, fact, cure)


def _opening(shard: Location) -> tuple[str, bool]:
    """(format, whether it is compressed) of a shard."""
    with translated(os.fsencode(shard.path)), open(shard.path, "rb") as file:
        head = file.read(512)
    form = format_of_name(shard.name) or format_of_head(head)
    return form, is_packed_as(form, head)


@dataclass(frozen=True, slots=True)
class _Scan:
    rows: StoredRows
    fields: dict[str, None]
    labels: ShardLabels


def _scanned(shards: Sequence[Location], threads: int) -> Stored:
    openings = [_opening(shard) for shard in shards]
    forms, packed = {form for form, _ in openings}, any(packed for _, packed in openings)
    if len(forms) > 1:
        raise UsageError("source", "these are shards of more than one format", "convert each format separately")
    form = forms.pop()
    scans = list(in_threads(lambda shard: _scan(shard, form, packed=packed), shards, threads))
    require_unique([(shard, scan.rows.keys, scan.rows.offsets) for shard, scan in zip(shards, scans, strict=True)])
    said = [(shard.name, scan.labels) for shard, scan in zip(shards, scans, strict=True)]
    found = classes_of_shards(said, None, place=str(shards[0]))

    def rows(number: int) -> StoredRows:
        scan = scans[number].rows
        labels = found.labels(scan.labels, [folder_of(key) for key in scan.keys])
        return StoredRows(scan.keys, scan.paths, labels, scan.offsets, scan.sizes, scan.image_sizes, scan.crcs)

    counts = np.array([len(scan.rows.keys) for scan in scans], np.int64)
    fields = tuple(sorted({name for scan in scans for name in scan.fields}))
    return Stored(shards, form, found.classes, fields, counts, rows, packed=packed, plain=False)


def _scan(shard: Location, form: str, *, packed: bool) -> _Scan:
    """List the samples of a shard without an index. Raises DamagedError, StorageError."""
    columns: list[tuple[int, int, int, int]] = []
    keys: list[str] = []
    paths: list[str] = []
    fields: dict[str, None] = {}
    texts: dict[int, str] = {}
    renamed: Mixed | None = None
    for sample in (_streamed if packed else _mapped)(shard, FORMATS[form]):
        label = NO_LABEL if sample.cls is None else label_of(sample.cls)
        if sample.text and label >= 0:
            before = texts.setdefault(label, sample.text)
            if before != sample.text and renamed is None:
                renamed = two_names(label, before, sample.text, sample.offset, sample.key)
        keys.append(sample.key)
        paths.append(sample.path or path_of_member(sample.key, sample.image))
        columns.append((label, sample.offset, sample.size, sample.image_size))
        fields.update(dict.fromkeys(sample.names))
    numbers = np.array(columns, np.int64).reshape(-1, 4).T
    labels, offsets, sizes, images = (np.ascontiguousarray(column) for column in numbers)
    shown = ["" if size < 0 else "image" for size in images.tolist()]
    said = shard_labels(labels, keys, shown, offsets, place=str(shard), texts=texts, renamed=renamed)
    rows = StoredRows(keys, paths, labels, offsets, sizes, images, np.full_like(labels, -1))
    return _Scan(rows, fields, said)


def _mapped(shard: Location, form: Format) -> Iterator[Description]:
    with translated(os.fsencode(shard.path)):
        data = map_whole(shard.path)
    for sample in check_each(form.read(data, place=str(shard)), data):
        yield form.describe(data, sample)


def _streamed(shard: Location, form: Format) -> Iterator[Description]:
    with translated(os.fsencode(shard.path)), open(shard.path, "rb") as file:
        yield from form.stream_described(file, place=str(shard))
