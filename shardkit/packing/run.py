"""Run the tasks of a job: shards that an earlier run finished are kept, all others go to the engine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from shardkit.events import ProgressFn, no_progress
from shardkit.packing.dest.destination import Destination
from shardkit.packing.dest.earlier_run import kept_receipt
from shardkit.packing.engine.engine import Engine
from shardkit.packing.write.receipt import Receipt
from shardkit.packing.write.sink import Advance
from shardkit.packing.write.task import ShardTask


def write_shards(
    tasks: Iterable[ShardTask],
    engine: Engine,
    advance: Advance,
    destination: Destination,
    progress: ProgressFn = no_progress,
) -> list[Receipt]:
    """The receipts of all shards, ordered by name; `advance` is called with what was read or kept.

    All shards are delivered when this returns; `progress` is called for the last of them.
    """
    receipts: dict[str, Receipt] = {}
    with destination.delivery() as delivery:

        def missing() -> Iterator[ShardTask]:
            for task in tasks:
                kept = kept_receipt(task, delivery.holds)
                if kept is None:
                    delivery.wait_for_room()
                    yield task
                    continue
                receipts[kept.entry.name] = kept
                delivery.deliver(kept)
                advance(*task.extent())

        for receipt in engine(missing(), advance):
            receipts[receipt.entry.name] = receipt
            delivery.deliver(receipt)
        delivery.finish(progress)
    return [receipts[name] for name in sorted(receipts)]
