"""Crop boxes: pure geometry, no pixels.

A box is (top, left, height, width) in the image's own pixels: x = 0 is the left edge of the first pixel, and fractions
are allowed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Box = tuple[float, float, float, float]

CENTER_SHARE = 224 / 256  # of the shorter side: scale it to size * 256/224, cut out size (He et al. 2015 and since)
SCALE = (0.08, 1.0)  # of the area \ torchvision.transforms.RandomResizedCrop's defaults,
RATIO = (3 / 4, 4 / 3)  # width / height / from Szegedy et al. 2014 (Going deeper with convolutions)
TRIES = 10
RANDOM_DRAWS = 2 + 2 * TRIES
"""How many random numbers `random_box` takes: top, left, then (area, ratio) for each try."""

_LOG_RATIO = (math.log(RATIO[0]), math.log(RATIO[1]))


def center_box(height: int, width: int, size: tuple[int, int]) -> Box:
    """The center of an image, in whole pixels: the largest box with the proportions of size (height, width) * 224/256.

    For a square size it is the region kept by `Resize(size * 256/224)` of the shorter side and `CenterCrop(size)`,
    except for rounding, which those do after resizing. Whole pixels, so that no resizer has to round and the fast one
    agrees with the exact one.
    """
    unit = CENTER_SHARE * min(height / size[0], width / size[1])
    box_height, box_width = max(1, round(unit * size[0])), max(1, round(unit * size[1]))
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


def random_box(height: int, width: int, draws: Sequence[float]) -> Box:
    """A random box of whole pixels, chosen as in torchvision.transforms.RandomResizedCrop.get_params.

    Up to ten tries: area uniform in `SCALE` times the image's, log(width / height) uniform in log `RATIO`; the first
    box that fits is placed uniformly. If none fits: the largest central one with its ratio clamped to `RATIO`.
    draws: `RANDOM_DRAWS` numbers in [0, 1).
    """
    area = height * width
    for i in range(2, RANDOM_DRAWS, 2):
        box_area = area * (SCALE[0] + (SCALE[1] - SCALE[0]) * draws[i])
        ratio = math.exp(_LOG_RATIO[0] + (_LOG_RATIO[1] - _LOG_RATIO[0]) * draws[i + 1])
        box_width = round(math.sqrt(box_area * ratio))
        box_height = round(math.sqrt(box_area / ratio))
        if 0 < box_width <= width and 0 < box_height <= height:
            top = int(draws[0] * (height - box_height + 1))
            left = int(draws[1] * (width - box_width + 1))
            return top, left, box_height, box_width
    return _fallback_box(height, width)


def _fallback_box(height: int, width: int) -> Box:
    box_height, box_width = height, width
    if width / height < RATIO[0]:
        box_height = round(width / RATIO[0])
    elif width / height > RATIO[1]:
        box_width = round(height * RATIO[1])
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


def dct_divisor(box: Box, size: tuple[int, int], *, headroom: float) -> int:
    """The divisor by which a JPEG may be shrunk while it is decoded: 8, 4, 2 or 1.

    At least `headroom` decoded pixels remain for each pixel of size (height, width), in both directions. Only these
    divisors: libjpeg-turbo's 3/8, 5/8, 6/8 and 7/8 have no SIMD code and take longer than a full decode.
    """
    shrink = min(box[2] / size[0], box[3] / size[1]) / headroom
    return 8 if shrink >= 8 else 4 if shrink >= 4 else 2 if shrink >= 2 else 1
