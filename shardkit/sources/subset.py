"""Select rows of a source as a new source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from shardkit.sources.columns import PathColumn, offsets_of
from shardkit.sources.groups import Grouped
from shardkit.sources.left_out import LeftOut
from shardkit.sources.scratch import Number, pieces, read_through, release, scratch
from shardkit.sources.source import Source

Rows = NDArray[np.int64]

_PIECE = 1 << 18
"""Paths that are gathered at once: each takes about 100 bytes of memory, besides the column itself."""


def rows_where(column: NDArray[Any], value: int) -> Rows:
    """The rows of a column that have this value, ascending."""
    rows = scratch(sum(int(np.count_nonzero(piece == value)) for piece in read_through(column)), np.int64)
    first = done = 0
    for piece in read_through(column):
        found = np.flatnonzero(piece == value)
        rows[done : done + len(found)] = found + first
        first, done = first + len(piece), done + len(found)
    return rows


def taken(column: NDArray[Number], rows: Rows) -> NDArray[Number]:
    """The values at `rows` (ascending), read-only."""
    found = scratch(len(rows), column.dtype)
    for start, end in pieces(len(rows)):
        found[start:end] = column[rows[start:end]]
        release(column, rows)
    found.flags.writeable = False
    return found


def paths_at(paths: PathColumn, rows: Rows) -> PathColumn:
    """The column of the paths at `rows` (ascending). No Python object is created for a path."""
    runs = [slice(start, end) for start, end in pieces(len(rows), _PIECE)]
    lengths = (paths.offsets[some + 1] - paths.offsets[some] for some in (rows[run] for run in runs))
    offsets = offsets_of(len(rows), lengths)
    blob = scratch(int(offsets[-1]), np.uint8)
    for run in runs:
        some = rows[run]
        start, end = int(some[0]), int(some[-1]) + 1
        kept = np.zeros(end - start, np.bool_)
        kept[some - start] = True
        span = paths.blob[paths.offsets[start] : paths.offsets[end]]
        blob[offsets[run.start] : offsets[run.stop]] = span[np.repeat(kept, np.diff(paths.offsets[start : end + 1]))]
        release(paths.blob, paths.offsets, rows, blob)
    blob.flags.writeable = False
    return PathColumn(blob, offsets)


def run_of(source: Source, start: int, end: int) -> Source:
    """The rows from `start` up to `end`, with the keys that they have. Only what sizes in a shard depend on: paths,
    sizes, labels, classes and keys."""
    offsets = source.paths.offsets[start : end + 1]
    paths = PathColumn(source.paths.blob[offsets[0] : offsets[-1]], offsets - offsets[0])
    renamed = _renamed_at(source.renamed, np.arange(start, end)) if source.renamed else {}
    return replace(source, paths=paths, sizes=source.sizes[start:end], labels=source.labels[start:end], renamed=renamed)


def source_at(source: Source, rows: Rows, *, left_out: LeftOut | None = None) -> Source:
    """The rows `rows` (ascending) of a source, with their keys unchanged.

    left_out: replaces the source's `left_out` and drops its `incomplete`; None keeps both.
    """
    return replace(
        source,
        paths=paths_at(source.paths, rows),
        sizes=taken(source.sizes, rows),
        labels=taken(source.labels, rows),
        renamed=_renamed_at(source.renamed, rows),
        left_out=source.left_out if left_out is None else left_out,
        elsewhere=None if source.elsewhere is None else source.elsewhere.at(rows),
        inline=None if source.inline is None else source.inline.at(rows),
        incomplete=source.incomplete if left_out is None else (),
        columns=None if source.columns is None else source.columns.take(rows),
    )


def _renamed_at(renamed: Mapping[int, str], rows: Rows) -> dict[int, str]:
    named = np.fromiter(renamed, np.int64, len(renamed))
    places = np.searchsorted(rows, named)
    there = np.flatnonzero(places < len(rows))
    there = there[rows[places[there]] == named[there]]
    return {int(places[number]): renamed[int(named[number])] for number in there}


def grouped_at(
    grouped: Grouped, rows: Rows, incomplete: tuple[tuple[str, str], ...], *, left_out: LeftOut | None = None
) -> Grouped:
    """The samples `rows` (ascending) of several files each, with only their files."""
    members = grouped.rows[rows]
    files, places = np.unique(members, return_inverse=True)
    return replace(
        grouped,
        samples=source_at(grouped.samples, rows, left_out=left_out),
        files=source_at(grouped.files, files, left_out=left_out),
        rows=places.reshape(members.shape).astype(np.int64),
        incomplete=incomplete,
    )
