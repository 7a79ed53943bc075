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
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from shardkit.errors import SourceError, UsageError, printable
from shardkit.events import Progress, ProgressFn, no_progress
from shardkit.formats.format import FORMATS, FormatName
from shardkit.location import locate
from shardkit.options.files import require_folder
from shardkit.options.keywords import named_options
from shardkit.options.old_keywords import Moved, accept_old_keywords, moved_into, spell
from shardkit.packing.dest.destination import Destination
from shardkit.packing.dest.earlier_run import find_finished
from shardkit.packing.dest.in_the_way import check_free
from shardkit.packing.dest.open import destinations_of
from shardkit.packing.dest.work_folder import IndexFiles, keep_only
from shardkit.packing.engine.engine import Engine, open_engine
from shardkit.packing.engine.options import EngineLike, EngineOptions, engine_options, move_engine
from shardkit.packing.options import PackOptions, class_names, make_options
from shardkit.packing.packed import ClassesFrom, Packed, PackedDataset
from shardkit.packing.plan.append import PathSummary, existing_datasets, require_free
from shardkit.packing.plan.content import PlannedDataset
from shardkit.packing.plan.datasets import dataset_names, plan_datasets
from shardkit.packing.run import write_shards
from shardkit.packing.settings import Classes, Images, OnError, PackSettings
from shardkit.packing.write.images import ImageCheck
from shardkit.packing.write.receipt import Receipt, Skipped
from shardkit.sample import fs_text
from shardkit.shards.manifest import ClassEntry, IndexEntry, Manifest, ShardEntry, content_options
from shardkit.shards.names import skipped_name
from shardkit.sources.lists.in_memory import TableInMemory, TableLike, in_memory
from shardkit.sources.lists.tables import is_list
from shardkit.sources.open import Opened, named_path, open_source
from shardkit.sources.options import LabelOptions, TableColumns
from shardkit.sources.source import Source
from shardkit.units import short_repr

log = logging.getLogger(__name__)

SHOWN_SKIPPED = 5
"""The number of skipped files that are named in the log; there may be thousands."""


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
    images: Images | None = None,
    check: ImageCheck = "header",
    on_error: OnError = "stop",
    append: bool = False,
    overwrite: bool = False,
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
    this machine; the manifest is uploaded last. Two machines that pack to one bucket do not notice each other: make
    sure that only one does.

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
    images: a `shardkit.Images`: resize, convert, or remove metadata; find seek points, for faster crops. An image that
    already conforms is copied byte for byte.
    check: "header" reads each image's header, "full" decodes the image, "none" does neither.
    on_error: "stop" at the first bad file, or "skip" it and list it in `NAME.skipped.json`.
    append: add the files whose paths the dataset at `dest` does not have, as additional shards. Existing shards stay
    unchanged; files that have changed or are gone are logged, and counted in the manifest's options. New classes get
    the next labels. Without a dataset at `dest`, everything is packed.
    overwrite: replace another dataset at `dest`, which stays intact until the new manifest replaces its own. The new
    files have names of the next generation (`train-g2-000000.tar`).
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
        images=images or Images(), check=check, on_error=on_error, append=append, overwrite=overwrite, work=work,
        storage_options=storage_options,
    )  # fmt: skip
    packing = _prepare(source, dest, settings, progress)
    with ExitStack() as stack:
        locks = [stack.enter_context(each.locked()) for each in packing.destinations.values()]
        destinations = {key: check_free(each, overwrite=overwrite) for key, each in packing.destinations.items()}
        run = stack.enter_context(open_engine(packing.where, [lock.fd for lock in locks]))  # loads during the scan
        jobs = packing.jobs(destinations, progress)
        done = {job.split: job.find_finished() for job in jobs}  # before anything is written, since it may refuse
        manifests = {job.split: done[job.split] or job.run(run, progress) for job in jobs}
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
    images: Images | None = None,
    check: ImageCheck = "header",
    on_error: OnError = "stop",
    append: bool = False,
    overwrite: bool = False,
    work: str | os.PathLike[str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    progress: ProgressFn = no_progress,
) -> PackPlan:
    """What `pack` would write with the same arguments; nothing is written. Raises as `pack` does."""
    settings = PackSettings(
        format=format, max_bytes=max_bytes, max_count=max_count, shuffle=shuffle, seed=seed, workers=workers,
        engine=engine, classes=classes, classes_from=classes_from, ext=ext, fields=fields,
        columns=columns or TableColumns(), labels=labels or LabelOptions(), split=split, group_by=group_by,
        images=images or Images(), check=check, on_error=on_error, append=append, overwrite=overwrite, work=work,
        storage_options=storage_options,
    )  # fmt: skip
    packing = _prepare(source, dest, settings, progress)
    return PackPlan(tuple(job.described() for job in packing.jobs(packing.destinations, progress)))


@dataclass(frozen=True, slots=True)
class _Packing:
    """A packing whose source is not scanned yet. destinations: split -> destination ("" if there are no splits)."""

    options: PackOptions
    where: EngineOptions
    names: Sequence[str] | None
    opened: Opened
    dest: str
    destinations: Mapping[str, Destination]

    def jobs(self, destinations: Mapping[str, Destination], progress: ProgressFn) -> list[_Job]:
        """Scan the source and plan each dataset."""
        before = existing_datasets(destinations, self.options) if self.options.append else {}
        scanned = _scan(self.opened, self.names, progress)
        contents = plan_datasets(scanned, destinations, self.options, before, self.names)
        return [_Job(key, destinations[key], content, self.options) for key, content in contents.items()]

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


def _prepare(
    source: str | os.PathLike[str] | TableLike,
    dest: str | os.PathLike[str],
    settings: PackSettings,
    progress: ProgressFn,
) -> _Packing:
    """Check everything that can be checked before the scan."""
    options, columns = make_options(settings), settings.columns
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
    parts = dataset_names(named, opened.splits, options)
    if options.append and not goes_to.is_local:
        fact = "files can be added to a dataset on this machine only"
        raise UsageError(str(goes_to), fact, "download it, add them there, and upload it again")
    for_source = goes_to.is_local and not isinstance(found, TableInMemory) and not locate(found).is_local
    access = None if for_source else settings.storage_options
    destinations = destinations_of(goes_to, named, parts, work=settings.work, options=access)
    return _Packing(options, where, names, opened, os.fspath(dest), destinations)


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


class _Job:
    """The packing of one dataset."""

    def __init__(self, split: str, destination: Destination, content: PlannedDataset, options: PackOptions) -> None:
        self.split = split
        self.destination = destination
        self.content = content
        self.options = options

    def described(self) -> DatasetPlan:
        source, plan = self.content.source, self.content.plan
        shards = [plan.shard(number) for number in range(len(plan))]
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
        """Write the missing shards, and commit."""
        loading = threading.Thread(target=_load_pyarrow)
        loading.start()  # while the workers write
        try:
            keep_only(self.destination, self.content.plan.names)
            earlier = () if self.content.before is None else self.content.before.manifest.index
            with IndexFiles(self.destination, earlier, seek=self.options.seek_points) as index:
                receipts = self._write(engine, index, progress)
                entries = index.end()
        finally:
            loading.join()  # a half-loaded library may crash when the process ends
        return self._commit(receipts, entries)

    def _write(self, engine: Engine, index: IndexFiles, progress: ProgressFn) -> list[Receipt]:
        """The receipts of all shards in order; those of an earlier run are kept. Their rows go to the index."""
        total, total_bytes = len(self.content.source), int(self.content.source.sizes.sum())
        reported, lock = [0, 0], threading.Lock()

        def advance(files: int, size: int) -> None:
            with lock:
                reported[0] += files
                reported[1] += size
                progress(Progress("pack", reported[0], total, reported[1], total_bytes))

        def finished(shard: ShardEntry) -> None:
            if shard.samples:  # readers reject empty shards
                index.add(shard)

        tasks = self.content.tasks(self.destination.work, self.options)
        return write_shards(tasks, engine, advance, self.destination, progress, finished=finished)

    def _commit(self, receipts: Sequence[Receipt], index: tuple[IndexEntry, ...]) -> Manifest:
        entries = tuple(receipt.entry for receipt in receipts if receipt.entry.samples)
        grouped = self.content.grouped
        incomplete = self.content.source.incomplete + (() if grouped is None else grouped.incomplete)
        skipped = [Skipped(path, reason) for path, reason in incomplete]
        skipped += [item for receipt in receipts for item in receipt.skipped]
        _tell_skipped(skipped, self.destination.base)
        samples = sum(entry.samples for entry in entries)
        if not samples and (unchanged := self._unchanged()) is not None:
            return unchanged
        if not samples and self.content.before is None:
            fact = f"none of its {len(skipped)} files can be packed (the first: {skipped[0].path}: {skipped[0].reason})"
            raise SourceError(fs_text(self.content.source.root), fact, "fix the files, or name others with `ext`")
        _tell_types(receipts)
        _tell_done(receipts)
        counts, before = Counter[int](), self.content.before
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
            fields=tuple(sorted(self.content.source.label_fields.union(*(receipt.fields for receipt in receipts)))),
            shards=entries,
            index=index,
            skipped=len(skipped),
            options=self.options.recorded() | content_options(labels=self.content.source.label_kind),
            plan=self.content.digest,
        )
        manifest = manifest if before is None else before.merged(manifest)
        self.destination.commit(manifest, skipped)
        return manifest


def _tell_skipped(skipped: Sequence[Skipped], base: str) -> None:
    """Log the first few, and the file that lists all."""
    for item in skipped[:SHOWN_SKIPPED]:
        log.warning("skipped: %s: %s", printable(item.path), item.reason)
    if len(skipped) > SHOWN_SKIPPED:
        log.warning(
            "skipped: %d more, %d in all: see %s", len(skipped) - SHOWN_SKIPPED, len(skipped), skipped_name(base)
        )


def _tell_types(receipts: Sequence[Receipt]) -> None:
    """Log the files whose content differs from their extension: they are packed unchanged, and decode nevertheless."""
    totals = Counter[str]()
    for receipt in receipts:
        totals.update(receipt.types)
    for kind, count in sorted(totals.items()):
        what, _, extension = kind.partition(" ")
        if what and what != extension.upper() and (what, extension) != ("JPEG", "jpg") and not _belong(what, extension):
            log.warning("files named .%s that are %s: %d; they are packed unchanged", extension, what, count)


def _tell_done(receipts: Sequence[Receipt]) -> None:
    """Log what transcoding did."""
    totals = Counter[str]()
    for receipt in receipts:
        totals.update(receipt.done)
    several = totals.pop("first of several", 0)
    incomplete = totals.pop("incomplete JPEG", 0)
    if totals:
        log.info("images %s", ", ".join(f"{how}: {count}" for how, count in sorted(totals.items())))
    if several:
        log.warning("files with several images (animations, pages) of which only the first was kept: %d", several)
    if incomplete:
        log.warning("JPEGs not rewritten because some of their scans are missing: %d", incomplete)


def _belong(what: str, extension: str) -> bool:
    from PIL import Image

    return what in (Image.registered_extensions().get("." + extension), {"mpo": "JPEG"}.get(extension))


def _load_pyarrow() -> None:
    """Load the library that writes the index. A failure shows up when the index is written."""
    with contextlib.suppress(ImportError):
        import pyarrow.parquet  # noqa: F401
