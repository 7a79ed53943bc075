"""Keys of files, and how files that would share a key are renamed.

The key is `key_of_path` of the path as text. `text_of_path` gives every path a distinct text, so two files can share a
key only through a dropped extension or a `.` replaced by `_`: within one folder, or in folders that differ only in
that. No set of all keys is needed to find them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from shardkit.formats.columns import Strings
from shardkit.native import load
from shardkit.sample import key_of_path, text_of_path
from shardkit.sources.columns import PathColumn
from shardkit.sources.tree.names import joined

_SKIPPED = re.compile(r"__[^/]*__(?:$|/)")  # webdataset 0.2 and 1.0 skip such members: `skip_meta` in tariterators.py


def key_of_file(path: bytes) -> str:
    """The key of a file by its path below the root, before any `-2`: valid text that no reader skips.

    A class folder `__x__` becomes `_x__`, since WebDataset treats everything in a top folder `__x__` as metadata.

    >>> key_of_file(b"__background__/a.1.jpg")
    '_background__/a_1'
    """
    key = key_of_path(text_of_path(path))
    return "_" + key.lstrip("_") if key.startswith("__") and _SKIPPED.match(key) else key


def keys_of_files(paths: Strings) -> Strings:
    """`key_of_file` of each path, as UTF-8."""
    native = load("tree")[0]
    if native is None:
        return Strings.of(key_of_file(path).encode() for path in paths)
    data, offsets, others = native.keys(paths.data, paths.offsets)
    return Strings(data, offsets).replaced({number: key_of_file(paths[number]).encode() for number in others})


def folder_changes(folder: bytes) -> bool:
    """Whether the keys of the files in `folder` begin with another text, which a second folder may share."""
    return folder_key(folder) != text_of_path(folder)


def folder_key(folder: bytes) -> str:
    """The common prefix of the keys of the files in `folder`, without the last `/`."""
    return key_of_file(folder + b"/-")[:-2]


def share_a_key(names: Sequence[str]) -> bool:
    """Whether two files of one folder, given by name and each with an extension, have the same key."""
    if not names:
        return False
    text = joined(names)
    ending = text[text.index(".") : text.index("/") + 1]
    if text.count(".") == len(names) == text.count(ending):  # one extension, no other dot: equal names only
        return False
    return len({name.rpartition(".")[0].replace(".", "_") for name in names}) < len(names)


def new_keys(keys: Sequence[str]) -> dict[int, str]:
    """Position -> new key, for each key that occurs earlier: `-2`, `-3` … is added, skipping taken keys.

    Every file's own key counts as taken, so that a file named `a-2` keeps its key.

    >>> new_keys(["a", "a", "a-2"])
    {1: 'a-3'}
    """
    own, taken = set(keys), set[str]()
    numbers: dict[str, int] = {}
    renamed: dict[int, str] = {}
    for position, key in enumerate(keys):
        if key not in taken:
            taken.add(key)
            continue
        number = numbers.get(key, 2)
        while (new := f"{key}-{number}") in own or new in taken:
            number += 1
        numbers[key] = number + 1
        taken.add(new)
        renamed[position] = new
    return renamed


def renamed_rows(
    paths: PathColumn, starts: NDArray[np.int64], shared: NDArray[np.int64], changed: NDArray[np.int64]
) -> dict[int, str]:
    """Row -> new key, for the rows whose own key an earlier row has.

    starts: the first row of each folder with files, ascending. shared, changed: the numbers (indices in `starts`) of
    the folders with `share_a_key` and `folder_changes`.
    """
    ends = np.append(starts[1:], len(paths))
    groups: dict[tuple[int, ...], None] = {(int(folder),): None for folder in shared}
    for group in _same_folders(paths, starts, changed):
        groups[group] = None
        for folder in group:
            groups.pop((folder,), None)
    renamed: dict[int, str] = {}
    for group in groups:
        rows = [row for folder in group for row in range(int(starts[folder]), int(ends[folder]))]
        keys = keys_of_files(paths.at(rows)).texts()
        renamed.update((rows[position], key) for position, key in new_keys(keys).items())
    return dict(sorted(renamed.items()))


def _same_folders(
    paths: PathColumn, starts: NDArray[np.int64], changed: NDArray[np.int64]
) -> Iterator[tuple[int, ...]]:
    """Yield each group of two or more folders with the same `folder_key`, as folder numbers in scan order."""
    groups: dict[str, list[int]] = {_key_at(paths, int(starts[folder])): [] for folder in changed}
    if groups:
        for folder, start in enumerate(starts.tolist()):
            key = _key_at(paths, start)
            if key in groups:
                groups[key].append(folder)
    for group in groups.values():
        if len(group) > 1:
            yield tuple(group)


def _key_at(paths: PathColumn, row: int) -> str:
    return folder_key(paths[row].rpartition(b"/")[0])
