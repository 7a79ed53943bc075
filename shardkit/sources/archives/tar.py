"""The members of a tar file, plain or compressed by gzip, bzip2, xz or zstd."""

from __future__ import annotations

import bz2
import contextlib
import logging
import lzma
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, BinaryIO, NamedTuple, Protocol, cast

from shardkit.errors import DamagedError, MissingExtraError, ShardkitError, SourceError, installs
from shardkit.events import Progress, ProgressFn, no_progress
from shardkit.formats.tar.headers import (
    BLOCK,
    EXTENSIONS,
    MAX_EXTENSION_BYTES,
    NO_DATA,
    REGULAR,
    ZEROS,
    pad_size,
    parse_block,
    parse_pax,
)
from shardkit.formats.tar.stream import Readable, gunzip
from shardkit.sample import fs_text
from shardkit.sources.archives.members import BOMB_BYTES, BOMB_RATIO, SKIP, Members, MembersBuilder, extension, is_bomb
from shardkit.sources.readers import stamp_of
from shardkit.system import read_at

_log = logging.getLogger(__name__)

_CHUNK = 1 << 20
_ALL = 1 << 62
_TELL_MEMBERS = 1000
_CURE = "download it again: it is truncated or damaged"
_XZ_BYTES = 1 << 29
"""The memory limit for decompressing xz: level 9 needs 64 MiB."""


class Entry(NamedTuple):
    """One member of a tar file: its name, size in bytes, typeflag, link target, and the offset of its data."""

    name: bytes
    size: int
    type: bytes
    link: bytes
    data: int


class Input(Protocol):
    """The bytes of a tar file, from front to back. `at`: the offset of the next byte."""

    at: int

    def take(self, size: int) -> bytes:
        """The next bytes; fewer only at the end."""
        ...

    def skip(self, size: int) -> int:
        """Skip bytes; returns how many there were."""
        ...


class _Plain:
    """A file on disk: headers are read, and the data between them is skipped.

    What follows is read along, since small members have several headers within it.
    """

    ALONG = 1 << 14

    def __init__(self, file: BinaryIO) -> None:
        self.at = 0
        self._file = file
        self._size = os.fstat(file.fileno()).st_size
        self._held, self._first = b"", 0

    def take(self, size: int) -> bytes:
        start = self.at - self._first
        if start + size > len(self._held):
            self._held, self._first, start = read_at(self._file.fileno(), max(size, self.ALONG), self.at), self.at, 0
        data = self._held[start : start + size]
        self.at += len(data)
        return data

    def skip(self, size: int) -> int:
        there = max(0, min(size, self._size - self.at))
        self.at += there
        return there

    def add_plain(self, builder: MembersBuilder) -> None:
        """Add the plain members from here on, and go to the first other one."""
        if (native := extension()) is not None:
            self.at = builder.add_plain(native.tar, self._file.fileno(), self.at, self._size)


class _Stream:
    """The output of a decompressor; SourceError if it becomes far too large for the input."""

    def __init__(self, file: Readable, packed: _Counted, place: str) -> None:
        self.at = 0
        self._file, self._packed, self._place = file, packed, place
        self._held = b""
        self._used = 0

    def take(self, size: int) -> bytes:
        pieces = []
        while size > 0 and (piece := self.piece(size)):
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def skip(self, size: int) -> int:
        wanted = size
        while size > 0 and (piece := self.piece(size)):
            size -= len(piece)
        return wanted - size

    def piece(self, most: int) -> bytes:
        """Some of the next bytes; none at the end."""
        if self._used == len(self._held):
            self._held, self._used = self._file.read(_CHUNK), 0
        data = self._held[self._used : self._used + most]
        self._used += len(data)
        self.at += len(data)
        if is_bomb(self.at, self._packed.count):
            fact = f"{self._packed.count} bytes of it unpack to over {max(BOMB_BYTES, BOMB_RATIO * self._packed.count)}"
            raise SourceError(self._place, fact, "check where it comes from; if you trust it, unpack it yourself")
        return data


class _Counted:
    """A file that counts the bytes read from it."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.count = file, 0

    def read(self, size: int, /) -> bytes:
        data = self.file.read(size)
        self.count += len(data)
        return data


class _Decompressed:
    """A file decompressed by the standard library, with concatenated streams read as one."""

    def __init__(self, file: Readable, new: Callable[[], Any]) -> None:
        self._file, self._new = file, new
        self._now = new()
        self._ended = False

    def read(self, size: int, /) -> bytes:
        while not self._ended:
            data = b""
            if self._now.eof:
                data = self._now.unused_data.lstrip(b"\0") or self._file.read(_CHUNK).lstrip(b"\0")
                if not data:
                    self._ended = True
                    break
                self._now = self._new()
            elif self._now.needs_input and not (data := self._file.read(_CHUNK)):
                raise EOFError("the compressed data ends before its end mark")
            if piece := self._now.decompress(data, size):
                return bytes(piece)
        return b""


@contextlib.contextmanager
def open_tar(path: str, compression: str) -> Iterator[Input]:
    """Open a plain tar file, or a compressed one ("gz", "bz2", "xz", "zst"). Read errors in the block become
    SourceError."""
    place = fs_text(path)
    try:
        with open(path, "rb") as file:
            if not compression:
                yield _Plain(file)
                return
            counted = _Counted(file)
            yield _Stream(_OPENERS[compression](counted, place), counted, place)
    except DamagedError as exc:
        cure = exc.cure if "sparse" in exc.cure else _CURE
        raise SourceError(exc.place, exc.fact, cure, exc.offset) from exc
    except (EOFError, lzma.LZMAError) as exc:
        raise SourceError(place, f"the {compression} data is truncated or damaged ({exc})", _CURE) from exc
    except ShardkitError:
        raise
    except OSError as exc:
        raise SourceError(place, f"can't be read ({exc.strerror or exc})", _CURE) from exc


def _open_zstd(file: Readable, place: str) -> Readable:
    try:
        import zstandard
    except ImportError as exc:
        fact = "reading .zst needs the package zstandard, which is not installed"
        raise MissingExtraError(place, fact, installs("archives")) from exc
    reader = zstandard.ZstdDecompressor().stream_reader(cast("BinaryIO", file), read_across_frames=True)

    class Translated:
        def read(self, size: int, /) -> bytes:
            try:
                return bytes(reader.read(size))
            except zstandard.ZstdError as exc:
                raise EOFError(str(exc)) from exc

    return Translated()


_OPENERS: dict[str, Callable[[Readable, str], Readable]] = {
    "gz": lambda file, place: gunzip(file, place=place),
    "bz2": lambda file, place: _Decompressed(file, bz2.BZ2Decompressor),
    "xz": lambda file, place: _Decompressed(file, lambda: lzma.LZMADecompressor(memlimit=_XZ_BYTES)),
    "zst": _open_zstd,
}


def entries(
    source: Input,
    place: str,
    joined: Callable[[int], None] | None = None,
    between: Callable[[], None] | None = None,
) -> Iterator[Entry]:
    """Yield the members. After each, its data may be read from `source`; the rest of it is skipped.

    between: is called where a member begins, and may take members from there on: `source` is then behind them.

    Concatenated tar files are read as one, as by `tar --ignore-zeros`: `joined` is called with the offset of each
    further one. Raises SourceError at the first byte that is not a member, and if the end mark is missing (a cut file).
    """
    shared: dict[bytes, bytes] = {}
    records: dict[bytes, bytes] = {}
    ended, begins = False, True
    while True:
        if begins and between is not None and not (ended or shared):
            between()
        begins = False
        at = source.at
        block = source.take(BLOCK)
        if block == ZEROS:
            ended = True
            continue
        if ended:
            if not block.strip(b"\0"):  # more zeros, or the end of the file
                return
            _require_header(block, place, at)
            if joined is not None:
                joined(at)
            shared, records, ended = {}, {}, False
        if len(block) < BLOCK:
            what = "inside a header" if block else "without its end mark (two blocks of zeros)"
            raise SourceError(place, f"it ends {what}", _CURE, at)
        header = parse_block(block, place=place, offset=at)
        if header.type in EXTENSIONS:
            found = _records(source, header.type, header.size, place)
            (shared if header.type == b"g" else records).update(found)
            continue
        size, name, link = header.size, header.name, block[157:257].partition(b"\0")[0] if block[157] else b""
        if shared or records:
            known = {**shared, **records}
            records = {}
            size = int(known.get(b"size") or size)
            name, link = known.get(b"path") or name, known.get(b"linkpath") or link
        size = 0 if header.type in NO_DATA else size
        start = source.at
        if size > _ALL:  # no file is as large, and no column has room for it
            raise _cut_member(place, name, start)
        yield Entry(name, size, b"0" if header.type in REGULAR else header.type, link, start)
        left = start + pad_size(size) - source.at
        if source.skip(left) < left:
            raise _cut_member(place, name, source.at)
        begins = True


def _cut_member(place: str, name: bytes, at: int) -> SourceError:
    return SourceError(f"{place}/{fs_text(name)}", "the archive ends inside this member", _CURE, at)


def _require_header(block: bytes, place: str, at: int) -> None:
    """SourceError unless another tar file follows the end mark."""
    with contextlib.suppress(DamagedError):
        if len(block) == BLOCK:
            parse_block(block, place=place, offset=at)
            return
    fact = "the data after its end mark is not another tar file"
    raise SourceError(place, fact, "download it again; if that data is not needed, unpack it and pack the tree", at)


def _records(source: Input, kind: bytes, size: int, place: str) -> dict[bytes, bytes]:
    at = source.at
    if size > MAX_EXTENSION_BYTES:
        raise SourceError(place, f"an extended header has {size} bytes", _CURE, at)
    payload = source.take(pad_size(size))[:size]
    if len(payload) < size:
        raise SourceError(place, "it ends inside an extended header", _CURE, at)
    if kind in b"LK":
        return {b"path" if kind == b"L" else b"linkpath": payload.partition(b"\0")[0]}
    return parse_pax(payload, place=place, offset=at) | _link_path(payload)


def _link_path(payload: bytes) -> dict[bytes, bytes]:
    """The record `linkpath` of a PAX header that was already validated."""
    at = 0
    while at < len(payload) and payload[at]:
        digits, _, _ = payload[at:].partition(b" ")
        end = at + int(digits)
        keyword, _, value = payload[at + len(digits) + 1 : end - 1].partition(b"=")
        if keyword == b"linkpath":
            return {b"linkpath": value}
        at = end
    return {}


def read_tar(path: str, compression: str, *, skip_bad: bool, progress: ProgressFn = no_progress) -> Members:
    """Read the members of a tar file. A hard link counts as its target file. Raises SourceError, MissingExtraError."""
    place = fs_text(path)
    builder = MembersBuilder(place, skip_bad=skip_bad)
    starts: list[int] = []
    told = 0
    with open_tar(path, compression) as source:
        plain = partial(source.add_plain, builder) if isinstance(source, _Plain) else None
        for entry in entries(source, place, starts.append, plain):
            _add(builder, entry)
            if len(builder) >= told + _TELL_MEMBERS:
                told = len(builder)
                progress(Progress("scan", told, 0, source.at))
        source.skip(_ALL)  # to the end, where a compressed stream has its checksum
    if starts:
        text = "%s: it is %d concatenated tar files (the second begins at byte %d): all of them are packed"
        _log.warning(text, place, len(starts) + 1, starts[0])
    return builder.build(stamp_of(path)[0])


def _add(builder: MembersBuilder, entry: Entry) -> None:
    if entry.type == b"5":
        builder.folder(entry.name)
    elif entry.type == b"0":
        builder.add(entry.name, size=entry.size, offset=entry.data, packed=entry.size)
    elif entry.type == b"1":
        builder.link(entry.name, entry.link)
    elif entry.type == b"2":
        fact = f"it is a symbolic link to {fs_text(entry.link)}"
        builder.refuse(entry.name, fact, f"pack the tree that was archived, {SKIP}")
    elif entry.type in b"346":
        builder.refuse(entry.name, "it is a device or a pipe", f"create the archive again without it, {SKIP}")
    else:
        builder.refuse(entry.name, f"it is a member of an unknown kind ({entry.type!r})", f"create it again, {SKIP}")
