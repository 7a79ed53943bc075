"""Boxes of one image, resized into arrays of pixels from a single decode.

A JPEG is decoded at one scale, the smallest that leaves enough pixels for the box that needs the most detail: at that
scale every other box has at least as much. The decoder in C (native/include/jpeg/decoder.h) has the same rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from shardkit.images import pixels as images
from shardkit.images.crops import Box, dct_divisor
from shardkit.images.options import DecodeOptions
from shardkit.images.orientation import orientation_in
from shardkit.images.pixels import Buffer, Pixels

HEADROOM = 1.5
"""How many decoded pixels DCT scaling must leave for each target pixel (3 for the other filters, which are sharper)."""


class Target(NamedTuple):
    """Where the pixels of a box go: uint8 (height, width, channels), contiguous. box: of an image of this size."""

    pixels: Pixels
    box: Callable[[int, int], Box]


def headroom_of(interpolation: str) -> float:
    """How many decoded pixels DCT scaling must leave for each target pixel, in both directions."""
    if interpolation == "nearest":
        return math.inf  # no averaging at all
    return HEADROOM if interpolation == "bilinear" else 2 * HEADROOM


def fill(data: Buffer, targets: Sequence[Target], options: DecodeOptions) -> None:
    """Fill all targets from an image. Raises nearly anything, if it is damaged."""
    if not options.exact and _fill_from_jpeg(data, targets, options):
        return
    image = pillow_image(data, options)
    for pixels, box in targets:
        height, width = pixels.shape[:2]
        found = box(image.height, image.width)
        pixels[:] = images.resize_exact(image, found, (height, width), options.interpolation)


def pillow_image(data: Buffer, options: DecodeOptions) -> Any:
    """The whole image as one of Pillow's."""
    return images.pillow_image(
        data, gray=options.color == "gray", orientation=options.orientation, max_pixels=options.max_pixels
    )


def _fill_from_jpeg(data: Buffer, targets: Sequence[Target], options: DecodeOptions) -> bool:
    """Decode a JPEG the fast way; False if Pillow has to do it."""
    if not images.is_jpeg(data) or (stored := images.jpeg_size(data, options.max_pixels)) is None:
        return False
    gray = options.color == "gray"
    orientation = orientation_in(data) or 1 if options.orientation else 1
    height, width = stored if orientation < 5 else stored[::-1]
    boxes = [box(height, width) for _, box in targets]
    first = targets[0].pixels
    if len(boxes) == 1 and boxes[0] == (0, 0, *first.shape[:2]) and stored == first.shape[:2] and orientation == 1:
        return images.decode_jpeg(data, stored, gray=gray, buffer=first) is not None
    headroom = headroom_of(options.interpolation)
    divisor = min(
        dct_divisor(box, (target.pixels.shape[0], target.pixels.shape[1]), headroom=headroom)
        for box, target in zip(boxes, targets, strict=True)
    )
    channels = first.shape[2]
    memory = images.scratch("decoded", -(-stored[0] // divisor) * -(-stored[1] // divisor) * channels)
    pixels = images.decode_jpeg(data, stored, gray=gray, divisor=divisor, buffer=memory)
    if pixels is None:
        return False
    pixels = images.upright(pixels, orientation)
    for box, target in zip(boxes, targets, strict=True):
        top, left, box_height, box_width = box
        scaled = box if divisor == 1 else (top / divisor, left / divisor, box_height / divisor, box_width / divisor)
        images.resize_into(pixels, scaled, target.pixels, options.interpolation)
    return True
