"""Read TFRecord shards from a stream, plain, gzip or zlib, that can't be seeked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from shardkit.errors import DamagedError
from shardkit.formats.tar.headers import CHUNK
from shardkit.formats.tar.stream import Readable, gunzip
from shardkit.formats.tfrecord.samples import (
    CURE,
    FRAME,
    HEAD,
    FieldNames,
    TfrecordSample,
    check_data,
    fields_of,
    masked_crc,
    record_size,
    sample_of,
)

__all__ = ["is_packed", "stream_records", "stream_samples"]


def is_packed(head: bytes) -> bool:
    """Whether the first bytes of a TFRecord file are those of gzip or zlib data, and not of a record."""
    if head[8:HEAD] == masked_crc(head[:8]):
        return False
    zlib = len(head) >= 2 and head[0] & 0x0F == 8 and (head[0] << 8 | head[1]) % 31 == 0
    return head[:2] == b"\x1f\x8b" or zlib


def stream_samples(
    file: Readable, *, place: str, names: FieldNames | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(key, fields) of each sample of a whole shard, as `read_samples` and `fields_of` return them."""
    for sample in stream_records(file, place=place, names=names):
        yield sample.key, fields_of(sample)


def stream_records(file: Readable, *, place: str, names: FieldNames | None = None) -> Iterator[TfrecordSample]:
    """The samples of a whole shard; gzip and zlib data is unpacked, and positions then count unpacked bytes.

    One record is in memory at a time. Raises DamagedError; errors of `file.read` pass through unchanged.
    """
    head = b""
    while len(head) < HEAD and (piece := file.read(CHUNK)):
        head += piece
    source = _Ahead(file, head)
    if is_packed(head):
        source = _Ahead(gunzip(file, place=place, head=head), b"")
        place = f"{place} (unpacked)"
    at = 0
    while opening := source.take(HEAD):
        size = record_size(opening, at, None, place)
        data = source.take(size)
        crc = source.take(4)
        if len(data) < size or len(crc) < 4:
            fact = f"the file ends inside a record: it has {size} bytes, but {len(data)} are there"
            raise DamagedError(place, fact, CURE, at)
        check_data(data, crc, at, place)
        yield sample_of(data, at, place, names)
        at += size + FRAME


class _Ahead:
    """Read ahead and return exactly the bytes requested; fewer only at the end."""

    def __init__(self, file: Readable, head: bytes) -> None:
        self._file, self._ahead, self._used = file, head, 0

    def take(self, n: int) -> bytes:
        """The next n bytes, read in pieces: a damaged n does not make us reserve memory."""
        stop = self._used + n
        if stop <= len(self._ahead):
            piece = self._ahead[self._used : stop]
            self._used = stop
            return piece
        pieces = [self._ahead[self._used :]]
        n -= len(pieces[0])
        self._ahead, self._used = b"", 0
        while n > 0 and (piece := self._file.read(CHUNK)):
            pieces.append(piece[:n])
            self._ahead, self._used = piece, min(n, len(piece))
            n -= len(piece)
        return b"".join(pieces)
