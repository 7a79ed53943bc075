"""A class tree in the order of its packing: its rows are those of the shards."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy

import numpy as np
from numpy.typing import NDArray

from shardkit.adapters.pack_to.packer import Packer
from shardkit.adapters.pack_to.plan import PackingPlan
from shardkit.adapters.pack_to.written import Views
from shardkit.reading.blocks.block import ALONE, Buffer, Catalog, Images, Labels, Placed, Readers, Unchecked
from shardkit.reading.blocks.prefetch import NoPrefetch
from shardkit.reading.blocks.tree import TreeBlock, TreeCatalog
from shardkit.reading.stats.record import Recorder

Rows = NDArray[np.int64]


class PlannedCatalog(TreeCatalog):
    """The files of a class tree, in the order of a plan, each shard of which is one of the catalog's."""

    def __init__(self, plan: PackingPlan) -> None:
        super().__init__(plan.content.source)
        self._order = plan.content.plan.order
        self._packer: Packer | None = None
        self._labels: Labels | None = None
        self.counts = np.diff(plan.content.plan.bounds)
        self.identity = f"packing:{plan.digest}"

    def packed_by(self, packer: Packer) -> PlannedCatalog:
        """The same, packed while it is read."""
        found = copy(self)
        found._packer, found.prefetch = packer, PackAhead(packer)
        return found

    def scanned(self, rows: Rows) -> Rows:
        """The rows of the scan."""
        found: Rows = self._order[rows].astype(np.int64, copy=False)
        return found

    def labels(self) -> Labels:
        """The labels of all rows."""
        if self._labels is None:
            self._labels = self.source.labels[self._order]
        return self._labels

    def block(self, rows: Rows) -> TreeBlock:
        """The samples at these rows: from the shards if they are written, else from the tree."""
        views = None if self._packer is None else self._packer.written.views(rows)
        return TreeBlock(self, rows) if views is None else WrittenBlock(self, rows, views)


class WrittenBlock(TreeBlock):
    """Samples of a class tree whose bytes are taken from the shards that were just written."""

    def __init__(self, catalog: PlannedCatalog, rows: Rows, views: Views) -> None:
        super().__init__(catalog, rows)
        self._views = views

    def image(self, number: int) -> Buffer:
        """The bytes of the image."""
        return self._views.some(number, number + 1)[0].tobytes()

    def images(self, begin: int, end: int) -> Images:
        """The bytes of images."""
        return self._views.some(begin, end), {}

    def unchecked(self, begin: int, end: int) -> Unchecked | None:
        """The bytes of images; nothing is to be checked, since they were just written."""
        return Unchecked(self._views.some(begin, end), None, None)


class PackAhead(NoPrefetch):
    """Packs while blocks are read."""

    def __init__(self, packer: Packer) -> None:
        self._packer = packer

    def through(
        self,
        catalog: Catalog,
        blocks: Iterator[Placed],
        window: int,
        readers: Readers = ALONE,
        record: Recorder | None = None,
    ) -> Iterator[Placed]:
        """The blocks. The first worker of a rank packs meanwhile, and completes its shards at the end."""
        if readers.worker:
            yield from blocks
            return
        assert isinstance(catalog, PlannedCatalog)
        sizes = catalog.source.sizes
        with self._packer.reading() as reading:
            for placed in blocks:
                reading.passed(int(sizes[catalog.scanned(placed[1].rows)].sum()) * readers.workers)
                yield placed
            reading.complete()
