"""The manifest of the next version of a dataset, and the names of what belongs to versions.

STEM.v3.json               the manifest of version 3, once there is a later one
STEM.v3.0a1b2c3d.parquet   the overlay of version 3; 0a1b2c3d is its CRC-32C, so that no file is ever written over
STEM.v3.fields.0a1b2c3d.parquet  the fields that version 3 added
STEM-g2.v3.json            the same of a dataset that replaced another
"""

from __future__ import annotations

import re

from msgspec.structs import replace

from shardkit.shards.corrections.block import (
    OPTION,
    Corrections,
    FieldsEntry,
    FileEntry,
    OverlayEntry,
    VersionEntry,
    block_of,
)
from shardkit.shards.manifest import CORRECTED_VERSION, IndexEntry, Manifest, all_names
from shardkit.shards.names import base_of, generation_of


def base_of_versions(manifest: Manifest, stem: str) -> str:
    """What the names of a dataset's overlays and older manifests start with."""
    return base_of(stem, generation_of(all_names(manifest, stem), stem))


def version_name(base: str, number: int) -> str:
    """The manifest of an older version."""
    return f"{base}.v{number}.json"


def overlay_name(base: str, number: int, crc: str) -> str:
    """An overlay."""
    return f"{base}.v{number}.{crc}.parquet"


def fields_name(base: str, number: int, crc: str) -> str:
    """A file of added fields."""
    return f"{base}.v{number}.fields.{crc}.parquet"


def is_of_version(name: str, stem: str) -> bool:
    """Whether a file is named as an overlay, or as added fields, of the dataset `stem`."""
    version = r"(-g[1-9][0-9]*)?\.v[1-9][0-9]*(\.fields)?\.[0-9a-f]{8}\.parquet"
    return re.fullmatch(re.escape(stem) + version, name) is not None


def index_files_taken(manifest: Manifest) -> tuple[IndexEntry, ...]:
    """The index files of a dataset and those that only older versions name."""
    corrections = manifest.corrections
    older = () if corrections is None else corrections.kept
    kept = (IndexEntry(each.name, 0, each.bytes, each.crc32c) for each in older if each.name.endswith(".parquet"))
    return (*manifest.index, *kept)


def next_version(
    kept: FileEntry,
    before: Manifest,
    entry: VersionEntry,
    *,
    overlay: OverlayEntry | None,
    deleted: tuple[tuple[int, int], ...],
    fields: tuple[FieldsEntry, ...],
    like: Manifest,
) -> Manifest:
    """The manifest of the version after `before`. kept: the copy of its manifest. overlay, deleted, fields: as in
    `Corrections`. like: the rest of its content."""
    number, found = before.number, before.corrections
    log = (VersionEntry(version=1, kind="pack", samples=before.samples),) if found is None else found.log
    log = (*log[:-1], replace(log[-1], manifest=kept))
    samples = sum(shard.samples for shard in like.shards) - sum(count for _, count in deleted)
    mine = {shard.name for shard in like.shards} | {index.name for index in like.index}
    older = [] if found is None else list(found.kept)
    if not before.elsewhere:
        older += [FileEntry(shard.name, shard.bytes, shard.crc32c) for shard in before.shards]
    older += [FileEntry(index.name, index.bytes, index.crc32c) for index in before.index]
    corrections = Corrections(
        version=number + 1,
        overlay=overlay,
        deleted=deleted,
        log=(*log, replace(entry, version=number + 1, samples=samples, overlay=overlay)),
        kept=tuple({each.name: each for each in older if each.name not in mine}.values()),
        fields=fields,
    )
    options = {name: value for name, value in like.options.items() if name != OPTION} | {OPTION: block_of(corrections)}
    return replace(like, version=CORRECTED_VERSION, samples=samples, options=options)
