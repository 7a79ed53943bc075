"""Values changed at random: the shift of all channels, and the brightness, as Keras has them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]


def shift_channels(image: Image, intensity: float) -> Image:
    """The image with `intensity` added, within its own least and greatest value (`apply_channel_shift`)."""
    shifted: Image = np.clip(image + np.float32(intensity), image.min(), image.max())
    return shifted


def brighten(image: Image, factor: float) -> Image:
    """Whole values from 0 to 255, times factor, by the arithmetic of Pillow (`apply_brightness_shift`, scale=False).

    An image with values outside 0 … 255 is stretched to that range before, and back afterwards. Of four channels the
    last one, which is alpha, stays.
    """
    least, greatest = image.min(), image.max()
    stretched = bool(least < 0 or greatest > 255)
    if stretched:
        image = image - least
        top = image.max()
        image = (image / top if top != 0 else image) * np.float32(255)
    whole = image.astype(np.uint8)
    made = np.take(_table(factor), whole)
    if image.shape[2] == 4:
        made[:, :, 3] = whole[:, :, 3]
    return made / np.float32(255) * (greatest - least) + least if stretched else made


def _table(factor: float) -> Image:
    """What becomes of each value: `ImagingBlend` of Pillow with a black image."""
    with np.errstate(over="ignore"):  # of huge factors: infinity is clipped to white
        values = np.float32(factor) * np.arange(256, dtype=np.float32)
    made: Image = np.trunc(np.clip(values, 0, 255))
    return made
