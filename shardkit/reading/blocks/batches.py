"""The blocks of an epoch of batches: whole batches of one shape each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from shardkit.reading.blocks.block import Placed
from shardkit.reading.blocks.source import IndexedBlocks, Numbers
from shardkit.reading.order.batches import BatchOrder, BatchShare


@dataclass(frozen=True)
class BatchBlocks(IndexedBlocks):
    """The batches of a catalog whose samples were sorted into buckets. shapes: (height, width) of each bucket."""

    shapes: Sequence[tuple[int, int]] = field(kw_only=True)

    def size(self, number: int) -> tuple[int, int]:
        """The shape of the batch of a sample."""
        share = cast(BatchShare, self.share)
        batch = share.batches_at(np.array([number // share.size])) % max(1, share.batches)
        return self.shapes[int(cast(BatchOrder, self.order).bucket_of(batch)[0])]

    def _spans(self, low: int, stop: int, unit: int, start: int) -> Iterator[Numbers]:
        """As for all samples, but a smaller batch ends its block: batches are counted from the beginning of one."""
        share, order = cast(BatchShare, self.share), cast(BatchOrder, self.order)
        for numbers in super()._spans(low, stop, unit, start):
            batches = share.batches_at(numbers[::unit] // unit) % max(1, share.batches)
            ends = np.flatnonzero(order.lengths(batches) < unit) + 1
            yield from (part for part in np.split(numbers, ends * unit) if len(part))

    def _block(self, numbers: Numbers) -> Placed:
        rows, repeats = self.share.rows(self.order, numbers)
        there = rows >= 0
        if there.all():
            return numbers, self.catalog.block(rows), repeats
        return numbers[there], self.catalog.block(rows[there]), None if repeats is None else repeats[there]
