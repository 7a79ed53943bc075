"""One shard as it is on the disk: mapped, read once from front to back, as columns of numbers.

Everything that `verify`, `index` and `repair` want to know of a shard comes from one pass: where each sample is, its
label, the CRC-32C of its image, and that of the whole file, which is joined from the parts.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shardkit.errors import DamagedError, NotFoundError, StorageError
from shardkit.formats import tar
from shardkit.formats.table import FORMATS, FormatName, StoredSample, format_of_head, format_of_name
from shardkit.formats.tar_headers import GZIP_MAGIC
from shardkit.formats.tar_stream import gunzip
from shardkit.formats.tfrecord import TfrecordSample
from shardkit.formats.tfrecord_features import FILENAME
from shardkit.formats.tfrecord_stream import is_packed
from shardkit.location import Location
from shardkit.sample import IMAGE_FIELDS, field_of, text_of_path
from shardkit.tools._crc import crc_of, joined_crc, summer

NO_LABEL, BAD_LABEL = -1, -2
MAX_LABEL = 10_000_000
"""A label above it is taken for damage: a class map of that size would not fit a manifest."""

WINDOW_BYTES = 2 << 20
"""What is read at a time where the index says where samples end: little enough to be summed from the core's cache."""

NUMBERS = ("label", "offset", "size", "image_offset", "image_size", "crc32c")


@dataclass(frozen=True, slots=True)
class ShardBytes:
    """The bytes of a shard. `file_bytes`, `crc32c`: of the file as stored (None: not summed).

    gzip: the file is packed, by gzip or zlib.
    """

    place: str
    view: NDArray[np.uint8]
    buffer: Any
    file_bytes: int
    gzip: bool = False
    crc32c: int | None = None
    format: FormatName = "tar"

    def samples(self, start: int = 0, end: int | None = None) -> Iterator[StoredSample]:
        """The samples from byte `start` up to `end`. DamagedError for damage."""
        return FORMATS[self.format].read(self.buffer, place=self.place, start=start, end=end)


@dataclass(slots=True)
class ShardContent:
    """What was read of a shard: a row for each sample, up to the first error.

    numbers: int64 columns of NUMBERS (label NO_LABEL or BAD_LABEL where there is none; image_offset -1 likewise).
    image_fields: the field that is the image, "" for none. paths: of the samples' files, as `path_of` has them; empty
    where the names of the members are the paths. fields: all names. texts: label -> name of the class, where the
    format has it. crc32c: of the whole file.
    """

    place: str
    file_bytes: int
    unpacked_bytes: int
    gzip: bool
    keys: list[str] = field(default_factory=list)
    image_fields: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    fields: dict[str, None] = field(default_factory=dict)
    texts: dict[int, str] = field(default_factory=dict)
    numbers: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    crc32c: int = 0
    error: DamagedError | None = None

    def __len__(self) -> int:
        return len(self.keys)


def open_shard(location: Location, form: str | None = None) -> ShardBytes:
    """The shard's bytes: mapped, or unpacked into memory where it is gzip.

    form: its format, where a manifest tells; else the name tells, or else the first bytes.
    Raises NotFoundError, StorageError; DamagedError for packed data that can't be unpacked and for an empty tar file.
    """
    place = str(location)
    named: FormatName | None = (
        FORMATS[form].name if form is not None and form in FORMATS else format_of_name(location.name)
    )
    try:
        with open(location.path, "rb") as file:
            size = file.seek(0, 2)
            if size == 0 and named == "tfrecord":
                return ShardBytes(place, np.empty(0, np.uint8), b"", 0, format=named)
            if size == 0:
                raise DamagedError(place, "the file is empty", "copy it again, or pack again", 0)
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            known = named or format_of_head(data[:512])
            if not (data[:2] == GZIP_MAGIC if known == "tar" else is_packed(data[:12])):
                return ShardBytes(place, np.frombuffer(data, np.uint8), data, size, format=known)
            crc = crc_of(np.frombuffer(data, np.uint8))
            file.seek(0)
            unpacked = gunzip(file, place=place)
            pieces = iter(lambda: unpacked.read(1 << 20), b"")
            whole = b"".join(pieces)
    except FileNotFoundError as exc:
        raise NotFoundError(place, "the shard is missing", "bring it back, or pack again") from exc
    except OSError as exc:
        raise StorageError(place, exc.strerror or str(exc), "check the disk and its rights") from exc
    return ShardBytes(f"{place} (unpacked)", np.frombuffer(whole, np.uint8), whole, size, True, crc, known)


def read_shard(shard: ShardBytes, ends: NDArray[np.int64] | None = None) -> ShardContent:
    """The content of a shard. What is damaged ends the rows and stands in `error`; the CRC is of all bytes.

    ends: where samples end, as an index has it: then it is read in windows of whole samples, by calls that let other
    threads run, which the faults of a mapped file do not. Where that does not fit the shard, it is read without, and so
    is TFRecord, where the place of a record can be its key.
    """
    if ends is not None and len(ends) and not shard.gzip and shard.format == "tar":
        content = _in_windows(shard, ends)
        if content is not None:
            return content
    content = ShardContent(shard.place, shard.file_bytes, len(shard.view), shard.gzip)
    columns = _Columns(content)
    crc = summer(shard.view)
    try:
        columns.add(shard.samples(), shard.buffer, crc, 0)
    except DamagedError as exc:
        content.error = exc
    columns.sum_rest(crc, 0, len(shard.view))
    columns.finish()
    if shard.crc32c is not None:
        content.crc32c = shard.crc32c
    return content


def _in_windows(shard: ShardBytes, ends: NDArray[np.int64]) -> ShardContent | None:
    """The content of a shard whose samples end at `ends`; None where anything is not as it should be."""
    content = ShardContent(shard.place, shard.file_bytes, len(shard.view), False)
    columns = _Columns(content)
    buffer = np.empty(WINDOW_BYTES, np.uint8)
    fd = os.open(shard.place, os.O_RDONLY)
    try:
        for start, end in _windows(ends):
            if end - start > len(buffer):
                buffer = np.empty(end - start, np.uint8)
            window = memoryview(buffer)[: end - start]  # type: ignore[arg-type]
            if end > shard.file_bytes or os.preadv(fd, [window], start) != len(window):
                return None
            crc = summer(buffer)
            columns.add(tar.read_samples(window, place=shard.place, end=len(window)), window, crc, start)
            columns.sum_rest(crc, start, end)
        rest = os.pread(fd, shard.file_bytes - columns.at, columns.at)
    except (DamagedError, OSError):
        return None
    finally:
        os.close(fd)
    if len(rest) < len(tar.END) or rest.strip(b"\0"):
        return None
    columns.sum_rest(summer(np.frombuffer(rest, np.uint8)), columns.at, shard.file_bytes)
    columns.finish()
    return content


def _windows(ends: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Runs of whole samples of about WINDOW_BYTES."""
    start = 0
    while start < ends[-1]:
        row = int(np.searchsorted(ends, start + WINDOW_BYTES, side="right"))
        end = int(ends[row - 1]) if row and ends[row - 1] > start else int(ends[row])
        yield start, end
        start = end


class _Columns:
    """Takes samples in order and fills a ShardContent. `at`: up to where the bytes are summed."""

    def __init__(self, content: ShardContent) -> None:
        self.content, self.at = content, 0
        self.numbers: dict[str, list[int]] = {name: [] for name in NUMBERS}
        self.sums: list[int] = []
        self.lengths: list[int] = []

    def add(
        self, samples: Iterator[StoredSample], buffer: Any, crc_of_bytes: Callable[[int, int], int], base: int
    ) -> None:
        """Take samples of `buffer`, which begins at byte `base` of the shard, and sum up to the last image's end."""
        content = self.content
        names, keys, fields = content.image_fields, content.keys, content.fields
        labels, offsets, sizes, image_offsets, image_sizes, crcs = (self.numbers[name] for name in NUMBERS)
        for sample in samples:
            image, start, size = "", -1, -1
            label = NO_LABEL
            for name, (begin, length) in sample.fields.items():
                if name == "cls":
                    label = label_of(bytes(buffer[begin : begin + length]))
                elif not image and name in IMAGE_FIELDS:
                    image, start, size = name, begin, length
                fields[name] = None
            if isinstance(sample, TfrecordSample):
                fields.update(dict.fromkeys(sample.names))
                label = label_of_value(sample.values["cls"]) if "cls" in sample.values else label
                if sample.text and label >= 0:
                    content.texts.setdefault(label, sample.text)
                content.paths.append(path_of(sample, image))
            crc = 0
            if image:
                crc = crc_of_bytes(start, start + size)
                self.sums += (crc_of_bytes(self.at - base, start), crc)
                start += base
                self.lengths += (start - self.at, size)
                self.at = start + size
            keys.append(sample.key)
            names.append(image)
            labels.append(label)
            offsets.append(sample.offset + base)
            sizes.append(sample.size)
            image_offsets.append(start)
            image_sizes.append(size)
            crcs.append(crc)

    def sum_rest(self, crc_of_bytes: Callable[[int, int], int], base: int, end: int) -> None:
        """Sum the bytes up to `end`, of a buffer that begins at `base`."""
        if end > self.at:
            self.sums.append(crc_of_bytes(self.at - base, end - base))
            self.lengths.append(end - self.at)
            self.at = end

    def finish(self) -> None:
        """Fill in the columns and the CRC of all."""
        self.content.numbers = {name: np.array(values, np.int64) for name, values in self.numbers.items()}
        self.content.crc32c = joined_crc(np.array(self.sums, np.uint32), np.array(self.lengths, np.int64))


def label_of(text: bytes) -> int:
    """The class number in a `cls` field; BAD_LABEL where it is none."""
    digits = text.strip()
    return int(digits) if digits.isdigit() and len(digits) < 9 and int(digits) <= MAX_LABEL else BAD_LABEL


def label_of_value(value: object) -> int:
    """The class number in a feature; BAD_LABEL where it is none."""
    return value if isinstance(value, int) and 0 <= value <= MAX_LABEL else BAD_LABEL


def path_of(sample: TfrecordSample, image: str) -> str:
    """The path of a sample's file, escaped: the one in the record, or else that of the sample's key.

    A name that others gave stands for the image only if it ends as one.
    """
    if sample.path and FILENAME not in sample.names:  # as we write it
        return sample.path
    if sample.path and image and field_of(os.path.splitext(sample.path)[1][1:]) in IMAGE_FIELDS:
        return text_of_path(sample.path.encode("utf-8", "surrogateescape"))
    return path_of_member(sample.key, image)


def path_of_member(key: str, image: str) -> str:
    """The path that a key stands for: the name of its image's member, or the key where it has no image."""
    return text_of_path((f"{key}.{image}" if image else key).encode("utf-8", "surrogateescape"))
