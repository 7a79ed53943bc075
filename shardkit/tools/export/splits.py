"""The datasets that an export describes: the splits of one folder, with one class map."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from shardkit.errors import DatasetError, ManifestError, NotFoundError, UsageError, printable
from shardkit.location import Location, locate
from shardkit.packing.dest.dataset_files import DatasetFiles
from shardkit.shards.columns.types import PREFIX
from shardkit.shards.corrections.block import OPTION as CORRECTIONS
from shardkit.shards.find.find import resolve
from shardkit.shards.manifest import (
    IndexEntry,
    Manifest,
    ShardEntry,
    column_options,
    decode_manifest,
    require_as_packed,
    require_beside,
)
from shardkit.shards.names import datasets_in
from shardkit.shards.objects import Objects
from shardkit.storage.access import Remote
from shardkit.storage.patient import open_patient
from shardkit.tools.corrections.packed import packed_classes, packed_columns

log = logging.getLogger(__name__)

Source = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


Entry = ShardEntry | IndexEntry


@dataclass(frozen=True, slots=True)
class Split:
    """A dataset of a folder, which is one split for other libraries.

    files: where its shards are read. For a dataset that is copied under other names: origin has the names of its files
    where they are read, and made the bytes of those that are not there.
    """

    files: DatasetFiles
    manifest: Manifest
    origin: Mapping[str, str] = field(default_factory=dict)
    made: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The dataset's name: `train` of `shards/train`."""
        return self.files.stem

    @property
    def place(self) -> str:
        """Its manifest, for messages."""
        return str(self.files.location(self.files.manifest))

    def source_of(self, entry: Entry) -> Location:
        """Where the bytes of a shard or index file are."""
        return self.files.location(self.origin.get(entry.name, entry.name))

    def require_format(self, wanted: str, reader: str) -> None:
        """UsageError unless the shards have the format that a library reads."""
        if self.manifest.shard_format != wanted:
            fact = f"the shards are {self.manifest.shard_format}, and {reader} reads {wanted} shards"
            raise UsageError(self.place, fact, f"convert it first: shardkit convert SOURCE DEST --format {wanted}")


DigestsOf = Callable[[Split, Sequence[Entry]], Sequence[str]]
"""The SHA-256 of some files of a split, as hex digits."""


@dataclass(frozen=True, slots=True)
class Splits:
    """The splits that an export describes, at least one, and the class map that they share.

    folder: where the files go, beside the shards. classes: names in label order; empty if no split has labels.
    digests: reads the files when it is called.
    """

    splits: tuple[Split, ...]
    folder: DatasetFiles
    classes: tuple[str, ...]
    digests: DigestsOf

    @property
    def title(self) -> str:
        """A name for the whole: that of its folder, or of the dataset if the folder has no name."""
        root = self.folder.store.root
        path = os.path.abspath(root.path) if root.is_local else root.path
        return os.path.basename(path.rstrip("/")) or self.splits[0].name

    @property
    def fields(self) -> tuple[str, ...]:
        """All fields of all splits, sorted."""
        return tuple(sorted({name for split in self.splits for name in split.manifest.fields}))

    @property
    def columns(self) -> dict[str, str]:
        """The further columns of all indexes by their names in the index, with their types. One that has several types
        has those of all splits, as in "int64 or string"."""
        several: dict[str, list[str]] = {}
        for split in self.splits:
            for name, text in split.manifest.columns.items():
                several.setdefault(PREFIX + name, []).append(text)
        return {name: " or ".join(dict.fromkeys(texts)) for name, texts in several.items()}


def splits_of(source: Source, remote: Remote) -> tuple[Split, ...]:
    """The datasets that `source` names: a prefix or manifest, a folder with all datasets in it, or a list of these.

    Raises NotFoundError, ManifestError, StorageError, and UsageError for a class directory, shards without a manifest,
    part of a dataset, or datasets of several folders.
    """
    given = [source] if isinstance(source, (str, os.PathLike)) else list(source)
    if not given:
        raise UsageError("export", "the list of datasets is empty", "name at least one")
    found = tuple(split for one in given for split in _named(locate(one), remote))
    folders = sorted({str(split.files.store.root) for split in found})
    if len(folders) > 1:
        fact = f"the datasets are in several folders: {', '.join(folders)}"
        raise UsageError("export", fact, "export the datasets of each folder on their own")
    twice = [name for name, count in Counter(split.name for split in found).items() if count > 1]
    if twice:
        raise UsageError("export", f"the dataset {twice[0]!r} is named twice", "name it once")
    return found


def as_packed(manifest: Manifest, files: DatasetFiles, own: Manifest | None = None) -> Manifest:
    """The manifest for readers of the shards and of the index alone, who see them as packed: without corrections.
    files: where the dataset is. own: its manifest there, if that has other names.

    Raises UsageError for corrected labels of several classes, which are counted in the shards only.
    """
    own = manifest if own is None else own
    found, place = manifest.corrections, str(files.location(files.manifest))
    if found is None or (found.overlay is None and not found.fields):
        return manifest
    columns = packed_columns(own, files)
    options = {name: value for name, value in manifest.options.items() if name not in (CORRECTIONS, "columns")}
    if len(columns) < len(manifest.columns):
        added = ", ".join(map(printable, manifest.columns.keys() - columns.keys()))
        log.warning("%s: the fields %s are not in the index, so the files leave them out: %s", place, added, _CURE)
    seen = replace(manifest, options=options | column_options(columns))
    if found.overlay is None:
        return seen
    if manifest.labels == "multi":
        require_as_packed(manifest, place, "other libraries read the shards as packed")
    samples = sum(shard.samples for shard in manifest.shards)
    log.warning(
        "%s: other libraries read the shards as packed, and the files describe these %d samples; the dataset has %d in "
        "version %d: %s", place, samples, manifest.samples, found.version, _CURE,
    )  # fmt: skip
    return replace(seen, samples=samples, classes=packed_classes(own, files))


_CURE = "'shardkit convert' writes a dataset with all corrections"


def _named(place: Location, remote: Remote) -> list[Split]:
    if place.scheme.rpartition("+")[2] in ("http", "https"):
        raise UsageError(str(place), "a web server is read-only", "export where its files are, or after 'download'")
    in_folder = _in_folder(place, remote)
    if in_folder:
        return in_folder
    found = resolve(str(place.url), remote)
    found.require_dataset("pack it with 'shardkit pack'")
    if found.manifest is None or found.location is None:
        cure = "make one with 'shardkit index'"
        raise NotFoundError(str(place), "the shards have no manifest, which an export is made from", cure)
    if found.numbers is not None:
        fact = "these are only some of the shards that the dataset's manifest names"
        raise UsageError(str(found.location), fact, "give the dataset's prefix")
    require_beside(found.manifest, str(found.location))
    files = _files(found.location.parent, found.location.name.removesuffix(".json"), remote)
    return [Split(files, as_packed(found.manifest, files))]


def _in_folder(place: Location, remote: Remote) -> list[Split]:
    """The datasets in the folder with exactly this name; empty if there is none."""
    if place.name.endswith(".json") or set(place.name) & set("*?{["):
        return []
    folder = Location(place.scheme, place.path.rstrip("/") or "/")
    found = []
    for stem in datasets_in(Objects(remote).names(folder, "")):
        files = _files(folder, stem, remote)
        data = files.read(files.manifest)
        try:
            manifest = decode_manifest(data, place=str(files.location(files.manifest)))
        except ManifestError as exc:
            raise ManifestError(exc.place, exc.fact, f"{exc.cure}; or name the datasets to export one by one") from exc
        require_beside(manifest, str(files.location(files.manifest)))
        found.append(Split(files, as_packed(manifest, files)))
    return found


def _files(folder: Location, stem: str, remote: Remote) -> DatasetFiles:
    return DatasetFiles(open_patient(folder, remote.storage_options), stem)


def shared_classes(splits: Sequence[Split]) -> tuple[str, ...]:
    """The names of the classes, in label order, that all splits with labels share. DatasetError if they differ."""
    first: Split | None = None
    for split in splits:
        if not split.manifest.classes:
            continue
        if first is None:
            first = split
        elif split.manifest.class_names != first.manifest.class_names:
            cure = "pack the splits together, or with `classes`, so that a label means the same class in each"
            raise DatasetError(split.place, _difference(first, split), cure)
    return () if first is None else tuple(first.manifest.class_names)


def _difference(first: Split, other: Split) -> str:
    here, there = other.manifest.class_names, first.manifest.class_names
    for label, (name, before) in enumerate(zip(here, there, strict=False)):
        if name != before:
            return f"label {label} is {printable(name)!r} here, and {printable(before)!r} in {first.name}"
    return f"it has {len(here)} classes, and {first.name} has {len(there)}"


def require_labels(split: Split, reader: str, cure: str) -> None:
    """DatasetError unless each sample has one class."""
    if split.manifest.labels not in ("class", "listed") or not split.manifest.classes:
        raise DatasetError(split.place, f"its samples do not have one class each, which {reader} needs", cure)
