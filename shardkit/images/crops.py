"""Crop boxes: pure geometry, no pixels.

A box is (top, left, height, width) in the image's own pixels: x = 0 is the left edge of the first pixel, and fractions
are allowed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

Box = tuple[float, float, float, float]

CENTER_SHARE = 224 / 256  # of the shorter side: scale it to size * 256/224, cut out size (He et al. 2015 and since)
SCALE = (0.08, 1.0)  # of the area \ torchvision.transforms.RandomResizedCrop's defaults,
RATIO = (3 / 4, 4 / 3)  # width / height / from Szegedy et al. 2014 (Going deeper with convolutions)
TRIES = 10

MAX_SIDE = 65_535
"""Most pixels of a side of size, and of the padding: JPEG's limit."""

RANDOM_DRAWS = 2 + 2 * TRIES
"""How many random numbers `random_box` takes: top, left, then (area, ratio) for each try."""

PLACE_DRAWS = 2
"""How many random numbers the place of a window takes, in a padded image or of "random-cover": top, left."""

VERTICAL_DRAW = 1 + RANDOM_DRAWS
"""The random number of a vertical flip; number 0 is for a horizontal one, those from 1 are for the crop."""


@dataclass(frozen=True, slots=True)
class BoxRange:
    """What random boxes are drawn from: scale, the share of the area, and ratio, width / height."""

    scale: tuple[float, float] = SCALE
    ratio: tuple[float, float] = RATIO

    @property
    def log_ratio(self) -> tuple[float, float]:
        """The limits of log(width / height)."""
        return math.log(self.ratio[0]), math.log(self.ratio[1])


DEFAULT_RANGE = BoxRange()


class Draws(NamedTuple):
    """The random numbers of an image: which of its stream they are, and the columns of the flips and of the crop's
    first; -1 for none."""

    counters: tuple[int, ...]
    horizontal: int
    vertical: int
    crop: int


def draws_of(crop: str, flip: bool | str) -> Draws:
    """The random numbers that a crop ("random", "random-cover" and "pad" take some) and a flip need."""
    count = {"random": RANDOM_DRAWS, "pad": PLACE_DRAWS, "random-cover": PLACE_DRAWS}.get(crop, 0)
    horizontal, vertical = flip in (True, "horizontal", "both"), flip in ("vertical", "both")
    own = tuple(range(1 + count)) if count or horizontal else ()
    counters = (*own, VERTICAL_DRAW) if vertical else own
    return Draws(counters, 0 if horizontal else -1, len(own) if vertical else -1, 1 if count else -1)


def pad_offset(padding: int, draws: Sequence[float]) -> tuple[int, int]:
    """How far (down, right) an image is moved in its slot by a random window of the padded image."""
    places = 2 * padding + 1
    return padding - int(draws[0] * places), padding - int(draws[1] * places)


def center_box(height: int, width: int, size: tuple[int, int]) -> Box:
    """The center of an image, in whole pixels: the largest box with the proportions of size (height, width) * 224/256.

    For a square size it is the region kept by `Resize(size * 256/224)` of the shorter side and `CenterCrop(size)`,
    except for rounding, which those do after resizing. Whole pixels, so that no resizer has to round and the fast one
    agrees with the exact one.
    """
    return _box_of_size(height, width, size, CENTER_SHARE, None)


def cover_box(height: int, width: int, size: tuple[int, int], draws: Sequence[float] | None = None) -> Box:
    """The largest box of whole pixels with the proportions of size (height, width): what is left of an image that is
    scaled to cover it. In the middle, or with `PLACE_DRAWS` numbers in [0, 1) at a random place.
    """
    return _box_of_size(height, width, size, 1.0, draws)


def _box_of_size(height: int, width: int, size: tuple[int, int], share: float, draws: Sequence[float] | None) -> Box:
    unit = share * min(height / size[0], width / size[1])
    box_height, box_width = max(1, round(unit * size[0])), max(1, round(unit * size[1]))
    down, right = height - box_height, width - box_width
    if draws is None:
        return down // 2, right // 2, box_height, box_width
    return int(draws[0] * (down + 1)), int(draws[1] * (right + 1)), box_height, box_width


def random_box(height: int, width: int, draws: Sequence[float], limits: BoxRange = DEFAULT_RANGE) -> Box:
    """A random box of whole pixels, chosen as in torchvision.transforms.RandomResizedCrop.get_params.

    Up to ten tries: area uniform in `limits.scale` times the image's, log(width / height) uniform in the log of
    `limits.ratio`; the first box that fits is placed uniformly. If none fits: the largest central one with its ratio
    clamped. draws: `RANDOM_DRAWS` numbers in [0, 1).
    """
    area, scale, log_ratio = height * width, limits.scale, limits.log_ratio
    for i in range(2, RANDOM_DRAWS, 2):
        box_area = area * (scale[0] + (scale[1] - scale[0]) * draws[i])
        ratio = math.exp(log_ratio[0] + (log_ratio[1] - log_ratio[0]) * draws[i + 1])
        box_width = round(math.sqrt(box_area * ratio))
        box_height = round(math.sqrt(box_area / ratio))
        if 0 < box_width <= width and 0 < box_height <= height:
            top = int(draws[0] * (height - box_height + 1))
            left = int(draws[1] * (width - box_width + 1))
            return top, left, box_height, box_width
    return _fallback_box(height, width, limits.ratio)


def _fallback_box(height: int, width: int, ratio: tuple[float, float]) -> Box:
    box_height, box_width = height, width
    if width / height < ratio[0]:
        box_height = max(1, round(width / ratio[0]))
    elif width / height > ratio[1]:
        box_width = max(1, round(height * ratio[1]))
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


def dct_divisor(box: Box, size: tuple[int, int], *, headroom: float) -> int:
    """The divisor by which a JPEG may be shrunk while it is decoded: 8, 4, 2 or 1.

    At least `headroom` decoded pixels remain for each pixel of size (height, width), in both directions. Only these
    divisors: libjpeg-turbo's 3/8, 5/8, 6/8 and 7/8 have no SIMD code and take longer than a full decode.
    """
    shrink = min(box[2] / size[0], box[3] / size[1]) / headroom
    return 8 if shrink >= 8 else 4 if shrink >= 4 else 2 if shrink >= 2 else 1
