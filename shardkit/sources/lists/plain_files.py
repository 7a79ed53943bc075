"""The files that a list names, looked at all at once: the way of nearly every list.

A list with a path that follows further rules, or with a file that can't be packed, is read row by row instead
(`rows.py`), which gives the same result and the messages.
"""

from __future__ import annotations

import os
import re
import stat
from array import array
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple, cast

from shardkit.native import load

_FURTHER_RULES = re.compile(r"/\.|//|/\0|\\")
"""In paths that end with a NUL each: hidden names, `.` and `..`, empty parts, folders, backslashes."""

_ROWS = 4096


class PlainFiles(NamedTuple):
    """Files row for row: absolute paths, paths for the index, sizes in bytes."""

    real: list[str]
    names: list[str]
    sizes: list[int]


def plain_files(values: Sequence[object], root: str, extensions: Collection[str]) -> Iterator[PlainFiles] | None:
    """Look at the files of all rows, some thousands at a time; None if a path follows further rules.

    Stops early, before the last row, where a file can't be packed. extensions: in lower case.
    """
    below = os.path.join(root, "")
    if not all(type(value) is str and value for value in values):
        return None
    texts = cast("Sequence[str]", values)
    real = [text if text[0] == "/" else below + text for text in texts]
    joined = "\0".join([*real, ""])
    if joined.count("\0") > len(real) or _FURTHER_RULES.search(joined) or len(set(real)) < len(real):
        return None
    if not {path.rpartition("/")[2].rpartition(".")[2].lower() for path in real} <= set(extensions):
        return None
    if not all("." in path.rpartition("/")[2] for path in real):  # named like an extension
        return None
    cut = len(below)
    names = [path[cut:] if path.startswith(below) else path[1:] for path in real]
    if len(set(names)) < len(names):
        return None
    return _sized(real, names)


def _sized(real: list[str], names: list[str]) -> Iterator[PlainFiles]:
    for first in range(0, len(real), _ROWS):
        some = slice(first, first + _ROWS)
        sizes = file_sizes(real[some])
        if min(sizes) < 0:
            return
        yield PlainFiles(real[some], names[some], sizes)


def file_sizes(paths: Sequence[str]) -> list[int]:
    """The size of each file in bytes; -1 for what is not a regular file, or can't be looked at."""
    native = load("tree")[0]
    if native is None:
        return [_size(path) for path in paths]
    return array("q", native.sizes(os.fsencode("\0".join([*paths, ""])))).tolist()


def _size(path: str) -> int:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return -1
    return status.st_size if stat.S_ISREG(status.st_mode) else -1
