"""The bytes that samples take in a shard, computed before anything is read."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shardkit.formats.format import Format
from shardkit.sample import field_of, text_of_path
from shardkit.sources.groups import Grouped
from shardkit.sources.scratch import pieces, release, scratch
from shardkit.sources.source import Source
from shardkit.sources.subset import run_of

Sizes = NDArray[np.int64]


def sample_bytes(source: Source, grouped: Grouped | None, form: Format) -> Sizes:
    """The bytes of each sample in a shard (int64, n). grouped: the files, if a sample consists of several."""
    if grouped is not None:
        return grouped_sample_bytes(grouped, form)
    if source.inline is not None and (source.inline.fields or source.label_fields != {"cls"}):
        return inline_sample_bytes(source, form)
    found = scratch(len(source), np.int64)
    for start, end in pieces(len(source)):
        found[start:end] = form.sample_bytes(run_of(source, start, end))
        release(source.paths.blob, source.paths.offsets, source.sizes, source.labels, found)
    return found


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


def inline_sample_bytes(source: Source, form: Format) -> Sizes:
    """The bytes of each sample of a source with fields that are not in a file (int64, n)."""
    assert source.inline is not None
    columns = [(name, np.diff(column.offsets)) for name, column in source.inline.fields.items()]
    found = np.empty(len(source), np.int64)
    for row, (path, size, label) in enumerate(
        zip(source.paths, source.sizes.tolist(), source.labels.tolist(), strict=True)
    ):
        fields = [(field_of(text_of_path(path[path.rfind(b".") + 1 :])), size)]
        if label >= 0:
            fields.append(("cls", len(str(label))))
        fields += [(name, int(lengths[row])) for name, lengths in columns]
        found[row] = form.size(source.key(row), fields, path, source.classes[label] if label >= 0 else "", label)
    return found
