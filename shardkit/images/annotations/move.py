"""How an image is moved into its slot: a box of it, resized, shifted and mirrored. Pure geometry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shardkit.images.annotations.options import Boxes
from shardkit.images.crops import Box

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Move:
    """What happens to an image of size (height, width): the part `box` of it is resized to out (height, width), shifted
    by pixels (down, right), and then mirrored."""

    size: tuple[int, int]
    box: Box
    out: tuple[int, int]
    shift: tuple[int, int] = (0, 0)
    horizontal: bool = False
    vertical: bool = False

    def boxes(self, values: Values, boxes: Boxes) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Boxes (n, 4) in the image that comes out, in their format, and the numbers of those that are kept."""
        corners = _corners(values, boxes.format)
        if boxes.normalized:
            corners *= np.array([*self.size[::-1]] * 2, np.float64)
        x = self._along(corners[:, 0::2], 1)
        y = self._along(corners[:, 1::2], 0)
        whole = np.maximum(x[:, 1] - x[:, 0], 0) * np.maximum(y[:, 1] - y[:, 0], 0)
        x, y = self._along(corners[:, 0::2], 1, clipped=True), self._along(corners[:, 1::2], 0, clipped=True)
        wide, high = x[:, 1] - x[:, 0], y[:, 1] - y[:, 0]
        enough = (wide > 0) & (high > 0) & (np.minimum(wide, high) >= boxes.least) & (
            wide * high >= boxes.visible * whole * (1 - 1e-9)
        )  # fmt: skip
        kept = np.flatnonzero(enough)
        found = np.stack([x[kept, 0], y[kept, 0], x[kept, 1], y[kept, 1]], axis=1)
        if boxes.normalized:
            found /= np.array([*self.out[::-1]] * 2, np.float64)
        return _written(found, boxes.format).astype(np.float32), kept

    def _along(self, values: Values, axis: int, *, clipped: bool = False) -> Values:
        """Pairs of coordinates (n, 2) along an axis, moved, and ascending; clipped to what comes out, if asked."""
        start, length, end = self.box[axis], self.box[axis + 2], self.out[axis]
        inside = values.clip(start, start + length) if clipped else values
        found = (inside - start) * (end / length) + self.shift[axis]
        found = found.clip(0, end) if clipped else found
        return end - found[:, ::-1] if (self.vertical, self.horizontal)[axis] else found

    def pixels(self, mask: NDArray[Any]) -> NDArray[Any]:
        """A mask (height, width, …) of the image, in the image that comes out, by nearest pixels; 0 outside of it."""
        y, x = self._nearest(0, mask.shape[0]), self._nearest(1, mask.shape[1])
        found: NDArray[Any] = mask[np.maximum(y, 0)[:, None], np.maximum(x, 0)[None, :]]
        found[y < 0] = 0
        found[:, x < 0] = 0
        return found

    def _nearest(self, axis: int, most: int) -> NDArray[np.int64]:
        """The pixel of the image for each that comes out, along an axis; -1 for none. As Pillow does, its rounding
        included: it adds the step again and again (ImagingScaleAffine)."""
        count, step = self.out[axis], self.box[axis + 2] / self.out[axis]
        steps = np.full(count, step)
        steps[0] = self.box[axis] + step * 0.5
        own = np.floor(np.add.accumulate(steps)).astype(np.int64).clip(0, most - 1)
        from_ = np.arange(count) - self.shift[axis]
        found = np.where((from_ >= 0) & (from_ < count), own[from_.clip(0, count - 1)], -1)
        return found[::-1] if (self.vertical, self.horizontal)[axis] else found


def _corners(values: Values, form: str) -> Values:
    if form == "xyxy":
        return values.copy()
    first, sides = values[:, :2], values[:, 2:]
    begin = first if form == "xywh" else first - sides / 2
    return np.concatenate([begin, begin + sides], axis=1)


def _written(corners: Values, form: str) -> Values:
    if form == "xyxy":
        return corners
    first, sides = corners[:, :2], corners[:, 2:] - corners[:, :2]
    return np.concatenate([first if form == "xywh" else first + sides / 2, sides], axis=1)
