"""CRC-32C by a C extension that is three times as fast as google_crc32c; without the extension, by google_crc32c, and
without that too, by NumPy, which takes tens of times as long (logged once).

The extension releases the GIL while it computes, so that several threads can run in parallel.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Sequence
from functools import cache, lru_cache, partial
from typing import TYPE_CHECKING, Any, cast

from shardkit.errors import installs
from shardkit.native import load

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Buffer

log = logging.getLogger(__name__)

WINDOW_BYTES = 1 << 20
"""How much of a file is read at once: it stays in the processor's cache between the read and the checksum."""


def extension() -> Any:
    """The C extension, or None if it was not built or this processor lacks the instructions that it needs."""
    return load("checksums")[0]


def crc32c(data: Buffer | NDArray[Any], before: int = 0) -> int:
    """The CRC-32C of `data`, continuing from bytes whose CRC-32C is `before`."""
    native = extension()
    if native is not None:
        found: int = native.crc32c(data, before)
        return found
    return _plain()(before, _taken(data))


def differing(datas: Sequence[Buffer | None], sums: NDArray[np.uint32]) -> list[int]:
    """The indices of `datas` whose CRC-32C differs from the one in `sums`. None entries are skipped."""
    import numpy as np

    native = extension()
    if native is not None:
        found: list[int] = native.differing(datas, np.ascontiguousarray(sums, np.uint32))
        return found
    plain = _plain()
    pairs = enumerate(zip(datas, sums.tolist(), strict=True))
    return [at for at, (data, crc) in pairs if data is not None and plain(0, _taken(data)) != crc]


def crc32c_of_file(file: io.RawIOBase, size: int) -> int | None:
    """The CRC-32C of the next `size` bytes of an unbuffered file; None if it is shorter. Raises OSError."""
    window, crc, left = bytearray(min(WINDOW_BYTES, max(1, size))), 0, size
    with memoryview(window) as view:
        while left > 0:
            count = file.readinto(view[:left])
            if not count:
                return None
            crc = crc32c(view[:count], crc)
            left -= count
    return crc


def _taken(data: Buffer | NDArray[Any]) -> Any:
    """`data` in a form that google_crc32c accepts: bytes or an array."""
    import numpy as np

    return data if isinstance(data, bytes) else np.frombuffer(memoryview(cast("Buffer", data)), np.uint8)


@cache
def _plain() -> Callable[[int, Any], int]:
    """A function of a CRC-32C and more bytes that returns the CRC-32C of both, for use without the C extension."""
    try:
        import google_crc32c
    except ImportError:
        reason = load("checksums")[1]
        log.warning(
            "checksums are computed by NumPy, which is slow: the C extension did not load (%s), and google-crc32c is "
            "not installed; %s", reason, installs("crc32c"),
        )  # fmt: skip
        return crc32c_by_numpy
    extend: Callable[[int, Any], int] = google_crc32c.extend
    return extend


POLYNOMIAL = 0x82F63B78
"""The Castagnoli polynomial, reflected."""


def parts_extension() -> Any:
    """The C extension that checksums the parts of a file in one pass, or None."""
    return load("sums")[0]


def summer(view: NDArray[np.uint8]) -> Callable[[int, int], int]:
    """A function that returns the CRC-32C of the bytes from `start` to `end` of `view`.

    The C extension is three times as fast as google_crc32c, and releases the GIL.
    """
    sums = parts_extension()
    if sums is None:
        return lambda start, end: crc32c(view[start:end])
    return partial(sums.sum_bytes, view)


def joined_crc(crcs: NDArray[Any], lengths: NDArray[Any]) -> int:
    """The CRC-32C of concatenated parts, from each part's CRC-32C and length in bytes; 0 for no parts."""
    import numpy as np

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
    """The effect of appending 2^bit zero bytes on a CRC: shape (4, 256), one row for each byte of the CRC."""
    import numpy as np

    bytes_of = np.arange(256, dtype=np.uint32)
    values = np.stack([bytes_of << np.uint32(8 * place) for place in range(4)])
    if bit:
        before = _table(bit - 1)
        return _shifted(before, _shifted(before, values))
    for _ in range(8):
        values = np.where(values & 1, values >> 1 ^ np.uint32(POLYNOMIAL), values >> 1).astype(np.uint32)
    return values


ROW_BYTES = 256
"""How many bytes `crc32c_by_numpy` takes one after the other, in all rows of a window at once."""

FEWEST_ROWS = 16
"""For fewer rows than this, a loop over the bytes is faster."""


def crc32c_by_numpy(before: int, data: bytes | NDArray[np.uint8]) -> int:
    """The CRC-32C of `data`, continuing from bytes whose CRC-32C is `before`."""
    import numpy as np

    view = np.frombuffer(data, np.uint8)
    for start in range(0, len(view), WINDOW_BYTES):
        before = _crc32c_of_window(before, view[start : start + WINDOW_BYTES])
    return before


def _crc32c_of_window(before: int, view: NDArray[np.uint8]) -> int:
    """Rows of the window side by side, joined with what is before them; then the bytes that are left over."""
    import numpy as np

    count = len(view) // ROW_BYTES
    count = count if count >= FEWEST_ROWS else 0
    if count:
        table, values = _table(0)[0], np.full(count, 0xFFFFFFFF, np.uint32)
        for column in np.ascontiguousarray(view[: count * ROW_BYTES].reshape(count, ROW_BYTES).T):
            values = table[(values ^ column) & 255] ^ values >> 8
        crcs = np.concatenate([np.array([before], np.uint32), ~values])
        before = joined_crc(crcs, np.array([0, *[ROW_BYTES] * count]))
    value, entries = before ^ 0xFFFFFFFF, _entries()
    for byte in view[count * ROW_BYTES :].tolist():
        value = entries[(value ^ byte) & 255] ^ value >> 8
    return value ^ 0xFFFFFFFF


@cache
def _entries() -> list[int]:
    return [int(entry) for entry in _table(0)[0]]
