"""TFRecord shards: samples to bytes and back. example.py has the layout of a record's data.

    shard  = record...      nothing before, between or after them; a shard without samples is empty
    record = length (8, little-endian)  masked CRC-32C of these 8 bytes (4)  data  masked CRC-32C of the data (4)
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) mod 2^32                  tensorflow/core/lib/io/record_writer.h

Each record is one `tf.train.Example`. These features are written, in this order:

    image/key         bytes    the sample's key
    image/filename    bytes    the file's path below the root, escaped by `sample.text_of_path`
    image/encoded     bytes    the first field that is an image, together with
    image/format      bytes    that field's name; `jpeg` for `jpg`
    image/class/label int64    the field `cls`, if it is a decimal number as we write it, together with
    image/class/text  bytes    the name of its class, empty if it is not known
    field/NAME        bytes    any other field; the fields keep their order

Any Example is read. A record without `image/key` was written by others: then every feature that is not in this list is
a field with the feature's name, and so are the names of class and file. Features are handled as raw bytes and not as
protobuf messages: a library would copy each image twice, and could clash with TensorFlow's own descriptors.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from struct import Struct
from typing import TYPE_CHECKING, Any, NamedTuple

from shardkit.checksums import crc32c
from shardkit.errors import DamagedError
from shardkit.formats.tfrecord.example import (
    Feature,
    WireError,
    bytes_entry_head,
    entry_name,
    int64_entry,
    list_entry,
    parse_example,
    varint,
    with_text,
)
from shardkit.formats.tfrecord.features import (
    ENCODED,
    FILENAME,
    FORMAT,
    KEY,
    LABEL,
    OTHER_KEY,
    PREFIX,
    TEXT,
    feature_description,
)
from shardkit.sample import IMAGE_FIELDS, field_of, path_of_member, text_of_path

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = [
    "END",
    "FieldNames",
    "TfrecordSample",
    "carry_over",
    "encode_sample",
    "feature_description",
    "fields_of",
    "read_samples",
    "sample_size",
]

END = b""
"""The end mark of a shard: there is none."""

CURE = "copy it again, pack again, or run 'shardkit repair'"
MAX_EXAMPLE_BYTES = (1 << 31) - 1
"""The largest message that protobuf parses. Source: Protocol Buffers, "Encoding", section "Message Size"."""


class TooLargeError(ValueError):
    """A sample that no reader could parse if it were written."""


HEAD = 12
FRAME = 16
"""The bytes of a record besides its data."""


class FieldNames(NamedTuple):
    """The features in which others stored image and label; None for the usual names."""

    image: str | None = None
    label: str | None = None


class TfrecordSample(NamedTuple):
    """The place of a sample: its record's first byte and length, (first byte, length) of each field that is bytes.

    names: all fields in order. values: those that are not byte strings (`cls` is an int). path, text: of the file and
    the class, "" if absent. data: a copy of the record's data.
    """

    key: str
    offset: int
    size: int
    fields: dict[str, tuple[int, int]]
    values: dict[str, Any]
    names: list[str]
    path: str
    text: str
    data: bytes


# ---- writing


def encode_sample(
    key: str, fields: Sequence[tuple[str, Any]], *, path: str | None = None, text: str = ""
) -> tuple[list[bytes], tuple[int, ...], int]:
    """(pieces, offsets, size): the pieces to write in order, which include the image's own bytes object; the first byte
    of each field's data, counted from the record's first byte, -1 for values that are not byte strings, such as a
    label; the total length of the pieces.

    fields: bytes, or what `fields_of` returns: int, float, a list of bytes, an array of int64 or float32.

    path: of the file; by default the key with the image's field. text: the name of the class. ValueError for an empty
    key or field name, a field that begins with `__`, a field given twice, a sample without fields, and for more bytes
    than readers parse.
    """
    if not key or not fields or len(dict(fields)) < len(fields):
        raise ValueError(f"the sample {key!r} has no key, or a field twice, or none")
    key_data = key.encode()
    path_data = (_path_of(key, fields) if path is None else path).encode()
    parts = [
        bytes_entry_head(_KEY, len(key_data)), key_data, bytes_entry_head(_FILENAME, len(path_data)), path_data,
    ]  # fmt: skip
    marks: list[int] = []
    head, image, at = b"", None, 0  # at: the length of head and image
    for name, data in fields:
        if not is_bytes(data):
            parts.append(list_entry(_other(name), data))
            marks.append(-1)
        elif image is None and name in IMAGE_FIELDS:
            parts.append(bytes_entry_head(_ENCODED, len(data)))
            head, image = b"".join(parts), data
            marks.append(len(head))
            at = len(head) + len(data)
            parts = [_FORMATS[name]]
        elif name == "cls" and (entry := _label_entry(data)) is not None:
            parts += (entry, _text_entry(text))
            marks.append(-1)
        else:
            parts.append(bytes_entry_head(_other(name), len(data)))
            marks.append(at + sum(map(len, parts)))
            parts.append(data)
    return _framed(head, image, b"".join(parts), marks)


def _path_of(key: str, fields: Sequence[tuple[str, object]]) -> str:
    return next((f"{key}.{name}" for name, _ in fields if name in IMAGE_FIELDS), key)


def _framed(
    head: bytes, image: bytes | None, tail: bytes, marks: Sequence[int]
) -> tuple[list[bytes], tuple[int, ...], int]:
    """The record of the features in head, image (if there is one) and tail; marks are counted from the first
    feature."""
    features = len(head) + (0 if image is None else len(image)) + len(tail)
    opening = b"\x0a" + varint(features)
    size = len(opening) + features
    _require_parsable(size)
    number = _LENGTH.pack(size)
    first = HEAD + len(opening)
    crc = crc32c(opening + head)
    pieces = [number + masked_crc(number) + opening + head]
    if image is not None:
        crc = crc32c(image, crc)
        pieces.append(image)
    pieces.append(tail + _CRC.pack(_masked(crc32c(tail, crc))))
    return pieces, tuple(mark + first if mark >= 0 else -1 for mark in marks), size + FRAME


def sample_size(
    key: str, fields: Sequence[tuple[str, int]], *, path: str | None = None, text: str = "", label: int = 0
) -> int:
    """The size in bytes of what `encode_sample` returns for fields of these lengths, where `cls` is `label`."""
    few = [(name, b"%d" % label if name == "cls" else b"") for name, _ in fields]
    size = encode_sample(key, few, path=_path_of(key, fields) if path is None else path, text=text)[2]
    features = _unpacked(size)
    image = next((name for name, _ in fields if name in IMAGE_FIELDS), None)
    for name, length in fields:
        if name != "cls":
            entry = _ENCODED if name == image else _other(name)
            features += len(bytes_entry_head(entry, length)) + length - len(bytes_entry_head(entry, 0))
    return FRAME + 1 + len(varint(features)) + features


def _unpacked(size: int) -> int:
    """The bytes of the features in a record of `size` bytes."""
    return next(n for n in range(size - FRAME - 11, size - FRAME) if n >= 0 and 1 + len(varint(n)) + n == size - FRAME)


def is_bytes(value: object) -> bool:
    """Whether a field is one byte string, and not a number or a list, which only an Example holds."""
    return isinstance(value, (bytes, bytearray, memoryview))


def _require_parsable(size: int) -> None:
    if size > MAX_EXAMPLE_BYTES:
        fact = f"it would be an Example of {size} bytes, but readers parse at most {MAX_EXAMPLE_BYTES}"
        raise TooLargeError(f"{fact} (a tar shard has no such limit)")


def carry_over(sample: TfrecordSample) -> tuple[bytes, TfrecordSample]:
    """(record, sample) to write for a sample that was read: the Example unchanged, under the key with which it was
    read.

    Positions in the sample count from the record's first byte. A key that was derived from the record's position is
    written into it as the feature `__key__`. ValueError for a key that is not text, and for too many bytes, as from
    `encode_sample`.
    """
    data = sample.data
    found = sample_of(data, 0, "")
    if found.key != sample.key:
        data = with_text(data, OTHER_KEY, sample.key)
        _require_parsable(len(data))
        found = sample_of(data, 0, "")
    return framed_record(data), found


def framed_record(data: bytes) -> bytes:
    """The record with this data."""
    number = _LENGTH.pack(len(data))
    return number + masked_crc(number) + data + masked_crc(data)


def masked_crc(data: bytes) -> bytes:
    """The masked CRC-32C of some bytes, as stored."""
    return _CRC.pack(_masked(crc32c(data)))


def _masked(crc: int) -> int:
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFF_FFFF


_LENGTH, _CRC = Struct("<Q"), Struct("<I")
_KEY, _FILENAME, _ENCODED, _FORMAT = map(entry_name, (KEY, FILENAME, ENCODED, FORMAT))
_LABEL, _TEXT = map(entry_name, (LABEL, TEXT))
_TABLE_LIMIT = 10_000  # a bound on memory


class _FormatTable(dict[str, bytes]):
    def __missing__(self, name: str) -> bytes:
        data = b"jpeg" if name == "jpg" else name.encode()
        self[name] = entry = bytes_entry_head(_FORMAT, len(data)) + data
        return entry


_FORMATS = _FormatTable()
_LABELS: dict[bytes, bytes | None] = {}
_TEXTS: dict[str, bytes] = {}
_OTHERS: dict[str, bytes] = {}


def _label_entry(data: bytes) -> bytes | None:
    """The entry of a label; None for one that would be read back as other bytes."""
    if data in _LABELS:
        return _LABELS[data]
    entry = None
    if len(data) <= 20 and data.removeprefix(b"-").isdigit():
        number = int(data)
        if b"%d" % number == data and -(1 << 63) <= number < 1 << 63:
            entry = int64_entry(_LABEL, number)
    if len(_LABELS) < _TABLE_LIMIT and len(data) <= 20:
        _LABELS[bytes(data)] = entry
    return entry


def _text_entry(text: str) -> bytes:
    entry = _TEXTS.get(text)
    if entry is None:
        data = text.encode()
        entry = bytes_entry_head(_TEXT, len(data)) + data
        if len(_TEXTS) < _TABLE_LIMIT:
            _TEXTS[text] = entry
    return entry


def _other(name: str) -> bytes:
    found = _OTHERS.get(name)
    if found is None:
        if not name or name.startswith("__"):
            raise ValueError(f"{name!r} can't be the name of a field")
        found = entry_name(PREFIX + name)
        if len(_OTHERS) < _TABLE_LIMIT:
            _OTHERS[name] = found
    return found


# ---- reading


def read_samples(
    buffer: Buffer,
    *,
    place: str,
    start: int = 0,
    end: int | None = None,
    names: FieldNames | None = None,
    base: int = 0,
) -> Iterator[TfrecordSample]:
    """The samples of a shard in memory (bytes, mmap, memoryview), in order; both checksums of each are checked.

    The bytes from `start` up to `end` (default: the end of the buffer) must be whole records. The buffer is released
    when the iterator ends, is closed, or raises DamagedError. base: the position of the buffer in the shard, from which
    keys of records without a key are derived.
    """
    with memoryview(buffer) as raw, raw.cast("B") as view:
        limit = len(view) if end is None else end
        if not 0 <= start <= limit <= len(view):
            fact = f"bytes {start} to {limit} were requested, but the file has {len(view)}"
            raise DamagedError(
                place, fact, "the file is truncated, or the index is of another file: " + CURE, len(view)
            )
        at = start
        while at < limit:
            size = record_size(bytes(view[at : min(at + HEAD, limit)]), at, limit, place)
            stop = at + HEAD + size
            data = bytes(view[at + HEAD : stop])
            check_data(data, bytes(view[stop : stop + 4]), at, place)
            yield sample_of(data, at, place, names, base)
            at = stop + 4


def record_size(head: bytes, at: int, limit: int | None, place: str) -> int:
    """The length of the data of the record at byte `at`, from its first 12 bytes. limit: the end of the file."""
    if len(head) < HEAD:
        raise DamagedError(place, "the file ends inside the head of a record", CURE, at)
    size: int
    (size,) = _LENGTH.unpack_from(head)
    if head[8:] != masked_crc(head[:8]):
        fact = "the checksum of a record's length is wrong: damaged, or not a TFRecord file"
        raise DamagedError(place, fact, CURE, at)
    if size >= 1 << 63:
        raise DamagedError(place, f"a record of {size} bytes, more than any file can hold", CURE, at)
    if limit is not None and at + FRAME + size > limit:
        fact = f"the file ends inside a record: it has {size} bytes, but {max(0, limit - at - FRAME)} are there"
        raise DamagedError(place, fact, CURE, at)
    return size


def check_data(data: bytes, crc: bytes, at: int, place: str) -> None:
    """DamagedError if `crc`, as stored, does not match the data of the record at byte `at`."""
    if crc != masked_crc(data):
        fact = f"the checksum of a record's {len(data)} bytes of data is wrong"
        raise DamagedError(place, fact, CURE, at + HEAD)


def sample_of(data: bytes, at: int, place: str, names: FieldNames | None = None, made_base: int = 0) -> TfrecordSample:
    """The sample in the data of the record at byte `at`. DamagedError for data that is not an Example."""
    try:
        features = parse_example(data)
    except WireError as exc:
        fact = f"the record is not a tf.train.Example: {exc.fact}"
        raise DamagedError(place, fact, "write records of tf.train.Example", at + HEAD + exc.at) from exc
    own = one_text(data, features, KEY)
    key = own or one_text(data, features, OTHER_KEY) or _made_key(place, at + made_base)
    special = _special(data, features, own is not None, names or FieldNames(), at, place)
    base = at + HEAD
    fields: dict[str, tuple[int, int]] = {}
    values: dict[str, Any] = {}
    order: list[str] = []
    for name, feature in features.items():
        field = special[name] if name in special else name.removeprefix(PREFIX)
        if not field or feature.kind == "none" or field.startswith("__"):
            continue
        if feature.kind == "bytes" and len(feature.values) == 1:
            first, size = feature.values[0]  # type: ignore[misc]
            fields[field] = (first + base, size)
        else:
            values[field] = _value(data, feature)
        order.append(field)
    path, text = one_text(data, features, FILENAME) or "", one_text(data, features, TEXT) or ""
    return TfrecordSample(key, at, len(data) + FRAME, fields, values, order, path, text, data)


def _special(
    data: bytes, features: Mapping[str, Feature], own: bool, names: FieldNames, at: int, place: str
) -> dict[str, str | None]:
    """The features whose fields have another name; None for those that are not fields."""
    for name in names:
        if name is not None and name not in features:
            fact = f"the record has no feature {name!r}, which the options name; it has {', '.join(features) or 'none'}"
            raise DamagedError(place, fact, "name another with image_field= or label_field=", at)
    found: dict[str, str | None] = dict.fromkeys((KEY, FILENAME, FORMAT, TEXT)) if own else {}
    image, label = names.image or ENCODED, names.label or LABEL
    if (feature := features.get(image)) is not None and feature.kind == "bytes" and len(feature.values) == 1:
        found[image] = _image_field(data, features, feature) or image
    if (feature := features.get(label)) is not None and feature.kind == "int64" and len(feature.values) == 1:
        found[label] = "cls"
    return found


def _image_field(data: bytes, features: Mapping[str, Feature], image: Feature) -> str | None:
    """The field of an image: according to `image/format`, or else to its first bytes; None if neither tells."""
    said = field_of(one_text(data, features, FORMAT) or "")
    if said in IMAGE_FIELDS:
        return said
    first, size = image.values[0]  # type: ignore[misc]
    start = data[first : first + min(size, 12)]
    return next((name for magic, name in _MAGIC if start.startswith(magic)), None)


_MAGIC = (
    (b"\xff\xd8\xff", "jpg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF8", "gif"),
    (b"RIFF", "webp"),
    (b"BM", "bmp"),
    (b"II*\0", "tif"),
    (b"MM\0*", "tif"),
)


def _made_key(place: str, at: int) -> str:
    """The key of a record without one: the shard's name and the first byte of the record."""
    name = place.removesuffix(" (unpacked)").rpartition("/")[2]
    return f"{name.replace('.', '_')}-{at}"


def _value(data: bytes, feature: Feature) -> Any:
    """A feature other than a single byte string."""
    values = feature.values
    if feature.kind == "bytes":
        return [data[first : first + size] for first, size in values]  # type: ignore[misc]
    if len(values) == 1:
        return values[0]
    import numpy as np

    return np.array(values, np.int64 if feature.kind == "int64" else np.float32)


def fields_of(sample: TfrecordSample) -> dict[str, Any]:
    """The fields in their order: bytes; an int or float; lists of bytes, and arrays of int64 or float32 (n,)."""
    base, data = sample.offset + HEAD, sample.data
    found: dict[str, Any] = {}
    for name in sample.names:
        if name in sample.values:
            found[name] = sample.values[name]
        else:
            first, size = sample.fields[name]
            found[name] = data[first - base : first - base + size]
    return found


def path_of(sample: TfrecordSample, image: str) -> str:
    """The path of a sample's file, escaped: the one in the record, or else one made from the sample's key.

    A name from another writer counts only if it ends like an image's.
    """
    if sample.path and FILENAME not in sample.names:  # as we write it
        return sample.path
    if sample.path and image and field_of(os.path.splitext(sample.path)[1][1:]) in IMAGE_FIELDS:
        return text_of_path(sample.path.encode("utf-8", "surrogateescape"))
    return path_of_member(sample.key, image)


def one_text(data: bytes, features: Mapping[str, Feature], name: str) -> str | None:
    """A feature that is one byte string, as text; None if it is absent or anything else."""
    feature = features.get(name)
    if feature is None or feature.kind != "bytes" or len(feature.values) != 1:
        return None
    first, size = feature.values[0]  # type: ignore[misc]
    return str(data[first : first + size], "utf-8", "surrogateescape")
