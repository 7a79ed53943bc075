"""The pixels of one image: decoded, turned upright, cropped and resized. Nothing here is random or knows about batches.

Fast: libjpeg-turbo, its DCT scaling, and OpenCV. Bilinear shrinking by OpenCV alone aliases, since it uses two pixels
in each direction however much it shrinks; so the source is first smoothed by a 3 x 3 or 5 x 5 Gaussian. Its variance
is what linear interpolation lacks compared to the triangle of Pillow's antialiased filter: (s² - 1) / 6 for shrinking
by s, in pixels² (a triangle of half-width s has s² / 6, linear interpolation has 1/6). On photographs at 224 x 224
this is three times as fast as Pillow or INTER_AREA and closer to Pillow than INTER_AREA is
(benchmarks/decode_accuracy.py).
Exact: Pillow for everything.
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
from shardkit.images.crops import Box, pixel_span
from shardkit.images.header import image_header
from shardkit.images.orientation import orientation_by_pillow, orientation_in
from shardkit.images.pillow import bad_size, eight_bit, open_image, turn

if TYPE_CHECKING:
    from PIL import Image

Buffer = bytes | memoryview
Pixels = NDArray[np.uint8]

UPRIGHT = 1

SCRATCH_BYTES = 16 << 20  # a larger image gets its own memory, which is released

REDUCED_FROM, REDUCED_TO = 32, 8
"""Shrinking by more than REDUCED_FROM is done in two steps, the second by about REDUCED_TO."""

_thread = threading.local()


def scratch(slot: str, nbytes: int) -> Pixels:
    """At least `nbytes` of memory that this thread reuses for each image: fresh pages cost as much as a flip."""
    kept: Pixels | None = getattr(_thread, slot, None)
    if kept is None or kept.size < nbytes:
        kept = np.empty(nbytes, np.uint8)
        if nbytes <= SCRATCH_BYTES:
            setattr(_thread, slot, kept)
    return kept


@lru_cache(maxsize=1)
def opencv() -> Any:
    """cv2 with its own threads disabled in the whole process: our threads already decode images in parallel."""
    import cv2

    cv2.setNumThreads(1)
    return cv2


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
    if pixels is not None and frame.components != jpeg.FOUR_COLORS and _pillow_has_turbo():
        return Image.fromarray(pixels if frame.components > 1 else pixels[:, :, 0])
    with open_image(content, max_pixels=max_pixels) as image:
        image.load()
        return image


@lru_cache(maxsize=1)
def _pillow_has_turbo() -> bool:
    from PIL import features

    return bool(features.check_feature("libjpeg_turbo"))


def pillow_filter(interpolation: str) -> Any:
    """Pillow's filter for an interpolation: area is BOX."""
    from PIL import Image

    return Image.Resampling["BOX" if interpolation == "area" else interpolation.upper()]


def resize_exact(image: Image.Image, box: Box, size: tuple[int, int], interpolation: str) -> Pixels:
    """Resize a box with `Image.resize`, to uint8 (height, width, 3 or 1)."""
    top, left, height, width = box
    # Pillow refuses a box that extends beyond the image by a rounding error
    edges = (left, top, min(left + width, image.width), min(top + height, image.height))
    resized = image.resize((size[1], size[0]), pillow_filter(interpolation), box=edges)
    return np.asarray(resized).reshape(*size, -1)


def resize_into(pixels: Pixels, box: Box, out: Pixels, interpolation: str) -> None:
    """Resize a box of (h, w, c) pixels to fill `out`, uint8 (height, width, c), contiguous.

    A fractional box (a whole box after DCT scaling) is used exactly, except with area and nearest, which round its
    edges to whole pixels.
    """
    if interpolation in ("bicubic", "lanczos"):
        _resize_by_pillow(pixels, box, out, interpolation)
        return
    if interpolation == "bilinear":
        pixels, box = _reduced(pixels, box, out)
    if interpolation == "bilinear" and not all(float(edge).is_integer() for edge in box):
        _warp_into(pixels, box, out)
        return
    top, bottom = pixel_span(box[0], box[2], pixels.shape[0])
    left, right = pixel_span(box[1], box[3], pixels.shape[1])
    part = pixels[top:bottom, left:right]
    height, width = part.shape[:2]
    if part.shape == out.shape:
        out[:] = part
    elif interpolation == "bilinear":
        smooth = _smoothed(part, height / out.shape[0], width / out.shape[1])
        _resize_by_opencv(smooth, out, opencv().INTER_LINEAR)
    elif interpolation == "nearest":
        _resize_by_opencv(part, out, opencv().INTER_NEAREST_EXACT)
    elif height >= out.shape[0] and width >= out.shape[1]:
        _resize_by_opencv(part, out, opencv().INTER_AREA)
    else:  # when enlarging, INTER_AREA is not a box filter
        _resize_by_pillow(part, (0, 0, height, width), out, interpolation)


def _reduced(pixels: Pixels, box: Box, out: Pixels) -> tuple[Pixels, Box]:
    """(pixels, box), averaged over whole cells if they would be shrunk more than `REDUCED_FROM` times.

    A Gaussian that wide would take minutes for an image of 200 million pixels.
    """
    shrink = box[2] / out.shape[0], box[3] / out.shape[1]
    cells = [int(times // REDUCED_TO) if times > REDUCED_FROM else 1 for times in shrink]
    if cells == [1, 1]:
        return pixels, box
    height, width = (-(-side // cell) for side, cell in zip(pixels.shape[:2], cells, strict=True))
    small = opencv().resize(pixels, (width, height), interpolation=opencv().INTER_AREA).reshape(height, width, -1)
    down, across = height / pixels.shape[0], width / pixels.shape[1]
    return small, (box[0] * down, box[1] * across, box[2] * down, box[3] * across)


def _resize_by_opencv(pixels: Pixels, out: Pixels, code: int) -> None:
    opencv().resize(pixels, (out.shape[1], out.shape[0]), out, interpolation=code)


def _warp_into(pixels: Pixels, box: Box, out: Pixels) -> None:
    """Bilinear resize of a fractional box, since `cv2.resize` takes only whole pixels. Pixel centres are at n + 1/2."""
    cv2 = opencv()
    height, width = out.shape[:2]
    shrink_y, shrink_x = box[2] / height, box[3] / width
    top, left = max(math.floor(box[0]) - 2, 0), max(math.floor(box[1]) - 2, 0)  # 2: the reach of the filters
    part = pixels[top : math.ceil(box[0] + box[2]) + 2, left : math.ceil(box[1] + box[3]) + 2]
    to_source = np.array(
        [
            [shrink_x, 0, box[1] - left + shrink_x / 2 - 0.5],
            [0, shrink_y, box[0] - top + shrink_y / 2 - 0.5],
        ]
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    smooth = _smoothed(part, shrink_y, shrink_x)
    cv2.warpAffine(smooth, to_source, (width, height), out, flags=flags, borderMode=cv2.BORDER_REPLICATE)


def _resize_by_pillow(pixels: Pixels, box: Box, out: Pixels, interpolation: str) -> None:
    from PIL import Image

    image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0])
    out[:] = resize_exact(image, box, (out.shape[0], out.shape[1]), interpolation)


def _smoothed(pixels: Pixels, shrink_y: float, shrink_x: float) -> Pixels:
    cv2 = opencv()
    kernel_y, sigma_y = gaussian_for(round(shrink_y, 2))
    kernel_x, sigma_x = gaussian_for(round(shrink_x, 2))
    if kernel_y == kernel_x == 1:
        return pixels
    out = scratch("smoothed", pixels.size)[: pixels.size].reshape(pixels.shape)
    blurred: Pixels = cv2.GaussianBlur(
        pixels, (kernel_x, kernel_y), sigma_x, dst=out, sigmaY=sigma_y, borderType=cv2.BORDER_REPLICATE
    )
    return blurred


@lru_cache(maxsize=4096)
def gaussian_for(shrink: float) -> tuple[int, float]:
    """(taps, sigma) of the Gaussian before linear shrinking; one tap if it would have almost no effect.

    Three taps [a, 1 - 2a, a] have the variance 2a, so sigma² = 1 / (2 ln((1 - 2a) / a)) is exact.
    """
    variance = (shrink * shrink - 1) / 6
    if variance < 0.04:
        return 1, 1.0
    if variance < 0.6:
        a = variance / 2
        return 3, math.sqrt(1 / (2 * math.log((1 - 2 * a) / a)))
    sigma = math.sqrt(variance)
    return 2 * math.ceil(1.8 * sigma) + 1, sigma
