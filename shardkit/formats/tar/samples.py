"""Tar shards: samples to bytes and back. headers.py has the layout of a header.

    sample  = member...             one per field, adjacent, in the order given
    member  = header data padding   a header of 512 bytes for `KEY.FIELD`, the field's bytes, NULs to a whole block
    shard   = sample... END         END is two blocks of zeros; nothing but zeros may follow

Shards are written as POSIX ustar that depends only on keys and fields: mode 0644, owner 0, time 0, names in UTF-8. Any
v7, ustar, PAX or GNU tar is read. A member's name is split by WebDataset's rule (`sample.split_member_name`); members
that are not regular files, have no dot in their base name, or are called `__x__` are skipped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple, TypeVar
from zlib import adler32

from shardkit.errors import DamagedError
from shardkit.formats.tar.headers import (
    BLOCK,
    CURE,
    MAX_OCTAL_SIZE,
    OWNER,
    STAMP,
    TAIL,
    Member,
    check_end,
    check_name,
    cut_member,
    field_twice,
    header_size,
    key_again,
    member_header,
    pad_size,
    parse_number,
    read_member,
    sample_name,
    weight,
)
from shardkit.formats.tar.stream import stream_samples

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["END", "TarSample", "encode_sample", "plain_member", "read_samples", "sample_size", "stream_samples"]

_Value = TypeVar("_Value")

END = bytes(2 * BLOCK)
"""The end mark of a shard."""


class TarSample(NamedTuple):
    """The place of a sample: its first byte and length, headers and padding included; (first byte, length) of each
    field."""

    key: str
    offset: int
    size: int
    fields: dict[str, tuple[int, int]]


# ---- writing


def encode_sample(key: str, fields: Sequence[tuple[str, bytes]]) -> tuple[list[bytes], tuple[int, ...], int]:
    """(pieces, offsets, size): the pieces to write in order, which include the fields' own bytes objects; the first
    byte of each field's data, counted from the sample's first byte; the total length of the pieces.

    ValueError for a key or field that a reader would return differently or skip, for a field given twice, and for a
    sample without fields.
    """
    name = _encode_key(key, fields)
    width, key_weight = len(name), weight(name)
    pieces: list[bytes] = []
    offsets: list[int] = []
    at, padding = 0, b""
    for field, data in fields:
        size = len(data)
        middles, field_weight, _ = _FIELD_PARTS[field]
        middle = middles[width] if width < 100 else b""
        if middle and size <= MAX_OCTAL_SIZE:
            digits = b"%011o" % size
            total = key_weight + field_weight + adler32(digits, 0) & 0xFFFF
            header = b"".join((padding, name, middle, digits, _CHECKS[total], TAIL))
        else:
            header = padding + member_header(b"%b.%b" % (name, field.encode()), size)
        at += len(header)
        offsets.append(at)
        at += size
        pieces += (header, data)
        padding = _PADDINGS[size % BLOCK]
    if padding:
        pieces.append(padding)
    return pieces, tuple(offsets), at + len(padding)


def sample_size(key: str, fields: Sequence[tuple[str, int]]) -> int:
    """The size in bytes of what `encode_sample` returns for fields of these lengths. Raises ValueError like it."""
    name = _encode_key(key, fields)
    total = 0
    for field, size in fields:
        width = len(name) + _FIELD_PARTS[field].width
        if width <= 100 and size <= MAX_OCTAL_SIZE:
            total += BLOCK + pad_size(size)
        else:
            total += header_size(b"%b.%b" % (name, field.encode()), size) + pad_size(size)
    return total


def _encode_key(key: str, fields: Sequence[tuple[str, object]]) -> bytes:
    if "." in key or "\0" in key or key[-1:] in ("", "/") or key[:2] == "__":
        for field, _ in fields:
            check_name(key, field)
    if not fields or len(dict(fields)) < len(fields):
        raise ValueError(f"the sample {key!r} has a field twice, or none")
    return key.encode()


class _FieldParts(NamedTuple):
    """For a field: the bytes between key and size for each length of the key (b"": too long), and its weight."""

    middles: list[bytes]
    weight: int
    width: int


class _FieldTable(dict[str, _FieldParts]):
    def __missing__(self, field: str) -> _FieldParts:
        check_name("key", field)
        end = b"." + field.encode()
        middles = [end + bytes(100 - n - len(end)) + OWNER if n + len(end) <= 100 else b"" for n in range(100)]
        parts = _FieldParts(middles, sum(end), len(end))
        if len(self) < 1000:  # a bound on memory where fields are many
            self[field] = parts
        return parts


class _CheckTable(dict[int, bytes]):
    """From the weights of key, field and size digits to the bytes between these digits and the typeflag."""

    def __missing__(self, weights: int) -> bytes:
        self[weights] = part = b"\0%b%06o\0 " % (STAMP, weights + sum(OWNER) + sum(STAMP) + sum(TAIL) + 256)
        return part


_FIELD_PARTS = _FieldTable()
_CHECKS = _CheckTable()
_PADDINGS = [bytes(-n % BLOCK) for n in range(BLOCK)]


# ---- reading

_UNPACK = Struct("100s24s11sB12s8s356s").unpack_from  # name, owner, size, its end, mtime, checksum, typeflag to end
_PREFIX_AT = 345 - 156  # within the last part
_RESTS: dict[bytes, tuple[str, int]] = {}  # a name field from the key's dot on, with NULs -> field, weight
_STORED: dict[bytes, int] = {}  # a checksum field -> its number
_TABLE_LIMIT = 1 << 15  # a bound on memory, for shards from other writers
_NO_PREFIX = b"\xff" * 101  # longer than a name field: nothing begins with it
_UNDERSCORE = 0x5F


def plain_member(view: memoryview, at: int, stop: int, name: bytes) -> bytes | None:
    """The data of the member `name`, whose header is at byte `at` and whose data ends by `stop`, without parsing the
    header. None if the header is not the one that we write for it."""
    size = parse_number(bytes(view[at + 124 : at + 136])) if at + BLOCK <= stop else None
    if size is None or at + BLOCK + size > stop or bytes(view[at : at + BLOCK]) != member_header(name, size):
        return None
    return bytes(view[at + BLOCK : at + BLOCK + size])


def read_samples(
    buffer: Buffer, *, place: str, start: int = 0, end: int | None = None, check_adjacent: bool = True
) -> Iterator[TarSample]:
    """The samples of a shard in memory (bytes, mmap, memoryview), in order; no data is copied.

    Without `end`, the shard is read to its end mark, which must be present. With `end`, the bytes from `start` up to it
    must be whole members. `check_adjacent` remembers every key, to detect one that occurs again later in these bytes. A
    sample is yielded once the header after it, or the end mark, has been checked. The buffer is released when the
    iterator ends, is closed, or raises DamagedError.
    """
    with memoryview(buffer) as raw, raw.cast("B") as view:
        limit = len(view) if end is None else end
        if not 0 <= start <= limit <= len(view):
            fact = f"bytes {start} to {limit} were requested, but the file has {len(view)}"
            raise DamagedError(
                place, fact, "the file is truncated, or the index is of another file: " + CURE, len(view)
            )
        yield from _read(view, place, start, limit, end is None, check_adjacent)


def _read(view: memoryview, place: str, pos: int, limit: int, whole: bool, check_adjacent: bool) -> Iterator[TarSample]:
    """The loop of `read_samples`; a single function, since calls for each member would take a third of its time.

    A member like the previous ones (same owner and typeflag, a known field, a name in one part) takes a fast path: its
    checksum is added up from the parts that differ, by Adler-32, whose lower half is the sum of the bytes modulo 65521
    (the sums here stay below 50,000). Everything else takes the slow path, `read_member`.
    """

    def fetch(at: int, n: int) -> bytes:
        return bytes(view[at : min(at + n, limit)])

    owner_seen, tail_seen, weight_seen = OWNER, TAIL, sum(OWNER) + sum(TAIL) + 256
    key, prefix, width, key_weight = "", _NO_PREFIX, len(_NO_PREFIX), 0
    fields: dict[str, tuple[int, int]] = {}
    shared: dict[bytes, bytes] = {}
    seen: set[str] = set()
    first = last = pos
    last_header = limit - BLOCK
    unpack, get_rest, get_stored, new = _UNPACK, _RESTS.get, _STORED.get, tuple.__new__
    while whole or pos < limit:
        begin, size, same = pos, -1, False
        if pos <= last_header:
            name, owner, digits, stop, stamp, check, tail = unpack(view, pos)
            if tail == tail_seen and owner == owner_seen and digits.isdigit() and (stop == 0 or stop == 32):
                rest = None
                if name.startswith(prefix):
                    same = True
                    rest = get_rest(name[width:])
                elif name[0] != _UNDERSCORE:  # else it may be metadata
                    slash = name.rfind(b"/") + 1
                    dot = name.find(b".", slash) + 1
                    if dot > slash + 1:
                        rest = get_rest(name[dot:])
                        next_prefix = name[:dot]
                        next_weight = adler32(next_prefix, 0)
                if rest is not None:
                    field, total = rest
                    total += (key_weight if same else next_weight) + stop + weight_seen
                    if get_stored(check) == (total + adler32(digits, 0) + adler32(stamp, 0)) & 0xFFFF:
                        try:
                            size = int(digits, 8)
                            if not same:
                                next_key = next_prefix[:-1].decode()
                                if "\0" in next_key:  # bytes after a NUL are not part of the name
                                    size = -1
                        except ValueError:  # an 8 or 9, or bytes that are not UTF-8
                            size = -1
        if size >= 0:
            data = pos + BLOCK
            pos = data + size + (-size & 511)
            if pos > limit:
                raise cut_member(Member(begin, None, data, size, pos), limit, place)
        else:
            member = read_member(fetch, pos, place=place, shared=shared)
            if member is None:
                break
            begin, data, size, pos = member.start, member.data, member.size, member.end
            if pos > limit:
                raise cut_member(member, limit, place)
            split = sample_name(member, place)
            if shared:  # global records change every member: no fast path
                tail_seen = b""
            if split is None:
                continue
            if not shared:
                owner_seen, tail_seen, weight_seen = _learn(view, member) or (owner_seen, tail_seen, weight_seen)
            next_key, field = split
            same = next_key == key
            next_prefix = next_key.encode("utf-8", "surrogateescape") + b"."
            next_weight = adler32(next_prefix, 0)
        if not same:
            if fields:
                yield new(TarSample, (key, first, last - first, fields))
            if check_adjacent:
                if next_key in seen:
                    raise key_again(place, begin, next_key)
                seen.add(next_key)
            key, first, fields = next_key, begin, {}
            prefix, key_weight = (next_prefix, next_weight) if key[0] != "_" else (_NO_PREFIX, 0)
            width = len(prefix)
        elif field in fields:
            raise field_twice(place, begin, key, field)
        fields[field] = (data, size)
        last = pos
    if whole:
        check_end(fetch, pos, place)
    elif pos < limit:
        raise DamagedError(place, "there are blocks of zeros where a member should begin", CURE, pos)
    if fields:
        yield new(TarSample, (key, first, last - first, fields))


def _learn(view: memoryview, member: Member) -> tuple[bytes, bytes, int] | None:
    """What lets further members like this one take the fast path; None if this one can't."""
    if member.data - member.start != BLOCK:
        return None
    name, owner, _, _, _, check, tail = _UNPACK(view, member.start)
    total = sum(owner) + sum(tail) + 256
    if tail[_PREFIX_AT] or total > 20_000:
        return None
    rest = name[name.find(b".", name.rfind(b"/") + 1) + 1 :]
    text = rest.rstrip(b"\0")
    if b"\0" not in text and text.isascii():
        _remember(_RESTS, rest, (text.decode().lower(), sum(text)))
    _remember(_STORED, check, parse_number(check) or 0)
    return owner, tail, total


def _remember(table: dict[bytes, _Value], key: bytes, value: _Value) -> None:
    if len(table) >= _TABLE_LIMIT:
        table.clear()
    table[key] = value
