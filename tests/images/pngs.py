"""PNGs of every kind, written here byte by byte: Pillow writes neither interlaced ones nor all depths."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

HEAD = b"\x89PNG\r\n\x1a\n"
BANDS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def chunk(name: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")


def header(height: int, width: int, color: int, depth: int, *, interlaced: bool = False) -> bytes:
    sides = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    return chunk(b"IHDR", sides + bytes([depth, color, 0, 0, interlaced]))


def noise(
    height: int,
    width: int,
    color: int = 2,
    depth: int = 8,
    *,
    interlaced: bool = False,
    entries: int = 256,
    filters: Sequence[int] = range(5),
    seed: int = 0,
    level: int = 6,
    idat: int = 1 << 20,
    extra: bytes = b"",
) -> bytes:
    """Random bytes as rows, with the filters in turn. idat: bytes in each IDAT. extra: chunks after the header."""
    rng = np.random.default_rng(seed)
    rows: list[bytes] = []
    for x, y, right, down in PASSES if interlaced else ((0, 0, 1, 1),):
        columns, lines = -(-max(width - x, 0) // right), -(-max(height - y, 0) // down)
        row = (columns * BANDS[color] * depth + 7) // 8
        for number in range(lines if columns else 0):
            small = rng.integers(0, 1 + (255 >> number % 3 * 2), row, np.uint8)
            rows.append(bytes([filters[number % len(filters)]]) + small.tobytes())
    data = zlib.compress(b"".join(rows), level)
    palette = chunk(b"PLTE", rng.bytes(3 * min(entries, 1 << depth))) if color == 3 else b""
    parts = [chunk(b"IDAT", data[at : at + idat]) for at in range(0, len(data), idat)]
    start = HEAD + header(height, width, color, depth, interlaced=interlaced)
    return b"".join([start, palette, extra, *parts, chunk(b"IEND", b"")])
