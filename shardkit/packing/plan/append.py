"""What `pack(append=True)` adds to an existing dataset: which files are new, and what has changed or gone.

A file is identified by its path, which is in the index. It is new if the index does not have its path. It has changed
if its size differs, with `check="full"` also if its checksum differs, or if a list gives it another class. Existing
files are not touched: the new samples go to additional shards with additional index files, and a new manifest names all
of them. Existing labels stay, so new classes get the next numbers, and the names are no longer sorted.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from shardkit.checksums import crc32c
from shardkit.errors import DatasetError, DestinationError, UsageError, printable
from shardkit.packing.dest.dataset_files import sizes_in
from shardkit.packing.dest.destination import Destination
from shardkit.packing.options import NEAR_DUPLICATES, PackOptions
from shardkit.packing.plan.known_rows import RowsByPath, free_keys
from shardkit.sample import path_of_text
from shardkit.shards.columns.values import fitted_column
from shardkit.shards.index_file import index_entries
from shardkit.shards.manifest import JPEGS, Manifest, require_beside
from shardkit.sources.groups import Grouped
from shardkit.sources.scratch import scratch
from shardkit.sources.source import Source
from shardkit.sources.subset import grouped_at, rows_where, source_at

log = logging.getLogger(__name__)

FREE = frozenset(
    (
        "max_bytes", "max_count", "shuffle", "seed", "check", "on_error", "appended", "labels", "columns",
        "corrections", JPEGS,
    )
)  # fmt: skip
"""The options that may differ from those of the existing dataset; the kind of labels, the columns and the counts of
JPEGs follow from the source."""

COPIED = FREE | {"ext", "fields", "split", "group_by", "label_from", "merge", "no_labels"}
"""The options under which a file's bytes are stored unchanged, so that sizes can be compared."""

_SHOWN = 5
_CURE = "give the options that it was packed with, or pack all of it again with `overwrite=True`"


@dataclass(frozen=True, slots=True)
class PathSummary:
    """A count of paths, and the first few of them."""

    count: int = 0
    examples: tuple[str, ...] = ()

    def and_more(self, path: str) -> PathSummary:
        """With one more."""
        return PathSummary(self.count + 1, self.examples if self.count >= _SHOWN else (*self.examples, path))

    def __str__(self) -> str:
        shown = ", ".join(map(printable, self.examples))
        return f"{self.count} ({shown}{' …' if self.count > len(self.examples) else ''})"


class ExistingDataset(msgspec.Struct, frozen=True, eq=False):
    """The dataset that is added to, and how the source differs from it once they have been compared."""

    destination: Destination
    manifest: Manifest
    changed: PathSummary = PathSummary()
    gone: PathSummary = PathSummary()

    @property
    def first(self) -> int:
        """The number of the first new shard."""
        corrections = self.manifest.corrections
        older = () if corrections is None else corrections.kept  # a version may have shards that this one lacks
        names = [entry.name for entry in self.manifest.shards] + [entry.name for entry in older]
        numbers = [re.fullmatch(r".*-(\d+)\.\w+", name) for name in names]
        return max([len(self.manifest.shards), *(int(found[1]) + 1 for found in numbers if found)])


def existing_datasets(destinations: Mapping[str, Destination], options: PackOptions) -> dict[str, ExistingDataset]:
    """The existing datasets by split. DestinationError for one that can't be added to with these options."""
    found = {}
    for split, destination in destinations.items():
        manifest = destination.files.read_manifest()
        if manifest is None:
            log.info("%s: there is no dataset yet, so everything is packed", destination)
            continue
        _check(destination, manifest, options)
        found[split] = ExistingDataset(destination, manifest)
    longest = max((each.manifest.class_names for each in found.values()), key=len, default=[])
    for each in found.values():
        if each.manifest.class_names != longest[: len(each.manifest.classes)]:
            fact = "its classes differ from those of another split that is added to"
            raise DestinationError(str(each.destination), fact, "pack all of it again with `overwrite=True`")
    return found


def text_columns(destinations: Iterable[Destination]) -> list[str]:
    """The further columns of text that datasets have which are there. DestinationError, StorageError."""
    manifests = [each.files.read_manifest() for each in destinations]
    found = [name for each in manifests if each is not None for name, text in each.columns.items() if text == "string"]
    return list(dict.fromkeys(found))


def _check(destination: Destination, manifest: Manifest, options: PackOptions) -> None:
    place = str(destination)
    require_beside(manifest, place)
    if not manifest.plan or not manifest.index:
        fact = "this dataset was not written by 'shardkit pack', so new files can't be identified"
        raise DestinationError(place, fact, "choose another destination for the new files")
    if manifest.merged:
        fact = f"this dataset was merged from {', '.join(each['name'] for each in manifest.merged)}"
        raise DestinationError(place, fact, "add to one of them, and merge them again with `overwrite=True`")
    if manifest.shard_format != options.format:
        fact = f"this dataset is of the format {manifest.shard_format}, not {options.format}"
        raise DestinationError(place, fact, _CURE)
    mine, theirs = options.recorded(), manifest.options
    if theirs.get(NEAR_DUPLICATES):
        fact = "its splits keep near-duplicates together, and a new image may look like images of several splits"
        raise DestinationError(place, fact, "pack all of it again with `overwrite=True`")
    free = FREE - {"seed"} if options.split is not None else FREE
    for name in sorted({*mine, *theirs} - free):
        if mine.get(name) != theirs.get(name):
            fact = f"it was packed with the option {name} {theirs.get(name)!r}, not {mine.get(name)!r}"
            raise DestinationError(place, fact, _CURE)
    missing = destination.files.missing(sizes_in(manifest))
    if missing is not None:
        fact = f"the manifest of this dataset names {missing}, which is missing or has another size"
        raise DestinationError(place, fact, "pack again with `overwrite=True`")


def classes_after(
    before: Iterable[ExistingDataset], scanned: Sequence[str], given: Sequence[str] | None
) -> tuple[str, ...]:
    """The classes in label order: the existing ones, then the new ones of `scanned`, which are logged. UsageError if
    the user gave others for the first labels.
    """
    old = max((each.manifest.class_names for each in before), key=len, default=[])
    if given is not None and list(given[: len(old)]) != old:
        fact = f"the first {len(old)} classes given are not those of the existing dataset"
        raise UsageError("classes", fact, "omit it: the labels stay as they are")
    known = set(old)
    new = [name for name in scanned if name not in known]
    if old and new:
        shown = ", ".join(map(printable, new[:_SHOWN])) + (" …" if len(new) > _SHOWN else "")
        text = "new classes get labels from %d on, so the classes are no longer in sorted order: %s"
        log.warning(text, len(old), shown)
    return (*old, *new)


def require_kind(source: Source, before: Iterable[ExistingDataset]) -> None:
    """DestinationError if the labels of the source are of another kind than the existing ones."""
    mine = source.label_kind
    for each in before:
        theirs = each.manifest.labels
        if mine != theirs and {mine, theirs} != {"class", "listed"}:
            fact = f"its labels are of the kind {theirs!r}, and those of the source {mine!r}"
            raise DestinationError(str(each.destination), fact, "choose another destination")


def relabelled(found: Source | Grouped, classes: tuple[str, ...]) -> Source | Grouped:
    """The same samples, with labels that are positions in `classes`, which contains all of their classes."""
    if isinstance(found, Grouped):
        return replace(found, samples=_relabelled(found.samples, classes), files=_relabelled(found.files, classes))
    return _relabelled(found, classes)


def _relabelled(source: Source, classes: tuple[str, ...]) -> Source:
    if source.classes == classes[: len(source.classes)]:
        return replace(source, classes=classes)
    if source.inline is not None and source.inline.labels == "multi":
        fact = "its samples have several labels each, and its classes do not begin with those of the dataset"
        raise UsageError("append", fact, "give `classes`: the existing ones in their order, then the new ones")
    places = {name: place for place, name in enumerate(classes)}
    labels = np.array([*(places[name] for name in source.classes), -1], np.int32)[source.labels]
    return replace(source, classes=classes, labels=labels)


def new_samples(
    found: Source | Grouped, before: ExistingDataset, options: PackOptions
) -> tuple[Source | Grouped, ExistingDataset]:
    """The samples that the dataset lacks, under keys that are free in it, and the dataset with what has changed or
    gone."""
    samples = found.samples if isinstance(found, Grouped) else found
    rows_by_path = RowsByPath(samples.paths)
    known = scratch(len(samples), np.bool_)
    known.fill(False)
    sizes = found.files.sizes[found.rows[:, found.primary]] if isinstance(found, Grouped) else samples.sizes
    look = _Look(samples, sizes, full=options.check == "full", copied=COPIED.issuperset(before.manifest.options))
    gone = PathSummary()
    for columns in _index_columns(before, ["path", "label", "image_size", "crc32c"]):
        texts: list[str] = columns["path"].to_pylist()
        rows = rows_by_path.find(list(map(path_of_text, texts)))
        known[rows[rows >= 0]] = True
        for place in np.flatnonzero(rows < 0).tolist():
            gone = gone.and_more(texts[place])
        look.at(rows, texts, columns)
    before = replace(before, changed=look.changed, gone=gone)
    _tell(before, look)
    if known.any() and samples.inline is not None and samples.inline.labels in ("multi", "number"):
        text = "%s: the index holds no such labels, so changed labels of the %d existing samples are not detected"
        log.info(text, before.destination, np.count_nonzero(known))
    found = _with_columns(found, before)
    rows = rows_where(known, False)
    renamed = free_keys(samples, rows, lambda: (each["key"].to_pylist() for each in _index_columns(before, ["key"])))
    return _renamed(_at(found, rows), renamed), before


def _with_columns(found: Source | Grouped, before: ExistingDataset) -> Source | Grouped:
    """The samples with their further columns in the types of the dataset. DestinationError for values that do not
    fit."""
    samples = found.samples if isinstance(found, Grouped) else found
    if samples.columns is None:
        return found
    table = samples.columns
    for at, name in enumerate(table.column_names):
        text = before.manifest.columns.get(name)
        try:
            column = table[name] if text is None else fitted_column(table[name], text)
        except ValueError as exc:
            fact = f"its column {printable(name)!r} is {text}, and that of the source does not fit: {exc}"
            cure = "change the values in the source, or pack all of it again with `overwrite=True`"
            raise DestinationError(str(before.destination), fact, cure) from exc
        table = table.set_column(at, name, column)
    samples = replace(samples, columns=table)
    return replace(found, samples=samples) if isinstance(found, Grouped) else samples


class _Look:
    """Checks whether known files and their classes have changed. copied: the shards hold the files' own bytes.

    files: those whose bytes differ. labels: those whose class differs. changed: the files in either, counted once.
    """

    def __init__(self, samples: Source, sizes: NDArray[np.int64], *, full: bool, copied: bool) -> None:
        self.samples, self.sizes, self.copied = samples, sizes, copied
        self.full = full and samples.elsewhere is None
        self.changed = self.files = self.labels = PathSummary()

    def at(self, rows: NDArray[np.int64], texts: Sequence[str], columns: Mapping[str, Any]) -> None:
        """Compare the files of one shard. rows: their rows in the source, -1 for none."""
        then = columns["image_size"]
        there = (rows >= 0) & (then >= 0) & self.copied
        differ = there & (self.sizes[rows] != then)
        if self.full:
            for place in np.flatnonzero(there & ~differ).tolist():
                differ[place] = self._checksum(int(rows[place])) != int(columns["crc32c"][place])
        labels = (rows >= 0) & (self.samples.labels[rows] != columns["label"])
        for place in np.flatnonzero(differ | labels).tolist():
            self.changed = self.changed.and_more(texts[place])
            self.files = self.files.and_more(texts[place]) if differ[place] else self.files
            self.labels = self.labels.and_more(texts[place]) if labels[place] else self.labels

    def _checksum(self, row: int) -> int | None:
        try:
            with open(os.path.join(self.samples.root, self.samples.paths[row]), "rb") as file:
                return crc32c(file.read())
        except OSError:  # None equals no checksum, so the file is reported as changed
            return None


def _index_columns(before: ExistingDataset, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Columns of the index, a shard at a time. DestinationError if it is damaged or belongs to another dataset."""
    for entry, shards in index_entries(before.manifest):
        try:
            yield from before.destination.files.open_index(entry, shards).groups(names)
        except DatasetError as exc:
            raise DestinationError(exc.place, exc.fact, "pack again with `overwrite=True`") from exc


def require_free(before: ExistingDataset, shards: Iterable[str]) -> None:
    """DestinationError if a file that belongs to no dataset has the name of a new shard."""
    there, ours = before.destination.files.sizes(), {entry.name for entry in before.manifest.shards}
    unknown = {name: there[name] for name in there.keys() & set(shards) - ours}
    for name in sorted(unknown.keys() - before.destination.wrote(unknown)) if unknown else ():
        place = before.destination.files.place(name)
        fact = "this file already exists, but the manifest of the dataset does not list it"
        raise DestinationError(place, fact, "move it elsewhere")


def _tell(before: ExistingDataset, look: _Look) -> None:
    place = str(before.destination)
    if before.gone.count:
        log.warning("%s: files that are gone from the source but stay in the dataset: %s", place, before.gone)
    if look.files.count:
        text = "%s: files that have changed since but stay in the dataset as they were: %s"
        log.warning(text, place, look.files)
    if look.labels.count:
        text = "%s: files whose label has changed since but which keep the old one in the dataset: %s; %s"
        log.warning(text, place, look.labels, "for the new labels, pack all of it again with `overwrite=True`")


def _at(found: Source | Grouped, rows: NDArray[np.int64]) -> Source | Grouped:
    return grouped_at(found, rows, found.incomplete) if isinstance(found, Grouped) else source_at(found, rows)


def _renamed(found: Source | Grouped, renamed: Mapping[int, str]) -> Source | Grouped:
    if isinstance(found, Grouped):
        return replace(found, samples=_with_keys(found.samples, renamed))
    return _with_keys(found, renamed)


def _with_keys(source: Source, renamed: Mapping[int, str]) -> Source:
    return replace(source, renamed=dict(sorted({**source.renamed, **renamed}.items())))
