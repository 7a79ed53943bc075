"""The quality columns of an index: for each image a perceptual hash, brightness, sharpness and entropy.

They are found when a dataset is packed or indexed, if wanted; images/quality/quality.py says what each is. All four
are null for a sample without an image, and for an image that can't be decoded.
"""

from __future__ import annotations

import logging
import math
import struct
from collections.abc import Iterable
from typing import Any

from shardkit.images.quality.quality import quality

log = logging.getLogger(__name__)

Buffer = Any
"""bytes, or a memoryview of a mapped shard."""

PHASH, BRIGHTNESS, SHARPNESS, ENTROPY = QUALITY = ("phash", "brightness", "sharpness", "entropy")

UNDECODED = "not decoded"
"""What receipts count images by that can't be decoded."""

RECORD = struct.Struct("<Qfff")
"""The four values of a sample, until its index is written; the last three are NaN for null."""

NULL = RECORD.pack(0, math.nan, math.nan, math.nan)


def quality_of_images(shard: Buffer, images: Iterable[tuple[int, int]]) -> tuple[bytes, int]:
    """(a RECORD for each image in the bytes of their shard; how many can't be decoded). images: (first byte or -1 for
    none, size)."""
    view, found, undecoded = memoryview(shard), [], 0
    for at, size in images:
        record = NULL
        if at >= 0:
            try:
                record = RECORD.pack(*quality(view[at : at + size]))
            except ValueError:
                undecoded += 1
        found.append(record)
    return b"".join(found), undecoded


def tell_undecoded(count: int) -> None:
    """Log how many images can't be decoded."""
    if count:
        log.warning("images that can't be decoded, whose quality columns are null: %d", count)
