"""One shard as it is on the disk: mapped, read once from front to back, as columns of numbers.

Everything that `verify`, `index` and `repair` want to know of a shard comes from one pass: where each sample is, its
label, the CRC-32C of its image, and that of the whole file, which is joined from the parts.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from shardkit.errors import DamagedError, NotFoundError, StorageError
from shardkit.formats import tar
from shardkit.formats.tar_headers import GZIP_MAGIC
from shardkit.formats.tar_stream import gunzip
from shardkit.location import Location
from shardkit.sample import IMAGE_FIELDS
from shardkit.tools._crc import crc_of, joined_crc

NO_LABEL, BAD_LABEL = -1, -2
MAX_LABEL = 10_000_000
"""A label above it is taken for damage: a class map of that size would not fit a manifest."""

NUMBERS = ("label", "offset", "size", "image_offset", "image_size", "crc32c")


@dataclass(frozen=True, slots=True)
class ShardBytes:
    """The bytes of a shard. `file_bytes`, `crc32c`: of the file as stored (None: not summed); `gzip`: it is packed."""

    place: str
    view: NDArray[np.uint8]
    buffer: Any
    file_bytes: int
    gzip: bool = False
    crc32c: int | None = None


@dataclass(slots=True)
class ShardContent:
    """What was read of a shard: a row for each sample, up to the first error.

    numbers: int64 columns of NUMBERS (label NO_LABEL or BAD_LABEL where there is none; image_offset -1 likewise).
    image_fields: the field that is the image, "" for none. fields: all names. crc32c: of the whole file.
    """

    place: str
    file_bytes: int
    unpacked_bytes: int
    gzip: bool
    keys: list[str] = field(default_factory=list)
    image_fields: list[str] = field(default_factory=list)
    fields: dict[str, None] = field(default_factory=dict)
    numbers: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    crc32c: int = 0
    error: DamagedError | None = None

    def __len__(self) -> int:
        return len(self.keys)


def open_shard(location: Location) -> ShardBytes:
    """The shard's bytes: mapped, or unpacked into memory where it is gzip.

    Raises NotFoundError, StorageError; DamagedError for gzip data that can't be unpacked and for an empty file.
    """
    place = str(location)
    try:
        with open(location.path, "rb") as file:
            size = file.seek(0, 2)
            if size == 0:
                raise DamagedError(place, "the file is empty", "copy it again, or pack again", 0)
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            if data[:2] != GZIP_MAGIC:
                return ShardBytes(place, np.frombuffer(data, np.uint8), data, size)
            crc = crc_of(np.frombuffer(data, np.uint8))
            file.seek(0)
            unpacked = gunzip(file, place=place)
            pieces = iter(lambda: unpacked.read(1 << 20), b"")
            whole = b"".join(pieces)
    except FileNotFoundError as exc:
        raise NotFoundError(place, "the shard is missing", "bring it back, or pack again") from exc
    except OSError as exc:
        raise StorageError(place, exc.strerror or str(exc), "check the disk and its rights") from exc
    return ShardBytes(f"{place} (unpacked)", np.frombuffer(whole, np.uint8), whole, size, True, crc)


def read_shard(shard: ShardBytes) -> ShardContent:
    """The content of a tar shard. What is damaged ends the rows and stands in `error`; the CRC is of all bytes."""
    content = ShardContent(shard.place, shard.file_bytes, len(shard.view), shard.gzip)
    columns: dict[str, list[int]] = {name: [] for name in NUMBERS}
    sums: list[int] = []
    lengths: list[int] = []
    try:
        at = _rows(shard, content, columns, sums, lengths)
    except DamagedError as exc:
        content.error = exc
        at = sum(lengths)
    content.numbers = {name: np.array(values, np.int64) for name, values in columns.items()}
    if shard.crc32c is not None:
        content.crc32c = shard.crc32c
    else:
        sums.append(crc_of(shard.view[at:]))
        lengths.append(len(shard.view) - at)
        content.crc32c = joined_crc(np.array(sums, np.uint32), np.array(lengths, np.int64))
    return content


def _rows(
    shard: ShardBytes, content: ShardContent, columns: dict[str, list[int]], sums: list[int], lengths: list[int]
) -> int:
    """Fill the columns, and the sums of the bytes before each image and of each image; the end of the last image."""
    view, buffer, value = shard.view, shard.buffer, google_crc32c.value
    names, keys, fields = content.image_fields, content.keys, content.fields
    labels, offsets, sizes, image_offsets, image_sizes, crcs = (columns[name] for name in NUMBERS)
    at = 0
    for sample in _samples(shard):
        image, start, size = "", -1, -1
        label = NO_LABEL
        for name, (begin, length) in sample.fields.items():
            if name == "cls":
                label = label_of(buffer[begin : begin + length])
            elif not image and name in IMAGE_FIELDS:
                image, start, size = name, begin, length
            fields[name] = None
        crc = 0
        if image:
            crc = value(view[start : start + size])
            sums += (value(view[at:start]), crc)
            lengths += (start - at, size)
            at = start + size
        keys.append(sample.key)
        names.append(image)
        labels.append(label)
        offsets.append(sample.offset)
        sizes.append(sample.size)
        image_offsets.append(start)
        image_sizes.append(size)
        crcs.append(crc)
    return at


def _samples(shard: ShardBytes) -> Iterator[tar.TarSample]:
    return tar.read_samples(shard.buffer, place=shard.place)


def label_of(text: bytes) -> int:
    """The class number in a `cls` field; BAD_LABEL where it is none."""
    digits = text.strip()
    return int(digits) if digits.isdigit() and len(digits) < 9 and int(digits) <= MAX_LABEL else BAD_LABEL
