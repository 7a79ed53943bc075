"""Group files into samples: files of one folder whose names differ only in the field, such as `a.jpg` and `a.json`."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from shardkit.errors import BadFileError, SourceError, UsageError, printable
from shardkit.sample import IMAGE_FIELDS, fs_text, text_of_path
from shardkit.sources.columns import PathColumn
from shardkit.sources.keys import key_of_file, new_keys
from shardkit.sources.source import Source

_log = logging.getLogger(__name__)


class Grouped(msgspec.Struct, frozen=True, eq=False):
    """Samples of several files each.

    samples: a row for each sample, with the path of the file of field `primary` (the first image field, or the first
    field) and the bytes of all files. files: a row for each file. rows: the files of each sample (int64, samples x
    fields). incomplete: (path, what is missing) of the samples that lack a file.
    """

    samples: Source
    files: Source
    fields: tuple[str, ...]
    primary: int
    rows: NDArray[np.int64]
    incomplete: tuple[tuple[str, str], ...]


def extensions_of(fields: Sequence[str]) -> tuple[str, ...]:
    """The file extensions to scan for, without a dot: the last part of each field. UsageError for an invalid field."""
    for name in fields:
        if not name or name == "cls" or name.startswith(("__", ".")) or "/" in name or not name.isprintable():
            raise UsageError("fields", f"{name!r} can't be a field of files", "name extensions, such as jpg,json,txt")
    if len(set(fields)) < len(fields) or not fields:
        raise UsageError("fields", "a field is named twice, or none is named", "name each extension once")
    found = {name.rpartition(".")[2] for name in fields}
    return tuple(sorted(found | ({"jpeg"} if "jpg" in found else set())))


def group_files(source: Source, fields: Sequence[str], *, skip_bad: bool) -> Grouped:
    """Group the files of a scanned source into samples, in the order of their first files.

    A file belongs to the longest field that its name ends with, in any case (`jpeg` is `jpg`). Raises BadFileError for
    a sample that lacks a field, unless `skip_bad`; SourceError if no sample is left.
    """
    endings = _endings(fields)
    rows: list[list[int]] = []
    keys: list[str] = []
    incomplete: list[tuple[str, str]] = []
    others = 0
    for folder in _folders(source.paths):
        groups: dict[bytes, list[int]] = {}
        for row, path in folder:
            found = next(((stem, place) for ending, place in endings if (stem := _stem(path, ending))), None)
            if found is None:
                others += 1
                continue
            stem, place = found
            members = groups.setdefault(stem, [-1] * len(fields))
            if members[place] >= 0:
                fact = f"two files of one sample have the field {fields[place]!r}"
                raise SourceError(_name(source, path), fact, "rename one of them")
            members[place] = row
        for stem, members in groups.items():
            if missing := [name for name, row in zip(fields, members, strict=True) if row < 0]:
                first = source.paths[next(row for row in members if row >= 0)]
                incomplete.append((text_of_path(first), f"there is no .{' and no .'.join(missing)} beside it"))
                if not skip_bad:
                    cure = 'add it, or skip such samples with `on_error="skip"`'
                    raise BadFileError(_name(source, first), incomplete[-1][1], cure)
                continue
            rows.append(members)
            keys.append(key_of_file(stem + b".x"))
    if others:
        _log.warning("%d files end with none of the fields %s", others, ", ".join(map(printable, fields)))
    if not rows:
        raise SourceError(fs_text(source.root), "no sample has all of the fields", "name other fields with `fields`")
    return _group(source, tuple(fields), np.array(rows, np.int64), keys, tuple(incomplete))


def _endings(fields: Sequence[str]) -> list[tuple[bytes, int]]:
    """(".ext" in lower case, index of the field), longest first."""
    found: Mapping[bytes, int] = {f".{name.lower()}".encode(): place for place, name in enumerate(fields)}
    jpegs = {ending[:-3] + b"jpeg": place for ending, place in found.items() if ending.endswith(b".jpg")}
    return sorted((jpegs | dict(found)).items(), key=lambda item: -len(item[0]))


def _stem(path: bytes, ending: bytes) -> bytes:
    """The path without the ending; b"" if it ends differently, or has nothing before the ending."""
    if path[-len(ending) :].lower() != ending:
        return b""
    stem = path[: -len(ending)]
    return b"" if stem.endswith(b"/") else stem


def _folders(paths: PathColumn) -> Iterator[list[tuple[int, bytes]]]:
    """Yield for each folder the (row, path) of its files."""
    last, held = None, list[tuple[int, bytes]]()
    for row, path in enumerate(paths):
        folder = path.rpartition(b"/")[0]
        if folder != last and held:
            yield held
            held = []
        last = folder
        held.append((row, path))
    if held:
        yield held


def _group(
    source: Source,
    fields: tuple[str, ...],
    rows: NDArray[np.int64],
    keys: list[str],
    incomplete: tuple[tuple[str, str], ...],
) -> Grouped:
    renamed = new_keys(keys)
    primary = next((number for number, name in enumerate(fields) if name in IMAGE_FIELDS), 0)
    first = rows[:, primary]
    paths = PathColumn.of(source.paths.take(first))
    own = {n: key for n, key in enumerate(keys) if n not in renamed and key != key_of_file(source.paths[int(first[n])])}
    samples = replace(
        source, paths=paths, sizes=source.sizes[rows].sum(axis=1), labels=source.labels[first], renamed=own | renamed,
        elsewhere=None, columns=None if source.columns is None else source.columns.take(first),
    )  # fmt: skip
    return Grouped(samples, source, fields, primary, rows, incomplete)


def _name(source: Source, path: bytes) -> str:
    return fs_text(os.path.join(source.root, path))
