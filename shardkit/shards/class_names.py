"""Class numbers and names for shards without a manifest."""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from shardkit.errors import DatasetError, UsageError, printable
from shardkit.sample import path_of_text
from shardkit.shards.manifest import ClassEntry
from shardkit.shards.names import are_splits, stem_of_shard

log = logging.getLogger(__name__)

Pairs = Counter[tuple[int, str]]
"""(label (-1: none), first directory of the key ("": none)) -> the number of such samples."""


class ClassMap(msgspec.Struct, frozen=True):
    """The classes in label order. `by_folder`: the label of each first directory, if no sample has a `cls`."""

    classes: tuple[ClassEntry, ...]
    by_folder: dict[str, int] | None = None

    def labels(self, labels: NDArray[np.int64], folders: Sequence[str]) -> NDArray[np.int64]:
        """The label of each sample."""
        if self.by_folder is None:
            return labels
        return np.array([self.by_folder.get(folder, -1) for folder in folders], np.int64)


class ShardLabels(msgspec.Struct, frozen=True):
    """What one shard says about the classes.

    texts: label -> class name, if the format stores it. mixed: the place where its labels begin to mean other classes.
    """

    pairs: Pairs
    texts: Mapping[int, str]
    mixed: Mixed | None


def shard_labels(
    labels: NDArray[np.int64],
    keys: Sequence[str],
    images: Sequence[str],
    offsets: NDArray[np.int64],
    *,
    place: str,
    texts: Mapping[int, str],
    renamed: Mixed | None,
) -> ShardLabels:
    """What a shard says about the classes, from its columns. images: as in `pairs_of`. offsets: -1 if not known.

    renamed: a record whose class has another name than in an earlier one. DatasetError for a `cls` that is not a label.
    """
    require_labels(labels, offsets, keys, place)
    numbers = labels.tolist()
    mixed = renamed or mixed_folders(numbers, keys, images, offsets.tolist())
    return ShardLabels(pairs_of(numbers, keys, images), texts, mixed)


def classes_of_shards(
    shards: Sequence[tuple[str, ShardLabels]], names: Sequence[str] | None, *, place: str
) -> ClassMap:
    """The classes of some shards (name, labels), as from `class_map`.

    names: in label order; None for those in the shards. In this case DatasetError if the shards are of several datasets
    whose labels mean different classes.
    """
    if names is None:
        require_one_dataset((shard, said.mixed) for shard, said in shards)
        texts = joined_texts((shard, said.texts) for shard, said in shards)
        require_one_meaning([(shard, said.pairs) for shard, said in shards])
        names = text_names(texts, max((label for _, said in shards for label, _ in said.pairs), default=-1) + 1)
    return class_map((pair for _, said in shards for pair in said.pairs.items()), names, place=place)


def folder_of(key: str) -> str:
    """The first directory of a key but for `./`, with backslashes as they were before the key doubled them; "" for
    none."""
    while key.startswith("./"):  # the form in which `tar cf x.tar .` names members
        key = key[2:].lstrip("/")
    folder, slash, _ = key.partition("/")
    if "\\" in folder and slash:
        with suppress(ValueError):  # also UnicodeDecodeError: a key not made by shardkit, or not text
            return path_of_text(folder).decode()
    return folder if slash else ""


def class_map(pairs: Iterable[tuple[tuple[int, str], int]], names: Sequence[str] | None, *, place: str) -> ClassMap:
    """The classes of the samples that `pairs` counts.

    Labels are those of `cls`. If no sample has one, the first directories of the keys, sorted, are the classes,
    provided that each sample has a directory, that `names` are given or there are two or more directories, and that not
    all of these are names of splits; else there are no labels. The choice is logged. Names are `names` (label order);
    else the directories, if each label has its own; else "0", "1", …. Raises UsageError if `names` are too few or do
    not match.
    """
    counts: Pairs = Counter()
    for pair, count in pairs:
        counts[pair] += count
    if all(label < 0 for label, _ in counts):
        return _by_folder(counts, names, place)
    labels: Counter[int] = Counter()
    for (label, _), count in counts.items():
        labels[label] += count
    size = max(labels) + 1
    if names is not None and len(names) < size:
        raise UsageError("classes", f"{len(names)} names are given, but {place} has the label {size - 1}", "name all")
    folders = _own_folders(counts)
    chosen = list(names) if names is not None else [folders.get(label, str(label)) for label in range(size)]
    if len(set(chosen)) < len(chosen):
        chosen = [str(label) for label in range(size)]
    return ClassMap(tuple(ClassEntry(name, labels[label]) for label, name in enumerate(chosen)))


def text_names(texts: Mapping[int, str], size: int) -> list[str] | None:
    """The names of `size` classes in the records; None if there are none, or if two labels have the same name."""
    names = [texts.get(label, str(label)) for label in range(size)]
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is None:
        return names if texts else None
    first, second = itertools.islice((label for label, name in enumerate(names) if name == twice), 2)
    log.warning("labels %d and %d are both called %r, so classes are named by number", first, second, printable(twice))
    return None


def _own_folders(counts: Pairs) -> dict[int, str]:
    """Label -> directory, if each label has one directory and no two share one; else empty."""
    pairs = {pair for pair in counts if pair[0] >= 0}
    labels, folders = {label for label, _ in pairs}, {folder for _, folder in pairs}
    return dict(pairs) if len(pairs) == len(labels) == len(folders) and "" not in folders else {}


def _by_folder(counts: Pairs, names: Sequence[str] | None, place: str) -> ClassMap:
    folders: Counter[str] = Counter()
    for (_, folder), count in counts.items():
        folders[folder] += count
    if "" in folders or not folders:
        if names is not None and folders:
            fact = f"{place} has samples with neither a cls nor an image in a folder: their class is unknown"
            raise UsageError("classes", fact, "omit it to open the dataset without labels")
        return _unlabelled(place, "not every sample is an image in a folder")
    if names is None and len(folders) < 2:
        return _unlabelled(place, f"all are in the folder {printable(min(folders))}")
    if names is None and are_splits(folders):
        return _unlabelled(place, f"the folders {_some(folders)} are names of splits")
    log.warning("%s: no sample has a cls: the folders %s of its keys are taken as classes", place, _some(folders))
    chosen = list(names) if names is not None else sorted(folders)
    unknown = next((folder for folder in sorted(folders) if folder not in set(chosen)), None)
    if unknown is not None:
        raise UsageError("classes", f"{place} has samples in {unknown!r}, which is not named", "name all directories")
    return ClassMap(
        tuple(ClassEntry(name, folders[name]) for name in chosen), {name: n for n, name in enumerate(chosen)}
    )


def _unlabelled(place: str, reason: str) -> ClassMap:
    log.warning("%s: there are no labels: no sample has a cls, and %s", place, reason)
    return ClassMap(())


def _some(folders: Iterable[str], limit: int = 3) -> str:
    names = [printable(name) for name in sorted(folders)]
    return ", ".join(names[:limit]) + (" …" if len(names) > limit else "")


def pairs_of(labels: Iterable[int], keys: Iterable[str], images: Iterable[str]) -> Pairs:
    """The pairs of samples. images: the field of each sample's image, "" for none: a sample with neither image nor
    `cls` is in its folder for other reasons than its class."""
    return Counter(
        (label, folder_of(key) if image or label >= 0 else "")
        for label, key, image in zip(labels, keys, images, strict=True)
    )


def joined_texts(shards: Iterable[tuple[str, Mapping[int, str]]]) -> dict[int, str]:
    """Label -> name of the class over several shards (name, texts). DatasetError if they contradict each other."""
    found: dict[int, tuple[str, str]] = {}
    for shard, texts in shards:
        for label, text in texts.items():
            _require_same(shard, f"label {label}", text, found.setdefault(label, (text, shard)))
    return {label: text for label, (text, _) in found.items()}


class Mixed(NamedTuple):
    """The place in a shard where labels begin to mean other classes than before."""

    fact: str
    offset: int | None
    key: str


def two_names(label: int, before: str, here: str, offset: int, key: str) -> Mixed:
    """The finding for a record whose class has another name than in an earlier one. offset: -1 if not known."""
    fact = f"label {label} is {printable(here)!r} here, and {printable(before)!r} before"
    return Mixed(fact, offset if offset >= 0 else None, key)


def mixed_folders(
    labels: Sequence[int], keys: Sequence[str], images: Sequence[object], offsets: Sequence[int]
) -> Mixed | None:
    """The place in a shard where another dataset begins, as after joining two files: up to it, each label has one
    folder and each folder one label; after it too, but different ones.

    Folders need not be classes. They count as such if each part has two or more, with _SAMPLES_EACH samples each on
    average, and its classes are mixed, unlike those of a tree in its own order.
    """
    rows = [
        (n, labels[n], folder)
        for n, key in enumerate(keys)
        if labels[n] >= 0 and images[n] and (folder := folder_of(key))
    ]
    parts: list[list[tuple[int, int, str]]] = []
    by_label: dict[int, str] = {}
    by_folder: dict[str, int] = {}
    for row in rows:
        _, label, folder = row
        if not parts or by_label.get(label, folder) != folder or by_folder.get(folder, label) != label:
            parts.append([])
            by_label, by_folder = {}, {}
        by_label[label], by_folder[folder] = folder, label
        parts[-1].append(row)
    if len(parts) < 2 or not all(map(_is_mixed_dataset, parts)):
        return None
    first, label, folder = parts[1][0]
    before = next((old for _, same, old in parts[0] if same == label), "")
    fact = f"label {label} is {printable(folder)!r} here, and {printable(before)!r} before"
    if not before:
        old = next(same for _, same, old in parts[0] if old == folder)
        fact = f"{printable(folder)!r} is label {label} here, and label {old} before"
    return Mixed(fact, offsets[first] if offsets[first] >= 0 else None, keys[first])


_SAMPLES_EACH = 4


def _is_mixed_dataset(part: Sequence[tuple[int, int, str]]) -> bool:
    pairs = {label for _, label, _ in part}
    runs = 1 + sum(first[1] != second[1] for first, second in itertools.pairwise(part))
    return len(pairs) >= 2 and len(part) >= _SAMPLES_EACH * len(pairs) and runs > len(pairs)


def require_one_dataset(shards: Iterable[tuple[str, Mixed | None]]) -> None:
    """DatasetError for a shard (its place and finding) whose labels mean different classes."""
    for place, mixed in shards:
        if mixed is not None:
            raise DatasetError(place, mixed.fact, _TWO_DATASETS, mixed.offset, mixed.key)


_TWO_DATASETS = "these are two datasets: use each separately, or name the classes with `index_shards(…, classes=…)`"


def require_one_meaning(shards: Sequence[tuple[str, Pairs]]) -> None:
    """DatasetError if the folders show that a label is one class in one shard and another in the next.

    Folders count as class names if each shard has one for each label, and either one shard has two of them or the
    shards come from several datasets.
    """
    owns = [(shard, {pair for pair in pairs if pair[0] >= 0}) for shard, pairs in shards]
    owns = [(shard, pairs) for shard, pairs in owns if pairs]
    if any(len(_own_folders(Counter(pairs))) < len(pairs) for _, pairs in owns):
        return
    if all(len(pairs) < 2 for _, pairs in owns) and len({stem_of_shard(shard) for shard, _ in owns}) < 2:
        return
    folders: dict[int, tuple[str, str]] = {}
    labels: dict[str, tuple[str, str]] = {}
    for shard, pairs in owns:
        for label, folder in sorted(pairs):
            _require_same(shard, f"label {label}", folder, folders.setdefault(label, (folder, shard)))
            _require_same(shard, f"{folder!r}", f"label {label}", labels.setdefault(folder, (f"label {label}", shard)))


def _require_same(shard: str, what: str, here: str, before: tuple[str, str]) -> None:
    if here != before[0]:
        fact = f"{what} is {printable(here)!r} here, and {printable(before[0])!r} in {before[1]}"
        raise DatasetError(shard, fact, _TWO_DATASETS)


def require_labels(labels: NDArray[np.int64], offsets: NDArray[np.int64], keys: Sequence[str], place: str) -> None:
    """DatasetError for a sample whose `cls` is not a class number (-2)."""
    wrong = np.flatnonzero(labels < -1)
    if len(wrong):
        row = int(wrong[0])
        at = int(offsets[row]) if offsets[row] >= 0 else None
        raise DatasetError(place, "its cls is not a class number", BAD_LABEL_CURE, at, keys[row])


BAD_LABEL_CURE = "fix it, or leave the sample out with 'shardkit repair'"
