"""Pixels moved: the warp in C where it was built (native/augment.c), or its twin in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shardkit.errors import MissingExtraError
from shardkit.images.augment import plain
from shardkit.images.augment.plain import FILL_MODES, Warp
from shardkit.native import load


def available() -> bool:
    """Whether the warp in C was built, and loads."""
    return load("augment")[0] is not None


def warp_into(image: NDArray[Any], how: Warp, out: NDArray[Any], *, scale: float = 1, exact: bool = False) -> None:
    """The image, uint8 or float32 (h, w, c), warped into out, of the same shape, times scale.

    Both contiguous. An out of uint8 gets rounded values from 0 to 255. exact: SciPy's bits, before they are scaled;
    without it the values may differ by a rounding error of float32.
    """
    if how.order > 1:
        _finish(_by_spline(image, how), out, scale)
    elif available():
        function: Callable[..., None] = load("augment")[0].warp
        fill = FILL_MODES.index(how.fill_mode)
        function(image, out, how.matrix, fill, how.cval, how.order, exact, *how.flips, scale)
    else:
        _finish(plain.warp(image, how), out, scale)


def flip(image: NDArray[Any], flips: tuple[bool, bool]) -> NDArray[Any]:
    """A view of the image, turned upside down and left to right as asked."""
    return image[:: -1 if flips[0] else 1, :: -1 if flips[1] else 1]


def _finish(values: NDArray[np.float32], out: NDArray[Any], scale: float) -> None:
    values = values * np.float32(scale)
    out[:] = values if out.dtype != np.uint8 else round_to_bytes(values)


def round_to_bytes(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Whole values from 0 to 255, a NaN as 0; of halves the even one."""
    return np.clip(np.rint(np.nan_to_num(values, nan=0.0)), 0, 255)


def _by_spline(image: NDArray[Any], how: Warp) -> NDArray[np.float32]:
    try:
        from scipy.ndimage import affine_transform
    except ImportError as exc:
        fact = f"{how.order} needs SciPy, which is not installed"
        raise MissingExtraError("interpolation_order", fact, "pip install scipy, or use 1") from exc
    m = how.matrix
    channels = [
        affine_transform(
            image[:, :, c].astype(np.float32), ((m[0], m[1]), (m[3], m[4])), (m[2], m[5]), order=how.order,
            mode=how.fill_mode, cval=how.cval,
        )
        for c in range(image.shape[2])
    ]  # fmt: skip
    return flip(np.stack(channels, axis=-1), how.flips)
