"""Find the rows of a source by path, and keys that are still free, in 16 bytes per row, of a file if there are many."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from shardkit.sources.columns import PathColumn
from shardkit.sources.scratch import pieces, release, scratch, sort_rows
from shardkit.sources.source import Source

Rows = NDArray[np.int64]

_PIECE = 4096


class _Hashed:
    """Positions by hash: the sorted hashes, and the position of each. Hashes are valid in this process only.

    values: consecutive runs of `count` values.
    """

    def __init__(self, values: Iterable[Sequence[bytes | str]], count: int) -> None:
        found, done = scratch(count, np.uint64), 0
        for some in values:
            found[done : done + len(some)] = _hashes(some)
            done += len(some)
        self.places, self.hashes = scratch(count, np.int64), scratch(count, np.uint64)
        sort_rows(self.places, lambda rows: found[rows], lambda start, end: found[start:end], self.hashes)

    def candidates(self, values: Sequence[bytes | str]) -> tuple[Rows, Rows]:
        """For each value, the start and end of the run of `places` that have its hash."""
        hashes = _hashes(values)
        release(self.places, self.hashes)
        return np.searchsorted(self.hashes, hashes, "left"), np.searchsorted(self.hashes, hashes, "right")


def _hashes(values: Sequence[bytes | str]) -> NDArray[np.uint64]:
    return np.fromiter(map(hash, values), np.int64, len(values)).view(np.uint64)


class RowsByPath:
    """The rows of a column of distinct paths."""

    def __init__(self, paths: PathColumn) -> None:
        self.paths = paths
        runs = pieces(len(paths), _PIECE)
        self.hashed = _Hashed((paths.take(np.arange(start, end)) for start, end in runs), len(paths))

    def find(self, paths: Sequence[bytes]) -> Rows:
        """The row of each path, -1 for none (int64)."""
        first, end = self.hashed.candidates(paths)
        rows = np.full(len(paths), -1, np.int64)
        hit = np.flatnonzero(end > first)
        rows[hit] = self.hashed.places[first[hit]]
        for place, found in zip(hit.tolist(), self.paths.take(rows[hit]), strict=True):
            if found != paths[place]:  # two paths with one hash of 64 bits
                run = self.hashed.places[first[place] : end[place]].tolist()
                rows[place] = next((row for row in run if self.paths[row] == paths[place]), -1)
        return rows


def free_keys(source: Source, rows: Rows, taken: Callable[[], Iterable[Sequence[str]]]) -> dict[int, str]:
    """Position in `rows` -> new key, for rows whose key is taken: the first of `-2`, `-3` … that is free is appended.

    taken: yields all keys that are taken, in batches, each time it is called.
    """
    if not len(rows):
        return {}
    hashed = _Hashed(_keys(source, rows), len(rows))

    def own(keys: Sequence[str]) -> Iterator[tuple[int, str]]:
        """(place, key) of the rows that have one of the keys."""
        first, end = hashed.candidates(keys)
        for hit in np.flatnonzero(end > first).tolist():
            for place in hashed.places[first[hit] : end[hit]].tolist():
                if source.key(int(rows[place])) == keys[hit]:
                    yield place, keys[hit]

    clashes = {place: key for keys in taken() for place, key in own(keys)}
    found: dict[int, str] = {}
    numbers = dict.fromkeys(clashes, 2)
    while numbers:
        wanted: dict[str, int] = {}
        for place, number in sorted(numbers.items()):
            key = f"{clashes[place]}-{number}"
            if key not in wanted and key not in found.values():
                wanted[key] = place
        bad = {key for _, key in own(list(wanted))}
        bad.update(key for keys in taken() for key in wanted.keys() & set(keys))
        found.update((place, key) for key, place in wanted.items() if key not in bad)
        numbers = {place: number + 1 for place, number in numbers.items() if place not in found}
    return dict(sorted(found.items()))


def _keys(source: Source, rows: Rows) -> Iterator[list[str]]:
    for start, end in pieces(len(rows), _PIECE):
        yield source.keys(rows[start:end])
