"""Check the shards on the nodes of a cluster: each task carries a shard's index rows, and returns what was found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec

from shardkit.location import Location
from shardkit.packing.engine.options import EngineOptions
from shardkit.shards.corrections.overlay import Overlay
from shardkit.shards.manifest import Manifest, ShardEntry
from shardkit.shards.objects import Objects
from shardkit.shards.open import IndexFile, IndexRows, Opened, ShardPlace
from shardkit.storage.access import Remote
from shardkit.tools.over_shards import over_shards

if TYPE_CHECKING:
    from shardkit.tools.verify.verify import ShardCheck


@dataclass(frozen=True, slots=True)
class _Task:
    """A shard with everything its check needs. index: location of its index file, the row group in it, and the shard's
    name there.

    manifest: without its lists of shards and index files, which are long.
    """

    location: Location
    entry: ShardEntry | None
    index: tuple[Location, int, str] | None
    rows: IndexRows | None
    place: Location
    manifest: Manifest | None
    remote: Remote | None
    decode: bool
    corrections: Overlay | None


class _GivenIndex(IndexFile):
    """The rows of one shard, in place of the index file they came from."""

    def __init__(self, place: Location, group: int, name: str, rows: IndexRows | None) -> None:
        self.place, self.entry, self.findings = place, None, []
        self.shards = [*[""] * group, name]
        self.given = rows

    def rows(self, group: int) -> IndexRows | None:
        """The given rows."""
        return self.given


def seen_on_nodes(opened: Opened, remote: Remote | None, decode: bool, where: EngineOptions) -> Iterator[ShardCheck]:
    """Check the shards on the nodes; yield the results of `verify` in shard order."""
    manifest = opened.manifest
    if manifest is not None:
        manifest = msgspec.structs.replace(manifest, shards=(), index=())

    def tasks() -> Iterator[tuple[Location, _Task]]:
        for shard in opened.shards:
            index = None if shard.index is None else _named(*shard.index)
            whole = shard.location.absolute()
            yield whole, _Task(
                whole, shard.entry, index, shard.rows(), opened.place, manifest,
                None if shard.location.is_local else remote, decode, shard.corrections,
            )  # fmt: skip

    for shard, seen in zip(opened.shards, over_shards(check_one, tasks(), where), strict=True):
        seen.shard = shard
        yield seen


def _named(index: IndexFile, group: int) -> tuple[Location, int, str]:
    return index.place, group, index.shards[group]


def check_one(task: _Task) -> ShardCheck:
    """Check one shard, on a node."""
    from shardkit.tools.verify.verify import DatasetCheck

    index = None if task.index is None else (_GivenIndex(*task.index, task.rows), task.index[1])
    shard = ShardPlace(task.location, task.entry, index, task.corrections)
    opened = Opened(task.place, [shard], task.manifest, objects=Objects(task.remote))
    seen = DatasetCheck(opened, task.decode, hash_key=_hash).shard(shard, run=map)
    seen.shard = ShardPlace(task.location)
    return seen


def _hash(key: str) -> int:
    """Like `hash`, but the same in all processes."""
    data = key.encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "little", signed=True)
