"""The sizes of samples in a TFRecord shard, for many at once and before anything is read."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shardkit.formats.protocol import SampleColumns
from shardkit.formats.tfrecord.samples import FRAME
from shardkit.sample import field_of, text_of_path

Sizes = NDArray[np.int64]


def sample_bytes(source: SampleColumns) -> Sizes:
    """The bytes of each sample in a TFRecord shard (int64, n). A key is as long as the path without its extension, if
    neither is escaped or renamed."""
    texts = np.array([len(name.encode()) for name in source.classes], np.int64)
    blob, ends = source.paths.blob, source.paths.offsets[1:]
    paths = np.diff(source.paths.offsets)
    dots = np.flatnonzero(blob == 0x2E)
    last = dots[np.searchsorted(dots, ends) - 1]
    extensions = ends - last - 1
    keys, formats = paths - extensions - 1, extensions.copy()
    three = np.flatnonzero(extensions == 3)
    at = last[three, None] + np.arange(1, 4)
    formats[three[(blob[at] | 0x20 == np.frombuffer(b"jpg", np.uint8)).all(axis=1)]] = 4  # is `jpeg` there
    labels = source.labels.astype(np.int64)
    for row in _odd_rows(source, blob, ends).tolist():
        path = text_of_path(source.paths[row])
        name = field_of(path.rpartition(".")[2])
        keys[row], paths[row] = len(source.key(row).encode()), len(path.encode())
        formats[row] = len("jpeg" if name == "jpg" else name.encode())
    return example_bytes(keys, paths, source.sizes, formats, labels, texts[labels])


def _odd_rows(source: SampleColumns, blob: NDArray[np.uint8], ends: Sizes) -> Sizes:
    """The positions of rows whose key or path is not stored literally: escaped, renamed, or `__x__`."""
    odd = np.flatnonzero((blob >= 0x80) | (blob == 0x5C))
    escaped = np.unique(np.searchsorted(ends, odd, side="right"))
    underlined = np.flatnonzero(blob[source.paths.offsets[:-1]] == 0x5F)
    renamed = np.fromiter(source.renamed, np.int64, len(source.renamed))
    return np.unique(np.concatenate([escaped, underlined, renamed]))


def example_bytes(keys: Sizes, paths: Sizes, images: Sizes, formats: Sizes, labels: Sizes, texts: Sizes) -> Sizes:
    """The bytes of records with image and label, from the lengths of their parts in bytes, and the labels (from 0)."""
    numbers = varint_bytes(labels)
    features = (
        _entry(len("image/key"), _one(keys)) + _entry(len("image/filename"), _one(paths))
        + _entry(len("image/encoded"), _one(images)) + _entry(len("image/format"), _one(formats))
        + _entry(len("image/class/label"), _one(numbers)) + _entry(len("image/class/text"), _one(texts))
    )  # fmt: skip
    return FRAME + _one(features)


def _one(size: Sizes) -> Sizes:
    """A field with a length: one byte for its tag, its length, its bytes."""
    result: Sizes = 1 + varint_bytes(size) + size
    return result


def _entry(name: int, items: Sizes) -> Sizes:
    """An entry of the map: its name, and a feature that holds one list of these items."""
    return _one(2 + name + _one(_one(items)))


def varint_bytes(numbers: Sizes) -> Sizes:
    """The length of each number (from 0) as a varint."""
    lengths = np.ones_like(numbers)
    limit = 1 << 7
    most = int(numbers.max(initial=0))
    while limit <= most:
        lengths += numbers >= limit
        limit <<= 7
    return lengths
