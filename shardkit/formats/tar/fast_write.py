"""The packer's fast path for plain JPEGs: the optional C extension `gather`, and what it needs.

It reads files straight into a buffer of whole samples. If it is not built, or for a file that is not plain, Python does
the same work (`packing/write/plain.py`); the bytes are equal either way.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from shardkit.formats.tar.headers import BLOCK, ustar_block
from shardkit.images.jpeg import MAX_SCANS
from shardkit.images.pillow import MAX_PIXELS
from shardkit.native import load

BUFFER_BYTES = 1 << 20
"""The bytes gathered at a time: larger than nearly every image, and within a core's cache."""

MOST_FILES = 2048
_RECORD = struct.Struct("=6q")


@dataclass(frozen=True, slots=True)
class Gathered:
    """Some consecutive samples: their bytes, and (offset, size, width, height, CRC-32C, 0) of each, offsets counted
    from the first byte. The image begins one block after its sample."""

    data: bytes
    records: list[tuple[int, ...]]


def extension() -> Any:
    """The C extension, or None if it was not built or this processor lacks what it needs."""
    return load("gather")[0]


class Gatherer:
    """Gathers the files of one shard. fields: the image field of each file, as text. Requires `extension()`."""

    def __init__(
        self,
        prefix: bytes,
        paths: list[bytes],
        keys: Sequence[str],
        fields: Sequence[str],
        labels: Sequence[int],
        sizes: list[int],
    ) -> None:
        known = {label: b"%d" % label for label in set(labels)}
        names = {field: b"." + field.encode() for field in set(fields)}
        self._lists = (
            paths,
            [key.encode() for key in keys],
            [names[field] for field in fields],
            [known[label] for label in labels],
            sizes,
        )
        self._prefix = prefix
        self._buffer = bytearray(BUFFER_BYTES)
        self._pattern = ustar_block(b"", 0, b"0", b"")

    def take(self, start: int) -> Gathered:
        """The samples from file `start` on, as many as fit the buffer; none if that file is not plain."""
        stop = min(start + MOST_FILES, len(self._lists[0]))
        done, used, records = extension().gather(
            self._pattern, self._prefix, *self._lists, start, stop, MAX_PIXELS, MAX_SCANS, self._buffer
        )
        return Gathered(bytes(memoryview(self._buffer)[:used]) if done else b"", list(_RECORD.iter_unpack(records)))


IMAGE_AT = BLOCK
"""The offset of the image in its sample."""
