"""Memory-map files without keeping a file descriptor for each.

Before 3.13, Python's `mmap` keeps a duplicate of the descriptor open for as long as the mapping lives: a dataset of
1,100 shards would hit the usual limit of 1,024 open files. There the mapping is made by calling the C library
directly. The result behaves like an `mmap`: it has a length, its slices are bytes, and views keep it alive.
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
"""bytes, an `mmap.mmap`, or a ctypes array."""


def map_file(descriptor: int, size: int, *, writable: bool = False) -> Mapping:
    """Map the first `size` bytes of an open file, read-only. The descriptor may then be closed. Raises OSError.

    writable: what is written stays in this process, and is not in the file.
    """
    if not size:
        return bytearray() if writable else b""
    access = mmap.ACCESS_COPY if writable else mmap.ACCESS_READ
    if sys.version_info >= (3, 13):
        return mmap.mmap(descriptor, size, access=access, trackfd=False)
    library = _library()
    if library is None:
        return mmap.mmap(descriptor, size, access=access)
    protection, kind = mmap.PROT_READ, mmap.MAP_SHARED
    if writable:
        protection, kind = protection | mmap.PROT_WRITE, mmap.MAP_PRIVATE
    address = library.mmap(None, size, protection, kind, descriptor, 0)
    if address == ctypes.c_void_p(-1).value:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    mapping = (ctypes.c_char * size).from_address(address)
    # not at exit: a thread may still be reading, and the process frees everything anyway
    weakref.finalize(mapping, library.munmap, address, size).atexit = False
    return mapping


def view_of(mapping: Mapping) -> memoryview:
    """A read-only view of the bytes, without a copy."""
    return memoryview(mapping).toreadonly().cast("B")


def let_go(mapping: Mapping) -> None:
    """Release the pages that were read, so that they do not count as the process's memory. They can be read again."""
    if isinstance(mapping, mmap.mmap):
        if hasattr(mmap, "MADV_DONTNEED"):
            mapping.madvise(mmap.MADV_DONTNEED)
    elif isinstance(mapping, ctypes.Array):
        library = _library()
        if library is not None and hasattr(mmap, "MADV_DONTNEED"):
            library.madvise(ctypes.addressof(mapping), len(mapping), mmap.MADV_DONTNEED)


@lru_cache(maxsize=1)
def _library() -> Any:
    """The C library; None if the platform is not POSIX."""
    if not hasattr(mmap, "MAP_SHARED"):
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
