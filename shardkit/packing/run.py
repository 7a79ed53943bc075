"""Runs the tasks of a job: those that an earlier run finished are kept, all others go to the engine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack

from shardkit.events import ProgressFn, silent
from shardkit.packing.dest.destination import Destination
from shardkit.packing.dest.earlier_run import kept_receipt
from shardkit.packing.dest.shipping import Shipping
from shardkit.packing.engine.engine import Engine
from shardkit.packing.engine.worker import AnyTask
from shardkit.packing.write.shard import Advance, Receipt


def write_shards(
    tasks: Iterable[AnyTask],
    engine: Engine,
    advance: Advance,
    destination: Destination,
    progress: ProgressFn = silent,
) -> list[Receipt]:
    """The receipts of all shards in the order of their names; `advance` is told what was read, or kept.

    Where the destination is a bucket, each shard is there when this returns; `progress` is told of the last of them.
    """
    receipts: dict[str, Receipt] = {}
    with ExitStack() as stack:
        place = destination.place
        ship = None if place is None else stack.enter_context(Shipping(destination, place))

        def missing() -> Iterator[AnyTask]:
            for task in tasks:
                kept = kept_receipt(task, None if ship is None else ship.has)
                if kept is None:
                    if ship is not None:
                        ship.wait_for_room()
                    yield task
                    continue
                receipts[kept.entry.name] = kept
                if ship is not None and kept.entry.samples:
                    ship.add(kept)
                advance(*task.extent())

        for receipt in engine(missing(), advance):
            receipts[receipt.entry.name] = receipt
            if ship is not None and receipt.entry.samples:  # an empty one is in no manifest
                ship.add(receipt)
        if ship is not None:
            ship.finish(progress)
    return [receipts[name] for name in sorted(receipts)]
