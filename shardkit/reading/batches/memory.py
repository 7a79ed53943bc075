"""Memory for batches that is used again: fresh pages for each batch cost as much as a flip of all its images.

An array that is lent out comes back when the last array over its memory is gone, wherever that was: a view, a tensor
of torch or TensorFlow over the same bytes. So what a user keeps is never written again.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

ALIGNMENT = 64
"""Bytes. TensorFlow takes over an array that begins at a multiple of it, and copies every other one (py_func.cc)."""


_KEPT_BYTES = (32 << 20) - (1 << 16)


def keep_freed_memory() -> None:
    """Have the C library keep up to 64 MiB of what is freed, for what is allocated next, as it does after any large
    array: reading ranges of a store otherwise spends as much time on fresh pages as on the network.

    glibc learns from the blocks that it unmaps, up to 32 MiB: what is smaller it keeps from then on (mallopt(3),
    M_MMAP_THRESHOLD; "dynamic mmap threshold"). Other libraries are not touched.
    """
    np.empty(_KEPT_BYTES, np.uint8)


class Lender:
    """Arrays of batches, of which at most `kept` that came back wait to be lent again. For any thread."""

    def __init__(self, kept: int) -> None:
        self._waiting: deque[NDArray[np.uint8]] = deque(maxlen=kept)

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """As `numpy.empty`, at an aligned place."""
        kind = np.dtype(dtype)
        nbytes = math.prod(shape) * kind.itemsize
        try:
            memory = self._waiting.popleft()
        except IndexError:
            memory = np.empty(0, np.uint8)
        if memory.size < nbytes + ALIGNMENT:
            memory = np.empty(nbytes + ALIGNMENT, np.uint8)
        start = -memory.ctypes.data % ALIGNMENT
        return np.asarray(_Loan(memory, self._waiting))[start : start + nbytes].view(kind).reshape(shape)


class _Loan:
    """Stands between the memory and all arrays over it: NumPy keeps it as long as one of them is there."""

    __slots__ = ("_home", "_memory")

    def __init__(self, memory: NDArray[np.uint8], home: deque[NDArray[np.uint8]]) -> None:
        self._memory, self._home = memory, home

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return self._memory.__array_interface__

    def __del__(self) -> None:
        self._home.append(self._memory)
