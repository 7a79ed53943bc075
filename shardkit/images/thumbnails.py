"""Images as people look at them: opened as RGB, made smaller, and written as small JPEG files."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

from shardkit.images.header import image_header
from shardkit.images.jpeg import can_be_scaled, tidy
from shardkit.images.pillow import eight_bit, open_image

if TYPE_CHECKING:
    from PIL import Image


def open_picture(content: bytes, *, side: int | None = None) -> Image.Image:
    """Open an image file as RGB. side: target length of the longer side, which lets JPEGs be decoded at reduced size.

    ValueError with a short reason if it can't be decoded.
    """
    if image_header(content, decode_rare=False)[0] == "JPEG":
        content = tidy(content)
    with open_image(content) as image:
        if side is not None and can_be_scaled(content):
            image.draft("RGB", (2 * side, 2 * side))
        image.load()
        return eight_bit(image).convert("RGB")


def thumbnail(image: Image.Image, side: int) -> Image.Image:
    """The whole image, scaled down to fit side x side pixels, never enlarged."""
    from PIL.Image import Resampling

    small = image.copy()
    small.thumbnail((side, side), Resampling.BOX if max(image.size) > 4 * side else Resampling.LANCZOS)
    return small


def jpeg_bytes(image: Image.Image, *, quality: int = 72) -> bytes:
    """The image as a small JPEG file, without any of the original's metadata."""
    sink = io.BytesIO()
    image.convert("RGB").save(sink, "JPEG", quality=quality, optimize=True)
    return sink.getvalue()


def data_uri(image: Image.Image) -> str:
    """The image as the `src` of an `<img>` that needs no file."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg_bytes(image)).decode()
