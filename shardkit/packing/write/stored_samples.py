"""Samples taken from other shards, as written by `shardkit convert`."""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, BinaryIO, NoReturn

import msgspec

from shardkit.checksums import crc32c
from shardkit.errors import DamagedError, DatasetError, NotFoundError
from shardkit.formats.format import FORMATS, Format
from shardkit.formats.tfrecord.samples import TfrecordSample, fields_of
from shardkit.packing.write.stored_far import buffers_of_spans, whole_object
from shardkit.packing.write.writer import SampleWriter
from shardkit.sample import IMAGE_FIELDS, fs_text, path_of_member, path_of_text
from shardkit.storage.files import translated
from shardkit.storage.mapped import MappedFile, look, map_whole

_CURE = "check the source with 'shardkit verify'"


class StoredSamples(msgspec.Struct, frozen=True, tag=True):
    """The samples of a shard, taken from the shards `sources`, one after another.

    which: each sample's position in `sources`; offsets, sizes: its bytes there. paths, labels, crcs: as in its index
    (label -1: none; the CRC-32C of its image, -1: not known). If `which` is empty, the sources are read sequentially as
    a whole, and hold exactly these samples. format: of the sources. fields: old field name -> new name, "" to drop the
    field; other fields stay. only: if not empty, the fields (by their old names) to keep.
    stores: how to open the stores of `sources`, which are URLs then; None for paths. whole_bytes: of sources in stores
    that are read as a whole.
    """

    sources: list[bytes]
    which: list[int]
    offsets: list[int]
    sizes: list[int]
    keys: list[str]
    paths: list[str]
    labels: list[int]
    crcs: list[int]
    format: str
    fields: dict[str, str]
    only: list[str]
    corrected: dict[int, tuple[str, bytes]] = {}
    """The number of a sample -> the name and the bytes of a field that replaces the stored one."""
    stores: dict[str, Any] | None = None
    whole_bytes: int = 0

    def digest(self, salt: str, *, whole: bool) -> str:
        """The digest of everything that determines the shard's bytes. `salt`: of the whole job."""
        what = (salt, whole, self.sources, self.which, self.offsets, self.sizes, self.keys, self.paths, self.labels)
        encoded = msgspec.msgpack.encode(what) + (msgspec.msgpack.encode(self.corrected) if self.corrected else b"")
        return hashlib.blake2b(encoded, digest_size=16).hexdigest()

    def watched(self) -> Iterator[bytes]:
        """The shards to read that are files."""
        return iter(self.sources if self.stores is None else ())

    def extent(self) -> tuple[int, int]:
        """(samples, bytes) to read."""
        if self.which:
            return len(self.keys), sum(self.sizes)
        return len(self.keys), self.whole_bytes or sum(map(os.path.getsize, self.sources))

    @contextlib.contextmanager
    def opened(self) -> Iterator[Iterator[_StoredSample]]:
        """The samples, while they are read."""
        yield self._each()

    def _each(self) -> Iterator[_StoredSample]:
        form = FORMATS[self.format]
        if not self.which:
            yield from self._streamed(form)
            return
        columns = zip(
            self.offsets, self.sizes, self.keys, self.paths, self.labels, self.crcs, self._buffers(), strict=True
        )
        for number, (at, size, key, path, label, crc, (place, data, base)) in enumerate(columns):
            found = next(form.read(data, place=place, start=at - base, end=at - base + size, base=base))
            sample = found if isinstance(found, TfrecordSample) else form.fields(data, found)
            _require_as_indexed(found.key, sample, key, crc, place, at)
            yield _StoredSample(self, place, at, key, path, label, sample, size, self.corrected.get(number))

    def _buffers(self) -> Iterator[tuple[str, Any, int]]:
        """For each sample (place, bytes, where they begin in the shard): the bytes of a shard, or a span of one."""
        if self.stores is not None:
            yield from buffers_of_spans(
                list(map(fs_text, self.sources)), self.which, self.offsets, self.sizes, self.stores
            )
            return
        maps = _Maps(self.sources)
        for source in self.which:
            yield *maps.opened(source), 0

    def _opened(self, source: bytes) -> AbstractContextManager[BinaryIO]:
        """A source as a file that is read from front to back."""
        if self.stores is None:
            return open(source, "rb")
        return io.BytesIO(whole_object(fs_text(source), self.stores))

    def _streamed(self, form: Format) -> Iterator[_StoredSample]:
        rows, number = zip(self.keys, self.paths, self.labels, self.crcs, strict=True), itertools.count()
        for source in self.sources:
            place = fs_text(source)
            with translated(source), self._opened(source) as file:
                read = 0
                for found, sample in form.stream_stored(file, place=place):
                    corrected = self.corrected.get(next(number)) if self.corrected else None
                    key, path, label, crc = next(rows, (None, "", -1, -1))
                    _require_as_indexed(found, sample, key, crc, place, None)
                    now = file.tell()  # for a compressed shard, the position in the compressed bytes
                    yield _StoredSample(self, place, None, found, path, label, sample, now - read, corrected)
                    read = now
        left = next(rows, None)
        if left is not None:
            raise DamagedError(place, f"the shard ends before the sample {left[0]!r}", _CURE)


class _StoredSample(msgspec.Struct):
    """A sample that was read. size: the bytes read for it; place, at: its shard and first byte."""

    samples: StoredSamples
    place: str
    at: int | None
    key: str
    path: str
    label: int
    sample: TfrecordSample | dict[str, bytes]
    size: int
    corrected: tuple[str, bytes] | None = None

    def write(self, writer: SampleWriter, texts: Mapping[int, str]) -> None:
        """Rename its fields and write it. DatasetError if the format can't hold it."""
        form = writer.format
        record = self._as_it_is(form)
        named = self._renamed(self._fields(), form) if record is None else []
        try:
            if record is not None:
                writer.carry(record, self._path(record.fields), self.label)
            else:
                path = self._path(name for name, _ in named)
                writer.add(self.key, named, path, self.label, texts.get(self.label, ""))
        except ValueError as exc:
            fact = f"{form.name} can't hold this sample: {exc}"
            raise DatasetError(self.place, fact, "rename its fields, or omit some", self.at, self.key) from exc

    def _as_it_is(self, form: Format) -> TfrecordSample | None:
        """The record, if the target has the same format and no field changes; else None."""
        changed = form.name != self.samples.format or self.samples.fields or self.samples.only or self.corrected
        return self.sample if isinstance(self.sample, TfrecordSample) and not changed else None

    def _fields(self) -> dict[str, Any]:
        fields = _fields(self.sample)
        return fields if self.corrected is None else fields | dict([self.corrected])

    def leave_out(self, exc: OSError | ValueError, *, skip_bad: bool) -> NoReturn:
        """Raise the error: samples of a dataset are never skipped."""
        raise exc

    def _path(self, names: Iterable[str]) -> bytes:
        image = next((name for name in names if name in IMAGE_FIELDS), "")
        return path_of_text(self.path or path_of_member(self.key, image))

    def _renamed(self, fields: dict[str, Any], form: Format) -> list[tuple[str, Any]]:
        new_names, only, where = self.samples.fields, self.samples.only, (self.place, self.at, self.key)
        kept = ((name, new_names.get(name, name), data) for name, data in fields.items() if not only or name in only)
        named = [
            (new, as_bytes(name, data, *where) if new == "cls" or not form.holds_values else data)
            for name, new, data in kept
            if new
        ]
        if not named or len(dict(named)) < len(named):
            fact = f"its fields ({', '.join(fields)}) would leave it without any, or with two of the same name"
            raise DatasetError(self.place, fact, "name others to rename, drop or keep", self.at, self.key)
        return named


def _fields(sample: TfrecordSample | dict[str, bytes]) -> dict[str, Any]:
    return fields_of(sample) if isinstance(sample, TfrecordSample) else sample


def _require_as_indexed(
    found: str, sample: TfrecordSample | dict[str, bytes], key: str | None, crc: int, place: str, at: int | None
) -> None:
    """DamagedError if the sample is not the one in the index row. crc: of its image there, -1 for none."""
    if found != key:
        said = "no more samples" if key is None else repr(key)
        raise DamagedError(place, f"the index says {said}, but the shard holds {found!r}", _CURE, at)
    if crc >= 0:
        image = next(
            (data for name, data in _fields(sample).items() if name in IMAGE_FIELDS and isinstance(data, bytes)), None
        )
        if image is not None and crc32c(image) != crc:
            raise DamagedError(place, "the checksum of the image is not the one in the index", _CURE, at, key)


def as_bytes(name: str, value: object, place: str, at: int | None, key: str) -> bytes:
    """A field as bytes; an int in decimal. DatasetError for a list, which only TFRecord can hold."""
    if isinstance(value, int):
        return b"%d" % value
    if not isinstance(value, bytes):
        fact = f"the field {name!r} is a list or a fractional number, not bytes"
        raise DatasetError(place, fact, f"omit it with `drop=[{name!r}]`", at, key)
    return value


class _Maps:
    """The shards as buffers; the last few stay open."""

    def __init__(self, paths: list[bytes], *, limit: int = 64) -> None:
        self.paths, self.limit = paths, limit
        self.open: dict[int, tuple[str, MappedFile | bytes]] = {}

    def opened(self, number: int) -> tuple[str, MappedFile | bytes]:
        """(place, bytes) of a shard, whose file is checked each time. Raises NotFoundError, StorageError."""
        found = self.open.get(number)
        if found is None:
            path = self.paths[number]
            place = fs_text(path)
            if not os.path.exists(path):
                raise NotFoundError(place, "the shard is missing", "restore it")
            with translated(path):
                found = place, map_whole(path)
            while len(self.open) >= self.limit:
                self.open.pop(next(iter(self.open)))
            self.open[number] = found
        look(found[1])
        return found
