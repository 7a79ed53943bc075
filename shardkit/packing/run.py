"""Run the tasks of a job: shards that an earlier run finished are kept, all others go to the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from shardkit.events import ProgressFn, no_progress
from shardkit.packing.dest.destination import Destination
from shardkit.packing.dest.earlier_run import kept_receipt
from shardkit.packing.engine.engine import Engine
from shardkit.packing.totals import Totals
from shardkit.packing.write.receipt import Receipt
from shardkit.packing.write.sink import Advance
from shardkit.packing.write.task import ShardTask
from shardkit.shards.manifest import ShardEntry


def write_shards(
    tasks: Iterable[ShardTask],
    engine: Engine,
    advance: Advance,
    destination: Destination,
    progress: ProgressFn = no_progress,
    *,
    finished: Callable[[ShardEntry], None],
    part: bool = False,
) -> Totals:
    """What the shards hold, in the order of the tasks; `advance` is called with what was read or kept.

    finished: called for each shard in this order, from this thread, when it and all before it are written or kept. All
    shards are delivered when this returns; `progress` is called for the last of them. part: others write other shards
    of the same packing.
    """
    totals = Totals()
    receipts: dict[str, Receipt] = {}
    names: list[str] = []
    told = 0

    def tell() -> None:
        nonlocal told
        while told < len(names) and (receipt := receipts.pop(names[told], None)) is not None:
            totals.add(receipt)
            finished(receipt.entry)
            told += 1

    with destination.delivery(part=part) as delivery:

        def missing() -> Iterator[ShardTask]:
            for task in tasks:
                names.append(task.name)
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
            tell()
        tell()
        delivery.finish(progress)
    return totals
