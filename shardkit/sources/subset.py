"""Select rows of a source as a new source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from shardkit.sources.columns import PathColumn
from shardkit.sources.groups import Grouped
from shardkit.sources.left_out import LeftOut
from shardkit.sources.source import Source

Rows = NDArray[np.int64]

_PIECE = 1 << 18
"""Paths that are gathered at once: each takes about 100 bytes of memory, besides the column itself."""


def paths_at(paths: PathColumn, rows: Rows) -> PathColumn:
    """The column of the paths at `rows` (ascending). No Python object is created for a path."""
    lengths = np.diff(paths.offsets)
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(lengths[rows], out=offsets[1:])
    blob = np.empty(int(offsets[-1]), np.uint8)
    for first in range(0, len(rows), _PIECE):
        part = rows[first : first + _PIECE]
        start, end = int(part[0]), int(part[-1]) + 1
        kept = np.zeros(end - start, np.bool_)
        kept[part - start] = True
        span = paths.blob[paths.offsets[start] : paths.offsets[end]]
        blob[offsets[first] : offsets[first + len(part)]] = span[np.repeat(kept, lengths[start:end])]
    blob.flags.writeable = offsets.flags.writeable = False
    return PathColumn(blob, offsets)


def source_at(source: Source, rows: Rows, *, left_out: LeftOut | None = None) -> Source:
    """The rows `rows` (ascending) of a source, with their keys unchanged.

    left_out: replaces the source's `left_out` and drops its `incomplete`; None keeps both.
    """
    return replace(
        source,
        paths=paths_at(source.paths, rows),
        sizes=source.sizes[rows],
        labels=source.labels[rows],
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
