"""Near-duplicates in a report: images that look alike, within a dataset and in two, and labels that look wrong.

The rule is in images/quality/duplicates.py; the hashes are those of the index's quality columns, or of the files of a
class tree. Equal files are not near-duplicates: checks.py finds them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from shardkit.errors import ShardkitError
from shardkit.events import Progress, ProgressFn
from shardkit.images.quality.duplicates import (
    Candidates,
    Looks,
    Rows,
    candidates_between,
    candidates_within,
    joined,
    look_alike,
)
from shardkit.images.quality.near import Pairs
from shardkit.images.quality.quality import GRID, grid_of
from shardkit.shards.quality import BRIGHTNESS, ENTROPY, PHASH
from shardkit.threads import in_threads, thread_count
from shardkit.tools.report.facts import CHUNK, Facts, Numbers

VOTERS, SHARE = 3, 2 / 3
"""A label looks wrong if at least so many images vote, and more than this share of them for one other class."""


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
    looks = _looks(facts)
    if looks is None:
        return None
    found = candidates_within(looks)
    kept = _confirmed(found, (facts, looks), (facts, looks), progress)
    groups = sorted(joined(kept), key=lambda group: (-len(group), group))
    mislabelled = sum(1 for group in groups if len({int(facts.labels[row]) for row in group}) > 1)
    surplus = sum(map(len, groups)) - len(groups)
    return Near(tuple(groups), surplus, mislabelled, found.count, len(found.pairs), _hints(facts, found.near))


def find_near_leak(facts: Facts, other: Facts, progress: ProgressFn) -> NearLeak | None:
    """Images of `facts` that look like one of `other`; None if one of them has no quality columns."""
    ours, theirs = _looks(facts), _looks(other)
    if ours is None or theirs is None:
        return None
    found = candidates_between(ours, theirs)
    kept = _confirmed(found, (facts, ours), (other, theirs), progress)
    kept = kept[np.unique(kept[:, 0], return_index=True)[1]]  # the nearest of each
    relabelled = sum(1 for row, twin in kept.tolist() if facts.class_of(row) != other.class_of(twin))
    pairs = tuple(map(tuple, kept.tolist()))
    return NearLeak(facts.name, other.name, pairs, relabelled, found.count, len(found.pairs))


def _looks(facts: Facts) -> Looks | None:
    quality = facts.quality
    return None if quality is None else Looks(facts.prints(), quality[PHASH], quality[BRIGHTNESS], quality[ENTROPY])


def _confirmed(
    found: Candidates, first: tuple[Facts, Looks], second: tuple[Facts, Looks], progress: ProgressFn
) -> Pairs:
    """The candidates that look alike, nearest first."""
    (facts, ours), (other, theirs) = first, second
    pairs = found.pairs
    alike = look_alike(
        pairs,
        (ours, lambda rows: _grids(facts, rows, progress)),
        (theirs, lambda rows: _grids(other, rows, progress)),
        lambda done: progress(Progress("compare", done, len(pairs))),
    )
    return pairs[alike]


def _grids(facts: Facts, rows: Rows, progress: ProgressFn) -> Numbers:
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


def _hints(facts: Facts, pairs: Pairs) -> tuple[tuple[int, int], ...]:
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
