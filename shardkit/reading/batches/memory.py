"""Reuse the memory of batches: fresh pages for each batch cost as much as flipping all of its images.

A lent array comes back when the last array on its memory is gone, wherever that was: a view, or a torch or TensorFlow
tensor on the same bytes. So arrays that a user keeps are never overwritten.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from shardkit.errors import UsageError
from shardkit.units import format_bytes

ALIGNMENT = 64
"""Alignment in bytes. TensorFlow takes over aligned arrays, and copies all others (py_func.cc)."""


_KEPT_BYTES = (32 << 20) - (1 << 16)


def keep_freed_memory() -> None:
    """Make the C library keep up to 64 MiB of freed memory for the next allocation.

    It does so after freeing any large array; otherwise, reading ranges of a store spends as much time on fresh pages as
    on the network. glibc adapts its threshold to the blocks that it unmaps, up to 32 MiB, and keeps smaller ones from
    then on (mallopt(3), M_MMAP_THRESHOLD; "dynamic mmap threshold"). Other C libraries are not affected.
    """
    np.empty(_KEPT_BYTES, np.uint8)


class Memory(Protocol):
    """Where batches are made."""

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Like `numpy.empty`."""


class BufferPool:
    """Lends arrays for batches; at most `kept` returned ones are kept for reuse. Thread safe."""

    def __init__(self, kept: int) -> None:
        self._waiting: deque[NDArray[np.uint8]] = deque(maxlen=kept)

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Like `numpy.empty`, but aligned. UsageError for more than this machine has."""
        kind = np.dtype(dtype)
        nbytes = math.prod(shape) * kind.itemsize
        try:
            memory = self._waiting.popleft()
        except IndexError:
            memory = np.empty(0, np.uint8)
        if memory.size < nbytes + ALIGNMENT:
            try:
                memory = np.empty(nbytes + ALIGNMENT, np.uint8)
            except (MemoryError, ValueError) as exc:  # ValueError: more than addresses reach
                fact = f"a batch of shape {shape} and dtype {kind} needs {format_bytes(nbytes)} of memory at once"
                raise UsageError("batch(size)", fact, "use a smaller batch, or a smaller `size` in decode()") from exc
        start = -memory.ctypes.data % ALIGNMENT
        return np.asarray(_Lease(memory, self._waiting))[start : start + nbytes].view(kind).reshape(shape)


class _Lease:
    """Owns the memory for all arrays on it: NumPy keeps it alive as long as one of them exists."""

    __slots__ = ("_home", "_memory")

    def __init__(self, memory: NDArray[np.uint8], home: deque[NDArray[np.uint8]]) -> None:
        self._memory, self._home = memory, home

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return self._memory.__array_interface__

    def __del__(self) -> None:
        self._home.append(self._memory)
