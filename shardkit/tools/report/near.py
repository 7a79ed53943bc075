"""Near-duplicates in a report: images that look alike, within a dataset and in two, and labels that look wrong.

Candidates are images whose perceptual hashes differ in few bits (the index's quality columns, or the files of a class
tree); each is then confirmed by comparing both images (images/quality/near.py). Equal files are not near-duplicates:
checks.py finds them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from shardkit.errors import ShardkitError
from shardkit.events import Progress, ProgressFn
from shardkit.images.quality.near import ALIKE, bits_of, candidate_bits, likeness, near_pairs
from shardkit.images.quality.quality import GRID, grid_of
from shardkit.shards.quality import BRIGHTNESS, ENTROPY, PHASH
from shardkit.threads import in_threads, thread_count
from shardkit.tools.report.facts import CHUNK, Facts, Numbers

MOST_CONFIRMED = 100_000
"""Candidates that are compared as pictures, the nearest first."""

BRIGHTNESS_APART = 0.1
"""Candidates whose brightness differs by more are not compared."""

PLAIN = 1.0
"""An image with less entropy (bits) shows too little to have near-duplicates."""

VOTERS, SHARE = 3, 2 / 3
"""A label looks wrong if at least so many images vote, and more than this share of them for one other class."""

_TOGETHER = 512


@dataclass(frozen=True, slots=True)
class Near:
    """Near-duplicates in a dataset. groups: their rows, largest group first; rows of equal files are there once.

    surplus: images beyond the first of each group. mislabelled: groups with several labels. candidates, confirmed:
    pairs with near hashes, and how many of them were compared as pictures. hints: (row, the label that its neighbours
    have).
    """

    groups: tuple[tuple[int, ...], ...]
    surplus: int
    mislabelled: int
    candidates: int
    confirmed: int
    hints: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class NearLeak:
    """Images of a dataset that look like one of another. pairs: (row, other row), without equal files."""

    name: str
    other: str
    pairs: tuple[tuple[int, int], ...]
    relabelled: int
    candidates: int
    confirmed: int


def find_near(facts: Facts, progress: ProgressFn) -> Near | None:
    """The near-duplicates in a dataset; None without quality columns."""
    if facts.quality is None:
        return None
    rows = _first_of_each(facts)
    pairs = rows[near_pairs(facts.quality[PHASH][rows], bits=candidate_bits(len(rows)))]
    kept, candidates, confirmed = _confirmed(facts, facts, pairs, progress)
    groups = sorted(joined(kept), key=lambda group: (-len(group), group))
    mislabelled = sum(1 for group in groups if len({int(facts.labels[row]) for row in group}) > 1)
    surplus = sum(map(len, groups)) - len(groups)
    return Near(tuple(groups), surplus, mislabelled, candidates, confirmed, _hints(facts, pairs))


def find_near_leak(facts: Facts, other: Facts, progress: ProgressFn) -> NearLeak | None:
    """Images of `facts` that look like one of `other`; None if one of them has no quality columns."""
    if facts.quality is None or other.quality is None:
        return None
    ours, theirs = _first_of_each(facts), _first_of_each(other)
    ours = ours[~np.isin(facts.prints()[ours], other.prints())]
    bits = candidate_bits(len(ours), len(theirs))
    found = near_pairs(facts.quality[PHASH][ours], other.quality[PHASH][theirs], bits=bits)
    pairs = np.stack([ours[found[:, 0]], theirs[found[:, 1]]], 1)
    kept, candidates, confirmed = _confirmed(facts, other, pairs, progress)
    kept = kept[np.unique(kept[:, 0], return_index=True)[1]]  # the nearest of each
    relabelled = sum(1 for row, twin in kept.tolist() if facts.class_of(row) != other.class_of(twin))
    return NearLeak(facts.name, other.name, tuple(map(tuple, kept.tolist())), relabelled, candidates, confirmed)


def _first_of_each(facts: Facts) -> Numbers:
    """The rows of images that show something, the first of equal files."""
    quality = facts.quality
    assert quality is not None
    shows = np.flatnonzero(quality[ENTROPY] >= PLAIN)  # NaN is not
    rows: Numbers = np.sort(shows[np.unique(facts.prints()[shows], return_index=True)[1]])
    return rows


def _confirmed(facts: Facts, other: Facts, pairs: Numbers, progress: ProgressFn) -> tuple[Numbers, int, int]:
    """(the pairs that look alike, nearest first; how many were candidates; how many of these were compared)."""
    assert facts.quality is not None and other.quality is not None
    ours, theirs = facts.quality[pairs[:, 0]], other.quality[pairs[:, 1]]
    pairs = pairs[np.abs(ours[BRIGHTNESS] - theirs[BRIGHTNESS]) <= BRIGHTNESS_APART]
    differing = facts.quality[PHASH][pairs[:, 0]] ^ other.quality[PHASH][pairs[:, 1]]
    order = np.lexsort((pairs[:, 1], pairs[:, 0], bits_of(differing)))
    asked = pairs[order[:MOST_CONFIRMED]]
    rows, twins = np.unique(asked[:, 0]), np.unique(asked[:, 1])
    if facts is other:
        rows = twins = np.union1d(rows, twins)
    mine = _grids(facts, rows, progress)
    other_grids = mine if facts is other else _grids(other, twins, progress)
    alike = np.zeros(len(asked), np.bool_)
    for low in range(0, len(asked), _TOGETHER):
        part = asked[low : low + _TOGETHER]
        first, second = np.searchsorted(rows, part[:, 0]), np.searchsorted(twins, part[:, 1])
        alike[low : low + _TOGETHER] = likeness(mine[first], other_grids[second]) >= ALIKE
        progress(Progress("compare", low + len(part), len(asked)))
    return asked[alike], len(pairs), len(asked)


def _grids(facts: Facts, rows: Numbers, progress: ProgressFn) -> Numbers:
    """The grid of each row's image; zeros for one that can't be read."""
    found = np.zeros((len(rows), GRID, GRID), np.uint16)
    catalog = facts.data.content.catalog

    def look(begin: int) -> int:
        part = rows[begin : begin + CHUNK]
        block = catalog.block(part)
        for number in range(len(part)):
            try:
                found[begin + number] = grid_of(bytes(block.image(number)))
            except (ValueError, ShardkitError):  # reported as undecodable
                continue
        return begin + len(part)

    for done in in_threads(look, range(0, len(rows), CHUNK), thread_count(None)):
        progress(Progress("compare", done, len(rows)))
    return found


def joined(pairs: Numbers) -> list[tuple[int, ...]]:
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


def _hints(facts: Facts, pairs: Numbers) -> tuple[tuple[int, int], ...]:
    """(row, the label of most images with an equal or near hash), where that is another one."""
    assert facts.quality is not None
    hashes = facts.quality[PHASH]
    of_hash: dict[int, set[int]] = {}
    beside: dict[int, set[int]] = {}
    for first, second in pairs.tolist():  # the first of equal hashes stands for all: they vote together
        ours, theirs = int(hashes[first]), int(hashes[second])
        of_hash.setdefault(ours, set()).add(first)
        of_hash.setdefault(theirs, set()).add(second)
        beside.setdefault(ours, {ours}).add(theirs)
        beside.setdefault(theirs, {theirs}).add(ours)
    votes = {one: Counter(int(facts.labels[row]) for row in rows) for one, rows in of_hash.items()}
    found = []
    for one, rows in of_hash.items():
        near: Counter[int] = sum((votes[other] for other in beside[one]), Counter())
        for row in rows:
            label = _outvoted(near, int(facts.labels[row]))
            if label is not None:
                found.append((row, label))
    return tuple(sorted(found))


def _outvoted(votes: Mapping[int, int], own: int) -> int | None:
    """The label of most votes, an image's own left out, if it is another one than its own."""
    others = {label: count - (label == own) for label, count in votes.items() if label >= 0}
    total = sum(others.values())
    label = max(others, key=lambda each: (others[each], -each), default=own)
    return label if own >= 0 and label != own and total >= VOTERS and others[label] > SHARE * total else None
