"""The CRC-32C of a whole from those of its parts, so that no byte is summed twice.

crc(A + B) = shift(crc(A), len(B)) ^ crc(B), and shift is linear over GF(2): `shift` by 2^k bytes is a table of four
times 256 words, made by applying the one before twice. Source: M. Adler, `crc32_combine` in zlib.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

POLYNOMIAL = 0x82F63B78
"""Castagnoli's, reflected."""


LARGE = 1 << 15
"""From how many bytes on it pays to let go of the interpreter: a call of ctypes costs about a microsecond."""


def summer(view: NDArray[np.uint8]) -> Callable[[int, int], int]:
    """A function that gives the CRC-32C of the bytes from `start` to `end` of `view`, which must outlive it.

    google_crc32c holds the interpreter's lock while it sums. The library that it stands on is called directly for
    what is large, where it can be found, so that threads sum at the same time.
    """
    value, extend, base = google_crc32c.value, _unlocked(), int(view.ctypes.data)
    if extend is None:
        return lambda start, end: int(value(view[start:end]))

    def crc(start: int, end: int) -> int:
        if end - start < LARGE:
            return int(value(view[start:end]))
        return int(extend(0, base + start, end - start))

    return crc


@lru_cache(maxsize=1)
def _unlocked() -> Callable[[int, int, int], int] | None:
    """`crc32c_extend(crc, address, count)` of the library that google_crc32c has loaded; None where it is hidden."""
    import ctypes

    try:
        from google_crc32c import _crc32c

        extend = ctypes.CDLL(_crc32c.__file__).crc32c_extend
    except (ImportError, OSError, AttributeError):
        return None
    extend.restype = ctypes.c_uint32
    extend.argtypes = (ctypes.c_uint32, ctypes.c_void_p, ctypes.c_size_t)
    data = np.frombuffer(b"123456789", np.uint8)
    same = extend(0, int(data.ctypes.data), len(data)) == google_crc32c.value(data)
    return extend if same else None


def crc_of(view: NDArray[np.uint8]) -> int:
    """The CRC-32C of the bytes."""
    return summer(view)(0, len(view))


def joined_crc(crcs: NDArray[Any], lengths: NDArray[Any]) -> int:
    """The CRC-32C of parts laid end to end, from each part's CRC-32C and length in bytes; 0 for no parts."""
    if not len(crcs):
        return 0
    total = np.cumsum(lengths, dtype=np.int64)
    after = total[-1] - total
    values = np.array(crcs, np.uint32)
    for bit in range(int(after[0]).bit_length()):
        rows = np.flatnonzero(after >> bit & 1)
        values[rows] = _shifted(_table(bit), values[rows])
    return int(np.bitwise_xor.reduce(values))


def _shifted(table: NDArray[np.uint32], values: NDArray[np.uint32]) -> NDArray[np.uint32]:
    part = table[0][values & 255] ^ table[1][values >> 8 & 255]
    result: NDArray[np.uint32] = part ^ table[2][values >> 16 & 255] ^ table[3][values >> 24]
    return result


@lru_cache(maxsize=64)
def _table(bit: int) -> NDArray[np.uint32]:
    """What 2^bit zero bytes do to a CRC: (4, 256), a row for each of its bytes."""
    bytes_of = np.arange(256, dtype=np.uint32)
    values = np.stack([bytes_of << np.uint32(8 * place) for place in range(4)])
    if bit:
        before = _table(bit - 1)
        return _shifted(before, _shifted(before, values))
    for _ in range(8):
        values = np.where(values & 1, values >> 1 ^ np.uint32(POLYNOMIAL), values >> 1).astype(np.uint32)
    return values
