"""A file that an export writes beside the shards, unless a file of somebody else is there."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from shardkit.errors import DestinationError, NotFoundError
from shardkit.tools.export.splits import Splits
from shardkit.tools.settings import ExportKind

GENERATOR = "shardkit"
"""What marks a file as written by an export, so that the next one may replace it."""


@dataclass(frozen=True, slots=True)
class FileKind:
    """A file of a format.

    name: in the folder of the shards. make: its content, from the splits and from the bytes of the file that is there
    already (None: there is none); None if these splits need no such file. ours: whether a file with these bytes may be
    replaced by what `make` makes of it.
    """

    name: str
    make: Callable[[Splits, bytes | None], bytes | None]
    ours: Callable[[bytes], bool]


@dataclass(frozen=True, slots=True)
class Planned:
    """A file that an export writes. changed: whether another one, or none, is there."""

    kind: ExportKind
    name: str
    data: bytes
    changed: bool


def plan_file(kind: ExportKind, file: FileKind, splits: Splits, *, overwrite: bool) -> Planned | None:
    """The file as the export writes it; None if it needs none. DestinationError if somebody else's file is there."""
    try:
        before = splits.folder.read(file.name)
    except NotFoundError:
        before = None
    data = file.make(splits, before)
    if data is None:
        return None
    if before not in (None, data) and not overwrite and not file.ours(before):
        fact = "a file is in the way, which shardkit did not write"
        raise DestinationError(
            splits.folder.place(file.name), fact, "move it elsewhere, or replace it with `overwrite=True`"
        )
    return Planned(kind, file.name, data, data != before)


def says_shardkit(*keys: str) -> Callable[[bytes], bool]:
    """The test whether a JSON file names shardkit at one of these keys."""

    def test(data: bytes) -> bool:
        try:
            found = json.loads(data)
        except (ValueError, RecursionError):
            return False
        return isinstance(found, dict) and any(found.get(key) == GENERATOR for key in keys)

    return test
