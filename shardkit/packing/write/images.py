"""How closely the image of a sample is looked at, and what it becomes."""

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
    except ValueError:  # check "none": whatever it is, it goes in as it is
        return "", 0, 0


LOOKS: dict[str, Callable[[bytes], tuple[str, int, int]]] = {
    "header": header.image_header,
    "full": header.check_image,
    "none": _kind_or_unknown,
}
"""ImageCheck -> what gives an image's (format, width, height), with a ValueError for one that does not pass."""


def transcoded(field: str, data: bytes, wish: Transcoding, done: Counter[str]) -> tuple[str, bytes]:
    """(field, bytes) of an image as it is asked for; `done` counts. ValueError as from `transcode`."""
    made = transcode(data, wish)
    done[made.how] += 1
    done["first of several"] += made.first_of
    done["incomplete JPEG"] += made.incomplete
    return made.field or field, made.data
