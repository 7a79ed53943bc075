"""The pixels of one image: decoded, turned upright, cropped and resized. Nothing is random or knows about batches.

JPEGs are decoded by simplejpeg (libjpeg-turbo), at a smaller scale where the target allows it. Pillow decodes all
else, and resizes everything, with its antialiased filters: only a JPEG decoded at a smaller scale differs from `exact`
(benchmarks/decode_accuracy.py measures by how much). The C decoder (fused.py) does all of this in one step; this is the
path for what it leaves out, and where it was not built.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shardkit.images import jpeg
from shardkit.images.crops import Box
from shardkit.images.header import image_header
from shardkit.images.orientation import orientation_by_pillow, orientation_in
from shardkit.images.pillow import bad_size, eight_bit, open_image, turn

if TYPE_CHECKING:
    from PIL import Image

Buffer = bytes | memoryview
Pixels = NDArray[np.uint8]

UPRIGHT = 1

SCRATCH_BYTES = 16 << 20  # a larger image gets its own memory, which is released

FILTER_REACH = {"nearest": 0.5, "area": 0.5, "bilinear": 1, "hamming": 1, "bicubic": 2, "lanczos": 3}
"""How far a filter reaches from the centre of an output pixel, in output pixels (in input pixels when enlarging)."""

_thread = threading.local()


def scratch(slot: str, nbytes: int) -> Pixels:
    """At least `nbytes` of memory that this thread reuses for each image: fresh pages cost as much as a flip."""
    kept: Pixels | None = getattr(_thread, slot, None)
    if kept is None or kept.size < nbytes:
        kept = np.empty(nbytes, np.uint8)
        if nbytes <= SCRATCH_BYTES:
            setattr(_thread, slot, kept)
    return kept


def flip(pixels: Pixels) -> None:
    """Mirror (h, w, c) contiguous pixels left to right, in place."""
    height, width, channels = pixels.shape
    rows = pixels.reshape(height, width * channels)
    rows[:] = rows.take(_mirrored(width, channels), axis=1)


@lru_cache(maxsize=16)
def _mirrored(width: int, channels: int) -> NDArray[np.intp]:
    return (np.arange(width)[::-1, None] * channels + np.arange(channels)).ravel()


def is_jpeg(data: Buffer) -> bool:
    """Whether the data starts as a JPEG."""
    return data[:2] == b"\xff\xd8"


def jpeg_size(data: Buffer, max_pixels: int) -> tuple[int, int] | None:
    """(height, width) of a JPEG that simplejpeg may be able to decode as Pillow does; None if Pillow has to decide.

    ValueError with the reason if nothing here decodes it.
    """
    frame = jpeg.frame_of(data)
    if not 0 < frame.height * frame.width <= max_pixels:
        raise ValueError(bad_size("JPEG", frame.width, frame.height, max_pixels))
    if frame.components == jpeg.FOUR_COLORS or frame.marker not in jpeg.DCT_FRAMES:
        return None
    return frame.height, frame.width


def decode_jpeg(
    data: Buffer, size: tuple[int, int], *, gray: bool, divisor: int = 1, buffer: Pixels | None = None
) -> Pixels | None:
    """Decode to uint8 (ceil(height / divisor), ceil(width / divisor), 3 or 1), in `buffer` if one is given.

    None if Pillow has to decide; ValueError if pixels are lost.
    """
    color, least = "GRAY" if gray else "RGB", (-(-size[0] // divisor), -(-size[1] // divisor))
    damage: ValueError | None = None
    try:
        pixels = jpeg.turbo_pixels(data, color, least=least, buffer=buffer)
        if pixels is not None:
            return pixels
    except ValueError as exc:  # raised below, unless another decoder reads the image
        damage = exc
    content = bytes(data)
    image_header(content, decode_rare=False)  # raises a more precise error for a cut file
    tidied = jpeg.tidy(content)
    if tidied is not content:
        return jpeg.turbo_pixels(tidied, color, least=least, buffer=buffer)
    if damage is not None:
        raise damage
    return None


@lru_cache(maxsize=2)
def straight_decoder(*, gray: bool) -> Callable[[Buffer, Pixels], bool]:
    """A function that decodes a JPEG of the slot's size directly into the slot; it returns False if that failed."""
    import simplejpeg

    decode, color = simplejpeg.decode_jpeg, "GRAY" if gray else "RGB"

    def decode_straight(data: Buffer, slot: Pixels) -> bool:
        try:
            decode(data, color, False, False, 0, 0, 1, slot)
        except ValueError:  # the slower way decodes it, or reports what is wrong
            return False
        return True

    return decode_straight


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """Turn the image (h, w, c) upright; a contiguous copy unless the orientation is 1."""
    if orientation == 1:
        return pixels
    turned = pixels.transpose(1, 0, 2) if orientation >= 5 else pixels
    if orientation in (3, 4, 7, 8):
        turned = turned[::-1]
    if orientation in (2, 3, 6, 7):
        turned = turned[:, ::-1]
    return np.ascontiguousarray(turned)


def pillow_image(data: Buffer, *, gray: bool, orientation: bool, max_pixels: int) -> Image.Image:
    """Decode the whole image with Pillow to mode L or RGB: the first frame, without alpha (as in Keras), 16 bits as 8.

    ValueError with a short reason, never another exception from Pillow.
    """
    content = bytes(data)
    name = image_header(content, max_pixels=max_pixels, decode_rare=False)[0]
    told = orientation_in(content) if orientation else UPRIGHT
    if name == "JPEG":
        return turn(_jpeg_image(content, max_pixels).convert("L" if gray else "RGB"), told or UPRIGHT)
    with open_image(content, max_pixels=max_pixels) as image:
        image.load()
        whole = eight_bit(image).convert("L" if gray else "RGB")
        return turn(whole, orientation_by_pillow(image) if told is None else told)


def _jpeg_image(content: bytes, max_pixels: int) -> Image.Image:
    """Decode a JPEG with simplejpeg as well, since Pillow fills lost pixels with gray. Both usually use libjpeg-turbo:
    the pixels are then bit-equal to Pillow's."""
    from PIL import Image

    content = jpeg.tidy(content)
    frame = jpeg.frame_of(content)
    pixels = jpeg.turbo_pixels(content, jpeg.color_of(frame))
    if pixels is not None and frame.components != jpeg.FOUR_COLORS and pillow_has_turbo():
        return Image.fromarray(pixels if frame.components > 1 else pixels[:, :, 0])
    with open_image(content, max_pixels=max_pixels) as image:
        image.load()
        return image


@lru_cache(maxsize=1)
def pillow_has_turbo() -> bool:
    """Whether Pillow decodes JPEGs with libjpeg-turbo, as everything else here."""
    from PIL import features

    return bool(features.check_feature("libjpeg_turbo"))


def pillow_filter(interpolation: str) -> Any:
    """Pillow's filter for an interpolation: area is BOX."""
    from PIL import Image

    return Image.Resampling["BOX" if interpolation == "area" else interpolation.upper()]


@lru_cache(maxsize=1)
def resizes_tall_first() -> bool:
    """Whether Pillow resizes the columns before the rows where an image gets much lower, as it does from version 13 on.

    Bytes are rounded between the two, so that the order shows.
    """
    from PIL import Image

    image = Image.fromarray((np.arange(600) * 7919 % 251).astype(np.uint8).reshape(60, 10))
    rows_first = image.resize((8, 60), Image.Resampling.BICUBIC).resize((8, 8), Image.Resampling.BICUBIC)
    return image.resize((8, 8), Image.Resampling.BICUBIC).tobytes() != rows_first.tobytes()


def resize_exact(image: Image.Image, box: Box, size: tuple[int, int], interpolation: str) -> Pixels:
    """Resize a box with `Image.resize`, to uint8 (height, width, 3 or 1)."""
    top, left, height, width = box
    # Pillow refuses a box that extends beyond the image by a rounding error
    edges = (left, top, min(left + width, image.width), min(top + height, image.height))
    resized = image.resize((size[1], size[0]), pillow_filter(interpolation), box=edges)
    return np.asarray(resized).reshape(*size, -1)


def resize_into(pixels: Pixels, box: Box, out: Pixels, interpolation: str) -> None:
    """Resize a box of (h, w, c) pixels to fill `out`, uint8 (height, width, c), contiguous, as `resize_exact` does.

    A fractional box (a whole box after DCT scaling) is used exactly.
    """
    from PIL import Image

    size = (out.shape[0], out.shape[1])
    if box[2:] == size and float(box[0]).is_integer() and float(box[1]).is_integer():
        top, left = int(box[0]), int(box[1])
        out[:] = pixels[top : top + size[0], left : left + size[1]]
        return
    (top, bottom), (left, right) = (
        _reached(box[axis], box[axis + 2], size[axis], pixels.shape[axis], FILTER_REACH[interpolation])
        for axis in (0, 1)
    )
    whole, reached = pixels.shape[:2], (bottom - top, right - left)
    if interpolation in ("nearest", "area") or _columns_first(whole, size) != _columns_first(reached, size):
        top, left, bottom, right = 0, 0, *whole  # filters with an edge: rounding depends on where the box begins
    part = pixels[top:bottom, left:right]
    image = Image.fromarray(part if part.shape[2] == 3 else part[:, :, 0])
    inside = (box[0] - top, box[1] - left, box[2], box[3])
    out[:] = resize_exact(image, inside, size, interpolation)


def _columns_first(shape: tuple[int, ...], size: tuple[int, int]) -> bool:
    """Pillow's rule, which depends on the size of the image, not of the box."""
    return resizes_tall_first() and size[0] < shape[0] and shape[0] - size[0] > 2 * (shape[1] - size[1])


def _reached(start: float, length: float, out: int, limit: int, reach: float) -> tuple[int, int]:
    """(first, one past the last) of the pixels of an axis that a resized span depends on: Pillow gets no others."""
    around = math.ceil(reach * max(length / out, 1)) + 1
    return max(math.floor(start) - around, 0), min(math.ceil(start + length) + around, limit)
