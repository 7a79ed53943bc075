"""The affine warp in NumPy: the twin of native/augment.c, with the same arithmetic in the same order.

Both do what SciPy's `affine_transform` does, to the bit on x86 (`NI_GeometricTransform` of scipy/ndimage/src/
ni_interpolation.c, since SciPy 1.6): coordinates and sums in float64, and the border rules below.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

FillMode = Literal["nearest", "constant", "reflect", "wrap"]

FILL_MODES: tuple[FillMode, ...] = ("nearest", "constant", "reflect", "wrap")
"""In the order of their numbers in C."""

FARTHEST = 1e15
"""Pixels: a coordinate further out counts as this far, so that it can be counted in integers."""

Doubles = NDArray[np.float64]
Places = NDArray[np.int64]

Matrix = tuple[float, float, float, float, float, float]
"""Of output pixel (y, x), the input's coordinates (m0·y + m1·x + m2, m3·y + m4·x + m5)."""


class Warp(NamedTuple):
    """How pixels are moved. flips: up to down, left to right; of the result."""

    matrix: Matrix
    fill_mode: FillMode
    cval: float
    order: int
    flips: tuple[bool, bool]


def warp(image: NDArray[Any], how: Warp) -> NDArray[np.float32]:
    """The image (h, w, c), uint8 or float32, warped, as float32: by nearest neighbour (order 0) or bilinear (1)."""
    height, width = image.shape[:2]
    ys, xs = np.arange(height, dtype=np.float64), np.arange(width, dtype=np.float64)
    ys, xs = ys[:: -1 if how.flips[0] else 1, None], xs[None, :: -1 if how.flips[1] else 1]
    m = how.matrix
    rows, far_rows = map_coordinates((m[2] + ys * m[0]) + xs * m[1], height, how.fill_mode)
    columns, far_columns = map_coordinates((m[5] + ys * m[3]) + xs * m[4], width, how.fill_mode)
    flat = image.reshape(height * width, -1)
    if how.order == 0:
        at = _inside(np.floor(rows + 0.5), height) * width + _inside(np.floor(columns + 0.5), width)
        made: NDArray[np.float32] = flat[at].astype(np.float32)
    else:
        made = _bilinear(flat, rows, columns, (height, width))
    made[far_rows | far_columns] = how.cval
    return made


def _bilinear(flat: NDArray[Any], rows: Doubles, columns: Doubles, size: tuple[int, int]) -> NDArray[np.float32]:
    top, left = np.floor(rows), np.floor(columns)
    down, right = 1.0 - (rows - top), 1.0 - (columns - left)  # the weights of the upper row and the left column
    made = np.zeros((*rows.shape, flat.shape[1]))
    for step_down, weight_down in ((0, down), (1, 1.0 - down)):
        base = _inside(top + step_down, size[0]) * size[1]
        for step_right, weight_right in ((0, right), (1, 1.0 - right)):
            taken = flat[base + _inside(left + step_right, size[1])].astype(np.float64)
            made += taken * weight_down[..., None] * weight_right[..., None]
    return made.astype(np.float32)


def _inside(places: Doubles, length: int) -> Places:
    return np.clip(places, 0, length - 1).astype(np.int64)


def map_coordinates(at: Doubles, length: int, fill_mode: FillMode) -> tuple[Doubles, NDArray[np.bool_]]:
    """(coordinates brought into the image, which of them are far outside and take the constant).

    "reflect" mirrors at the outer edge of the last pixel, "wrap" has the period length - 1, so that the first and last
    pixel are the same place, and "constant" begins right behind the last pixel's centre: SciPy's ways.
    """
    at = np.clip(np.nan_to_num(at, nan=-FARTHEST), -FARTHEST, FARTHEST)
    below, above = at < 0, at > length - 1
    nowhere = np.zeros(at.shape, np.bool_)
    if fill_mode == "nearest":
        return np.clip(at, 0.0, length - 1.0), nowhere
    if fill_mode == "constant":
        return np.clip(at, 0.0, length - 1.0), below | above
    if length == 1:
        return np.zeros_like(at), nowhere
    if fill_mode == "wrap":
        period = float(length - 1)
        low = at + period * (np.trunc(-at / period) + 1)
        high = at - period * np.trunc(at / period)
        return np.where(below, low, np.where(above, high, at)), nowhere
    period = float(2 * length)
    low = np.where(at < -period, period * np.trunc(-at / period) + at, at)
    low = np.where(low < -length, low + period, np.where(low > -1e-15, 1e-15, -low) - 1)
    high = at - period * np.trunc(at / period)
    high = np.where(high >= length, period - high - 1, high)
    return np.where(below, low, np.where(above, high, at)), nowhere
