"""Write the files by which other libraries read the shards of a dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from shardkit.errors import UsageError
from shardkit.events import ProgressFn, no_progress
from shardkit.options.fields import checked_by
from shardkit.packing.dest.dataset_files import DatasetFiles
from shardkit.storage.access import Remote
from shardkit.threads import TransferPool, thread_count
from shardkit.tools.export import card, class_names, croissant, tfds, timm
from shardkit.tools.export.digests import Digests
from shardkit.tools.export.files import FileKind, Planned, plan_file, says_shardkit
from shardkit.tools.export.splits import Source, Splits, shared_classes, splits_of
from shardkit.tools.settings import ExportKind, ExportSettings
from shardkit.units import short_repr

FILES: Mapping[ExportKind, Sequence[FileKind]] = {
    "timm": [FileKind(timm.NAME, lambda splits, _: timm.info_json(splits), says_shardkit("generator"))],
    "huggingface": [FileKind(card.NAME, card.card_text, lambda _: True)],  # it completes the card that is there
    "croissant": [FileKind(croissant.NAME, croissant.croissant_json, says_shardkit("generator"))],
    "tfds": [
        FileKind(tfds.INFO, lambda splits, _: tfds.info_json(splits), says_shardkit("moduleName")),
        FileKind(tfds.FEATURES, lambda splits, _: tfds.features_json(splits), tfds.is_features),
        FileKind(tfds.LABELS, lambda splits, _: tfds.labels_text(splits), lambda _: False),
    ],
    "class-names": [
        FileKind(class_names.NAME, lambda splits, _: class_names.class_names_text(splits), lambda _: False)
    ],
}
"""The files of each format."""


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """A file of an export. written: False if it was there already with the same content."""

    kind: ExportKind
    file: str
    bytes: int
    written: bool


@dataclass(frozen=True, slots=True)
class Exported:
    """Result of `export`: the datasets that the files describe, as their manifests, and the files."""

    datasets: tuple[str, ...]
    files: tuple[ExportedFile, ...]

    __repr__ = short_repr


@checked_by(ExportSettings)
def export(
    source: Source,
    kinds: ExportKind | Sequence[ExportKind],
    *,
    overwrite: bool = False,
    workers: int | None = None,
    storage_options: Mapping[str, Any] | None = None,
    progress: ProgressFn = no_progress,
) -> Exported:
    """Write files beside the shards of a dataset, by which other libraries read them. The shards stay as they are.

    source: a prefix or manifest; a folder, whose datasets are then the splits (`train`, `validation`); or a list of
    them, in one folder. It may be in a bucket.
    kinds: "timm" writes `_info.json` for timm's `wds/` reader; "huggingface" `README.md`, a dataset card, or completes
    the one that is there; "croissant" `croissant.json` with the SHA-256 of each shard, which is read for it; "tfds"
    `dataset_info.json` and `features.json` for TensorFlow Datasets; "class-names" `classnames.txt`.
    overwrite: also replace files of these names that shardkit did not write.
    workers: shards that are read at a time, for the formats that need checksums.

    Files of an earlier export are replaced. Raises UsageError for shards of a format that the library does not read,
    DatasetError (NotFoundError, ManifestError) for what it would misread, DestinationError, StorageError.
    """
    wanted = kinds_of(kinds)
    splits = splits_of(source, Remote(storage_options))
    with TransferPool(thread_count(workers)) as pool:
        about = Splits(splits, splits[0].files, shared_classes(splits), Digests(pool, progress).of)
        planned = plan_files(about, wanted, overwrite=overwrite)
        return Exported(tuple(split.place for split in splits), write_files(planned, about.folder))


def kinds_of(kinds: ExportKind | Sequence[ExportKind]) -> list[ExportKind]:
    """The formats to write, each once. UsageError for an unknown one, and for none."""
    known: tuple[ExportKind, ...] = get_args(ExportKind)
    given: list[ExportKind] = list(dict.fromkeys([kinds] if isinstance(kinds, str) else kinds or ()))
    if not given:
        raise UsageError("export", "no format is named", f"name at least one of {', '.join(known)}")
    for kind in given:
        if kind not in known:
            raise UsageError("export", f"{kind!r} is not one of {', '.join(known)}", "choose one of these")
    return given


def plan_files(splits: Splits, kinds: Sequence[ExportKind], *, overwrite: bool) -> tuple[Planned, ...]:
    """The files of some formats, as they are to be written. Raises if one of them can't be."""
    planned = (plan_file(kind, file, splits, overwrite=overwrite) for kind in kinds for file in FILES[kind])
    return tuple(file for file in planned if file is not None)


def write_files(planned: Sequence[Planned], folder: DatasetFiles) -> tuple[ExportedFile, ...]:
    """Write the files that are not there yet."""
    for file in planned:
        if file.changed:
            folder.write(file.name, file.data)
    return tuple(
        ExportedFile(file.kind, str(folder.location(file.name)), len(file.data), file.changed) for file in planned
    )
