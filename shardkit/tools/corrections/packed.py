"""What the index files of a corrected dataset say of it as packed."""

from __future__ import annotations

import numpy as np

from shardkit.packing.dest.dataset_files import DatasetFiles
from shardkit.shards.index_file import index_entries
from shardkit.shards.manifest import ClassEntry, Manifest


def packed_columns(manifest: Manifest, files: DatasetFiles) -> dict[str, str]:
    """The further columns that any index file has."""
    entries = index_entries(manifest)
    there = {name for entry, shards in entries for name in files.open_index(entry, shards).further_types}
    return {name: text for name, text in manifest.columns.items() if name in there}


def packed_classes(manifest: Manifest, files: DatasetFiles) -> tuple[ClassEntry, ...]:
    """The classes as packed, with their counts. Not for labels of several classes, which only the shards have."""
    counts = np.zeros(len(manifest.classes), np.int64)
    for entry, shards in index_entries(manifest):
        for labels in files.open_index(entry, shards).numbers("label"):
            counts += np.bincount(labels[labels >= 0], minlength=len(counts))[: len(counts)]
    names = manifest.class_names
    log = () if manifest.corrections is None else manifest.corrections.log
    later = {name for version in log for name in version.classes}
    while names and names[-1] in later and not counts[len(names) - 1]:  # no shard has this label
        names.pop()
    return tuple(ClassEntry(name, count) for name, count in zip(names, counts.tolist(), strict=False))
