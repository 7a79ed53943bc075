"""Sort many places by small numbers or at random, a piece at a time: linear in time, 4 bytes for each place in memory.

NumPy's own sorts take n log n steps and 16 bytes for each of n places, beside the values that are sorted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

PIECE = 1 << 20
"""The places that are handled at a time."""

Places = NDArray[np.integer[Any]]

Keys = Callable[[int, int], NDArray[np.integer[Any]]]
"""`keys(low, high)`: the group of each of the places low … high - 1, from 0 on."""


def pieces(count: int) -> Iterator[tuple[int, int]]:
    """The ranges of at most PIECE places that cover 0 … count - 1."""
    return ((low, min(low + PIECE, count)) for low in range(0, count, PIECE))


def group_sizes(keys: Keys, count: int, groups: int) -> NDArray[np.int64]:
    """How many of `count` places are in each of `groups` groups (int64)."""
    sizes = np.zeros(groups, np.int64)
    for low, high in pieces(count):
        sizes += np.bincount(keys(low, high), minlength=groups)
    return sizes


def group_places(keys: Keys, count: int, groups: int) -> tuple[Places, NDArray[np.int64]]:
    """(the places 0 … count - 1 by group, ascending in each; the bounds of the groups, int64, groups + 1)."""
    sizes = group_sizes(keys, count, groups)
    bounds: NDArray[np.int64] = np.concatenate([[0], np.cumsum(sizes)])
    free = bounds[:-1].copy()
    kind = np.uint16 if groups <= 1 << 16 else np.int64  # NumPy sorts 16 bits by counting
    found = np.empty(count, place_type(count))
    for low, high in pieces(count):
        own = keys(low, high).astype(kind)
        order = np.argsort(own, kind="stable")
        used = np.bincount(own, minlength=groups)
        shifts = free - (np.cumsum(used) - used)
        found[np.repeat(shifts, used) + np.arange(high - low)] = low + order
        free += used
    return found, bounds


def place_type(count: int) -> type[np.integer[Any]]:
    """The type of places below `count`."""
    return np.uint32 if count <= 1 << 32 else np.int64


def in_random_order(places: Places, chance: Callable[[Places], NDArray[np.float64]]) -> Iterator[Places]:
    """The places in the order of `chance`, which is in [0, 1), ties as they were: in parts of at most PIECE or so."""
    if len(places) <= PIECE:
        yield places[np.argsort(chance(places), kind="stable")]
        return
    parts = 2 * -(-len(places) // PIECE)

    def part_of(low: int, high: int) -> NDArray[np.int64]:
        return (chance(places[low:high]) * parts).astype(np.int64)

    numbers, bounds = group_places(part_of, len(places), parts)
    for low, high in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        own = places[numbers[low:high]]
        yield own[np.argsort(chance(own), kind="stable")]


def limits_of(
    places: Places, chance: Callable[[Places], NDArray[np.float64]], numbers: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(the chance, the place) of those that have these numbers in the order of `in_random_order`; infinity for a number
    beyond the last. Linear in time: nothing is sorted."""
    limits, found = np.full(len(numbers), np.inf), np.zeros(len(numbers), np.int64)
    parts = 1 if len(places) <= PIECE else 2 * -(-len(places) // PIECE)

    def part_of(low: int, high: int) -> NDArray[np.int64]:
        return (chance(places[low:high]) * parts).astype(np.int64)

    ends = np.cumsum(group_sizes(part_of, len(places), parts)) if parts > 1 else np.array([len(places)])
    for at, number in enumerate(numbers.tolist()):
        part = int(np.searchsorted(ends, number, side="right"))
        if part == parts:
            continue
        own = places
        if parts > 1:
            own = np.concatenate([places[low:high][part_of(low, high) == part] for low, high in pieces(len(places))])
            number -= int(ends[part]) - len(own)
        values = chance(own)
        limits[at] = limit = np.partition(values, number)[number]
        found[at] = own[np.flatnonzero(values == limit)[number - np.count_nonzero(values < limit)]]
    return limits, found
