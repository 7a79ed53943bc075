"""The files that a list names, looked at all at once: the way of nearly every list.

A list with a path that follows further rules, or with a file that can't be packed, is read row by row instead
(`rows.py`), which gives the same result and the messages.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Collection
from concurrent.futures import Future
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shardkit.formats.columns import Strings
from shardkit.native import load
from shardkit.sources.columns import PathColumn
from shardkit.sources.lists.coded import SECRET
from shardkit.sources.tree.native import joined_extensions
from shardkit.system import POSIX

_FURTHER_RULES = re.compile(r"/\.|//|/\0|\\")
"""In paths that end with a NUL each: hidden names, `.` and `..`, empty parts, folders, backslashes."""


class PlainPaths(NamedTuple):
    """Files row for row: absolute paths, and paths for the index. inside: whether all are below the root."""

    real: PathColumn
    names: PathColumn
    inside: bool


class LookedAt(NamedTuple):
    """Files of a list that are looked at before the scan. extensions: those that they have. coming: their sizes, as of
    `file_sizes`. images: what also reads them, or None."""

    paths: PlainPaths
    extensions: frozenset[str]
    coming: Future[NDArray[np.int64]]
    images: Any

    def sizes(self) -> NDArray[np.int64]:
        """The sizes, which come first from now on."""
        if self.images is not None:
            self.images.hurry()
        return self.coming.result()


def extension() -> Any:
    """The C extension that looks at files, or None if it was not built, or this system lacks what it needs."""
    return load("lists")[0] if POSIX and sys.getfilesystemencoding() == "utf-8" else None


def plain_paths(texts: PathColumn, root: str, extensions: Collection[str]) -> PlainPaths | None:
    """The files that some texts name; None if a path follows further rules, or two are the same.

    extensions: in lower case.
    """
    native = extension()
    if native is None:
        return _plain_paths(texts, root, extensions)
    below = os.fsencode(os.path.join(root, ""))
    found = native.paths(texts.blob, texts.offsets, below, joined_extensions(extensions), SECRET)
    if found is None:
        return None
    real, names = (PathColumn.of_strings(Strings(*found[at : at + 2])) for at in (0, 2))
    return PlainPaths(real, names, found[4])


def _plain_paths(column: PathColumn, root: str, extensions: Collection[str]) -> PlainPaths | None:
    """As `plain_paths`, in Python."""
    try:
        texts = [_without_dot(text.decode()) for text in column]
    except UnicodeDecodeError:
        return None
    from_top = [text if text[:1] == "/" else f"/{text}" for text in texts]
    joined = "\0".join([*from_top, ""])
    if joined.count("\0") > len(texts) or _FURTHER_RULES.search(joined):
        return None
    files = [path.rpartition("/")[2].rpartition(".") for path in from_top]
    if not all(dot and extension.lower() in extensions for _, dot, extension in files):
        return None
    below = os.path.join(root, "")
    real = [text if text[0] == "/" else below + text for text in texts]
    inside = [path.startswith(below) for path in real]
    names = [path[len(below) :] if is_in else path[1:] for path, is_in in zip(real, inside, strict=True)]
    if len(set(names)) < len(names):
        return None
    return PlainPaths(PathColumn.of(map(os.fsencode, real)), PathColumn.of(map(os.fsencode, names)), all(inside))


def _without_dot(text: str) -> str:
    return text[2:] if text[:2] == "./" and text[2:3] not in ("", "/") else text


def file_sizes(paths: PathColumn, start: int, stop: int) -> NDArray[np.int64]:
    """The sizes of the files from `start` up to `stop` in bytes; -1 for what is not a regular file, or can't be looked
    at."""
    native = extension()
    if native is None:
        return np.array([_size(path) for path in paths.take(range(start, stop))], np.int64)
    return np.frombuffer(native.sizes(paths.blob, paths.offsets, start, stop), np.int64)


def _size(path: bytes) -> int:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return -1
    return status.st_size if stat.S_ISREG(status.st_mode) else -1
