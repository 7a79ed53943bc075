"""What the manifest of a corrected dataset says of its corrections: `options["corrections"]`.

    {"version": 3,                         the number of this version; 1 is the dataset as packed
     "overlay": {"name": "train.v3.0a1b2c3d.parquet", "rows": 20, "bytes": 2048, "crc32c": "0a1b2c3d"},
                                           all corrections of this version, as rows (overlay.py); null: there are none
     "deleted": [[0, 2], [5, 1]],          (number of the shard, samples of it that are deleted), rising
     "log": [{"version": 1, "kind": "pack", "samples": 100, "manifest": {"name": "train.v1.json", …}}, …],
                                           all versions in order, this one last, which has no manifest of its own
     "kept": [{"name": "train-000004.tar", "bytes": 10240, "crc32c": "…"}]}
                                           shards and index files that only older versions name

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

Kind = Literal["pack", "relabel", "delete", "append", "revert", "purge"]
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


class VersionEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A version of a dataset.

    version: its number. kind: what made it. samples: how many it has. relabelled, deleted, added: the samples that it
    changed. classes: the names of new classes. of: the version to which it went back. message: its author's.
    overlay: its corrections; None if it has none. manifest: the copy of its manifest; None for the current version, and
    for those before a purge, which are gone.
    """

    version: int
    kind: str
    samples: int
    relabelled: int = 0
    deleted: int = 0
    added: int = 0
    classes: tuple[str, ...] = ()
    of: int | None = None
    message: str = ""
    overlay: OverlayEntry | None = None
    manifest: FileEntry | None = None


class Corrections(msgspec.Struct, frozen=True, kw_only=True):
    """The corrections of a dataset, as above."""

    version: int
    overlay: OverlayEntry | None = None
    deleted: tuple[tuple[int, int], ...] = ()
    log: tuple[VersionEntry, ...]
    kept: tuple[FileEntry, ...] = ()

    def files(self) -> list[FileEntry]:
        """The files that belong to the versions: their overlays and manifests, and what only older versions name."""
        overlays = [each.overlay for each in self.log]
        found = [FileEntry(each.name, each.bytes, each.crc32c) for each in overlays if each is not None]
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
    return msgspec.json.decode(msgspec.json.encode(corrections))


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
    return None


def _overlays(found: Corrections) -> Iterator[OverlayEntry]:
    return (each.overlay for each in found.log if each.overlay is not None)


def corrected_plan(plan: str, overlay: OverlayEntry | None) -> str:
    """The `plan` of a dataset with corrections. plan: of the shards as they are; it stays empty."""
    if not plan or overlay is None:
        return plan
    return hashlib.blake2b(f"{plan} corrected {overlay.crc32c} {overlay.rows}".encode(), digest_size=16).hexdigest()
