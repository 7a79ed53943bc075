"""Sources of an epoch's blocks: runs of samples in the order in which they are delivered."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from shardkit.reading.batches.labels import Kind
from shardkit.reading.blocks.block import Catalog, Placed, Readers
from shardkit.reading.order.batches import BatchShare
from shardkit.reading.order.epoch_order import Order
from shardkit.reading.order.local import local_ranks
from shardkit.reading.order.share import Share
from shardkit.reading.stats.record import Recorder

Numbers = NDArray[np.int64]

BLOCK_BYTES = 8 << 20
"""The bytes of samples to look up together: enough to make NumPy's cost per call negligible, few enough to start
quickly."""

BLOCK_SAMPLES = 2048


class BlockSource(Protocol):
    """An epoch's samples for one reader."""

    @property
    def samples(self) -> int | None:
        """The number of samples; None if it is not known."""
        ...

    @property
    def classes(self) -> int:
        """How many classes there are."""
        ...

    @property
    def plain(self) -> bool:
        """Whether each sample is one image with a label."""
        ...

    @property
    def targets(self) -> Kind:
        """What the labels are."""
        ...

    @property
    def seed(self) -> int:
        """The seed of everything random."""
        ...

    @property
    def epoch(self) -> int:
        """The number of the epoch."""
        ...

    def blocks(self, low: int, high: int | None, unit: int, start: int = 0) -> Iterator[Placed]:
        """The samples low … high - 1, from `start` on, as blocks, each but the last a multiple of `unit` long."""
        ...

    def size(self, number: int) -> tuple[int, int] | None:
        """(height, width) to which the image of a sample is to be decoded; None if decode() says it."""
        ...

    def random_counters(self, placed: Placed) -> Numbers:
        """The numbers from which, with seed and epoch, the random numbers of each sample derive (int64, n)."""
        ...


@dataclass(frozen=True)
class IndexedBlocks:
    """The blocks of a catalog. `worker` of `workers` takes each `workers`-th unit."""

    catalog: Catalog
    order: Order
    share: Share | BatchShare
    seed: int
    epoch: int
    worker: int = 0
    workers: int = 1
    repeating: bool = False
    """Whether a sample may occur several times in an epoch: then its random numbers depend on its position."""
    window: int = 0
    """The number of this reader's samples from which the shuffle draws at a time; it matters for shards in a store."""
    record: Recorder | None = None
    """Of the iteration."""

    @property
    def samples(self) -> int:
        """The number of samples of the share, of all workers together."""
        return len(self.share)

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return len(self.catalog.classes)

    @property
    def plain(self) -> bool:
        """Whether each sample is one image with a label."""
        return self.catalog.one_image_each

    @property
    def targets(self) -> Kind:
        """What the labels are."""
        return self.catalog.kind

    def blocks(self, low: int, high: int | None, unit: int, start: int = 0) -> Iterator[Placed]:
        """The samples low … high - 1, looked up a little before they are used, so that their bytes can be loaded
        ahead."""
        spans = self._spans(low, len(self.share) if high is None else high, unit, start)
        first = next(spans, None)
        if first is None:
            return iter(())
        blocks = map(self._block, itertools.chain((first,), spans))
        readers = Readers(local_ranks(self.share.world_size) * self.workers, self.worker, self.workers)
        return self.catalog.prefetch.through(self.catalog, blocks, self.window, readers, self.record)

    def _spans(self, low: int, stop: int, unit: int, start: int) -> Iterator[Numbers]:
        """The numbers of the samples of each block: whole units, those of this worker."""
        size = self.catalog.prefetch.block_bytes(BLOCK_BYTES)
        unit = min(unit, max(1, stop - low))  # a unit may be larger than any memory
        units = max(1, min(BLOCK_SAMPLES, size // self.catalog.mean_bytes) // unit)
        stride = self.workers * unit
        own = low + self.worker * unit
        own += max(0, -(-(start - own) // stride)) * stride  # the first of this worker's units from `start` on
        for begin in range(own, stop, units * stride):
            firsts = np.arange(begin, min(begin + units * stride, stop), stride)
            numbers = (firsts[:, None] + np.arange(unit)).ravel()
            yield numbers[numbers < stop]

    def size(self, number: int) -> tuple[int, int] | None:
        """None: decode() says it."""
        return None

    def random_counters(self, placed: Placed) -> Numbers:
        """The row of each sample; its position in the epoch, if a row may occur several times."""
        return self.share.places(placed[0]) if self.repeating else placed[1].rows

    def _block(self, numbers: Numbers) -> Placed:
        rows, repeats = self.share.rows(self.order, numbers)
        return numbers, self.catalog.block(rows), repeats


@dataclass(frozen=True)
class OneBlock:
    """One sample by its row, with the random numbers of epoch 0."""

    catalog: Catalog
    row: int
    seed: int
    samples: int = 1
    epoch: int = 0

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return len(self.catalog.classes)

    @property
    def plain(self) -> bool:
        """Whether it is one image with a label."""
        return self.catalog.one_image_each

    @property
    def targets(self) -> Kind:
        """What its label is."""
        return self.catalog.kind

    def blocks(self, low: int, high: int | None, unit: int, start: int = 0) -> Iterator[Placed]:
        """The sample."""
        yield np.zeros(1, np.int64), self.catalog.block(np.array([self.row])), None

    def size(self, number: int) -> None:
        """None: decode() says it."""
        return

    def random_counters(self, placed: Placed) -> Numbers:
        """The row."""
        return placed[1].rows
