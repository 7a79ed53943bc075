"""Write a version: its overlay, a copy of the manifest before it, and the new manifest, which comes last.

Of two runs at once, the second finds a manifest that is not the one it began with. It then corrects the new version, if
that has other samples corrected than this run; otherwise it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from msgspec.structs import replace

from shardkit.checksums import crc32c
from shardkit.errors import BusyError, DestinationError, NotFoundError
from shardkit.packing.dest.dataset_files import DatasetFiles
from shardkit.shards.corrections.block import FileEntry, OverlayEntry, VersionEntry, corrected_plan
from shardkit.shards.corrections.overlay import Overlay, encode_overlay
from shardkit.shards.corrections.version import base_of_versions, next_version, overlay_name, version_name
from shardkit.shards.manifest import ClassEntry, Manifest, all_names, encode_manifest
from shardkit.tools.corrections.place import Base, CorrectedPlace
from shardkit.units import short_repr

TURNS = 100
"""How often a correction is tried again because others come first."""

NOTE = (
    "other readers of these shards (webdataset, tf.data) see them as packed, until 'shardkit convert' writes new ones"
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


@dataclass(frozen=True, slots=True)
class Change:
    """What a correction does to a version. overlay: the samples that it corrects. entry: for the log, without overlay.
    options: those of the manifest that change."""

    overlay: Overlay
    entry: VersionEntry
    classes: tuple[ClassEntry, ...]
    unchanged: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)


Make = Callable[[Base], Change]


def correct(place: CorrectedPlace, make: Make) -> Corrected:
    """Make the next version of a dataset. make: what is to be done to a version, which may raise errors.

    Raises BusyError if another run corrected the same samples meanwhile.
    """
    base = place.current()
    change = make(base)
    for _ in range(TURNS):
        if not len(change.overlay):
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
        touched = np.intersect1d(different(base.overlay, now.overlay), change.overlay.places)
        if len(touched):
            shown = change.overlay.keys[np.searchsorted(change.overlay.places, touched[0])]
            fact = f"another run corrected {len(touched)} of the same samples meanwhile, {shown!r} among them"
    if fact:
        cure = "look at them with 'shardkit log' and 'shardkit diff', and run the command again if it is still wanted"
        raise BusyError(str(now.place), fact, cure)


def different(one: Overlay, other: Overlay) -> Any:
    """The places of the samples that two overlays correct differently (int64)."""
    both, at, there = np.intersect1d(one.places, other.places, assume_unique=True, return_indices=True)
    same = (one.deleted[at] == other.deleted[there]) & (one.labels[at] == other.labels[there])
    same &= one.targets[at] == other.targets[there]
    return np.setdiff1d(np.union1d(one.places, other.places), both[same], assume_unique=True)


def changed_samples(one: Base, other: Base) -> int:
    """The number of samples that two versions correct differently."""
    return len(different(one.overlay, other.overlay))


def _write(files: DatasetFiles, base: Base, change: Change) -> Corrected:
    whole = base.overlay.corrected(change.overlay)
    written = _Written(files, base)
    overlay = written.overlay(whole)
    like = replace(
        base.manifest, classes=change.classes, options=base.manifest.options | dict(change.options),
        plan=corrected_plan(base.manifest.plan, overlay),
    )  # fmt: skip
    manifest = written.manifest(change.entry, like, overlay, whole.deleted_counts())
    return _result(written, change.entry, manifest, len(change.overlay), change.unchanged)


def write_version(files: DatasetFiles, base: Base, older: Manifest, entry: VersionEntry, changed: int) -> Corrected:
    """Make a version that equals an older one. changed: the samples that it corrects in another way."""
    written, found = _Written(files, base), older.corrections
    overlay, deleted = (None, ()) if found is None else (found.overlay, found.deleted)
    manifest = written.manifest(entry, older, overlay, deleted)
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

    def manifest(
        self,
        entry: VersionEntry,
        like: Manifest,
        overlay: OverlayEntry | None,
        deleted: tuple[tuple[int, int], ...],
    ) -> Manifest:
        """Keep the manifest before, and write the new one. like: the content of the new one."""
        before = self._kept()
        manifest = next_version(before, self.base.manifest, entry, overlay=overlay, deleted=deleted, like=like)
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
        """Remove the overlays that a killed run left in a local folder, which is locked."""
        if not self.files.store.root.is_local:
            return
        mine = re.compile(re.escape(self.files.stem) + r"(-g[1-9][0-9]*)?\.v[1-9][0-9]*\.[0-9a-f]{8}\.parquet")
        known = set(all_names(self.base.manifest, self.files.stem))
        orphans = {name for name in self.files.beside() if mine.fullmatch(name)} - known
        self.files.remove_unless_named(orphans)
