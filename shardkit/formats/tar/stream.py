"""Read tar shards from a stream, plain or gzip, that can't be seeked, such as a pipe or an HTTP response."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Protocol

from shardkit.errors import DamagedError
from shardkit.formats.tar.headers import (
    BLOCK,
    CHUNK,
    CURE,
    GZIP_MAGIC,
    check_end,
    cut_member,
    field_twice,
    key_again,
    read_member,
    sample_name,
)

_GZIP_CHUNK = 1 << 14  # small, since damage is found to within a chunk


class Readable(Protocol):
    """A binary file: `read(n)` returns at most n bytes, and none only at the end."""

    def read(self, size: int, /) -> bytes:
        """The next bytes."""
        ...


def stream_samples(
    file: Readable, *, place: str, check_adjacent: bool = True
) -> Iterator[tuple[str, dict[str, bytes]]]:
    """(key, fields) of each sample of a whole shard, by the rules of `read_samples`; a gzip stream is unpacked.

    One sample is in memory at a time. For a gzip shard, the position in an error counts unpacked bytes, unless the gzip
    data itself is damaged. Raises DamagedError; errors of `file.read` pass through unchanged.
    """
    source = _Source(file, place)
    place = source.place
    key, fields = "", dict[str, bytes]()
    shared: dict[bytes, bytes] = {}
    seen: set[str] = set()
    while (member := read_member(source.fetch, source.at, place=place, shared=shared)) is not None:
        split = sample_name(member, place)
        data = source.take(member.size, keep=split is not None)
        source.take(member.end - member.data - member.size, keep=False)  # the padding
        if source.at < member.end:
            raise cut_member(member, source.at, place)
        if split is None:
            continue
        if split[0] != key:
            if fields:
                yield key, fields
            key, fields = split[0], {}
            if check_adjacent:
                if key in seen:
                    raise key_again(place, member.start, key)
                seen.add(key)
        elif split[1] in fields:
            raise field_twice(place, member.start, key, split[1])
        fields[split[1]] = data
    check_end(source.fetch, source.at, place, zeros_before=BLOCK)
    if fields:
        yield key, fields


class _Source:
    """Read ahead and return exactly the bytes requested; fewer only at the end. `at`: the offset of the next byte."""

    def __init__(self, file: Readable, place: str) -> None:
        self.at = 0
        self.place = place
        self._ahead = b""
        while len(self._ahead) < len(GZIP_MAGIC) and (piece := file.read(CHUNK)):
            self._ahead += piece
        self._used = 0  # of _ahead
        self._file = file
        if self._ahead.startswith(GZIP_MAGIC):
            self._file = gunzip(file, place=place, head=self._ahead)
            self._ahead = b""
            self.place = f"{place} (unpacked)"

    def fetch(self, at: int, n: int) -> bytes:
        """The next n bytes; `at` must be the current position."""
        return self.take(n, keep=True)

    def take(self, n: int, *, keep: bool) -> bytes:
        """The next n bytes (b"" if not to be kept), read in pieces: a damaged n does not make us reserve memory."""
        used = self._used
        if used + n <= len(self._ahead):
            self._used += n
            self.at += n
            return self._ahead[used : used + n] if keep else b""
        pieces: list[bytes] = []
        while n > 0:
            piece = self._ahead[self._used : self._used + n]
            self._used += len(piece)
            self.at += len(piece)
            n -= len(piece)
            if keep:
                pieces.append(piece)
            if n > 0:
                self._ahead, self._used = self._file.read(CHUNK), 0
                if not self._ahead:
                    break
        return b"".join(pieces)


def gunzip(file: Readable, *, place: str, head: bytes = b"") -> Readable:
    """The unpacked bytes of a gzip or zlib stream: `head`, what was read of it already, and `file`.

    `read` raises DamagedError. It may have several gzip members, and zeros after the last one.
    """
    return _Gunzip(file, place, head)


class _Gunzip:
    def __init__(self, file: Readable, place: str, head: bytes) -> None:
        self._file = file
        self._place = place
        self._input = head  # read and not yet unpacked
        self._taken = len(head)  # bytes read from the file
        self._unzip = zlib.decompressobj(wbits=47)

    def read(self, size: int, /) -> bytes:
        """The next unpacked bytes."""
        while not self._unzip.eof or self._begin_member():
            full = bool(self._input) or self._refill()
            if data := self._unpack(size):
                return data
            if not full and not self._unzip.eof:
                fact = "the gzip data ends before its end mark: the file is truncated"
                raise DamagedError(self._place, fact, CURE, self._taken)
        return b""

    def _refill(self) -> bool:
        self._input = self._file.read(_GZIP_CHUNK)
        self._taken += len(self._input)
        return bool(self._input)

    def _begin_member(self) -> bool:
        """Prepare for the next gzip member; False at the end of the file."""
        while not self._input.strip(b"\0"):
            if not self._refill():
                return False
        if self._input[:1] != GZIP_MAGIC[:1]:
            at = self._taken - len(self._input.lstrip(b"\0"))
            raise DamagedError(self._place, "there is data after the end of the gzip data", CURE, at)
        self._unzip = zlib.decompressobj(wbits=47)
        return True

    def _unpack(self, size: int) -> bytes:
        piece, later = self._input[:_GZIP_CHUNK], self._input[_GZIP_CHUNK:]
        at = self._taken - len(self._input)
        try:
            data = self._unzip.decompress(piece, size)
        except zlib.error as exc:
            fact = f"the gzip data is damaged within the {len(piece)} bytes from here ({exc})"
            raise DamagedError(self._place, fact, CURE, at) from exc
        unused = self._unzip.unused_data if self._unzip.eof else self._unzip.unconsumed_tail
        self._input = unused + later if later else unused
        return data
