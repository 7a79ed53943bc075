"""Write one shard of a repaired dataset, with its index rows beside it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from shardkit.checksums import crc32c
from shardkit.errors import DatasetError
from shardkit.formats.columns import Strings
from shardkit.formats.format import Format
from shardkit.formats.tfrecord.example import with_text
from shardkit.formats.tfrecord.salvage import Record, record_of
from shardkit.formats.tfrecord.samples import FRAME, HEAD, framed_record
from shardkit.images.header import image_header
from shardkit.location import Location
from shardkit.packing.write.receipt import COLUMNS, Rows, rows_path, with_quality, with_seek_points
from shardkit.sample import IMAGE_FIELDS, path_of_member, path_of_text
from shardkit.shards.manifest import ShardEntry
from shardkit.shards.scan import ShardBytes, open_shard
from shardkit.storage.files import whole_file
from shardkit.tools.repair.salvaged import Salvaged

Row = tuple[str, str, dict[str, int]]
"""A sample's key, path and numbers."""


def write_shard(
    folder: str,
    shards: Sequence[Location],
    form: Format,
    texts: Mapping[int, str],
    task: tuple[str, Sequence[Salvaged], bytes],
    *,
    seek: bool = False,
    quality: bool = False,
) -> ShardEntry:
    """Write the shard `task` (name, samples, their further columns) to the folder, from pieces of `shards`.

    texts: class names. seek, quality: find the images' seek points, their quality.
    """
    name, samples, further = task
    sources: dict[int, ShardBytes] = {}
    for number in {number for sample in samples for number in _numbers(sample)}:
        sources[number] = open_shard(shards[number], as_far=True)
    keys, paths = [], []
    columns: dict[str, list[int]] = {column: [] for column in COLUMNS}
    at = crc = 0
    with whole_file(os.path.join(folder, name)) as file:
        for sample in samples:
            if sample.record is not None:
                pieces, (key, path, row) = _copied(sample, *sample.record, sources, at, name)
            else:
                pieces, (key, path, row) = _encoded(sample, sources, at, form, texts)
            for piece in pieces:
                crc = crc32c(piece, crc)
            file.writelines(pieces)
            at += row["size"]
            keys.append(key)
            paths.append(path)
            for column, value in row.items():
                columns[column].append(value)
        file.write(form.end)
    crc = crc32c(form.end, crc)
    numbers = {column: np.array(values, np.int64).tobytes() for column, values in columns.items()}
    rows = Rows(Strings.of_texts(keys), Strings.of_texts(paths), numbers, columns=further)
    if seek:
        rows = with_seek_points(rows, os.fsencode(os.path.join(folder, name)))
    if quality:
        rows, _ = with_quality(rows, os.fsencode(os.path.join(folder, name)))
    with whole_file(os.fsdecode(rows_path(os.fsencode(folder), name))) as file:
        file.write(msgspec.msgpack.encode(rows))
    return ShardEntry(name, len(samples), at + len(form.end), f"{crc:08x}")


def _numbers(sample: Salvaged) -> list[int]:
    return [number for number, *_ in sample.parts] if sample.record is None else [sample.record[0]]


def _encoded(
    sample: Salvaged, sources: Mapping[int, ShardBytes], at: int, form: Format, texts: Mapping[int, str]
) -> tuple[list[bytes], Row]:
    """Return (what to write for the sample at byte `at`, its index row)."""
    fields = [(name, bytes(sources[number].buffer[start : start + size])) for number, name, start, size in sample.parts]
    if sample.label >= 0:
        fields.append(("cls", b"%d" % sample.label))
    try:
        text = texts.get(sample.label, "")
        pieces, offsets, size = form.encode(sample.key, fields, path_of_text(sample.path), text)
    except ValueError as exc:
        raise DatasetError(sources[sample.parts[0][0]].place, str(exc), "rename it", sample.byte, sample.key) from exc
    row = _row(sample.label, at, size, b"", -1)
    for (name, data), offset in zip(fields, offsets, strict=True):
        if name in IMAGE_FIELDS:
            row = _row(sample.label, at, size, data, at + offset)
            break
    return pieces, (sample.key, sample.path, row)


def _copied(
    sample: Salvaged, number: int, record: Record, sources: Mapping[int, ShardBytes], at: int, name: str
) -> tuple[list[bytes], Row]:
    """Like `_encoded` for a record, which is unchanged unless its key is.

    A record without a key is named after its position, which is new.
    """
    source = sources[number]
    data = bytes(source.buffer[record.offset + HEAD : record.offset + record.size - (FRAME - HEAD)])
    if record.key_feature and sample.key != record.key:
        data = with_text(data, record.key_feature, sample.key)
    written = record_of(data, at, place=name)
    image = data[written.image_offset - at - HEAD :][: written.image_size] if written.image else b""
    by_place = not record.key_feature and record.path == path_of_member(record.key, record.image)
    path = written.path if by_place else sample.path
    row = _row(sample.label, at, len(data) + FRAME, image, written.image_offset)
    return [framed_record(data)], (written.key, path, row)


def _row(label: int, at: int, size: int, image: bytes, image_offset: int) -> dict[str, int]:
    row = {"label": label, "offset": at, "size": size, "image_offset": -1, "image_size": -1}
    row |= {"width": 0, "height": 0, "crc32c": 0}
    if image_offset < 0:
        return row
    width, height = _size(image)
    row |= {"image_offset": image_offset, "image_size": len(image), "width": width, "height": height}
    return row | {"crc32c": int(crc32c(image))}


def _size(data: bytes) -> tuple[int, int]:
    try:
        return image_header(data)[1:]
    except ValueError:  # it was packed with check="none"
        return 0, 0
