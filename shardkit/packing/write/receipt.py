"""What is in a finished shard, and where that is kept until all shards are there."""

from __future__ import annotations

import os
from collections import Counter

import msgspec

from shardkit.checksums import crc32c
from shardkit.packing.write.images import ImageCheck
from shardkit.packing.write.sink import Sink
from shardkit.shards.manifest import ShardEntry
from shardkit.storage.files import whole_file

COLUMNS = ("label", "offset", "size", "image_offset", "image_size", "width", "height", "crc32c")


class Skipped(msgspec.Struct, frozen=True):
    """A file that was left out, and why."""

    path: str
    reason: str


class Receipt(msgspec.Struct, frozen=True):
    """What is in a finished shard: its manifest entry, samples by label, field names, and what was left out.

    types: counts what the files really are, by "FORMAT extension". since: when the first file was read (nanoseconds,
    as file times). rows_crc32c: of the file with the index rows. done: counts what transcoding did, by its `How`, and
    as "first of several" where other images of a file were left out, as "incomplete JPEG" those that lack scans and
    therefore were not rewritten.
    """

    digest: str
    check: ImageCheck
    entry: ShardEntry
    labels: dict[int, int]
    fields: list[str]
    skipped: list[Skipped]
    types: dict[str, int]
    since: int
    rows_crc32c: int
    done: dict[str, int] = {}


class Rows(msgspec.Struct, frozen=True):
    """The index rows of a finished shard by column; each of `numbers` is native int64 as bytes."""

    keys: list[str]
    paths: list[str]
    numbers: dict[str, bytes]


class Written(msgspec.Struct, frozen=True):
    """What was written to a shard: its index rows, the label of each sample (-1: none), and parts of its Receipt.

    counts: samples of each class, where a sample may have several.
    """

    rows: Rows
    labels: list[int]
    fields: list[str]
    types: dict[str, int]
    skipped: list[Skipped]
    done: dict[str, int] = {}
    counts: dict[int, int] | None = None


def receipt_path(folder: bytes, name: str) -> bytes:
    """Where the receipt of a shard is kept."""
    return os.path.join(folder, os.fsencode(name) + b".receipt")


def rows_path(folder: bytes, name: str) -> bytes:
    """Where the index rows of a shard are kept until all shards are there."""
    return os.path.join(folder, os.fsencode(name) + b".rows")


def keep_receipt(
    folder: bytes, name: str, sink: Sink, written: Written, *, digest: str, check: ImageCheck, since: int
) -> Receipt:
    """Write the index rows and the receipt of a shard that is there."""
    rows = msgspec.msgpack.encode(written.rows)
    receipt = Receipt(
        digest=digest,
        check=check,
        entry=ShardEntry(name, len(written.labels), sink.bytes, f"{sink.crc:08x}"),
        labels=dict(sorted((Counter(written.labels) if written.counts is None else written.counts).items())),
        fields=written.fields,
        skipped=written.skipped,
        types=written.types,
        since=since,
        rows_crc32c=crc32c(rows),
        done=written.done,
    )
    # Not flushed: the receipt has the rows' checksum, and one that does not decode is none.
    with whole_file(rows_path(folder, name), sync=False) as file:
        file.write(rows)
    with whole_file(receipt_path(folder, name), sync=False) as file:
        file.write(msgspec.msgpack.encode(receipt))
    return receipt
