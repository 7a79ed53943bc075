"""From a scanned source to the tasks that write its shards: sizes in the format, the plan, and digests of content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from shardkit.formats.format import FORMATS
from shardkit.images.rewrite.transcode import VERSION
from shardkit.packing.options import PackOptions
from shardkit.packing.plan.append import ExistingDataset
from shardkit.packing.plan.estimate import as_transcoded
from shardkit.packing.plan.plan import Plan, ShardPlan, plan_shards
from shardkit.packing.plan.sizes import grouped_sample_bytes
from shardkit.packing.plan.sourced import inline_digest, inline_sample_bytes, is_sourced, sourced_tasks
from shardkit.packing.write.samples import FieldsTask
from shardkit.packing.write.shard import ShardTask
from shardkit.packing.write.sourced import SourcedTask
from shardkit.sources.groups import Grouped
from shardkit.sources.source import Source

LAYOUT = 1
"""Raised when the same plan begins to give other bytes, so that nothing of an older shardkit is taken for our own."""


@dataclass(frozen=True, slots=True, eq=False)
class Content:
    """A source with its plan. `digest` (32 hex digits) is the same for packings that write the same content.

    grouped: the files, where a sample is several of them; `source` then has the samples. before: the dataset that this
    is added to.
    """

    source: Source
    plan: Plan
    digest: str
    grouped: Grouped | None = None
    before: ExistingDataset | None = None

    def tasks(self, work: str, options: PackOptions) -> Iterator[ShardTask | FieldsTask | SourcedTask]:
        """The task of each shard, in their order, made one at a time.

        A task's digest tells more than the plan's: also where the files are, since a shard that an earlier run finished
        may be of another tree with the same names and sizes.
        """
        source, folder, root = self.source, os.fsencode(work), os.fsencode(self.source.root)
        salt = b"%d %b" % (LAYOUT, os.path.realpath(root))
        if options.transcode is not None:
            salt += repr((VERSION, options.transcode.recorded())).encode()
        if is_sourced(source if self.grouped is None else self.grouped.files):
            yield from sourced_tasks(self, work, options, salt)
            return
        texts = dict(enumerate(source.classes)) if FORMATS[options.format].holds_class_names else {}
        for number in range(len(self.plan)):
            shard = self.plan.shard(number)
            if self.grouped is not None:
                yield self._fields_task(shard, self.grouped, folder, salt, texts, options)
                continue
            paths, keys = source.paths.take(shard.rows), source.keys(shard.rows)
            sizes, labels = source.sizes[shard.rows], source.labels[shard.rows]
            digest = hashlib.blake2b(b"\0".join([salt, *paths]), digest_size=16)
            digest.update("\0".join(keys).encode())
            digest.update(sizes.astype("<i8").tobytes() + labels.astype("<i4").tobytes())
            yield ShardTask(
                name=shard.name, folder=folder, root=root, paths=paths, sizes=sizes.tolist(), labels=labels.tolist(),
                keys=keys, check=options.check, skip_bad=options.on_error == "skip", digest=digest.hexdigest(),
                format=options.format, texts=texts, transcode=options.transcode,
            )  # fmt: skip

    def _fields_task(
        self,
        shard: ShardPlan,
        grouped: Grouped,
        folder: bytes,
        salt: bytes,
        texts: dict[int, str],
        options: PackOptions,
    ) -> FieldsTask:
        source, files, rows = self.source, grouped.files, grouped.rows[shard.rows]
        keys, labels = source.keys(shard.rows), source.labels[shard.rows]
        paths = [files.paths.take(row) for row in rows]
        sizes = files.sizes[rows]
        digest = hashlib.blake2b(b"\0".join([salt, *(path for each in paths for path in each)]), digest_size=16)
        digest.update("\0".join([*keys, *grouped.fields]).encode())
        digest.update(sizes.astype("<i8").tobytes() + labels.astype("<i4").tobytes())
        return FieldsTask(
            name=shard.name, folder=folder, root=os.fsencode(source.root), names=list(grouped.fields),
            primary=grouped.primary, paths=paths, sizes=sizes.tolist(), labels=labels.tolist(), keys=keys,
            check=options.check, skip_bad=options.on_error == "skip", digest=digest.hexdigest(), format=options.format,
            texts=texts, transcode=options.transcode,
        )  # fmt: skip


def plan_source(
    source: Source,
    stem: str,
    options: PackOptions,
    grouped: Grouped | None = None,
    *,
    first: int = 0,
    base: str | None = None,
) -> Content:
    """Plan the shards of a source. grouped: where a sample is several files; `source` has its samples then.

    first: the number in the name of the first shard. base: what the shards' names begin with, where not with `stem`.
    """
    form = FORMATS[options.format]
    measured, together = source, grouped
    if options.transcode is not None:
        measured, together = as_transcoded(source, grouped, options.transcode, seed=options.seed)
    if together is not None:
        sizes = grouped_sample_bytes(together, form)
    elif measured.inline is not None:
        sizes = inline_sample_bytes(measured, form)
    else:
        sizes = form.sample_bytes(measured)
    plan = plan_shards(
        source, stem=base or stem, suffix=form.suffix, sample_bytes=sizes, overhead=len(form.end),
        max_bytes=options.max_bytes, max_count=options.max_count, shuffle=options.shuffle, seed=options.seed,
        first=first,
    )  # fmt: skip
    layout = LAYOUT if options.transcode is None else (LAYOUT, VERSION)
    named = (layout, options.recorded(), source.classes, stem, *form.digest_marks)
    digest = hashlib.blake2b(repr(named).encode(), digest_size=16)
    source = source if grouped is None else grouped.files
    for column in (source.paths.blob, source.paths.offsets, source.sizes, source.labels):
        digest.update(np.ascontiguousarray(column).data)
    for data in inline_digest(source):
        digest.update(data)
    return Content(source if grouped is None else grouped.samples, plan, digest.hexdigest(), grouped)
