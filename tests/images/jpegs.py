"""JPEGs of rare kinds, written here byte by byte: no encoder at hand makes them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

SOI, EOI = b"\xff\xd8", b"\xff\xd9"
DHT, DQT, SOF0, SOS, APP1 = 0xC4, 0xDB, 0xC0, 0xDA, 0xE1


def segment(marker: int, body: bytes) -> bytes:
    return b"\xff%c" % marker + (len(body) + 2).to_bytes(2, "big") + body


def photo(height: int = 80, width: int = 120, *, seed: int = 0, **options: Any) -> bytes:
    """A JPEG of smooth colours by Pillow."""
    noise = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    sink = io.BytesIO()
    Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).save(sink, "JPEG", **options)
    return sink.getvalue()


def lossless(
    height: int, width: int, *, bits: int = 8, names: bytes = b"RGB", marker: int = 0xC3, table: bytes = b""
) -> bytes:
    """T.81, annex H: all samples are the middle grey, so that each difference is of category 0, one bit."""
    frame = b"%c" % bits + height.to_bytes(2, "big") + width.to_bytes(2, "big") + b"%c" % len(names)
    frame += b"".join(b"%c\x11\0" % name for name in names)
    scan = b"%c" % len(names) + b"".join(b"%c\0" % name for name in names) + b"\1\0\0"
    count = height * width * len(names)
    coded = bytes(count // 8) + (b"\x7f" if count % 8 else b"")
    huffman = segment(DHT, b"\0\1" + bytes(15) + b"\0")
    return SOI + table + segment(marker, frame) + huffman + segment(SOS, scan) + coded + EOI


def of_441() -> bytes:
    """Grey, 8 x 32, luma sampled 1 x 4: one MCU of six blocks, each a DC difference of 0 and an end of block."""
    data = bytearray(photo(32, 8, subsampling=0))
    frame, scan = data.index(b"\xff\xc0"), data.index(b"\xff\xda")
    data[frame + 11] = 0x14
    bits = ("00" + "1010") * 4 + ("00" + "00") * 2  # T.81, tables K.3 to K.6
    return bytes(data[: scan + 14]) + int(bits, 2).to_bytes(4, "big") + EOI


def with_precision(bits: int) -> bytes:
    """A JPEG that says that its samples have this many bits."""
    data = bytearray(photo())
    at = data.index(b"\xff\xc0")
    data[at + 1], data[at + 4] = 0xC1, bits
    return bytes(data)


def without(data: bytes, marker: int) -> bytes:
    """Without the segments of this marker before the scan."""
    out, at = data[:2], 2
    while data[at + 1] != SOS:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        out += b"" if data[at + 1] == marker else data[at:end]
        at = end
    return out + data[at:]


def with_bytes_before(data: bytes, marker: int, extra: bytes) -> bytes:
    at = data.index(b"\xff%c" % marker)
    return data[:at] + extra + data[at:]


TRAILER = b"\0\0\x01\x0a\x0e\0\0\0Image_UTC_Data" + bytes(300) + b"SEFT"
"""Of the kind that Samsung's phones write after the coded data, in place of an end mark."""
