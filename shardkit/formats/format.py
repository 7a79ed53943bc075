"""The table of formats: what writes and reads the shards that a manifest calls "tar" or "tfrecord".

A new format is a file beside this one and a line here.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from shardkit.errors import DamagedError, ManifestError, UsageError
from shardkit.formats.tar import samples as tar
from shardkit.formats.tar.headers import GZIP_MAGIC
from shardkit.formats.tar.stream import Readable
from shardkit.formats.tar.stream import stream_samples as stream_tar
from shardkit.formats.tfrecord import samples as tfrecord
from shardkit.formats.tfrecord.samples import FieldNames
from shardkit.formats.tfrecord.stream import is_packed
from shardkit.formats.tfrecord.stream import stream_samples as stream_tfrecord
from shardkit.sample import text_of_path

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FormatName = Literal["tar", "tfrecord"]
Encoded = tuple[list[bytes], tuple[int, ...], int]


class ShardData(Protocol):
    """The bytes of one shard, unpacked, as what reads damaged ones takes them. `place`: its name in messages."""

    @property
    def place(self) -> str:
        """The shard's name in messages."""
        ...

    @property
    def buffer(self) -> Any:
        """The bytes: with a length, slices, and `find`."""
        ...

    @property
    def view(self) -> NDArray[np.uint8]:
        """The same bytes as an array."""
        ...

    def __len__(self) -> int: ...

    def samples(self, start: int = 0, end: int | None = None) -> Iterator[StoredSample]:
        """The samples from byte `start` up to `end`. Raises DamagedError for damage."""
        ...


class StoredSample(Protocol):
    """Where a sample is in a shard: its first byte and length; (first byte, length) of each field that is bytes."""

    @property
    def key(self) -> str:
        """The sample's key."""
        ...

    @property
    def offset(self) -> int:
        """The first byte of the sample, with all that belongs to it."""
        ...

    @property
    def size(self) -> int:
        """The length of all of it."""
        ...

    @property
    def fields(self) -> dict[str, tuple[int, int]]:
        """The fields that are bytes."""
        ...


class Format(Protocol):
    """What a format can do, as functions."""

    @property
    def name(self) -> FormatName:
        """Its name in a manifest."""
        ...

    @property
    def suffix(self) -> str:
        """What a shard's name ends with."""
        ...

    @property
    def end(self) -> bytes:
        """The end mark of a shard."""
        ...

    def encode(self, key: str, fields: Sequence[tuple[str, bytes]], path: bytes, text: str) -> Encoded:
        """(pieces, offset of each field, size) of a sample; path of its file and name of its class where they fit."""
        ...

    def size(self, key: str, fields: Sequence[tuple[str, int]], path: bytes, text: str, label: int) -> int:
        """The size that `encode` gives for fields of these lengths."""
        ...

    def read(
        self,
        buffer: Any,
        *,
        place: str,
        start: int = 0,
        end: int | None = None,
        names: FieldNames | None = None,
        base: int = 0,
    ) -> Iterator[StoredSample]:
        """The samples in a buffer. DamagedError for damage. base: where in the shard the buffer begins, for what the
        user is told."""
        ...

    def fields(self, buffer: Any, sample: Any) -> dict[str, Any]:
        """The fields of a sample that `read` found in the buffer: bytes, or numbers and lists where the format has
        them."""
        ...

    def stream(
        self, file: Readable, *, place: str, names: FieldNames | None = None
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """(key, fields) of the samples of a whole shard, plain or packed."""
        ...


@dataclass(frozen=True, slots=True)
class Tar:
    """Tar shards."""

    name: FormatName = "tar"
    suffix: str = ".tar"
    end: bytes = tar.END

    def encode(self, key: str, fields: Sequence[tuple[str, bytes]], path: bytes, text: str) -> Encoded:
        """As `tar.encode_sample`."""
        return tar.encode_sample(key, fields)

    def size(self, key: str, fields: Sequence[tuple[str, int]], path: bytes, text: str, label: int) -> int:
        """As `tar.sample_size`."""
        return tar.sample_size(key, fields)

    def read(
        self,
        buffer: Any,
        *,
        place: str,
        start: int = 0,
        end: int | None = None,
        names: FieldNames | None = None,
        base: int = 0,
    ) -> Iterator[StoredSample]:
        """As `tar.read_samples`."""
        found = tar.read_samples(buffer, place=place, start=start, end=end)
        return moved(found, base) if base else found

    def fields(self, buffer: Any, sample: Any) -> dict[str, Any]:
        """The bytes of each field."""
        return {name: buffer[first : first + size] for name, (first, size) in sample.fields.items()}

    def stream(
        self, file: Readable, *, place: str, names: FieldNames | None = None
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """As `tar_stream.stream_samples`."""
        return stream_tar(file, place=place)


@dataclass(frozen=True, slots=True)
class Tfrecord:
    """TFRecord shards."""

    name: FormatName = "tfrecord"
    suffix: str = ".tfrecord"
    end: bytes = tfrecord.END

    def encode(self, key: str, fields: Sequence[tuple[str, bytes]], path: bytes, text: str) -> Encoded:
        """As `tfrecord.encode_sample`."""
        return tfrecord.encode_sample(key, fields, path=text_of_path(path), text=text)

    def size(self, key: str, fields: Sequence[tuple[str, int]], path: bytes, text: str, label: int) -> int:
        """As `tfrecord.sample_size`."""
        return tfrecord.sample_size(key, fields, path=text_of_path(path), text=text, label=label)

    def read(
        self,
        buffer: Any,
        *,
        place: str,
        start: int = 0,
        end: int | None = None,
        names: FieldNames | None = None,
        base: int = 0,
    ) -> Iterator[StoredSample]:
        """As `tfrecord.read_samples`."""
        found = tfrecord.read_samples(buffer, place=place, start=start, end=end, names=names, base=base)
        return moved(found, base) if base else found

    def fields(self, buffer: Any, sample: Any) -> dict[str, Any]:
        """As `tfrecord.fields_of`."""
        return tfrecord.fields_of(sample)

    def stream(
        self, file: Readable, *, place: str, names: FieldNames | None = None
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """As `tfrecord_stream.stream_samples`."""
        return stream_tfrecord(file, place=place, names=names)


def moved(samples: Iterator[StoredSample], base: int) -> Iterator[StoredSample]:
    """The samples of a buffer that begins at byte `base` of its shard, the byte in an error counted from the shard's
    beginning."""
    try:
        yield from samples
    except DamagedError as exc:
        offset = base if exc.offset is None else base + exc.offset
        raise DamagedError(exc.place, exc.fact, exc.cure, offset, exc.key) from exc


FORMATS: Mapping[str, Format] = {"tar": Tar(), "tfrecord": Tfrecord()}
"""By the name in a manifest's `shard_format`."""

_ENDINGS = re.compile(
    r"\.(?:(?P<tar>tar|tar\.gz|tgz)|(?P<tfrecord>tfrecords?|tfrec|tfr)(?:\.gz|\.gzip|\.zlib|-\d+-of-\d+)?)", re.ASCII
)


def format_of_name(name: str) -> FormatName | None:
    """The format that a file's name says, as `x.tgz`, `x.tfrecord.gz` or `x.tfrecord-00000-of-00010`; None if none."""
    dots = (at for at, letter in enumerate(name) if letter == ".")
    match = next((found for at in dots if (found := _ENDINGS.fullmatch(name, at))), None)
    if match is None:
        return None
    return "tar" if match["tar"] else "tfrecord"


def format_of_head(head: bytes) -> FormatName:
    """The format of a shard by its first bytes, 64 or more where there are so many, plain or packed; tar if neither."""
    if is_packed(head):
        try:
            head = zlib.decompressobj(wbits=47).decompress(head, 64)
        except zlib.error:
            return "tar"
    return "tfrecord" if len(head) >= 12 and head[8:12] == tfrecord.masked_crc(head[:8]) else "tar"


def is_packed_as(form: str, head: bytes) -> bool:
    """Whether the first bytes of a shard of this format are those of gzip data; in TFRecord, of zlib data too."""
    return head[:2] == GZIP_MAGIC if form == "tar" else is_packed(head)


def format_named(name: str, place: str) -> Format:
    """The format that the manifest `place` names. ManifestError for one that this version does not know."""
    if name not in FORMATS:
        fact = f"its shards have the format {name!r}, and this shardkit reads {', '.join(FORMATS)}"
        raise ManifestError(place, fact, "install a newer shardkit")
    return FORMATS[name]


def demand_names_fit(form: Format, names: FieldNames | None, place: str) -> None:
    """UsageError for names of features where there are none."""
    if names is not None and form.name != "tfrecord":
        fact = f"image_field= and label_field= name features of TFRecord shards, and this is {form.name}"
        raise UsageError(place, fact, "leave them away: the image is found by its extension")
