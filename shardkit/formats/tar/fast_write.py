"""The packer's fast path for plain JPEGs and PNGs, to shards of either format: the optional C extension `gather`, and
what it needs.

It reads files and writes whole samples, without the GIL. If it is not built, or for a file that is not plain, Python
does the same work (`packing/write/plain.py`); the bytes are equal either way.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from shardkit.formats.tar.headers import ustar_block
from shardkit.formats.tar.read_ahead import ReadAhead
from shardkit.images.jpeg import MAX_SCANS
from shardkit.images.pillow import MAX_PIXELS
from shardkit.native import load
from shardkit.sample import IMAGE_FIELDS, texts_of_paths
from shardkit.system import POSIX

BUFFER_BYTES = 1 << 20
"""The buffer for samples: larger than nearly every image, and within a core's cache."""

CALL_BYTES = 1 << 24
"""About the bytes that one call writes; after it the progress is reported."""

FEWEST_FILES, MOST_FILES = 32, 1 << 14
"""The files handed over in one call: few after one that was not plain, and then twice as many each time."""


class Gathered(msgspec.Struct, frozen=True):
    """Some consecutive samples that were written. size: their bytes. crc: the CRC-32C of the output up to their end.

    Columns with a number for each: offset (in the output), length, the image's offset, width, height, and CRC-32C of
    the image.
    """

    count: int
    size: int
    crc: int
    offsets: array[int]
    lengths: array[int]
    starts: array[int]
    widths: array[int]
    heights: array[int]
    crcs: array[int]


class StoredMembers(msgspec.Struct, frozen=True):
    """Where the files are in an archive, of which `fd` is open. numbers: native int64, (offset, packed size, method,
    CRC-32) for each; the method is that of a zip, IN_TAR for a tar."""

    fd: int
    numbers: bytes


class StoredTexts(msgspec.Struct, frozen=True):
    """What TFRecord stores beside the files: the path of each as the source has it, and label -> class name."""

    paths: list[bytes]
    classes: Mapping[int, str]


IN_TAR = -1


def extension() -> Any:
    """The C extension, or None if it was not built, or this system or processor lacks what it needs."""
    return load("gather")[0] if POSIX else None


class Gatherer:
    """Writes the files of one shard, which are below `root`, or in an archive. fields: the image field of each file, as
    text. held: the files in the archive, or what was read of those below `root` before. stored: for TFRecord. Requires
    `extension()`."""

    def __init__(
        self,
        root: bytes,
        paths: list[bytes],
        keys: Sequence[str],
        fields: Sequence[str],
        labels: list[int],
        sizes: list[int],
        held: StoredMembers | ReadAhead | None = None,
        stored: StoredTexts | None = None,
    ) -> None:
        known = {field: field.encode() if field in IMAGE_FIELDS else b"" for field in set(fields)}
        one = next(iter(known.values())) if len(known) == 1 else None  # nearly always: the loop is a tenth of the cost
        named = [known[field] for field in fields] if one is None else [one] * len(fields)
        self._lists = (paths, [key.encode() for key in keys], named, labels, sizes)
        self._stored = (None, None) if stored is None else _stored(stored, labels)
        self._ahead = (held.images, held.prefix) if isinstance(held, ReadAhead) else (None, b"")
        self._members = held.numbers if isinstance(held, StoredMembers) else None
        self._root = os.dup(held.fd) if isinstance(held, StoredMembers) else _folder(root)
        self._files = MOST_FILES
        self._buffer = bytearray(BUFFER_BYTES)
        self._pattern = ustar_block(b"", 0, b"0", b"")

    def write(self, start: int, fd: int, at: int, crc: int, most: int | None = None) -> Gathered | None:
        """Write the samples from file `start` on to `fd`; None if that file is not plain. Raises OSError.

        at, crc: the bytes of the output so far, and their CRC-32C. most: about the bytes to write, if not CALL_BYTES.
        """
        if self._root is None:
            return None
        stop = min(start + self._files, len(self._lists[0]))
        count, size, crc, records = extension().write(
            fd, at, crc, self._root, self._pattern, *self._lists, start, stop, most or CALL_BYTES, MAX_PIXELS,
            MAX_SCANS, self._buffer, self._members, *self._stored,
            *self._ahead,
        )  # fmt: skip
        self._files = min(2 * self._files, MOST_FILES) if count else FEWEST_FILES
        numbers = array("q", records)
        return Gathered(count, size, crc, *(numbers[column::6] for column in range(6))) if count else None

    def close(self) -> None:
        """Close the folder or the archive."""
        if self._root is not None:
            os.close(self._root)
            self._root = None


def _stored(texts: StoredTexts, labels: Sequence[int]) -> tuple[list[bytes], list[bytes]]:
    """The path and the class of each file, as they are stored."""
    known = {label: texts.classes.get(label, "").encode() for label in set(labels)}
    return [text.encode() for text in texts_of_paths(texts.paths)], [known[label] for label in labels]


def _folder(path: bytes) -> int | None:
    """A descriptor of the folder; None if it can't be opened, which Python reports with the first file."""
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return None
