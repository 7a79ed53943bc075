"""From a scanned source to the tasks that write its shards: sizes in the format, the plan, and digests of content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shardkit.formats import tar
from shardkit.packing.options import PackOptions
from shardkit.packing.plan import Plan, plan_shards
from shardkit.packing.shard import ShardTask
from shardkit.sample import field_of
from shardkit.tree.source import Source

_SHORT_NAME = 90
"""A path of up to this many plain bytes gives a key and field that fit ustar's 100-byte name."""


@dataclass(frozen=True, slots=True, eq=False)
class Content:
    """A source with its plan. `digest` (32 hex digits) is the same for packings that write the same content."""

    source: Source
    plan: Plan
    digest: str

    def tasks(self, work: str, options: PackOptions) -> Iterator[ShardTask]:
        """The task of each shard, in their order, made one at a time."""
        source, folder, root = self.source, os.fsencode(work), os.fsencode(self.source.root)
        for number in range(len(self.plan)):
            shard = self.plan.shard(number)
            paths, keys = source.paths.take(shard.rows), source.keys(shard.rows)
            sizes, labels = source.sizes[shard.rows], source.labels[shard.rows]
            digest = hashlib.blake2b("\0".join(keys).encode(), digest_size=16)
            digest.update(b"\0".join(paths))
            digest.update(sizes.astype("<i8").tobytes() + labels.astype("<i4").tobytes())
            yield ShardTask(
                name=shard.name, folder=folder, root=root, paths=paths, sizes=sizes.tolist(), labels=labels.tolist(),
                keys=keys, check=options.check, skip_bad=options.on_error == "skip", digest=digest.hexdigest(),
            )  # fmt: skip


def plan_source(source: Source, stem: str, options: PackOptions) -> Content:
    """Plan the shards of a source."""
    plan = plan_shards(
        source, stem=stem, suffix=".tar", sample_bytes=tar_sample_bytes(source), overhead=len(tar.END),
        max_bytes=options.max_bytes, max_count=options.max_count, shuffle=options.shuffle, seed=options.seed,
    )  # fmt: skip
    digest = hashlib.blake2b(repr((options.recorded(), source.classes, stem)).encode(), digest_size=16)
    for column in (source.paths.blob, source.paths.offsets, source.sizes, source.labels):
        digest.update(np.ascontiguousarray(column).data)
    return Content(source, plan, digest.hexdigest())


def tar_sample_bytes(source: Source) -> NDArray[np.int64]:
    """The bytes of each sample in a tar shard (int64, n): two headers, the image padded to 512, the label's block."""
    sizes = 3 * 512 + (source.sizes + 511) // 512 * 512
    for row in np.flatnonzero(_long_names(source)).tolist():
        path = source.paths[row]
        fields = ((field_of(path.rpartition(b".")[2].decode("ascii", "replace")), int(source.sizes[row])), ("cls", 1))
        sizes[row] = tar.sample_size(source.key(row), fields)
    result: NDArray[np.int64] = sizes
    return result


def _long_names(source: Source) -> NDArray[np.bool_]:
    """Rows whose key may not fit ustar's name field: long ones, and those that escapes may make long."""
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
