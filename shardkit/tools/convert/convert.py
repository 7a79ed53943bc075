"""`convert`: write a dataset in another format, with other shards, in another order, or with other fields.

If only the format changes, each shard becomes one shard with the same samples, and the manifest and index keep their
content, so that converting back gives the same bytes. It writes like `pack`: in parallel, in a folder beside the
destination, with a receipt for each finished shard and one commit at the end.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from shardkit.errors import DatasetError, DestinationError, ShardkitError, UsageError
from shardkit.events import Progress, ProgressFn, no_progress
from shardkit.formats.format import FORMATS, Format
from shardkit.location import Location, locate
from shardkit.options.fields import checked_by
from shardkit.options.keywords import cure_of_choice
from shardkit.options.old_keywords import accept_old_keywords
from shardkit.packing.dest.dataset_files import OVERWRITE, sizes_in
from shardkit.packing.dest.destination import Destination
from shardkit.packing.dest.in_the_way import check_free
from shardkit.packing.dest.open import destinations_of
from shardkit.packing.dest.work_folder import IndexFiles, keep_only
from shardkit.packing.engine.engine import Engine, open_engine
from shardkit.packing.engine.options import EngineLike, engine_options, move_engine
from shardkit.packing.run import write_shards
from shardkit.packing.totals import Totals
from shardkit.packing.write.receipt import Skipped
from shardkit.packing.write.stored_samples import StoredSamples
from shardkit.packing.write.task import ShardTask
from shardkit.shards.columns.types import Types
from shardkit.shards.columns.values import encoded_columns, gathered_table
from shardkit.shards.find.shards import SourceLike
from shardkit.shards.manifest import (
    ClassEntry,
    IndexEntry,
    Manifest,
    column_options,
    content_options,
    file_names,
    with_fields,
)
from shardkit.shards.names import shard_name, skipped_beside
from shardkit.shards.objects import Objects
from shardkit.shards.seek import keeps_seek_points
from shardkit.storage.access import Remote
from shardkit.tools.convert.layout import Changes, Layout, changes_of, layout_of, require_fields
from shardkit.tools.convert.rows import Stored, StoredRows, open_stored
from shardkit.tools.settings import ConvertSettings
from shardkit.units import cores

log = logging.getLogger(__name__)


@accept_old_keywords(move_engine)
@checked_by(ConvertSettings)
def convert(
    source: SourceLike,
    dest: str | os.PathLike[str],
    *,
    format: Literal["tar", "tfrecord"] | None = None,
    max_bytes: int | str | None = None,
    max_count: int | None = None,
    shuffle: bool = False,
    seed: int = 0,
    rename: Mapping[str, str] | None = None,
    drop: Sequence[str] = (),
    fields: Sequence[str] | str | None = None,
    workers: int | None = None,
    engine: EngineLike = "local",
    overwrite: bool = False,
    work: str | os.PathLike[str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    progress: ProgressFn = no_progress,
) -> Manifest:
    """Write the samples of a dataset to new shards, with an index and a manifest.

    source: as for `dataset()`: a prefix, manifest, glob or list of shards, with or without a manifest, gzip included.
    Shards in a store need a manifest or an index (`index_shards(…, out=)`, whose prefix is then the source).
    dest: the prefix of the new file names, as for `pack`.
    format: of the new shards (default: unchanged).
    max_bytes, max_count: cut the samples into shards within these limits; shuffle, seed: put them in a random order.
    Without these three, each shard becomes one shard.
    rename: old -> new names of fields; drop: fields to omit; fields: the only fields to keep. Renaming comes last. A
    sample without such a field is kept as it is.
    workers: processes (default: one per core). engine: where they run, "local" or a `shardkit.Ray`, as for `pack`.
    overwrite: replace another dataset at `dest`. work, storage_options: for a bucket, as for `pack`; storage_options
    also for the store of the source.
    progress: called now and then, from any thread.

    Returns the manifest. Run again after an interruption, it keeps the finished shards; after success, it writes
    nothing. Every checksum of the source is checked. Raises UsageError, DatasetError (DamagedError), DestinationError,
    BusyError, StorageError, WorkerError.
    """
    changes = changes_of(rename or {}, drop, fields)
    where = engine_options(engine, workers)
    stored = open_stored(source, threads=cores() if workers is None else workers, remote=Remote(storage_options))
    form = FORMATS[_known(format or stored.format)]
    require_fields(changes, stored)
    own = os.path.splitext((stored.place or stored.shards[0]).path)[0]
    place = locate(dest)
    for_dest = None if place.is_local and stored.is_far else storage_options  # else they are for the source alone
    destination = destinations_of(place, own, None, work=work, options=for_dest)[""]
    limits = None if max_bytes is None and max_count is None and not shuffle else (max_bytes, max_count, shuffle, seed)
    with ExitStack() as stack:
        lock = stack.enter_context(destination.locked())
        destination = check_free(destination, overwrite=overwrite)
        run = stack.enter_context(open_engine(where, [lock.fd]))
        layout = layout_of(stored, form, changes, destination, limits)
        job = _Conversion(stored, form, changes, destination, layout, dict(storage_options or {}))
        return job.find_finished(overwrite=overwrite) or job.run(run, progress)


def _known(name: str) -> str:
    if name not in FORMATS:
        cure = cure_of_choice("format", name, FORMATS)
        raise UsageError("format", f"{name!r} is not one of {', '.join(FORMATS)}", cure)
    return name


class _Conversion:
    """A planned conversion."""

    def __init__(
        self,
        stored: Stored,
        form: Format,
        changes: Changes,
        destination: Destination,
        layout: Layout,
        options: dict[str, Any],
    ) -> None:
        """options: how to open the store of the shards, if they are in one."""
        self.stored, self.format, self.changes, self.options = stored, form, changes, options
        self.destination, self.layout = destination, layout
        keeps = changes.keep_label
        self.seek_points = keeps_seek_points(stored.manifest)
        self.quality_columns = stored.manifest is not None and stored.manifest.quality_columns
        self.texts = {number: entry.name for number, entry in enumerate(stored.classes)} if keeps else {}

    @property
    def full(self) -> list[int]:
        """The shards of the source that have any sample left: readers refuse empty ones."""
        return np.flatnonzero(self.stored.counts).tolist() or list(range(len(self.stored.shards)))

    @property
    def names(self) -> list[str]:
        """The names of the new shards."""
        if self.layout.plan is not None:
            return list(self.layout.plan.names)
        numbers = self._numbers()
        digits = max(6, len(str(numbers[-1])))
        numbers = [numbers[number] for number in self.full]
        return [shard_name(self.destination.base, number, self.format.suffix, digits=digits) for number in numbers]

    def _numbers(self) -> list[int]:
        """The number of each new shard. If `pack` wrote the source, shards keep their numbers, which may have gaps
        because shards without samples are omitted.
        """
        count = len(self.stored.shards)
        found = [re.fullmatch(r".*-([0-9]{6,18})\.\w+", shard.name) for shard in self.stored.shards]
        numbers = [int(each[1]) for each in found if each]
        packed = self.stored.manifest is not None and self.stored.manifest.plan
        rising = len(numbers) == count and all(first < second for first, second in itertools.pairwise(numbers))
        return numbers if packed and rising else list(range(count))

    def find_finished(self, *, overwrite: bool) -> Manifest | None:
        """Return the manifest of this same conversion if it is there. DestinationError if another dataset is."""
        place, files = str(self.destination), self.destination.files
        if self._is_source(files.location(files.manifest)):
            raise DestinationError(place, "the destination is the source", "choose another")
        found = None if overwrite else files.read_manifest()
        if found is None:
            return None
        same = found.shard_format == self.format.name and found.plan == self.layout.digest
        same = same and dict(found.columns) == dict(self.stored.columns)
        if not same or (self.layout.plan is None and len(found.shards) != len(self.full)):
            raise DestinationError(place, "another dataset is there", OVERWRITE)
        missing = files.missing(sizes_in(found))
        if missing is not None:
            raise DestinationError(place, f"its {missing} is missing or has another size", OVERWRITE)
        since = self.destination.committed_at(found)
        if since is None:
            log.warning("%s: not converted on this machine: shards are compared by what their manifest says", place)
            since = sys.maxsize
        near = () if self.stored.is_far else self.stored.shards  # of others, the digest has the versions
        newer = next((shard for shard in near if os.stat(shard.path).st_mtime_ns > since), None)
        if newer is not None:
            raise DestinationError(place, f"this dataset is out of date: {newer} was changed later", OVERWRITE)
        log.info("%s: already converted and complete; nothing was written", place)
        keep_only(self.destination, ())
        return found

    def _is_source(self, manifest: Location) -> bool:
        here = self.stored.place
        if here is None or manifest.is_local != here.is_local:
            return False
        if not here.is_local:
            return here == manifest
        return os.path.realpath(here.path) == os.path.realpath(manifest.path)

    def run(self, engine: Engine, progress: ProgressFn) -> Manifest:
        """Write what is missing, and commit."""
        told, lock = [0, 0], threading.Lock()
        total, total_bytes = int(self.stored.counts.sum()), self.stored.bytes

        def advance(samples: int, size: int) -> None:
            with lock:
                told[0] += samples
                told[1] += size
                progress(Progress("convert", told[0], total, told[1], total_bytes))

        keep_only(self.destination, self.names)
        columns, seek, quality = self.stored.columns, self.seek_points, self.quality_columns
        with IndexFiles(self.destination, seek=seek, columns=columns, quality=quality) as index:
            totals = write_shards(self.tasks(), engine, advance, self.destination, progress, finished=index.add)
            return self._commit(totals, index.end())

    def tasks(self) -> Iterator[ShardTask]:
        """The tasks of the new shards, generated one at a time."""
        if self.layout.plan is None:
            for number, name in zip(self.full, self.names, strict=True):
                rows = self.stored.rows(number)
                which = _NO_NUMBERS if self.stored.packed else np.zeros(len(rows.keys), np.int64)
                yield self._task(name, [number], rows, which)
            return
        plan, starts = self.layout.plan, np.concatenate([[0], np.cumsum(self.stored.counts)])
        held: dict[int, StoredRows] = {}

        def get(number: int) -> StoredRows:
            if number not in held:
                held[number] = self.stored.rows(number)
            return held[number]

        for number in range(len(plan)):
            shard = plan.shard(number)
            sources = np.searchsorted(starts, shard.rows, side="right") - 1
            used = np.unique(sources)
            if not self.layout.options["shuffle"]:
                for old in [old for old in held if old < used[0]]:
                    del held[old]
            rows = _gathered(shard.rows - starts[sources], sources, get, self.stored.columns)
            yield self._task(shard.name, used.tolist(), rows, np.searchsorted(used, sources))

    def _task(self, name: str, sources: Sequence[int], rows: StoredRows, which: NDArray[np.int64]) -> ShardTask:
        far, shards = self.stored.is_far, [self.stored.shards[number] for number in sources]
        paths = [os.fsencode(shard.url if far else os.path.abspath(shard.path)) for shard in shards]
        labels = rows.labels.tolist() if self.changes.keep_label else [-1] * len(rows.keys)
        samples = StoredSamples(
            sources=paths, which=which.tolist(), offsets=rows.offsets.tolist(), sizes=rows.sizes.tolist(),
            keys=rows.keys, paths=rows.paths, labels=labels, crcs=rows.crcs.tolist(), format=self.stored.format,
            fields=dict(self.changes.names), only=list(self.changes.only), corrected=rows.corrected,
            stores=self.options if far else None,
            whole_bytes=sum(self.stored.files[number].bytes for number in sources) if far else 0,
        )  # fmt: skip
        columns = b"" if rows.columns is None else encoded_columns(rows.columns)
        salt = self.layout.digest + (hashlib.blake2b(columns, digest_size=16).hexdigest() if columns else "")
        return ShardTask(
            name=name, work=os.fsencode(self.destination.work), check="none", skip_bad=False, samples=samples,
            digest=samples.digest(salt, whole=self.stored.packed), format=self.format.name,
            texts=self.texts, seek_points=self.seek_points, quality_columns=self.quality_columns, columns=columns,
        )  # fmt: skip

    def _commit(self, totals: Totals, index: tuple[IndexEntry, ...]) -> Manifest:
        entries = totals.written
        samples = sum(entry.samples for entry in entries)
        if not samples:
            raise DatasetError(str(self.stored.shards[0]), "these shards hold no samples", "name others")
        skipped = self._skipped()
        manifest = Manifest(
            shard_format=self.format.name,
            samples=samples,
            bytes=sum(entry.bytes for entry in entries),
            classes=self._classes(totals.labels),
            fields=tuple(sorted(totals.fields)),
            shards=entries,
            index=index,
            skipped=len(skipped),
            options=self._options(sorted(totals.fields)),
            plan=self.layout.digest,
        )
        self.destination.commit(manifest, skipped)
        return manifest

    def _classes(self, counts: Mapping[int, int]) -> tuple[ClassEntry, ...]:
        manifest = self.stored.manifest
        if manifest is not None and manifest.labels == "multi":  # each sample may have several
            return manifest.classes
        return tuple(ClassEntry(name, counts.get(label, 0)) for label, name in sorted(self.texts.items()))

    def _options(self, fields: Sequence[str]) -> dict[str, Any]:
        """The options of the new manifest."""
        content = content_options(seek_points=self.seek_points, quality_columns=self.quality_columns)
        options = self.layout.options | content | column_options(self.stored.columns)
        return with_fields(options, fields)

    def _skipped(self) -> list[Skipped]:
        """The source's list of skipped files, if the new manifest has the same content."""
        manifest, place = self.stored.manifest, self.stored.place
        if not self.layout.same or manifest is None or place is None or not manifest.skipped:
            return []
        path = place.sibling(skipped_beside(file_names(manifest), place.name.removesuffix(".json")))
        try:
            told = json.loads(Objects(Remote(self.options)).small(path))
            return [Skipped(item["path"], item["reason"]) for item in told]
        except (ShardkitError, ValueError, KeyError, TypeError):  # informational only: the samples do not depend on it
            log.warning("%s: the list of skipped files is missing or damaged", path)
            return []


_NO_NUMBERS = np.empty(0, np.int64)


def _gathered(
    local: NDArray[np.int64], sources: NDArray[np.int64], get: Callable[[int], StoredRows], types: Types
) -> StoredRows:
    """Rows of several shards, concatenated. types: of the further columns."""
    n = len(local)
    numbers = np.empty((5, n), np.int64)
    keys, paths, corrected = [""] * n, [""] * n, dict[int, tuple[str, bytes]]()
    for source in np.unique(sources).tolist():
        where = np.flatnonzero(sources == source)
        rows, at = get(source), local[where]
        each = (rows.labels, rows.offsets, rows.sizes, rows.image_sizes, rows.crcs)
        numbers[:, where] = [column[at] for column in each]
        for place, row in zip(where.tolist(), at.tolist(), strict=True):
            keys[place], paths[place] = rows.keys[row], rows.paths[row]
            if row in rows.corrected:
                corrected[place] = rows.corrected[row]
    tables = {source: get(source).columns for source in np.unique(sources).tolist()}
    columns = gathered_table(tables, sources, local, types) if types else None
    return replace(StoredRows(keys, paths, *numbers), columns=columns, corrected=corrected)
