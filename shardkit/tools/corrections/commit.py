"""Write a version: its overlay, a copy of the manifest before it, and the new manifest, which comes last.

Of two runs at once, the second finds a manifest that is not the one it began with. It then corrects the new version, if
that has other samples corrected than this run; otherwise it is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from shardkit.checksums import crc32c
from shardkit.errors import BusyError, DestinationError, NotFoundError
from shardkit.packing.dest.dataset_files import DatasetFiles
from shardkit.shards.columns.types import Types
from shardkit.shards.corrections.block import FieldsEntry, FileEntry, OverlayEntry, VersionEntry, corrected_plan
from shardkit.shards.corrections.fields import encode_fields
from shardkit.shards.corrections.overlay import Overlay, encode_overlay
from shardkit.shards.corrections.version import (
    base_of_versions,
    fields_name,
    is_of_version,
    next_version,
    overlay_name,
    version_name,
)
from shardkit.shards.manifest import ClassEntry, Manifest, all_names, column_options, encode_manifest
from shardkit.tools.corrections.place import Base, CorrectedPlace
from shardkit.tools.corrections.rows import quoted
from shardkit.tools.corrections.values import given_between
from shardkit.units import short_repr

if TYPE_CHECKING:
    import pyarrow as pa

TURNS = 100
"""How often a correction is tried again because others come first."""

NOTE = (
    "other readers of these shards (webdataset, tf.data) see them as packed, until 'shardkit convert' writes new ones"
)

NOTE_FIELDS = (
    "other readers of the index (pandas, DuckDB) see added fields after 'shardkit convert' has written another"
)


@dataclass(frozen=True, slots=True)
class Corrected:
    """The result of a correction. dataset: its manifest. version: the current one, the same as before if nothing had to
    be changed. changed, unchanged: samples that were corrected, and that were already so. bytes: that were written."""

    dataset: str
    version: int
    kind: str
    changed: int
    unchanged: int
    bytes: int
    manifest: Manifest = field(repr=False)

    __repr__ = short_repr


@dataclass(frozen=True, slots=True, eq=False)
class GivenValues:
    """Values of fields for some samples. places: shard << 32 | row, rising (int64, n). keys: of the samples (object,
    n). table: the fields `types` by NAME (n rows)."""

    places: NDArray[np.int64]
    keys: NDArray[np.object_]
    table: pa.Table
    types: Types

    def complete(self) -> set[str]:
        """The fields of which no value is null."""
        return {name for name in self.types if not self.table[name].null_count}


@dataclass(frozen=True, slots=True)
class Change:
    """What a correction does to a version. overlay: the samples that it corrects. values: of fields that it adds.
    entry: for the log, without files. options: those of the manifest that change."""

    overlay: Overlay
    entry: VersionEntry
    classes: tuple[ClassEntry, ...]
    unchanged: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    values: GivenValues | None = None

    @property
    def places(self) -> NDArray[np.int64]:
        """The samples that it changes: shard << 32 | row, rising (int64)."""
        return self.overlay.places if self.values is None else self.values.places

    @property
    def keys(self) -> NDArray[np.object_]:
        """Their keys (object)."""
        return self.overlay.keys if self.values is None else self.values.keys


Make = Callable[[Base], Change]


def correct(place: CorrectedPlace, make: Make) -> Corrected:
    """Make the next version of a dataset. make: what is to be done to a version, which may raise errors.

    Raises BusyError if another run corrected the same samples meanwhile.
    """
    base = place.current()
    change = make(base)
    for _ in range(TURNS):
        if not len(change.places):
            kind = change.entry.kind
            return Corrected(str(base.place), base.manifest.number, kind, 0, change.unchanged, 0, base.manifest)
        with place.locked():
            now = place.current()
            if now.data == base.data:
                try:
                    return _write(place.files, now, change)
                except BusyError:  # in a store, another run was faster
                    now = place.current()
                    if now.data == base.data:
                        raise
        _require_apart(base, now, change)
        base, change = now, make(now)
    raise BusyError(str(base.place), "other runs keep changing this dataset", "run the command again")


def _require_apart(base: Base, now: Base, change: Change) -> None:
    """BusyError if a sample of the change was corrected since, or the dataset is another one."""
    fact = ""
    old, new = base.manifest.shards, now.manifest.shards
    if new[: len(old)] != old or now.manifest.number < base.manifest.number:
        fact = "another run replaced this dataset"
    else:
        touched = np.intersect1d(_changed_meanwhile(base, now, change), change.places)
        if len(touched):
            shown = change.keys[np.searchsorted(change.places, touched[0])]
            fact = f"another run corrected {len(touched)} of the same samples meanwhile, {quoted(shown)} among them"
    if fact:
        cure = "look at them with 'shardkit log' and 'shardkit diff', and run the command again if it is still wanted"
        raise BusyError(str(now.place), fact, cure)


def _changed_meanwhile(base: Base, now: Base, change: Change) -> NDArray[np.int64]:
    """The samples that other runs corrected, as far as that matters to the change: for values of fields, those that
    were deleted, or given values of the same fields. Places, rising (int64)."""
    changed: NDArray[np.int64] = different(base.overlay, now.overlay)
    if change.values is None:
        return changed
    before, after = (each.overlay.places[each.overlay.deleted] for each in (base, now))
    return np.union1d(np.setxor1d(before, after), given_between(base, now, set(change.values.types)))


def different(one: Overlay, other: Overlay) -> Any:
    """The places of the samples that two overlays correct differently (int64)."""
    both, at, there = np.intersect1d(one.places, other.places, assume_unique=True, return_indices=True)
    same = (one.deleted[at] == other.deleted[there]) & (one.labels[at] == other.labels[there])
    same &= one.targets[at] == other.targets[there]
    return np.setdiff1d(np.union1d(one.places, other.places), both[same], assume_unique=True)


def _write(files: DatasetFiles, base: Base, change: Change) -> Corrected:
    written, found = _Written(files, base), _Corrected.of(base.manifest)
    entry, like = change.entry, base.manifest
    if change.values is None:
        whole = base.overlay.corrected(change.overlay)
        overlay = written.overlay(whole)
        found = _Corrected(overlay, whole.deleted_counts(), found.fields)
        plan = corrected_plan(like.plan, overlay)
    else:
        added = written.fields(change.values)
        found = _Corrected(found.overlay, found.deleted, _with_fields(base, found.fields, added, change.values))
        entry = replace(entry, fields=(added,))
        plan = corrected_plan(like.plan, added)
        like = replace(like, options=like.options | _all_columns(like, change.values.types))
    like = replace(like, classes=change.classes, options=like.options | dict(change.options), plan=plan)
    manifest = written.manifest(entry, like, found)
    return _result(written, entry, manifest, len(change.places), change.unchanged)


@dataclass(frozen=True, slots=True)
class _Corrected:
    """What a version corrects: see `Corrections`."""

    overlay: OverlayEntry | None
    deleted: tuple[tuple[int, int], ...]
    fields: tuple[FieldsEntry, ...]

    @staticmethod
    def of(manifest: Manifest) -> _Corrected:
        """That of a manifest."""
        found = manifest.corrections
        return _Corrected(None, (), ()) if found is None else _Corrected(found.overlay, found.deleted, found.fields)


def _with_fields(
    base: Base, before: tuple[FieldsEntry, ...], added: FieldsEntry, values: GivenValues
) -> tuple[FieldsEntry, ...]:
    """The files of added fields with another one; those without any value that is still used are left out."""
    whole = values.complete() if len(values.places) == base.manifest.samples else set()
    return (*(each for each in before if not whole.issuperset(each.columns)), added)


def _all_columns(manifest: Manifest, types: Types) -> dict[str, Any]:
    return column_options(manifest.options.get("columns", {}) | types)


def write_version(files: DatasetFiles, base: Base, older: Manifest, entry: VersionEntry, changed: int) -> Corrected:
    """Make a version that equals an older one. changed: the samples that it corrects in another way."""
    written = _Written(files, base)
    manifest = written.manifest(entry, older, _Corrected.of(older))
    return _result(written, entry, manifest, changed, 0)


def _result(written: _Written, entry: VersionEntry, manifest: Manifest, changed: int, unchanged: int) -> Corrected:
    place = str(written.base.place)
    return Corrected(place, manifest.number, entry.kind, changed, unchanged, written.bytes, manifest)


class _Written:
    """The files of a version that are written, in their order."""

    def __init__(self, files: DatasetFiles, base: Base) -> None:
        self.files, self.base, self.bytes = files, base, 0
        self.name = base_of_versions(base.manifest, files.stem)
        self._remove_orphans()

    def overlay(self, overlay: Overlay) -> OverlayEntry:
        """Write the overlay. Its name has its checksum: two runs never write different files of one name."""
        data = encode_overlay(overlay)
        crc = f"{crc32c(data):08x}"
        name = overlay_name(self.name, self.base.manifest.number + 1, crc)
        self._write(name, data)
        return OverlayEntry(name, len(overlay), len(data), crc)

    def fields(self, values: GivenValues) -> FieldsEntry:
        """Write a file of added fields, whose name has its checksum too."""
        import pyarrow as pa

        keys = pa.array(values.keys.tolist(), pa.string())
        data = encode_fields(values.places, keys, values.table, values.types)
        crc = f"{crc32c(data):08x}"
        name = fields_name(self.name, self.base.manifest.number + 1, crc)
        self._write(name, data)
        return FieldsEntry(name, dict(values.types), len(values.places), len(data), crc)

    def manifest(self, entry: VersionEntry, like: Manifest, found: _Corrected) -> Manifest:
        """Keep the manifest before, and write the new one. like: the content of the new one."""
        manifest = next_version(
            self._kept(), self.base.manifest, entry, overlay=found.overlay, deleted=found.deleted, fields=found.fields,
            like=like,
        )  # fmt: skip
        data = encode_manifest(manifest)
        self.files.replace(self.files.manifest, data, self.base.tag)
        self.bytes += len(data)
        return manifest

    def _kept(self) -> FileEntry:
        """Keep the current manifest under the name of its version."""
        name, data = version_name(self.name, self.base.manifest.number), self.base.data
        try:
            if self.files.read(name) != data:
                fact = "this file is in the way: the manifest of an older version is kept under its name"
                raise DestinationError(self.files.place(name), fact, "move it elsewhere")
        except NotFoundError:
            self._write(name, data)
        return FileEntry(name, len(data), f"{crc32c(data):08x}")

    def _write(self, name: str, data: bytes) -> None:
        self.files.write(name, data)
        self.bytes += len(data)

    def _remove_orphans(self) -> None:
        """Remove the overlays and added fields that a killed run left in a local folder, which is locked."""
        if not self.files.store.root.is_local:
            return
        known = set(all_names(self.base.manifest, self.files.stem))
        orphans = {name for name in self.files.beside() if is_of_version(name, self.files.stem)} - known
        self.files.remove_unless_named(orphans)
