"""A whole packing: scan, plan, write, commit. `pack` is the function that `shardkit pack` calls.

While a job runs, all it writes is in the folder `.NAME.packing` beside its destination: the shards that are finished,
each with its receipt. The commit writes index and manifest there too, and then moves everything to its place, the
manifest last. So a dataset is absent or whole, and a job that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

from shardkit.errors import DestinationError, SourceError
from shardkit.events import Progress, ProgressFn, silent
from shardkit.manifest import ClassEntry, Manifest
from shardkit.packing.commit import (
    Destination,
    check_free,
    commit,
    destination_of,
    kept_receipt,
    working,
    write_index_files,
)
from shardkit.packing.engines import Engine, LocalEngine, run_here
from shardkit.packing.options import Classes, OnError, PackOptions, class_names, make_options
from shardkit.packing.shard import Check, Receipt, ShardTask
from shardkit.packing.tasks import Content, plan_source
from shardkit.sample import fs_text
from shardkit.tree.source import Source, find_splits, scan_splits, scan_tree

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
    format: Literal["tar"] = "tar",
    max_bytes: int | str = "256MB",
    max_count: int | None = None,
    shuffle: bool = True,
    seed: int = 0,
    workers: int | None = None,
    classes: Classes | None = None,
    classes_from: str | os.PathLike[str] | Manifest | None = None,
    ext: Sequence[str] | str | None = None,
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
    ext: the file extensions that count as images. check: look at each image's header, decode it in full, or neither.
    on_error: "stop" at the first bad file, or "skip" it and list it in `NAME.skipped.json`.
    overwrite: replace another dataset at `dest`. dry_run: write nothing, and give back the PackPlan.
    progress: called now and then, from any thread, with an events.Progress.

    Gives back the manifest; for a folder of splits a dict of split name to manifest, with one class map for all.
    Run again after an interruption, it keeps the shards that are finished; after success, it writes nothing.

    Raises UsageError, SourceError, BadFileError, DestinationError, BusyError, StorageError, WorkerError.
    """
    options = make_options(
        format=format, max_bytes=max_bytes, max_count=max_count, shuffle=shuffle, seed=seed, workers=workers,
        ext=ext, check=check, on_error=on_error, overwrite=overwrite,
    )  # fmt: skip
    names = class_names(classes, classes_from)
    root = os.fspath(source)
    splits = find_splits(root)
    destinations = _destinations(root, os.fspath(dest), splits)
    with ExitStack() as stack:
        engine: Engine = run_here
        if not dry_run:
            for destination in destinations.values():
                check_free(destination, overwrite=overwrite)
            locks = [stack.enter_context(working(destination)) for destination in destinations.values()]
            if options.workers > 1:  # they load while the source is scanned
                engine = stack.enter_context(LocalEngine(options.workers, [lock.fd for lock in locks]))
        scanned = _scan(root, splits, options, names, progress)
        jobs = [_Job(key, destinations[key], plan_source(found, destinations[key].stem, options), options)
                for key, found in scanned.items()]  # fmt: skip
        if dry_run:
            return PackPlan(tuple(job.described() for job in jobs))
        manifests = {job.split: job.run(engine, progress) for job in jobs}
    return manifests[""] if splits is None else manifests


def _destinations(root: str, dest: str, splits: Sequence[str] | None) -> dict[str, Destination]:
    if splits is None:
        return {"": destination_of(dest, root)}
    if os.path.lexists(dest) and not os.path.isdir(dest):
        raise DestinationError(fs_text(dest), "the destination is a file", "give a folder for the splits")
    return {split: destination_of(os.path.join(dest, split), root) for split in splits}


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
        for reason, entry in source.left_out.reasons.items():
            log.warning("%sleft out: %d %s (%s)", where, entry.count, reason, ", ".join(entry.examples[:3]))
        for name, count in zip(source.classes, source.counts, strict=True):
            if not count:
                log.warning("%sthe class %r has no images", where, name)
    return found


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

    def run(self, engine: Engine, progress: ProgressFn) -> Manifest:
        finished = self._finished()
        if finished is not None:
            return finished
        loading = threading.Thread(target=_load_pyarrow, daemon=True)
        loading.start()  # while the workers write
        receipts = self._write(engine, progress)
        loading.join()
        return self._commit(receipts)

    def _finished(self) -> Manifest | None:
        """The manifest at the destination where it is of this very plan. DestinationError where it is another's."""
        found = self.destination.read_manifest() if not self.options.overwrite else None
        if found is None:
            return None
        if found.plan != self.content.digest:
            fact = "another dataset is there (other files, or other options)"
            cure = "choose another destination, or replace it with --overwrite"
            raise DestinationError(fs_text(self.destination.manifest), fact, cure)
        for entry in found.shards:
            path = os.path.join(self.destination.folder, entry.name)
            if not os.path.exists(path) or os.path.getsize(path) != entry.bytes:
                fact = f"the manifest of this dataset names {entry.name}, which is missing or has another size"
                raise DestinationError(fs_text(self.destination.manifest), fact, "pack again with --overwrite")
        log.info("%s: already packed", fs_text(self.destination.manifest))
        return found

    def _write(self, engine: Engine, progress: ProgressFn) -> list[Receipt]:
        """The receipts of all shards in their order; those of an earlier run are kept."""
        total, total_bytes = len(self.content.source), int(self.content.source.sizes.sum())
        told, lock = [0, 0], threading.Lock()

        def advance(files: int, size: int) -> None:
            with lock:
                told[0] += files
                told[1] += size
                progress(Progress("pack", told[0], total, told[1], total_bytes))

        receipts: dict[str, Receipt] = {}

        def missing() -> Iterator[ShardTask]:
            for task in self.content.tasks(self.destination.work, self.options):
                kept = kept_receipt(task)
                if kept is None:
                    yield task
                else:
                    receipts[kept.entry.name] = kept
                    advance(len(task.paths), sum(task.sizes))

        for receipt in engine(missing(), advance):
            receipts[receipt.entry.name] = receipt
        return [receipts[name] for name in sorted(receipts)]

    def _commit(self, receipts: Sequence[Receipt]) -> Manifest:
        entries = tuple(receipt.entry for receipt in receipts)
        skipped = [item for receipt in receipts for item in receipt.skipped]
        for item in skipped:
            log.warning("skipped: %s: %s", item.path, item.reason)
        samples = sum(entry.samples for entry in entries)
        if not samples:
            fact = f"none of its {len(skipped)} files can be packed (the first: {skipped[0].path}: {skipped[0].reason})"
            raise SourceError(fs_text(self.content.source.root), fact, "mend the files, or name others with --ext")
        _tell_types(receipts)
        counts = Counter[int]()
        for receipt in receipts:
            counts.update(receipt.labels)
        manifest = Manifest(
            shard_format="tar",
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
    usual = {"jpg": "JPEG", "jpe": "JPEG", "jfif": "JPEG", "tif": "TIFF", "pgm": "PPM", "dib": "BMP", "apng": "PNG"}
    totals = Counter[str]()
    for receipt in receipts:
        totals.update(receipt.types)
    for kind, count in sorted(totals.items()):
        what, extension = kind.split(" ")
        if what and what not in (usual.get(extension, extension.upper()), "MPO"):
            log.warning("%d files are named .%s and are %s", count, extension, what)


def _load_pyarrow() -> None:
    pass
