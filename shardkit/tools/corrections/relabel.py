"""`shardkit relabel`: other labels for some samples, without a change of their shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from shardkit.errors import SourceError, UsageError
from shardkit.options.fields import checked_by
from shardkit.sample import MAX_LABEL
from shardkit.shards.corrections.block import VersionEntry
from shardkit.shards.corrections.overlay import Overlay
from shardkit.shards.find.shards import SourceLike
from shardkit.shards.manifest import ClassEntry, Manifest
from shardkit.sources.lists.labels import Labels, number_labels
from shardkit.tools.corrections.commit import Change, Corrected, correct
from shardkit.tools.corrections.lists import By, CorrectionList, NamedList, read_labels
from shardkit.tools.corrections.place import Base, place_of
from shardkit.tools.corrections.rows import NamedRows, faults_of, find_rows, quoted, targets_of, told, twice_in
from shardkit.tools.settings import RelabelSettings

KINDS = {"class": "one class", "listed": "one class", "multi": "several classes", "number": "numbers", "none": "none"}


@checked_by(RelabelSettings)
def relabel(
    source: SourceLike,
    labels: CorrectionList,
    *,
    by: By | None = None,
    label_column: str | None = None,
    label_separator: str | None = None,
    new_classes: bool = False,
    message: str = "",
    storage_options: Mapping[str, Any] | None = None,
) -> Corrected:
    """Give some samples of a dataset other labels: a new version of it, with the same shards.

    source: as for `dataset()`, on a disk or in a bucket. labels: a list (CSV, TSV, JSON lines, Parquet), a DataFrame or
    Arrow table, columns by name, or a dict of labels by key. It has a column `key` or `path`, and one of labels:
    classes by name or number, several of them, or numbers, as the dataset has.

    by: which of the two columns names the samples, "key" or "path" (default: the keys, if there are any).
    label_column: the column of labels; label_separator: what separates several classes in a text, as for `pack`.
    new_classes: add classes that the dataset does not have, after the existing ones; otherwise they are an error.
    message: a text for the log. storage_options: for a bucket, as for `dataset()`.

    The version is a small file beside the index and a new manifest. Older versions stay: `dataset("shards/train@1")`.
    Other readers of the shards see the labels as packed, until `convert` writes new shards.

    Returns the new version; the current one if all samples had these labels. Raises SourceError with all that is wrong
    with the list (an unknown key, a key that occurs twice, a label that is no class), UsageError for labels of another
    kind, BusyError if another run corrects the same samples, DestinationError, DatasetError, StorageError. Nothing is
    written then.
    """
    place = place_of(source, storage_options)
    wanted = read_labels(labels, by, label_column, label_separator)
    return correct(place, lambda base: _change(base, wanted, new_classes=new_classes, message=message))


def _change(base: Base, wanted: NamedList, *, new_classes: bool, message: str) -> Change:
    assert wanted.labels is not None
    manifest, place = base.manifest, str(base.place)
    if manifest.labels == "none" or (not manifest.classes and manifest.labels != "number"):
        raise UsageError(place, "the samples of this dataset have no labels", "pack it again with labels")
    faults = twice_in(wanted.names, wanted.by)
    given = _of_kind(wanted.labels, manifest, wanted.place, new_classes=new_classes)
    names, added = _classes_after(given, manifest, new_classes=new_classes)
    values, wrong = number_labels(given, names)
    found = find_rows(base, wanted.by, list(dict.fromkeys(wanted.names)))
    faults += faults_of(found, list(dict.fromkeys(wanted.names)), wanted.by) + _wrong(wrong, given)
    if faults:
        cure = "fix the list; `new_classes=True` adds classes" if wrong else "fix the list"
        raise SourceError(wanted.place, "; ".join(faults), cure)
    order = np.argsort(found.places)
    found = NamedRows(*(getattr(found, name)[order] for name in ("which", "places", "labels", "keys", "gone")))
    chosen: list[Any] = [values[at] for at in found.which.tolist()]
    entry = VersionEntry(version=0, kind="relabel", samples=0, classes=tuple(added), message=message)
    if manifest.labels in ("class", "listed"):
        return _class_change(found, chosen, names, base, entry)
    return _target_change(found, chosen, names, base, entry)


def _of_kind(labels: Labels, manifest: Manifest, place: str, *, new_classes: bool) -> Labels:
    """The labels as the dataset has them. UsageError if they are of another kind."""
    kind, single = manifest.labels, labels.kind == "class"
    if kind == "multi" and single:
        labels = Labels("multi", [None if value is None else [value] for value in labels.values], labels.named)
    if kind == "number" and single and not labels.named:
        labels = Labels("number", [None if value is None else float(value) for value in labels.values], False)
    if labels.kind != {"listed": "class"}.get(kind, kind):
        fact = f"its labels are {KINDS[labels.kind]}, and those of the dataset {KINDS[kind]}"
        raise UsageError(place, fact, "give labels as the dataset has them")
    return _by_name(labels, manifest.class_names, new_classes=new_classes)


def _by_name(labels: Labels, classes: Sequence[str], *, new_classes: bool) -> Labels:
    """Labels by name where numbers are names of classes: a folder may be called 10. New ones are, where all are."""
    if labels.kind == "number" or labels.named:
        return labels
    lists = [value if isinstance(value, list) else [value] for value in labels.values if value is not None]
    texts = {str(each) for value in lists for each in value}
    named = texts <= set(classes) or (new_classes and all(name.isdecimal() for name in classes))
    if not texts or not named:
        return labels
    values = [
        [str(each) for each in value] if isinstance(value, list) else None if value is None else str(value)
        for value in labels.values
    ]
    return Labels(labels.kind, values, True)


def _classes_after(labels: Labels, manifest: Manifest, *, new_classes: bool) -> tuple[list[str], list[str]]:
    """(all classes, those of them that are new)."""
    names = manifest.class_names
    if not new_classes or not labels.named:
        return names, []
    given = {
        each for value in labels.values if value is not None for each in (value if type(value) is list else [value])
    }
    added = sorted(given - set(names))
    for name in {".", ".."}.intersection(added):
        raise UsageError("new_classes", f"no class can have the name {name!r}", "give it another name")
    if len(names) + len(added) > MAX_LABEL:
        raise UsageError("new_classes", f"{len(added)} new classes are too many", "give fewer")
    return [*names, *added], added


def _wrong(wrong: Mapping[int, str], labels: Labels) -> list[str]:
    empty = [row + 1 for row, value in enumerate(labels.values) if value is None and row in wrong]
    others = list(dict.fromkeys(str(labels.values[row]) for row in wrong if labels.values[row] is not None))
    what = "the dataset has no class" if labels.kind != "number" else "it is not a number:"
    return [*told(empty, "there is no label in row"), *told(others, what)]


def _class_change(
    found: NamedRows, chosen: Sequence[int], names: Sequence[str], base: Base, entry: VersionEntry
) -> Change:
    new = np.array(chosen, np.int64)
    changed = new != found.labels
    counts = np.zeros(len(names), np.int64)
    counts[: len(base.manifest.classes)] = [each.count for each in base.manifest.classes]
    kept, new = found.pick(changed), new[changed]
    np.add.at(counts, new, 1)
    np.subtract.at(counts, kept.labels[kept.labels >= 0], 1)
    overlay = Overlay(kept.places, np.zeros(len(new), np.bool_), new, np.full(len(new), None, object), kept.keys)
    return Change(
        overlay, msgspec.structs.replace(entry, relabelled=len(new)), _entries(names, counts),
        unchanged=int((~changed).sum()), options={"labels": "listed"},
    )  # fmt: skip


def _target_change(
    found: NamedRows, chosen: Sequence[Any], names: Sequence[str], base: Base, entry: VersionEntry
) -> Change:
    """The change of labels of several classes, or of numbers, which are a field of each sample."""
    new = [msgspec.json.encode(value) for value in chosen]
    old = targets_of(base, found.places)
    if base.manifest.labels == "number":
        _require_shape(chosen, found, old, base)
    changed = np.array([_read(before) != value for before, value in zip(old, chosen, strict=True)], np.bool_)
    counts = np.zeros(len(names), np.int64)
    counts[: len(base.manifest.classes)] = [each.count for each in base.manifest.classes]
    if base.manifest.labels == "multi":
        for at in np.flatnonzero(changed).tolist():
            np.subtract.at(counts, _read(old[at]) or [], 1)
            np.add.at(counts, chosen[at], 1)
    kept = found.pick(changed)
    targets = np.empty(len(kept.places), object)
    targets[:] = [new[at].decode() for at in np.flatnonzero(changed).tolist()]
    none = np.full(len(targets), -1, np.int64)
    overlay = Overlay(kept.places, np.zeros(len(targets), np.bool_), none, targets, kept.keys)
    entry = msgspec.structs.replace(entry, relabelled=len(targets))
    return Change(overlay, entry, _entries(names, counts), unchanged=int((~changed).sum()))


def _read(target: bytes | None) -> Any:
    return None if target is None else msgspec.json.decode(target)


def _require_shape(chosen: Sequence[Any], found: NamedRows, old: Sequence[bytes | None], base: Base) -> None:
    """UsageError unless the new numbers are as many as the samples have."""
    for value, before, key in zip(chosen, map(_read, old), found.keys.tolist(), strict=True):
        if np.shape(value) != np.shape(before):
            shapes = f"the shape {np.shape(value)}, and the one it has {np.shape(before)}"
            fact = f"the new label of {quoted(key)} has {shapes}"
            raise UsageError(str(base.place), fact, "give as many numbers as the samples have")


def _entries(names: Sequence[str], counts: Any) -> tuple[ClassEntry, ...]:
    return tuple(ClassEntry(name, int(count)) for name, count in zip(names, counts.tolist(), strict=True))
