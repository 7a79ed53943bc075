"""The `Source`: a tree of class folders, scanned into columns."""

from __future__ import annotations

import logging
import os
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from shardkit.errors import SourceError, UsageError, printable
from shardkit.events import Progress, ProgressFn, no_progress
from shardkit.formats.columns import Strings
from shardkit.sample import DEFAULT_EXTENSIONS, fs_text, text_of_path
from shardkit.shards.columns.types import type_text
from shardkit.shards.manifest import LabelKind
from shardkit.sources.columns import PathColumn, PathColumnBuilder
from shardkit.sources.keys import folder_changes, key_of_file, keys_of_files, renamed_rows, share_a_key
from shardkit.sources.left_out import LeftOut, LeftOutCounter
from shardkit.sources.origin import FilesBelowRoot, Origin
from shardkit.sources.scratch import Growing, read_through, release, scratch
from shardkit.sources.tree.split_folders import find_splits, inside_split
from shardkit.sources.tree.walk import ClassWalk, Folder, Walk, check_root
from shardkit.sources.tree.walk_ahead import listed_ahead

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["LeftOut", "PathColumn", "Source", "find_splits", "scan_tree", "scan_walks", "split_walks"]

StrPath = str | bytes | os.PathLike[str]

OTHER_LABELS = (
    "put the images of each class into a folder with its name; or pack a list of the files with their labels (CSV, "
    "Parquet …), or the folder with `label_from` (classes in the file names) or with `no_labels=True`"
)
"""The ways to give labels to images that are not in class folders."""

_log = logging.getLogger(__name__)
_PROGRESS_FILES = 1000  # report after a folder, but not after every folder in a tree of small ones


class Inline(msgspec.Struct, frozen=True, eq=False):
    """Sample fields that are not in files: field -> the bytes of each row.

    labels: "class" if each sample has a class number, "listed" if that is not its folder's; "multi" if the field
    `cls.json` has a list of class numbers, "number" if it has a number or a list of numbers, "none" if samples have no
    label: for these three, `Source.labels` is -1.
    """

    fields: Mapping[str, PathColumn]
    labels: LabelKind = "class"

    def at(self, rows: NDArray[np.int64]) -> Inline:
        """The same fields for some rows."""
        return Inline({name: PathColumn.of(column.take(rows)) for name, column in self.fields.items()}, self.labels)


class Source(msgspec.Struct, frozen=True, eq=False):
    """The files of one split, a row each, in scan order: by class, then Keras' order.

    root: the folder that `paths` are relative to. classes: names in label order, valid text. paths: as in the file
    system, parts joined by `/`. sizes: bytes (int64). labels: indices in `classes` (int32). renamed: row -> key, for
    files whose own key belongs to an earlier row. left_out: what was left out, and why.
    elsewhere: where the files are, if not below `root` as files. inline: fields that are not in files.
    incomplete: (path, why) of bad files and samples that were left out. columns: further columns for the index, row for
    row, as an Arrow table of the types in shards/columns/types.py.
    """

    root: bytes
    classes: tuple[str, ...]
    paths: PathColumn
    sizes: NDArray[np.int64]
    labels: NDArray[np.int32]
    renamed: Mapping[int, str]
    left_out: LeftOut
    elsewhere: Origin | None = None
    inline: Inline | None = None
    incomplete: tuple[tuple[str, str], ...] = ()
    columns: pa.Table | None = None

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def origin(self) -> Origin:
        """Where the files are, row for row."""
        return FilesBelowRoot(self.root, self.paths) if self.elsewhere is None else self.elsewhere

    @property
    def label_kind(self) -> LabelKind:
        """The kind of labels; see `Inline`."""
        return "class" if self.inline is None else self.inline.labels

    @property
    def label_fields(self) -> set[str]:
        """The label's field, which every sample has; empty if samples have no label."""
        return {"class": {"cls"}, "listed": {"cls"}, "none": set[str]()}.get(self.label_kind, {"cls.json"})

    @property
    def counts(self) -> NDArray[np.int64]:
        """The number of files in each class, in label order; labels of -1 are ignored."""
        found = np.zeros(len(self.classes) + 1, np.int64)
        for labels in read_through(self.labels):
            found += np.bincount(labels + 1, minlength=len(found))
        return found[1:]

    @property
    def column_types(self) -> dict[str, str]:
        """The further columns, with their types."""
        named = {} if self.columns is None else {field.name: type_text(field.type) for field in self.columns.schema}
        return {name: text for name, text in named.items() if text is not None}

    @property
    def nbytes(self) -> int:
        """The size of the columns in memory, in bytes."""
        return self.paths.nbytes + self.sizes.nbytes + self.labels.nbytes

    def key(self, row: int) -> str:
        """The key of a row, unique in the source."""
        return self.renamed.get(row) or key_of_file(self.paths[row])

    def keys_at(self, rows: Sequence[int] | NDArray[np.integer], paths: Strings | None = None) -> Strings:
        """The keys of some rows as UTF-8, in the order of `rows`. paths: theirs, if they were taken."""
        own = keys_of_files(self.paths.at(rows) if paths is None else paths)
        renamed = self.renamed
        if not renamed:
            return own
        places = ((place, int(row)) for place, row in enumerate(rows))
        return own.replaced({place: renamed[row].encode() for place, row in places if row in renamed})

    def keys(self, rows: Sequence[int] | NDArray[np.integer]) -> list[str]:
        """As `keys_at`, as texts."""
        return self.keys_at(rows).texts()


def scan_tree(
    root: StrPath,
    *,
    classes: Sequence[str] | None = None,
    extensions: Collection[str] = DEFAULT_EXTENSIONS,
    progress: ProgressFn = no_progress,
) -> Source:
    """Scan the files of a tree of class folders.

    Each visible folder directly below `root` is a class with the folder's name (invalid UTF-8 bytes as `\\xNN`), and
    the sorted names are the label order, as in Keras and torchvision. `classes` sets another order: then a folder
    that it does not name is an error (its files would be lost silently), and a name without a folder is a class
    with no files, which is logged. So a manifest's class map fits a smaller tree, and a misspelt name is found.

    Files are chosen by their extension (any case, without the dot), at any depth. Links are followed. Hidden entries,
    system files (Thumbs.db, __MACOSX …), other extensions, files outside class folders, broken and looping links,
    and special files are left out and counted. Empty files stay: the image check reports them.

    Raises SourceError if `root` is not a folder, is unreadable, has no class folders or images, or has a class that
    `classes` lacks; UsageError for invalid `classes` or `extensions`.
    """
    place = os.fsdecode(root)
    check_root(place)
    return scan_walk(Walk(place, extensions, LeftOutCounter()), classes=classes, progress=progress)


def scan_walk(walk: ClassWalk, *, classes: Sequence[str] | None, progress: ProgressFn = no_progress) -> Source:
    """As `scan_tree`, for anything that can be walked."""
    folders = _class_folders(walk)
    return _scan(walk, folders, _label_order(walk.root, folders, classes), progress)


def scan_unlabelled(walk: ClassWalk, *, progress: ProgressFn = no_progress) -> Source:
    """Scan all files below the root of a tree, in any folder or none, by path. No sample has a label."""
    columns = _Columns()
    with listed_ahead(walk, [""]) as ahead:
        columns.fill(ahead.folders(""), progress)
    left_out = walk.left_out.result()
    if not len(columns.paths):
        held = "; ".join(left_out.lines()) or "it is empty"
        raise SourceError(
            fs_text(walk.root), f"it contains no image ({held})", "name other extensions, or another folder"
        )
    progress(Progress("scan", len(columns.paths), 0, columns.bytes))
    source = _source(walk.root, ("",), columns, [len(columns.paths)], left_out)
    labels = scratch(len(source), np.int32)
    labels.fill(-1)
    return replace(source, classes=(), labels=labels, inline=Inline({}, "none"))


def split_walks(
    root: StrPath, splits: Sequence[str], *, extensions: Collection[str] = DEFAULT_EXTENSIONS
) -> dict[str, Walk]:
    """A walk of each split folder of a tree of splits. What is in none of them is logged. Raises as `check_root`."""
    if isinstance(splits, str) or not splits:
        raise UsageError("splits", f"a list of folder names is expected, not {splits!r}", "name at least one split")
    top, walks = os.fsdecode(root), {}
    check_root(top)
    say_what_is_in_no_split(Walk(top, extensions, LeftOutCounter()), splits)
    for split in splits:
        place = os.path.join(top, split)
        check_root(place)
        walks[split] = Walk(place, extensions, LeftOutCounter())
    return walks


def scan_walks(
    walks: Mapping[str, ClassWalk], *, classes: Sequence[str] | None = None, progress: ProgressFn = no_progress
) -> dict[str, Source]:
    """Scan the splits of a tree (split -> its walk), all with one class map: the sorted class names of all splits.

    `classes` and the errors are as in `scan_tree`. A class that one split lacks has no files there, which is logged.
    A split without images is an error. Progress covers all splits together.
    """
    folders = {split: _class_folders(walk) for split, walk in walks.items()}
    for split, walk in walks.items():
        if list(folders[split].values()) == [os.path.basename(split)]:
            fact = "its only folder has its own name, and would be its only class"
            inside = fs_text(os.path.join(walk.root, split))
            raise SourceError(fs_text(walk.root), fact, f"move the class folders up, or pack {inside} by itself")
    together = {name for each in folders.values() for name in each}
    sources: dict[str, Source] = {}
    for split, walk in walks.items():
        order = _label_order(walk.root, folders[split], sorted(together) if classes is None else classes)
        done = sum(map(len, sources.values()))
        size = sum(int(source.sizes.sum()) for source in sources.values())
        sources[split] = _scan(walk, folders[split], order, inside_split(progress, done, size))
    return sources


def say_what_is_in_no_split(walk: ClassWalk, splits: Collection[str]) -> None:
    """Log what is outside the splits, and so in no split's `left_out`. walk: of the folder with the splits."""
    root = walk.root
    if others := [name for name in walk.class_folders() if name not in splits]:
        _log.warning("%s: left out: folders that are not splits: %s", fs_text(root), some(others))
    for line in walk.left_out.result().lines():
        _log.info("%s: left out, outside the splits: %s", fs_text(root), line)


def _class_folders(walk: ClassWalk) -> dict[str, str]:
    """Class name -> folder. SourceError if there is none."""
    place, names = fs_text(walk.root), walk.class_folders()
    if not names:
        held = "; ".join(walk.left_out.result().lines())
        fact = f"there is no class folder in it ({held})" if held else "the folder is empty"
        raise SourceError(place, fact, OTHER_LABELS)
    folders = {class_name(os.fsencode(name)): name for name in names}
    if len(folders) < len(names):
        raise SourceError(place, "two of its folders have the same class name", "rename one of them")
    return folders


def class_name(folder: bytes) -> str:
    r"""The name of the class in `folder`: its name as text, with `\xNN` for bytes that are not valid UTF-8."""
    try:
        return folder.decode()
    except UnicodeDecodeError:
        return text_of_path(folder)


def _label_order(root: str, folders: Mapping[str, str], classes: Sequence[str] | None) -> tuple[str, ...]:
    """The classes in label order. SourceError if a folder is not one of them."""
    if classes is None:
        return tuple(sorted(folders))
    if isinstance(classes, str) or not classes:
        raise UsageError("classes", f"a list of names is expected, not {classes!r}", "name at least one class")
    order = tuple(map(_given_name, classes))
    if twice := [name for name, times in Counter(order).items() if times > 1]:
        raise UsageError("classes", f"named more than once: {some(twice)}", "name each class once")
    known = set(order)
    if unknown := [name for name in folders if name not in known]:
        fact = f"it has the class folders {some(unknown)}, which `classes` does not name"
        raise SourceError(fs_text(root), fact, "add the name to the classes, or move the folder out of the source")
    return order


def _given_name(name: str) -> str:
    try:
        return class_name(name.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError as exc:
        raise UsageError("classes", f"{name!a} can't be the name of a folder", "fix the name") from exc


def some(names: Sequence[str]) -> str:
    """The first few of some names, as text."""
    shown = ", ".join(printable(name) for name in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"


class _Columns:
    """The columns that `_scan` fills folder by folder."""

    def __init__(self) -> None:
        self.paths = PathColumnBuilder()
        self.sizes = Growing("q")
        self.bytes = self.told = 0
        self.starts = array("q")  # the first row of each folder with files
        self.shared = array("q")  # the numbers of the folders whose files share keys
        self.changed = array("q")  # the numbers of the folders whose name is changed in the keys

    def add(self, folder: Folder) -> None:
        """Add the files of a folder, which must have at least one."""
        number = len(self.starts)
        self.starts.append(len(self.paths))
        if share_a_key(folder.names):
            self.shared.append(number)
        if folder_changes(os.fsencode(folder.path)):
            self.changed.append(number)
        self.paths.extend(folder.path + "/" if folder.path else "", folder.names)
        self.sizes.extend(folder.sizes)
        self.bytes += sum(folder.sizes)

    def fill(self, folders: Iterable[Folder], progress: ProgressFn) -> None:
        """Add the files of some folders."""
        for folder in folders:
            if folder.names:
                self.add(folder)
            if len(self.paths) >= self.told + _PROGRESS_FILES:
                self.told = len(self.paths)
                progress(Progress("scan", self.told, 0, self.bytes))


def _scan(walk: ClassWalk, folders: Mapping[str, str], classes: tuple[str, ...], progress: ProgressFn) -> Source:
    columns, counts = _Columns(), []
    with listed_ahead(walk, [folders[name] for name in classes if name in folders]) as ahead:
        for name in classes:
            before = len(columns.paths)
            if name in folders:
                columns.fill(ahead.folders(folders[name]), progress)
            counts.append(len(columns.paths) - before)
    left_out = walk.left_out.result()
    _check_counts(walk.root, classes, counts, left_out)
    progress(Progress("scan", len(columns.paths), 0, columns.bytes))
    return _source(walk.root, classes, columns, counts, left_out)


def _check_counts(root: str, classes: tuple[str, ...], counts: list[int], left_out: LeftOut) -> None:
    place = fs_text(root)
    if not any(counts):
        held = "; ".join(left_out.lines()) or "they are empty"
        raise SourceError(
            place, f"its class folders contain no image ({held})", "name other extensions, or another folder"
        )
    if empty := [name for name, count in zip(classes, counts, strict=True) if not count]:
        _log.warning("%s: no image of class %s", place, some(empty))


def _source(root: str, classes: tuple[str, ...], columns: _Columns, counts: list[int], left_out: LeftOut) -> Source:
    paths = columns.paths.build()
    sizes, labels = columns.sizes.build(), scratch(len(paths), np.int32)
    first = 0
    for label, count in enumerate(counts):
        labels[first : first + count] = label
        first += count
    labels.flags.writeable = False
    release(paths.blob, paths.offsets, sizes, labels)
    starts, shared, changed = (
        np.frombuffer(numbers, dtype=np.int64) for numbers in (columns.starts, columns.shared, columns.changed)
    )
    renamed = renamed_rows(paths, starts, shared, changed)
    return Source(os.fsencode(root), classes, paths, sizes, labels, renamed, left_out)
