"""The shapes of buckets: chosen for many images, and the nearest one to each. Pure arithmetic.

An image is scaled to cover the shape of its bucket, and what protrudes is cut off. With d = |log(r / R)|, for r and R
the ratios width / height of image and shape, the part of the image that is lost is 1 - exp(-d).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, int]
"""(height, width) in pixels."""

Sizes = NDArray[np.integer]
"""(height, width) of n images (n, 2), all at least 1."""

MOST_RATIO = 4
"""The longer side of a chosen shape is at most so many times the shorter one, as in NovelAI's buckets and kohya's."""

MOST_CANDIDATES = 1024
"""Shapes that are compared: of more, those with nearly the same ratio are left out."""

SHRINKING = 1 / 8
"""How much it counts to shrink an image by a factor, if to enlarge it by this factor counts 1."""

DIGITS = 9
"""Decimal places in which costs are compared: logarithms differ in the last ones on other machines."""


def candidates(size: Shape, multiple: int) -> list[Shape]:
    """The shapes of multiples of a number with as many pixels as size, or a little fewer, from narrow to wide.

    None of them fits into another one.
    """
    area = size[0] * size[1]
    shapes = set()
    for side in range(multiple, int((area * MOST_RATIO) ** 0.5) + multiple, multiple):
        other = area // side // multiple * multiple
        if other and max(side, other) <= MOST_RATIO * min(side, other):
            shapes |= {(side, other), (other, side)}
    wide, found, most = sorted(shapes, key=lambda shape: (-shape[1], -shape[0])), list[Shape](), 0
    for shape in wide:  # the widest first: one that is not higher than those before fits into one of them
        if shape[0] > most:
            found.append(shape)
            most = shape[0]
    return sorted(found, key=lambda shape: shape[1] / shape[0])[:: -(-len(found) // MOST_CANDIDATES) or 1]


class _Sums(NamedTuple):
    """Sums over images in the order of x = log(width / height), up to each: of 1, exp(x) and exp(-x)."""

    x: NDArray[np.float64]
    ones: NDArray[np.float64]
    ups: NDArray[np.float64]
    downs: NDArray[np.float64]

    def upto(self, x: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        """The sums over the images up to x."""
        at = np.searchsorted(self.x, x, side="right")
        return self.ones[at], self.ups[at], self.downs[at]


def _sums_of(sizes: Sizes, counts: NDArray[np.integer]) -> _Sums:
    heights, widths = sizes.T.astype(np.float64)
    order = np.argsort(widths / heights, kind="stable")
    ratios, weights = (widths / heights)[order], counts[order].astype(np.float64)
    sums = [np.concatenate([[0.0], np.cumsum(weights * values)]) for values in (np.ones(1), ratios, 1 / ratios)]
    return _Sums(np.log(ratios), *sums)


def best_shapes(sizes: Sizes, counts: NDArray[np.integer], number: int, size: Shape, multiple: int) -> list[Shape]:
    """Of all `candidates`, at most `number` that together lose least of some images, from narrow to wide.

    counts: how many images have each size. The best choice in one dimension is found by dynamic programming: the loss
    between two neighbouring shapes does not depend on the others.
    """
    shapes = candidates(size, multiple)
    at = np.log([width / height for height, width in shapes])
    sums = _sums_of(sizes, counts)
    here = sums.upto(at)
    last = tuple(np.full(len(at), total[-1]) for total in sums[1:])
    none = tuple(np.zeros(len(at)) for _ in here)
    lower, upper = at[:, None], at[None, :]
    middle = sums.upto((lower + upper) / 2)
    column, row = tuple(part[:, None] for part in here), tuple(part[None, :] for part in here)
    between = _lost_above(lower, column, middle) + _lost_below(upper, middle, row)
    between[np.tril_indices(len(at))] = np.inf
    costs, steps = [_lost_below(at, none, here)], list[NDArray[np.int64]]()
    for _ in range(min(number, len(shapes)) - 1):
        whole = np.round(costs[-1][:, None] + between, DIGITS)
        steps.append(whole.argmin(axis=0))
        costs.append(whole.min(axis=0))
    ends = np.round([cost + _lost_above(at, here, last) for cost in costs], DIGITS)
    turns = int(ends.min(axis=1).argmin())  # the first, and so the fewest
    chosen = [int(ends[turns].argmin())]
    for step in reversed(steps[:turns]):
        chosen.insert(0, int(step[chosen[0]]))
    return [shapes[number] for number in chosen]


Parts = tuple[NDArray[np.float64], ...]


def _lost_above(at: NDArray[np.float64], low: Parts, high: Parts) -> NDArray[np.float64]:
    """What is lost of the images between two sums by a shape below them: the sum of 1 - exp(at - x)."""
    lost: NDArray[np.float64] = (high[0] - low[0]) - np.exp(at) * (high[2] - low[2])
    return lost


def _lost_below(at: NDArray[np.float64], low: Parts, high: Parts) -> NDArray[np.float64]:
    """The same by a shape above them: the sum of 1 - exp(x - at)."""
    lost: NDArray[np.float64] = (high[0] - low[0]) - np.exp(-at) * (high[1] - low[1])
    return lost


def nearest(sizes: Sizes, shapes: Sequence[Shape]) -> NDArray[np.int64]:
    """The number of the shape that suits each image best (int64, n), the first of equal ones.

    What counts is the logarithm of the ratios' quotient, that is what is cut off, plus that of the factor by which the
    image is enlarged, or an eighth of that by which it is shrunk. So among shapes of equal area the ratio decides, and
    of several areas an image gets the largest that it fills.
    """
    heights, widths = np.log(sizes.T.astype(np.float64))
    costs = np.empty((len(shapes), len(sizes)))
    for number, shape in enumerate(shapes):
        by_height, by_width = np.log(shape[0]) - heights, np.log(shape[1]) - widths
        enlarged = np.maximum(by_height, by_width)  # to cover the shape
        costs[number] = np.abs(by_height - by_width) + np.maximum(enlarged, -SHRINKING * enlarged)
    found: NDArray[np.int64] = np.round(costs, DIGITS).argmin(axis=0)
    return found


def losses(sizes: Sizes, shapes: NDArray[np.integer]) -> NDArray[np.float64]:
    """The part of each image that is cut off when it is scaled to cover its shape, 0 to 1. shapes: (n, 2)."""
    by_height, by_width = (shapes / sizes).T
    lost: NDArray[np.float64] = 1 - np.minimum(by_height, by_width) / np.maximum(by_height, by_width)
    return lost
