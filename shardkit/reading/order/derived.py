"""Orders derived from other orders: of some rows, with weights, of several datasets, endless. All are pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from shardkit.errors import UsageError
from shardkit.reading.order.epoch_order import EpochOrder, Order, Positions
from shardkit.reading.order.groups import (
    Keys,
    Places,
    group_places,
    group_sizes,
    in_random_order,
    limits_of,
    pieces,
    place_type,
)
from shardkit.reading.order.layout import Layout
from shardkit.rng import permutation, stream_key, uniform
from shardkit.threads import cached_property

SIZE_TOLERANCE = 100
"""A part of a split may be off by one per this many samples, to keep each class's own proportions."""

MIX_BLOCK = 1000
"""Samples of a mix in which each dataset has exactly its share. Weights are rounded to multiples of 1/MIX_BLOCK."""


@dataclass(frozen=True)
class SelectedOrder:
    """`base` orders the numbers 0 … M - 1, which stand for these rows (int64, M)."""

    base: Order
    rows: Positions

    @property
    def samples(self) -> int:
        """The number of places of the base."""
        return self.base.samples

    def rows_at(self, places: Positions) -> Positions:
        """The rows at these places."""
        found: Positions = self.rows[self.base.rows_at(places)]
        return found


@dataclass(frozen=True)
class EndlessOrder:
    """One epoch after another: place P is place P % N of epoch P // N, whose order `orders` returns."""

    orders: Callable[[int], Order]
    epoch_samples: int
    samples: int = 1 << 62

    def rows_at(self, places: Positions) -> Positions:
        """The rows at these places."""
        rows = np.empty(len(places), np.int64)
        epochs = places // self.epoch_samples
        for epoch in np.unique(epochs).tolist():
            where = epochs == epoch
            rows[where] = self.orders(epoch).rows_at(places[where] - epoch * self.epoch_samples)
        return rows


@runtime_checkable
class Quotas(Protocol):
    """The places of the datasets of a mix, where they change (order/schedule.py)."""

    def block(self, number: int, sections: int) -> tuple[Sequence[int], Sequence[int]]:
        """(places of each dataset in a block of a section, places of each in the blocks of the section before)."""
        ...


@dataclass(frozen=True)
class MixedOrder:
    """Several datasets interleaved in proportion to weights.

    `parts[i](epoch)` is the order of dataset i, whose rows start at `offsets[i]`; it has `lengths[i]` places per epoch,
    and starts again when they are used up. In each MIX_BLOCK consecutive places of a section, dataset i has exactly
    `quotas[i]`, or as many as a schedule says, at places permuted by (seed, block, section), and they are in the same
    section of its own order. So the place in its own order is known for every place of the mix.
    """

    parts: Sequence[Callable[[int], Order]]
    lengths: Sequence[int]
    offsets: Sequence[int]
    quotas: Sequence[int] | Quotas
    seed: int
    epoch: int
    samples: int
    sections: int = 1

    def _quotas(self, block: int) -> tuple[Sequence[int], Sequence[int]]:
        """The places of each dataset in a block of a section, and in the blocks before it."""
        if isinstance(self.quotas, Quotas):
            return self.quotas.block(block, self.sections)
        return self.quotas, [block * quota for quota in self.quotas]

    @cached_property
    def _endless(self) -> list[EndlessOrder]:
        parts = zip(self.parts, self.lengths, strict=True)
        return [EndlessOrder(lru_cache(maxsize=2)(order), length) for order, length in parts]

    def rows_at(self, places: Positions) -> Positions:
        """The rows at these places."""
        # each dataset resumes where the last epoch stopped: all places of earlier epochs come first
        turns, sections = np.divmod(places + self.epoch * self.samples, self.sections)
        rows = np.empty(len(places), np.int64)
        blocks, within = np.divmod(turns, MIX_BLOCK)
        member, number = np.empty(len(places), np.int64), np.empty(len(places), np.int64)
        for section, block in np.unique(np.stack([sections, blocks], 1), axis=0).tolist():
            where = (sections == section) & (blocks == block)
            own = (block,) if self.sections == 1 else (block, section)
            quotas, before = self._quotas(block)
            members = np.repeat(np.arange(len(quotas)), quotas)
            order = members[permutation(MIX_BLOCK, stream_key("mix", self.seed, *own))]
            rank = np.empty(MIX_BLOCK, np.int64)
            for part, quota in enumerate(quotas):
                rank[order == part] = np.arange(quota) + before[part]
            member[where], number[where] = order[within[where]], rank[within[where]]
        number = number * self.sections + sections
        for part, endless in enumerate(self._endless):
            where = member == part
            if where.any():
                rows[where] = endless.rows_at(number[where]) + self.offsets[part]
        return rows


def quotas_of(weights: Sequence[float]) -> list[int]:
    """Integers that add up to MIX_BLOCK, in proportion to the weights. UsageError for invalid weights."""
    values = np.asarray(weights, np.float64)
    if not len(values) or not np.isfinite(values).all() or (values < 0).any() or not values.sum():
        raise UsageError("weights", f"{list(weights)} are not valid weights", "give a number above 0 for each dataset")
    quotas: list[int] = apportion(values, MIX_BLOCK).tolist()
    if any(weight and not quota for weight, quota in zip(values.tolist(), quotas, strict=True)):
        fact = f"one of {list(weights)} is too small to occur in {MIX_BLOCK:,} samples"
        raise UsageError("weights", fact, "give it a larger weight, or use concat() instead of mix()")
    return quotas


def apportion(weights: NDArray[np.float64], total: int) -> NDArray[np.int64]:
    """Distribute `total` in proportion to the weights, the rest by largest remainder (ties: the first)."""
    exact = weights / weights.sum() * total
    counts: NDArray[np.int64] = np.floor(exact).astype(np.int64)
    over = total - int(counts.sum())
    counts[np.argsort(-(exact - counts), kind="stable")[:over]] += 1
    return counts


Line = Callable[[Positions], Positions]
"""The rows at some positions of the line on which an epoch's rows lie before they are shuffled."""


def line_of(order: EpochOrder, rows: Positions | None) -> Line:
    """The line of all rows of an order, or of the given ones, which may repeat and come in any order."""
    if rows is None:
        return order.rows_of_line
    return order.line(rows).__getitem__


def weight_classes(
    line: Line, count: int, labels: NDArray[np.signedinteger[Any]], weights: Mapping[int, float], key: int
) -> Positions:
    """As many rows as the line has, each class in proportion to its weight, evenly along the line (int64).

    count: the rows on the line; labels: the classes of all rows. A class with too few rows is used several times; one
    with too many starts at a random row of it and is not used up.
    """
    groups = max(weights, default=0) + 2

    def group_of(low: int, high: int) -> NDArray[np.int64]:
        found = labels[line(np.arange(low, high))].astype(np.int64) + 1
        return np.where(found < groups, found, 0)  # a class without a weight

    by_class, bounds = group_places(group_of, count, groups)
    sizes = np.diff(bounds)
    chosen = np.array([label for label, weight in weights.items() if weight and sizes[label + 1]], np.int64)
    if not len(chosen):
        raise UsageError("weights", "no class with samples has a weight", "name classes of the dataset")
    wanted = apportion(np.array([weights[label] for label in chosen.tolist()], np.float64), count)
    begins = uniform(key, np.arange(len(chosen)))
    own, firsts = sizes[chosen + 1], bounds[chosen + 1]
    skipped = (begins * own).astype(np.int64)
    found, at = np.empty(count, np.int64), 0
    for classes, steps in _evenly(wanted, begins):
        places = by_class[firsts[classes] + (skipped[classes] + steps) % own[classes]]
        found[at : at + len(steps)] = line(places.astype(np.int64))
        at += len(steps)
    return found


def _evenly(
    counts: NDArray[np.int64], begins: NDArray[np.float64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """(classes, steps) in the order of the moments (step + begin) / count, of which each class has `count`: some
    successive ones at a time."""
    divisors = np.maximum(1, counts)
    parts = max(1, sum(1 for _ in pieces(int(counts.sum()))))
    low = np.zeros(len(counts), np.int64)
    for part in range(1, parts + 1):
        high = counts
        if part < parts:  # the first step of each class that is not before the moment part / parts
            moment = part / parts
            guess = np.ceil(moment * counts - begins).astype(np.int64) - 1
            late = (guess[None] + np.arange(3)[:, None] + begins) / divisors >= moment
            high = np.clip(guess + np.where(late.any(axis=0), late.argmax(axis=0), 3), low, counts)
        lengths = high - low
        classes = np.repeat(np.arange(len(counts)), lengths)
        steps = np.arange(len(classes)) + np.repeat(low - (np.cumsum(lengths) - lengths), lengths)
        order = np.argsort((steps + begins[classes]) / divisors[classes], kind="stable")
        yield classes[order], steps[order]
        low = high


def weight_samples(line: Line, count: int, weights: NDArray[np.float64], key: int) -> Positions:
    """As many rows as the line has, each in proportion to its weight, rounded up or down at random (int64).

    Systematic resampling (Kitagawa 1996): one random number for the whole line, so that the total is exact.
    """
    chance, total = uniform(key, np.zeros(1, np.int64))[0], 0.0
    for _, sums in _running_sums(line, count, weights):
        total = sums[-1]
    found, done, seen = np.empty(count, np.int64), 0, 0
    for rows, sums in _running_sums(line, count, weights):
        ends = np.floor(sums * (count / total) + chance).astype(np.int64)
        seen += len(rows)
        if seen == count:
            ends[-1] = count
        found[done : ends[-1]] = np.repeat(rows, np.diff(ends, prepend=done))
        done = int(ends[-1])
    return found


def _running_sums(
    line: Line, count: int, weights: NDArray[np.float64]
) -> Iterator[tuple[Positions, NDArray[np.float64]]]:
    """(rows of the line, the sums of the weights up to each), some at a time."""
    carry = 0.0
    for low, high in pieces(count):
        rows = line(np.arange(low, high))
        sums = weights[rows]
        sums[0] += carry
        np.cumsum(sums, out=sums)
        carry = float(sums[-1])
        yield rows, sums


def split_places(
    rows: Positions | None,
    count: int,
    labels: NDArray[np.signedinteger[Any]] | None,
    fractions: Mapping[str, float],
    seed: int,
) -> NDArray[np.unsignedinteger[Any]]:
    """The part to which each of `count` rows goes: the place of its name in `fractions`, which add up to at most 1; the
    number of fractions for the rest.

    rows: which rows they are; None for 0 … count - 1. labels: of all rows of the dataset; then each class is
    distributed by `stratify`. The same rows and seed give the same parts.
    """
    weights = _split_weights(fractions)
    chance = _chances(rows, stream_key("split", seed))
    group_of, _, groups = _one_group(count) if labels is None else _labels_of(rows, count, labels)
    found, bounds = group_places(group_of, count, groups)
    there = np.flatnonzero(np.diff(bounds))
    limits, firsts = np.full((len(weights) - 1, groups), np.inf), np.zeros((len(weights) - 1, groups), np.int64)
    for group, counts in zip(there.tolist(), stratify(np.diff(bounds)[there], weights, seed)[0], strict=True):
        own = found[bounds[group] : bounds[group + 1]]
        limits[:, group], firsts[:, group] = limits_of(own, chance, np.cumsum(counts)[:-1])
    part_of = np.zeros(count, np.min_scalar_type(len(weights)))
    for low, high in pieces(count):  # along the places, and not class by class: memory is read in order
        places, own_groups = np.arange(low, high), group_of(low, high)
        values = chance(places)
        for limit, first in zip(limits, firsts, strict=True):
            beyond = values > limit[own_groups]
            equal = np.flatnonzero(values == limit[own_groups])
            beyond[equal] = places[equal] >= first[own_groups[equal]]
            part_of[low:high] += beyond
    return part_of


def fold_places(
    rows: Positions | None, count: int, labels: NDArray[np.signedinteger[Any]] | None, folds: int, seed: int
) -> NDArray[np.unsignedinteger[Any]]:
    """The fold of each of `count` rows: they are put in a random order, by class if there are labels, and dealt to the
    folds in turn. rows, labels: as for `split_places`."""
    chance = _chances(rows, stream_key("folds", seed))
    fold, done = np.empty(count, np.min_scalar_type(folds)), 0
    for group in label_groups(rows, count, labels):
        for places in in_random_order(group, chance):
            fold[places] = np.arange(done, done + len(places)) % folds
            done += len(places)
    return fold


def _chances(rows: Positions | None, key: int) -> Callable[[Places], NDArray[np.float64]]:
    return lambda places: uniform(key, places if rows is None else rows[places])


def label_groups(rows: Positions | None, count: int, labels: NDArray[np.signedinteger[Any]] | None) -> Iterator[Places]:
    """The places of each label that occurs, ascending, by label; without labels, all places."""
    if labels is None or not count:
        yield np.arange(count, dtype=place_type(count))
        return
    found, bounds = group_places(*_labels_of(rows, count, labels))
    for low, high in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        if high > low:
            yield found[low:high]


def _labels_of(rows: Positions | None, count: int, labels: NDArray[np.signedinteger[Any]]) -> tuple[Keys, int, int]:
    """The arguments of `group_places` for the labels of some rows: -1 is the first group."""

    def group_of(low: int, high: int) -> NDArray[np.int64]:
        return labels[slice(low, high) if rows is None else rows[low:high]].astype(np.int64) + 1

    highest = max((int(labels[low:high].max()) for low, high in pieces(len(labels))), default=-1)
    return group_of, count, highest + 2


def _one_group(count: int) -> tuple[Keys, int, int]:
    """The arguments of `group_places` for all places in one group."""
    return lambda low, high: np.zeros(high - low, np.int64), count, 1


def label_counts(rows: Positions | None, count: int, labels: NDArray[np.signedinteger[Any]]) -> NDArray[np.int64]:
    """How many of `count` rows have each label from -1 on (int64). rows, labels: as for `split_places`."""
    return group_sizes(*_labels_of(rows, count, labels))


def stratify(sizes: NDArray[np.int64], weights: NDArray[np.float64], seed: int) -> tuple[list[NDArray[np.int64]], bool]:
    """How many of each class (`sizes`) go to each part, and whether the remainders were distributed over all classes.

    Each class is rounded by its own largest remainders, if that gives the parts their sizes, to one sample or one in
    `SIZE_TOLERANCE`. If it does not, because many classes are too small, each part takes its exact number from the
    rest, the largest remainders of all classes first, ties at random: like scikit-learn's StratifiedShuffleSplit.
    """
    alone = [apportion(weights, size) for size in sizes.tolist()]
    total = int(sizes.sum())
    wanted = apportion(weights, total)
    off = np.abs(np.sum(alone, axis=0) - wanted) if alone else np.zeros(1)
    if (off <= np.maximum(1, wanted // SIZE_TOLERANCE)).all():
        return alone, False
    left, dealt = sizes.copy(), np.zeros((len(sizes), len(weights)), np.int64)
    for part, count in enumerate(wanted.tolist()):
        by_chance = np.argsort(uniform(stream_key("split", seed, part), np.arange(len(sizes))), kind="stable")
        if count:
            dealt[by_chance, part] = apportion(left[by_chance].astype(np.float64), count)
        left -= dealt[:, part]
    return list(dealt), True


def deals_over_classes(counts: NDArray[np.int64], fractions: Mapping[str, float], seed: int) -> bool:
    """Whether a stratified split of so many samples of each label distributes its remainders over all classes."""
    return stratify(counts[counts > 0], _split_weights(fractions), seed)[1]


def require_fractions(fractions: Mapping[str, float]) -> None:
    """UsageError for fractions that are not above 0, or add up to more than 1."""
    _split_weights(fractions)


def _split_weights(fractions: Mapping[str, float]) -> NDArray[np.float64]:
    shares = np.array(list(fractions.values()), np.float64)
    if not len(shares) or (shares <= 0).any() or shares.sum() > 1 + 1e-9:
        raise UsageError(
            "split()", f"{dict(fractions)} are not valid fractions", "give numbers above 0 that add up to 1"
        )
    return np.append(shares, max(0.0, 1 - shares.sum()))


def line_counts(rows: Positions, starts: Positions) -> NDArray[np.int64]:
    """The lengths of the runs of rows within one shard. starts: the first row of each shard."""
    found, before = list[NDArray[np.int64]](), -1
    for low, high in pieces(len(rows)):
        shards = np.searchsorted(starts, rows[low:high], side="right")
        found.append(low + np.flatnonzero(np.diff(shards, prepend=before)))
        before = int(shards[-1])
    bounds = np.concatenate([np.empty(0, np.int64), *found])
    return np.diff(bounds, append=len(rows))


def order_of_rows(
    rows: Positions, starts: Positions, *, buffer: int, seed: int, epoch: int, layout: Layout
) -> SelectedOrder:
    """The order of an epoch of some rows: runs within one shard take the role of shards."""
    counts = line_counts(rows, starts)
    return SelectedOrder(EpochOrder(counts, buffer, seed, epoch, layout.lanes, layout.sections, layout.node), rows)
