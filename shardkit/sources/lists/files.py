"""The files of a list that can be packed, as columns, and what follows from their paths and labels."""

from __future__ import annotations

import os
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from shardkit.sources.columns import PathColumn
from shardkit.sources.keys import keys_of_files, new_keys
from shardkit.sources.lists.coded import SECRET, numbered
from shardkit.sources.lists.plain_files import PlainPaths, extension


class ListedFiles(msgspec.Struct, frozen=True, eq=False):
    """Files: their rows in the list, absolute paths, paths for the index, and sizes in bytes. inside: whether all are
    below the root of the list, at their paths for the index."""

    rows: NDArray[np.int64]
    real: PathColumn
    names: PathColumn
    sizes: NDArray[np.int64]
    inside: bool

    @classmethod
    def of_plain(cls, paths: PlainPaths, sizes: NDArray[np.int64]) -> ListedFiles:
        """The files of all rows."""
        return cls(np.arange(len(sizes)), paths.real, paths.names, sizes, paths.inside)

    @classmethod
    def of(
        cls, rows: Sequence[int], real: Sequence[str], names: Sequence[str], sizes: Sequence[int], root: str
    ) -> ListedFiles:
        """The files of some rows. root: of the list."""
        below = os.path.join(root, "")
        inside = all(path == below + name for path, name in zip(real, names, strict=True))
        paths, for_index = (PathColumn.of(map(os.fsencode, texts)) for texts in (real, names))
        return cls(np.array(rows, np.int64), paths, for_index, np.array(sizes, np.int64), inside)

    def __len__(self) -> int:
        return len(self.rows)

    def in_scan_order(self, labels: NDArray[np.int32]) -> tuple[ListedFiles, NDArray[np.int32]]:
        """The files and their labels in the order of a scan: by class, then by folder, then by name."""
        order = _scan_order(labels, self.names)
        if bool((np.diff(order) > 0).all()):
            return self, labels
        real, names = (PathColumn.of_strings(paths.at(order)) for paths in (self.real, self.names))
        return ListedFiles(self.rows[order], real, names, self.sizes[order], self.inside), labels[order]

    def renamed(self) -> dict[int, str]:
        """Position -> new key, for each file whose key an earlier one has."""
        keys, native = keys_of_files(self.names.at(np.arange(len(self)))), extension()
        if native is not None and native.are_distinct(keys.data, keys.offsets, SECRET):
            return {}
        return new_keys(keys.texts())

    def are_in_class_folders(self, labels: NDArray[np.int32], classes: Sequence[str]) -> bool:
        """Whether the top folder of each path for the index is the class of the file."""
        codes, firsts = numbered(self.names, b"/")
        numbers = {os.fsencode(name): number for number, name in enumerate(classes)}
        tops = [numbers.get(self.names[row].partition(b"/")[0], -1) for row in firsts]
        return bool((np.array(tops, np.int32)[codes] == labels).all())


def _scan_order(labels: NDArray[np.int32], names: PathColumn) -> NDArray[np.int64]:
    native = extension()
    if native is not None:
        return np.frombuffer(native.order(np.ascontiguousarray(labels), names.blob, names.offsets), np.int64)
    keys = [(label, *name.rpartition(b"/")[::2]) for label, name in zip(labels.tolist(), names, strict=True)]
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), np.int64)
