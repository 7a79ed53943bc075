"""A sound dataset from a damaged one. The source is only ever read.

Samples come through by the CRCs of the index where there is one: then a damaged header costs nothing, and a damaged
image only its own sample. Without an index, all members with a good header come through whose image has a good header
too. Members of a sample are brought together, double keys get another key, and all is written anew, with its own
index and manifest. Memory grows with the samples: about 500 bytes for each.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import Any

import google_crc32c
import msgspec
import numpy as np

from shardkit.errors import DatasetError, DestinationError, ShardkitError, UsageError
from shardkit.events import Progress, ProgressFn, silent
from shardkit.formats import tar
from shardkit.formats.images import image_header
from shardkit.formats.table import format_of_head, format_of_name
from shardkit.manifest import ClassEntry, Manifest, ShardEntry
from shardkit.packing.commit import commit, keep_only, working, write_index_files
from shardkit.packing.destination import Destination, check_free, destination_of
from shardkit.packing.shard import COLUMNS, Rows, Skipped, rows_path
from shardkit.reading.resolve import SourceLike
from shardkit.sample import IMAGE_FIELDS, fs_text, text_of_path
from shardkit.storage.local import translated, whole_file
from shardkit.tools._labels import class_map, folder_of
from shardkit.tools._opened import Opened, ShardPlace, open_dataset, stem_of_shard
from shardkit.tools._rescue import LeftOut, Rescue, Rescued, Rescuer, members_of
from shardkit.tools._shard import ShardBytes, open_shard
from shardkit.tools._threads import in_threads, thread_count
from shardkit.tree.keys import new_keys


@dataclass(frozen=True, slots=True)
class Renamed:
    """A key that another sample had as well, and the one that it has now."""

    key: str
    new_key: str


@dataclass(frozen=True, slots=True)
class Repaired:
    """What a repair did. left_out: samples that are not in the result, with the reason; they are listed beside it too.

    renamed: keys that were double or no UTF-8. joined: keys of samples whose members were apart. notes: damage that
    was met, a line each.
    """

    manifest: Manifest
    left_out: tuple[LeftOut, ...]
    renamed: tuple[Renamed, ...]
    joined: tuple[str, ...]
    notes: tuple[str, ...]


def repair(
    source: SourceLike,
    dest: str | os.PathLike[str],
    *,
    decode: bool = False,
    workers: int | None = None,
    overwrite: bool = False,
    progress: ProgressFn = silent,
) -> Repaired:
    """Write what is whole in the dataset `source` of tar shards as a new dataset `dest` (a prefix, or a folder).

    decode: leave out images too that can't be decoded. workers: threads (default: the cores). overwrite: replace
    another dataset at `dest`. The result passes `verify`, and it is absent until it is whole.

    Raises DatasetError where no sample is whole, DestinationError, BusyError, StorageError, NotFoundError, UsageError.
    """
    threads = thread_count(workers)
    opened = open_dataset(source)
    _demand_tar(opened)
    destination = _destination(opened, os.fspath(dest), overwrite=overwrite)
    rescues: list[Rescue] = []
    for rescue in in_threads(Rescuer(opened.manifest, decode), enumerate(opened.shards), threads):
        rescues.append(rescue)
        progress(Progress("rescue", sum(len(one.samples) for one in rescues)))
    joined = _join(rescues)
    renamed = _rename(rescues)
    left_out = [item for rescue in rescues for item in rescue.left_out]
    total = sum(len(rescue.samples) for rescue in rescues)
    if not total:
        fact = f"no sample of it is whole ({len(left_out)} are damaged)"
        raise DatasetError(str(opened.place), fact, "pack it again from its source")
    classes = _classes(opened, rescues)
    with working(destination), _emptied(destination):
        check_free(destination, overwrite=overwrite)
        entries: list[ShardEntry] = []
        full = [rescue.samples for rescue in rescues if rescue.samples]
        names = [f"{destination.stem}-{number:06d}.tar" for number in range(len(full))]
        write = partial(_write_shard, destination, opened)
        for entry in in_threads(write, zip(names, full, strict=True), threads):
            entries.append(entry)
            done, size = sum(one.samples for one in entries), sum(one.bytes for one in entries)
            progress(Progress("repair", done, total, size))
        manifest = _manifest(destination, opened, entries, rescues, classes, len(left_out))
        commit(destination, manifest, [Skipped(item.path, _reason(item)) for item in left_out])
    notes = [str(item) for item in opened.findings] + [str(item) for index in opened.index for item in index.findings]
    notes += [note for rescue in rescues for note in rescue.notes]
    return Repaired(manifest, tuple(left_out), tuple(renamed), tuple(joined), tuple(notes))


def _demand_tar(opened: Opened) -> None:
    """UsageError for TFRecord, which has no headers to go on from behind damage."""
    if opened.format == "tfrecord" or (opened.format is None and any(map(_is_tfrecord, opened.shards))):
        fact = f"the shards are TFRecord ({opened.shards[0].location.name}), and repair reads tar"
        cure = "pack it again, or write its sound shards as tar with 'shardkit convert … --format tar'"
        raise UsageError(str(opened.place), fact, cure)


def _is_tfrecord(shard: ShardPlace) -> bool:
    named = format_of_name(shard.location.name)
    if named is not None or not os.path.isfile(shard.location.path):
        return named == "tfrecord"
    with translated(os.fsencode(shard.location.path)), open(shard.location.path, "rb") as file:
        return format_of_head(file.read(512)) == "tfrecord"


def _destination(opened: Opened, dest: str, *, overwrite: bool) -> Destination:
    """Where the result goes. DestinationError for the source itself, and for another dataset without `overwrite`."""
    name = opened.place.name
    stem = name.removesuffix(".json") if name.endswith(".json") else stem_of_shard(name)
    source = os.path.abspath(opened.place.sibling(stem).path)
    destination = destination_of(dest, source)
    taken = {os.path.realpath(shard.location.path) for shard in opened.shards}
    files = [destination.path(f"-{number:06d}.tar") for number in range(len(opened.shards))]
    if os.path.realpath(destination.path("")) == os.path.realpath(source) or taken.intersection(
        map(os.path.realpath, files)
    ):
        raise DestinationError(fs_text(destination.path("")), "this is the source", "choose another destination")
    if not overwrite and os.path.lexists(destination.manifest):
        fact = "another dataset is there"
        raise DestinationError(fs_text(destination.path("")), fact, "choose another, or replace it with --overwrite")
    return destination


@contextlib.contextmanager
def _emptied(destination: Destination) -> Iterator[None]:
    """Nothing stays in the work folder: a repair begins anew."""
    keep_only(destination, ())
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError, ShardkitError):
            keep_only(destination, ())
        raise


def _join(rescues: Sequence[Rescue]) -> list[str]:
    """Bring members of one sample together that are in several places; the keys of those samples."""
    joined = [sample.key for sample in members_of(rescues) if sample.split]
    first: dict[str, Rescued] = {}
    for rescue in rescues:
        kept = []
        for sample in rescue.samples:
            other = first.setdefault(sample.key, sample)
            if other is sample or sample.indexed or other.indexed or sample.names & other.names:
                kept.append(sample)
                continue
            _add(other, sample)
            joined.append(sample.key)
        rescue.samples = kept
    return joined


def _add(sample: Rescued, other: Rescued) -> None:
    had_image = any(name in IMAGE_FIELDS for _, name, _, _ in sample.parts)
    sample.parts += other.parts
    if sample.label < 0:
        sample.label = other.label
    if not had_image:
        sample.path = other.path


def _rename(rescues: Sequence[Rescue]) -> list[Renamed]:
    """Give each sample a key of its own, in valid UTF-8."""
    samples = list(members_of(rescues))
    keys = [text_of_path(sample.key.encode("utf-8", "surrogateescape")) if _odd(sample.key) else sample.key
            for sample in samples]  # fmt: skip
    keys = [new for _, new in sorted(({**dict(enumerate(keys)), **new_keys(keys)}).items())]
    renamed = []
    paths: set[str] = set()
    for sample, key in zip(samples, keys, strict=True):
        if sample.key != key:
            renamed.append(Renamed(text_of_path(sample.key.encode("utf-8", "surrogateescape")), key))
            sample.key = key
        if sample.path in paths:
            ending = sample.path.rpartition(".")[2]
            sample.path = text_of_path(f"{key}.{ending}".encode())
        paths.add(sample.path)
    return renamed


def _odd(key: str) -> bool:
    return not key.isascii() and any("\ud800" <= c <= "\udfff" for c in key)


def _classes(opened: Opened, rescues: Sequence[Rescue]) -> tuple[ClassEntry, ...]:
    """The classes with the counts of what is left. Gives labels by directory where no sample has one."""
    pairs = Counter((sample.label, folder_of(sample.path)) for sample in members_of(rescues))
    manifest = opened.manifest
    if manifest is None:
        found = class_map(pairs.items(), None, place=str(opened.place))
        for sample in members_of(rescues):
            if found.by_folder is not None:
                sample.label = found.by_folder.get(folder_of(sample.path), -1)
        return found.classes
    names = manifest.class_names
    labels = Counter(sample.label for sample in members_of(rescues))
    if manifest.plan:  # the paths, which have a checksum, say the names too
        for label in range(len(names)):
            folders = {folder for one, folder in pairs if one == label}
            names[label] = folders.pop() if len(folders) == 1 else names[label]
    return tuple(ClassEntry(name, labels[label]) for label, name in enumerate(names))


def _write_shard(destination: Destination, opened: Opened, task: tuple[str, Sequence[Rescued]]) -> ShardEntry:
    """One shard of the result, with its index rows beside it."""
    name, samples = task
    sources: dict[int, ShardBytes] = {}
    for number in {number for sample in samples for number, *_ in sample.parts}:
        sources[number] = open_shard(opened.shards[number].location)
    columns: dict[str, list[int]] = {column: [] for column in COLUMNS}
    at = crc = 0
    with whole_file(os.path.join(destination.work, name)) as file:
        for sample in samples:
            pieces, row = _encoded(sample, sources, at)
            for piece in pieces:
                crc = google_crc32c.extend(crc, piece)
            file.writelines(pieces)
            at += row["size"]
            for column, value in row.items():
                columns[column].append(value)
        file.write(tar.END)
    crc = google_crc32c.extend(crc, tar.END)
    rows = Rows(
        [sample.key for sample in samples],
        [sample.path for sample in samples],
        {column: np.array(values, np.int64).tobytes() for column, values in columns.items()},
    )
    with whole_file(os.fsdecode(rows_path(os.fsencode(destination.work), name))) as file:
        file.write(msgspec.msgpack.encode(rows))
    return ShardEntry(name, len(samples), at + len(tar.END), f"{crc:08x}")


def _encoded(sample: Rescued, sources: dict[int, ShardBytes], at: int) -> tuple[list[bytes], dict[str, int]]:
    """(what to write for the sample at byte `at`, its index row)."""
    fields = [(name, bytes(sources[number].buffer[start : start + size])) for number, name, start, size in sample.parts]
    if sample.label >= 0:
        fields.append(("cls", b"%d" % sample.label))
    try:
        pieces, offsets, size = tar.encode_sample(sample.key, fields)
    except ValueError as exc:
        raise DatasetError(sources[sample.parts[0][0]].place, str(exc), "rename it", sample.byte, sample.key) from exc
    row = {"label": sample.label, "offset": at, "size": size, "image_offset": -1, "image_size": -1}
    row |= {"width": 0, "height": 0, "crc32c": 0}
    for (name, data), offset in zip(fields, offsets, strict=True):
        if name in IMAGE_FIELDS:
            width, height = _size(data)
            row |= {"image_offset": at + offset, "image_size": len(data), "width": width, "height": height}
            row["crc32c"] = google_crc32c.value(data)
            break
    return pieces, row


def _size(data: bytes) -> tuple[int, int]:
    try:
        return image_header(data)[1:]
    except ValueError:  # it was packed with --check none
        return 0, 0


def _manifest(
    destination: Destination,
    opened: Opened,
    entries: Sequence[ShardEntry],
    rescues: Sequence[Rescue],
    classes: tuple[ClassEntry, ...],
    skipped: int,
) -> Manifest:
    before = opened.manifest
    packed = before is not None and before.plan != "" and all(sample.indexed for sample in members_of(rescues))
    options: dict[str, Any] = (
        {} if before is None else {k: v for k, v in before.options.items() if k != "unpacked_bytes"}
    )
    digest = blake2b(" ".join(entry.crc32c for entry in entries).encode(), digest_size=16).hexdigest()
    return Manifest(
        samples=sum(entry.samples for entry in entries),
        bytes=sum(entry.bytes for entry in entries),
        classes=classes,
        fields=tuple(sorted({name for sample in members_of(rescues) for name in sample.names})),
        shards=tuple(entries),
        index=write_index_files(destination, entries),
        skipped=skipped,
        options=options,
        plan=digest if packed else "",
    )


def _reason(item: LeftOut) -> str:
    where = f"{os.path.basename(item.shard)}" + (f" at byte {item.byte}" if item.byte is not None else "")
    return f"{where}: {item.reason}"


def lines_of(result: Repaired) -> Iterator[str]:
    """What a repair did, a line for each thing, for a reader."""
    yield from result.notes
    for item in result.left_out:
        where = f"{item.shard}: " + (f"at byte {item.byte}: " if item.byte is not None else "")
        yield f"left out: {where}sample {item.key}: {item.reason}"
    yield from (f"renamed: {item.key} is now {item.new_key}" for item in result.renamed)
    yield from (f"brought together: the members of {key}" for key in result.joined)
