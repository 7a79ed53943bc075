"""Whether all ranks read the same dataset: compared when an epoch begins, so that none reads another epoch in silence.

A rank that was started after `pack --append` would otherwise have another length and another order than the rest: some
samples come twice, others never, and the ranks wait for each other at the end. Each rank notes what it reads in the
store that torch.distributed's processes share; it is no collective, so that it can't meet one of the program's, and a
rank that reads alone (an evaluation on rank 0, say) waits ABSENT_SECONDS once and goes on.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from shardkit.errors import DatasetError

if TYPE_CHECKING:
    from shardkit.reading.dataset import Dataset

log = logging.getLogger(__name__)

ORDER_VERSION = 1
"""Of the order of an epoch. Another one gives other fingerprints."""

ABSENT_SECONDS = 5.0
"""How long the first epoch waits for ranks that have noted nothing."""
DIFFER_SECONDS = 20.0
"""How long a rank that notes another dataset may take to open this one, too."""

_PREFIX = "shardkit/fingerprint"
_noted: dict[str, list[str]] = {}
_alone: set[str] = set()
_process = {"forked": False}

if hasattr(os, "register_at_fork"):  # the store's connection is the parent's
    os.register_at_fork(after_in_child=lambda: _process.update(forked=True))


def fingerprint_of(data: Dataset) -> str:
    """32 hex digits: equal where two Datasets give the same samples in the same order, whatever machine and path."""
    content = data.content
    if content.streams:
        what: list[Any] = [[shard.name for shard in content.streams], data.reading.buffer, data.reading.seed]
    else:
        catalog = content.catalog
        manifest = getattr(catalog, "manifest", None)
        shards = [(entry.samples, entry.bytes, entry.crc32c) for entry in manifest.shards] if manifest else []
        what = [data.order_identity, catalog.counts.tolist(), shards, data.classes]
    return hashlib.blake2b(json.dumps([ORDER_VERSION, *what]).encode(), digest_size=16).hexdigest()


def demand_same(data: Dataset) -> None:
    """DatasetError where ranks of torch.distributed read different datasets under the same name."""
    shared = _shared_store(data)
    if shared is None:
        return
    store, rank, world_size = shared
    steps = [(type(op).__name__, getattr(op, "count", None)) for op in data.ops]
    weights = None if data.weights is None else data.weights.describe()
    kind = repr((data.content, data.reading.buffer, data.reading.seed, steps, data.selection, weights))
    key = f"{_PREFIX}/{hashlib.blake2b(kind.encode(), digest_size=8).hexdigest()}"
    mine = fingerprint_of(data)
    noted = _noted.setdefault(key, [])
    if mine not in noted:
        noted.append(mine)
    try:
        store.set(f"{key}/{rank}", json.dumps(noted))
        differing = _differing(store, key, mine, [r for r in (range(world_size) if rank == 0 else (0,)) if r != rank])
    except Exception as exc:  # a store that is closed, or of a kind that can't tell: reading goes on without it
        log.debug("%r: the ranks' datasets can't be compared: %s", data, exc)
        return
    if differing:
        others = ", ".join(map(str, differing))
        fact = (
            f"rank {rank} reads another dataset than rank {others}: it was added to, or replaced, between their starts"
        )
        raise DatasetError(repr(data.content), fact, "start all ranks again when nothing writes to the dataset")


def _differing(store: Any, key: str, mine: str, ranks: list[int]) -> list[int]:
    """The ranks that read something else, after a while."""
    begun, pause = time.monotonic(), 0.01
    while True:
        absent = [rank for rank in ranks if not store.check([f"{key}/{rank}"])]
        there = [rank for rank in ranks if rank not in absent]
        differing = [rank for rank in there if mine not in json.loads(store.get(f"{key}/{rank}"))]
        waited = time.monotonic() - begun
        if differing and waited >= DIFFER_SECONDS:
            return differing
        if not differing and (not absent or key in _alone or waited >= ABSENT_SECONDS):
            if absent:
                _alone.add(key)
            return []
        ranks = [*differing, *absent]
        time.sleep(pause)
        pause = min(0.5, pause * 1.5)


def _shared_store(data: Dataset) -> tuple[Any, int, int] | None:
    """(store of torch.distributed, rank, world size), where this is the main process of a rank that shares `data`."""
    torch: Any = sys.modules.get("torch")
    distributed = getattr(torch, "distributed", None)
    if distributed is None or _process["forked"] or not distributed.is_available() or not distributed.is_initialized():
        return None
    rank, world_size = distributed.get_rank(), distributed.get_world_size()
    if world_size < 2 or data.rank != (rank, world_size) or torch.utils.data.get_worker_info() is not None:
        return None
    try:
        return distributed.distributed_c10d._get_default_store(), rank, world_size
    except (AttributeError, RuntimeError, ValueError):
        return None
