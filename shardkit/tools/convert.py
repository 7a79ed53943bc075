"""`convert`: a dataset in another format, other shards, another order, with other fields.

Where nothing but the format changes, each shard becomes one shard with the same samples, and manifest and index say
the same as before, so that there and back gives the same bytes. Written is as `pack` writes: in parallel, in a folder
beside the destination, with a receipt for each finished shard, and with one commit at the end.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from shardkit.config import parse_bytes
from shardkit.errors import DatasetError, DestinationError, UsageError
from shardkit.events import Progress, ProgressFn, silent
from shardkit.formats.table import FORMATS, Format
from shardkit.location import locate
from shardkit.manifest import ClassEntry, Manifest
from shardkit.packing.commit import commit, keep_only, working, write_index_files
from shardkit.packing.destination import Destination, check_free, destination_of
from shardkit.packing.engines import Engine, LocalEngine, run_here
from shardkit.packing.options import cores
from shardkit.packing.plan import Plan, plan_shards
from shardkit.packing.shard import Receipt, Skipped
from shardkit.packing.stored import StoredTask
from shardkit.packing.writing import write_shards
from shardkit.reading.resolve import SourceLike
from shardkit.sample import field_of, fs_text, path_of_text
from shardkit.tools._stored import Stored, StoredRows, open_stored

log = logging.getLogger(__name__)

LAYOUT = 1
"""Raised when the same conversion begins to give other bytes."""

DEFAULT_MAX_BYTES = "256MB"


@dataclass(frozen=True, slots=True)
class Changes:
    """What becomes of the fields: old -> new name ("": left out), and where it is not empty, those that stay at all."""

    names: Mapping[str, str]
    only: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.names or self.only)

    def of(self, fields: Sequence[str]) -> list[str]:
        """The new names of those of these fields that stay."""
        kept = [self.names.get(name, name) for name in fields if not self.only or name in self.only]
        return [name for name in kept if name]

    @property
    def keep_label(self) -> bool:
        """Whether `cls` stays what it is."""
        return self.names.get("cls", "cls") == "cls" and (not self.only or "cls" in self.only)


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
    overwrite: bool = False,
    progress: ProgressFn = silent,
) -> Manifest:
    """Write the samples of a dataset to new shards, with an index and a manifest.

    source: as for `dataset()`: a prefix, manifest, glob or list of shards, with or without a manifest, also gzip.
    dest: what the file names start with, as for `pack`. format: of the new shards (default: as it was).
    max_bytes, max_count: cut the samples into shards of these limits anew; shuffle, seed: put them in a random order.
    With none of the three, each shard becomes one shard.
    rename: old -> new names of fields; drop: fields to leave out; fields: those to keep, all others are left out.
    Renaming comes last. A sample that lacks such a field is taken as it is. workers: processes (default: the cores).
    overwrite: replace another dataset at `dest`. progress: called now and then, from any thread.

    Gives back the manifest. Run again after an interruption, it keeps the shards that are finished; after success, it
    writes nothing. Every checksum of the source is checked. Raises UsageError, DatasetError (DamagedError),
    DestinationError, BusyError, StorageError, WorkerError.
    """
    changes = _changes(rename or {}, drop, fields)
    count = cores() if workers is None else workers
    if count < 1:
        raise UsageError("workers", f"{count} is too small", "give at least 1")
    stored = open_stored(source, threads=count)
    form = FORMATS[_known(format or stored.format)]
    _demand_fields(changes, stored)
    to = locate(dest)
    if not to.is_local:
        raise UsageError(str(to), "the destination of a conversion is a folder of this machine", "give a path")
    destination = destination_of(to.path, os.path.splitext((stored.place or stored.shards[0]).path)[0])
    limits = None if max_bytes is None and max_count is None and not shuffle else (max_bytes, max_count, shuffle, seed)
    with ExitStack() as stack:
        engine: Engine = run_here
        lock = stack.enter_context(working(destination))
        check_free(destination, overwrite=overwrite)
        if count > 1:
            engine = stack.enter_context(LocalEngine(count, [lock.fd]))
        job = _Conversion(stored, form, changes, destination, _planned(stored, form, changes, destination, limits))
        return job.finished(overwrite=overwrite) or job.run(engine, progress)


def _known(name: str) -> str:
    if name not in FORMATS:
        raise UsageError("format", f"{name!r} is not one of {', '.join(FORMATS)}", "choose one of these")
    return name


def _changes(rename: Mapping[str, str], drop: Sequence[str], fields: Sequence[str] | str | None) -> Changes:
    only = fields.split(",") if isinstance(fields, str) else list(fields or ())
    if fields is not None and not [name for name in only if name.strip()]:
        raise UsageError("fields", "it names no field", "name those to keep")
    for old, new in rename.items():
        if not old or not new or new == "cls" or new.startswith("__") or not new.isprintable() or "/" in new:
            raise UsageError("rename", f"{old!r} can't become {new!r}", "give names such as png=mask.png")
    if twice := set(rename) & set(drop):
        raise UsageError("rename", f"{twice.pop()!r} is to be dropped too", "do one of the two")
    return Changes({**rename, **dict.fromkeys(drop, "")}, tuple(name.strip() for name in only if name.strip()))


def _demand_fields(changes: Changes, stored: Stored) -> None:
    """UsageError for fields that the dataset does not have, where it says which it has."""
    if not stored.fields:
        return
    unknown = [name for name in (*changes.names, *changes.only) if name not in stored.fields]
    if unknown:
        fact = f"no sample has the field {unknown[0]!r}; they have {', '.join(stored.fields)}"
        raise UsageError("fields", fact, "name one of these")
    left = changes.of(stored.fields)
    if not left or len(set(left)) < len(left):
        raise UsageError("fields", "that leaves no field, or gives two of them one name", "name others")


_Limits = tuple[int | str | None, int | None, bool, int]


@dataclass(frozen=True, slots=True)
class _Layout:
    """Which samples go where. plan: the rows of each shard; None where each shard becomes one. digest: of it all."""

    plan: Plan | None
    options: dict[str, Any]
    digest: str
    same: bool
    """Whether the manifest says the same of the content as the source's."""


def _planned(
    stored: Stored, form: Format, changes: Changes, destination: Destination, limits: _Limits | None
) -> _Layout:
    base = dict(stored.manifest.options) if stored.manifest is not None else {}
    base.pop("unpacked_bytes", None)
    if stored.packed and limits is not None:
        fact = "gzip shards can be read from front to back only, and not be cut or shuffled anew"
        raise UsageError(str(stored.shards[0]), fact, "convert them as they are first, and then the result")
    same = limits is None and not changes and stored.manifest is not None and bool(stored.manifest.plan)
    if same:
        assert stored.manifest is not None
        return _Layout(None, base, stored.manifest.plan, same)
    plan = None
    if limits is not None:
        max_bytes, max_count, shuffle, seed = limits
        size = parse_bytes(DEFAULT_MAX_BYTES if max_bytes is None else max_bytes)
        base |= {"max_bytes": size, "max_count": max_count, "shuffle": shuffle, "seed": seed}
        plan = plan_shards(
            _AsMany(int(stored.counts.sum())), stem=destination.stem, suffix=form.suffix,
            sample_bytes=_sample_bytes(stored, form, changes), overhead=len(form.end),
            max_bytes=size, max_count=max_count, shuffle=shuffle, seed=seed,
        )  # fmt: skip
    if not stored.plain or changes:
        base["fields"] = sorted(changes.of(stored.fields))
    return _Layout(plan, base, _digest(stored, form, changes, destination, limits), same)


class _AsMany:
    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count


def _digest(stored: Stored, form: Format, changes: Changes, destination: Destination, limits: _Limits | None) -> str:
    what = (LAYOUT, form.name, sorted(changes.names.items()), changes.only, destination.stem, limits, stored.classes)
    digest = hashlib.blake2b(repr(what).encode(), digest_size=16)
    for number, shard in enumerate(stored.shards):
        entry = None if stored.manifest is None else stored.manifest.shards[number]
        known = os.path.getsize(shard.path) if entry is None else (entry.bytes, entry.crc32c)
        digest.update(repr((shard.name, known)).encode())
    return digest.hexdigest()


def _sample_bytes(stored: Stored, form: Format, changes: Changes) -> NDArray[np.int64]:
    """The bytes of each sample in its new shard (int64): exact for images with labels, and not too few for others."""
    texts = [entry.name for entry in stored.classes]
    longest = max((len(text.encode()) for text in texts), default=0)
    parts = [np.empty(0, np.int64)]
    for number in range(len(stored.shards)):
        rows = stored.rows(number)
        if stored.plain and not changes:
            parts.append(_exact_bytes(rows, form, texts))
        elif form.name == stored.format and not changes:
            parts.append(rows.sizes)
        else:
            names = np.array([len(k.encode("utf-8", "surrogateescape")) for k in rows.keys], np.int64)
            names += np.array([len(path.encode()) for path in rows.paths], np.int64)
            each = 2048 if form.name == "tar" else 64  # headers, with those for long names; or tags and lengths
            many = len(stored.fields) + 4
            grown = sum(len(name) for name in changes.of(stored.fields))
            factor = many if form.name == "tar" else 1
            parts.append(rows.sizes + names * factor + many * each + longest + grown)
    return np.concatenate(parts)


def _exact_bytes(rows: StoredRows, form: Format, texts: Sequence[str]) -> NDArray[np.int64]:
    columns = zip(rows.keys, rows.paths, rows.labels.tolist(), rows.image_sizes.tolist(), strict=True)
    found = [
        form.size(
            key, ((field_of(path.rpartition(".")[2]), size), ("cls", len(str(label)))), path_of_text(path),
            texts[label], label,
        )
        for key, path, label, size in columns
    ]  # fmt: skip
    return np.array(found, np.int64)


class _Conversion:
    """One conversion, planned."""

    def __init__(
        self, stored: Stored, form: Format, changes: Changes, destination: Destination, layout: _Layout
    ) -> None:
        self.stored, self.format, self.changes = stored, form, changes
        self.destination, self.layout = destination, layout
        keeps = changes.keep_label
        self.texts = {number: entry.name for number, entry in enumerate(stored.classes)} if keeps else {}

    @property
    def names(self) -> list[str]:
        """The names of the new shards."""
        if self.layout.plan is not None:
            return list(self.layout.plan.names)
        digits = max(6, len(str(len(self.stored.shards) - 1)))
        return [
            f"{self.destination.stem}-{number:0{digits}d}{self.format.suffix}"
            for number in range(len(self.stored.shards))
        ]

    def finished(self, *, overwrite: bool) -> Manifest | None:
        """The manifest of this very conversion where it is there. DestinationError where another dataset is."""
        place = fs_text(self.destination.manifest)
        if self.stored.place is not None and os.path.realpath(self.stored.place.path) == os.path.realpath(
            self.destination.manifest
        ):
            raise DestinationError(place, "the destination is the source", "choose another")
        found = None if overwrite else self.destination.read_manifest()
        if found is None:
            return None
        cure = "choose another destination, or replace it with --overwrite"
        same = found.shard_format == self.format.name and found.plan == self.layout.digest
        if not same or (self.layout.plan is None and len(found.shards) != len(self.stored.shards)):
            raise DestinationError(place, "another dataset is there", cure)
        sizes = {entry.name: entry.bytes for entry in found.shards} | {each.name: each.bytes for each in found.index}
        for name, size in sizes.items():
            path = os.path.join(self.destination.folder, name)
            if not os.path.isfile(path) or os.path.getsize(path) != size:
                raise DestinationError(place, f"its {name} is missing or has another size", cure)
        since = os.stat(self.destination.manifest).st_mtime_ns
        newer = next((shard for shard in self.stored.shards if os.stat(shard.path).st_mtime_ns > since), None)
        if newer is not None:
            raise DestinationError(place, f"this dataset is out of date: {newer} was changed after it", cure)
        log.info("%s: already converted", place)
        keep_only(self.destination, ())
        return found

    def run(self, engine: Engine, progress: ProgressFn) -> Manifest:
        """Write what is not there yet, and commit."""
        told, lock = [0, 0], threading.Lock()
        total, total_bytes = int(self.stored.counts.sum()), self.stored.bytes

        def advance(samples: int, size: int) -> None:
            with lock:
                told[0] += samples
                told[1] += size
                progress(Progress("convert", told[0], total, told[1], total_bytes))

        keep_only(self.destination, self.names)
        receipts = write_shards(self.tasks(), engine, advance)
        return self._commit(receipts)

    def tasks(self) -> Iterator[StoredTask]:
        """The task of each new shard, made one at a time."""
        if self.layout.plan is None:
            for number, name in enumerate(self.names):
                rows = _NO_ROWS if self.stored.packed else self.stored.rows(number)
                yield self._task(name, [number], rows, np.zeros(len(rows.keys), np.int64))
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
            yield self._task(shard.name, used.tolist(), _gathered(shard.rows - starts[sources], sources, get),
                             np.searchsorted(used, sources))  # fmt: skip

    def _task(self, name: str, sources: Sequence[int], rows: StoredRows, which: NDArray[np.int64]) -> StoredTask:
        paths = [os.fsencode(os.path.abspath(self.stored.shards[number].path)) for number in sources]
        labels = rows.labels.tolist() if self.changes.keep_label else [-1] * len(rows.keys)
        task = StoredTask(
            name=name, folder=os.fsencode(self.destination.work), sources=paths, which=which.tolist(),
            offsets=rows.offsets.tolist(), sizes=rows.sizes.tolist(), keys=rows.keys, paths=rows.paths, labels=labels,
            crcs=rows.crcs.tolist(),
            source_format=self.stored.format, format=self.format.name, texts=self.texts,
            fields=dict(self.changes.names), only=list(self.changes.only), digest="",
        )  # fmt: skip
        return task.with_digest(self.layout.digest, whole=self.stored.packed)

    def _commit(self, receipts: Sequence[Receipt]) -> Manifest:
        entries = tuple(receipt.entry for receipt in receipts)
        samples = sum(entry.samples for entry in entries)
        if not samples:
            raise DatasetError(str(self.stored.shards[0]), "these shards hold no sample", "name others")
        counts = Counter[int]()
        for receipt in receipts:
            counts.update(receipt.labels)
        skipped = self._skipped()
        manifest = Manifest(
            shard_format=self.format.name,
            samples=samples,
            bytes=sum(entry.bytes for entry in entries),
            classes=tuple(ClassEntry(name, counts[label]) for label, name in sorted(self._class_names(counts).items())),
            fields=tuple(sorted({name for receipt in receipts for name in receipt.fields})),
            shards=entries,
            index=write_index_files(self.destination, entries),
            skipped=len(skipped),
            options=self._options(receipts),
            plan=self.layout.digest,
        )
        commit(self.destination, manifest, skipped)
        return manifest

    def _class_names(self, counts: Mapping[int, int]) -> dict[int, str]:
        if self.texts or not self.stored.packed or not self.changes.keep_label:
            return self.texts
        return {label: str(label) for label in range(max(counts, default=-1) + 1)}

    def _options(self, receipts: Sequence[Receipt]) -> dict[str, Any]:
        options = dict(self.layout.options)
        if "fields" in options:
            options["fields"] = sorted({name for receipt in receipts for name in receipt.fields})
        return options

    def _skipped(self) -> list[Skipped]:
        """The source's list of what was left out, where the new manifest says the same as its own."""
        manifest, place = self.stored.manifest, self.stored.place
        if not self.layout.same or manifest is None or place is None or not manifest.skipped:
            return []
        path = place.path.removesuffix(".json") + ".skipped.json"
        try:
            with open(path, "rb") as file:
                return [Skipped(item["path"], item["reason"]) for item in json.load(file)]
        except (OSError, ValueError, KeyError, TypeError):
            log.warning("%s: the list of what was left out is missing or damaged", path)
            return []


_NO_NUMBERS = np.empty(0, np.int64)
_NO_ROWS = StoredRows([], [], _NO_NUMBERS, _NO_NUMBERS, _NO_NUMBERS, _NO_NUMBERS, _NO_NUMBERS)


def _gathered(local: NDArray[np.int64], sources: NDArray[np.int64], get: Callable[[int], StoredRows]) -> StoredRows:
    """Rows of several shards as one."""
    n = len(local)
    numbers = np.empty((5, n), np.int64)
    keys, paths = [""] * n, [""] * n
    for source in np.unique(sources).tolist():
        where = np.flatnonzero(sources == source)
        rows, at = get(source), local[where]
        columns = (rows.labels, rows.offsets, rows.sizes, rows.image_sizes, rows.crcs)
        numbers[:, where] = [column[at] for column in columns]
        for place, row in zip(where.tolist(), at.tolist(), strict=True):
            keys[place], paths[place] = rows.keys[row], rows.paths[row]
    return StoredRows(keys, paths, *numbers)
