"""The sizes of samples in a tar shard, for many at once and before anything is read."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shardkit.formats.protocol import SampleColumns
from shardkit.formats.tar.samples import sample_size
from shardkit.sample import field_of, text_of_path

_SHORT_NAME = 90
"""A path of at most this many plain bytes gives a key and field that fit ustar's 100-byte name."""


def sample_bytes(source: SampleColumns) -> NDArray[np.int64]:
    """The bytes of each sample in a tar shard (int64, n): two headers, the image padded to 512, the label's block."""
    sizes = 3 * 512 + (source.sizes + 511) // 512 * 512
    for row in np.flatnonzero(_long_names(source)).tolist():
        path = source.paths[row]
        fields = ((field_of(text_of_path(path).rpartition(".")[2]), int(source.sizes[row])), ("cls", 1))
        sizes[row] = sample_size(source.key(row), fields)
    result: NDArray[np.int64] = sizes
    return result


def _long_names(source: SampleColumns) -> NDArray[np.bool_]:
    """Rows whose key may not fit ustar's name field: long ones, and those that escaping may make long."""
    blob, offsets = source.paths.blob, source.paths.offsets
    lengths = np.diff(offsets)
    longer = lengths > _SHORT_NAME
    odd = np.flatnonzero((blob >= 0x80) | (blob == 0x5C))
    if len(odd):
        rows, extra = np.unique(np.searchsorted(offsets, odd, side="right") - 1, return_counts=True)
        longer[rows] |= lengths[rows] + 3 * extra > _SHORT_NAME
    renamed = np.fromiter(source.renamed, np.int64, len(source.renamed))
    longer[renamed] = True
    return longer
