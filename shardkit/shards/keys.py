"""Find keys that occur more than once in a dataset, by hashes of 8 bytes, so that few keys are compared.

Beyond SPOOLED_BYTES, the hashes are in temporary files (TMPDIR): memory does not grow with the dataset.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from shardkit.errors import DatasetError
from shardkit.location import Location
from shardkit.storage.files import translated

Hashes = NDArray[np.int64]

SPOOLED_BYTES = 64 << 20
"""Hashes of up to this many bytes are kept in memory."""

PARTS = 64
"""Larger numbers of hashes are sorted in so many parts."""

_HASH_BYTES = 8

ShardKeys = tuple[Location, Sequence[str], Hashes]
"""The place of a shard, its keys, and their offsets, which may be -1."""


class KeyHashes:
    """The hashes of the keys of some shards, in order. StorageError if the disk for temporary files is full."""

    def __init__(self) -> None:
        self._file = _spool()
        weakref.finalize(self, self._file.close)
        self._ends = [0]

    def add(self, hashes: Hashes) -> None:
        """Add those of the next shard."""
        with translated(tempfile.gettempdir()):
            self._file.write(np.ascontiguousarray(hashes, np.int64).tobytes())
        self._ends.append(self._ends[-1] + len(hashes))

    def __len__(self) -> int:
        return self._ends[-1]

    def repeats(self) -> Hashes:
        """The hashes, sorted, that occur more than once: those of keys that may be equal."""
        if _HASH_BYTES * len(self) <= SPOOLED_BYTES:
            return _repeats_in(self._read(0, len(self)))
        with ExitStack() as stack:
            files = [stack.enter_context(_spool(PARTS)) for _ in range(PARTS)]
            return self._repeats_by_part(files)

    def _repeats_by_part(self, files: Sequence[BinaryIO]) -> Hashes:
        step = SPOOLED_BYTES // _HASH_BYTES
        for low in range(0, len(self), step):
            hashes = self._read(low, min(low + step, len(self)))
            part_of = (hashes.view(np.uint64) % np.uint64(len(files))).astype(np.uint8)
            ordered = hashes[np.argsort(part_of, kind="stable")]
            bounds = np.cumsum([0, *np.bincount(part_of, minlength=len(files))]).tolist()
            with translated(tempfile.gettempdir()):
                for file, first, end in zip(files, bounds[:-1], bounds[1:], strict=True):
                    file.write(ordered[first:end].tobytes())
        found = []
        for file in files:
            file.seek(0)
            found.append(_repeats_in(np.frombuffer(file.read(), np.int64)))
        return np.sort(np.concatenate(found))

    def shards_with(self, hashes: Hashes) -> Iterator[tuple[int, list[int]]]:
        """(number, rows) of each shard with some of these hashes."""
        for number, (low, end) in enumerate(zip(self._ends[:-1], self._ends[1:], strict=True)):
            rows = np.flatnonzero(np.isin(self._read(low, end), hashes)).tolist()
            if rows:
                yield number, rows

    def _read(self, low: int, high: int) -> Hashes:
        self._file.seek(low * _HASH_BYTES)
        found = np.frombuffer(self._file.read((high - low) * _HASH_BYTES), np.int64)
        self._file.seek(0, 2)
        return found


def _spool(parts: int = 1) -> BinaryIO:
    return cast(BinaryIO, tempfile.SpooledTemporaryFile(SPOOLED_BYTES // parts))  # freed with its owner


def _repeats_in(hashes: Hashes) -> Hashes:
    ordered = np.sort(hashes)
    return np.unique(ordered[1:][ordered[1:] == ordered[:-1]])


def hashes_of(keys: Iterable[str], count: int) -> Hashes:
    """The hashes of keys, valid in this process only."""
    return np.fromiter(map(hash, keys), np.int64, count)


def require_unique(shards: Sequence[ShardKeys]) -> None:
    """DatasetError for the first key that an earlier sample has."""
    hashes = KeyHashes()
    for _, keys, _ in shards:
        hashes.add(hashes_of(keys, len(keys)))
    require_unique_hashes(hashes, shards.__getitem__)


def require_unique_hashes(hashes: KeyHashes, shard: Callable[[int], ShardKeys]) -> None:
    """The same for shards whose hashes are known, and whose keys are read if some may be equal."""
    suspects = hashes.repeats()
    if not len(suspects):
        return
    first: dict[str, Location] = {}
    for number, rows in hashes.shards_with(suspects):
        place, keys, offsets = shard(number)
        for row in rows:
            key, offset = keys[row], int(offsets[row])
            if key in first:
                fact = f"the key is already in {first[key].name}, but keys must be unique"
                cure = "give one of them another key with 'shardkit repair'"
                raise DatasetError(str(place), fact, cure, offset if offset >= 0 else None, key)
            first[key] = place
