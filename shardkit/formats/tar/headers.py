"""One tar member's header blocks, as bytes and back.

    byte  size  field      written by shardkit
       0   100  name       the member's name in UTF-8, NULs after it
     100     8  mode       "0000644" NUL
     108    16  uid, gid   "0000000" NUL each
     124    12  size       11 octal digits, NUL
     136    12  mtime      "00000000000" NUL
     148     8  checksum   6 octal digits, NUL, space: the sum of the block's bytes with 8 spaces in this place
     156     1  typeflag   "0", a regular file ("x" for a PAX header)
     157   100  linkname   NULs
     257     8  magic      "ustar" NUL "00"
     265    64  uname, gname  NULs
     329    16  device     "0000000" NUL twice
     345   155  prefix     the name's folders if it is longer than 100 bytes, else NULs
     500    12             NULs

A name that does not fit, or a size of 8 GiB or more, is stored in a PAX header ("x") before the member: a block like
this one, followed by records `LENGTH KEYWORD=VALUE NEWLINE`. Sources: POSIX.1-2017, pax; GNU tar's manual, "Basic Tar
Format".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple
from zlib import adler32

from shardkit.checksums import crc32c
from shardkit.errors import DamagedError
from shardkit.sample import split_member_name

BLOCK = 512
OWNER = b"0000644\0" + b"0000000\0" * 2
STAMP = b"00000000000\0"
TAIL = b"0" + bytes(100) + b"ustar\x0000" + bytes(64) + b"0000000\0" * 2 + bytes(155 + 12)
CURE = "pack it again, or run 'shardkit repair'"

MAX_EXTENSION_BYTES = 1 << 20
"""The largest PAX or GNU long-name payload that is read: it bounds what a damaged size can make us allocate."""

MAX_OCTAL_SIZE = 0o77777777777
CHUNK = 1 << 20
GZIP_MAGIC = b"\x1f\x8b"
OTHER_PACKED = ((b"BZh", "bzip2"), (b"\xfd7zXZ\0", "xz"), (b"\x28\xb5\x2f\xfd", "zstd"))
"""The first bytes of compressed files that are not read as shards."""
RESERVED_FIELDS = frozenset(("__key__", "__url__", "__local_path__"))
PAX_NAME = b"././@PaxHeader-crc32c-"
"""Followed by the CRC-32C of the records in 8 hex digits, this is the name of our own PAX headers: tar has no checksum
for their content, and a name damaged there would lose a sample silently."""

ZEROS = bytes(BLOCK)

MAGIC, MAGIC_AT = b"ustar", 257
"""What almost every header has, and where: v7 had none."""

EXTENSIONS = b"xXgLK"
NO_DATA = b"123456"
"""Links, devices, directories, FIFOs: no data follows them, whatever their size field says (as in Python's tarfile)."""
REGULAR = b"0\x007"

METADATA = re.compile(r"__[^/]*__($|/)")
"""WebDataset skips members whose name matches from the start."""

_OCTAL = re.compile(rb"[ ]*([0-7]*)[ ]*")
_WEBDATASET_NAME = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)")


class Header(NamedTuple):
    """One header block: the name as stored, the data's size in bytes, the typeflag."""

    name: bytes
    size: int
    type: bytes


class Member(NamedTuple):
    """One member: its first byte (PAX headers included), its name (None: not a regular file), data and end."""

    start: int
    name: bytes | None
    data: int
    size: int
    end: int


# ---- writing


def check_name(key: str, field: str) -> None:
    """ValueError if readers would not return `key` and `field` for the member `KEY.FIELD`, or would skip it."""
    name = f"{key}.{field}"
    found = _WEBDATASET_NAME.fullmatch(name)
    if "\0" in name:
        raise ValueError(f"a NUL byte in the name of a member: {name!r}")
    if field != field.lower() or "/" in field or field.startswith("__"):
        raise ValueError(f"not a field: {field!r}; a field is in lower case, has no '/', and does not begin with '__'")
    if key.endswith("/") or found is None or found[1] != key:
        raise ValueError(
            f"not a key: {key!r}; a key is not empty, does not end with '/', and has no '.' in its base name"
        )
    if _is_metadata(name):
        raise ValueError(f"readers skip a member with the name {name!r}; a key must not begin with '__' like this")


def member_header(name: bytes, size: int) -> bytes:
    """The header of a regular file, before its data: one block, or a PAX header and a block (whole blocks)."""
    records = b""
    prefix, base = split_prefix(name)
    if len(base) > 100:
        records += pax_record(b"path", name)
        prefix, base = b"", name[:100].decode("utf-8", "ignore").encode()
    if size > MAX_OCTAL_SIZE:
        records += pax_record(b"size", b"%d" % size)
        size = 0
    block = ustar_block(base, size, b"0", prefix)
    if not records:
        return block
    records_name = PAX_NAME + b"%08x" % crc32c(records)
    return ustar_block(records_name, len(records), b"x", b"") + records + bytes(-len(records) % BLOCK) + block


def header_size(name: bytes, size: int) -> int:
    """The length of `member_header(name, size)` in bytes."""
    if len(name) <= 100 and size <= MAX_OCTAL_SIZE:
        return BLOCK
    return len(member_header(name, size))


def split_prefix(name: bytes) -> tuple[bytes, bytes]:
    """The name as ustar's (prefix, name); if the second part exceeds 100 bytes, the name does not fit."""
    if len(name) <= 100:
        return b"", name
    slash = name.rfind(b"/", 0, 156)
    return (name[:slash], name[slash + 1 :]) if slash > 0 and len(name) - slash <= 101 else (b"", name)


def pax_record(keyword: bytes, value: bytes) -> bytes:
    """A PAX record; its length counts its own digits."""
    rest = len(keyword) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, keyword, value)


def ustar_block(name: bytes, size: int, typeflag: bytes, prefix: bytes) -> bytes:
    """One header block of 512 bytes. `name` and `prefix` fit their fields."""
    front = name.ljust(100, b"\0") + OWNER + b"%011o\0" % size + STAMP
    back = typeflag + TAIL[1:189] + prefix.ljust(167, b"\0")
    return b"%b%06o\0 %b" % (front, sum(front) + sum(back) + 256, back)


# ---- reading


def read_member(
    fetch: Callable[[int, int], bytes], start: int, *, place: str, shared: dict[bytes, bytes]
) -> Member | None:
    """The member that begins at byte `start`; None if the end mark begins there.

    `fetch(offset, n)` returns the n bytes at `offset`, fewer at the end of the file; offsets only increase. `shared`
    holds the records of global PAX headers, and is updated at each further one. Raises DamagedError.
    """
    at, records = start, dict[bytes, bytes]()
    while True:
        block = _fetch_whole(fetch, at, BLOCK, place, "a header" if at == start else "an extended header")
        if block == ZEROS:
            if at > start:
                raise DamagedError(place, "an extended header has no member after it", CURE, at)
            return None
        header = parse_block(block, place=place, offset=at)
        at += BLOCK
        if header.type not in EXTENSIONS:
            return _finish_member(start, at, header, {**shared, **records}, place)
        if header.size > MAX_EXTENSION_BYTES:
            fact = f"an extended header has {header.size} bytes, but at most {MAX_EXTENSION_BYTES} are read"
            raise DamagedError(place, fact, CURE, at - BLOCK)
        payload = _fetch_whole(fetch, at, pad_size(header.size), place, "an extended header")[: header.size]
        if header.name.startswith(PAX_NAME) and header.name != PAX_NAME + b"%08x" % crc32c(payload):
            raise DamagedError(place, "the records of a PAX header do not match their CRC-32C", CURE, at)
        found = _extension_records(header.type, payload, place, at)
        at += pad_size(header.size)
        if header.type == b"g":
            shared.update(found)
            if at - start == BLOCK + pad_size(header.size):  # it is not part of the sample after it
                return Member(start, None, at, 0, at)
        else:
            records = {**found, **records}  # the first header wins, as in Python's tarfile


def require_unpacked(head: bytes, place: str) -> None:
    """DamagedError for a file in a compression that is not supported for shards, by its first bytes."""
    kind = next((name for magic, name in OTHER_PACKED if head.startswith(magic)), None)
    if kind is not None:
        fact = f"this is a {kind} file, but shards must be plain or gzip"
        raise DamagedError(place, fact, "unpack it, or compress it with gzip instead", 0)


def parse_block(block: bytes, *, place: str, offset: int) -> Header:
    """The header in a block of 512 bytes: v7, ustar, PAX or GNU. Raises DamagedError."""
    stored, spaces = parse_number(block[148:156]), 256 - sum(block[148:156])
    if stored != (adler32(block, 0) & 0xFFFF) + spaces and stored not in _sums(block, spaces):
        fact = "a header's checksum is wrong: either the header or the member before it is damaged"
        if offset == 0:
            fact = "the first header's checksum is wrong: this is not a tar file, or it is damaged"
            require_unpacked(block, place)
            if block.startswith(GZIP_MAGIC):
                fact = "this is a gzip file, which can be read as a stream only"
        raise DamagedError(place, fact, CURE, offset)
    size = parse_number(block[124:136])
    if size is None or size < 0:
        raise DamagedError(place, f"a member's size is not a number: {block[124:136]!r}", CURE, offset)
    name, typeflag = _until_nul(block[:100]), block[156:157]
    if typeflag == b"S":
        raise DamagedError(
            place,
            "this member is a sparse file, which can't be read",
            "make the tar again without the sparse option (-S)",
            offset,
        )
    if typeflag == b"\0" and name.endswith(b"/"):
        typeflag = b"5"  # v7 had no typeflag for directories
    if block[257:262] == b"ustar" and block[257:264] != b"ustar  " and block[345]:  # GNU's own format has no prefix
        name = _until_nul(block[345:500]) + b"/" + name
    return Header(name, size, typeflag)


def parse_number(field: bytes) -> int | None:
    """A number field: octal digits between spaces, up to a NUL, or GNU's base-256; None if it is neither of these."""
    if field[0] in (0x80, 0xFF):
        return int.from_bytes(field[1:], "big") - (256 ** (len(field) - 1) if field[0] == 0xFF else 0)
    digits = field[:-1]
    if field[-1] == 0 and digits.isdigit() and b"8" not in digits and b"9" not in digits:  # as nearly all write them
        return int(digits, 8)
    match = _OCTAL.fullmatch(_until_nul(field))
    return int(match[1] or b"0", 8) if match else None


def parse_pax(payload: bytes, *, place: str, offset: int) -> dict[bytes, bytes]:
    """The records of a PAX header with a member's name and size; an empty value deletes a record."""
    records: dict[bytes, bytes] = {}
    at = 0
    while at < len(payload) and payload[at]:
        space = payload.find(b" ", at, at + 8)
        digits = payload[at:space] if space > 0 else b""
        end = at + int(digits) if digits.isdigit() else 0
        keyword, equals, value = payload[space + 1 : end - 1].partition(b"=")
        if end <= space + 1 or end > len(payload) or payload[end - 1] != 0x0A or not equals:
            raise DamagedError(place, "a record of a PAX header is damaged", CURE, offset + at)
        if keyword.startswith(b"GNU.sparse."):
            raise DamagedError(
                place,
                "this member is a sparse file, which can't be read",
                "make the tar again without the sparse option (-S)",
                offset,
            )
        bad_size = keyword == b"size" and value and not (value.isdigit() and len(value) <= 20)
        if bad_size or (keyword == b"path" and b"\0" in value):
            raise DamagedError(place, f"a PAX header has a damaged {keyword.decode()}", CURE, offset + at)
        if keyword in (b"path", b"size"):
            records[keyword] = value.rstrip(b"/") if keyword == b"path" else value
        at = end
    return records


def sample_name(member: Member, place: str) -> tuple[str, str] | None:
    """(key, field) of a member by WebDataset's rule; None for one that belongs to no sample. Bytes that are not UTF-8
    become lone surrogates, as in Python's tarfile.
    """
    if member.name is None:
        return None
    name = member.name.decode("utf-8", "surrogateescape")
    if _is_metadata(name):
        return None
    split = split_member_name(name)
    if split and split[1] in RESERVED_FIELDS:
        raise DamagedError(place, f"a member's field is {split[1]}, which is reserved", CURE, member.start, split[0])
    return split


def check_end(fetch: Callable[[int, int], bytes], at: int, place: str, *, zeros_before: int = 0) -> None:
    """DamagedError unless the bytes from `at` on are an end mark: zeros only, and at least two blocks.

    `zeros_before` bytes of it have been read already.
    """
    begin = at - zeros_before
    while chunk := fetch(at, CHUNK):
        zeros = len(chunk) - len(chunk.lstrip(b"\0"))
        at += zeros
        if zeros < len(chunk):
            raise DamagedError(place, f"there is data after the end mark at byte {begin}", CURE, at)
    if at - begin < 2 * BLOCK:
        fact = f"the file ends at byte {at}, inside its end mark (two blocks of zeros): it is truncated"
        raise DamagedError(place, fact, CURE, begin)


def cut_member(member: Member, limit: int, place: str) -> DamagedError:
    """The error for a member that extends beyond the end of the file."""
    fact = f"the file ends at byte {limit}, inside a member, whose {member.size} bytes begin at {member.data}"
    return DamagedError(place, fact, CURE, member.start)


def field_twice(place: str, at: int, key: str, field: str) -> DamagedError:
    """The error for a second member of the same name within a sample."""
    return DamagedError(place, f"the field {field} occurs twice", CURE, at, key)


def key_again(place: str, at: int, key: str) -> DamagedError:
    """The error for a key that occurs again after other samples."""
    fact = "the members of this sample are not next to each other: its key occurred before, with another key in between"
    return DamagedError(place, fact, "pack it again with the members in order, or run 'shardkit repair'", at, key)


def pad_size(size: int) -> int:
    """`size` rounded up to whole blocks."""
    return size + -size % BLOCK


def weight(data: bytes) -> int:
    """The sum of the bytes of `data`, at most 255 of them: the lower half of Adler-32, computed in C."""
    return adler32(data, 0) & 0xFFFF


def _is_metadata(name: str) -> bool:
    if not name.startswith("__"):
        return False
    return METADATA.match(name) is not None or ("/" not in name and name.endswith("__"))


def _until_nul(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _sums(block: bytes, spaces: int) -> tuple[int, int]:
    """The checksum of unsigned bytes and, as some old programs computed it, of signed bytes."""
    plain = sum(block) + spaces
    return plain, plain - 256 * sum(byte > 127 for byte in block[:148] + block[156:])


def _fetch_whole(fetch: Callable[[int, int], bytes], at: int, size: int, place: str, what: str) -> bytes:
    data = fetch(at, size)
    if len(data) == size:
        return data
    if not at:
        require_unpacked(data, place)
    fact = f"the file ends at byte {at + len(data)}, inside {what}"
    if not data and what == "a header":
        fact = (
            "the file ends without its end mark (two blocks of zeros): it is truncated" if at else "the file is empty"
        )
    raise DamagedError(place, fact, CURE, at)


def _extension_records(typeflag: bytes, payload: bytes, place: str, offset: int) -> dict[bytes, bytes]:
    if typeflag == b"K":  # a long link name
        return {}
    if typeflag == b"L":
        return {b"path": _until_nul(payload)}
    return parse_pax(payload, place=place, offset=offset)


def _finish_member(start: int, data: int, header: Header, records: dict[bytes, bytes], place: str) -> Member:
    if header.type in NO_DATA:
        return Member(start, None, data, 0, data)
    size = int(records.get(b"size") or header.size)
    name = records.get(b"path") or header.name
    return Member(start, name if header.type in REGULAR else None, data, size, data + pad_size(size))
