"""Seek points of JPEGs: where the fused decoder may enter a file, so that a crop does not cost what lies above it.

They are found once, when a dataset is packed or indexed, and kept in its index. jpeg/seek.h in native/include says what
they are, docs/format/v1.md has their bytes. Without the C decoder there are none, and none are used: the pixels are the
same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from shardkit.errors import UsageError
from shardkit.images.jpeg import MAX_SCANS
from shardkit.images.pillow import MAX_PIXELS
from shardkit.native import load
from shardkit.shards.manifest import Manifest

log = logging.getLogger(__name__)

Buffer = Any
"""bytes, or a memoryview of a mapped shard."""

SHARE = 100
"""The points of an image take at most one byte for so many of the image's."""

CHECKSUM = 4
"""The first bytes of points are the CRC-32C of their image (little-endian)."""

MOST_BYTES = 1 << 16
"""The most bytes of points that an image may have: as SEEK_BYTES in native/include/jpeg/seek.h."""


def available() -> bool:
    """Whether the C decoder was built and can be loaded: without it there are no seek points."""
    return load("jpeg")[0] is not None


def require_available() -> None:
    """UsageError if the C decoder is missing."""
    module, reason = load("jpeg")
    if module is None:
        fact = f"seek points are found by the C extension that decodes JPEGs, which is not available ({reason})"
        cure = "install a C compiler and libjpeg-turbo's headers (libjpeg62-turbo-dev), then reinstall shardkit"
        raise UsageError("seek_points", fact, cure)


def keeps_seek_points(manifest: Manifest | None) -> bool:
    """Whether the shards that a dataset is rewritten to get seek points: if it has them, and the C decoder is there."""
    if manifest is None or not manifest.seek_points:
        return False
    if not available():
        log.warning("the new index has no seek points: only the C extension that decodes JPEGs finds them")
    return available()


def seek_points(data: Buffer, crc32c: int) -> bytes:
    """The seek points of a JPEG, whose CRC-32C is given; b"" if it has none: it is not a baseline JPEG of one scan, is
    damaged, or is so small that they would take more than their share. Releases the GIL. Call only where `available`.
    """
    find: Callable[..., bytes] = load("jpeg")[0].seek_points
    return find(data, crc32c, len(data) // SHARE, float(MAX_PIXELS), MAX_SCANS)


def seek_points_of(shard: Buffer, images: Iterable[tuple[int, int, int]]) -> list[bytes]:
    """The seek points of images in the bytes of their shard. images: (first byte or -1 for none, size, CRC-32C)."""
    view = memoryview(shard)
    return [seek_points(view[at : at + size], crc) if at >= 0 else b"" for at, size, crc in images]


def belongs(points: bytes, crc32c: int) -> bool:
    """Whether points were made for the image with this CRC-32C."""
    return int.from_bytes(points[:CHECKSUM], "little") == crc32c and len(points) > CHECKSUM
