"""Read one shard once from front to back, mapped, into columns of numbers.

A single pass collects everything that `verify`, `index` and `repair` need to know about a shard: the place of each
sample, its label, the CRC-32C of its image, and that of the whole file, which is combined from the parts.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from shardkit.checksums import joined_crc, summer
from shardkit.errors import DamagedError, NotFoundError, StorageError
from shardkit.formats.format import (
    FORMATS,
    Description,
    FormatName,
    StoredSample,
    format_of_head,
    format_of_name,
    is_packed_as,
)
from shardkit.formats.tar.stream import Readable, gunzip
from shardkit.location import Location
from shardkit.sample import NO_LABEL, label_of
from shardkit.shards.objects import Objects
from shardkit.shards.open import IndexRows
from shardkit.storage.mapped import MappedFile, check_each, look, map_whole

SUM_BYTES = 4 << 20
"""The bytes of a mapped file that are summed between two checks of it."""

NUMBERS = ("label", "offset", "size", "image_offset", "image_size", "crc32c")


class ShardBytes(msgspec.Struct, frozen=True):
    """The bytes of a shard. `file_bytes`, `crc32c`: of the file as stored (None: not summed).

    data: a mapped file, or bytes. A mapped file is checked for each `buffer`, `view` and sample, which must not be held
    for long: StorageError if it became shorter.

    gzip: whether the file is compressed, by gzip or zlib. error: why it could not be unpacked beyond `view`. path: of
    the mapped file, "" for bytes in memory.
    """

    place: str
    data: Any
    file_bytes: int
    gzip: bool = False
    crc32c: int | None = None
    format: FormatName = "tar"
    error: DamagedError | None = None
    path: str = ""

    @property
    def buffer(self) -> Any:
        """The bytes as an object that can be sliced to bytes, and searched."""
        look(self.data)
        return self.data

    @property
    def view(self) -> NDArray[np.uint8]:
        """The bytes as an array."""
        return np.frombuffer(self.buffer, np.uint8)

    def __len__(self) -> int:
        return len(self.data)

    def samples(self, start: int = 0, end: int | None = None) -> Iterator[StoredSample]:
        """The samples from byte `start` up to `end`. DamagedError for damage."""
        return check_each(FORMATS[self.format].read(self.data, place=self.place, start=start, end=end), self.data)

    def summer(self) -> Callable[[int, int], int]:
        """A function that returns the CRC-32C of the bytes from `start` to `end`."""
        return _looking(summer(np.frombuffer(self.data, np.uint8)), self.data)


class ShardContent(msgspec.Struct):
    """What was read from a shard: a row for each sample, up to the first error.

    numbers: int64 columns of NUMBERS (label NO_LABEL or BAD_LABEL if there is none; image_offset -1 likewise).
    image_fields: the field with the image, "" for none. paths: of the samples' files, as from `path_of`; empty if the
    names of the members are the paths. fields: all names. texts: label -> class name, if the format stores it; renamed:
    the first record whose label had another name before: (label, name before, name, byte, key). crc32c: of the whole
    file.
    """

    place: str
    file_bytes: int
    unpacked_bytes: int
    gzip: bool
    keys: list[str] = []
    image_fields: list[str] = []
    paths: list[str] = []
    fields: dict[str, None] = {}
    texts: dict[int, str] = {}
    renamed: tuple[int, str, str, int, str] | None = None
    numbers: dict[str, NDArray[np.int64]] = {}
    crc32c: int = 0
    error: DamagedError | None = None

    def __len__(self) -> int:
        return len(self.keys)


def open_shard(
    location: Location, form: str | None = None, *, as_far: bool = False, objects: Objects | None = None
) -> ShardBytes:
    """The shard's bytes: mapped, or in memory if it is gzip or in a store.

    form: its format, if a manifest names it; otherwise the file name or the first bytes decide. as_far: damaged
    compressed data is unpacked as far as possible, and the error is recorded. objects: reads shards that are not on a
    disk. Raises NotFoundError, StorageError; DamagedError for compressed data that can't be unpacked and for an empty
    tar file.
    """
    place = str(location)
    named: FormatName | None = (
        FORMATS[form].name if form is not None and form in FORMATS else format_of_name(location.name)
    )
    data = _map_or_read(location) if location.is_local else (objects or Objects()).read(location)
    size, path = len(data), location.path if location.is_local else ""
    if size == 0 and named is not None and not FORMATS[named].end:  # no end mark: an empty file is a whole shard
        return ShardBytes(place, b"", 0, format=named)
    if size == 0:
        raise DamagedError(place, "the file is empty", "copy it again, or pack again", 0)
    known = named or format_of_head(data[:512])
    if not is_packed_as(known, data[:12]):
        return ShardBytes(place, data, size, format=known, path=path)
    packed: Readable = data if isinstance(data, MappedFile) else io.BytesIO(data)
    whole, error = _unpack(gunzip(packed, place=place), as_far)
    crc = _looking(summer(np.frombuffer(data, np.uint8)), data)(0, size)
    return ShardBytes(f"{place} (unpacked)", whole, size, True, crc, known, error)


def _looking(crc_of_bytes: Callable[[int, int], int], data: Any) -> Callable[[int, int], int]:
    """The same function, which checks `data` before each SUM_BYTES."""

    def crc(start: int, end: int) -> int:
        if end - start <= SUM_BYTES:
            look(data)
            return crc_of_bytes(start, end)
        cuts = [*range(start, end, SUM_BYTES), end]
        sums = [crc(first, stop) for first, stop in pairwise(cuts)]
        return joined_crc(np.array(sums, np.uint32), np.diff(np.array(cuts, np.int64)))

    return crc


def _map_or_read(location: Location) -> MappedFile | bytes:
    place = str(location)
    try:
        return map_whole(location.path)
    except FileNotFoundError as exc:
        raise NotFoundError(place, "the shard is missing", "restore it, or pack again") from exc
    except OSError as exc:
        raise StorageError(place, exc.strerror or str(exc), "check the disk and its permissions") from exc


def _unpack(file: Readable, as_far: bool) -> tuple[bytes, DamagedError | None]:
    pieces: list[bytes] = []
    try:
        while piece := file.read(1 << 16):
            pieces.append(piece)
    except DamagedError as exc:
        if not as_far or not pieces:
            raise
        return b"".join(pieces), exc
    return b"".join(pieces), None


def read_shard(shard: ShardBytes, rows: IndexRows | None = None) -> ShardContent:
    """The content of a shard. Damage ends the rows and is recorded in `error`; the CRC is of all bytes.

    rows: its index rows; a shard that matches them is only summed, not parsed. Raises StorageError if the disk fails.
    """
    content = ShardContent(shard.place, shard.file_bytes, len(shard), shard.gzip)
    if rows is not None and shard.path and _take_index(content, rows, shard):
        return content
    columns = _Columns(content)
    crc = shard.summer()
    try:
        columns.add(map(partial(FORMATS[shard.format].describe, shard.data), shard.samples()), crc)
    except DamagedError as exc:
        content.error = exc
    columns.finish(crc, len(shard))
    if shard.crc32c is not None:
        content.crc32c = shard.crc32c
    return content


def read_described(content: ShardContent, samples: Iterator[Description]) -> None:
    """Fill in the content of a shard from what is known of its samples, without checksums, which are 0. Damage ends the
    rows and is recorded."""
    columns = _Columns(content)
    try:
        columns.add(samples, _no_crc)
    except DamagedError as exc:
        content.error = exc
    columns.finish(_no_crc, content.unpacked_bytes)


def _no_crc(_start: int, _end: int) -> int:
    return 0


def _take_index(content: ShardContent, rows: IndexRows, shard: ShardBytes) -> bool:
    """Fill in the content of a shard that matches its index rows except for checksums; else return False."""
    try:
        found = FORMATS[shard.format].plain_sums(shard.path, rows.keys, rows.paths, rows.numbers)
    except OSError as exc:
        raise StorageError(content.place, exc.strerror or str(exc), "check the disk and its permissions") from exc
    if found is None:
        return False
    content.keys, content.image_fields, content.crc32c = rows.keys, found.fields, found.crc32c
    content.fields = dict.fromkeys((*found.fields, "cls"))
    content.numbers = {name: rows.numbers[name].astype(np.int64) for name in NUMBERS if name != "crc32c"}
    content.numbers["crc32c"] = found.sums.astype(np.int64)
    return True


class _Columns:
    """Collects samples in order into a ShardContent."""

    def __init__(self, content: ShardContent) -> None:
        self.content, self.summed = content, 0
        self.numbers: dict[str, list[int]] = {name: [] for name in NUMBERS}
        self.sums: list[int] = []
        self.lengths: list[int] = []

    def add(self, samples: Iterator[Description], crc_of_bytes: Callable[[int, int], int]) -> None:
        """Add samples, and sum the bytes up to the last image's end."""
        content = self.content
        names, keys, fields = content.image_fields, content.keys, content.fields
        labels, offsets, sizes, image_offsets, image_sizes, crcs = (self.numbers[name] for name in NUMBERS)
        for sample in samples:
            image, start, size = sample.image, sample.image_offset, sample.image_size
            label = NO_LABEL if sample.cls is None else label_of(sample.cls)
            fields.update(dict.fromkeys(sample.names))
            if sample.text and label >= 0:
                before = content.texts.setdefault(label, sample.text)
                if before != sample.text and content.renamed is None:
                    content.renamed = label, before, sample.text, sample.offset, sample.key
            if sample.path:
                content.paths.append(sample.path)
            crc = 0
            if image:
                crc = crc_of_bytes(start, start + size)
                self.sums += (crc_of_bytes(self.summed, start), crc)
                self.lengths += (start - self.summed, size)
                self.summed = start + size
            keys.append(sample.key)
            names.append(image)
            labels.append(label)
            offsets.append(sample.offset)
            sizes.append(sample.size)
            image_offsets.append(start)
            image_sizes.append(size)
            crcs.append(crc)

    def finish(self, crc_of_bytes: Callable[[int, int], int], end: int) -> None:
        """Sum the bytes up to `end`, and fill in the columns and the CRC of all."""
        self.sums.append(crc_of_bytes(self.summed, end))
        self.lengths.append(end - self.summed)
        self.content.numbers = {name: np.array(values, np.int64) for name, values in self.numbers.items()}
        self.content.crc32c = joined_crc(np.array(self.sums, np.uint32), np.array(self.lengths, np.int64))
