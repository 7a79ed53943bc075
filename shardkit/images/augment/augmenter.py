"""Does to an image what an `Augment` says, for drawn numbers: pixels in, the slot of a batch out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shardkit import rng
from shardkit.images.augment.options import Augment
from shardkit.images.augment.plain import Warp
from shardkit.images.augment.standardize import standardize
from shardkit.images.augment.transform import DRAWS, Row, Transform
from shardkit.images.augment.values import brighten, shift_channels
from shardkit.images.augment.warp import flip, round_to_bytes, warp_into

Image = NDArray[np.float32]


class Augmenter:
    """Changes images (h, w, c) of values 0 … 255. Holds configuration only: any thread may use it.

    rescale: that of `decode()`, taken for the augmentation's own. channels_first: the layout of the results.
    statistics: (mean, std), each (channels, 1): at the end values become (value - mean) / std, and unless there is a
    rescale they are divided by 255 before.
    """

    def __init__(
        self,
        augment: Augment,
        *,
        rescale: float | None = None,
        channels_first: bool = False,
        statistics: tuple[Image, Image] | None = None,
    ) -> None:
        self.augment = augment if rescale is None else replace(augment, rescale=rescale)
        self._channels_first = channels_first
        plain = replace(self.augment, rescale=None)
        self._statistics = statistics
        self._by_values = plain.normalizes or plain.preprocessing_function is not None or statistics is not None
        self._scale = float(self.augment.rescale or 1)

    def draws(self, key: int, positions: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
        """A row of `DRAWS` random numbers in [0, 1) for each position, from key and position alone."""
        counters: NDArray[np.uint64] = positions.astype(np.uint64)[:, None] * np.uint64(DRAWS)
        counters = np.add(counters, np.arange(DRAWS, dtype=np.uint64), dtype=np.uint64)
        return rng.uniform(rng.stream_key("parameters", key), counters)

    def into(self, pixels: NDArray[Any], out: NDArray[Any], row: NDArray[np.float64]) -> None:
        """The image, uint8 or float32 and contiguous, into out, of its shape in the layout, by its row of `draws`."""
        change = Transform.drawn(self.augment, pixels.shape[0], pixels.shape[1], Row(row.tolist()))
        straight = out.flags.c_contiguous and out.dtype in (np.float32, np.uint8) and not self._channels_first
        if straight and not self._by_values and change.channel_shift_intensity is None and change.brightness is None:
            moved_into(pixels, self.augment, change, out, scale=self._scale)
            return
        image = self.finished(transform(pixels, self.augment, change))
        out[:] = image if out.dtype != np.uint8 else round_to_bytes(image)

    def finished(self, image: Image) -> Image:
        """An image (h, w, c) in the layout of the results, with its values standardized; it may be changed in place."""
        if self._channels_first:
            image = np.ascontiguousarray(image.transpose(2, 0, 1))
        image = standardize(image, self.augment)
        if self._statistics is not None:
            mean, std = (value[:, :, None] if self._channels_first else value[:, 0] for value in self._statistics)
            if not self.augment.rescale:
                image /= np.float32(255)
            image -= mean
            image /= std
        return image


def transform(pixels: NDArray[Any], augment: Augment, change: Transform) -> Image:
    """A new image, float32 (h, w, c), with the change done: Keras' `apply_transform`."""
    image = np.empty(pixels.shape, np.float32)
    moved_into(pixels, augment, change, image, exact=change.brightness is not None)
    if change.channel_shift_intensity is not None:
        image = shift_channels(image, change.channel_shift_intensity)
    return image if change.brightness is None else brighten(image, change.brightness)


def moved_into(
    pixels: NDArray[Any],
    augment: Augment,
    change: Transform,
    out: NDArray[Any],
    *,
    scale: float = 1,
    exact: bool = False,
) -> None:
    """The geometry of the change alone, times scale, into out: uint8 or float32 of the image's shape, contiguous."""
    matrix = change.matrix(*pixels.shape[:2])
    flips = change.flip_vertical, change.flip_horizontal
    if matrix is not None:
        how = Warp(matrix, augment.fill_mode, augment.cval, augment.interpolation_order, flips)
        warp_into(pixels, how, out, scale=scale, exact=exact)
    elif out.dtype == np.uint8 and (scale != 1 or pixels.dtype != np.uint8):
        out[:] = round_to_bytes(flip(pixels, flips) * np.float32(scale))
    elif scale == 1:
        np.copyto(out, flip(pixels, flips))
    else:
        np.multiply(flip(pixels, flips), np.float32(scale), out=out)
