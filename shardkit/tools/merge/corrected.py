"""The corrections of datasets that are merged, as those of the merged dataset.

Version 1 of the merged dataset has the shards as packed, and version 2 what is corrected in any of them: the overlays
in one file, and each file of added fields with the numbers that its shards have now.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

import numpy as np
from msgspec.structs import replace

from shardkit.checksums import crc32c
from shardkit.packing.dest.dataset_files import DatasetFiles
from shardkit.shards.columns.types import PREFIX
from shardkit.shards.corrections.block import OPTION, FieldsEntry, FileEntry, OverlayEntry, VersionEntry, corrected_plan
from shardkit.shards.corrections.fields import encode_fields
from shardkit.shards.corrections.overlay import Overlay, encode_overlay
from shardkit.shards.corrections.read import AddedFields
from shardkit.shards.corrections.version import fields_name, next_version, overlay_name, version_name
from shardkit.shards.manifest import Manifest, column_options, encode_manifest
from shardkit.shards.objects import Objects
from shardkit.tools.corrections.packed import packed_classes, packed_columns
from shardkit.tools.corrections.place import Base

Written = dict[str, bytes]
"""Files by name."""

NUMBER = 2
"""The version of the merged dataset with corrections."""


def is_corrected(manifest: Manifest) -> bool:
    """Whether a dataset is not as packed."""
    found = manifest.corrections
    return found is not None and (found.overlay is not None or bool(found.fields))


def as_packed(manifest: Manifest, files: DatasetFiles) -> Manifest:
    """The manifest of a member without its corrections. Not for labels of several classes that were corrected."""
    if not is_corrected(manifest):
        return manifest
    options = {name: value for name, value in manifest.options.items() if name not in (OPTION, "columns")}
    counted = manifest.classes and manifest.labels != "multi"
    return replace(
        manifest, samples=sum(shard.samples for shard in manifest.shards),
        classes=packed_classes(manifest, files) if counted else manifest.classes,
        options=options | column_options(packed_columns(manifest, files)),
    )  # fmt: skip


def corrected_merge(members: Sequence[Base], first: Manifest, like: Manifest, base: str) -> tuple[Manifest, Written]:
    """(the manifest of version 2, the files that it names beside those of the members). first: the manifest of version
    1. like: that of the members as they are corrected. base: what the names of the files start with."""
    data, written = encode_manifest(first), Written()
    kept = _written(written, lambda _: version_name(base, 1), data)
    starts = [0, *accumulate(len(member.manifest.shards) for member in members)]
    overlay, whole = None, _joined([(member.overlay, start) for member, start in zip(members, starts, strict=False)])
    if len(whole):
        data = encode_overlay(whole)
        file = _written(written, lambda crc: overlay_name(base, NUMBER, crc), data)
        overlay = OverlayEntry(file.name, len(whole), file.bytes, file.crc32c)
    fields = tuple(entry for member, start in zip(members, starts, strict=False)
                   for entry in _fields(member, start, base, written))  # fmt: skip
    entry = VersionEntry(
        version=0, kind="merge", samples=0, relabelled=int((~whole.deleted).sum()), deleted=int(whole.deleted.sum()),
        fields=fields,
    )  # fmt: skip
    plan = like.plan
    for correction in (overlay, *fields):
        plan = corrected_plan(plan, correction)
    like, deleted = replace(like, plan=plan), whole.deleted_counts()
    return next_version(kept, first, entry, overlay=overlay, deleted=deleted, fields=fields, like=like), written


def _written(written: Written, named: Callable[[str], str], data: bytes) -> FileEntry:
    """Add a file. named: gives its name for its CRC-32C."""
    crc = f"{crc32c(data):08x}"
    written[named(crc)] = data
    return FileEntry(named(crc), len(data), crc)


def _joined(several: Sequence[tuple[Overlay, int]]) -> Overlay:
    """Overlays of successive shards as one. Each with the number of its first shard."""
    parts = [overlay for overlay, _ in several]
    return Overlay(
        np.concatenate([overlay.places + (start << 32) for overlay, start in several]),
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ("deleted", "labels", "targets", "keys")),
    )


def _fields(member: Base, start: int, base: str, written: Written) -> list[FieldsEntry]:
    """The files of added fields of a member, whose first shard has the number `start` now."""
    import pyarrow as pa

    added = AddedFields(Objects(member.remote), member.place, member.manifest, again=True)
    entries = []
    for number in range(len(added.entries)):
        file = added.file(number)
        groups = [file.group(group, ["key", *file.names]) for group in range(file.groups)]
        places = np.concatenate([found for found, _ in groups]) + (start << 32)
        table = pa.concat_tables([found for _, found in groups])
        types = {name.removeprefix(PREFIX): text for name, text in file.names.items()}
        values = table.select(list(file.names)).rename_columns(list(types))
        data = encode_fields(places, table["key"].combine_chunks(), values, types)
        kept = _written(written, lambda crc: fields_name(base, NUMBER, crc), data)
        entries.append(FieldsEntry(kept.name, types, len(places), kept.bytes, kept.crc32c))
    return entries
