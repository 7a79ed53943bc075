"""The members of a zip file, read from its central directory into columns, without an object for each.

    end of central directory   "PK\\5\\6", 22 bytes and a comment; zip64 has a locator and a record before it
    central directory          "PK\\1\\2" for each member: 46 bytes, name, extra fields, comment
    local header               "PK\\3\\4" before a member's data: 30 bytes, name, extra fields

Source: PKWARE, APPNOTE.TXT 6.3.10, sections 4.3 to 4.5.
"""

from __future__ import annotations

import logging
import os
import stat
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

import numpy as np

from shardkit.errors import SourceError
from shardkit.sample import fs_text
from shardkit.sources.archives.kinds import JOIN, PART
from shardkit.sources.archives.members import SKIP, Members, MembersBuilder, extension

_log = logging.getLogger(__name__)

_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s6H3L5H2L")
LOCAL_BYTES = 30

_STORED, _DEFLATED = 0, 8
_METHODS = {1: "shrink", 6: "implode", 9: "deflate64", 12: "bzip2", 14: "LZMA", 93: "zstd", 95: "xz", 98: "PPMd"}
_ENCRYPTED, _UTF8 = 0x0001, 0x0800
_UNIX, _WINDOWS = 3, frozenset((0, 10, 14))
"""The system where an archive was created: Unix; FAT, NTFS or VFAT."""

_CUT = "download it again: it is truncated, or not a zip file"


def read_zip(path: str, *, skip_bad: bool) -> Members:
    """Read the members of a zip file. SourceError if it is truncated, damaged, encrypted, split or a bomb."""
    place = fs_text(path)
    try:
        with open(path, "rb") as file:
            directory, first, shift, size = _directory(file, place)
    except OSError as exc:
        raise SourceError(place, f"can't be read ({exc.strerror or exc})", "check its permissions") from exc
    builder = MembersBuilder(place, skip_bad=skip_bad)
    guessed = 0
    slashes = any(b"/" in entry.name for entry in _entries(directory, first, place))
    native = extension()

    def plain(at: int) -> int:
        return at if native is None else builder.add_plain(native.zip, directory, at, shift)

    for entry in _entries(directory, first, place, plain):
        guessed += _add(builder, entry, shift, slashes=slashes)
    if guessed:
        _log.warning("%s: %d names are not marked as UTF-8 and were read as code page 437", place, guessed)
    members = builder.build(size)
    _require_apart(members, size, place)
    return members


def _directory(file: BinaryIO, place: str) -> tuple[bytes, int, int, int]:
    """(the central directory, the offset where it begins, what to add to its offsets, the size of the file)."""
    size = file.seek(0, os.SEEK_END)
    tail_at = max(0, size - _END.size - 0xFFFF)
    file.seek(tail_at)
    tail = file.read()
    at = tail.rfind(b"PK\5\6")
    while at >= 0 and (len(tail) < at + _END.size or at + _END.size + _END.unpack_from(tail, at)[7] > len(tail)):
        at = tail.rfind(b"PK\5\6", 0, at)
    if at < 0:
        raise SourceError(place, "it has no central directory at its end", _CUT)
    _, disk, first, here, count, length, start, _ = _END.unpack_from(tail, at)
    end = tail_at + at
    if 0xFFFF not in (disk, first) and (disk or first or here != count):
        raise SourceError(place, PART, JOIN)
    if 0xFFFFFFFF in (length, start) or count == 0xFFFF:
        length, start, end = _zip64(file, end, length, start, place)
    shift = end - length - start
    if shift < 0 or start + shift < 0:
        raise SourceError(place, "its central directory does not fit in the file", _CUT)
    file.seek(start + shift)
    return file.read(length), start + shift, shift, size


def _zip64(file: BinaryIO, end: int, length: int, start: int, place: str) -> tuple[int, int, int]:
    """(length, start, end) of the central directory, from the zip64 record if the usual one is too small for them."""
    if end < _LOCATOR.size:
        return length, start, end
    file.seek(end - _LOCATOR.size)
    mark, _, _, disks = _LOCATOR.unpack(file.read(_LOCATOR.size))
    if mark != b"PK\6\7":
        return length, start, end
    if disks > 1:
        raise SourceError(place, PART, JOIN)
    at = end - _LOCATOR.size - _END64.size
    if at >= 0:
        file.seek(at)
        found = _END64.unpack(file.read(_END64.size))
        if found[0] == b"PK\6\6":
            return int(found[8]), int(found[9]), at
    raise SourceError(place, "its zip64 record is damaged", _CUT)


class _Entry(NamedTuple):
    name: bytes
    extra: bytes
    host: int
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    mode: int
    offset: int


def _entries(
    directory: bytes, first: int, place: str, between: Callable[[int], int] = lambda at: at
) -> Iterator[_Entry]:
    """Yield the entries of the central directory, which begins at byte `first` of the file.

    between: is called with the place of an entry in it, and may take entries from there on: returns the place behind.
    """
    at, end = 0, len(directory)
    while (at := between(at)) < end:
        if at + _ENTRY.size > end or directory[at : at + 4] != b"PK\1\2":
            raise SourceError(place, "its central directory is damaged", "download it again", first + at)
        (_, made, _, flags, method, _, _, crc, packed, size, n, m, k, _, _, mode, offset) = _ENTRY.unpack_from(
            directory, at
        )
        name_at = at + _ENTRY.size
        at = name_at + n + m + k
        if at > end:
            raise SourceError(place, "its central directory is damaged", "download it again", first + name_at)
        extra = directory[name_at + n : name_at + n + m]
        if 0xFFFFFFFF in (size, packed, offset):
            size, packed, offset = _large(extra, size, packed, offset)
        yield _Entry(
            directory[name_at : name_at + n], extra, made >> 8, flags, method, crc, packed, size, mode >> 16, offset
        )


def _large(extra: bytes, size: int, packed: int, offset: int) -> tuple[int, int, int]:
    """(size, packed, offset), with values that did not fit taken from the zip64 extra field."""
    field = _extra(extra, 0x0001)
    values = [int.from_bytes(field[n : n + 8], "little") for n in range(0, len(field) - 7, 8)]
    found = [values.pop(0) if number == 0xFFFFFFFF and values else number for number in (size, packed, offset)]
    return found[0], found[1], found[2]


def _extra(extra: bytes, wanted: int) -> bytes:
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == wanted:
            return extra[at + 4 : at + 4 + length]
        at += 4 + length
    return b""


def _add(builder: MembersBuilder, entry: _Entry, shift: int, *, slashes: bool) -> bool:
    """Add a member, or refuse it. Returns whether its name had to be guessed. slashes: whether any name has a slash."""
    name, guessed = _name(entry)
    if b"\\" in name and b"/" not in name and entry.host in _WINDOWS and not (guessed and slashes):
        # Some Windows programs write backslashes, against the specification. In names of an unknown code page one may
        # also be half of a character (Shift-JIS), unless it is the only possible separator of folders.
        name = name.replace(b"\\", b"/")
    kind = stat.S_IFMT(entry.mode) if entry.host == _UNIX else 0
    if name.endswith(b"/"):
        builder.folder(name)
    elif kind == stat.S_IFLNK:
        builder.refuse(name, "it is a symbolic link", f"pack the tree that was archived, {SKIP}")
    elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        builder.refuse(name, "it is a device, a pipe or a socket", f"create the archive again without it, {SKIP}")
    elif entry.flags & _ENCRYPTED:
        builder.refuse(name, "it is encrypted", f"unpack the archive with its password and pack the tree, {SKIP}")
    elif entry.method not in (_STORED, _DEFLATED):
        method = _METHODS.get(entry.method, f"method {entry.method}")
        fact = f"it is compressed by {method}; only stored and deflated members can be read"
        builder.refuse(name, fact, f"create the archive again with deflate, or pack the unpacked tree, {SKIP}")
    elif entry.method == _STORED and entry.packed != entry.size:
        builder.refuse(name, "it is stored, but its two sizes differ", f"download the archive again, {SKIP}")
    else:
        builder.add(
            name, size=entry.size, offset=entry.offset + shift, packed=entry.packed, method=entry.method, crc=entry.crc
        )
    return guessed


def _name(entry: _Entry) -> tuple[bytes, bool]:
    """(the member's name in UTF-8, whether it was decoded as code page 437).

    A name marked as UTF-8, or given by Info-ZIP's Unicode Path for exactly this name, is UTF-8. So is any other valid
    UTF-8, which many programs write without the mark. Other names from Unix stay as they are, as in `unzip`.
    """
    name = entry.name
    if name.isascii():
        return name, False
    unicode = _extra(entry.extra, 0x7075)
    if len(unicode) > 5 and int.from_bytes(unicode[1:5], "little") == zlib.crc32(name):
        return unicode[5:], False
    if entry.flags & _UTF8 or entry.host == _UNIX or _is_utf8(name):
        return name, False
    return name.decode("cp437").encode(), True


def _is_utf8(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def _require_apart(members: Members, size: int, place: str) -> None:
    """SourceError if members share bytes, as in a zip bomb, or extend beyond the end."""
    order = np.argsort(members.offsets, kind="stable")
    starts, ends = members.offsets[order], (members.offsets + LOCAL_BYTES + members.packed)[order]
    if len(starts) and (int(ends.max()) > size or int(starts.min()) < 0):
        row = int(order[int(np.argmax(ends))])
        raise SourceError(
            f"{place}/{fs_text(members.names[row])}", "its data extends beyond the end of the archive", _CUT
        )
    overlaps = np.flatnonzero(ends[:-1] > starts[1:])
    if len(overlaps):
        row = int(order[int(overlaps[0]) + 1])
        name = f"{place}/{fs_text(members.names[row])}"
        raise SourceError(name, "its data overlaps that of another member", "do not trust this archive")
