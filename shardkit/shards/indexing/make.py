"""Read shards into a spool, and make of it the manifest and the index files."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import BinaryIO, NamedTuple

from msgspec.structs import replace

from shardkit.checksums import crc32c
from shardkit.errors import UsageError
from shardkit.events import Progress, ProgressFn
from shardkit.formats.columns import as_texts
from shardkit.location import Location
from shardkit.shards.class_names import ClassMap, classes_of_shards, folder_of
from shardkit.shards.columns.of_json import typed_texts, types_of_texts
from shardkit.shards.columns.types import Types
from shardkit.shards.index import INDEX_SHARDS, ShardRows, write_index
from shardkit.shards.indexing.shard import IndexedShard, ShardTask, index_shard
from shardkit.shards.indexing.spool import Spool, unnamed_file
from shardkit.shards.keys import Hashes, KeyHashes, ShardKeys, hashes_of, require_unique_hashes
from shardkit.shards.manifest import (
    ELSEWHERE_VERSION,
    VERSION,
    IndexEntry,
    Manifest,
    column_options,
    content_options,
    encode_manifest,
)
from shardkit.shards.names import index_name, manifest_name
from shardkit.shards.quality import tell_undecoded
from shardkit.storage.files import sync_folder, translated, whole_file

COPY_BYTES = 4 << 20

Files = list[tuple[IndexEntry, BinaryIO]]

Kept = tuple[int, Hashes]
"""The number of a shard in the spool, and the hashes of its keys."""

Reader = Callable[[ShardTask], Kept]


def key_of(task: ShardTask) -> str | None:
    """What identifies a shard, as it is now, and how it is read; None where a change would go unnoticed."""
    if task.info is None or task.info.version is None:
        return None
    how = "whole" if task.reads_all else "headers"
    columns = f"{json.dumps(task.columns)} " if task.columns else ""
    looks = task.seek + 2 * task.quality
    return f"{how} {looks} {columns}{task.info.bytes} {task.info.version} {task.shard.url}"


def reader_into(spool: Spool) -> Reader:
    """A function that reads a shard into the spool, unless it is there. For threads."""

    def kept(task: ShardTask) -> Kept:
        return again(spool, task) or keep(spool, task, *index_shard(task))

    return kept


def keep(spool: Spool, task: ShardTask, shard: IndexedShard, rows: ShardRows) -> Kept:
    """Add a shard that was read to the spool."""
    number = spool.add(key_of(task) or f"unknown {task.shard.url}", shard, rows)
    return number, hashes_of(as_texts(rows.keys), len(rows))


def again(spool: Spool, task: ShardTask) -> Kept | None:
    """A shard that is in the spool; None if it is not."""
    key = key_of(task)
    number = None if key is None else spool.find(key)
    if number is None:
        return None
    keys = as_texts(spool.rows(number).keys)
    return number, hashes_of(keys, len(keys))


def collect(kept: Iterable[Kept], tasks: Sequence[ShardTask], spool: Spool, progress: ProgressFn) -> list[int]:
    """The numbers of the shards in the spool, in order. DatasetError for a key that occurs twice, UsageError for shards
    of several formats."""
    numbers, hashes = list[int](), KeyHashes()
    samples = size = 0
    for number, some in kept:
        numbers.append(number)
        hashes.add(some)
        entry = spool.shard(number).entry
        samples, size = samples + entry.samples, size + entry.bytes
        progress(Progress("index", samples, 0, size))
    tell_undecoded(sum(spool.shard(number).undecoded for number in numbers))
    _require_one_format([spool.shard(number) for number in numbers])

    def keys_of(place: int) -> ShardKeys:
        rows = spool.rows(numbers[place])
        return tasks[place].shard, as_texts(rows.keys), rows.numbers["offset"]

    require_unique_hashes(hashes, keys_of)
    return numbers


def _require_one_format(read: Sequence[IndexedShard]) -> None:
    other = next((item for item in read if item.format != read[0].format), None)
    if other is not None:
        fact = f"{read[0].entry.name} is {read[0].format}, and {other.entry.name} is {other.format}"
        raise UsageError("source", fact, "index the shards of each format separately")


class Made(NamedTuple):
    """A manifest, and its index files, not yet under their names."""

    manifest: Manifest
    files: Files


def make_index(
    spool: Spool,
    numbers: Sequence[int],
    names: Sequence[str] | None,
    *,
    prefix: str,
    seek: bool = False,
    quality: bool = False,
    elsewhere: str,
    columns: Sequence[str] = (),
) -> Made:
    """The manifest and the index files of the dataset `prefix`. names: of the classes, in label order. columns: of the
    spool, which become further columns.

    Raises DatasetError for labels of several datasets, UsageError for wrong names and columns, StorageError.
    """
    read = [spool.shard(number) for number in numbers]
    types = types_of_texts(map(spool.further, numbers), columns) if columns else {}
    found = classes_of_shards([(item.entry.name, item.labels) for item in read], names, place=prefix)
    folder, stem = os.path.split(prefix)
    files: Files = []
    starts = range(0, len(read), INDEX_SHARDS)
    with ExitStack() as stack:
        for part, first in enumerate(starts):
            some = numbers[first : first + INDEX_SHARDS]
            sink = stack.enter_context(unnamed_file(folder))
            with translated(folder):
                rows = _typed(_labelled(spool, some, found), types)
                write_index(sink, rows, seek=seek, quality=quality, columns=types)
                size, crc = sink.tell(), checksum(sink)
            name = index_name(stem, None if len(starts) == 1 else part)
            files.append((IndexEntry(name, len(some), size, f"{crc:08x}"), sink))
        stack.pop_all()  # whoever writes them closes them
    manifest = Manifest(
        samples=sum(item.entry.samples for item in read),
        bytes=sum(item.entry.bytes for item in read),
        classes=found.classes,
        fields=tuple(sorted({name for item in read for name in item.fields})),
        shards=tuple(item.entry for item in read),
        index=tuple(entry for entry, _ in files),
        shard_format=read[0].format,
        version=ELSEWHERE_VERSION if elsewhere else VERSION,
        options=content_options(
            unpacked_bytes=[item.unpacked for item in read], seek_points=seek, quality_columns=quality,
            elsewhere=(elsewhere, [item.version for item in read]) if elsewhere else None,
        ) | column_options(types),
    )  # fmt: skip
    return Made(manifest, files)


def write_made(folder: str, stem: str, made: Made) -> None:
    """Write the index files and then the manifest, each whole, to the dataset `stem` in a folder. StorageError."""
    for entry, sink in made.files:
        sink.seek(0)
        with sink, whole_file(os.path.join(folder, entry.name)) as file:
            shutil.copyfileobj(sink, file, COPY_BYTES)
    with translated(folder):
        sync_folder(folder)
    with whole_file(os.path.join(folder, manifest_name(stem))) as file:
        file.write(encode_manifest(made.manifest))
    with translated(folder):
        sync_folder(folder)


def _labelled(spool: Spool, numbers: Sequence[int], classes: ClassMap) -> Iterator[ShardRows]:
    for item in map(spool.rows, numbers):
        labels = classes.labels(item.numbers["label"], [folder_of(key) for key in as_texts(item.keys)])
        yield replace(item, numbers={**item.numbers, "label": labels})


def _typed(shards: Iterable[ShardRows], types: Types) -> Iterator[ShardRows]:
    """The rows with their further columns in these types. UsageError for a number that does not fit."""
    for item in shards:
        try:
            yield item if item.columns is None else replace(item, columns=typed_texts(item.columns, types))
        except ValueError as exc:
            raise UsageError("columns", f"{item.shard}: {exc}", "omit the column") from exc


def checksum(file: BinaryIO) -> int:
    """The CRC-32C of all of an open file."""
    file.seek(0)
    crc = 0
    while piece := file.read(COPY_BYTES):
        crc = crc32c(piece, crc)
    return crc


def require_one_folder(shards: Sequence[Location]) -> str:
    """The folder of all of the shards: an absolute path, or a URL for people. UsageError if there are several."""
    folders = sorted({os.path.abspath(s.parent.path) if s.is_local else str(s.parent) for s in shards})
    if len(folders) > 1:
        both = f"{folders[0]}, {folders[1]} …"
        fact = f"the shards are in {len(folders)} folders ({both}), and a manifest covers only one"
        raise UsageError("source", fact, "index each folder separately")
    return folders[0]


def folder_elsewhere(shards: Sequence[Location]) -> str:
    """The folder or URL of shards as a manifest names it. UsageError for a URL with a secret in it."""
    folder = shards[0].parent
    if folder.is_local:
        return os.path.abspath(folder.path)
    if folder.query or str(folder) != folder.url:
        fact = "its URL has a query or a password, which a manifest must not keep"
        raise UsageError(str(shards[0]), fact, "give credentials as storage options")
    return folder.url
