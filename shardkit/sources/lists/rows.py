"""A list as a source: a table with a column of paths, one of labels, and others that become the field `json`.

The rows are packed like the files of a tree: with a shuffle, they are first put in scan order, so that a list of a
tree gives the same bytes; without one, they stay in the order of the list.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from shardkit.errors import BadFileError, SourceError, printable
from shardkit.events import Progress, ProgressFn, no_progress
from shardkit.sample import IMAGE_FIELDS, fs_text, text_of_path
from shardkit.sources.columns import PathColumn
from shardkit.sources.left_out import LeftOut
from shardkit.sources.lists.coded import Coded, text_column
from shardkit.sources.lists.files import ListedFiles
from shardkit.sources.lists.in_memory import labels_in
from shardkit.sources.lists.labels import NO_LABELS, Labels, class_map, labels_of, number_labels
from shardkit.sources.lists.plain_files import LookedAt, file_sizes, plain_paths
from shardkit.sources.lists.tables import LABEL_COLUMNS, PATH_COLUMNS, is_json, read_table
from shardkit.sources.lists.typed import typed_tables
from shardkit.sources.options import TableColumns
from shardkit.sources.origin import FilesAnywhere
from shardkit.sources.scratch import pieces
from shardkit.sources.source import Inline, Source

if TYPE_CHECKING:
    import pyarrow as pa

_log = logging.getLogger(__name__)

_TELL_ROWS = 1000
_LOOK_ROWS = 4096
_SHOWN = 20
_JSON_ROWS = 4096
MOST_REFUSED = 1000
"""Bad rows after which a list is not read further."""


class Listed(msgspec.Struct, frozen=True, eq=False):
    """A list that was read, with its columns identified. fields: the columns that become the field `json`. looked: its
    files, if they are looked at already."""

    place: str
    root: str
    table: pa.Table
    paths: str
    labels: Labels
    fields: tuple[str, ...]
    looked: LookedAt | None = None


def open_list(
    path: str,
    options: TableColumns,
    *,
    columns: Sequence[str] = (),
    labels: Callable[[pa.Table, str], Labels] | None = None,
) -> Listed:
    """Read a list and identify its columns.

    columns: those of a text file that are read as text, as written. labels: returns the labels for a table without a
    label column (None: that is an error). Raises SourceError.
    """
    place = fs_text(path)
    wanted = (options.path_column,) if options.path_column else PATH_COLUMNS
    texts = wanted + (() if options.label_separator is None else (options.label_column or "", *LABEL_COLUMNS))
    label_columns = LABEL_COLUMNS if options.label_column is None else (options.label_column,)
    table = read_table(path, text_columns=texts, csv_texts=label_columns, csv_columns=tuple(columns), references=True)
    root = os.path.dirname(os.path.abspath(path)) if options.root is None else os.path.abspath(options.root)
    _require_header(table.column_names, place, root)
    all_text = not path.lower().endswith(".parquet") and not is_json(path)
    return listed_table(table, place, root, options, all_text=all_text, labels=labels)


def listed_table(
    table: pa.Table,
    place: str,
    root: str,
    options: TableColumns,
    *,
    all_text: bool = False,
    labels: Callable[[pa.Table, str], Labels] | None = None,
) -> Listed:
    """Tell the columns of a table apart. all_text: see `labels_of`. Raises SourceError."""
    paths = _column(table, options.path_column, PATH_COLUMNS, place, "paths", "`path_column`")
    if paths is None:
        raise _no_column(table, "paths", "`path_column`", place)
    label = None
    if options.label_column != "":
        label = _column(table, options.label_column, LABEL_COLUMNS, place, "labels", "`label_column`")
    if label is not None:
        found = labels_of(labels_in(table, label), place, label, options.label_separator, all_text=all_text)
    elif options.label_column == "":
        found = NO_LABELS
    elif labels is None:
        raise _no_column(table, "labels", "`label_column`", place, ' (or `label_column=""` for none)')
    else:
        found = labels(table, paths)
    others = tuple(name for name in table.column_names if name not in (paths, label))
    shown = _some(others) or "none"
    _log.info("%s: paths are in the column %s, labels in %s, fields: %s", place, paths, label, shown)
    return Listed(place, root, table, paths, found, others)


def _column(table: pa.Table, named: str | None, usual: Sequence[str], place: str, what: str, option: str) -> str | None:
    """The name of a column: the given one, or the first of the usual names, ignoring case."""
    if named:
        if named not in table.column_names:
            raise _no_column(table, f"{what} named {named!r}", option, place)
        return named
    lower: dict[str, str] = {}
    for name in table.column_names:
        lower.setdefault(name.lower(), name)
    return next((lower[name] for name in usual if name in lower), None)


def _require_header(names: Sequence[str], place: str, root: str) -> None:
    """SourceError if the first row is already a file, not the column names."""
    usual = {*PATH_COLUMNS, *LABEL_COLUMNS}
    for name in names:
        is_file = name.rpartition(".")[2].lower() in IMAGE_FIELDS and "." in name
        if is_file and (os.path.isfile(os.path.join(root, name)) or not usual & {each.lower() for each in names}):
            shown = ", ".join(map(printable, names[:5])) + (" …" if len(names) > 5 else "")
            fact = f"its first row does not have column names ({shown}): the header is missing"
            raise SourceError(place, fact, "add a header row, such as path,label")


def _no_column(table: pa.Table, what: str, option: str, place: str, more: str = "") -> SourceError:
    shown = _some(table.column_names) or "none"
    return SourceError(place, f"it has no column of {what}; its columns are {shown}", f"name one with {option}{more}")


def _some(names: Sequence[str]) -> str:
    """The first few column names, as text."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(printable, names[:_SHOWN])) + more


def scan_lists(
    lists: Mapping[str, Listed],
    *,
    classes: Sequence[str] | None,
    extensions: Collection[str],
    skip_bad: bool,
    in_order: bool,
    progress: ProgressFn = no_progress,
) -> dict[str, Source]:
    """The source of each list (one for each split), all with one class map.

    in_order: keep the lists' order.
    Raises BadFileError for a row with a missing file, a file of an earlier row, or a label that is not a class,
    unless skip_bad; SourceError if no row is left.
    """
    order = class_map(((each.place, each.labels) for each in lists.values()), classes)
    columns = typed_tables(lists)
    found = {}
    for split, each in lists.items():
        found[split] = _Scan(each, order, extensions, skip_bad, columns[split]).source(in_order, progress)
    return found


class _Scan:
    """The scan of one list."""

    def __init__(
        self,
        listed: Listed,
        classes: tuple[str, ...],
        extensions: Collection[str],
        skip_bad: bool,
        columns: pa.Table | None,
    ) -> None:
        self.listed, self.classes, self.skip_bad, self.columns = listed, classes, skip_bad, columns
        self.extensions = frozenset(extension.lower() for extension in extensions)
        self.values, self.wrong = number_labels(listed.labels, classes)
        self.incomplete: list[tuple[str, str]] = []
        self.refused: list[tuple[int, str]] = []
        self.stems: dict[str, dict[str, list[str]]] = {}

    def source(self, in_order: bool, progress: ProgressFn) -> Source:
        """Build the source."""
        listed = self.listed
        files = self._files(progress)
        if not len(files) and not self.incomplete:
            raise SourceError(listed.place, "it has no rows", "name at least one file")
        if not len(files):
            path, reason = self.incomplete[0]
            raise SourceError(
                listed.place, f"none of its rows can be packed (the first: {path}: {reason})", "fix the list"
            )
        labels = self._labels(files)
        if not in_order:
            files, labels = files.in_scan_order(labels)
        inline = self._inline(files, labels)
        source = Source(
            root=os.fsencode(listed.root), classes=self.classes, paths=files.names, sizes=files.sizes, labels=labels,
            renamed=files.renamed(), left_out=LeftOut(),
            elsewhere=None if files.inside and inline is None else FilesAnywhere(files.real),
            inline=inline, incomplete=tuple(self.incomplete),
            columns=None if self.columns is None else self.columns.take(files.rows.tolist()),
        )  # fmt: skip
        self._say_empty(source)
        return source

    def _labels(self, files: ListedFiles) -> NDArray[np.int32]:
        """The class of each file; -1 where labels are no classes."""
        if self.listed.labels.kind != "class":
            return np.full(len(files), -1, np.int32)
        if isinstance(self.values, Coded):
            return np.array(self.values.distinct, np.int32)[self.values.codes[files.rows]]
        return np.array(self.values, np.int32)[files.rows]

    def _files(self, progress: ProgressFn) -> ListedFiles:
        """The files that can be packed, in the order of the list."""
        column = self.listed.table[self.listed.paths]
        found = self._plain_files(column, progress)
        if found is not None:
            return found
        try:
            return self._files_by_row(column.to_pylist(), progress)
        except UnicodeDecodeError as exc:
            fact = f"the path column {self.listed.paths!r} holds bytes that are not UTF-8"
            raise SourceError(self.listed.place, fact, "write its text as UTF-8, or as binary values") from exc

    def _plain_files(self, column: pa.ChunkedArray, progress: ProgressFn) -> ListedFiles | None:
        """As `_files`, if all rows are plain."""
        if self.wrong:
            return None
        looked = self.listed.looked
        if looked is not None and looked.extensions == self.extensions:
            sizes = looked.sizes()
            progress(Progress("scan", len(sizes), len(sizes), int(sizes.sum())))
            return None if sizes.min() < 0 else ListedFiles.of_plain(looked.paths, sizes)
        texts = text_column(column)
        paths = None if texts is None else plain_paths(texts, self.listed.root, self.extensions)
        if paths is None:
            return None
        sizes, size = np.empty(len(paths.real), np.int64), 0
        for start, stop in pieces(len(sizes), _LOOK_ROWS):
            sizes[start:stop] = some = file_sizes(paths.real, start, stop)
            if some.min() < 0:
                return None
            size += int(some.sum())
            progress(Progress("scan", stop, len(sizes), size))
        return ListedFiles.of_plain(paths, sizes)

    def _files_by_row(self, values: Sequence[object], progress: ProgressFn) -> ListedFiles:
        """As `_files`, and with the messages for rows that can't be packed."""
        rows, real, names, sizes = list[int](), list[str](), list[str](), list[int]()
        seen: dict[str, int] = {}
        taken: set[str] = set()
        for row, value in enumerate(values):
            path, size, reason = self._file(row, value, seen)
            if reason is not None:
                self._refuse(row, value, reason)
                continue
            name = _free(_below(path, self.listed.root), taken)
            taken.add(name)
            seen[path] = row
            rows.append(row)
            real.append(path)
            names.append(name)
            sizes.append(size)
            if len(rows) % _TELL_ROWS == 0:
                progress(Progress("scan", len(rows), self.listed.table.num_rows))
        self._raise_refused()
        progress(Progress("scan", len(rows), self.listed.table.num_rows, sum(sizes)))
        return ListedFiles.of(rows, real, names, sizes, self.listed.root)

    def _file(self, row: int, value: object, seen: Mapping[str, int]) -> tuple[str, int, str | None]:
        """(absolute path, size in bytes, why it can't be packed or None) of a row's file."""
        value = os.fsdecode(value) if isinstance(value, bytes) else value
        if not isinstance(value, str) or not value or "\0" in value:
            return "", 0, "it names no file" if not value else "its path is not text"
        path = os.path.normpath(os.path.join(self.listed.root, value))
        if path in seen:
            same = self.values and self.values[row] == self.values[seen[path]]
            other = "" if same or not self.values else ", with another label"
            return path, 0, f"the file is in row {seen[path] + 1} too{other}"
        if row in self.wrong:
            return path, 0, self.wrong[row]
        stem, _, extension = os.path.basename(path).rpartition(".")
        if not stem or extension.lower() not in self.extensions:
            found = self._named(path)
            if len(found) != 1:
                what = f"is the name of {len(found)} files" if found else "has none of the accepted extensions"
                return path, 0, f"{printable(os.path.basename(path))} {what}"
            path = found[0]
            if path in seen:
                return path, 0, f"the file is in row {seen[path] + 1} too"
        try:
            status = os.stat(path)
        except (OSError, ValueError) as exc:
            missing = isinstance(exc, FileNotFoundError)
            return path, 0, f"there is no file {fs_text(path)}" if missing else f"{fs_text(path)} can't be read ({exc})"
        if not stat.S_ISREG(status.st_mode):
            return path, 0, f"{fs_text(path)} is not a file"
        return path, status.st_size, None

    def _named(self, path: str) -> list[str]:
        """The files with this path plus an accepted extension: a list may have names without extensions."""
        folder, name = os.path.split(path)
        if folder not in self.stems:
            stems = self.stems[folder] = {}
            with suppress(OSError):
                for each in sorted(os.listdir(folder)):
                    stem, _, extension = each.rpartition(".")
                    if extension.lower() in self.extensions:
                        stems.setdefault(stem, []).append(os.path.join(folder, each))
        return self.stems[folder].get(name, [])

    def _refuse(self, row: int, value: object, reason: str) -> None:
        if not self.skip_bad:
            self.refused.append((row, reason))
            if len(self.refused) == MOST_REFUSED:
                self._raise_refused()
            return
        name = value if isinstance(value, str) else f"row {row + 1}"
        self.incomplete.append((text_of_path(os.fsencode(name)), reason))

    def _raise_refused(self) -> None:
        """BadFileError for the first bad row, with the numbers of those that follow it."""
        if not self.refused:
            return
        (row, reason), *others = self.refused
        cure = _CURES.get(reason.split()[0], 'fix the row, or skip such rows with `on_error="skip"`')
        if others:
            shown = ", ".join(str(number + 1) for number, _ in others[:_SHOWN]) + (" …" if len(others) > _SHOWN else "")
            count = "at least " if len(self.refused) == MOST_REFUSED else ""
            reason += f" (and {count}{len(others)} more bad rows: {shown})"
        raise BadFileError(f"{self.listed.place}: row {row + 1}", reason, cure)

    def _inline(self, files: ListedFiles, labels: NDArray[np.int32]) -> Inline | None:
        kind: Any = self.listed.labels.kind
        fields: dict[str, PathColumn] = {}
        if kind == "class" and not files.are_in_class_folders(labels, self.classes):
            kind = "listed"
        if kind in ("multi", "number"):
            fields["cls.json"] = PathColumn.of(msgspec.json.encode(self.values[row]) for row in files.rows.tolist())
        if self.listed.fields:
            fields["json"] = _json_column(self.listed.table.select(self.listed.fields), files.rows.tolist())
        return None if kind == "class" and not fields else Inline(fields, kind)

    def _say_empty(self, source: Source) -> None:
        if self.listed.labels.kind != "class":
            return
        empty = [name for name, count in zip(self.classes, source.counts.tolist(), strict=True) if not count]
        if empty:
            shown = ", ".join(map(printable, empty[:5])) + (f" and {len(empty) - 5} more" if len(empty) > 5 else "")
            _log.warning("%s: no image of class %s", self.listed.place, shown)


_CURES = {
    "there": 'fix the path, name the folder that it is relative to with `root`, or use `on_error="skip"`',
}


def _below(path: str, root: str) -> str:
    """The path for the index: relative to the root if the file is below it, otherwise the whole path without the
    leading slash."""
    prefix = os.path.join(root, "")
    return path[len(prefix) :] if path.startswith(prefix) else path.lstrip("/")


def _free(name: str, taken: Collection[str]) -> str:
    """The name, with `-2`, `-3` … before its extension if it is taken."""
    stem, dot, extension = name.rpartition(".")
    number, free = 2, name
    while free in taken:
        free = f"{stem}-{number}{dot}{extension}"
        number += 1
    return free


def _json_column(table: pa.Table, rows: Sequence[int]) -> PathColumn:
    """The rows of a table as JSON objects, keys in the order of its columns."""

    def texts() -> Any:
        for first in range(0, len(rows), _JSON_ROWS):
            for record in table.take(rows[first : first + _JSON_ROWS]).to_pylist():
                yield msgspec.json.encode(record)

    return PathColumn.of(texts())
