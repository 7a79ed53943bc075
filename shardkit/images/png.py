"""The chunks of a PNG: walk them, check them, and drop those that are not needed for the pixels.

89 "PNG" 0D 0A 1A 0A, then chunks `length(4, big-endian) name(4) … CRC(4)`, the first IHDR, the last IEND;
bit 5 of the name's first letter is 0 in a critical chunk                                     ISO 15948, 5 and 11
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from struct import Struct

HEAD = b"\x89PNG\r\n\x1a\n"
DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
"""Colour type -> its allowed bit depths. ISO 15948, table 11.1."""

TEXT_BYTES = 16 << 20
"""The maximum unpacked size of a compressed text or profile."""

_NEEDED = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_be4 = Struct(">I").unpack_from


def chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield (name, start, end) of the complete chunks, up to IEND."""
    at = 8
    while at + 12 <= len(data):
        name, end = data[at + 4 : at + 8], at + 12 + _be4(data, at)[0]
        if end > len(data):
            return
        yield name, at, end
        if name == b"IEND":
            return
        at = end


def bad_checksum(data: bytes, start: int, end: int) -> str:
    """What is wrong with a chunk's CRC; "" if it is correct."""
    if zlib.crc32(memoryview(data)[start + 4 : end - 4]) == _be4(data, end - 4)[0]:
        return ""
    return f"bad checksum (CRC) of the chunk {data[start + 4 : start + 8].decode('latin-1')!r} at byte {start}"


def damage_in_header(data: bytes) -> str:
    """Why a PNG can't be decoded, by its chunks before the first pixels; "" if these are fine.

    `data` has at least the 33 bytes up to the end of IHDR.
    """
    if zlib.crc32(data[12:29]) != _be4(data, 29)[0] or data[8:12] != b"\0\0\0\x0d":
        return bad_checksum(data, 8, 33) or "impossible length of the header"
    depth, color, packing, filters, interlace = data[24:29]
    if depth not in DEPTHS.get(color, ()) or packing or filters or interlace > 1:
        return f"impossible header (depth {depth}, colour type {color})"
    if data[37:41] == b"IDAT":
        return ""
    for name, start, end in chunks(data):
        if name == b"IDAT":
            return ""
        if name in _NEEDED and (wrong := bad_checksum(data, start, end)):
            return wrong
        if name == b"IEND":
            return "no pixels (IDAT)"
    return ""  # cut within a chunk


def damage_in_png(data: bytes) -> str:
    """The first chunk needed for the pixels that has a bad checksum; "" if there is none, or it is not a PNG."""
    if data[:8] != HEAD:
        return ""
    wrong = (bad_checksum(data, start, end) for name, start, end in chunks(data) if name in _NEEDED)
    return next(filter(None, wrong), "")


def without_notes(data: bytes) -> bytes:
    """A PNG with only the chunks for its first image's pixels; the same object if there are no others, or it is not a
    PNG."""
    if data[:8] != HEAD:
        return data
    found = list(chunks(data))
    if all(name in _NEEDED for name, _, _ in found):
        return data
    kept = [data[start:end] for name, start, end in found if name in _NEEDED or not name[:1].islower()]
    rest = b"" if found[-1][0] == b"IEND" else data[found[-1][2] :]
    return b"".join([HEAD, *kept, rest])


def unpack(packed: bytes) -> bytes:
    """Unpack zlib data to at most TEXT_BYTES; b"" if it is damaged or larger."""
    try:
        engine = zlib.decompressobj()
        plain = engine.decompress(packed, TEXT_BYTES)
    except zlib.error:
        return b""
    return b"" if engine.unconsumed_tail else plain


def texts(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield (keyword, text as stored) of the chunks tEXt, zTXt and iTXt. ISO 15948, 11.3.4."""
    for name, start, end in chunks(data):
        if name not in (b"tEXt", b"zTXt", b"iTXt"):
            continue
        keyword, _, text = data[start + 8 : end - 4].partition(b"\0")
        if name == b"zTXt":
            text = unpack(text[1:])
        elif name == b"iTXt":
            is_packed, body = text[:1] == b"\x01", text[2:].split(b"\0", 2)
            text = body[2] if len(body) == 3 else b""
            text = unpack(text) if is_packed else text
        yield keyword, text


def has_frames(data: bytes) -> bool:
    """Whether it is a PNG of several images (acTL, PNG 3, 11.3.6.1)."""
    if data[:8] != HEAD:
        return False
    return any(name == b"acTL" and _be4(data, start + 8)[0] > 1 for name, start, _ in chunks(data))
