"""The checks of a sample's image, and its transcoding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Literal

from shardkit.images import header
from shardkit.images.rewrite.transcode import Transcoding, transcode

ImageCheck = Literal["header", "full", "none"]


def _kind_or_unknown(data: bytes) -> tuple[str, int, int]:
    try:
        return header.image_header(data)
    except ValueError:  # check "none": whatever it is, it is packed unchanged
        return "", 0, 0


LOOKS: dict[str, Callable[[bytes], tuple[str, int, int]]] = {
    "header": header.image_header,
    "full": header.check_image,
    "none": _kind_or_unknown,
}
"""ImageCheck -> a function that returns an image's (format, width, height), or raises ValueError if it fails the
check."""


def transcoded(field: str, data: bytes, wish: Transcoding, done: Counter[str]) -> tuple[str, bytes]:
    """(field, bytes) of the transcoded image; `done` counts what was done. ValueError as from `transcode`."""
    made = transcode(data, wish)
    done[made.how] += 1
    done["first of several"] += made.first_of
    done["incomplete JPEG"] += made.incomplete
    return made.field or field, made.data
