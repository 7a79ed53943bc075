"""A whole packing: scan, plan, write, commit. `pack` is the function that `shardkit pack` calls.

While a job runs, all it writes is in the folder `.NAME.packing` beside its destination: the shards that are finished,
each with its receipt. The commit writes index and manifest there too, and then moves everything to its place, the
manifest last. So a dataset is absent or whole, and a job that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from shardkit.errors import SourceError, UsageError, printable
from shardkit.events import Progress, ProgressFn, silent
from shardkit.formats.table import FormatName
from shardkit.location import locate
from shardkit.manifest import ClassEntry, Manifest
from shardkit.packing.commit import commit, keep_only, working, write_index_files
from shardkit.packing.destination import Destination, check_free, destination_of, split_destinations
from shardkit.packing.engines import Engine, LocalEngine, run_here
from shardkit.packing.options import Classes, OnError, PackOptions, class_names, make_options
from shardkit.packing.resume import finished
from shardkit.packing.shard import Check, Receipt, Skipped
from shardkit.packing.tasks import Content, plan_source
from shardkit.packing.writing import write_shards
from shardkit.sample import fs_text
from shardkit.tree.source import Source, find_splits, scan_splits, scan_tree
from shardkit.tree.together import group_files

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DatasetPlan:
    """What a packing of one class tree would write. `shards`: (file name, samples, bytes) of each."""

    name: str
    manifest: str
    classes: tuple[ClassEntry, ...]
    samples: int
    image_bytes: int
    shards: tuple[tuple[str, int, int], ...]
    left_out: Mapping[str, tuple[int, tuple[str, ...]]]


@dataclass(frozen=True, slots=True)
class PackPlan:
    """What a packing would write: a DatasetPlan for the class tree, or one for each split."""

    datasets: tuple[DatasetPlan, ...]


def pack(
    source: str | os.PathLike[str],
    dest: str | os.PathLike[str],
    *,
    format: FormatName = "tar",
    max_bytes: int | str = "256MB",
    max_count: int | None = None,
    shuffle: bool = True,
    seed: int = 0,
    workers: int | None = None,
    classes: Classes | None = None,
    classes_from: str | os.PathLike[str] | Manifest | None = None,
    ext: Sequence[str] | str | None = None,
    fields: Sequence[str] | str | None = None,
    check: Check = "header",
    on_error: OnError = "stop",
    overwrite: bool = False,
    dry_run: bool = False,
    progress: ProgressFn = silent,
) -> Manifest | dict[str, Manifest] | PackPlan:
    """Pack a class-directory tree into shards with an index and a manifest.

    source: a folder of class folders; or a folder of splits (`train`, `validation`, `test` …), each one of those.
    dest: what the file names start with: `shards/train` gives `shards/train-000000.tar`, `shards/train.json` …; for a
    folder of splits, the folder that takes them all. An existing folder takes a dataset named after the source.

    max_bytes, max_count: limits for a shard (int bytes, or text such as "64MiB"); shards come out even.
    shuffle, seed: put the samples in a seeded random order, over all shards; without it they stay in the scan's order.
    workers: processes (default: the cores). The bytes of every file are the same for any number of them.
    classes: the names in label order, or a file with one on each line; classes_from: a manifest whose classes to use.
    ext: the file extensions that count as images. fields: the extensions of the files that make up each sample, as
    "jpg,json,txt": those of one folder and name become one sample, and no image need be among them.
    check: look at each image's header, decode it in full, or neither.
    on_error: "stop" at the first bad file, or "skip" it and list it in `NAME.skipped.json`.
    overwrite: replace another dataset at `dest`. dry_run: write nothing, and give back the PackPlan.
    progress: called now and then, from any thread, with an events.Progress.

    Gives back the manifest; for a folder of splits a dict of split name to manifest, with one class map for all.
    Run again after an interruption, it keeps the shards that are finished; after success, it writes nothing.

    Raises UsageError, SourceError, BadFileError, DestinationError, BusyError, StorageError, WorkerError.
    """
    options = make_options(
        format=format, max_bytes=max_bytes, max_count=max_count, shuffle=shuffle, seed=seed, workers=workers,
        ext=ext, fields=fields, check=check, on_error=on_error, overwrite=overwrite,
    )  # fmt: skip
    names = class_names(classes, classes_from)
    root, to = _local(source, "source"), _local(dest, "destination")
    splits = find_splits(root, extensions=options.extensions)
    destinations = {"": destination_of(to, root)} if splits is None else split_destinations(to, root, splits)
    with ExitStack() as stack:
        engine: Engine = run_here
        if not dry_run:
            locks = [stack.enter_context(working(each)) for each in destinations.values()]
            for each in destinations.values():
                check_free(each, overwrite=overwrite)
            if options.workers > 1:  # they load while the source is scanned
                engine = stack.enter_context(LocalEngine(options.workers, [lock.fd for lock in locks]))
        scanned = _scan(root, splits, options, names, progress)
        jobs = [_Job(key, destinations[key], _planned(found, destinations[key].stem, options), options)
                for key, found in scanned.items()]  # fmt: skip
        if dry_run:
            return PackPlan(tuple(job.described() for job in jobs))
        done = {job.split: job.finished() for job in jobs}  # before any is written, since it may refuse
        manifests = {job.split: done[job.split] or job.run(engine, progress) for job in jobs}
    return manifests[""] if splits is None else manifests


def _local(place: str | os.PathLike[str], what: str) -> str:
    location = locate(place)
    if not location.is_local:
        raise UsageError(str(location), f"the {what} of a packing is a folder of this machine", "give a path")
    return location.path


def _scan(
    root: str,
    splits: Sequence[str] | None,
    options: PackOptions,
    classes: Sequence[str] | None,
    progress: ProgressFn,
) -> Mapping[str, Source]:
    given: dict[str, Any] = {"classes": classes, "extensions": options.extensions, "progress": progress}
    found = {"": scan_tree(root, **given)} if splits is None else scan_splits(root, splits, **given)
    for split, source in found.items():
        where = f"{split}: " if split else ""
        for line in source.left_out.lines():
            log.warning("%sleft out: %s", where, line)
    return found


def _planned(source: Source, stem: str, options: PackOptions) -> Content:
    if not options.fields:
        return plan_source(source, stem, options)
    grouped = group_files(source, options.fields, skip_bad=options.on_error == "skip")
    return plan_source(grouped.samples, stem, options, grouped)


class _Job:
    """The packing of one dataset."""

    def __init__(self, split: str, destination: Destination, content: Content, options: PackOptions) -> None:
        self.split = split
        self.destination = destination
        self.content = content
        self.options = options

    def described(self) -> DatasetPlan:
        source, plan = self.content.source, self.content.plan
        shards = [plan.shard(number) for number in range(len(plan))]
        return DatasetPlan(
            name=self.split or self.destination.stem,
            manifest=fs_text(self.destination.manifest),
            classes=tuple(map(ClassEntry, source.classes, source.counts.tolist())),
            samples=len(source),
            image_bytes=int(source.sizes.sum()),
            shards=tuple((shard.name, len(shard.rows), shard.bytes) for shard in shards),
            left_out={reason: (entry.count, entry.examples) for reason, entry in source.left_out.reasons.items()},
        )

    def finished(self) -> Manifest | None:
        """The manifest of this very content, where it is packed already. DestinationError where another's is there."""
        found = finished(self.destination, self.content, self.options)
        if found is not None:
            log.info("%s: already packed", fs_text(self.destination.manifest))
            keep_only(self.destination, ())
        return found

    def run(self, engine: Engine, progress: ProgressFn) -> Manifest:
        """Write what is not there yet, and commit."""
        loading = threading.Thread(target=_load_pyarrow)
        loading.start()  # while the workers write
        try:
            keep_only(self.destination, self.content.plan.names)
            receipts = self._write(engine, progress)
        finally:
            loading.join()  # a library that is half loaded may not survive the end of the process
        return self._commit(receipts)

    def _write(self, engine: Engine, progress: ProgressFn) -> list[Receipt]:
        """The receipts of all shards in their order; those of an earlier run are kept."""
        total, total_bytes = len(self.content.source), int(self.content.source.sizes.sum())
        told, lock = [0, 0], threading.Lock()

        def advance(files: int, size: int) -> None:
            with lock:
                told[0] += files
                told[1] += size
                progress(Progress("pack", told[0], total, told[1], total_bytes))

        return write_shards(self.content.tasks(self.destination.work, self.options), engine, advance)

    def _commit(self, receipts: Sequence[Receipt]) -> Manifest:
        entries = tuple(receipt.entry for receipt in receipts)
        grouped = self.content.grouped
        skipped = [] if grouped is None else [Skipped(path, reason) for path, reason in grouped.incomplete]
        skipped += [item for receipt in receipts for item in receipt.skipped]
        for item in skipped:
            log.warning("skipped: %s: %s", printable(item.path), item.reason)
        samples = sum(entry.samples for entry in entries)
        if not samples:
            fact = f"none of its {len(skipped)} files can be packed (the first: {skipped[0].path}: {skipped[0].reason})"
            raise SourceError(fs_text(self.content.source.root), fact, "mend the files, or name others with --ext")
        _tell_types(receipts)
        counts = Counter[int]()
        for receipt in receipts:
            counts.update(receipt.labels)
        for label, planned in enumerate(self.content.source.counts.tolist()):
            if planned and not counts[label]:
                name = printable(self.content.source.classes[label])
                log.warning("no image of class %s is left: all of them were skipped", name)
        manifest = Manifest(
            shard_format=self.options.format,
            samples=samples,
            bytes=sum(entry.bytes for entry in entries),
            classes=tuple(ClassEntry(name, counts[label]) for label, name in enumerate(self.content.source.classes)),
            fields=tuple(sorted({"cls"}.union(*(receipt.fields for receipt in receipts)))),
            shards=entries,
            index=write_index_files(self.destination, entries),
            skipped=len(skipped),
            options=self.options.recorded(),
            plan=self.content.digest,
        )
        commit(self.destination, manifest, skipped)
        return manifest


def _tell_types(receipts: Sequence[Receipt]) -> None:
    """Say which files are not what their extension says: they are packed as they are, and decode all the same."""
    totals = Counter[str]()
    for receipt in receipts:
        totals.update(receipt.types)
    for kind, count in sorted(totals.items()):
        what, _, extension = kind.partition(" ")
        if what and what != extension.upper() and (what, extension) != ("JPEG", "jpg") and not _belong(what, extension):
            log.warning("files named .%s that are %s: %d; they are packed as they are", extension, what, count)


def _belong(what: str, extension: str) -> bool:
    from PIL import Image

    Image.init()
    return what in (Image.EXTENSION.get("." + extension), {"mpo": "JPEG"}.get(extension))


def _load_pyarrow() -> None:
    """Load what writes the index. A failure shows when it is written."""
    with contextlib.suppress(ImportError):
        import pyarrow.parquet  # noqa: F401
