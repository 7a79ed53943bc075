"""Near-duplicates that stay in one split: the images of a source are read and compared before it is split.

Two rows belong together if their files are equal, or if their images look alike by the rule that `report` has too
(images/quality/duplicates.py). The rule looks for near-duplicates of the whole in another way than for those between
two of its parts: of equal hashes, one image stands for the others, and of very many candidates only the nearest are
compared. So what it finds between the splits is joined as well, until it finds nothing there.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import permutations

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from shardkit.checksums import crc32c
from shardkit.errors import printable
from shardkit.events import Progress, ProgressFn
from shardkit.images.quality.duplicates import Looks, candidates_between, candidates_within, joined, look_alike
from shardkit.images.quality.near import Pairs
from shardkit.images.quality.quality import GRID, grid_of, quality
from shardkit.sample import IMAGE_FIELDS, text_of_path
from shardkit.sources.groups import Grouped
from shardkit.sources.source import Source
from shardkit.sources.split import Splitting, parts_of
from shardkit.threads import in_threads
from shardkit.units import cores

log = logging.getLogger(__name__)

Rows = NDArray[np.int64]

_CHUNK = 256
"""Files that a thread reads at a time."""

_SHOWN = 5


def near_duplicates(found: Source | Grouped, splitting: Splitting, progress: ProgressFn) -> Pairs:
    """Pairs of rows (of samples, if they consist of several files) that stay in one split, shape (n, 2).

    Of a sample with several images, the first is compared. An image that can't be read or decoded looks like no other;
    such are logged.
    """
    if isinstance(found, Grouped):
        image = next(n for n, name in enumerate(found.fields) if name.rpartition(".")[2] in IMAGE_FIELDS)
        samples, files, rows = found.samples, found.files, found.rows[:, image]
    else:
        samples, files, rows = found, found, np.arange(len(found))
    with _readable(files) as readable:
        images = _Images(readable, rows, progress)
        looks = images.looks()
        compared = _Compared(looks, images.grids, progress)
        pairs = np.concatenate([_equal(looks), compared.alike(candidates_within(looks).pairs)])
        while len(more := compared.alike(_crossing(looks, parts_of(samples, splitting, pairs)))):
            pairs = np.concatenate([pairs, more])
    groups = joined(pairs)
    text = "near-duplicates: %d images look alike in %d groups, each of which stays in one split"
    log.info(text, sum(map(len, groups)), len(groups))
    return pairs


@contextmanager
def _readable(files: Source) -> Iterator[Source]:
    """The files, of which those of an archive without random access are unpacked into a temporary folder."""
    if files.origin.readable:
        yield files
        return
    with tempfile.TemporaryDirectory(prefix="shardkit-", ignore_cleanup_errors=True) as folder:
        yield replace(files, elsewhere=files.origin.prepared(folder))


class _Images:
    """The images of some rows of a source, which are numbered from 0 on."""

    def __init__(self, files: Source, rows: Rows, progress: ProgressFn) -> None:
        self.files, self.rows, self.progress = files, rows, progress

    def looks(self) -> Looks:
        """What they look like."""
        count = len(self.rows)
        found = Looks(
            np.zeros(count, np.uint64), np.zeros(count, np.uint64),
            np.full(count, np.nan, np.float32), np.full(count, np.nan, np.float32),
        )  # fmt: skip

        def look(number: int, content: bytes) -> None:
            found.prints[number] = (len(content) & 0xFFFFFFFF) << 32 | crc32c(content)
            found.hashes[number], found.brightness[number], _, found.entropy[number] = quality(content)

        self._each(np.arange(count), look)
        bad = np.flatnonzero(np.isnan(found.entropy))
        if len(bad):
            paths = self.files.paths.take(self.rows[bad[:_SHOWN]])
            shown = ", ".join(printable(text_of_path(path)) for path in paths) + (" …" if len(bad) > _SHOWN else "")
            log.warning("images that can't be decoded, and so look like no other: %d (%s)", len(bad), shown)
        return found

    def grids(self, numbers: Rows) -> NDArray[np.uint16]:
        """Their grids; see `Grids`."""
        found = np.zeros((len(numbers), GRID, GRID), np.uint16)

        def look(number: int, content: bytes) -> None:
            found[number] = grid_of(content)

        self._each(numbers, look)
        return found

    def _each(self, numbers: Rows, look: Callable[[int, bytes], None]) -> None:
        """Call `look(n, content)` for the n-th of these images, if it can be read. ValueErrors are ignored."""

        def read(first: int) -> int:
            rows = self.rows[numbers[first : first + _CHUNK]]
            files = self.files.origin.files(rows)
            with files.opened(self.files.paths.at(rows), self.files.sizes[rows].tolist()) as reader:
                for number in range(len(rows)):
                    try:
                        look(first + number, reader.read(number))
                    except (OSError, ValueError):  # packing reports it
                        continue
            return first + len(rows)

        for done in in_threads(read, range(0, len(numbers), _CHUNK), cores()):
            self.progress(Progress("look", done, len(numbers)))


class _Compared:
    """Which pairs of images look alike; each is compared once."""

    def __init__(self, looks: Looks, grids: Callable[[Rows], NDArray[np.uint16]], progress: ProgressFn) -> None:
        self.looks, self.grids, self.progress = looks, grids, progress
        self.done = np.zeros(0, np.int64)

    def alike(self, pairs: Pairs) -> Pairs:
        """Those of the pairs that look alike, without those that were asked for before."""
        low, high = np.sort(pairs, axis=1).T
        names, first = np.unique(low * len(self.looks) + high, return_index=True)
        new = first[~np.isin(names, self.done)]
        self.done = np.union1d(self.done, names)
        asked, mine = pairs[np.sort(new)], (self.looks, self.grids)

        def told(done: int) -> None:
            self.progress(Progress("compare", done, len(asked)))

        return asked[look_alike(asked, mine, mine, told)]


def _equal(looks: Looks) -> Pairs:
    """Pairs of equal files: each with the first of them."""
    order = np.argsort(looks.prints, kind="stable")
    prints = looks.prints[order]
    starts = np.flatnonzero(np.append(np.ones(min(1, len(order)), np.bool_), prints[1:] != prints[:-1]))
    firsts = np.repeat(order[starts], np.diff(np.append(starts, len(order))))
    again = (firsts != order) & (prints != 0)
    return np.stack([firsts[again], order[again]], 1)


def _crossing(looks: Looks, parts: NDArray[np.int16]) -> Pairs:
    """The candidates for near-duplicates between two splits. parts: the split of each row."""
    rows = [np.flatnonzero(parts == part) for part in range(int(parts.max(initial=-1)) + 1)]
    found = [np.zeros((0, 2), np.int64)]
    for ours, theirs in permutations(rows, 2):
        pairs = candidates_between(looks.at(ours), looks.at(theirs)).pairs
        found.append(np.stack([ours[pairs[:, 0]], theirs[pairs[:, 1]]], 1))
    return np.concatenate(found)
