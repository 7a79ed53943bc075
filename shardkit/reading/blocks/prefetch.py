"""Load local shards ahead of use. (Shards in a store are fetched: see fetch_ahead.py.)"""

from __future__ import annotations

from collections.abc import Iterator

from shardkit.reading.blocks.block import ALONE, Catalog, Placed, Readers
from shardkit.reading.stats.record import Recorder
from shardkit.shards.buffers import ReadAhead, can_read_ahead

AHEAD_BYTES = 64 << 20
"""How far ahead of use the kernel is asked to read."""

AHEAD_BLOCKS = 8

LOCAL_BLOCK_BYTES = 32 << 20


class NoPrefetch:
    """No prefetch, for files that are too small for it."""

    strength = 0

    def block_bytes(self, usual: int) -> int:
        """As usual."""
        return usual

    def through(
        self,
        catalog: Catalog,
        blocks: Iterator[Placed],
        window: int,
        readers: Readers = ALONE,
        record: Recorder | None = None,
    ) -> Iterator[Placed]:
        """The blocks, unchanged."""
        return blocks


class KernelPrefetch:
    """Has the kernel read the bytes of a block's samples a little before they are used."""

    strength = 1

    def block_bytes(self, usual: int) -> int:
        """More than usual: nothing is copied, and each block costs as much as the copies of some photographs."""
        return max(usual, LOCAL_BLOCK_BYTES)

    def through(
        self,
        catalog: Catalog,
        blocks: Iterator[Placed],
        window: int,
        readers: Readers = ALONE,
        record: Recorder | None = None,
    ) -> Iterator[Placed]:
        """The blocks, held back until the kernel has been asked for AHEAD_BYTES after them, if the system supports
        that."""
        catalog.hold()
        if not can_read_ahead():
            yield from blocks
            return
        first = next(blocks)
        depth = AHEAD_BYTES // (catalog.mean_bytes * len(first[1]))
        yield from self._read_ahead(catalog, first, blocks, min(max(1, depth), AHEAD_BLOCKS))

    def _read_ahead(self, catalog: Catalog, first: Placed, blocks: Iterator[Placed], depth: int) -> Iterator[Placed]:
        read_ahead, held = ReadAhead(catalog.files()), [first]
        try:
            for placed in blocks:
                held.append(placed)
                wanted = placed[1].wanted()
                if wanted is not None:
                    read_ahead.want(*wanted)
                if len(held) > depth:
                    yield held.pop(0)
            yield from held
        finally:
            read_ahead.close()
