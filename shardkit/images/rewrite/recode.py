"""Pixels for transcoding: an image decoded, shrunk, turned, and encoded again.

Shrinking is Pillow's Lanczos, the best of what there is here, since it is done once and seen in every epoch. A JPEG is
decoded by simplejpeg at 1/2, 1/4 or 1/8 where that leaves `HEADROOM` times the target each way; the result then differs
from Pillow's decode and resize of the whole image by at most 0.1 of 255 in the mean (benchmarks/transcode.py).
Damage is an error here even where Pillow would draw gray: it would be written as if it were the picture.

What an image of many kinds becomes is what `decode()` makes of it: the first frame, alpha dropped where the new format
has none, 16 bits by their high byte. PNG keeps alpha, and gray of 16 bits; WebP keeps alpha. The colours below alpha,
0 too, are kept as they are, since decode() shows them.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Literal

import msgspec

from shardkit.errors import reason_of
from shardkit.images import jpeg
from shardkit.images.orientation import orientation_by_pillow, orientation_in, orientation_of
from shardkit.images.pillow import eight_bit, open_image, quiet_pillow
from shardkit.images.png import has_frames
from shardkit.images.rewrite.metadata import Notes, jpeg_with, notes_of, notes_of_jpeg

if TYPE_CHECKING:
    from PIL import Image

HEADROOM = 2
"""How many decoded pixels DCT scaling must leave for each target pixel, in each direction."""

Kind = Literal["JPEG", "PNG", "WEBP"]


def shrunk_size(size: tuple[int, int], shorter: int | None, longer: int | None) -> tuple[int, int]:
    """(width, height) with the same proportions and at most these sides in pixels; never larger than `size`."""
    parts, whole = 1, 1
    for limit, side in ((shorter, min(size)), (longer, max(size))):
        if limit is not None and limit * whole < parts * side:
            parts, whole = limit, side
    if parts >= whole:
        return size
    width, height = (max(1, (side * parts + whole // 2) // whole) for side in size)
    return width, height


class Picture(msgspec.Struct, frozen=True):
    """A decoded Pillow image with its metadata. first_of: whether it is the first of several in its file."""

    image: Image.Image
    notes: Notes
    orientation: int
    first_of: bool = False


def decode(data: bytes, kind: str, shorter: int | None, longer: int | None) -> Picture:
    """Decode an image; a JPEG at the smallest scale that the target sides allow. ValueError if it can't be decoded."""
    if kind == "JPEG":
        data = jpeg.tidy(data)
    if kind == "JPEG" and (image := _jpeg_image(data, shorter, longer)) is not None:
        notes = notes_of_jpeg(data)
        return Picture(image, notes, orientation_of(notes.exif, notes.xmp))
    return _by_pillow(data, kind)


def _jpeg_image(data: bytes, shorter: int | None, longer: int | None) -> Image.Image | None:
    """Decode a JPEG with simplejpeg; None if Pillow has to do it."""
    from PIL import Image

    frame = jpeg.frame_of(data)
    if frame.components == jpeg.FOUR_COLORS:
        return None
    width, height = frame.width, frame.height
    goal = shrunk_size((width, height), shorter, longer)
    divisor = 1
    while divisor < 8 and 2 * divisor * HEADROOM * goal[0] <= width and 2 * divisor * HEADROOM * goal[1] <= height:
        divisor *= 2
    least = -(-height // divisor), -(-width // divisor)
    pixels = jpeg.turbo_pixels(data, jpeg.color_of(frame), least=least)
    return None if pixels is None else Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def _by_pillow(data: bytes, kind: str) -> Picture:
    with open_image(data) as image:
        notes = notes_of(data, kind, image)
        several = bool(getattr(image, "is_animated", False)) or has_frames(data)
        image.load()
        return Picture(image.copy(), notes, _orientation(data, image), several)


def orientation_of_file(data: bytes) -> int:
    """The orientation of a file of any format, 1 … 8. ValueError if it can't be opened."""
    told = orientation_in(data)
    if told is not None:
        return told
    with open_image(data) as image:
        image.load()
        return _orientation(data, image)


def _orientation(data: bytes, image: Image.Image) -> int:
    """The orientation of a loaded image, since loading turns a TIFF."""
    told = orientation_in(data)
    return orientation_by_pillow(image) if told is None else told


def prepare(image: Image.Image, kind: Kind) -> Image.Image:
    """Convert the image to a mode that the format supports and that can be resized. See the module docstring."""
    with quiet_pillow():
        return _in_mode_of(image, kind)


def _in_mode_of(image: Image.Image, kind: Kind) -> Image.Image:
    mode = image.mode
    if mode.startswith("I") or mode == "F":
        if kind == "PNG" and mode.startswith("I"):
            return image.convert("I")
        return eight_bit(image)
    if kind != "JPEG" and (image.has_transparency_data or mode in ("LA", "La", "PA", "RGBA", "RGBa")):
        gray = mode in ("1", "L", "LA", "La") and kind == "PNG"
        return image.convert("LA" if gray else "RGBA")
    return image.convert("L" if mode in ("1", "L", "LA", "La") else "RGB")


def resize_image(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Resize the image. Colours under alpha are kept, since decode() shows them; Pillow alone would blacken them."""
    from PIL import Image

    if image.size == size:
        return image
    if image.mode in ("LA", "RGBA"):
        made = image.convert(image.mode[:-1]).resize(size, Image.Resampling.LANCZOS)
        made.putalpha(image.getchannel("A").resize(size, Image.Resampling.LANCZOS))
        return made
    return image.resize(size, Image.Resampling.LANCZOS)


def encode(image: Image.Image, kind: Kind, notes: Notes, *, quality: int, subsampling: int, lossless: bool) -> bytes:
    """Encode the image. quality: for JPEG and WebP, 1 to 100. lossless: for WebP. ValueError if the format can't store
    it."""
    fitting = {"L": b"GRAY", "LA": b"GRAY", "I": b"GRAY", "RGB": b"RGB ", "RGBA": b"RGB "}[image.mode]
    if notes.icc[16:20] != fitting:  # a profile for CMYK says nothing about RGB
        notes = Notes(notes.exif, notes.xmp)
    try:
        if kind == "JPEG":
            return jpeg_with(_jpeg(image, quality, subsampling), notes)
        return _webp(image, notes, quality, lossless=lossless) if kind == "WEBP" else _png(image, notes)
    except MemoryError:
        raise
    except Exception as exc:  # Pillow's plugins raise nearly anything
        raise ValueError(f"can't be written as {kind}: {reason_of(exc)}") from exc


def _jpeg(image: Image.Image, quality: int, subsampling: int) -> bytes:
    """Encode by simplejpeg: Pillow's optimised Huffman tables save 3 % and take a millisecond, but fail on noise."""
    import numpy as np
    import simplejpeg

    pixels = np.asarray(image)
    if image.mode == "L":
        data: bytes = simplejpeg.encode_jpeg(pixels[:, :, None], quality, "GRAY", "Gray")
    else:
        data = simplejpeg.encode_jpeg(pixels, quality, "RGB", str(subsampling))
    return data


def _webp(image: Image.Image, notes: Notes, quality: int, *, lossless: bool) -> bytes:
    sink = io.BytesIO()
    image.info = {}  # Pillow would write some of it
    image.save(
        sink, "WEBP", quality=quality, lossless=lossless, exif=notes.exif, icc_profile=notes.icc or None, xmp=notes.xmp,
        exact=True,  # keeps the colours under alpha 0, which decode() shows
    )  # fmt: skip
    return sink.getvalue()


def _png(image: Image.Image, notes: Notes) -> bytes:
    import numpy as np
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    sink, text = io.BytesIO(), PngInfo()
    if image.mode == "I":
        image = Image.fromarray(np.asarray(image).clip(0, 0xFFFF).astype(np.uint16))
    if notes.xmp:
        text.add_itxt("XML:com.adobe.xmp", notes.xmp.decode("utf-8", "replace"))
    image.info = {}
    image.save(sink, "PNG", exif=notes.exif, icc_profile=notes.icc or None, pnginfo=text)
    return sink.getvalue()
