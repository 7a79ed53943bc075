"""The wire format of `tf.train.Example`, written and read without protobuf.

    Example   = 0A length Features
    Features  = (0A length Entry)*     a map: an Entry for each feature; the last one of a name counts
    Entry     = 0A length name, 12 length Feature
    Feature   = 0A length BytesList | 12 length FloatList | 1A length Int64List
    BytesList = (0A length bytes)*
    FloatList = 0A length (4 bytes, little-endian)*, packed; or each separately as 0D (4 bytes)
    Int64List = 0A length varint*, packed; or each separately as 08 varint; in two's complement of 64 bits

Lengths are varints: 7 bits to a byte, the low ones first, the high bit set in all bytes but the last. Unknown fields
are skipped, as protobuf requires. (tensorflow/core/example/feature.proto; protobuf.dev/programming-guides/encoding)
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from struct import Struct
from sys import byteorder
from typing import Any, Literal, NamedTuple

Kind = Literal["bytes", "float", "int64", "none"]


class Feature(NamedTuple):
    """A feature's list. `values` holds (first byte, length) in the record for bytes, and the numbers for other
    kinds."""

    kind: Kind
    values: Sequence[tuple[int, int]] | Sequence[int] | Sequence[float]


# ---- writing


def varint(number: int) -> bytes:
    """A non-negative number as a varint."""
    if number < 0x80:
        return _SHORT[number]
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


_SHORT = [bytes((n,)) for n in range(0x80)]


def entry_name(name: str) -> bytes:
    """The part of an entry that names the feature."""
    data = name.encode()
    return b"\x0a" + varint(len(data)) + data


def bytes_entry_head(name: bytes, size: int) -> bytes:
    """What precedes the `size` bytes of a feature that is one byte string; `name` comes from `entry_name`.

    The bytes come last in the entry, so head and bytes are the whole entry.
    """
    if size < 0x60 and (head := _HEADS.get((name, size))):
        return head
    data = b"\x0a" + varint(size)
    items = len(data) + size
    kind = b"\x0a" + varint(items)
    feature = len(kind) + items
    value = b"\x12" + varint(feature)
    head = b"\x0a" + varint(len(name) + len(value) + feature) + name + value + kind + data
    if size < 0x60 and len(_HEADS) < 10_000:  # a bound on memory if there are many fields
        _HEADS[name, size] = head
    return head


_HEADS: dict[tuple[bytes, int], bytes] = {}


def int64_entry(name: bytes, number: int) -> bytes:
    """A whole entry of one int64, packed as TensorFlow writes it."""
    data = varint(number & 0xFFFF_FFFF_FFFF_FFFF)
    data = b"\x0a" + varint(len(data)) + data
    feature = b"\x1a" + varint(len(data)) + data
    value = b"\x12" + varint(len(feature)) + feature
    return b"\x0a" + varint(len(name) + len(value)) + name + value


def list_entry(name: bytes, value: object) -> bytes:
    """A whole entry of a value other than one byte string: an int, a float, a list of bytes, an array of int64 or
    float32.

    Packed as TensorFlow writes it. TypeError for anything else.
    """
    if isinstance(value, int):
        return int64_entry(name, value)
    if isinstance(value, float):
        value = array("f", (value,))
    if isinstance(value, list):
        kind, items = b"\x0a", b"".join(part for data in value for part in (b"\x0a", varint(len(data)), data))
    else:
        kind, items = _numbers(value)
        items = b"\x0a" + varint(len(items)) + items if items else b""
    feature = kind + varint(len(items)) + items
    entry = name + b"\x12" + varint(len(feature)) + feature
    return b"\x0a" + varint(len(entry)) + entry


def _numbers(value: Any) -> tuple[bytes, bytes]:
    """(tag of the list, its numbers packed) of an array."""
    kind = memoryview(value).format
    if kind == "f":
        floats = array("f", value.tobytes())
        if byteorder == "big":
            floats.byteswap()
        return b"\x12", floats.tobytes()
    if kind not in ("l", "q"):
        raise TypeError(f"a feature can't be an array of {kind!r}")
    return b"\x1a", b"".join(varint(number & 0xFFFF_FFFF_FFFF_FFFF) for number in value.tolist())


def with_text(data: bytes, name: str, text: str) -> bytes:
    """The serialized Example with the feature `name` set to this text; all others stay unchanged.

    Raises WireError.
    """
    value = text.encode()
    entries = [bytes_entry_head(entry_name(name), len(value)), value]
    for at, end in _messages(data, 0, len(data), 1):
        for start, stop in _messages(data, at, end, 1):
            if _entry(data, start, stop)[0] != name:
                entries += (b"\x0a", varint(stop - start), data[start:stop])
    features = b"".join(entries)
    return b"\x0a" + varint(len(features)) + features


# ---- reading

_FLOAT = Struct("<f").unpack_from


class WireError(ValueError):
    """The bytes are not an Example. args: what is wrong, and the byte in the record."""

    def __init__(self, fact: str, at: int) -> None:
        super().__init__(fact, at)
        self.fact = fact
        self.at = at


def parse_example(data: bytes) -> dict[str, Feature]:
    """The features of a serialized Example by name, in stored order. Raises WireError."""
    found: dict[str, Feature] = {}
    features = _messages(data, 0, len(data), 1)
    if data and (not features or features[0][1] < len(data) or data[0] != 0x0A):  # there is something else
        _require_example(data, features)
    for at, end in features:
        for start, stop in _messages(data, at, end, 1):
            name, feature = _plain_entry(data, start, stop) or _entry(data, start, stop)
            found.pop(name, None)  # the last one counts, at its own position
            found[name] = feature
    return found


def _require_example(data: bytes, features: list[tuple[int, int]]) -> None:
    """WireError for data that parses, but whose content would be lost: a SequenceExample, or other kinds of bytes."""
    if _messages(data, 0, len(data), 2):
        raise WireError("it has feature lists: it is a tf.train.SequenceExample", 0)
    if not features:
        raise WireError("it has no features", 0)


def _plain_entry(data: bytes, at: int, end: int) -> tuple[str, Feature] | None:
    """What `_entry` returns in the usual case: a known name, then one byte string or one number below 128. None for
    everything else. A single function, since calls for each part would take three times as long.
    """
    try:
        first = at + 2 + data[at + 1]
        if data[at] != 0x0A or data[first] != 0x12:
            return None
        name = _NAMES.get(data[at + 2 : first])  # shorter than 128 bytes
        size, at = data[first + 1], first + 2
        if size >= 0x80:
            size, at = _varint(data, at - 1, end)
        kind = data[at]
        if name is None or at + size != end:
            return None
        size, at = data[at + 1], at + 2
        if size >= 0x80:
            size, at = _varint(data, at - 1, end)
        if data[at] != 0x0A or at + size != end:
            return None
        size, at = data[at + 1], at + 2
        if size >= 0x80:
            size, at = _varint(data, at - 1, end)
    except (IndexError, WireError):  # what was read as a length may belong to the next entry: an empty list has none
        return None
    if at + size == end:
        if kind == 0x0A:
            return name, _NEW(Feature, ("bytes", [(at, size)]))
        if kind == 0x1A and size == 1 and data[at] < 0x80:
            return name, _NEW(Feature, ("int64", [data[at]]))
    return None


_NAMES: dict[bytes, str] = {}
_NEW = tuple.__new__


def _known(name: bytes) -> str:
    """The name as text, which is cached if it is short and there are few names."""
    text = name.decode()
    if len(name) < 0x80 and len(_NAMES) < 10_000:
        _NAMES[name] = text
    return text


def _entry(data: bytes, at: int, end: int) -> tuple[str, Feature]:
    """(name, feature) of one entry of the map."""
    name, feature = "", Feature("none", ())
    while at < end:
        tag = data[at]
        if tag == 0x0A or tag == 0x12:
            size = data[at + 1] if at + 1 < end else 0x80
            start = at + 2
            if size >= 0x80:
                size, start = _varint(data, at + 1, end)
            stop = start + size
            if stop > end:
                raise WireError(f"a field of {size} bytes where {end - start} are left", at)
            if tag == 0x12:
                feature = _feature(data, start, stop, feature)
            else:
                try:
                    name = _known(data[start:stop])
                except UnicodeDecodeError as exc:
                    raise WireError("the name of a feature is not UTF-8", start) from exc
            at = stop
        else:
            at = _passed_over(data, at, end)
    return name, feature


def _feature(data: bytes, at: int, end: int, before: Feature) -> Feature:
    """The feature in these bytes; several lists of one kind are joined, and the last kind counts."""
    while at < end:
        tag = data[at]
        kind = _KINDS.get(tag)
        if kind is None:
            at = _passed_over(data, at, end)
            continue
        size = data[at + 1] if at + 1 < end else 0x80
        start = at + 2
        if size >= 0x80:
            size, start = _varint(data, at + 1, end)
        at = start + size
        if at > end:
            raise WireError(f"a list of {size} bytes where {end - start} are left", start)
        values = _LISTS[kind](data, start, at)
        before = Feature(kind, [*before.values, *values] if before.kind == kind else values)  # type: ignore[arg-type]
    return before


def _bytes_list(data: bytes, at: int, end: int) -> list[tuple[int, int]]:
    return [(start, stop - start) for start, stop in _messages(data, at, end, 1)]


def _int64_list(data: bytes, at: int, end: int) -> list[int]:
    numbers: list[int] = []
    while at < end:
        tag = data[at]
        if tag == 0x08:
            number, at = _varint(data, at + 1, end)
            numbers.append(number)
        elif tag == 0x0A:
            size, at = _varint(data, at + 1, end)
            stop = at + size
            if stop > end:
                raise WireError(f"a list of {size} bytes where {end - at} are left", at)
            while at < stop:
                number, at = _varint(data, at, stop)
                numbers.append(number)
        else:
            at = _passed_over(data, at, end)
    return [number - (1 << 64) if number >> 63 else number for number in numbers]


def _float_list(data: bytes, at: int, end: int) -> Sequence[float]:
    numbers: list[float] = []
    while at < end:
        tag = data[at]
        if tag == 0x0D:
            if at + 5 > end:
                raise WireError("a float is truncated", at)
            numbers.append(_FLOAT(data, at + 1)[0])
            at += 5
        elif tag == 0x0A:
            size, at = _varint(data, at + 1, end)
            if size % 4 or at + size > end:
                raise WireError(f"{size} bytes of floats where {end - at} are left", at)
            packed = array("f", data[at : at + size])
            if byteorder == "big":
                packed.byteswap()
            at += size
            if not numbers and at == end:  # as TensorFlow writes it: no Python object for each number
                return packed
            numbers += packed
        else:
            at = _passed_over(data, at, end)
    return numbers


_KINDS: dict[int, Kind] = {0x0A: "bytes", 0x12: "float", 0x1A: "int64"}
_LISTS = {"bytes": _bytes_list, "float": _float_list, "int64": _int64_list}


def _messages(data: bytes, at: int, end: int, number: int) -> list[tuple[int, int]]:
    """(first byte, end) of each field `number` between two bytes, which must be of a type with a length."""
    found: list[tuple[int, int]] = []
    wanted = number << 3 | 2
    while at < end:
        if data[at] == wanted:
            size = data[at + 1] if at + 1 < end else 0x80
            start = at + 2
            if size >= 0x80:
                size, start = _varint(data, at + 1, end)
            at = start + size
            if at > end:
                raise WireError(f"a field of {size} bytes where {end - start} are left", start)
            found.append((start, at))
        else:
            at = _passed_over(data, at, end)
    return found


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """(64-bit number, the byte after it)."""
    number = shift = 0
    while at < end:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number & 0xFFFF_FFFF_FFFF_FFFF, at
        shift += 7
        if shift >= 70:
            raise WireError("a number of more than 10 bytes", at - 10)
    raise WireError("a number is truncated", at)


def _passed_over(data: bytes, at: int, end: int) -> int:
    """The byte after a field that is unknown, or has an unexpected type."""
    start = at
    tag, at = _varint(data, at, end)
    if not tag >> 3:
        raise WireError("a field with the number 0", start)
    kind = tag & 7
    if kind == 0:
        return _varint(data, at, end)[1]
    if kind == 2:
        size, at = _varint(data, at, end)
    elif kind in (1, 5):
        size = 8 if kind == 1 else 4
    else:  # groups, which TensorFlow's messages never had, and nonexistent types
        raise WireError(f"a field of the unknown type {kind}", start)
    if at + size > end:
        raise WireError(f"a field of {size} bytes where {end - at} are left", at)
    return at + size
