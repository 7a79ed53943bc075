"""From a scanned source to the tasks that write its shards: sizes in the format, the plan, and digests of content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator

import msgspec
import numpy as np

from shardkit.formats.format import FORMATS
from shardkit.images.rewrite.transcode import VERSION
from shardkit.packing.options import PackOptions
from shardkit.packing.plan.append import ExistingDataset
from shardkit.packing.plan.estimate import as_transcoded
from shardkit.packing.plan.plan import Plan, ShardNames, plan_shards
from shardkit.packing.plan.sizes import sample_bytes
from shardkit.packing.write.file_samples import FileSamples
from shardkit.packing.write.task import ShardTask
from shardkit.shards.columns.values import encoded_columns
from shardkit.sources.groups import Grouped
from shardkit.sources.origin import Origin, Rows
from shardkit.sources.scratch import read_through, release
from shardkit.sources.source import Source

LAYOUT = 1
"""Increased whenever the same plan yields different bytes, so that the work of an older shardkit is never reused."""


class PlannedDataset(msgspec.Struct, frozen=True, eq=False):
    """A source with its plan. `digest` (32 hex digits) is equal for packings that write the same content.

    grouped: the files, if a sample consists of several; `source` then has the samples. before: the dataset that this is
    added to.
    """

    source: Source
    plan: Plan
    digest: str
    grouped: Grouped | None = None
    before: ExistingDataset | None = None

    @property
    def files(self) -> Source:
        """The files of all samples, one row each."""
        return self.source if self.grouped is None else self.grouped.files

    @property
    def columns(self) -> dict[str, str]:
        """The further columns of the index: those of the dataset that this is added to, then new ones."""
        before = {} if self.before is None else dict(self.before.manifest.columns)
        return before | self.source.column_types

    def tasks(self, work: str, options: PackOptions, numbers: range | None = None) -> Iterator[ShardTask]:
        """The tasks of the shards with these numbers (None: of all), in order, made one at a time.

        A task's digest covers more than the plan's: also the location of the files, since a shard that an earlier run
        finished may be of another tree with the same names and sizes.
        """
        source = self.source
        salt = b"%d %b" % (LAYOUT, os.path.realpath(source.root))
        if options.transcode is not None:
            salt += repr((VERSION, options.transcode.recorded())).encode()
        if options.seek_points:
            salt += b" seek points"
        if options.quality_columns:
            salt += b" quality columns"
        texts = dict(enumerate(source.classes)) if FORMATS[options.format].holds_class_names else {}
        origin = self.files.origin.prepared(work)
        for number in range(len(self.plan)) if numbers is None else numbers:
            shard = self.plan.shard(number)
            rows = shard.rows if self.grouped is None else self.grouped.rows[shard.rows].reshape(-1)
            samples = self._samples(shard.rows, rows, origin)
            columns = b"" if source.columns is None else encoded_columns(source.columns.take(shard.rows))
            yield ShardTask(
                name=shard.name, work=os.fsencode(work), digest=samples.digest(salt + columns, origin.marks(rows)),
                check=options.check, skip_bad=options.on_error == "skip", samples=samples, format=options.format,
                texts=texts, transcode=options.transcode, seek_points=options.seek_points,
                columns=columns, quality_columns=options.quality_columns,
            )  # fmt: skip
            release(self.plan.order, self.files.paths.blob, self.files.paths.offsets, self.files.sizes, source.labels)

    def _samples(self, samples: Rows, rows: Rows, origin: Origin) -> FileSamples:
        """The samples of one shard. rows: of their files."""
        source, files, grouped, inline = self.source, self.files, self.grouped, self.source.inline
        paths = files.paths.at(rows)
        return FileSamples(
            root=source.root, files=origin.files(rows), paths=paths, sizes=files.sizes[rows].tobytes(),
            labels=source.labels[samples].astype(np.int64).tobytes(),
            keys=source.keys_at(samples, paths if grouped is None else None),
            names=[] if grouped is None else list(grouped.fields), primary=0 if grouped is None else grouped.primary,
            inline={} if inline is None else {name: each.at(samples) for name, each in inline.fields.items()},
            multi=inline is not None and inline.labels == "multi",
        )  # fmt: skip


def plan_source(
    found: Source | Grouped, stem: str, options: PackOptions, *, first: int = 0, base: str | None = None
) -> PlannedDataset:
    """Plan the shards of a source, or of its samples if they consist of several files.

    first: the number in the name of the first shard. base: the beginning of the shards' names, if other than `stem`.
    """
    form = FORMATS[options.format]
    source, grouped = (found.samples, found) if isinstance(found, Grouped) else (found, None)
    measured, together = source, grouped
    if options.transcode is not None:
        measured, together = as_transcoded(source, grouped, options.transcode, seed=options.seed)
    plan = plan_shards(
        sample_bytes(measured, together, form), ShardNames(base or stem, form.suffix, first), overhead=len(form.end),
        max_bytes=options.max_bytes, max_count=options.max_count, shuffle=options.shuffle, seed=options.seed,
    )  # fmt: skip
    layout = LAYOUT if options.transcode is None else (LAYOUT, VERSION)
    named = (layout, options.recorded(), source.classes, stem, *form.digest_marks)
    digest = hashlib.blake2b(repr(named).encode(), digest_size=16)
    files = source if grouped is None else grouped.files
    for column in (files.paths.blob, files.paths.offsets, files.sizes, files.labels):
        for piece in read_through(np.ascontiguousarray(column)):
            digest.update(piece.data)
    if files.inline is not None:
        digest.update(files.inline.labels.encode())
        for name, texts in files.inline.fields.items():
            digest.update(name.encode() + texts.blob.tobytes() + texts.offsets.tobytes())
    return PlannedDataset(source, plan, digest.hexdigest(), grouped)
