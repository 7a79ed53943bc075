"""Check a dataset against its own checksums: manifest, index, shards, samples.

With a manifest, a checksum covers every byte of every shard, and each sample is compared with its index row, so that
any damage to manifest, index or shards that would change a sample is found. Shards written by other software have no
checksums: then the structure, keys, labels and image headers are checked, which is all that can be known.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shardkit.checksums import crc32c
from shardkit.errors import DamagedError, NotFoundError, ShardkitError, StorageError
from shardkit.events import Progress, ProgressFn, no_progress
from shardkit.formats.format import format_of_name
from shardkit.images.header import check_image, image_header
from shardkit.options.fields import checked_by
from shardkit.options.old_keywords import accept_old_keywords
from shardkit.packing.engine.options import EngineLike, engine_options, move_engine
from shardkit.sample import BAD_LABEL, text_of_path
from shardkit.shards.corrections.block import FileEntry
from shardkit.shards.corrections.overlay import Overlay
from shardkit.shards.find.shards import SourceLike, shards_of_stem
from shardkit.shards.findings import Finding, finding, found_error
from shardkit.shards.keys import KeyHashes
from shardkit.shards.manifest import Manifest, file_names
from shardkit.shards.names import generation_of, manifest_name, skipped_beside
from shardkit.shards.open import IndexRows, Opened, ShardPlace, open_dataset
from shardkit.shards.scan import ShardBytes, ShardContent, open_shard, read_shard
from shardkit.storage.access import Remote
from shardkit.threads import in_threads, thread_count
from shardkit.tools.settings import VerifySettings
from shardkit.tools.verify.by_store import ask_store
from shardkit.tools.verify.on_nodes import seen_on_nodes
from shardkit.units import short_repr

FETCHED = 4
"""Shards of a store that are fetched and checked at a time, by default."""

COMPARED = ("offset", "size", "image_offset", "image_size", "label")
"""Numeric columns of the index that must match the shard, in addition to key and CRC."""


@dataclass(frozen=True, slots=True)
class Verification:
    """Result of a check. source: the manifest or the first shard. samples, bytes: those that were read.

    decoded: number of images decoded. checksums: whether there was a manifest with checksums to compare. read: whether
    the shards were read; otherwise only their store was asked, which had no checksum for `unproven` files.
    """

    source: str
    shards: int
    samples: int
    bytes: int
    decoded: int
    checksums: bool
    findings: tuple[Finding, ...]
    read: bool = True
    unproven: int = 0

    __repr__ = short_repr

    @property
    def sound(self) -> bool:
        """Whether nothing was found."""
        return not self.findings


@accept_old_keywords(move_engine)
@checked_by(VerifySettings)
def verify(
    source: SourceLike,
    *,
    decode: bool = False,
    read: bool = False,
    workers: int | None = None,
    engine: EngineLike = "local",
    storage_options: Mapping[str, Any] | None = None,
    progress: ProgressFn = no_progress,
) -> Verification:
    """Check the whole dataset `source` (prefix, manifest, glob, brace range, list of shards).

    decode: also decode every image. workers: threads (default: one per core). progress: called with the step "verify",
    from any thread. Nothing is written. Findings: those of manifest and index first, then in the order of the shards.

    A dataset in a store is compared with the sizes and CRC-32Cs that the store has for its objects; if the store has no
    checksum for a file, only its size is checked, and `unproven` counts it. read or decode: fetch and check every byte,
    with `workers` whole shards in memory (default: 4). storage_options: for the store, as in `dataset`.

    engine: a `shardkit.Ray` checks each shard on a node of its cluster, as with `pack`.

    Raises NotFoundError, UsageError if there is nothing to check; StorageError if the source can't be listed. Damage
    does not raise.
    """
    where, remote = engine_options(engine, workers), Remote(storage_options)
    threads = thread_count(workers)
    opened = open_dataset(source, remote, read=read or decode)
    findings = [*opened.findings, *(item for index in opened.index for item in index.findings)]
    findings += _beside(opened)
    far = any(not shard.location.is_local for shard in opened.shards[:1]) or not opened.place.is_local
    if far and not (read or decode):
        return _as_the_store_says(opened, findings, workers, progress)
    if far and workers is None:
        threads = FETCHED
    findings += _other_versions(opened)
    check = DatasetCheck(opened, decode)
    reported = _Reported(progress, opened)
    with ThreadPoolExecutor(threads) if decode and threads > 1 and engine == "local" else nullcontext() as decoders:
        one = partial(check.shard, run=map if decoders is None else decoders.map)
        here = engine == "local"
        for seen in in_threads(one, opened.shards, threads) if here else seen_on_nodes(opened, remote, decode, where):
            findings += seen.findings
            check.note(seen)
            reported.add(seen)
    findings += check.across()
    return Verification(
        source=str(opened.place),
        shards=len(opened.shards),
        samples=len(check.hashes),
        bytes=reported.bytes,
        decoded=check.decoded,
        checksums=opened.manifest is not None and opened.manifest.has_checksums,
        findings=tuple(dict.fromkeys(findings)),
    )


def _other_versions(opened: Opened) -> Iterator[Finding]:
    """Files of other versions that are missing, or not as the manifest says."""
    for place, entry in opened.entries:
        if not isinstance(entry, FileEntry):
            continue
        try:
            data = opened.objects.read(place)
        except NotFoundError:
            yield finding("version-missing", str(place), "a file of another version is missing")
            continue
        except StorageError as exc:
            yield found_error("version-missing", exc)
            continue
        if len(data) != entry.bytes or f"{crc32c(data):08x}" != entry.crc32c:
            yield finding("version-crc", str(place), "a file of another version is not as the manifest says")


def _as_the_store_says(
    opened: Opened, findings: list[Finding], workers: int | None, progress: ProgressFn
) -> Verification:
    """Check a remote dataset without reading it."""
    total = len(opened.shards) + len(opened.entries)
    reported = ask_store(opened, workers, lambda done: progress(Progress("verify", done, total)))
    return Verification(
        source=str(opened.place),
        shards=len(opened.shards),
        samples=sum(shard.entry.samples for shard in opened.shards if shard.entry is not None),
        bytes=reported.bytes,
        decoded=0,
        checksums=True,
        findings=tuple(dict.fromkeys([*findings, *reported.findings])),
        read=False,
        unproven=reported.unproven,
    )


class _Reported:
    """Progress, one shard at a time."""

    def __init__(self, progress: ProgressFn, opened: Opened) -> None:
        manifest = opened.manifest
        self.progress, self.samples, self.bytes = progress, 0, 0
        self.totals = (manifest.samples, manifest.bytes) if manifest is not None and opened.whole else (0, 0)

    def add(self, seen: ShardCheck) -> None:
        self.samples += seen.samples
        self.bytes += seen.bytes
        self.progress(Progress("verify", self.samples, self.totals[0], self.bytes, self.totals[1]))


@dataclass(slots=True)
class ShardCheck:
    """A checked shard. hashes: of its keys. counts: its samples of each class of the manifest; labelled: whether any
    has a label."""

    shard: ShardPlace
    findings: list[Finding] = field(default_factory=list)
    samples: int = 0
    bytes: int = 0
    decoded: int = 0
    hashes: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    counts: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    labelled: bool = False
    fields: dict[str, None] = field(default_factory=dict)
    complete: bool = False


_Run = Callable[..., Iterator[str | None]]


class DatasetCheck:
    """Checks of one dataset; `shard` may be called from several threads."""

    def __init__(self, opened: Opened, decode: bool, hash_key: Callable[[str], int] = hash) -> None:
        """hash_key: must give the same result in all processes that check the dataset."""
        self.hash_key = hash_key
        self.opened, self.manifest, self.decode = opened, opened.manifest, decode
        self.hashes = KeyHashes()
        self.decoded, self.complete, self.labelled = 0, True, False
        self.fields: dict[str, None] = {}
        self.counts = np.zeros(0 if opened.manifest is None else len(opened.manifest.classes), np.int64)

    def note(self, seen: ShardCheck) -> None:
        """Keep what the checks across shards need: of each key its hash, of everything else only the sums."""
        self.hashes.add(seen.hashes)
        self.decoded += seen.decoded
        self.complete &= seen.complete
        self.labelled |= seen.labelled
        self.fields |= seen.fields
        self.counts[: len(seen.counts)] += seen.counts

    def shard(self, shard: ShardPlace, *, run: _Run) -> ShardCheck:
        """Check one shard."""
        seen = ShardCheck(shard)
        try:
            data = open_shard(shard.location, self.opened.format, objects=self.opened.objects)
        except DamagedError as exc:
            seen.findings.append(found_error("shard-damaged", exc))
        except ShardkitError as exc:
            there = shard.location.is_local and os.path.lexists(shard.location.path)
            missing = isinstance(exc, NotFoundError) and not there
            seen.findings.append(found_error("shard-missing" if missing else "shard-unreadable", exc))
        else:
            try:
                self._opened_shard(shard, data, seen, run)
            except StorageError as exc:
                seen.findings.append(found_error("shard-unreadable", exc))
        return seen

    def _opened_shard(self, shard: ShardPlace, data: ShardBytes, seen: ShardCheck, run: _Run) -> None:
        rows = shard.rows()
        content = read_shard(data, rows)
        seen.samples, seen.bytes, seen.fields = len(content), content.file_bytes, content.fields
        seen.hashes = np.fromiter(map(self.hash_key, content.keys), np.int64, len(content))
        seen.counts, seen.labelled = self._counts(content.numbers["label"], rows, shard.corrections)
        seen.complete = content.error is None
        seen.findings += _against_entry(shard, content)
        if content.error is not None:
            seen.findings.append(found_error("shard-damaged", content.error))
        if rows is not None:
            seen.findings += _against_rows(shard, content, rows)
            seen.findings += self._class_names(shard, rows)
        seen.findings += self._labels(content)
        if self.decode or shard.entry is None:
            seen.findings += self._images(data, content, rows, seen, run)

    def _labels(self, content: ShardContent) -> Iterator[Finding]:
        labels = content.numbers["label"]
        limit = len(self.manifest.classes) if self.manifest is not None and self.manifest.classes else None
        wrong = labels == BAD_LABEL if limit is None else (labels == BAD_LABEL) | (labels >= limit)
        for row in np.flatnonzero(wrong).tolist():
            expected = "a class number" if limit is None else f"a class number below {limit}"
            fact = f"its label is not {expected}"
            place = content.place, int(content.numbers["offset"][row]), content.keys[row]
            yield finding("label", place[0], fact, byte=place[1], key=place[2])

    def _class_names(self, shard: ShardPlace, rows: IndexRows) -> Iterator[Finding]:
        """The path of a sample packed from a class tree must begin with the name of its class."""
        if self.manifest is None or not self.manifest.plan or self.manifest.labels != "class":
            return
        names = self.manifest.class_names
        pairs = list(zip(rows.numbers["label"].tolist(), [path.partition("/")[0] for path in rows.paths], strict=True))
        for label, folder in dict.fromkeys(pairs):
            if 0 <= label < len(names) and folder not in (names[label], text_of_path(names[label].encode())):
                fact = f"label {label} is {names[label]!r} in the manifest, but {folder!r} in the index"
                yield finding("class-name", str(self.opened.place), fact, key=rows.keys[pairs.index((label, folder))])

    def _images(
        self, data: ShardBytes, content: ShardContent, rows: IndexRows | None, seen: ShardCheck, run: _Run
    ) -> Iterator[Finding]:
        """Images that are invalid, have another size than the index says or, with `decode`, can't be decoded."""
        offsets, sizes = content.numbers["image_offset"].tolist(), content.numbers["image_size"].tolist()
        look = check_image if self.decode else image_header
        known = rows if rows is not None and len(rows.keys) == len(content) else None

        def checked(row: int) -> tuple[str, str] | None:
            try:
                _, width, height = look(bytes(data.buffer[offsets[row] : offsets[row] + sizes[row]]))
            except ValueError as exc:
                return "image-damaged", str(exc)
            if known is None or known.numbers["width"][row] == 0:
                return None
            said = int(known.numbers["width"][row]), int(known.numbers["height"][row])
            if said == (width, height):
                return None
            return "image-size", f"the index says {said[0]} x {said[1]} pixels, but the image is {width} x {height}"

        images = [row for row, start in enumerate(offsets) if start >= 0]
        seen.decoded = len(images) if self.decode else 0
        for row, wrong in zip(images, _mapped(run, checked, images), strict=True):
            if wrong is not None:
                yield finding(wrong[0], content.place, wrong[1], byte=offsets[row], key=content.keys[row])

    def across(self) -> Iterator[Finding]:
        """Checks across all shards: keys, class counts, field names."""
        yield from self._double_keys()
        if self.manifest is None or not self.opened.whole:
            return
        place = str(self.opened.place)
        if not self.complete:
            return  # the counts can't be right; the cause is already in the findings
        counts = self.counts.tolist()
        if not self.manifest.classes and self.labelled:
            yield finding("class-count", place, "the manifest names no classes, but the samples have labels")
        several = self.manifest.labels == "multi"  # they are in a field, not in the index
        for label, entry in enumerate(() if several else self.manifest.classes):
            if entry.count != counts[label]:
                fact = f"the manifest says {entry.count} samples of class {entry.name!r}, but there are {counts[label]}"
                yield finding("class-count", place, fact)
        fields = sorted(self.fields)
        if self.manifest.shards and fields != sorted(self.manifest.fields):  # all samples may have been purged
            fact = (
                f"the manifest names the fields {', '.join(self.manifest.fields)}; in the shards: {', '.join(fields)}"
            )
            yield finding("fields", place, fact)

    def _counts(
        self, labels: NDArray[np.int64], rows: IndexRows | None, corrections: Overlay | None
    ) -> tuple[NDArray[np.int64], bool]:
        """(samples of each class, whether any has a label) by the labels in the shard; if it has none, by the index.
        Both as they are corrected."""
        found = labels
        if rows is not None and not (labels >= 0).any():
            found = rows.numbers["label"].astype(np.int64)
        if corrections is not None and len(found) > int(corrections.rows.max(initial=-1)):
            found = found.copy()
            new = corrections.labels >= 0
            found[corrections.rows[new]] = corrections.labels[new]
            found = np.delete(found, corrections.rows[corrections.deleted])
        classes = 0 if self.manifest is None else len(self.manifest.classes)
        known = found[(found >= 0) & (found < classes)]
        return np.bincount(known, minlength=classes), bool((found >= 0).any())

    def _double_keys(self) -> Iterator[Finding]:
        double = self.hashes.repeats()
        if not len(double):
            return
        places: dict[str, str] = {}
        for number, rows in self.hashes.shards_with(double):
            shard = self.opened.shards[number].location
            content = read_shard(open_shard(shard, self.opened.format, objects=self.opened.objects))
            for row in rows:
                key = content.keys[row]
                if key in places:
                    fact = f"duplicate key; the first one is in {places[key]}"
                    byte = int(content.numbers["offset"][row])
                    yield finding("key-twice", content.place, fact, byte=byte, key=key)
                places.setdefault(key, content.place)


def _mapped(
    run: _Run, function: Callable[[int], tuple[str, str] | None], rows: Sequence[int]
) -> Iterator[tuple[str, str] | None]:
    """Apply `function` to each row through `run`, in chunks of some hundred: an executor's map submits all at once."""
    waiting = iter(rows)
    while part := list(islice(waiting, 512)):
        yield from run(function, part)  # type: ignore[misc]


def _against_entry(shard: ShardPlace, content: ShardContent) -> Iterator[Finding]:
    entry, place = shard.entry, str(shard.location)
    if entry is None:
        return
    if content.file_bytes != entry.bytes:
        fact = f"the shard has {content.file_bytes} bytes, but its manifest says {entry.bytes}"
        yield finding("shard-size", place, fact)
    elif entry.crc32c and f"{content.crc32c:08x}" != entry.crc32c:
        fact = f"the shard's CRC-32C is {content.crc32c:08x}, but its manifest says {entry.crc32c}"
        yield finding("shard-crc", place, fact)
    if content.error is None and len(content) != entry.samples:
        fact = f"the shard has {len(content)} samples, but its manifest says {entry.samples}"
        yield finding("shard-samples", place, fact)


def _against_rows(shard: ShardPlace, content: ShardContent, rows: IndexRows) -> Iterator[Finding]:
    assert shard.index is not None
    index, group = shard.index
    place, name = str(index.place), index.shards[group]
    if name != shard.location.name or (content.error is None and len(rows.keys) != len(content)):
        fact = f"its row group {group} has {len(rows.keys)} rows for {name}: {shard.location.name} has {len(content)}"
        yield finding("index-rows", place, fact)
        return
    count = min(len(content), len(rows.keys))
    columns = COMPARED if shard.entry is not None and not shard.entry.crc32c else (*COMPARED, "crc32c")
    for row in _differing(content, rows, count, columns):
        yield _difference(place, content, rows, row)


def _differing(content: ShardContent, rows: IndexRows, count: int, columns: Sequence[str]) -> list[int]:
    wrong = np.zeros(count, np.bool_)
    has_label = content.numbers["label"][:count] != -1
    for column in columns:
        differs = content.numbers[column][:count] != rows.numbers[column][:count].astype(np.int64)
        wrong |= differs & has_label if column == "label" else differs
    if content.keys[:count] != rows.keys[:count]:
        wrong |= [mine != theirs for mine, theirs in zip(content.keys[:count], rows.keys, strict=False)]
    found: list[int] = np.flatnonzero(wrong).tolist()
    return found


def _difference(place: str, content: ShardContent, rows: IndexRows, row: int) -> Finding:
    """Describe how a sample differs from its index row."""
    key, start = content.keys[row], int(content.numbers["offset"][row])
    for column in COMPARED:
        mine, theirs = int(content.numbers[column][row]), int(rows.numbers[column][row])
        if mine != theirs and (column != "label" or mine != -1):
            fact = f"the index says {column} {theirs}, but in {content.place} it is {mine if mine >= 0 else 'none'}"
            return finding("index-row", place, fact, byte=start, key=key)
    if key != rows.keys[row]:
        fact = f"the index says {rows.keys[row]!r}, but {content.place} holds {key!r}"
        return finding("index-row", place, fact, byte=start, key=key)
    mine, theirs = int(content.numbers["crc32c"][row]), int(rows.numbers["crc32c"][row])
    fact = f"the image's CRC-32C is {mine:08x}, but the index says {theirs:08x}: the image is damaged"
    return finding("image-crc", content.place, fact, byte=int(content.numbers["image_offset"][row]), key=key)


def _beside(opened: Opened) -> Iterator[Finding]:
    """Problems beside the shards: no index, shards not in the manifest, a missing list of skipped files."""
    manifest, place = opened.manifest, opened.place
    if manifest is None:
        return
    if manifest.shards and not manifest.index:
        yield finding("index-missing", str(place), "the manifest names no index")
    for index in opened.index:
        if index.entry is not None and index.shards and len(index.shards) != index.entry.shards:
            fact = f"it has {len(index.shards)} row groups, but the manifest says {index.entry.shards} shards"
            yield finding("index-rows", str(index.place), fact)
    known = {entry.name for entry in manifest.shards}
    if manifest.corrections is not None:
        known |= {entry.name for entry in manifest.corrections.kept}
    stem = opened.stem
    generation = generation_of(known, stem)  # files of others were replaced, or will replace these
    current = place.name == manifest_name(stem)  # later versions may have further shards
    for shard in shards_of_stem(place, stem, opened.objects, generation) if opened.whole and current else []:
        if shard.name not in known and format_of_name(shard.name) == opened.format:
            yield finding("shard-unknown", str(shard), "this shard is not in the manifest")
    if manifest.skipped and opened.whole:
        yield from _skipped_list(manifest, opened)


def _skipped_list(manifest: Manifest, opened: Opened) -> Iterator[Finding]:
    place = opened.place.sibling(skipped_beside(file_names(manifest), opened.stem))
    try:
        listed = len(json.loads(opened.objects.read(place)))
    except (ShardkitError, ValueError) as exc:
        yield finding("skipped-list", str(place), f"the list of the skipped files can't be read ({exc})")
        return
    if listed != manifest.skipped:
        fact = f"it lists {listed} skipped files, but the manifest says {manifest.skipped}"
        yield finding("skipped-list", str(place), fact)
