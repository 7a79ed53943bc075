"""The shards that a ShardWriter has filled: one is flushed to the disk, recorded and delivered while the next one is
written, and its index rows are written at the same time. Each in a thread of its own, in the order of the shards.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import ExitStack
from types import TracebackType

from shardkit.packing.dest.destination import Delivery, Destination
from shardkit.packing.dest.work_folder import IndexFiles
from shardkit.packing.open_shard import OpenShard
from shardkit.packing.totals import Totals
from shardkit.packing.write.receipt import Receipt, Written
from shardkit.shards.columns.types import Types
from shardkit.shards.manifest import IndexEntry

MOST_ENDING = 1
"""The shards that are flushed while another is written."""


class EndingShards:
    """The filled shards of a dataset, in a `with` block, and its index. columns: further ones of the index.

    totals: of the shards that were delivered.
    """

    def __init__(self, destination: Destination, delivery: Delivery, columns: Types) -> None:
        self._delivery, self.totals = delivery, Totals()
        self._index = IndexFiles(destination, columns=columns)
        self._waiting = deque[tuple[Future[Receipt], Future[None]]]()  # one that failed stays the first
        self._aborted = False
        with ExitStack() as stack:
            stack.enter_context(self._index)
            self._indexing = stack.enter_context(ThreadPoolExecutor(1, "shardkit-index"))
            self._flushing = stack.enter_context(ThreadPoolExecutor(1, "shardkit-end"))
            self._stack = stack.pop_all()

    def __len__(self) -> int:
        """The shards so far."""
        return len(self.totals.shards) + len(self._waiting)

    def __enter__(self) -> EndingShards:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def add(self, shard: OpenShard, columns: bytes) -> None:
        """End a shard in the threads. columns: as for `OpenShard.complete`. Raises the error of an earlier one."""
        self.wait(MOST_ENDING - 1)
        written = shard.complete(columns)
        ended = self._flushing.submit(self._end, shard, written)
        self._waiting.append((ended, self._indexing.submit(self._index.add_rows, shard.name, written.rows)))

    def wait(self, left: int) -> None:
        """Wait until at most `left` shards are not ended. Raises the error of the first."""
        while len(self._waiting) > left:
            ended, indexed = self._waiting[0]
            receipt = ended.result()
            indexed.result()
            self._waiting.popleft()
            self.totals.add(receipt)
            self._delivery.wait_for_room()

    def finish(self) -> tuple[IndexEntry, ...]:
        """Wait until all shards are ended, and complete the index; returns its files."""
        index = self._indexing.submit(self._index.end)  # while the last shard is flushed
        self.wait(0)
        return index.result()

    def abort(self) -> None:
        """End no more shards, and let the threads come to an end."""
        self._aborted = True
        self._flushing.shutdown()
        self._indexing.shutdown(cancel_futures=True)

    def _end(self, shard: OpenShard, written: Written) -> Receipt:
        """Complete a shard and deliver it; discard it if all are aborted."""
        if self._aborted:
            shard.abort()
            raise CancelledError
        receipt = shard.close(written)
        self._delivery.deliver(receipt)
        return receipt
