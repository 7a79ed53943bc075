"""The contents of a finished shard, and the files that record them until all shards are finished."""

from __future__ import annotations

import os
from collections import Counter

import msgspec

from shardkit.checksums import crc32c
from shardkit.formats.columns import Strings, int64s
from shardkit.images.jpeg import count_progressive
from shardkit.packing.write.images import ImageCheck
from shardkit.packing.write.sink import Sink
from shardkit.shards.manifest import ShardEntry
from shardkit.shards.quality import UNDECODED, quality_of_images
from shardkit.shards.seek import seek_points_of
from shardkit.storage.files import translated, whole_file
from shardkit.storage.mapped import map_whole

COLUMNS = ("label", "offset", "size", "image_offset", "image_size", "width", "height", "crc32c")


class Skipped(msgspec.Struct, frozen=True):
    """A skipped file, and the reason."""

    path: str
    reason: str


class Receipt(msgspec.Struct, frozen=True):
    """The contents of a finished shard: its manifest entry, samples by label, field names, and skipped files.

    types: counts of the files' actual formats, by "FORMAT extension". since: when the first file was read (nanoseconds,
    like file times). rows_crc32c: of the file with the index rows. done: counts of what transcoding did, by its `How`;
    "first of several" counts files of which further images were omitted, "incomplete JPEG" those that lack scans and
    therefore were not rewritten, UNDECODED those without quality columns. jpegs, progressive: how many images are
    JPEGs, and how many of these are progressive.
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
    jpegs: int = 0
    progressive: int = 0


class Rows(msgspec.Struct, frozen=True):
    """The index rows of a finished shard by column. keys, paths: UTF-8. numbers: as `int64s` views them. seek: as in
    `ShardRows`. columns: further columns (`decoded_columns` reads them); kept: which of their rows belong to samples
    that are here, None for all. quality: as `quality_of_images` gives it."""

    keys: Strings
    paths: Strings
    numbers: dict[str, bytes]
    seek: list[bytes] | None = None
    columns: bytes = b""
    kept: list[int] | None = None
    quality: bytes | None = None


def with_columns(rows: Rows, columns: bytes, keys: Strings) -> Rows:
    """The rows with further columns. keys: of all samples that these have, of which some may have been skipped."""
    if len(rows.keys) == len(keys):
        return msgspec.structs.replace(rows, columns=columns)
    numbers = {key: number for number, key in enumerate(keys)}
    return msgspec.structs.replace(rows, columns=columns, kept=[numbers[key] for key in rows.keys])


def with_seek_points(rows: Rows, shard: bytes) -> Rows:
    """The rows of the shard at this path with the seek points of its images. Its bytes are still in the system's
    memory, so that no way of writing it has to know of them. Raises StorageError."""
    starts, sizes, crcs = (int64s(rows.numbers[name]) for name in ("image_offset", "image_size", "crc32c"))
    with translated(shard):
        found = seek_points_of(map_whole(shard), zip(starts, sizes, crcs, strict=True))
    return msgspec.structs.replace(rows, seek=found)


def with_quality(rows: Rows, shard: bytes) -> tuple[Rows, int]:
    """(the rows of the shard at this path with the quality of its images; how many can't be decoded). As
    `with_seek_points`."""
    starts, sizes = (int64s(rows.numbers[name]) for name in ("image_offset", "image_size"))
    with translated(shard):
        found, undecoded = quality_of_images(map_whole(shard), zip(starts, sizes, strict=True))
    return msgspec.structs.replace(rows, quality=found), undecoded


class Written(msgspec.Struct, frozen=True):
    """What was written to a shard: its index rows, and parts of its Receipt.

    counts: the samples of each class, if a sample may have several. since: when the first file was read, if that was
    before the shard was begun. jpegs: the JPEGs and the progressive ones, if they were counted. uncounted: where in the
    shard those images are, if any, that were not: starts and sizes as native int64.
    """

    rows: Rows
    fields: list[str]
    types: dict[str, int]
    skipped: list[Skipped]
    done: dict[str, int] = {}
    counts: dict[int, int] | None = None
    since: int | None = None
    jpegs: tuple[int, int] | None = None
    uncounted: tuple[bytes, bytes] = (b"", b"")

    def looked_at(self, shard: bytes, *, seek: bool, quality: bool) -> Written:
        """This with the seek points or the quality of its images. shard: its path."""
        rows, done = self.rows, dict(self.done)
        if seek:
            rows = with_seek_points(rows, shard)
        if quality:
            rows, undecoded = with_quality(rows, shard)
            done |= {UNDECODED: undecoded} if undecoded else {}
        return msgspec.structs.replace(self, rows=rows, done=done)


def receipt_path(folder: bytes, name: str) -> bytes:
    """The path of a shard's receipt."""
    return os.path.join(folder, os.fsencode(name) + b".receipt")


def rows_path(folder: bytes, name: str) -> bytes:
    """The path of a shard's index rows, which are kept until all shards are finished."""
    return os.path.join(folder, os.fsencode(name) + b".rows")


def _counted(written: Written, shard: bytes) -> tuple[int, int]:
    """(JPEGs, progressive ones) of the images of the shard at this path."""
    numbers, known = written.rows.numbers, written.jpegs
    starts, sizes = map(int64s, written.uncounted if known else (numbers["image_offset"], numbers["image_size"]))
    jpegs, progressive = known or (0, 0)
    if not starts:
        return jpegs, progressive
    with translated(shard):
        more, more_progressive = count_progressive(map_whole(shard), starts, sizes)
    return jpegs + more, progressive + more_progressive


def keep_receipt(
    folder: bytes, name: str, sink: Sink, written: Written, *, digest: str, check: ImageCheck, since: int
) -> Receipt:
    """Write the index rows and the receipt of a finished shard, whose bytes are still in the system's memory."""
    rows = msgspec.msgpack.encode(written.rows)
    target = os.path.join(folder, os.fsencode(name))
    labels = int64s(written.rows.numbers["label"])
    counts = Counter(labels) if written.counts is None else written.counts
    jpegs, progressive = _counted(written, target)
    receipt = Receipt(
        digest=digest,
        check=check,
        entry=ShardEntry(name, len(written.rows.keys), sink.bytes, f"{sink.crc:08x}"),
        labels=dict(sorted(counts.items())),
        fields=written.fields,
        skipped=written.skipped,
        types=written.types,
        since=since,
        rows_crc32c=crc32c(rows),
        done=written.done,
        jpegs=jpegs,
        progressive=progressive,
    )
    # Not flushed: the receipt has the rows' checksum, and a receipt that does not decode is ignored.
    with whole_file(rows_path(folder, name), sync=False) as file:
        file.write(rows)
    with whole_file(receipt_path(folder, name), sync=False) as file:
        file.write(msgspec.msgpack.encode(receipt))
    return receipt
