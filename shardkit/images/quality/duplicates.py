"""The rule of near-duplicates: which of some images look alike, for reports and for splits.

Candidates are images whose perceptual hashes differ in few bits; each is then confirmed by comparing both images. What
the rule says of two images does not depend on the order in which images are given: they are compared in the order of
their hashes and fingerprints. Equal files are not near-duplicates of each other: the first stands for all.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from shardkit.images.quality.near import ALIKE, MOST_PAIRS, Pairs, bits_of, candidate_bits, likeness, near_pairs

log = logging.getLogger(__name__)

Rows = NDArray[np.int64]
Grids = Callable[[Rows], NDArray[np.uint16]]
"""The grids of some rows' images (quality.py), shape (n, GRID, GRID); zeros for one that can't be read."""

MOST_CONFIRMED = 100_000
"""Candidates that are compared as pictures, the nearest first."""

BRIGHTNESS_APART = 0.1
"""Candidates whose brightness differs by more are not compared."""

PLAIN = 1.0
"""An image with less entropy (bits) shows too little to have near-duplicates."""

_TOGETHER = 512


class Looks(msgspec.Struct, frozen=True, eq=False):
    """What is known of some images, a row each.

    prints: equal for equal files, and 0 where that is not known (uint64). hashes: uint64. brightness, entropy: NaN for
    an image that can't be decoded. See quality.py.
    """

    prints: NDArray[np.uint64]
    hashes: NDArray[np.uint64]
    brightness: NDArray[Any]
    entropy: NDArray[Any]

    def __len__(self) -> int:
        return len(self.prints)

    def at(self, rows: Rows) -> Looks:
        """Those of some rows."""
        return Looks(self.prints[rows], self.hashes[rows], self.brightness[rows], self.entropy[rows])

    def compared(self) -> Rows:
        """The rows of images that show something, the first of equal files, by hash and fingerprint."""
        shows = np.flatnonzero(self.entropy >= PLAIN)  # NaN is not
        rows: Rows = shows[np.lexsort((self.prints[shows], self.hashes[shows]))]
        prints = self.prints[rows]
        again = (prints[1:] == prints[:-1]) & (prints[1:] != 0)
        found: Rows = rows[np.append(np.ones(min(1, len(rows)), np.bool_), ~again)]
        return found


class Candidates(msgspec.Struct, frozen=True, eq=False):
    """Pairs of rows that may look alike.

    near: all whose hashes differ in few bits. pairs: those of them to compare, the nearest first, at most
    MOST_CONFIRMED. count: those that there would be to compare without this limit.
    """

    near: Pairs
    pairs: Pairs
    count: int


def candidates_within(images: Looks) -> Candidates:
    """The candidates among some images."""
    rows = images.compared()
    return _candidates(images, images, rows[_near(images.hashes[rows], None)])


def candidates_between(first: Looks, second: Looks) -> Candidates:
    """The candidates for which an image of `first` looks like one of `second`, without images that are in both."""
    ours, theirs = first.compared(), second.compared()
    prints = first.prints[ours]
    ours = ours[~np.isin(prints, second.prints) | (prints == 0)]
    found = _near(first.hashes[ours], second.hashes[theirs])
    return _candidates(first, second, np.stack([ours[found[:, 0]], theirs[found[:, 1]]], 1))


def _near(first: NDArray[np.uint64], second: NDArray[np.uint64] | None) -> Pairs:
    """Pairs of near hashes; of very many, those that are nearer."""
    bits = candidate_bits(len(first), None if second is None else len(second))
    while True:
        try:
            return near_pairs(first, second, bits=bits)
        except ValueError:
            bits //= 2
            log.warning("more than %d pairs of images have near hashes: compared are those up to %d bits apart",
                        MOST_PAIRS, bits)  # fmt: skip


def _candidates(first: Looks, second: Looks, near: Pairs) -> Candidates:
    ours, theirs = near[:, 0], near[:, 1]
    pairs = near[np.abs(first.brightness[ours] - second.brightness[theirs]) <= BRIGHTNESS_APART]
    apart = bits_of(first.hashes[pairs[:, 0]] ^ second.hashes[pairs[:, 1]])
    return Candidates(near, pairs[np.argsort(apart, kind="stable")[:MOST_CONFIRMED]], len(pairs))


def look_alike(
    pairs: Pairs,
    first: tuple[Looks, Grids],
    second: tuple[Looks, Grids],
    told: Callable[[int], None] = lambda done: None,
) -> NDArray[np.bool_]:
    """Which of the pairs look alike. first, second: what the two columns of `pairs` are rows of, which may be the same.
    told: called with the number of pairs that were compared."""
    (ours, our_grids), (theirs, their_grids) = first, second
    same = ours is theirs
    rows, twins = (np.unique(pairs),) * 2 if same else (np.unique(pairs[:, 0]), np.unique(pairs[:, 1]))
    mine = our_grids(rows)
    other = mine if same else their_grids(twins)
    alike = np.zeros(len(pairs), np.bool_)
    for low in range(0, len(pairs), _TOGETHER):
        part = pairs[low : low + _TOGETHER]
        left, right = mine[np.searchsorted(rows, part[:, 0])], other[np.searchsorted(twins, part[:, 1])]
        turned = _comes_later(ours.at(part[:, 0]), theirs.at(part[:, 1]))[:, None, None]
        grids = np.where(turned, right, left), np.where(turned, left, right)
        alike[low : low + _TOGETHER] = likeness(*grids) >= ALIKE
        told(low + len(part))
    return alike


def _comes_later(first: Looks, second: Looks) -> NDArray[np.bool_]:
    """For each row, whether the first image comes after the second. (`likeness` moves one of the two only.)"""
    tied = first.hashes == second.hashes
    later: NDArray[np.bool_] = (first.hashes > second.hashes) | (tied & (first.prints > second.prints))
    return later


def joined(pairs: Pairs) -> list[tuple[int, ...]]:
    """The groups that pairs connect, each ascending."""
    parent: dict[int, int] = {}

    def root(row: int) -> int:
        while (above := parent.setdefault(row, row)) != row:
            parent[row] = parent[above]
            row = above
        return row

    for first, second in pairs.tolist():
        low, high = sorted((root(first), root(second)))
        parent[high] = low
    groups: dict[int, list[int]] = {}
    for row in sorted(parent):
        groups.setdefault(root(row), []).append(row)
    return [tuple(group) for group in groups.values()]
