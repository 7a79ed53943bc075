"""Files mapped into memory without a file descriptor for each.

Python's `mmap` keeps a duplicate of the descriptor open for as long as the mapping lives (until 3.13, which can do
without): a dataset of 1,100 shards would end at the usual limit of 1,024 open files. So the mapping is made by the C
library's own function where Python can't. What comes back is like an `mmap`: it has a length, its slices are bytes, and
views of it keep it alive.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import weakref
from functools import lru_cache
from typing import Any

Mapping = Any
"""bytes, an `mmap.mmap`, or an array of ctypes."""


def map_file(descriptor: int, size: int) -> Mapping:
    """The first `size` bytes of an open file, to be read only. The descriptor may be closed. Raises OSError."""
    if not size:
        return b""
    if sys.version_info >= (3, 13):
        return mmap.mmap(descriptor, size, access=mmap.ACCESS_READ, trackfd=False)
    library = _library()
    if library is None:
        return mmap.mmap(descriptor, size, access=mmap.ACCESS_READ)
    address = library.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
    if address == ctypes.c_void_p(-1).value:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    mapping = (ctypes.c_char * size).from_address(address)
    # not at exit: a thread may still read then, and the process gives everything back itself
    weakref.finalize(mapping, library.munmap, address, size).atexit = False
    return mapping


def view_of(mapping: Mapping) -> memoryview:
    """The bytes without a copy. They can't be written to."""
    return memoryview(mapping).toreadonly().cast("B")


def let_go(mapping: Mapping) -> None:
    """Give the pages back that were read, so that they do not count as the process's memory. They can be read again."""
    if isinstance(mapping, mmap.mmap):
        if hasattr(mmap, "MADV_DONTNEED"):
            mapping.madvise(mmap.MADV_DONTNEED)
    elif isinstance(mapping, ctypes.Array):
        library = _library()
        if library is not None and hasattr(mmap, "MADV_DONTNEED"):
            library.madvise(ctypes.addressof(mapping), len(mapping), mmap.MADV_DONTNEED)


@lru_cache(maxsize=1)
def _library() -> Any:
    """The C library; None where there is none of POSIX."""
    if os.name != "posix":
        return None
    library = ctypes.CDLL(None, use_errno=True)
    try:
        library.mmap.restype = ctypes.c_void_p
        library.mmap.argtypes = [
            ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
        ]  # fmt: skip
        library.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        library.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    except AttributeError:
        return None
    return library
