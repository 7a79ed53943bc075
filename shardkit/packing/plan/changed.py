"""Whether files have changed since they were packed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from shardkit.checksums import crc32c
from shardkit.errors import ShardkitError, SourceError
from shardkit.sample import fs_text, text_of_path
from shardkit.sources.origin import InArchive
from shardkit.sources.source import Source

SAMPLED_FILES = 64
"""The number of files whose bytes are compared with those of an existing dataset."""


def changed_file(
    source: Source, first_rows: NDArray[np.int64], since: int | None, checksums: Iterable[Mapping[str, int]] | None
) -> str | None:
    """A file of a source whose bytes differ from those in a dataset, or None.

    since: when the dataset was finished (ns), None if that is not known. checksums: path -> CRC-32C for the images of
    each shard; None if files can't be compared by checksum. An archive modified after `since` counts as changed, and
    without checksums so does any file. Otherwise the files modified since are compared, and some of the rows
    `first_rows` of the first shard.
    """
    origin = source.origin
    if isinstance(origin, InArchive) or checksums is None:
        newer = (
            path for path in origin.watched(np.arange(len(source))) if since is not None and changed_at(path) > since
        )
        return next((fs_text(path) for path in newer), None)
    sampled = first_rows[:: max(1, -(-len(first_rows) // SAMPLED_FILES))]
    watched = [] if since is None else origin.watched(np.arange(len(source)))
    newer_rows = [row for row, path in enumerate(watched) if since is not None and changed_at(path) > since]
    rows = np.unique(np.concatenate([sampled, np.array(newer_rows, np.int64)]))
    wanted = {text_of_path(path): int(row) for path, row in zip(source.paths.take(rows), rows, strict=True)}
    left = {text_of_path(source.paths[row]) for row in newer_rows}
    for known in checksums:
        shared = sorted(wanted.keys() & known.keys(), key=wanted.__getitem__)
        for text, crc in zip(shared, _checksums_of(source, [wanted[text] for text in shared]), strict=True):
            if crc != known[text]:
                return text
        left -= known.keys()
        wanted = {text: row for text, row in wanted.items() if text in left}
        if not wanted:
            return None
    return min(left, default=None)


def _checksums_of(source: Source, rows: Sequence[int]) -> Iterator[int]:
    numbers = np.array(rows, np.int64)
    sizes = source.sizes[numbers].tolist()
    with source.origin.files(numbers).opened(source.paths.at(numbers), sizes) as reader:
        for number in range(len(sizes)):
            try:
                yield crc32c(reader.read(number))
            except ShardkitError:
                raise
            except (OSError, ValueError) as exc:
                place = fs_text(os.path.join(source.root, source.paths[rows[number]]))
                fact = f"can't be read ({exc.strerror or exc})" if isinstance(exc, OSError) else str(exc)
                raise SourceError(place, fact, "run again when nothing is changing the source") from exc


def changed_at(path: bytes) -> int:
    """When a file's content or location changed last (ns). A file with old times may have been moved in, so its ctime
    counts too; one dated in the future, by a camera or a wrong clock, changed no later than its ctime."""
    status = os.stat(path)
    if status.st_mtime_ns > time.time_ns():
        return status.st_ctime_ns
    return max(status.st_mtime_ns, status.st_ctime_ns)
