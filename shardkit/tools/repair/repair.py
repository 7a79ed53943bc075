"""Write an intact dataset from a damaged one. The source is never modified.

With an index, samples are recovered by its CRCs: a damaged header then loses nothing, and a damaged image only its own
sample. Without an index, every tar member with a valid header and a valid image header is recovered, and every TFRecord
record with valid checksums. Members of a sample are brought together, duplicate keys are renamed, and everything is
written again, with its own index and manifest. Memory use is about 500 bytes per sample.
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

from shardkit.errors import DatasetError, DestinationError, ShardkitError, UsageError
from shardkit.events import Progress, ProgressFn, no_progress
from shardkit.formats.format import FORMATS, Format, FormatName, format_of_head, format_of_name
from shardkit.formats.tfrecord.features import KEY
from shardkit.options.fields import checked_by
from shardkit.packing.dest.destination import Destination
from shardkit.packing.dest.disk import DiskDestination
from shardkit.packing.dest.in_the_way import check_free
from shardkit.packing.dest.open import destination_of
from shardkit.packing.dest.work_folder import keep_only, write_index_files
from shardkit.packing.write.receipt import Skipped
from shardkit.sample import IMAGE_FIELDS, MAX_KEY_BYTES, fs_text, text_of_path
from shardkit.shards.class_names import class_map, folder_of, text_names
from shardkit.shards.find.shards import SourceLike
from shardkit.shards.index import TEXT_BYTES
from shardkit.shards.manifest import (
    ClassEntry,
    IndexEntry,
    Manifest,
    ShardEntry,
    column_options,
    content_options,
    options_for_new_shards,
    require_as_packed,
)
from shardkit.shards.names import shard_name, stem_of_shard
from shardkit.shards.objects import require_disk
from shardkit.shards.open import Opened, ShardPlace, open_dataset
from shardkit.shards.seek import keeps_seek_points
from shardkit.sources.keys import new_keys
from shardkit.storage.files import translated
from shardkit.threads import in_threads, thread_count
from shardkit.tools.repair.columns import columns_of, columns_of_samples
from shardkit.tools.repair.salvage import Salvager
from shardkit.tools.repair.salvaged import LeftOut, Salvage, Salvaged, members_of
from shardkit.tools.repair.write import write_shard
from shardkit.tools.settings import RepairSettings
from shardkit.units import short_repr


@dataclass(frozen=True, slots=True)
class Renamed:
    """A key that was already used by another sample, and its replacement."""

    key: str
    new_key: str


@dataclass(frozen=True, slots=True)
class Repaired:
    """Result of a repair. left_out: samples that are not in the result, with the reason; also listed in a file beside
    it.

    renamed: keys that were duplicates or not UTF-8. joined: keys of samples whose members were not adjacent. notes:
    damage that was found, one line each.
    """

    manifest: Manifest
    left_out: tuple[LeftOut, ...]
    renamed: tuple[Renamed, ...]
    joined: tuple[str, ...]
    notes: tuple[str, ...]

    __repr__ = short_repr


@checked_by(RepairSettings)
def repair(
    source: SourceLike,
    dest: str | os.PathLike[str],
    *,
    decode: bool = False,
    workers: int | None = None,
    overwrite: bool = False,
    progress: ProgressFn = no_progress,
) -> Repaired:
    """Write the intact samples of the dataset `source` to a new dataset `dest` (a prefix, or a folder), in the same
    format.

    decode: also omit images that can't be decoded. workers: threads (default: one per core). overwrite: replace another
    dataset at `dest`. The result passes `verify`, and appears only when it is complete.

    Raises DatasetError if no sample is intact, DestinationError, BusyError, StorageError, NotFoundError, UsageError.
    """
    threads = thread_count(workers)
    opened = open_dataset(source)
    if opened.manifest is not None:
        why = "a repair writes the samples of the shards as packed"
        require_as_packed(opened.manifest, str(opened.place), why, fields=True)
    form = _format(opened)
    there = _destination(opened, os.fspath(dest), form.suffix, overwrite=overwrite)
    salvages: list[Salvage] = []
    for salvage in in_threads(Salvager(opened.manifest, decode), enumerate(opened.shards), threads):
        salvages.append(salvage)
        progress(Progress("salvage", sum(len(one.samples) for one in salvages)))
    joined = _join(salvages)
    renamed = _rename(salvages)
    left_out = [item for salvage in salvages for item in salvage.left_out]
    total = sum(len(salvage.samples) for salvage in salvages)
    if not total:
        fact = f"none of its samples is intact ({len(left_out)} are damaged)"
        raise DatasetError(str(opened.place), fact, "pack it again from its source")
    classes = _classes(opened, salvages)
    with there.locked(), _emptied(there):
        destination = check_free(there, overwrite=overwrite)
        entries: list[ShardEntry] = []
        full = [salvage.samples for salvage in salvages if salvage.samples]
        names = [shard_name(destination.base, number, form.suffix) for number in range(len(full))]
        looks = {"seek": keeps_seek_points(opened.manifest), "quality": _has_quality(opened)}
        texts = dict(enumerate(entry.name for entry in classes))
        write = partial(
            write_shard, destination.work, [shard.location for shard in opened.shards], form, texts,
            seek=looks["seek"], quality=looks["quality"],
        )  # fmt: skip
        columns = columns_of(opened)
        tables = (columns_of_samples(opened, samples, columns) for samples in full)
        for entry in in_threads(write, zip(names, full, tables, strict=True), threads):
            entries.append(entry)
            done, size = sum(one.samples for one in entries), sum(one.bytes for one in entries)
            progress(Progress("repair", done, total, size))
        index = write_index_files(destination, entries, columns=columns, seek=looks["seek"], quality=looks["quality"])
        content = content_options(seek_points=looks["seek"], quality_columns=looks["quality"]) | column_options(columns)
        manifest = _manifest(opened, form, entries, salvages, classes, len(left_out), index=index, content=content)
        destination.commit(manifest, [Skipped(item.path, _reason(item)) for item in left_out])
    notes = [str(item) for item in opened.findings] + [str(item) for index in opened.index for item in index.findings]
    notes += [note for salvage in salvages for note in salvage.notes]
    return Repaired(manifest, tuple(left_out), tuple(renamed), tuple(joined), tuple(notes))


def _format(opened: Opened) -> Format:
    """The format of the shards. UsageError if they have more than one."""
    if opened.format is not None:
        return FORMATS[opened.format]
    forms = {_format_of(shard) for shard in opened.shards}
    if len(forms) > 1:
        raise UsageError(str(opened.place), "these are shards of more than one format", "repair each format separately")
    return FORMATS[forms.pop()]


def _format_of(shard: ShardPlace) -> FormatName:
    named = format_of_name(shard.location.name)
    if named is not None or not os.path.isfile(shard.location.path):
        return named or "tar"
    with translated(os.fsencode(shard.location.path)), open(shard.location.path, "rb") as file:
        return format_of_head(file.read(512))


def _destination(opened: Opened, dest: str, suffix: str, *, overwrite: bool) -> DiskDestination:
    """The destination. DestinationError if it is the source, or another dataset without `overwrite`."""
    require_disk("repair", dest, "write to a disk, then use 'shardkit upload'")
    name = opened.place.name
    stem = name.removesuffix(".json") if name.endswith(".json") else stem_of_shard(name)
    source = os.path.abspath(opened.place.sibling(stem).path)
    destination = destination_of(dest, source)
    taken = {os.path.realpath(shard.location.path) for shard in opened.shards}
    files = [
        os.path.join(destination.folder, shard_name(destination.base, n, suffix)) for n in range(len(opened.shards))
    ]
    prefix = destination.files.location(destination.stem).path
    if os.path.realpath(prefix) == os.path.realpath(source) or taken.intersection(map(os.path.realpath, files)):
        raise DestinationError(fs_text(prefix), "the destination is the source", "choose another destination")
    if os.path.isdir(destination.work):
        with destination.locked():  # completes the commit of a killed run, and removes its leftovers
            pass
    if not overwrite and (destination.files.read_manifest() is not None or os.path.lexists(destination.manifest_path)):
        fact = "another dataset is there"
        raise DestinationError(fs_text(prefix), fact, "choose another, or replace it with `overwrite=True`")
    return destination


@contextlib.contextmanager
def _emptied(destination: Destination) -> Iterator[None]:
    """Keep the work folder empty: a repair always starts over."""
    keep_only(destination, ())
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError, ShardkitError):
            destination.discard()
        raise


def _join(salvages: Sequence[Salvage]) -> list[str]:
    """Join members of one sample that are in several places; return the keys of those samples."""
    joined = [sample.key for sample in members_of(salvages) if sample.split]
    first: dict[str, Salvaged] = {}
    for salvage in salvages:
        kept = []
        for sample in salvage.samples:
            other = first.setdefault(sample.key, sample)
            proven = sample.indexed or other.indexed or sample.record is not None
            if other is sample or proven or sample.names & other.names:
                kept.append(sample)
                continue
            _add(other, sample)
            joined.append(sample.key)
        salvage.samples = kept
    return list(dict.fromkeys(joined))


def _add(sample: Salvaged, other: Salvaged) -> None:
    had_image = any(name in IMAGE_FIELDS for _, name, _, _ in sample.parts)
    sample.parts += other.parts
    if sample.label < 0:
        sample.label = other.label
    if not had_image:
        sample.path = other.path


def _rename(salvages: Sequence[Salvage]) -> list[Renamed]:
    """Give each sample a unique key in valid UTF-8."""
    samples = [sample for sample in members_of(salvages) if not _named_by_place(sample)]
    keys = [_short(text_of_path(sample.key.encode("utf-8", "surrogateescape")) if _odd(sample.key) else sample.key)
            for sample in samples]  # fmt: skip
    keys = [new for _, new in sorted(({**dict(enumerate(keys)), **new_keys(keys)}).items())]
    renamed = []
    paths: set[str] = set()
    for sample, key in zip(samples, keys, strict=True):
        if sample.key != key:
            renamed.append(Renamed(text_of_path(sample.key.encode("utf-8", "surrogateescape")), key))
            sample.key = key
        if (sample.path in paths and not _of_others(sample)) or len(sample.path.encode()) > TEXT_BYTES:
            ending = sample.path.rpartition(".")[2]
            sample.path = text_of_path(f"{key}.{ending}".encode())
        paths.add(sample.path)
    return renamed


def _of_others(sample: Salvaged) -> bool:
    """Whether this is a record written by other software, whose file names are sequential within each class."""
    return sample.record is not None and sample.record[1].key_feature != KEY


def _named_by_place(sample: Salvaged) -> bool:
    """Whether this is a record without a key, which is named after its new position."""
    return sample.record is not None and not sample.record[1].key_feature


def _short(key: str) -> str:
    """The key; if it is longer than an index can hold, its beginning and a digest of all of it."""
    data = key.encode()
    if len(data) <= MAX_KEY_BYTES:
        return key
    ending = f"-{blake2b(data, digest_size=8).hexdigest()}"
    return data[: MAX_KEY_BYTES - len(ending)].decode("utf-8", "ignore") + ending


def _odd(key: str) -> bool:
    return not key.isascii() and any("\ud800" <= c <= "\udfff" for c in key)


def _classes(opened: Opened, salvages: Sequence[Salvage]) -> tuple[ClassEntry, ...]:
    """The classes with their remaining counts. Assigns labels by directory if no sample has one."""
    pairs = Counter((sample.label, folder_of(sample.path)) for sample in members_of(salvages))
    manifest = opened.manifest
    if manifest is None:
        texts = {label: text for salvage in reversed(salvages) for label, text in salvage.texts.items()}
        names = text_names(texts, max((label for label, _ in pairs), default=-1) + 1)
        found = class_map(pairs.items(), names, place=str(opened.place))
        for sample in members_of(salvages):
            if found.by_folder is not None:
                sample.label = found.by_folder.get(folder_of(sample.path), -1)
        return found.classes
    names = manifest.class_names
    labels = Counter(sample.label for sample in members_of(salvages))
    if manifest.plan:  # the paths, which have a checksum, also contain the names
        for label in range(len(names)):
            folders = {folder for one, folder in pairs if one == label}
            names[label] = folders.pop() if len(folders) == 1 else names[label]
    return tuple(ClassEntry(name, labels[label]) for label, name in enumerate(names))


def _manifest(
    opened: Opened,
    form: Format,
    entries: Sequence[ShardEntry],
    salvages: Sequence[Salvage],
    classes: tuple[ClassEntry, ...],
    skipped: int,
    *,
    index: tuple[IndexEntry, ...],
    content: dict[str, Any],
) -> Manifest:
    before = opened.manifest
    packed = before is not None and before.plan != "" and all(sample.indexed for sample in members_of(salvages))
    digest = blake2b(" ".join(entry.crc32c for entry in entries).encode(), digest_size=16).hexdigest()
    return Manifest(
        shard_format=form.name,
        samples=sum(entry.samples for entry in entries),
        bytes=sum(entry.bytes for entry in entries),
        classes=classes,
        fields=tuple(sorted({name for sample in members_of(salvages) for name in sample.names})),
        shards=tuple(entries),
        index=index,
        skipped=skipped,
        options=options_for_new_shards(before) | content,
        plan=digest if packed else "",
    )


def _has_quality(opened: Opened) -> bool:
    return opened.manifest is not None and opened.manifest.quality_columns


def _reason(item: LeftOut) -> str:
    where = f"{os.path.basename(item.shard)}" + (f" at byte {item.byte}" if item.byte is not None else "")
    return f"{where}: {item.reason}"


def lines_of(result: Repaired) -> Iterator[str]:
    """Describe a repair for people, one line per action."""
    yield from result.notes
    for item in result.left_out:
        where = f"{item.shard}: " + (f"at byte {item.byte}: " if item.byte is not None else "")
        yield f"left out: {where}sample {item.key}: {item.reason}"
    yield from (f"renamed: {item.key} is now {item.new_key}" for item in result.renamed)
    yield from (f"joined: the members of {key}" for key in result.joined)
