"""What the manifest of a corrected dataset says of its corrections: `options["corrections"]`.

    {"version": 3,                         the number of this version; 1 is the dataset as packed
     "overlay": {"name": "train.v3.0a1b2c3d.parquet", "rows": 20, "bytes": 2048, "crc32c": "0a1b2c3d"},
                                           all corrections of this version, as rows (overlay.py); null: there are none
     "deleted": [[0, 2], [5, 1]],          (number of the shard, samples of it that are deleted), rising
     "log": [{"version": 1, "kind": "pack", "samples": 100, "manifest": {"name": "train.v1.json", …}}, …],
                                           all versions in order, this one last, which has no manifest of its own
     "kept": [{"name": "train-000004.tar", "bytes": 10240, "crc32c": "…"}],
                                           shards and index files that only older versions name
     "fields": [{"name": "train.v4.fields.0a1b2c3d.parquet", "columns": {"age": "int64"}, "rows": 20, "bytes": 2048,
                 "crc32c": "0a1b2c3d"}]}   the files of added fields (fields.py), if there are any; a later one wins

Shards and index stay as packed: `shards[i].samples` counts what is in a shard, and `samples` and `classes` what is
left.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Literal

import msgspec

OPTION = "corrections"
"""The key of `options`."""

Kind = Literal["pack", "relabel", "delete", "add-fields", "append", "merge", "revert", "purge"]
"""What made a version."""


class FileEntry(msgspec.Struct, frozen=True):
    """A file beside the manifest: its name, bytes, and CRC-32C as 8 hex digits."""

    name: str
    bytes: int
    crc32c: str


class OverlayEntry(msgspec.Struct, frozen=True):
    """An overlay: its file, and the number of its rows."""

    name: str
    rows: int
    bytes: int
    crc32c: str


class FieldsEntry(msgspec.Struct, frozen=True):
    """A file of added fields: their names and types (columns/types.py), and the number of its rows."""

    name: str
    columns: dict[str, str]
    rows: int
    bytes: int
    crc32c: str


class VersionEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A version of a dataset.

    version: its number. kind: what made it. samples: how many it has. relabelled, deleted, added: the samples that it
    changed; filled: those that were given values of the fields `columns`. classes: the names of new classes. of: the
    version to which it went back. message: its author's. overlay: its corrections; None if it has none. fields: the
    files of added fields that it wrote. manifest: the copy of its manifest; None for the current version, and for those
    before a purge, which are gone.
    """

    version: int
    kind: str
    samples: int
    relabelled: int = 0
    deleted: int = 0
    added: int = 0
    filled: int = 0
    columns: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    of: int | None = None
    message: str = ""
    overlay: OverlayEntry | None = None
    fields: tuple[FieldsEntry, ...] = ()
    manifest: FileEntry | None = None


class Corrections(msgspec.Struct, frozen=True, kw_only=True):
    """The corrections of a dataset, as above."""

    version: int
    overlay: OverlayEntry | None = None
    deleted: tuple[tuple[int, int], ...] = ()
    log: tuple[VersionEntry, ...]
    kept: tuple[FileEntry, ...] = ()
    fields: tuple[FieldsEntry, ...] = ()

    def files(self) -> list[FileEntry]:
        """The files that belong to the versions: their overlays, added fields and manifests, and what only older
        versions name."""
        overlays = [each.overlay for each in self.log if each.overlay is not None]
        found = [FileEntry(each.name, each.bytes, each.crc32c) for each in overlays]
        found += [FileEntry(f.name, f.bytes, f.crc32c) for each in self.log for f in each.fields]
        found += [each.manifest for each in self.log if each.manifest is not None]
        return list({each.name: each for each in (*found, *self.kept)}.values())

    def counts(self, shards: int) -> list[int]:
        """The deleted samples of each shard."""
        counts = [0] * shards
        for shard, count in self.deleted:
            counts[shard] = count
        return counts


def read_block(options: dict[str, Any]) -> Corrections | None:
    """The corrections in a manifest's options; None if there are none. ValueError for a block that is damaged."""
    found = options.get(OPTION)
    if found is None:
        return None
    try:
        return msgspec.convert(found, Corrections)
    except msgspec.ValidationError as exc:
        raise ValueError(f'"{OPTION}" is damaged ({exc})') from exc


def block_of(corrections: Corrections) -> Any:
    """The block as it is in the manifest."""
    block = msgspec.json.decode(msgspec.json.encode(corrections))
    return block if corrections.fields else {name: value for name, value in block.items() if name != "fields"}


def wrong_block(found: Corrections, samples: Sequence[int]) -> str | None:
    """What is wrong with a block; None if nothing is. samples: those in each shard."""
    numbers = [each.version for each in found.log]
    if numbers != list(range(1, found.version + 1)) or found.version < 2:
        return "its versions are not numbered from 1 on"
    purged = max((each.version for each in found.log if each.kind == "purge"), default=0)
    if any((each.manifest is None) != (each.version < purged or each is found.log[-1]) for each in found.log):
        return "it does not name the manifest of each older version"
    if found.log[-1].overlay != found.overlay:
        return "its overlay is not that of its last version"
    shards = [shard for shard, _ in found.deleted]
    if any(after <= before for before, after in pairwise((-1, *shards))):
        return '"deleted" does not name shards in order'
    if any(shard >= len(samples) or not 0 < count <= samples[shard] for shard, count in found.deleted):
        return "more samples are deleted than there are"
    total = sum(samples)
    rows = [each.rows for each in _overlays(found)]
    if any(not count >= 0 for count in rows) or (found.overlay is not None and found.overlay.rows > total):
        return "an overlay has more rows than there are samples"
    if found.overlay is None and found.deleted:
        return "samples are deleted, but no overlay names them"
    return _wrong_fields(found, total)


def _wrong_fields(found: Corrections, total: int) -> str | None:
    """What is wrong with the files of added fields."""
    written = [entry for each in found.log for entry in each.fields]
    if any(not 0 <= each.rows <= total for each in found.fields) or any(each.rows < 0 for each in written):
        return "a file of added fields has more rows than there are samples"
    if any(each not in written for each in found.fields):
        return "it names a file of added fields that none of its versions wrote"
    return None


def _overlays(found: Corrections) -> Iterator[OverlayEntry]:
    return (each.overlay for each in found.log if each.overlay is not None)


def corrected_plan(plan: str, correction: OverlayEntry | FieldsEntry | None) -> str:
    """The `plan` of a dataset with another correction. plan: of the dataset before; it stays empty."""
    if not plan or correction is None:
        return plan
    text = f"{plan} corrected {correction.crc32c} {correction.rows}"
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
