"""How many bytes samples of several fields take in a shard, before anything is read."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shardkit.formats.format import Format
from shardkit.sources.groups import Grouped

Sizes = NDArray[np.int64]


def grouped_sample_bytes(grouped: Grouped, form: Format) -> Sizes:
    """The bytes of each sample of several files."""
    source, sizes = grouped.samples, grouped.files.sizes[grouped.rows].tolist()
    labels = source.labels.tolist()
    found = np.empty(len(source), np.int64)
    for row, (path, label, lengths) in enumerate(zip(source.paths, labels, sizes, strict=True)):
        fields = list(zip(grouped.fields, lengths, strict=True))
        fields.insert(1, ("cls", len(str(label))))
        found[row] = form.size(source.key(row), fields, path, source.classes[label], label)
    return found
