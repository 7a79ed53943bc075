"""A complete packing: scan, plan, write, commit. `shardkit pack` calls `pack`.

While a job runs, it writes only to the folder `.NAME.packing` beside its destination: the finished shards, each with
its receipt. The commit writes the index and the manifest there too, then moves everything into place, the manifest
last. So a dataset is absent or whole, and an interrupted job resumes where it stopped.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from shardkit.events import Progress, ProgressFn, no_progress
from shardkit.formats.format import FORMATS, FormatName
from shardkit.location import locate
from shardkit.options.files import require_folder
from shardkit.options.keywords import named_options
from shardkit.options.old_keywords import Moved, accept_old_keywords, moved_into, spell
from shardkit.packing.commit import Planned, commit, manifest_of, planned
from shardkit.packing.dest.destination import Destination
from shardkit.packing.dest.earlier_run import find_finished
from shardkit.packing.dest.in_the_way import check_free
from shardkit.packing.dest.open import destinations_of
from shardkit.packing.dest.work_folder import IndexFiles, keep_only
from shardkit.packing.engine.engine import Engine, open_engine
from shardkit.packing.engine.options import EngineLike, EngineOptions, engine_options, move_engine
from shardkit.packing.options import PackOptions, class_names, make_options
from shardkit.packing.packed import ClassesFrom, Packed, PackedDataset
from shardkit.packing.parts.part import Part, PartLike, part_of
from shardkit.packing.parts.record import (
    PartRecord,
    begin_part,
    encoded_plan,
    plan_mark,
    require_same_plan,
    write_record,
)
from shardkit.packing.plan.append import PathSummary, existing_datasets, require_free, text_columns
from shardkit.packing.plan.content import PlannedDataset
from shardkit.packing.plan.datasets import dataset_names, plan_datasets
from shardkit.packing.run import write_shards
from shardkit.packing.settings import Classes, Images, OnError, PackSettings
from shardkit.packing.totals import Totals
from shardkit.packing.write.images import ImageCheck
from shardkit.shards.corrections.version import index_files_taken
from shardkit.shards.manifest import ClassEntry, Manifest, ShardEntry
from shardkit.sources.lists.in_memory import TableInMemory, TableLike, in_memory
from shardkit.sources.lists.tables import is_list
from shardkit.sources.open import Opened, named_path, open_source, with_text
from shardkit.sources.options import LabelOptions, TableColumns
from shardkit.sources.scratch import pieces
from shardkit.sources.source import Source
from shardkit.units import short_repr

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DatasetPlan:
    """What a packing of one class tree would write. `shards`: (file name, samples, bytes) of each shard.

    changed, gone: with `append`, the files of the existing dataset that have changed in the source, or are missing
    there.
    """

    name: str
    manifest: str
    classes: tuple[ClassEntry, ...]
    samples: int
    image_bytes: int
    shards: tuple[tuple[str, int, int], ...]
    left_out: Mapping[str, tuple[int, tuple[str, ...]]]
    changed: PathSummary = field(default_factory=PathSummary)
    gone: PathSummary = field(default_factory=PathSummary)

    __repr__ = short_repr


@dataclass(frozen=True, slots=True)
class PackPlan:
    """What a packing would write: a DatasetPlan for the class tree or for each split."""

    datasets: tuple[DatasetPlan, ...]

    __repr__ = short_repr


def _move_dry_run(kwargs: dict[str, Any]) -> Moved | None:
    if "dry_run" not in kwargs:
        return None
    asked = kwargs.pop("dry_run")
    old = spell({"dry_run": asked})
    return Moved(old, "plan_pack() in place of pack()", plan_pack) if asked else Moved(old, "nothing in its place")


_OLD_KEYWORDS = (moved_into("images", Images), moved_into("columns", TableColumns), move_engine)


@accept_old_keywords(*_OLD_KEYWORDS, _move_dry_run)
@named_options
def pack(
    source: str | os.PathLike[str] | TableLike,
    dest: str | os.PathLike[str],
    *,
    format: FormatName = "tar",
    max_bytes: int | str = "256MB",
    max_count: int | None = None,
    shuffle: bool = True,
    seed: int = 0,
    workers: int | None = None,
    engine: EngineLike = "local",
    classes: Classes | None = None,
    classes_from: ClassesFrom | None = None,
    ext: Sequence[str] | str | None = None,
    fields: Sequence[str] | str | None = None,
    columns: TableColumns | None = None,
    labels: LabelOptions | None = None,
    split: Mapping[str, float] | str | None = None,
    group_by: str | None = None,
    group_near_duplicates: bool = False,
    images: Images | None = None,
    quality_columns: bool = False,
    check: ImageCheck = "header",
    on_error: OnError = "stop",
    append: bool = False,
    overwrite: bool = False,
    part: PartLike | None = None,
    work: str | os.PathLike[str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    progress: ProgressFn = no_progress,
) -> Packed:
    """Pack a class-directory tree into shards with an index and a manifest.

    source: a folder of class folders; or a folder of splits (`train`, `validation`, `test` …), each of them a folder of
    class folders; an archive of either (zip, 7z, tar, also compressed with gzip, bzip2, xz or zstd), read from its
    single top folder if it has one; a list of files (CSV, TSV, JSON lines, Parquet); a folder of images with a
    `metadata.csv`; a bucket's prefix; arrays of images with labels (.npz, or HDF5: x and y, or x_train, y_train,
    x_test, y_test), which are stored as PNG; or a list of files in memory: a DataFrame of pandas or polars, an Arrow
    table, a dict of columns, or (paths, labels), with paths relative to the working directory. See `sources/open.py`.
    dest: what the file names start with: `shards/train` gives `shards/train-000000.tar`, `shards/train.json` …; for a
    folder of splits, the folder for all of them. In an existing folder, the dataset is named after the source. With
    `s3://bucket/train` (gs://, az:// …) each shard is uploaded while the next are written, and is then deleted from
    this machine; the manifest is uploaded last.

    max_bytes, max_count: limits for a shard (int bytes, or text such as "64MiB"); shards are about equal in size.
    shuffle, seed: put the samples in a seeded random order across all shards; otherwise they stay in scan order.
    workers: the number of processes (default: the number of cores). It does not affect the bytes of any file.
    engine: "local" for processes on this machine, or a `shardkit.Ray` for a Ray cluster, with a task for each shard.
    All nodes must see the source and the destination. workers then limits the tasks that run at a time (default: the
    cluster's CPUs).
    classes: the names in label order, or a file with one per line; classes_from: a manifest, or a result of `pack`,
    whose classes to use.
    ext: the file extensions that count as images. fields: the extensions of the files that make up each sample, such as
    "jpg,json,txt": files with the same folder and name become one sample, which need not include an image.
    columns: a `shardkit.TableColumns`, for a list whose columns have unusual names; columns that are neither paths nor
    labels become the field `json`. Labels are class names or numbers, lists of them, or numbers with a decimal point as
    regression targets; lists and targets are stored in the field `cls.json`.
    labels: a `shardkit.LabelOptions`: find the classes in the file names (also in a flat folder), merge several classes
    into one, or pack all images without labels, to predict them.
    split: divide the samples of one tree into splits, as in {"train": 0.8, "validation": 0.2} or
    "train=0.8,validation=0.2", which are packed like the splits of a folder. A sample's split depends only on its key,
    `seed` and the fractions, so adding samples never moves others. group_by: a regular expression; files for which its
    first group (or the whole expression) matches the same text in the path below the source stay in the same split.
    group_near_duplicates: images that look alike stay in the same split, as do equal files: all images are read and
    compared first, as in the source. A new image may then move others. With `group_by`, a group that has a
    near-duplicate of another one stays with it. Not with `append`.
    images: a `shardkit.Images`: resize, convert, or remove metadata; find seek points, for faster crops. An image that
    already conforms is copied byte for byte.
    quality_columns: decode each image at a small scale, and store a perceptual hash, brightness, sharpness and entropy
    in the index, for `where()` and `report`.
    check: "header" reads each image's header, "full" decodes the image, "none" does neither.
    on_error: "stop" at the first bad file, or "skip" it and list it in `NAME.skipped.json`.
    append: add the files whose paths the dataset at `dest` does not have, as additional shards. Existing shards stay
    unchanged; files that have changed or are gone are logged, and counted in the manifest's options. New classes get
    the next labels. Without a dataset at `dest`, everything is packed.
    overwrite: replace another dataset at `dest`, which stays intact until the new manifest replaces its own. The new
    files have names of the next generation (`train-g2-000000.tar`).
    part: write only one of several equal parts, such as "3/16" or (3, 16), on as many machines as there are parts, all
    with the same source, destination and options; `shardkit.merge(dest)` then makes a dataset of them. "auto" takes the
    part from SLURM_ARRAY_TASK_ID, or from JOB_COMPLETION_INDEX with JOB_COMPLETIONS. The manifests in the result have
    this part's shards, and are not written.
    work: the folder for shards that await upload to a bucket (default: the user's cache). storage_options: options of
    the bucket, such as credentials and endpoint, which are never stored.
    progress: called from time to time, from any thread, with an events.Progress.

    Returns the datasets by name, each with its manifest; splits share one class map. Run again after an interruption,
    it keeps the finished shards; after success, it writes nothing.

    Raises UsageError, SourceError, BadFileError, DestinationError, BusyError, StorageError, WorkerError.
    """
    settings = PackSettings(
        format=format, max_bytes=max_bytes, max_count=max_count, shuffle=shuffle, seed=seed, workers=workers,
        engine=engine, classes=classes, classes_from=classes_from, ext=ext, fields=fields,
        columns=columns or TableColumns(), labels=labels or LabelOptions(), split=split, group_by=group_by,
        group_near_duplicates=group_near_duplicates, images=images or Images(), quality_columns=quality_columns,
        check=check, on_error=on_error, append=append, overwrite=overwrite, part=part, work=work,
        storage_options=storage_options,
    )  # fmt: skip
    packing = prepare(source, dest, settings, progress)
    with ExitStack() as stack:
        locks = [stack.enter_context(each.locked(packing.part)) for each in packing.destinations.values()]
        destinations = {
            key: check_free(each, overwrite=overwrite, parts=True) for key, each in packing.destinations.items()
        }
        run = stack.enter_context(open_engine(packing.where, [lock.fd for lock in locks]))  # loads during the scan
        jobs = packing.jobs(destinations, progress)
        done = {job.split: job.find_finished() for job in jobs}  # before anything is written, since it may refuse
        tellers = _counting_on([job for job in jobs if done[job.split] is None], progress)
        manifests = {job.split: done[job.split] or job.run(run, tellers[job.split]) for job in jobs}
    return packing.result(manifests)


@accept_old_keywords(*_OLD_KEYWORDS)
@named_options
def plan_pack(
    source: str | os.PathLike[str] | TableLike,
    dest: str | os.PathLike[str],
    *,
    format: FormatName = "tar",
    max_bytes: int | str = "256MB",
    max_count: int | None = None,
    shuffle: bool = True,
    seed: int = 0,
    workers: int | None = None,
    engine: EngineLike = "local",
    classes: Classes | None = None,
    classes_from: ClassesFrom | None = None,
    ext: Sequence[str] | str | None = None,
    fields: Sequence[str] | str | None = None,
    columns: TableColumns | None = None,
    labels: LabelOptions | None = None,
    split: Mapping[str, float] | str | None = None,
    group_by: str | None = None,
    group_near_duplicates: bool = False,
    images: Images | None = None,
    quality_columns: bool = False,
    check: ImageCheck = "header",
    on_error: OnError = "stop",
    append: bool = False,
    overwrite: bool = False,
    part: PartLike | None = None,
    work: str | os.PathLike[str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    progress: ProgressFn = no_progress,
) -> PackPlan:
    """What `pack` would write with the same arguments; nothing is written. Raises as `pack` does."""
    settings = PackSettings(
        format=format, max_bytes=max_bytes, max_count=max_count, shuffle=shuffle, seed=seed, workers=workers,
        engine=engine, classes=classes, classes_from=classes_from, ext=ext, fields=fields,
        columns=columns or TableColumns(), labels=labels or LabelOptions(), split=split, group_by=group_by,
        group_near_duplicates=group_near_duplicates, images=images or Images(), quality_columns=quality_columns,
        check=check, on_error=on_error, append=append, overwrite=overwrite, part=part, work=work,
        storage_options=storage_options,
    )  # fmt: skip
    packing = prepare(source, dest, settings, progress)
    return PackPlan(tuple(job.described() for job in packing.jobs(packing.destinations, progress)))


class Packing(msgspec.Struct, frozen=True):
    """A packing whose source is not scanned yet. destinations: split -> destination ("" if there are no splits)."""

    options: PackOptions
    where: EngineOptions
    names: Sequence[str] | None
    opened: Opened
    dest: str
    destinations: Mapping[str, Destination]
    part: Part | None

    def jobs(self, destinations: Mapping[str, Destination], progress: ProgressFn) -> list[Job]:
        """Scan the source and plan each dataset."""
        before = existing_datasets(destinations, self.options) if self.options.append else {}
        scanned = _scan(self.opened, self.names, progress)
        contents = plan_datasets(scanned, destinations, self.options, before, self.names, progress)
        return [Job(key, destinations[key], content, self.options, self.part) for key, content in contents.items()]

    def result(self, manifests: Mapping[str, Manifest]) -> Packed:
        """The result of `pack`. manifests: by split."""
        found = {
            split or self.destinations[split].stem: PackedDataset(self._location(split), manifest)
            for split, manifest in manifests.items()
        }
        return Packed(found, splits="" not in manifests)

    def _location(self, split: str) -> str:
        """The prefix of a dataset, as relative or absolute as `dest` is."""
        if split:
            return os.path.join(self.dest, split)
        path = str(self.destinations[split]).removesuffix(".json")
        return path if os.path.isabs(self.dest) or not locate(self.dest).is_local else os.path.relpath(path)


def prepare(
    source: str | os.PathLike[str] | TableLike,
    dest: str | os.PathLike[str],
    settings: PackSettings,
    progress: ProgressFn,
) -> Packing:
    """Check everything that can be checked before the scan."""
    options, columns, part = make_options(settings), settings.columns, part_of(settings.part)
    where = replace(engine_options(settings.engine, settings.workers), threads=_needs_no_python(source, options))
    found = in_memory(source)
    if where.name != "local":  # a node may have another working directory
        found = found if isinstance(found, TableInMemory) else _whole_path(found)
        columns = columns if columns.root is None else replace(columns, root=_whole_path(columns.root))
    names = class_names(settings.classes, settings.classes_from)
    if columns.root is not None:
        require_folder(columns.root, "root")
    named, goes_to = named_path(found), locate(dest)
    opened = open_source(found, options, columns, settings.storage_options, progress)
    splits = dataset_names(named, opened.splits, options)
    for_source = goes_to.is_local and not isinstance(found, TableInMemory) and not locate(found).is_local
    access = None if for_source else settings.storage_options
    destinations = destinations_of(goes_to, named, splits, work=settings.work, options=access)
    if options.append:
        opened = with_text(opened, found, columns, text_columns(destinations.values()))
    return Packing(options, where, names, opened, os.fspath(dest), destinations, part)


def _needs_no_python(source: str | os.PathLike[str] | TableLike, options: PackOptions) -> bool:
    """Whether the C extension may write all shards, so that worker processes need not be started before the scan."""
    if options.check != "header" or options.transcode is not None or options.fields:
        return False
    if isinstance(source, (str, os.PathLike)) and not os.path.isdir(source):
        name = os.fspath(source).lower()
        if not is_list(name) and not name.endswith((".zip", ".tar")):
            return False
    return FORMATS[options.format].has_gatherer()


def _whole_path(path: str | os.PathLike[str]) -> str | os.PathLike[str]:
    return os.path.abspath(path) if locate(path).is_local else path


def _scan(opened: Opened, classes: Sequence[str] | None, progress: ProgressFn) -> Mapping[str, Source]:
    found = opened.scan(classes, progress)
    for split, source in found.items():
        where = f"{split}: " if split else ""
        for line in source.left_out.lines():
            log.warning("%sleft out: %s", where, line)
    return found


class Job:
    """The packing of one dataset."""

    def __init__(
        self, split: str, destination: Destination, content: PlannedDataset, options: PackOptions, part: Part | None
    ) -> None:
        self.split = split
        self.destination = destination
        self.content = content
        self.options = options
        self.part = part
        count = len(content.plan)
        self.share = range(count) if part is None else part.share(count)
        """The numbers of the shards to write."""

    def described(self) -> DatasetPlan:
        """What this would write."""
        source, plan = self.content.source, self.content.plan
        shards = [plan.shard(number) for number in self.share]
        return DatasetPlan(
            name=self.split or self.destination.stem,
            manifest=str(self.destination),
            classes=tuple(map(ClassEntry, source.classes, source.counts.tolist())),
            samples=len(source),
            image_bytes=int(source.sizes.sum()),
            shards=tuple((shard.name, len(shard.rows), shard.bytes) for shard in shards),
            left_out={reason: (entry.count, entry.examples) for reason, entry in source.left_out.reasons.items()},
            changed=PathSummary() if self.content.before is None else self.content.before.changed,
            gone=PathSummary() if self.content.before is None else self.content.before.gone,
        )

    def find_finished(self) -> Manifest | None:
        """The manifest, if this content is already packed; else None. DestinationError if another dataset is there."""
        if self.content.before is not None:
            require_free(self.content.before, self.content.plan.names)
            return self._unchanged() if not len(self.content.source) else None
        found = find_finished(self.destination, self.content, self.options)
        if found is not None:
            log.info("%s: already packed and complete; nothing was written", self.destination)
            keep_only(self.destination, ())
        return found

    def _unchanged(self) -> Manifest | None:
        """The manifest of the dataset that is added to, if there is nothing to add."""
        before = self.content.before
        if before is None or before.manifest.class_names != list(self.content.source.classes):
            return None
        log.info("%s: nothing to add; nothing was written", self.destination)
        keep_only(self.destination, ())
        return before.manifest

    def run(self, engine: Engine, progress: ProgressFn) -> Manifest:
        """Write the missing shards, and commit; or write those of a part, and leave a record of it."""
        what = planned(self.content, self.destination.base, self.options)
        if self.part is not None:
            return self._run_part(self.part, what, engine, progress)
        loading = threading.Thread(target=_load_pyarrow)
        loading.start()  # while the workers write
        try:
            require_same_plan(self.destination.shared, what)
            keep_only(self.destination, what.shards)
            self.destination.fetch(what.shards)
            before = None if self.content.before is None else self.content.before.manifest
            earlier = () if before is None else index_files_taken(before)
            looks = {"seek": what.seek_points, "quality": what.quality_columns}
            with IndexFiles(self.destination, earlier, columns=what.columns, **looks) as index:
                totals = self._write(engine, progress, index)
                entries = index.end()
        finally:
            loading.join()  # a half-loaded library may crash when the process ends
        return commit(self.destination, what, totals, entries, before)

    def _run_part(self, part: Part, what: Planned, engine: Engine, progress: ProgressFn) -> Manifest:
        """Write the missing shards of a part. Returns a manifest of them alone, which is not written."""
        shared = self.destination.shared
        begin_part(shared, part, what)
        self.destination.fetch([what.shards[number] for number in self.share])
        totals = self._write(engine, progress)
        shared.require_held()
        write_record(shared, PartRecord(part.number, part.count, plan_mark(encoded_plan(what)), totals))
        log.info("%s: part %s is finished", self.destination, part)
        return manifest_of(what, totals, (), sum(1 for _ in totals.skipped))

    def _write(self, engine: Engine, progress: ProgressFn, index: IndexFiles | None = None) -> Totals:
        """What the shards hold; those of an earlier run are kept. Their rows go to the index, if there is one yet."""
        total, total_bytes = self.extent()
        reported, lock = [0, 0], threading.Lock()

        def advance(files: int, size: int) -> None:
            with lock:
                reported[0] += files
                reported[1] += size
                progress(Progress("pack", reported[0], total, reported[1], total_bytes))

        def finished(shard: ShardEntry) -> None:
            if index is not None and shard.samples:  # readers reject empty shards
                index.add(shard)

        tasks = self.content.tasks(self.destination.work, self.options, self.share)
        part = self.part is not None
        return write_shards(tasks, engine, advance, self.destination, progress, finished=finished, part=part)

    def extent(self) -> tuple[int, int]:
        """(samples, bytes) to read."""
        source, plan = self.content.source, self.content.plan
        if self.part is None:
            return len(source), int(source.sizes.sum())
        first, end = (int(plan.bounds[number]) for number in (self.share.start, self.share.stop))
        runs = (plan.order[first + start : first + stop] for start, stop in pieces(end - first))
        return end - first, sum(int(source.sizes[rows].sum()) for rows in runs)


def _counting_on(jobs: Sequence[Job], progress: ProgressFn) -> dict[str, ProgressFn]:
    """A ProgressFn for each job, by split: the step "pack" counts on from job to job, up to the total of all."""
    extents = [job.extent() for job in jobs]
    total, total_bytes = sum(count for count, _ in extents), sum(size for _, size in extents)

    def after(done: int, bytes_done: int) -> ProgressFn:
        def tell(now: Progress) -> None:
            if now.step == "pack":
                now = Progress("pack", now.done + done, total, now.bytes_done + bytes_done, total_bytes)
            progress(now)

        return tell

    tellers, done, bytes_done = {}, 0, 0
    for job, (count, size) in zip(jobs, extents, strict=True):
        tellers[job.split] = after(done, bytes_done)
        done, bytes_done = done + count, bytes_done + size
    return tellers


def _load_pyarrow() -> None:
    """Load the library that writes the index. A failure shows up when the index is written."""
    with contextlib.suppress(ImportError):
        import pyarrow.parquet  # noqa: F401
