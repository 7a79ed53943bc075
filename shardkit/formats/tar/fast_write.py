"""The packer's fast path for plain JPEGs and PNGs, to shards of either format: the optional C extension `gather`, and
what it needs.

It reads files and writes whole samples, without the GIL. If it is not built, or for a file that is not plain, Python
does the same work (`packing/write/plain.py`); the bytes are equal either way.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from shardkit.formats.columns import Fields, Strings, texts_of_paths
from shardkit.formats.tar.headers import ustar_block
from shardkit.formats.tar.read_ahead import ReadAhead
from shardkit.images.jpeg import MAX_SCANS
from shardkit.images.pillow import MAX_PIXELS
from shardkit.native import load
from shardkit.sample import IMAGE_FIELDS
from shardkit.system import POSIX

BUFFER_BYTES = 1 << 20
"""The buffer for samples: larger than nearly every image, and within a core's cache."""

CALL_BYTES = 1 << 24
"""About the bytes that one call writes; after it the progress is reported."""

FEWEST_FILES, MOST_FILES = 32, 1 << 14
"""The files handed over in one call: few after one that was not plain, and then twice as many each time."""


class Gathered(msgspec.Struct, frozen=True):
    """Some consecutive samples that were written. size: their bytes. crc: the CRC-32C of the output up to their end.
    jpegs, progressive: as in `Receipt`.

    Columns with a number for each, as `int64s` views them: offset (in the output), length, the image's offset, width,
    height, and CRC-32C of the image.
    """

    count: int
    size: int
    crc: int
    jpegs: int
    progressive: int
    offsets: bytes
    lengths: bytes
    starts: bytes
    widths: bytes
    heights: bytes
    crcs: bytes


class PlainFiles(NamedTuple):
    """The files of one shard, a row each. paths: below their folder. labels, sizes: as `int64s` views them; labels are
    not negative."""

    paths: Strings
    keys: Strings
    fields: Fields
    labels: bytes
    sizes: bytes


class StoredMembers(msgspec.Struct, frozen=True):
    """Where the files are in an archive, of which `fd` is open. numbers: native int64, (offset, packed size, method,
    CRC-32) for each; the method is that of a zip, IN_TAR for a tar."""

    fd: int
    numbers: bytes


class StoredTexts(msgspec.Struct, frozen=True):
    """What TFRecord stores beside the files: the path of each as the source has it, and label -> class name."""

    paths: Strings
    classes: Mapping[int, str]


IN_TAR = -1


def extension() -> Any:
    """The C extension, or None if it was not built, or this system or processor lacks what it needs."""
    return load("gather")[0] if POSIX else None


class Gatherer:
    """Writes the files of one shard, which are below `root`, or in an archive. held: the files in the archive, or what
    was read of those below `root` before. stored: for TFRecord. Requires `extension()`."""

    def __init__(
        self,
        root: bytes,
        files: PlainFiles,
        held: StoredMembers | ReadAhead | None = None,
        stored: StoredTexts | None = None,
    ) -> None:
        named = tuple(field.encode() if field in IMAGE_FIELDS else b"" for field in files.fields.names)
        self._count = len(files.paths)
        self._columns = (*map(_pair, files[:2]), files.fields.places, named, files.labels, files.sizes)
        self._stored = (None, None) if stored is None else _stored(stored)
        self._ahead = (held.images, held.prefix) if isinstance(held, ReadAhead) else (None, b"")
        self._members = held.numbers if isinstance(held, StoredMembers) else None
        self._root = os.dup(held.fd) if isinstance(held, StoredMembers) else _folder(root)
        self._files = MOST_FILES
        self._pattern = ustar_block(b"", 0, b"0", b"")

    def write(self, start: int, fd: int, at: int, crc: int, most: int | None = None) -> Gathered | None:
        """Write the samples from file `start` on to `fd`; None if that file is not plain. Raises OSError.

        at, crc: the bytes of the output so far, and their CRC-32C. most: about the bytes to write, if not CALL_BYTES.
        """
        if self._root is None:
            return None
        stop = min(start + self._files, self._count)
        count, size, crc, jpegs, progressive, records = extension().write(
            fd, at, crc, self._root, self._pattern, *self._columns, start, stop, most or CALL_BYTES, MAX_PIXELS,
            MAX_SCANS, BUFFER_BYTES, self._members, *self._stored,
            *self._ahead,
        )  # fmt: skip
        self._files = min(2 * self._files, MOST_FILES) if count else FEWEST_FILES
        width = 8 * count
        columns = (records[at : at + width] for at in range(0, len(records), width or 1))
        return Gathered(count, size, crc, jpegs, progressive, *columns) if count else None

    def close(self) -> None:
        """Close the folder or the archive."""
        if self._root is not None:
            os.close(self._root)
            self._root = None


def _pair(column: Strings) -> tuple[bytes, bytes]:
    return column.data, column.offsets


def _stored(texts: StoredTexts) -> tuple[tuple[bytes, bytes], tuple[bytes, bytes]]:
    """The path of each file and the class of each label, as they are stored."""
    classes = [texts.classes.get(label, "") for label in range(max(texts.classes, default=-1) + 1)]
    return _pair(texts_of_paths(texts.paths)), _pair(Strings.of_texts(classes))


def _folder(path: bytes) -> int | None:
    """A descriptor of the folder; None if it can't be opened, which Python reports with the first file."""
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return None
