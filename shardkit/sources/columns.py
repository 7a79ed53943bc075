"""Columns of paths: n byte strings as one blob and n + 1 offsets, with no Python object for each path."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from shardkit.formats.columns import Strings
from shardkit.native import load
from shardkit.sources.scratch import Growing, read_through, scratch
from shardkit.sources.tree.names import JoinedNames


class PathColumn(msgspec.Struct, frozen=True, eq=False):
    """n paths. `blob` has their concatenated bytes (uint8); path i is `blob[offsets[i]:offsets[i + 1]]` (int64, n + 1).

    A path costs its own bytes and 8 more. Safe to read from several threads.
    """

    blob: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, paths: Iterable[bytes]) -> PathColumn:
        """Build a column from paths."""
        found = list(paths)
        offsets = np.zeros(len(found) + 1, dtype=np.int64)
        np.cumsum(np.fromiter(map(len, found), np.int64, len(found)), out=offsets[1:])
        offsets.flags.writeable = False
        return cls(np.frombuffer(b"".join(found), dtype=np.uint8), offsets)

    @classmethod
    def of_strings(cls, paths: Strings) -> PathColumn:
        """The column of these paths, without a copy."""
        return cls(np.frombuffer(paths.data, np.uint8), np.frombuffer(paths.offsets, np.int64))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> bytes:
        """Path `row`; IndexError unless it is in 0 … n - 1."""
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)} paths")
        return self.blob[self.offsets[row] : self.offsets[row + 1]].tobytes()

    def __iter__(self) -> Iterator[bytes]:
        """Yield the paths in order; only a few thousand are Python objects at once."""
        for start in range(0, len(self), 4096):
            yield from self.take(np.arange(start, min(start + 4096, len(self))))

    def count_ending(self, ending: bytes) -> int:
        """The number of paths that end with `ending`, which is not empty."""
        ends = self.offsets[1:][np.diff(self.offsets) >= len(ending)]
        for place, byte in enumerate(ending):
            ends = ends[self.blob[ends - (len(ending) - place)] == byte]
        return len(ends)

    @property
    def nbytes(self) -> int:
        """The size of the column in memory, in bytes."""
        return self.blob.nbytes + self.offsets.nbytes

    def at(self, rows: Sequence[int] | NDArray[np.integer]) -> Strings:
        """The paths of some rows, in the order of `rows`; IndexError if one is not in 0 … n - 1."""
        index = np.asarray(rows, dtype=np.int64)
        if index.size and (index.min() < 0 or index.max() >= len(self)):
            raise IndexError(f"rows {index.min()} … {index.max()} of {len(self)} paths")
        native = load("tree")[0]
        if native is not None:
            return Strings(*native.take(self.blob, self.offsets, np.ascontiguousarray(index)))
        starts, ends = self.offsets[index].tolist(), self.offsets[index + 1].tolist()
        view = self.blob.data
        return Strings.of(bytes(view[start:end]) for start, end in zip(starts, ends, strict=True))

    def take(self, rows: Sequence[int] | NDArray[np.integer]) -> list[bytes]:
        """As `at`, as a list."""
        return list(self.at(rows))


class PathColumnBuilder:
    """Build a PathColumn folder by folder; until `build`, each path costs its own bytes and 4 more."""

    def __init__(self) -> None:
        self._blob = Growing("B")
        self._lengths = Growing("i")

    def __len__(self) -> int:
        return len(self._lengths)

    def append(self, path: bytes) -> None:
        """Add a path."""
        self._blob.frombytes(path)
        self._lengths.append(len(path))

    def extend_bytes(self, paths: Sequence[bytes]) -> None:
        """Add paths."""
        self._blob.frombytes(b"".join(paths))
        self._lengths.extend(map(len, paths))

    def extend_joined(self, joined: bytes, lengths: bytes) -> None:
        """Add paths that follow each other without anything between. lengths: of each, as native int32."""
        self._blob.frombytes(joined)
        self._lengths.frombytes(lengths)

    def extend(self, prefix: str, names: Sequence[str]) -> None:
        """Add the paths `prefix + name`, as text in the form of `os.fsdecode`."""
        if not names:
            return
        if isinstance(names, JoinedNames):
            self._extend_names(os.fsencode(prefix), os.fsencode(names.joined))
            return
        joined = prefix + prefix.join(names)
        self._blob.frombytes(os.fsencode(joined))
        if joined.isascii():
            self._lengths.extend([len(name) + len(prefix) for name in names])
        else:
            extra = len(os.fsencode(prefix))
            self._lengths.extend([len(os.fsencode(name)) + extra for name in names])

    def _extend_names(self, prefix: bytes, joined: bytes) -> None:
        """Add the paths of names that are each followed by a slash."""
        ends = np.flatnonzero(np.frombuffer(joined, np.uint8) == ord("/"))
        lengths = np.diff(ends, prepend=-1) + (len(prefix) - 1)
        self.extend_joined(prefix + joined[:-1].replace(b"/", prefix), lengths.astype(np.int32).tobytes())

    def build(self) -> PathColumn:
        """Return the column; the builder must not be used afterwards."""
        lengths = self._lengths.build()
        return PathColumn(self._blob.build(), offsets_of(len(lengths), read_through(lengths)))


def offsets_of(count: int, lengths: Iterable[NDArray[np.integer]]) -> NDArray[np.int64]:
    """The `count` + 1 offsets of values with these lengths, given in pieces (int64, read-only)."""
    offsets = scratch(count + 1, np.int64)
    offsets[0] = done = 0
    for piece in lengths:
        end = done + len(piece)
        np.cumsum(piece, dtype=np.int64, out=offsets[done + 1 : end + 1])
        offsets[done + 1 : end + 1] += offsets[done]
        done = end
    offsets.flags.writeable = False
    return offsets
