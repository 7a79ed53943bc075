"""Class numbers and names for shards that came without a manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shardkit.errors import DatasetError, UsageError
from shardkit.manifest import ClassEntry
from shardkit.sample import path_of_text

Pairs = Counter[tuple[int, str]]
"""How many samples have this label (-1: none) and this first directory of the key ("": none)."""


@dataclass(frozen=True, slots=True)
class ClassMap:
    """The classes in label order. `by_folder`: the label for each first directory, where no sample has a `cls`."""

    classes: tuple[ClassEntry, ...]
    by_folder: dict[str, int] | None = None

    def labels(self, labels: NDArray[np.int64], folders: Sequence[str]) -> NDArray[np.int64]:
        """The label of each sample."""
        if self.by_folder is None:
            return labels
        return np.array([self.by_folder.get(folder, -1) for folder in folders], np.int64)


def folder_of(key: str) -> str:
    """The first directory of a key, a backslash in it as it was before the key doubled it; "" for a key without one."""
    folder, slash, _ = key.partition("/")
    if "\\" in folder and slash:
        with suppress(ValueError):  # also UnicodeDecodeError: not of a key that shardkit made, or no text
            return path_of_text(folder).decode()
    return folder if slash else ""


def class_map(pairs: Iterable[tuple[tuple[int, str], int]], names: Sequence[str] | None, *, place: str) -> ClassMap:
    """The classes of the samples that `pairs` counts.

    Labels are those of `cls`; where no sample has one, the first directories of the keys, sorted, are the classes.
    Names are `names` (label order); else the directories, where each label has one of its own; else "0", "1", ….
    Raises UsageError where `names` are too few or do not fit.
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
        raise UsageError("classes", f"{len(names)} names are given, and {place} has the label {size - 1}", "name all")
    folders = _own_folders(counts)
    chosen = list(names) if names is not None else [folders.get(label, str(label)) for label in range(size)]
    if len(set(chosen)) < len(chosen):
        chosen = [str(label) for label in range(size)]
    return ClassMap(tuple(ClassEntry(name, labels[label]) for label, name in enumerate(chosen)))


def text_names(texts: Mapping[int, str], size: int) -> list[str] | None:
    """The names of `size` classes as records have them; None where they have none, or two labels have the same."""
    names = [texts.get(label, str(label)) for label in range(size)]
    return names if texts and len(set(names)) == len(names) else None


def _own_folders(counts: Pairs) -> dict[int, str]:
    """Label -> directory, if each label has one directory and no two have the same; else nothing."""
    pairs = {pair for pair in counts if pair[0] >= 0}
    labels, folders = {label for label, _ in pairs}, {folder for _, folder in pairs}
    return dict(pairs) if len(pairs) == len(labels) == len(folders) and "" not in folders else {}


def _by_folder(counts: Pairs, names: Sequence[str] | None, place: str) -> ClassMap:
    folders: Counter[str] = Counter()
    for (_, folder), count in counts.items():
        folders[folder] += count
    if "" in folders:  # some samples are in no class: there are no labels
        return ClassMap(())
    chosen = list(names) if names is not None else sorted(folders)
    unknown = next((folder for folder in sorted(folders) if folder not in set(chosen)), None)
    if unknown is not None:
        raise UsageError("classes", f"{place} has samples in {unknown!r}, which is not named", "name all directories")
    return ClassMap(
        tuple(ClassEntry(name, folders[name]) for name in chosen), {name: n for n, name in enumerate(chosen)}
    )


def demand_labels(labels: NDArray[np.int64], offsets: NDArray[np.int64], keys: Sequence[str], place: str) -> None:
    """DatasetError for a sample whose `cls` is no class number (-2)."""
    wrong = np.flatnonzero(labels < -1)
    if len(wrong):
        row = int(wrong[0])
        cure = "mend it, or leave the sample out with 'shardkit repair'"
        raise DatasetError(place, "its cls is not a class number", cure, int(offsets[row]), keys[row])
