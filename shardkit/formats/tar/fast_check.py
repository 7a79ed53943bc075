"""Compare a tar shard with its index in one pass: either it is exactly what `pack` writes, or it is parsed.

The index rows determine every byte of a plain shard outside its images: a ustar header, the image, zeros up to the next
block, a header, the label's block, and so on, and the end mark. So nothing has to be parsed: the C extension `sums`
computes the checksums of all parts and returns the bytes between the images, which are compared with what they should
be. Any difference, and any shard from another writer, is left to the parser, which reports what is wrong.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from shardkit.checksums import parts_extension
from shardkit.formats.tar.headers import BLOCK, ustar_block
from shardkit.formats.tar.samples import END
from shardkit.sample import IMAGE_FIELDS, field_of
from shardkit.system import READ_ONLY, read_at

NAME_BYTES = 100
SIZE_AT, SIZE_DIGITS, SUM_AT, SUM_DIGITS = 124, 11, 148, 6
MAX_LABEL_DIGITS = 7
_ODD_KEY = re.compile(rb"[.\0]|/$|^__|^$", re.MULTILINE)
MAX_TAIL = 1 << 16
"""A longer end mark is left to the parser."""

Bytes = NDArray[np.uint8]
Numbers = NDArray[np.int64]


class PlainShard(msgspec.Struct, frozen=True):
    """fields, sums: each image's field and CRC-32C. crc32c: of the whole file."""

    fields: list[str]
    sums: NDArray[np.uint32]
    crc32c: int


def plain_sums(
    path: str, keys: Sequence[str], paths: Sequence[str], numbers: dict[str, NDArray[Any]]
) -> PlainShard | None:
    """The checksums of a shard that is exactly as its index rows say; None if it is not, or if this can't be told here.

    keys, paths, numbers: the index rows, as in `IndexRows`. Raises OSError.
    """
    sums = parts_extension()
    if sums is None or not len(keys):
        return None
    fd = os.open(path, READ_ONLY)
    try:
        size = os.fstat(fd).st_size
        cuts = _cuts(numbers, size)
        fields = _image_fields(paths)
        blocks = None if cuts is None else _headers(keys, fields, numbers)
        if cuts is None or blocks is None or read_at(fd, BLOCK, 0) != blocks[0][0].tobytes():
            return None
        expected = _between(cuts, blocks, numbers["label"])
        kept, crcs = np.empty(len(expected), np.uint8), np.zeros(len(cuts) - 1, np.uint32)
        length, crc32c = sums.sum_parts(fd, cuts, crcs, kept)
        if length != size or not np.array_equal(kept, expected):
            return None
    finally:
        os.close(fd)
    return PlainShard(fields, crcs[1::2], crc32c)


def _cuts(numbers: dict[str, NDArray[Any]], size: int) -> Numbers | None:
    """The bounds of the images, between 0 and `size`; None unless the samples are plain and contiguous."""
    offset, length, start, image = (numbers[name] for name in ("offset", "size", "image_offset", "image_size"))
    if any(column.min() < 0 or column.max() > size for column in (offset, length, start, image)):
        return None
    end = start + image
    after = end + -end % BLOCK + 2 * BLOCK
    plain = offset[0] == 0 and np.array_equal(offset[1:], after[:-1]) and np.array_equal(offset + length, after)
    if not plain or not np.array_equal(start, offset + BLOCK) or not len(END) <= size - after[-1] <= MAX_TAIL:
        return None
    cuts = np.empty(2 * len(offset) + 2, np.int64)
    cuts[0], cuts[1:-1:2], cuts[2::2], cuts[-1] = 0, start, end, size
    return cuts


def _image_fields(paths: Sequence[str]) -> list[str]:
    end = paths[0].rpartition(".")[2]
    if "\n".join([*paths, ""]).count(f".{end}\n") == len(paths):  # nearly always
        return [field_of(end)] * len(paths)
    return [field_of(path.rpartition(".")[2]) for path in paths]


def _headers(
    keys: Sequence[str], fields: Sequence[str], numbers: dict[str, NDArray[Any]]
) -> tuple[Bytes, Bytes] | None:
    """The header blocks (n, 512) of the images and of the labels; None if a key or a field is not plain."""
    labels = numbers["label"]
    together = "\n".join(keys).encode()
    parts = together.split(b"\n")
    odd = _ODD_KEY.search(together) is not None or len(parts) != len(keys) or len(set(parts)) != len(keys)
    if odd or labels.min() < 0 or labels.max() >= 10**MAX_LABEL_DIGITS or not IMAGE_FIELDS.issuperset(fields):
        return None
    ends = {field: b"." + field.encode() for field in set(fields)}
    if max(map(len, parts)) + max(4, *map(len, ends.values())) > NAME_BYTES:
        return None
    names = [key + ends[field] for key, field in zip(parts, fields, strict=True)]
    label_names = [key + b".cls" for key in parts]
    return _blocks(names, numbers["image_size"]), _blocks(label_names, _label_digits(labels))


def _blocks(names: list[bytes], sizes: Numbers) -> Bytes:
    """Header blocks (n, 512) of members with these names and sizes."""
    empty = np.frombuffer(ustar_block(b"", 0, b"0", b""), np.uint8)
    blocks = np.tile(empty, (len(names), 1))
    blocks[:, :NAME_BYTES] = np.array(names, f"S{NAME_BYTES}").view(np.uint8).reshape(len(names), NAME_BYTES)
    _octal(blocks[:, SIZE_AT : SIZE_AT + SIZE_DIGITS], sizes)
    blocks[:, SUM_AT : SUM_AT + SUM_DIGITS + 2] = ord(" ")
    changing = blocks[:, :NAME_BYTES].sum(1, np.int64) + blocks[:, SIZE_AT : SIZE_AT + SIZE_DIGITS].sum(1, np.int64)
    rest = int(blocks[0].sum(dtype=np.int64) - changing[0])
    _octal(blocks[:, SUM_AT : SUM_AT + SUM_DIGITS], changing + rest)
    blocks[:, SUM_AT + SUM_DIGITS] = 0
    return blocks


def _octal(digits: Bytes, values: Numbers) -> None:
    for place in range(digits.shape[1]):
        digits[:, -1 - place] = ord("0") + (values >> 3 * place & 7)


def _label_digits(labels: NDArray[Any]) -> Numbers:
    powers = 10 ** np.arange(1, MAX_LABEL_DIGITS, dtype=np.int64)
    return 1 + np.searchsorted(powers, labels, side="right")


def _between(cuts: Numbers, blocks: tuple[Bytes, Bytes], labels: NDArray[Any]) -> Bytes:
    """All bytes outside images, concatenated: before the first, between them, after the last."""
    lengths = np.diff(cuts)[::2]
    expected = np.zeros(int(lengths.sum()), np.uint8)
    places = sliding_window_view(expected, BLOCK, writeable=True)
    ends = np.cumsum(lengths)
    places[ends[:-1] - BLOCK] = blocks[0]
    label_headers = ends[:-1] + -cuts[2::2] % BLOCK  # zeros fill the image's last block
    places[label_headers] = blocks[1]
    texts = {label: b"%d" % label for label in np.unique(labels).tolist()}
    digits = np.array([texts[label] for label in labels.tolist()], f"S{MAX_LABEL_DIGITS}").view(np.uint8)
    places[label_headers + BLOCK, :MAX_LABEL_DIGITS] = digits.reshape(len(labels), MAX_LABEL_DIGITS)
    return expected
