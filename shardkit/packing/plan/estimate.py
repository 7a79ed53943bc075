"""How large images will be when they are transcoded, for the plan: some of them are tried.

The plan is made before anything is written, and must be the same for any number of workers; so it goes by an estimate
from the sizes of the files as they are and of a seeded sample of them as they become.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from shardkit import rng
from shardkit.images.rewrite.transcode import Transcoding, transcode
from shardkit.sample import IMAGE_FIELDS
from shardkit.sources.groups import Grouped
from shardkit.sources.source import Source
from shardkit.threads import in_threads
from shardkit.units import cores

Sizes = NDArray[np.int64]

SAMPLED_FILES, SAMPLED_BYTES = 256, 64 << 20
"""How many files are tried, or how many bytes of them, but `LEAST_FILES` at least: a second or two on one core."""
LEAST_FILES = 32
BINS = 16


def as_transcoded(
    source: Source, grouped: Grouped | None, wish: Transcoding, *, seed: int
) -> tuple[Source, Grouped | None]:
    """The source, and its files where a sample is several of them, with the sizes that its images will about have."""
    if grouped is None:
        rows = np.arange(len(source))
        return replace(source, sizes=transcoded_sizes(source, rows, wish, seed=seed)), None
    rows = grouped.rows[:, next(n for n, name in enumerate(grouped.fields) if name in IMAGE_FIELDS)]
    sizes = grouped.files.sizes.copy()
    sizes[rows] = transcoded_sizes(grouped.files, rows, wish, seed=seed)
    return source, replace(grouped, files=replace(grouped.files, sizes=sizes))


def transcoded_sizes(source: Source, rows: Sizes, wish: Transcoding, *, seed: int) -> Sizes:
    """About how many bytes these files of the source will have (int64). The same for the same files and seed.

    The mean is rather high: by two standard errors, so that shards seldom go over their limit. Files that can't be read
    or transcoded do not count, since they are met again when they are packed.
    """
    sizes = source.sizes[rows]
    if not len(rows):
        return sizes
    draws = rng.uniform(rng.stream_key("transcode", seed), np.arange(SAMPLED_FILES))
    picked = np.unique((draws * len(rows)).astype(np.int64))
    # over SAMPLED_BYTES, as many as have these bytes in the mean, spread over all of them
    most = max(LEAST_FILES, int(SAMPLED_BYTES / max(1.0, float(sizes[picked].mean()))))
    tried = rows[picked[:: max(1, -(-len(picked) // most))]]
    return expected_sizes(sizes, *_tried(source, tried, wish))


def expected_sizes(sizes: Sizes, before: Sizes, after: Sizes) -> Sizes:
    """The sizes, as those `before` became those `after`: by the means of bins of these, in proportion beyond them."""
    if not len(before):
        return sizes
    order = np.argsort(before, kind="stable")
    bins = np.array_split(order, min(BINS, max(1, len(order) // 4)))
    known = np.array([before[part].mean() for part in bins])
    becomes = np.array([after[part].mean() for part in bins])
    errors = after - _at(before, known, becomes)
    margin = 1 + 2 * float(errors.std()) / (max(1.0, float(after.mean())) * len(errors) ** 0.5)
    result: Sizes = np.ceil(np.maximum(1, margin * _at(sizes, known, becomes))).astype(np.int64)
    return result


def _at(sizes: Sizes, known: NDArray[np.float64], becomes: NDArray[np.float64]) -> NDArray[np.float64]:
    inside = np.interp(sizes, known, becomes)
    beyond = np.where(sizes < known[0], sizes / max(1.0, known[0]), np.maximum(1, sizes / max(1.0, known[-1])))
    result: NDArray[np.float64] = inside * beyond
    return result


def _tried(source: Source, rows: Sizes, wish: Transcoding) -> tuple[Sizes, Sizes]:
    """The sizes of these files as they are and as they become."""

    def sizes_of(data: bytes) -> tuple[int, int]:
        try:
            return len(data), len(transcode(data, wish).data)
        except ValueError:  # a file that packing will name; it is left out of the estimate
            return len(data), -1

    found = list(in_threads(sizes_of, _read(source, rows), cores()))  # few files in memory at a time
    good = np.array([pair for pair in found if pair[1] >= 0], np.int64).reshape(-1, 2)
    return good[:, 0], good[:, 1]


def _read(source: Source, rows: Sizes) -> Iterator[bytes]:
    """The files that can be read. Of an archive that is to be unpacked first, none can yet."""
    origin, sizes = source.origin, source.sizes[rows].tolist()
    if not origin.readable:
        return
    with origin.files(rows).opened(source.paths.take(rows), sizes) as reader:
        for number in range(len(sizes)):
            with contextlib.suppress(OSError, ValueError):
                yield reader.read(number)
