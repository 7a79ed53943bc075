"""Orders derived from other orders: of some rows, with weights, of several datasets, endless. All are pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shardkit.errors import UsageError
from shardkit.reading.order.epoch_order import EpochOrder, Order, Positions
from shardkit.rng import permutation, stream_key, uniform

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


@dataclass(frozen=True)
class MixedOrder:
    """Several datasets interleaved in proportion to weights.

    `parts[i](epoch)` is the order of dataset i, whose rows start at `offsets[i]`; it has `lengths[i]` places per epoch,
    and starts again when they are used up. In each MIX_BLOCK consecutive places, dataset i has exactly `quotas[i]`, at
    places permuted by (seed, epoch, block). So the place in its own order is known for every place of the mix.
    """

    parts: Sequence[Callable[[int], Order]]
    lengths: Sequence[int]
    offsets: Sequence[int]
    quotas: Sequence[int]
    seed: int
    epoch: int
    samples: int

    @cached_property
    def _members(self) -> NDArray[np.int64]:
        return np.repeat(np.arange(len(self.quotas)), self.quotas)

    @cached_property
    def _endless(self) -> list[EndlessOrder]:
        parts = zip(self.parts, self.lengths, strict=True)
        return [EndlessOrder(lru_cache(maxsize=2)(order), length) for order, length in parts]

    def rows_at(self, places: Positions) -> Positions:
        """The rows at these places."""
        first = (
            self.epoch * self.samples
        )  # number of places taken by all earlier epochs, so that each dataset resumes where it stopped
        absolute = places + first
        rows = np.empty(len(places), np.int64)
        block_of, within = absolute // MIX_BLOCK, absolute % MIX_BLOCK
        member = np.empty(len(places), np.int64)
        number = np.empty(len(places), np.int64)
        for block in np.unique(block_of).tolist():
            where = block_of == block
            order = self._members[permutation(MIX_BLOCK, stream_key("mix", self.seed, block))]
            rank = np.empty(MIX_BLOCK, np.int64)
            for part, quota in enumerate(self.quotas):
                rank[order == part] = np.arange(quota) + block * quota
            member[where], number[where] = order[within[where]], rank[within[where]]
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


def weight_classes(
    line: Positions, labels: NDArray[np.signedinteger[Any]], weights: Mapping[int, float], key: int
) -> Positions:
    """As many rows as `line` has, each class in proportion to its weight, evenly along the line (int64).

    line: the rows in reading order; labels: their classes. A class with too few rows is used several times; one with
    too many starts at a random row of it and is not used up.
    """
    counts = np.bincount(labels[labels >= 0], minlength=max(weights, default=0) + 1)
    chosen = [label for label, weight in weights.items() if weight and counts[label]]
    if not chosen:
        raise UsageError("weights", "no class with samples has a weight", "name classes of the dataset")
    wanted = apportion(np.array([weights[label] for label in chosen], np.float64), len(line))
    begins = uniform(key, np.arange(len(chosen)))
    by_class = np.argsort(labels, kind="stable")  # of a class, in the order of the line
    ends = np.searchsorted(labels[by_class], chosen, side="right")
    rows, moments = [], []
    for label, end, count, begin in zip(chosen, ends.tolist(), wanted.tolist(), begins.tolist(), strict=True):
        own = line[by_class[end - counts[label] : end]]
        steps = np.arange(count)
        rows.append(own[(int(begin * len(own)) + steps) % len(own)])
        moments.append((steps + begin) / max(1, count))
    ordered = np.argsort(np.concatenate(moments), kind="stable")
    found: Positions = np.concatenate(rows)[ordered]
    return found


def weight_samples(line: Positions, weights: NDArray[np.float64], key: int) -> Positions:
    """As many rows as `line` has, each in proportion to its weight, rounded up or down at random (int64).

    Systematic resampling (Kitagawa 1996): one random number for the whole line, so that the total is exact.
    """
    bounds = np.cumsum(weights[line])
    bounds *= len(line) / bounds[-1]
    ends = np.floor(bounds + uniform(key, np.zeros(1, np.int64))[0]).astype(np.int64)
    ends[-1] = len(line)
    return np.repeat(line, np.diff(ends, prepend=0))


def split_rows(
    rows: Positions, labels: NDArray[np.signedinteger[Any]] | None, fractions: Mapping[str, float], seed: int
) -> dict[str, Positions]:
    """Distribute rows to parts in proportion to the fractions, which add up to at most 1 (each int64, ascending).

    With labels (one per row), each class is distributed by `stratify`. The same rows and seed give the same parts.
    """
    weights = _split_weights(fractions)
    chance = uniform(stream_key("split", seed), rows)
    part_of = np.empty(len(rows), np.int64)
    groups = [np.arange(len(rows))] if labels is None else _by_label(labels)
    sizes = np.array([len(group) for group in groups], np.int64)
    for group, counts in zip(groups, stratify(sizes, weights, seed)[0], strict=True):
        part_of[group[np.argsort(chance[group], kind="stable")]] = np.repeat(np.arange(len(weights)), counts)
    return {name: rows[part_of == number] for number, name in enumerate(fractions)}


def _by_label(labels: NDArray[np.signedinteger[Any]]) -> list[NDArray[np.int64]]:
    """The positions of each label, ascending; labels in ascending order."""
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)


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


def deals_over_classes(labels: NDArray[np.signedinteger[Any]], fractions: Mapping[str, float], seed: int) -> bool:
    """Whether a stratified split of samples with these labels distributes its remainders over all classes."""
    return stratify(np.unique(labels, return_counts=True)[1].astype(np.int64), _split_weights(fractions), seed)[1]


def _split_weights(fractions: Mapping[str, float]) -> NDArray[np.float64]:
    shares = np.array(list(fractions.values()), np.float64)
    if not len(shares) or (shares <= 0).any() or shares.sum() > 1 + 1e-9:
        raise UsageError(
            "split()", f"{dict(fractions)} are not valid fractions", "give numbers above 0 that add up to 1"
        )
    return np.append(shares, max(0.0, 1 - shares.sum()))


def line_counts(rows: Positions, starts: Positions) -> NDArray[np.int64]:
    """The lengths of the runs of rows within one shard. starts: the first row of each shard."""
    shards = np.searchsorted(starts, rows, side="right")
    bounds = np.flatnonzero(np.diff(shards, prepend=-1))
    return np.diff(bounds, append=len(rows))


def order_of_rows(
    rows: Positions, starts: Positions, *, buffer: int, seed: int, epoch: int, lanes: int
) -> SelectedOrder:
    """The order of an epoch of some rows: runs within one shard take the role of shards."""
    return SelectedOrder(EpochOrder(line_counts(rows, starts), buffer, seed, epoch, lanes), rows)
