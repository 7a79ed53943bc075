"""The optional decoder in C (native/jpeg.c): a run of JPEGs straight into their slots, decoding only what they need.

It is there where a C compiler and libjpeg-turbo's headers were when shardkit was installed. What it does not take
(other formats and colour spaces, damaged images, anything odd) goes the way of `images.py`, so that the errors are the
same. Its pixels are nearer to Pillow's antialiased bilinear resize than those of that way (benchmarks/fused.py).
One difference is left: damage below the last row that a crop needs is not seen.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shardkit.images.jpeg import MAX_SCANS
from shardkit.images.pixels import Buffer, Pixels
from shardkit.native import load

log = logging.getLogger(__name__)

CROPS = ("resize", "center", "random")  # their numbers in C

Failures = list[tuple[int, str]]


@dataclass(frozen=True, slots=True)
class FusedSettings:
    """What the C side has to know. size: (height, width, channels). crop: as `DecodeOptions.crop`."""

    size: tuple[int, int, int]
    crop: str
    flip: bool
    headroom: float
    max_pixels: int


def available() -> bool:
    """Whether the decoder in C was built, and loads."""
    return load("jpeg")[0] is not None


def build_info() -> dict[str, str]:
    """Which JPEG decoder is in use, and what is to be known about it.

    "jpeg decoder": "fused" or "simplejpeg". With "fused" also "libjpeg-turbo", the version built against; with
    "simplejpeg" also "reason", why the other one did not load.
    """
    module, reason = load("jpeg")
    if module is None:
        return {"jpeg decoder": "simplejpeg", "reason": reason}
    return {"jpeg decoder": "fused", "libjpeg-turbo": module.libjpeg_turbo}


def decode_batch(
    settings: FusedSettings, datas: Sequence[Buffer | None], out: Pixels, draws: NDArray[np.float64] | None
) -> Failures:
    """Each image into its slot of out, contiguous uint8 (n, height, width, channels). Several threads may call this.

    draws: a contiguous row for each image, as `ImageDecoder.draws` gives them. Gives (index, reason) of the images that
    were not decoded, None among datas too; what their slots hold is undefined. Call only where `available`.
    """
    decode: Callable[..., Failures] = load("jpeg")[0].decode_batch
    crop, flip = CROPS.index(settings.crop), settings.flip and draws is not None
    limits = settings.headroom, float(settings.max_pixels), MAX_SCANS
    return decode(datas, out, settings.size, crop, flip, draws, *limits)
