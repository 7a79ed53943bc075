"""What is done to one image: drawn from random numbers, and its geometry as a matrix. No pixels here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np

from shardkit.images.augment.checks import number
from shardkit.images.augment.options import Augment, ShiftRange
from shardkit.images.augment.plain import Matrix

_THETA, _TX, _TY, _SHEAR, _ZX, _ZY, _HORIZONTAL, _VERTICAL, _CHANNELS, _BRIGHTNESS = 0, 1, 3, 5, 6, 7, 8, 9, 10, 11

DRAWS = 12
"""Numbers of the random stream for each image: each parameter has its own, so that none depends on the others. A shift
has two, for the amount and the side."""


class Chance(Protocol):
    """Where the parameters of a transform come from. slot: the first of the numbers that a draw takes."""

    def uniform(self, slot: int, low: float, high: float) -> float:
        """A number from low to high."""
        ...

    def choice(self, slot: int, count: int) -> int:
        """A whole number below count."""
        ...


class Row:
    """The chance of one image: its row of `DRAWS` numbers in [0, 1)."""

    def __init__(self, draws: Sequence[float]) -> None:
        self._draws = draws

    def uniform(self, slot: int, low: float, high: float) -> float:
        """As `Chance`."""
        return low + (high - low) * self._draws[slot]

    def choice(self, slot: int, count: int) -> int:
        """As `Chance`."""
        return int(self._draws[slot] * count)


class Numpy:
    """A generator of NumPy, which gives the parameters that Keras draws from it."""

    def __init__(self, state: Any) -> None:
        self._state = state

    def uniform(self, slot: int, low: float, high: float) -> float:
        """As `Chance`."""
        return float(self._state.uniform(low, high))

    def choice(self, slot: int, count: int) -> int:
        """As `Chance`."""
        return int(self._state.choice(count))


@dataclass(frozen=True, slots=True)
class Transform:
    """The parameters of one image, by Keras' names and in its units.

    theta, shear: degrees. tx, ty: pixels down and to the right. zx, zy: factors of height and width. brightness: a
    factor, channel_shift_intensity is added; None for neither.
    """

    theta: float = 0
    tx: float = 0
    ty: float = 0
    shear: float = 0
    zx: float = 1
    zy: float = 1
    flip_horizontal: bool = False
    flip_vertical: bool = False
    channel_shift_intensity: float | None = None
    brightness: float | None = None

    @classmethod
    def drawn(cls, augment: Augment, height: int, width: int, chance: Chance) -> Transform:
        """A transform for an image of this size, drawn in Keras' order (`ImageDataGenerator.get_random_transform`)."""
        theta = _either_way(augment.rotation_range, _THETA, chance)
        tx = _shift(augment.height_shift_range, height, _TX, chance)
        ty = _shift(augment.width_shift_range, width, _TY, chance)
        shear = _either_way(augment.shear_range, _SHEAR, chance)
        zx = zy = 1.0
        if augment.zoom != (1, 1):
            zx, zy = (chance.uniform(slot, *augment.zoom) for slot in (_ZX, _ZY))
        horizontal, vertical = (chance.uniform(slot, 0, 1) < 0.5 for slot in (_HORIZONTAL, _VERTICAL))
        span, factors = augment.channel_shift_range, augment.brightness_range
        intensity = chance.uniform(_CHANNELS, -span, span) if span else None
        brightness = None if factors is None else chance.uniform(_BRIGHTNESS, *factors)
        flips = horizontal and bool(augment.horizontal_flip), vertical and bool(augment.vertical_flip)
        return cls(theta, tx, ty, shear, zx, zy, *flips, intensity, brightness)

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Transform:
        """The one that a dictionary of Keras' names means; what it lacks is not done. UsageError for bad values."""
        known = {field.name: parameters[field.name] for field in fields(cls) if field.name in parameters}
        for name, value in known.items():
            if name.startswith("flip_"):
                known[name] = bool(value)
            elif value is not None or name not in ("channel_shift_intensity", "brightness"):
                known[name] = number(name, value)
        return cls(**known)

    def matrix(self, height: int, width: int) -> Matrix | None:
        """Where each pixel of the result comes from; None if all stay where they are.

        Keras' product of rotation, shift, shear and zoom, in this order (`apply_affine_transform`). It has two habits
        of Keras': tx, which comes of height_shift_range, moves columns; and the fixed point of an image that is not
        square is not its middle, but has the coordinates of the middle in the other order.
        """
        if (self.theta, self.tx, self.ty, self.shear, self.zx, self.zy) == (0, 0, 0, 0, 1, 1):
            return None
        a, b, c, d, x, y = 1.0, 0.0, 0.0, 1.0, 0.0, 0.0
        if self.theta:
            cos, sin = math.cos(math.radians(self.theta)), math.sin(math.radians(self.theta))
            a, b, c, d = cos, -sin, sin, cos
        if self.tx or self.ty:
            x, y = a * self.tx + b * self.ty, c * self.tx + d * self.ty
        if self.shear:
            cos, sin = math.cos(math.radians(self.shear)), math.sin(math.radians(self.shear))
            b, d = a * -sin + b * cos, c * -sin + d * cos
        a, b, c, d = a * self.zx, b * self.zy, c * self.zx, d * self.zy
        middle_x, middle_y = height / 2 - 0.5, width / 2 - 0.5
        x = a * -middle_x + b * -middle_y + (x + middle_x)
        y = c * -middle_x + d * -middle_y + (y + middle_y)
        return d, c, y, b, a, x


def _either_way(span: float, slot: int, chance: Chance) -> float:
    return chance.uniform(slot, -span, span) if span else 0


def _shift(span: ShiftRange, side: int, slot: int, chance: Chance) -> float:
    """As Keras draws it with `np.random.choice`, which takes a list or a whole number, or else with `uniform`."""
    if isinstance(span, (int, np.integer)) and span > 0:
        shift: float = chance.choice(slot, int(span)) * (2 * chance.choice(slot + 1, 2) - 1)
    elif isinstance(span, (int, float, np.number)):
        shift = chance.uniform(slot, -span, span) if span else 0
    elif len(span):
        shift = float(span[chance.choice(slot, len(span))]) * (2 * chance.choice(slot + 1, 2) - 1)
    else:
        return 0
    return shift * side if np.max(span) < 1 else shift
