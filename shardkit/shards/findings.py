"""The findings of a check, and the table of their kinds with cures."""

from __future__ import annotations

import msgspec

from shardkit.errors import ShardkitError, printable

_AGAIN = "copy the shard again, pack again, or run 'shardkit repair'"
_INDEX = "run 'shardkit index' to make a new one, or restore the right one"
_OVERLAY = "restore it, or read another version: NAME@N"
_VERSION = "restore it: an older version of the dataset can't be read without it"
_MANIFEST = "restore the right manifest, pack again, or run 'shardkit index'"

CURES = {
    "manifest": _MANIFEST,
    "shard-missing": "restore it, pack again, or run 'shardkit repair' to continue without it",
    "shard-unknown": "move it elsewhere, or make a new manifest with 'shardkit index'",
    "shard-unreadable": "check the disk and its permissions",
    "shard-size": _AGAIN,
    "shard-crc": _AGAIN,
    "shard-version": "run 'shardkit index' again with --overwrite",
    "shard-damaged": _AGAIN,
    "shard-samples": _AGAIN,
    "index-missing": _INDEX,
    "index-crc": _INDEX,
    "index-damaged": _INDEX,
    "index-rows": _INDEX,
    "index-row": _INDEX,
    "overlay-missing": _OVERLAY,
    "overlay-damaged": _OVERLAY,
    "fields-missing": _OVERLAY,
    "fields-crc": _OVERLAY,
    "fields-damaged": _OVERLAY,
    "version-missing": _VERSION,
    "version-crc": _VERSION,
    "image-crc": _AGAIN,
    "image-damaged": "fix it in the source and pack again, or leave it out with 'shardkit repair'",
    "image-size": _INDEX,
    "label": "pack again, or leave the sample out with 'shardkit repair'",
    "class-count": _MANIFEST,
    "class-name": _MANIFEST,
    "fields": _MANIFEST,
    "key-twice": "pack again, or let 'shardkit repair' give one of them another key",
    "skipped-list": "restore the list, or pack again",
}
"""Each kind of finding with its usual cure. A kind is a word for scripts, and does not change."""


class Finding(msgspec.Struct, frozen=True, order=True):
    """A problem: its file (`shard`, a path), byte, and sample; None if it has none."""

    shard: str
    byte: int | None
    key: str | None
    kind: str
    fact: str
    cure: str

    def __str__(self) -> str:
        where = [printable(self.shard)]
        where += [f"at byte {self.byte}"] if self.byte is not None else []
        where += [f"sample {printable(self.key)}"] if self.key is not None else []
        return f"{': '.join([*where, printable(self.fact)])}; {self.cure}"


def finding(kind: str, shard: str, fact: str, *, byte: int | None = None, key: str | None = None) -> Finding:
    """A finding of a kind of CURES."""
    return Finding(shard, byte, key, kind, fact, CURES[kind])


def found_error(kind: str, error: ShardkitError) -> Finding:
    """An error as a finding."""
    return Finding(error.place, error.offset, error.key, kind, error.fact, error.cure or CURES[kind])
