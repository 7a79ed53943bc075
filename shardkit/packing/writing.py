"""Runs the tasks of a job: those that an earlier run finished are kept, all others go to the engine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from shardkit.packing.engines import Engine
from shardkit.packing.resume import kept_receipt
from shardkit.packing.shard import Advance, Receipt
from shardkit.packing.worker import AnyTask


def write_shards(tasks: Iterable[AnyTask], engine: Engine, advance: Advance) -> list[Receipt]:
    """The receipts of all shards in the order of their names; `advance` is told what was read, or kept."""
    receipts: dict[str, Receipt] = {}

    def missing() -> Iterator[AnyTask]:
        for task in tasks:
            kept = kept_receipt(task)
            if kept is None:
                yield task
            else:
                receipts[kept.entry.name] = kept
                advance(*task.extent())

    for receipt in engine(missing(), advance):
        receipts[receipt.entry.name] = receipt
    return [receipts[name] for name in sorted(receipts)]
