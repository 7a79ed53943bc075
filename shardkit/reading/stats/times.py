"""Durations in histograms of fixed size: four classes for each doubling from a microsecond to over an hour."""

from __future__ import annotations

from collections.abc import Sequence
from math import log2

LEAST = 1e-6
"""Seconds of the first class; shorter durations count there."""

PARTS = 4
"""Classes for each doubling: a percentile is exact to 19 %."""

CLASSES = 128


class Times:
    """Durations of one stage. One thread adds; others may read at any time, and miss the latest at most."""

    __slots__ = ("counts", "seconds")

    def __init__(self, counts: Sequence[int] = (), seconds: float = 0.0) -> None:
        self.counts = list(counts) or [0] * CLASSES
        self.seconds = seconds

    def add(self, seconds: float) -> None:
        """Count a duration."""
        self.seconds += seconds
        self.counts[class_of(seconds)] += 1

    def plus(self, other: Times, sign: int = 1) -> Times:
        """The durations of both; with sign -1 those that were added since `other` was copied."""
        pairs = zip(self.counts, other.counts, strict=True)
        return Times([mine + sign * theirs for mine, theirs in pairs], self.seconds + sign * other.seconds)

    @property
    def number(self) -> int:
        """How many durations."""
        return sum(self.counts)

    def percentile(self, percent: float) -> float:
        """The seconds that `percent` of the durations do not exceed, to the class; 0.0 of none."""
        needed, total = percent / 100 * self.number, 0
        for place, count in enumerate(self.counts):
            total += count
            if count and total >= needed:
                return float(LEAST * 2 ** ((place + 0.5) / PARTS)) if place else 0.0
        return 0.0


def class_of(seconds: float) -> int:
    """The number of the class of a duration. One below 0, which no monotonic clock gives, is in the first."""
    if seconds <= LEAST:
        return 0
    return min(CLASSES - 1, int(log2(seconds / LEAST) * PARTS))
