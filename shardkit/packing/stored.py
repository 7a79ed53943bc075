"""A shard whose samples are those of other shards: what `shardkit convert` writes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from typing import Any

import google_crc32c
import msgspec

from shardkit.errors import DamagedError, DatasetError, NotFoundError
from shardkit.formats.table import FORMATS, Format
from shardkit.packing.fields import SampleWriter
from shardkit.packing.shard import TELL_BYTES, TELL_FILES, Advance, Check, Filled, Sink
from shardkit.sample import IMAGE_FIELDS, fs_text, label_number, path_of_text
from shardkit.storage.local import translated
from shardkit.storage.mapped import MappedFile, look, map_whole

_CURE = "check the source with 'shardkit verify'"
BAD_LABEL_CURE = "fix it, or leave the sample out with 'shardkit repair'"


class StoredTask(msgspec.Struct, frozen=True, tag=True):
    """A shard with samples of the shards `sources`, one after the other.

    which: the place in `sources` of each sample; offsets, sizes: where it is there. paths, labels, crcs: as in its
    index (label -1: none; the CRC-32C of its image, -1: not known). With no `which`, the sources are read as a whole,
    in order, from front to back. fields: how fields are called: old -> new, "" to leave it out; those that it does not
    name stay. only: if it is not empty, the fields (by their old names) that stay at all.
    """

    name: str
    folder: bytes
    sources: list[bytes]
    which: list[int]
    offsets: list[int]
    sizes: list[int]
    keys: list[str]
    paths: list[str]
    labels: list[int]
    crcs: list[int]
    source_format: str
    format: str
    texts: dict[int, str]
    fields: dict[str, str]
    only: list[str]
    digest: str
    check: Check = "none"
    skip_bad: bool = False

    def with_digest(self, salt: str, *, whole: bool) -> StoredTask:
        """The task with the digest of all that decides its bytes. `salt`: of the whole job."""
        what = (salt, whole, self.sources, self.which, self.offsets, self.sizes, self.keys, self.paths, self.labels)
        digest = hashlib.blake2b(msgspec.msgpack.encode(what), digest_size=16)
        return msgspec.structs.replace(self, digest=digest.hexdigest())

    def files(self) -> Iterator[bytes]:
        """The files that the shard is made of."""
        return iter(self.sources)

    def extent(self) -> tuple[int, int]:
        """(samples, bytes) that are to be read."""
        if self.which:
            return len(self.which), sum(self.sizes)
        return 0, sum(map(os.path.getsize, self.sources))

    def fill(self, sink: Sink, advance: Advance) -> Filled:
        """Read the samples, give their fields the new names, and write them."""
        writer = SampleWriter(sink, self.format, self.check)
        told = count = 0
        for count, (place, at, key, path, label, fields) in enumerate(self._samples(), 1):
            named = self._renamed(fields, place, at, key)
            if not path:
                image = next((name for name, _ in named if name in IMAGE_FIELDS), None)
                path = key if image is None else f"{key}.{image}"
            try:
                writer.add(key, named, path_of_text(path), label, self.texts.get(label, ""))
            except ValueError as exc:
                fact = f"{FORMATS[self.format].name} can't hold this sample: {exc}"
                raise DatasetError(place, fact, "rename its fields, or leave some out", at, key) from exc
            if writer.unsaid >= TELL_BYTES or count - told >= TELL_FILES:
                advance(count - told, writer.said())
                told = count
        writer.end()
        advance(count - told, writer.said())
        return writer.filled([])

    def _renamed(self, fields: dict[str, bytes], place: str, at: int | None, key: str) -> list[tuple[str, bytes]]:
        kept = ((self.fields.get(name, name), data) for name, data in fields.items() if self._stays(name))
        named = [(name, data) for name, data in kept if name]
        if not named or len(dict(named)) < len(named):
            fact = f"its fields ({', '.join(fields)}) would leave it without any, or with two of one name"
            raise DatasetError(place, fact, "name others to rename, drop or keep", at, key)
        return named

    def _stays(self, name: str) -> bool:
        return not self.only or name in self.only

    def _samples(self) -> Iterator[tuple[str, int | None, str, str, int, dict[str, bytes]]]:
        """(shard, byte, key, path, label, fields) of each sample."""
        form = FORMATS[self.source_format]
        if not self.which:
            yield from self._streamed(form)
            return
        maps = _Maps(self.sources)
        columns = zip(
            self.which, self.offsets, self.sizes, self.keys, self.paths, self.labels, self.crcs, strict=True
        )  # fmt: skip
        for source, at, size, key, path, label, crc in columns:
            place, data = maps.opened(source)
            found = next(form.read(data, place=place, start=at, end=at + size))
            if found.key != key:
                fact = f"the index says {key!r}, and the shard holds {found.key!r}"
                raise DamagedError(place, fact, _CURE, at)
            fields = bytes_of(form.fields(data, found), place, at, key)
            image = next((name for name in fields if name in IMAGE_FIELDS), None)
            if crc >= 0 and image is not None and google_crc32c.value(fields[image]) != crc:
                raise DamagedError(place, "the checksum of the image is not the one in the index", _CURE, at, key)
            yield place, at, key, path, label, fields

    def _streamed(self, form: Format) -> Iterator[tuple[str, int | None, str, str, int, dict[str, bytes]]]:
        for source in self.sources:
            place = fs_text(source)
            with translated(source), open(source, "rb") as file:
                for key, values in form.stream(file, place=place):
                    fields = bytes_of(values, place, None, key)
                    label = (
                        label_in(values, place, key)
                        if self.fields.get("cls", "cls") == "cls" and self._stays("cls")
                        else -1
                    )
                    yield place, None, key, "", label, fields


def label_in(fields: dict[str, Any], place: str, key: str) -> int:
    """The label of a sample, -1 where it has no `cls`. DatasetError for a `cls` that is not a class number."""
    if "cls" not in fields:
        return -1
    label = label_number(fields["cls"])
    if label is None:
        raise DatasetError(place, "its cls is not a class number", BAD_LABEL_CURE, None, key)
    return label


def bytes_of(fields: dict[str, Any], place: str, at: int | None, key: str) -> dict[str, bytes]:
    """Fields as bytes: an int is its decimals. DatasetError for a list, which only TFRecord can hold."""
    found = {}
    for name, value in fields.items():
        if isinstance(value, int):
            value = b"%d" % value
        if not isinstance(value, bytes):
            fact = f"the field {name!r} is a list or no whole number, and not bytes"
            raise DatasetError(place, fact, f"leave it out with --drop {name}", at, key)
        found[name] = value
    return found


class _Maps:
    """The shards as buffers, the last few of them open."""

    def __init__(self, paths: list[bytes], *, limit: int = 64) -> None:
        self.paths, self.limit = paths, limit
        self.open: dict[int, tuple[str, MappedFile | bytes]] = {}

    def opened(self, number: int) -> tuple[str, MappedFile | bytes]:
        """(place, bytes) of a shard, which is looked at each time. Raises NotFoundError, StorageError."""
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
