"""What an index says of one shard: read as a whole, or, in a store, by ranges of its headers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import BoundedSemaphore
from typing import Any

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from shardkit.errors import DatasetError
from shardkit.formats.format import FORMATS, FormatName, format_of_head, format_of_name, is_packed_as
from shardkit.formats.protocol import Description, Skimmed
from shardkit.images.header import image_extent, image_header
from shardkit.location import Location
from shardkit.sample import path_of_member
from shardkit.shards.class_names import ShardLabels, shard_labels, two_names
from shardkit.shards.columns.of_json import texts_of
from shardkit.shards.index import QUALITY_TYPES, ShardRows
from shardkit.shards.indexing.parts import parts_of, skimmed_in_parts
from shardkit.shards.manifest import ShardEntry
from shardkit.shards.objects import Objects
from shardkit.shards.quality import quality_of_images
from shardkit.shards.scan import ShardBytes, ShardContent, open_shard, read_described, read_shard
from shardkit.shards.seek import seek_points_of
from shardkit.storage.access import Remote
from shardkit.storage.store import ObjectInfo, read
from shardkit.storage.windows import Windows
from shardkit.units import cores

HEAD_BYTES = 512
"""The first bytes of a shard, which show its format and whether it is compressed."""

_whole = BoundedSemaphore(cores())
"""Shards of a store that are in memory as a whole at a time: compressed ones, and those that are to be checked."""


class ShardTask(msgspec.Struct, frozen=True):
    """A shard to index. info: what its store says of it; None for a file. whole: read all of it, for the checksums and
    the sizes of all images. seek, quality: find the seek points, the quality of the images; columns: of values in the
    field `json`, to be kept as JSON texts; all of it is needed. parts: ranges of it that are read at a time."""

    shard: Location
    remote: Remote
    info: ObjectInfo | None = None
    whole: bool = False
    seek: bool = False
    quality: bool = False
    columns: tuple[str, ...] = ()
    parts: int = 1

    @property
    def reads_all(self) -> bool:
        """Whether headers and lengths are not enough."""
        return self.whole or self.seek or self.quality or bool(self.columns)


class IndexedShard(msgspec.Struct, frozen=True):
    """A shard that was read: its entry, field names, labels, unpacked bytes (0: not compressed), format, and the
    version that its store had for it. The entry has no checksum if not all of it was read. undecoded: images without
    quality, because they can't be decoded."""

    entry: ShardEntry
    fields: tuple[str, ...]
    labels: ShardLabels
    unpacked: int
    format: str
    version: str | None
    undecoded: int = 0


def index_shard(task: ShardTask) -> tuple[IndexedShard, ShardRows]:
    """A shard and its rows (labels as in `cls`), with the seek points and the quality of its images, as asked.

    Raises DatasetError (DamagedError) for the first defect in what is read, NotFoundError, StorageError.
    """
    if task.info is None or task.shard.is_local:
        return _index_whole(task)
    objects = Objects(task.remote)
    store, name, info = objects.patient(task.shard.parent), task.shard.name, task.info

    def span(start: int, end: int) -> bytes:
        return bytes(read(store, name, start, end))

    windows = Windows(span, info.bytes)
    head = windows(0, HEAD_BYTES)
    form = format_of_name(name) or format_of_head(head)
    if task.reads_all or not head or is_packed_as(form, head[:12]):
        with _whole:
            return _index_whole(task, objects)
    parts = parts_of(info.bytes, task.parts)
    return _index_headers(
        task,
        info,
        form,
        lambda place: skimmed_in_parts(FORMATS[form], windows, span, info.bytes, place=place, parts=parts),
    )


def _index_whole(task: ShardTask, objects: Objects | None = None) -> tuple[IndexedShard, ShardRows]:
    data = open_shard(task.shard, objects=objects)
    content = read_shard(data)
    if content.error is not None:
        raise content.error
    rows = shard_rows(task.shard.name, data, content)
    if task.seek:
        images = (content.numbers[name].tolist() for name in ("image_offset", "image_size", "crc32c"))
        rows = replace(rows, seek=seek_points_of(data.buffer, zip(*images, strict=True)))
    undecoded = 0
    if task.quality:
        spans = (content.numbers[name].tolist() for name in ("image_offset", "image_size"))
        found, undecoded = quality_of_images(data.buffer, zip(*spans, strict=True))
        rows = replace(rows, quality=np.frombuffer(found, QUALITY_TYPES))
    if task.columns:
        rows = replace(rows, columns=texts_of(data, task.columns))
    version = None if task.info is None or task.shard.is_local else task.info.version
    shard = _indexed(task, content, data.format, f"{content.crc32c:08x}", version)
    return replace(shard, undecoded=undecoded), rows


def _index_headers(
    task: ShardTask, info: ObjectInfo, form: FormatName, skim: Callable[[str], Iterator[Skimmed]]
) -> tuple[IndexedShard, ShardRows]:
    extents: list[tuple[int, int]] = []

    def described(skimmed: Iterator[Skimmed]) -> Iterator[Description]:
        for description, head in skimmed:
            extents.append(image_extent(head) if description.image else (0, 0))
            yield description

    place = str(task.shard)
    content = ShardContent(place, info.bytes, info.bytes, gzip=False)
    read_described(content, described(skim(place)))
    if content.error is not None:
        raise content.error
    return _indexed(task, content, form, "", info.version), _rows(task.shard.name, content, extents)


def _indexed(task: ShardTask, content: ShardContent, form: FormatName, crc: str, version: str | None) -> IndexedShard:
    renamed = None if content.renamed is None else two_names(*content.renamed)
    numbers = content.numbers
    labels = shard_labels(
        numbers["label"], content.keys, content.image_fields, numbers["offset"],
        place=content.place, texts=content.texts, renamed=renamed,
    )  # fmt: skip
    entry = ShardEntry(task.shard.name, len(content), content.file_bytes, crc)
    unpacked = content.unpacked_bytes if content.gzip else 0
    return IndexedShard(entry, tuple(content.fields), labels, unpacked, form, version)


def shard_rows(name: str, data: ShardBytes, content: ShardContent) -> ShardRows:
    """The index rows of a shard that was read, with image sizes (0 if the header does not give one).

    Raises DatasetError for a key or path that is not UTF-8, which an index can't hold.
    """
    starts, sizes = content.numbers["image_offset"].tolist(), content.numbers["image_size"].tolist()
    return _rows(name, content, [_extent(data, start, size) for start, size in zip(starts, sizes, strict=True)])


def _rows(name: str, content: ShardContent, extents: list[tuple[int, int]]) -> ShardRows:
    offsets = content.numbers["offset"].tolist()
    cure = "rename it with 'shardkit repair'"
    paths = content.paths or list(map(path_of_member, content.keys, content.image_fields))
    for row, (key, path) in enumerate(zip(content.keys, paths, strict=True)):
        if not _is_utf8(key) or not _is_utf8(path):
            fact = f"its {'path' if _is_utf8(key) else 'key'} is not UTF-8, which an index can't hold"
            raise DatasetError(content.place, fact, cure, offsets[row], key)
    numbers: dict[str, NDArray[Any]] = {
        **content.numbers,
        "width": np.array([width for width, _ in extents], np.int32),
        "height": np.array([height for _, height in extents], np.int32),
    }
    return ShardRows(name, content.keys, paths, numbers)


def _is_utf8(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text)


def _extent(data: ShardBytes, start: int, size: int) -> tuple[int, int]:
    if start < 0:
        return 0, 0
    try:
        _, width, height = image_header(bytes(data.buffer[start : start + size]))
    except ValueError:  # the size is unknown, like that of an image packed with check="none"
        return 0, 0
    return width, height
