"""`Augment`: the augmentation of Keras' ImageDataGenerator, argument by argument, as a value for `decode(augment=)`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from shardkit.errors import UsageError
from shardkit.images.augment import checks
from shardkit.images.augment.plain import FILL_MODES, FillMode
from shardkit.options.keywords import cure_of_choice, named_fields

ImageFunction = Callable[[NDArray[np.float32]], NDArray[Any]]
ShiftRange = float | Sequence[float] | NDArray[Any]

HIGHEST_ORDER = 5
"""The highest order of SciPy's splines."""


@named_fields
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Augment:
    """Random transformations of each image, with the arguments and semantics of Keras' `ImageDataGenerator`.

    An image is transformed at its final size, with values from 0 to 255: after size, crop and flip of `decode()`.
    The parameters depend only on the seed, the epoch and the sample: they are the same for any number of threads,
    workers and ranks, and after a resume.

    rotation_range: degrees, either way. width_shift_range, height_shift_range: a float below 1 is a fraction of the
    side, any other float a number of pixels, either way; a whole number n means 0 … n - 1 pixels either way; from a
    list one value is chosen, either way (fractions if all are below 1). brightness_range: (low, high), factors.
    shear_range: degrees. zoom_range: z for factors from 1 - z to 1 + z, or (low, high); height and width independently.
    channel_shift_range: up to this much is added or subtracted, clipped to the image's minimum and maximum.
    fill_mode: the values outside the image: "nearest", "constant" (cval), "reflect" or "wrap". horizontal_flip,
    vertical_flip: with probability 1/2. interpolation_order: 0 is nearest, 1 linear, 2 to 5 splines (which need SciPy).

    The values are then normalized, in this order. preprocessing_function: takes and returns an image, float32, in the
    layout of `decode()`. rescale: a factor. samplewise_center, samplewise_std_normalization: use the image's own mean
    and standard deviation (normalization implies centering). featurewise_center, featurewise_std_normalization,
    zca_whitening: use mean, std and zca_matrix, which `fit` computes; they are numbers, or arrays that broadcast to the
    image in its layout. zca_epsilon: used by `fit`.

    UsageError for an invalid value.
    """

    featurewise_center: bool = False
    samplewise_center: bool = False
    featurewise_std_normalization: bool = False
    samplewise_std_normalization: bool = False
    zca_whitening: bool = False
    zca_epsilon: float = 1e-6
    rotation_range: float = 0
    width_shift_range: ShiftRange = 0.0
    height_shift_range: ShiftRange = 0.0
    brightness_range: Sequence[float] | None = None
    shear_range: float = 0.0
    zoom_range: float | Sequence[float] = 0.0
    channel_shift_range: float = 0.0
    fill_mode: FillMode = "nearest"
    cval: float = 0.0
    horizontal_flip: bool = False
    vertical_flip: bool = False
    rescale: float | None = None
    preprocessing_function: ImageFunction | None = None
    interpolation_order: int = 1
    mean: ArrayLike | None = None
    std: ArrayLike | None = None
    zca_matrix: ArrayLike | None = None

    def __post_init__(self) -> None:
        for name in ("rotation_range", "shear_range", "channel_shift_range", "cval", "zca_epsilon"):
            self._set(name, checks.number(name, getattr(self, name)))
        for name in ("width_shift_range", "height_shift_range"):
            self._set(name, checks.shift(name, getattr(self, name)))
        self._check_pairs()
        names = ("horizontal_flip", "vertical_flip", *_SWITCHES)
        checks.switches(names, [getattr(self, name) for name in names])
        if self.zca_epsilon < 0:
            raise UsageError("zca_epsilon", f"{self.zca_epsilon!r} is negative", "give a small number such as 1e-6")
        if self.fill_mode not in FILL_MODES:
            expected = ", ".join(map(repr, FILL_MODES))
            cure = cure_of_choice("fill_mode", self.fill_mode, get_args(FillMode))
            raise UsageError("fill_mode", f"{self.fill_mode!r} is not one of {expected}", cure)
        order = checks.plain_of(self.interpolation_order)
        if isinstance(order, bool) or not isinstance(order, int) or not 0 <= order <= HIGHEST_ORDER:
            fact = f"{order!r} is not a whole number from 0 to {HIGHEST_ORDER}"
            raise UsageError("interpolation_order", fact, "give 1 for linear interpolation")
        self._set("interpolation_order", order)
        if self.rescale is not None:
            self._set("rescale", checks.scale("rescale", self.rescale))
        if self.preprocessing_function is not None and not callable(self.preprocessing_function):
            fact = f"{self.preprocessing_function!r} can't be called"
            raise UsageError("preprocessing_function", fact, "give a function of an image")
        for name in ("mean", "std", "zca_matrix"):
            checks.statistic(name, getattr(self, name))

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _check_pairs(self) -> None:
        zoom, brightness = checks.plain_of(self.zoom_range), self.brightness_range
        if isinstance(zoom, (int, float)) and not isinstance(zoom, bool):
            self._set("zoom_range", checks.number("zoom_range", zoom))
        else:
            pair = checks.pair("zoom_range", zoom, (tuple, list, np.ndarray), "a number or (low, high)")
            self._set("zoom_range", pair)
        if brightness is not None:
            self._set("brightness_range", checks.pair("brightness_range", brightness, (tuple, list), "(low, high)"))

    @property
    def zoom(self) -> tuple[float, float]:
        """The least and the greatest factor."""
        if isinstance(self.zoom_range, (int, float)):
            return 1 - self.zoom_range, 1 + self.zoom_range
        low, high = self.zoom_range
        return low, high

    @property
    def moves(self) -> bool:
        """Whether pixels move: what belongs to places in the image would not fit it any more."""
        names = ("rotation_range", "width_shift_range", "height_shift_range", "shear_range")
        moved = any(np.any(np.asarray(getattr(self, name))) for name in names) or self.zoom != (1, 1)
        return moved or self.horizontal_flip or self.vertical_flip

    @property
    def normalizes(self) -> bool:
        """Whether values no longer fit uint8."""
        return self.standardizes or bool(self.rescale)

    @property
    def standardizes(self) -> bool:
        """Whether values are brought to a mean or deviation."""
        return any(getattr(self, name) for name in _SWITCHES)

    @property
    def missing(self) -> list[str]:
        """The statistics that are needed and not there."""
        needed = {
            "mean": self.featurewise_center or self.featurewise_std_normalization or self.zca_whitening,
            "std": self.featurewise_std_normalization and not self.zca_whitening,
            "zca_matrix": self.zca_whitening,
        }
        return [name for name, needs in needed.items() if needs and getattr(self, name) is None]

    def fit(self, images: ArrayLike) -> Augment:
        """Return this with the mean, std and zca_matrix that it needs, computed from images.

        images: (n, height, width, channels), values 0 … 255. As in Keras' `fit`, the statistics are those of the values
        after rescale. UsageError for images of another shape.
        """
        from shardkit.images.augment.standardize import statistics_of

        array = checks.images("images", images, "(n, height, width, channels)")
        return replace(self, **statistics_of(self, array * np.float32(self.rescale or 1)))


_SWITCHES = (
    "featurewise_center", "samplewise_center", "featurewise_std_normalization", "samplewise_std_normalization",
    "zca_whitening",
)  # fmt: skip
