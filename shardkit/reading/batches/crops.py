"""The crop boxes and flips of many images at once, for those who decode elsewhere: what `ImageDecoder` would do."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from shardkit.images.crops import RANDOM_DRAWS, BoxRange, center_box, cover_box, draws_of, random_box
from shardkit.images.decoder import ImageDecoder
from shardkit.images.options import DecodeOptions


@dataclass(frozen=True, slots=True, eq=False)
class Crops:
    """What to cut out of each image of a batch, and which of them to mirror.

    boxes: (top, left, height, width) in pixels of the image as it is stored, int32 (n, 4). flips: whether to mirror it
    left to right, bool (n,); vertical_flips: top to bottom.
    """

    boxes: NDArray[np.int32]
    flips: NDArray[np.bool_]
    vertical_flips: NDArray[np.bool_]


def crops_of(options: DecodeOptions, shapes: NDArray[np.int32], key: int, counters: NDArray[np.integer]) -> Crops:
    """The boxes and flips that `ImageDecoder(options)` uses for images of these shapes.

    shapes: (height, width) of each, int32 (n, 2). key, counters: of its random numbers, as in `ImageDecoder.draws`.
    Not for crop="pad", which moves pixels after resizing.
    """
    found, columns = _decoder(options).draws(key, counters), draws_of(options.cropped, options.flip)
    draws = np.empty((len(shapes), 0)) if found is None else found
    size = options.height_width
    if options.cropped == "random":
        boxes = _random_boxes(shapes, draws[:, columns.crop :], options.box_range)
    elif options.cropped == "center" and size is not None:
        boxes = np.array([center_box(height, width, size) for height, width in shapes.tolist()], np.int32)
    elif options.cropped == "cover" and size is not None:
        boxes = np.array([cover_box(height, width, size) for height, width in shapes.tolist()], np.int32)
    elif options.cropped == "random-cover" and size is not None:
        own = zip(shapes.tolist(), draws[:, columns.crop :].tolist(), strict=True)
        boxes = np.array([cover_box(height, width, size, row) for (height, width), row in own], np.int32)
    else:
        boxes = np.concatenate([np.zeros_like(shapes), shapes], axis=1)
    flips, vertical = (
        draws[:, column] < 0.5 if column >= 0 else np.zeros(len(shapes), np.bool_)
        for column in (columns.horizontal, columns.vertical)
    )
    return Crops(boxes.reshape(-1, 4).astype(np.int32), flips, vertical)


@lru_cache(maxsize=16)
def _decoder(options: DecodeOptions) -> ImageDecoder:
    return ImageDecoder(options)


SCALAR = 8
"""So few images are faster one by one."""


def _random_boxes(shapes: NDArray[np.int32], draws: NDArray[np.float64], limits: BoxRange) -> NDArray[np.int32]:
    """`random_box` of each: a try for all of them together, then the next one for those whose box did not fit. The
    exponential is Python's, since NumPy's may differ in the last digit."""
    boxes = np.empty((len(shapes), 4), np.int32)
    left = np.arange(len(shapes))
    (low, high), (narrow, wide) = limits.scale, limits.log_ratio
    for column in range(2, RANDOM_DRAWS, 2):
        if len(left) <= SCALAR:
            break
        own = draws[left]
        heights, widths = shapes[left].T.astype(np.float64)
        areas = heights * widths * (low + (high - low) * own[:, column])
        ratios = np.array([math.exp(narrow + (wide - narrow) * draw) for draw in own[:, column + 1].tolist()])
        box_widths, box_heights = np.rint(np.sqrt(areas * ratios)), np.rint(np.sqrt(areas / ratios))
        tops, lefts = own[:, 0] * (heights - box_heights + 1), own[:, 1] * (widths - box_widths + 1)
        fits = (box_widths > 0) & (box_widths <= widths) & (box_heights > 0) & (box_heights <= heights)
        boxes[left[fits]] = np.stack([tops, lefts, box_heights, box_widths], axis=1)[fits]  # towards zero, as int()
        left = left[~fits]
    for number in left.tolist():
        height, width = shapes[number].tolist()
        boxes[number] = random_box(height, width, draws[number].tolist(), limits)
    return boxes
