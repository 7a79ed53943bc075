"""The contents of many shards: their manifest entries, and sums over their receipts.

Receipts are added one by one and not kept: one has a number for each class, and there may be 100,000 of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from shardkit.packing.write.receipt import Receipt, Skipped
from shardkit.shards.manifest import ShardEntry


class Totals(msgspec.Struct):
    """What shards hold.

    shards: name -> entry, in the order in which they were added. rows: name -> CRC-32C of the file with the index rows.
    labels: label -> samples. skipped: of the shards that have any. types, done, jpegs, progressive: as in a Receipt.
    """

    shards: dict[str, ShardEntry] = {}
    rows: dict[str, int] = {}
    labels: dict[int, int] = {}
    fields: set[str] = set()
    skipped_in: dict[str, list[Skipped]] = {}
    types: dict[str, int] = {}
    done: dict[str, int] = {}
    jpegs: int = 0
    progressive: int = 0

    def add(self, receipt: Receipt) -> None:
        """Add a shard."""
        name = receipt.entry.name
        self.shards[name] = receipt.entry
        self.rows[name] = receipt.rows_crc32c
        if receipt.skipped:
            self.skipped_in[name] = receipt.skipped
        self.fields.update(receipt.fields)
        for mine, theirs in ((self.labels, receipt.labels), (self.types, receipt.types), (self.done, receipt.done)):
            _count(mine, theirs)
        self.jpegs, self.progressive = self.jpegs + receipt.jpegs, self.progressive + receipt.progressive

    def update(self, other: Totals) -> None:
        """Add the shards of others, which are other shards."""
        self.shards.update(other.shards)
        self.rows.update(other.rows)
        self.skipped_in.update(other.skipped_in)
        self.fields.update(other.fields)
        for mine, theirs in ((self.labels, other.labels), (self.types, other.types), (self.done, other.done)):
            _count(mine, theirs)
        self.jpegs, self.progressive = self.jpegs + other.jpegs, self.progressive + other.progressive

    @property
    def written(self) -> tuple[ShardEntry, ...]:
        """The shards."""
        return tuple(self.shards.values())

    @property
    def entries(self) -> tuple[ShardEntry, ...]:
        """The shards without those that have no samples, which readers reject."""
        return tuple(entry for entry in self.written if entry.samples)

    @property
    def skipped(self) -> Iterator[Skipped]:
        """The skipped files, shard by shard."""
        return (item for items in self.skipped_in.values() for item in items)


def totals_of(receipts: Iterable[Receipt]) -> Totals:
    """The totals of some shards."""
    found = Totals()
    for receipt in receipts:
        found.add(receipt)
    return found


def _count(mine: dict[Any, int], theirs: dict[Any, int]) -> None:
    for key, number in theirs.items():
        mine[key] = mine.get(key, 0) + number
