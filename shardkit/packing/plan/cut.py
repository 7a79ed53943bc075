"""Cut a sequence of samples into runs of about equal bytes, within a limit of bytes and one of samples.

Everything works on `ends` (int64, n + 1): ends[i] is the total bytes of the first i samples, and of all before them if
they are not the first of the dataset.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from shardkit.sources.scratch import pieces

Bounds = NDArray[np.int64]

_BISECTIONS = 24  # the largest run is then within max_bytes / 2^24 of the smallest possible


def split_evenly(ends: Bounds, *, max_bytes: int, max_count: int, least: int) -> Bounds:
    """The bounds (int64, runs + 1, from 0 to n) of runs that are never empty and respect both limits.

    Runs differ by about one sample in bytes (by one sample in number if `max_count` decides). There are `least` of
    them, or as few as the limits allow if that is more. A sample over `max_bytes` is a run of its own, and each stretch
    between such samples is cut separately.
    """
    count = len(ends) - 1
    total = int(ends[-1])
    alone = {number for start, sizes in _sizes(ends) for number in (start + np.flatnonzero(sizes > max_bytes)).tolist()}
    edges = sorted({0, count} | alone | {number + 1 for number in alone})  # np.unique would load numpy.ma
    runs = [np.zeros(1, dtype=np.int64)]
    for start, end in pairwise(edges):
        if start in alone:
            runs.append(np.array([end], dtype=np.int64))
            continue
        part = ends[start : end + 1]
        share = -(-least * int(part[-1] - part[0]) // total) if total else 1
        runs.append(_cut(part, max_bytes, max_count, share)[1:] + start)
    return np.concatenate(runs)


def _sizes(ends: Bounds) -> Iterator[tuple[int, Bounds]]:
    """The sizes of the samples in pieces, with the number of the first sample of each piece."""
    return ((start, np.diff(ends[start : end + 1])) for start, end in pieces(len(ends) - 1))


def _cut(ends: Bounds, max_bytes: int, max_count: int, least: int) -> Bounds:
    """`split_evenly` if no sample is over `max_bytes`: the even cut with the fewest runs, or else a tight one."""
    count, total = len(ends) - 1, int(ends[-1] - ends[0])
    lowest = min(count, max(least, -(-total // max_bytes), -(-count // max_count), 1))
    highest = min(count, lowest + max(8, lowest // 4))
    failed, step = lowest - 1, 0
    while failed < highest:
        runs = min(highest, lowest + step)
        if (found := _even(ends, runs, max_bytes, max_count)) is not None:
            return _fewest(ends, failed, runs, found, max_bytes, max_count)
        failed, step = runs, max(1, 2 * step)
    return _tight(ends, max_bytes, max_count)


def _fewest(ends: Bounds, failed: int, runs: int, found: Bounds, max_bytes: int, max_count: int) -> Bounds:
    """An even cut with as few runs as bisection finds between `failed`, which is impossible, and `runs`, which is
    possible."""
    while runs - failed > 1:
        middle = (failed + runs) // 2
        cut = _even(ends, middle, max_bytes, max_count)
        if cut is None:
            failed = middle
        else:
            runs, found = middle, cut
    return found


def _even(ends: Bounds, runs: int, max_bytes: int, max_count: int) -> Bounds | None:
    """`runs` runs even in bytes, or else even in samples; None if neither respects the limits."""
    for bounds in (_even_in_bytes(ends, runs), _even_in_samples(len(ends) - 1, runs)):
        if np.diff(bounds).max() <= max_count and np.diff(ends[bounds]).max() <= max_bytes:
            return bounds
    return None


def _shares(total: int, runs: int) -> Bounds:
    """j · total / runs, rounded down, for j = 0 … runs, with no product beyond int64."""
    whole, rest = divmod(total, runs)
    j = np.arange(runs + 1, dtype=np.int64)
    return j * whole + j * rest // runs


def _even_in_samples(count: int, runs: int) -> Bounds:
    return _shares(count, runs)


def _even_in_bytes(ends: Bounds, runs: int) -> Bounds:
    """Put each bound where the sum of bytes is nearest to its share, and move it where a run would be empty."""
    count = len(ends) - 1
    goals = _shares(int(ends[-1] - ends[0]), runs) + ends[0]
    bounds = np.searchsorted(ends, goals).astype(np.int64)
    before = np.maximum(bounds - 1, 0)
    bounds = np.where(goals - ends[before] < ends[bounds] - goals, before, bounds)
    bounds[0], bounds[-1] = 0, count
    j = np.arange(runs + 1, dtype=np.int64)
    bounds = np.maximum.accumulate(bounds - j) + j
    found: Bounds = np.minimum(bounds, count - runs + j)
    return found


def _tight(ends: Bounds, max_bytes: int, max_count: int) -> Bounds:
    """The cut with the fewest runs possible, and among those the one whose largest run has the fewest bytes.

    Each run takes what fits, and the byte limit is found by bisection. For samples of nearly `max_bytes`, for which an
    even cut would need many more runs.
    """
    best = _greedy(ends, max_bytes, max_count)
    assert best is not None, "no sample is over max_bytes"
    low, high = max(int(sizes.max()) for _, sizes in _sizes(ends)) - 1, max_bytes
    for _ in range(_BISECTIONS):
        middle = (low + high) // 2
        if middle <= low:
            break
        cut = _greedy(ends, middle, max_count, most=len(best) - 1)
        if cut is None:
            low = middle
        else:
            best, high = cut, middle
    return best


def _greedy(ends: Bounds, max_bytes: int, max_count: int, most: int | None = None) -> Bounds | None:
    """Runs that each take what fits; None if that needs more than `most`."""
    count = len(ends) - 1
    bounds = [0]
    while bounds[-1] < count:
        if most is not None and len(bounds) > most:
            return None
        start = bounds[-1]
        fits = int(np.searchsorted(ends, ends[start] + max_bytes, side="right")) - 1
        bounds.append(min(fits, start + max_count, count))
    return np.array(bounds, dtype=np.int64)
