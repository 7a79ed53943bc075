"""The samples of a list in memory or a file of arrays, one after another, for `shardkit.write`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from shardkit.errors import UsageError
from shardkit.events import ProgressFn
from shardkit.options.files import require_folder
from shardkit.packing.options import class_names, make_options
from shardkit.packing.settings import Classes, PackSettings
from shardkit.packing.write.file_samples import left_out
from shardkit.sample import field_of, fs_text, text_of_path
from shardkit.sources.arrays.kinds import ARRAYS, ending_of_arrays
from shardkit.sources.lists.in_memory import TableLike, in_memory
from shardkit.sources.open import open_source
from shardkit.sources.options import TableColumns
from shardkit.sources.source import Source

AT_ONCE = 1024
"""The number of rows whose paths are Python objects at a time."""


def scan_in_order(
    given: str | os.PathLike[str] | TableLike,
    columns: TableColumns | None,
    classes: Classes | None,
    progress: ProgressFn,
) -> Source:
    """Scan a list in memory or a file of arrays, in its order.

    Raises like `pack`; UsageError for the path of anything else, and for a file with several splits.
    """
    if isinstance(given, (str, os.PathLike)) and not ending_of_arrays(os.fspath(given)):
        fact = f"{fs_text(given)} is not a file of arrays ({', '.join(ARRAYS)})"
        raise UsageError("samples", fact, "pack trees, archives, and lists in files with shardkit.pack()")
    columns = columns or TableColumns()
    if columns.root is not None:
        require_folder(columns.root, "root")
    options = make_options(PackSettings(shuffle=False))
    found = open_source(in_memory(given), options, columns, progress=progress).scan(class_names(classes), progress)
    if len(found) > 1:
        fact = f"the file has the splits {', '.join(found)}, but write() makes one dataset"
        raise UsageError("samples", fact, "use shardkit.pack() with `shuffle=False`")
    return next(iter(found.values()))


def samples_of(source: Source) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """(path for the index, sample for `ShardWriter.write`) of each row. The bytes of files are not changed.

    Raises BadFileError for a file that can't be read.
    """
    kind, inline = source.label_kind, {} if source.inline is None else source.inline.fields
    for first in range(0, len(source), AT_ONCE):
        rows = np.arange(first, min(first + AT_ONCE, len(source)))
        paths, sizes, keys = source.paths.at(rows), source.sizes[rows].tolist(), source.keys(rows)
        texts = {name: column.take(rows) for name, column in inline.items()}
        labels: list[Any] = source.labels[rows].tolist()
        if kind not in ("class", "listed"):
            labels = [msgspec.json.decode(text) for text in texts.pop("cls.json", [b"null"] * len(rows))]
        with source.origin.files(rows).opened(paths, sizes) as reader:
            for number, path in enumerate(paths):
                try:
                    data = reader.read(number)
                except (OSError, ValueError) as exc:
                    left_out(source.root, path, exc, skip_bad=False)
                field = field_of(text_of_path(path[path.rfind(b".") + 1 :]))
                fields = {name: values[number] for name, values in texts.items()}
                yield path, {"__key__": keys[number], field: data, "cls": labels[number], **fields}
