"""Estimate for the plan how large images become when transcoded, by transcoding some of them.

The plan is made before anything is written and must be the same for any number of workers. So it uses an estimate, from
the sizes of all files and the transcoded sizes of a seeded sample of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
from msgspec.structs import replace
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
"""The number of files to try, or of their bytes, but at least `LEAST_FILES` files: a second or two on one core."""
LEAST_FILES = 32
BINS = 16


def as_transcoded(
    source: Source, grouped: Grouped | None, wish: Transcoding, *, seed: int
) -> tuple[Source, Grouped | None]:
    """The source, and its files if a sample consists of several, with the approximate sizes its images will have."""
    if grouped is None:
        rows = np.arange(len(source))
        return replace(source, sizes=transcoded_sizes(source, rows, wish, seed=seed)), None
    rows = grouped.rows[:, next(n for n, name in enumerate(grouped.fields) if name in IMAGE_FIELDS)]
    sizes = grouped.files.sizes.copy()
    sizes[rows] = transcoded_sizes(grouped.files, rows, wish, seed=seed)
    return source, replace(grouped, files=replace(grouped.files, sizes=sizes))


def transcoded_sizes(source: Source, rows: Sizes, wish: Transcoding, *, seed: int) -> Sizes:
    """The approximate bytes of these files when transcoded (int64). Equal for equal files and seeds.

    The mean is too high by two standard errors on purpose, so that shards rarely exceed their limit. Files that can't
    be read or transcoded do not count; packing reports them.
    """
    sizes = source.sizes[rows]
    if not len(rows):
        return sizes
    draws = rng.uniform(rng.stream_key("transcode", seed), np.arange(SAMPLED_FILES))
    picked = np.unique((draws * len(rows)).astype(np.int64))
    # above SAMPLED_BYTES: as many as have that many bytes on average, spread over all files
    most = max(LEAST_FILES, int(SAMPLED_BYTES / max(1.0, float(sizes[picked].mean()))))
    tried = rows[picked[:: max(1, -(-len(picked) // most))]]
    return expected_sizes(sizes, *_tried(source, tried, wish))


def expected_sizes(sizes: Sizes, before: Sizes, after: Sizes) -> Sizes:
    """The expected sizes, given that `before` became `after`: by the means of bins, in proportion beyond them."""
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
    """The sizes of these files before and after transcoding."""

    def sizes_of(data: bytes) -> tuple[int, int]:
        try:
            return len(data), len(transcode(data, wish).data)
        except ValueError:  # packing will report this file; it is left out of the estimate
            return len(data), -1

    found = list(in_threads(sizes_of, _read(source, rows), cores()))  # few files are in memory at a time
    good = np.array([pair for pair in found if pair[1] >= 0], np.int64).reshape(-1, 2)
    return good[:, 0], good[:, 1]


def _read(source: Source, rows: Sizes) -> Iterator[bytes]:
    """The files that can be read: none yet if an archive has to be unpacked first."""
    origin, sizes = source.origin, source.sizes[rows].tolist()
    if not origin.readable:
        return
    with origin.files(rows).opened(source.paths.at(rows), sizes) as reader:
        for number in range(len(sizes)):
            with contextlib.suppress(OSError, ValueError):
                yield reader.read(number)
