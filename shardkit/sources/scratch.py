"""Columns that may be larger than memory: above SCRATCH_BYTES, they are in a temporary file that is mapped.

The file has no name, so the kernel frees it when its column is dropped or the process ends, however that happens. Its
room is reserved before it is mapped: writing to a mapped file on a full disk would kill the process.
"""

from __future__ import annotations

import errno
import mmap
import os
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from shardkit.errors import StorageError
from shardkit.sample import fs_text
from shardkit.system import write_at

if TYPE_CHECKING:
    from typing_extensions import Buffer

Number = TypeVar("Number", bound=np.generic)

SCRATCH_BYTES = 256 << 20
"""The largest column that is in memory. A plan has about ten, so that it takes at most 2.5 GiB."""

PIECE = 1 << 20
"""The values that are worked on at once."""

BUCKET = 1 << 18
"""The rows that are sorted at once, or twice as many: what fits into a processor's cache."""

_WRITTEN_BYTES = 16 << 20
"""What is collected in memory before it is written, once a column is in a file."""

_VARIABLES = ("TMPDIR", "TEMP", "TMP")


def pieces(count: int, size: int = 0) -> Iterator[tuple[int, int]]:
    """The (start, end) of runs of `size` values (0: PIECE) of `count`, the last one shorter."""
    step = size or PIECE
    for start in range(0, count, step):
        yield start, min(start + step, count)


def scratch(count: int, dtype: type[Number] | np.dtype[Number]) -> NDArray[Number]:
    """A writable column of `count` values, all 0 or undefined. StorageError if there is no room on the disk."""
    kind = np.dtype(dtype)
    size = count * kind.itemsize
    if size <= SCRATCH_BYTES:
        return np.empty(count, kind)
    with _temporary(size) as file:
        _reserve(file.fileno(), size)
        return _mapped(file, kind)


def release(*columns: NDArray[Any]) -> None:
    """Take columns out of this process's memory; what is in a file is read from there when it is used again."""
    for column in columns:
        mapped = _mapping_of(column)
        if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)  # of a shared mapping: what was written stays in the file


def read_through(column: NDArray[Number]) -> Iterator[NDArray[Number]]:
    """The column in pieces, in order; each is taken out of memory after its use if it is in a file."""
    step = max(1, _WRITTEN_BYTES // max(1, column.itemsize))
    for start, end in pieces(len(column), step):
        yield column[start:end]
        release(column)


def sort_rows(
    order: NDArray[np.integer],
    keys: Callable[[NDArray[np.integer]], NDArray[np.uint64]],
    values: Callable[[int, int], NDArray[Number]],
    permuted: NDArray[Number],
) -> None:
    """Fill `order` with the rows 0 … n-1 by their keys, equal ones ascending, and `permuted` with their values.

    keys: returns the keys of some rows (uint64), which should be spread evenly, such as random bits or digests. values:
    returns the values of the rows from `start` up to `end`; it is called for consecutive runs. Rows are distributed to
    buckets by the first bits of their keys, then each bucket is sorted, which takes about 60 MB besides the columns.
    """
    width = (len(order) // BUCKET).bit_length()
    if not width:
        order[:] = _by_key(keys(np.arange(len(order))))
        permuted[:] = values(0, len(order))[order]
        return
    start = 0
    for end in _distribute(order, keys, values, permuted, width).tolist():
        inside = order[start:end].copy()
        by = _by_key(keys(inside))
        order[start:end] = inside[by]
        permuted[start:end] = permuted[start:end][by]
        start = end


def _by_key(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The places in the order of their keys, equal ones ascending."""
    by = np.argsort(keys)  # in a fifth of the time of a stable sort, which matters for equal keys only
    ordered = keys[by]
    return np.argsort(keys, kind="stable") if (ordered[1:] == ordered[:-1]).any() else by


def _distribute(
    order: NDArray[np.integer],
    keys: Callable[[NDArray[np.integer]], NDArray[np.uint64]],
    values: Callable[[int, int], NDArray[Number]],
    permuted: NDArray[Number],
    width: int,
) -> NDArray[np.int64]:
    """`sort_rows` by the first `width` bits alone. Returns the end of each bucket."""
    buckets, shift = 1 << width, np.uint64(64 - width)

    def bucket(start: int, end: int) -> NDArray[np.uint16]:
        return (keys(np.arange(start, end)) >> shift).astype(np.uint16)

    sizes = np.zeros(buckets, np.int64)
    for start, end in pieces(len(order)):
        sizes += np.bincount(bucket(start, end), minlength=buckets)
    ends = np.cumsum(sizes)
    free = ends - sizes
    for start, end in pieces(len(order)):
        here = bucket(start, end)
        by = np.argsort(here, kind="stable")
        filled = np.bincount(here, minlength=buckets)
        places = (free - np.cumsum(filled) + filled)[here[by]]
        places += np.arange(end - start)
        free += filled
        order[places] = by + start
        permuted[places] = values(start, end)[by]
        release(order, permuted)
    return ends


class Growing:
    """A column to which values are appended. typecode: of an `array.array`."""

    def __init__(self, typecode: str) -> None:
        self._values = array(typecode)
        self._file: IO[bytes] | None = None
        self._written = 0

    def __del__(self) -> None:
        if self._file is not None:
            self._file.close()

    def __len__(self) -> int:
        return self._written // self._values.itemsize + len(self._values)

    def extend(self, values: Iterable[int]) -> None:
        """Append numbers."""
        self._values.extend(values)
        self._spill()

    def frombytes(self, data: Buffer) -> None:
        """Append values as the bytes that they have in memory."""
        self._values.frombytes(data)
        self._spill()

    def append(self, value: int) -> None:
        """Append a number."""
        self._values.append(value)
        self._spill()

    def build(self) -> NDArray[Any]:
        """The column, read-only. Nothing must be appended afterwards."""
        kind = np.dtype(self._values.typecode)
        if self._file is None:
            found = np.frombuffer(self._values, kind)
        else:
            self._write()
            with _room(self._written):
                self._file.flush()
            found = _mapped(self._file, kind)
            self._file.close()
        found.flags.writeable = False
        return found

    def _spill(self) -> None:
        held = len(self._values) * self._values.itemsize
        if held > (SCRATCH_BYTES if self._file is None else min(SCRATCH_BYTES, _WRITTEN_BYTES)):
            self._write()

    def _write(self) -> None:
        size = len(self._values) * self._values.itemsize
        if self._file is None:
            self._file = _temporary(size)
        with _room(self._written + size):
            self._file.write(self._values)
        self._written += size
        del self._values[:]


def _temporary(size: int) -> IO[bytes]:
    """A file without a name, for `size` bytes and perhaps more."""
    import tempfile

    with _room(size):
        return tempfile.TemporaryFile(dir=_folder())


def _folder() -> str:
    """The folder of temporary files: the user's choice, or one that is on a disk where /tmp may be in memory."""
    import tempfile

    named = next((os.environ[name] for name in _VARIABLES if os.environ.get(name)), None)
    if named is not None:
        return named
    if os.access("/var/tmp", os.W_OK):
        return "/var/tmp"
    try:
        return tempfile.gettempdir()
    except FileNotFoundError:  # there is none that can be written to: making a file there says so
        return os.path.abspath(os.sep + "tmp")


@contextmanager
def _room(size: int) -> Iterator[None]:
    """StorageError if a temporary file of `size` bytes can't be made within the block."""
    try:
        yield
    except OSError as exc:
        fact = f"a temporary file of {size:,} bytes can't be written there ({exc.strerror or exc})"
        cure = "set TMPDIR to a folder on a disk with more room"
        raise StorageError(fs_text(_folder()), fact, cure) from exc


def _reserve(descriptor: int, size: int) -> None:
    """Give a new file its size, with room for all of it on the disk."""
    with _room(size):
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(descriptor, 0, size)
                return
            except OSError as exc:
                if exc.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                    raise
        zeros, done = bytes(_WRITTEN_BYTES), 0
        while done < size:
            done += write_at(descriptor, memoryview(zeros)[: size - done], done)


def _mapped(file: IO[bytes], kind: np.dtype[Number]) -> NDArray[Number]:
    return np.frombuffer(mmap.mmap(file.fileno(), 0), kind)


def _mapping_of(column: Any) -> mmap.mmap | None:
    """The mapped file that a column is in, if it is in one."""
    while column is not None and not isinstance(column, mmap.mmap):
        column = column.obj if isinstance(column, memoryview) else getattr(column, "base", None)
    return column
