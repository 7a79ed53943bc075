"""The options of `buckets()`, checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from shardkit.errors import UsageError
from shardkit.images.crops import MAX_SIDE
from shardkit.images.views.options import is_size, sides_of
from shardkit.options.numbers import is_whole
from shardkit.reading.buckets.shapes import candidates
from shardkit.reading.ops import Buckets

MOST_SHAPES = 256
"""The most buckets: each has an order of its own, and an incomplete batch."""


def given_buckets(shapes: Any, size: Any, multiple: Any) -> Buckets:
    """The step for these options. UsageError for impossible ones."""
    if not is_whole(multiple) or not 1 <= int(multiple) <= MAX_SIDE:
        raise UsageError("multiple", f"{multiple!r} is not a number of pixels", "give the factor of your model: 8, 64")
    if is_whole(shapes):
        return _chosen(int(shapes), size, int(multiple))
    cure = "give a list of (height, width), or the number of shapes to choose"
    if isinstance(shapes, str) or not isinstance(shapes, Sequence | np.ndarray) or not len(shapes):
        raise UsageError("shapes", f"{shapes!r} is neither a list of sizes nor a number of them", cure)
    given = [tuple(shape) if isinstance(shape, list | np.ndarray) else shape for shape in shapes]
    wrong = next((shape for shape in given if not is_size(shape)), None)
    if wrong is not None:
        raise UsageError("shapes", f"{wrong!r} is neither a number of pixels nor (height, width)", cure)
    if size is not None:
        raise UsageError("size", "the shapes are given, with their sizes", "omit it, or give the number of shapes")
    found = [(int(height), int(width)) for height, width in map(sides_of, given)]
    twice = next((shape for shape in found if found.count(shape) > 1), None)
    if twice is not None:
        raise UsageError("shapes", f"{twice} occurs twice", "give each once")
    return _limited(Buckets(tuple(found)), len(found))


def _chosen(number: int, size: Any, multiple: int) -> Buckets:
    if number < 1:
        raise UsageError("shapes", f"{number} is not a number of shapes", "give at least 1")
    if size is None or not is_size(size):
        fact = "the number of pixels of the shapes is missing" if size is None else f"{size!r} is not a size in pixels"
        raise UsageError("size", fact, "give the side of a square, or (height, width), such as size=512")
    height, width = (int(side) for side in sides_of(size))
    if not candidates((height, width), multiple):
        fact = f"no shape of at most {height} x {width} pixels has sides that are multiples of {multiple}"
        raise UsageError("multiple", fact, "give a smaller one, or a larger size")
    return _limited(Buckets(number, (height, width), multiple), number)


def _limited(buckets: Buckets, number: int) -> Buckets:
    if number > MOST_SHAPES:
        raise UsageError("shapes", f"{number:,} buckets are more than {MOST_SHAPES}", "give fewer")
    return buckets
