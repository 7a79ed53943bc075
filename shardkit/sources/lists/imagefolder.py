"""A folder of images with a metadata file, in the layout of Hugging Face's `imagefolder`.

    photos/metadata.csv (or .jsonl, .parquet)      or one for each split: photos/train/metadata.csv …
    photos/0001.png …                              with a column file_name, relative to the metadata file

Source: Hugging Face datasets, "Create an image dataset", section ImageFolder.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from shardkit.errors import SourceError
from shardkit.sample import fs_text
from shardkit.shards.names import split_names_of
from shardkit.sources.options import TableColumns

if TYPE_CHECKING:
    import pyarrow as pa

    from shardkit.sources.lists.labels import Labels
    from shardkit.sources.lists.rows import Listed

_log = logging.getLogger(__name__)

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_COLUMN = "file_name"


def metadata_of(folder: str) -> str | None:
    """The path of the metadata file in a folder, or None. SourceError if there are two."""
    found = [name for name in METADATA if os.path.isfile(os.path.join(folder, name))]
    if len(found) > 1:
        raise SourceError(fs_text(folder), f"it has {found[0]} and {found[1]}", "keep one of them")
    return os.path.join(folder, found[0]) if found else None


def image_folders(root: str) -> dict[str, str] | None:
    """Split ("" for none) -> metadata file of a folder of images; None if the folder has another layout.

    Either the folder itself has a metadata file, or each of its visible folders has the name of a split and a metadata
    file.
    """
    own = metadata_of(root)
    if own is not None:
        return {"": own}
    try:
        with os.scandir(root) as entries:
            folders = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError as exc:
        fact = f"the folder can't be read ({exc.strerror or exc})"
        raise SourceError(fs_text(root), fact, "check the disk and its permissions") from exc
    found = {name: metadata_of(os.path.join(root, name)) for name in split_names_of(folders)}
    if not found or len(found) < len(folders) or not all(found.values()):
        return None
    return {name: path for name, path in found.items() if path is not None}


def open_image_folder(
    path: str, options: TableColumns, extensions: Collection[str], columns: Sequence[str] = ()
) -> Listed:
    """Open a metadata file as a list. Without a label column, the class is the top folder in the path, if any.

    columns: as in `open_list`, whose errors it raises.
    """
    from shardkit.sources.lists.rows import open_list

    named = TableColumns(options.path_column or _COLUMN, options.label_column, options.label_separator, options.root)
    listed = open_list(path, named, columns=columns, labels=_by_folder)
    missing = _count_images(listed.root, extensions) - listed.table.num_rows
    _log.info("%s: taken as the metadata of the images beside it", listed.place)
    if missing > 0:
        _log.warning("%s: left out: images that it does not name: %d", listed.place, missing)
    return listed


def _by_folder(table: pa.Table, paths: str) -> Labels:
    from shardkit.sources.lists.labels import NO_LABELS, Labels

    folders = [path.partition("/") if isinstance(path, str) else ("", "", "") for path in table[paths].to_pylist()]
    if all(name for _, _, name in folders):
        return Labels("class", [folder for folder, _, _ in folders], True)
    _log.info("the metadata has no label column, and not all images are in a class folder: no labels are written")
    return NO_LABELS


def _count_images(root: str, extensions: Collection[str]) -> int:
    count = 0
    for _, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        count += sum(name.rpartition(".")[2].lower() in extensions and not name.startswith(".") for name in names)
    return count
