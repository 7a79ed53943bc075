"""Images that look alike: perceptual hashes that differ in few bits, and a finer comparison of the candidates.

`near_pairs` finds the candidates among any number of hashes: the C extension `near`, and NumPy without it, with the
same rule. `likeness` then compares their grids (quality.py) as pictures, over small shifts and changes of size,
so that a cropped copy is told from another image with a similar hash.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shardkit.images.quality.quality import GRID, HASH_BITS
from shardkit.native import load

Hashes = NDArray[np.uint64]
Pairs = NDArray[np.int64]
"""Rows of pairs, shape (n, 2)."""

CHUNKS, FLIPS = 4, 2
"""A hash is so many chunks. Pairs are found that differ in at most FLIPS bits in some chunk: all pairs that differ in
up to CHUNKS * (FLIPS + 1) - 1 = 11 bits, and most of those that differ in some more."""

MOST_BITS = 15
"""The most bits in which candidates differ. At most 1 image of 20 that was cropped by 5 % differs in more."""

BY_CHANCE = 250_000
"""The most pairs of candidates that random hashes would give; with many images, candidates have to be nearer."""

MOST_PAIRS = 1 << 26
"""More pairs than these are not looked for."""

_PIECE = 1 << 22


def candidate_bits(first: int, second: int | None = None) -> int:
    """The bits in which candidates may differ, among `first` images or between two sets of images."""
    pairs = first * (first - 1) // 2 if second is None else first * second
    below = 0
    for bits in range(MOST_BITS + 1):
        below += comb(HASH_BITS, bits)
        if pairs * below > BY_CHANCE << HASH_BITS:
            return bits - 1
    return MOST_BITS


def near_pairs(first: Hashes, second: Hashes | None = None, *, bits: int) -> Pairs:
    """Pairs of rows whose hashes differ in at most `bits`, sorted. second: None to compare `first` with itself.

    Of rows with equal hashes in one array, the first stands for all: each other one is paired with it (within `first`),
    and only it is compared with others. In `first`, with a `second`, each of them is paired. ValueError for more than
    MOST_PAIRS pairs.
    """
    ours, at, back = np.unique(first, return_index=True, return_inverse=True)
    if second is None:
        found = at[_search(ours, None, bits)]
        rows = np.arange(len(first))
        again = np.stack([at[back.reshape(-1)], rows], 1)
        found = np.concatenate([np.sort(found, axis=1), again[again[:, 0] != rows]])
    else:
        theirs, there = np.unique(second, return_index=True)
        found = _search(ours, theirs, bits)
        common, mine, other = np.intersect1d(ours, theirs, return_indices=True)
        del common
        found = np.unique(np.concatenate([found, np.stack([mine, other], 1)]), axis=0)
        found = _for_all(found, back.reshape(-1), len(ours))
        found[:, 1] = there[found[:, 1]]
    return found[np.lexsort(found.T[::-1])].astype(np.int64)


def _for_all(found: Pairs, of_row: Any, count: int) -> Pairs:
    """The pairs with each row of the first array in the place of its hash. of_row: the number of each row's hash."""
    order = np.argsort(of_row, kind="stable")
    starts = np.searchsorted(of_row[order], np.arange(count + 1))
    times = np.diff(starts)[found[:, 0]]
    within = np.arange(times.sum()) - np.repeat(np.cumsum(times) - times, times)
    rows = order[np.repeat(starts[:-1][found[:, 0]], times) + within]
    return np.stack([rows, np.repeat(found[:, 1], times)], 1)


def bits_of(values: Any) -> NDArray[np.uint8]:
    """The number of ones in each of some unsigned integers."""
    if hasattr(np, "bitwise_count"):  # since NumPy 2.0
        counts: NDArray[np.uint8] = np.bitwise_count(values)
        return counts
    octets = np.ascontiguousarray(values).view(np.uint8).reshape(*values.shape, -1)
    return np.asarray(_ONES[octets].sum(-1), np.uint8)


_ONES = np.array([value.bit_count() for value in range(256)], np.uint8)


def _search(first: Hashes, second: Hashes | None, bits: int) -> Pairs:
    module = load("near")[0]
    if module is None:
        return plain_search(first, second, bits)
    found = module.pairs(np.ascontiguousarray(first), None if second is None else np.ascontiguousarray(second), bits,
                         MOST_PAIRS)  # fmt: skip
    if found is None:
        raise ValueError(f"more than {MOST_PAIRS:,} pairs")
    return np.frombuffer(found, np.int32).reshape(-1, 2).astype(np.int64)


def plain_search(first: Hashes, second: Hashes | None, bits: int) -> Pairs:
    """As the C extension, in NumPy."""
    width = HASH_BITS // CHUNKS
    flips = [0, *(sum(1 << bit for bit in some) for n in range(1, FLIPS + 1) for some in combinations(range(width), n))]
    parts, total = [np.zeros((0, 2), np.int64)], 0
    others = first if second is None else second
    for chunk in range(CHUNKS):
        order = np.argsort(_chunk(others, chunk), kind="stable")
        starts = np.searchsorted(_chunk(others, chunk)[order], np.arange((1 << width) + 1))
        for flip in flips:
            for rows, near in _beside(_chunk(first, chunk) ^ flip, starts):
                pairs = np.stack([rows, order[near]], 1)
                difference = first[pairs[:, 0]] ^ others[pairs[:, 1]]
                wanted = bits_of(difference) <= bits
                for known in range(chunk):
                    wanted &= bits_of(_chunk(difference, known)) > FLIPS
                if second is None:
                    wanted &= pairs[:, 0] < pairs[:, 1]
                parts.append(pairs[wanted])
                total += len(parts[-1])
                if total > MOST_PAIRS:
                    raise ValueError(f"more than {MOST_PAIRS:,} pairs")
    return np.concatenate(parts)


def _chunk(hashes: Hashes, chunk: int) -> Any:
    width = HASH_BITS // CHUNKS
    return (hashes >> np.uint64(chunk * width) & np.uint64((1 << width) - 1)).astype(np.int64)


def _beside(values: Any, starts: Any) -> Iterator[tuple[Any, Any]]:
    """(rows of `values`, places in the sorted others that have this value), some at a time."""
    counts = starts[values + 1] - starts[values]
    ends = np.cumsum(counts)
    row = 0
    while row < len(values):
        before = ends[row - 1] if row else 0
        end = max(row + 1, int(np.searchsorted(ends, before + _PIECE, side="right")))
        times = counts[row:end]
        rows = np.repeat(np.arange(row, end), times)
        within = np.arange(times.sum()) - np.repeat(np.cumsum(times) - times, times)
        yield rows, starts[values[rows]] + within
        row = end


ALIKE = 0.9
"""The least likeness of two pictures of the same image."""

_STEPS = 8
_MOST_SHIFT, _MOST_SCALE = 0.12, 0.15


def likeness(first: Any, second: Any) -> NDArray[np.float64]:
    """How alike grids are, each (n, GRID, GRID): the correlation of their cells, 1 for equal ones, after the second was
    shifted and stretched to fit the first best. Brightness and contrast do not matter. Shape (n,).

    By Gauss-Newton steps over two shifts and two scales (Lucas and Kanade 1981; Baker and Matthews 2004).
    """
    fixed, moving = (np.asarray(each, np.float64).reshape(-1, GRID, GRID) for each in (first, second))
    count = len(fixed)
    where = np.zeros((count, 4))  # shift and stretch of rows, then of columns, in halves of a side
    best = _correlation(fixed, moving, np.ones((count, GRID, GRID), np.bool_))
    for _ in range(_STEPS):
        warped, inside, slopes = _warped(moving, where)
        best = np.maximum(best, np.where(_is_small(where), _correlation(fixed, warped, inside), -1))
        where = where + _step(fixed, warped, inside, slopes)
    return np.asarray(best, np.float64)


def _is_small(where: Any) -> Any:
    return (np.abs(where[:, ::2]) <= _MOST_SHIFT).all(1) & (np.abs(where[:, 1::2]) <= _MOST_SCALE).all(1)


_AXIS = (2 * np.arange(GRID) + 1 - GRID) / GRID
"""The cells' middles, from -1 to 1."""


def _warped(pictures: Any, where: Any) -> tuple[Any, Any, Any]:
    """(the pictures at their shifted places, which cells are inside, their slopes in rows and columns there)."""
    rows = _AXIS + where[:, :1] + where[:, 1:2] * _AXIS
    columns = _AXIS + where[:, 2:3] + where[:, 3:] * _AXIS
    at_row, in_row = _weights(rows)
    at_column, in_column = _weights(columns)
    warped = at_row @ pictures @ at_column.transpose(0, 2, 1)
    down = at_row @ np.gradient(pictures, axis=1) @ at_column.transpose(0, 2, 1) * (GRID / 2)
    across = at_row @ np.gradient(pictures, axis=2) @ at_column.transpose(0, 2, 1) * (GRID / 2)
    return warped, in_row[:, :, None] & in_column[:, None, :], (down, across)


def _weights(places: Any) -> tuple[Any, Any]:
    """(a matrix for each picture that interpolates its cells at these places, which places are inside)."""
    cells = (places * GRID + GRID - 1) / 2
    inside = (cells >= -0.5) & (cells <= GRID - 0.5)
    distance = np.abs(cells.clip(0, GRID - 1)[:, :, None] - np.arange(GRID))
    return np.maximum(1 - distance, 0), inside


def _normal(pictures: Any, inside: Any) -> Any:
    """The pictures with mean 0 and length 1 over the cells inside."""
    number = np.maximum(inside.sum((1, 2)), 1)[:, None, None]
    found = np.where(inside, pictures - (pictures * inside).sum((1, 2))[:, None, None] / number, 0)
    length = np.sqrt((found * found).sum((1, 2)))[:, None, None]
    return found / np.maximum(length, 1e-9), length


def _correlation(fixed: Any, moving: Any, inside: Any) -> Any:
    return (_normal(fixed, inside)[0] * _normal(moving, inside)[0]).sum((1, 2))


def _step(fixed: Any, warped: Any, inside: Any, slopes: Any) -> Any:
    """The change of shifts and stretches that brings the warped pictures nearest to the fixed ones."""
    target, _ = _normal(fixed, inside)
    now, length = _normal(warped, inside)
    down, across = (np.where(inside, each, 0) / np.maximum(length, 1e-9) for each in slopes)
    bases = np.stack([down, down * _AXIS[:, None], across, across * _AXIS], 1).reshape(len(fixed), 4, GRID * GRID)
    bases = bases - bases.mean(2, keepdims=True)
    squares = bases @ bases.transpose(0, 2, 1) + 1e-6 * np.eye(4)
    wanted = bases @ (target - now).reshape(len(fixed), GRID * GRID, 1)
    return np.linalg.solve(squares, wanted)[:, :, 0].clip(-0.05, 0.05)
