"""Whether all ranks read the same dataset: compared when an epoch begins, so that none reads another epoch in silence.

A rank that was started after `pack(append=True)` would otherwise have another length and another order than the rest:
some samples come twice, others never, and the ranks wait for each other at the end. Each rank notes what it reads in
the store of keys that the processes of torch.distributed or JAX share; it is no collective, so that it can't meet one
of the program's, and a rank that reads alone (an evaluation on rank 0, say) waits ABSENT_SECONDS once and continues.

The workers of a plain DataLoader have no connection of their own to that store, and the one of their parent is not
theirs to use: the first of each rank makes one where the store is torch's TCPStore, which torchrun's is. JAX's client
can't be created again: there such workers are not compared.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

from shardkit.errors import DatasetError
from shardkit.reading.order.ranks import jax_process

if TYPE_CHECKING:
    from shardkit.reading.dataset import Dataset

log = logging.getLogger(__name__)

ORDER_VERSION = 1
"""Of the order of an epoch. Another one gives other fingerprints."""

ABSENT_SECONDS = 5.0
"""How long the first epoch waits for ranks that have noted nothing."""
CONNECT_SECONDS = 10.0
"""How long a DataLoader's worker tries to reach the store."""
DIFFER_SECONDS = 20.0
"""How long a rank that notes another dataset may take to open this one, too."""

_PREFIX = "shardkit/fingerprint"
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
        manifest = catalog.manifest
        shards = [(entry.samples, entry.bytes, entry.crc32c) for entry in manifest.shards] if manifest else []
        what = [data.order_identity, catalog.counts.tolist(), shards, data.classes]
    return hashlib.blake2b(json.dumps([ORDER_VERSION, *what]).encode(), digest_size=16).hexdigest()


class Notes(Protocol):
    """Keys that all ranks see."""

    def note(self, key: str) -> None:
        """Set a key."""
        ...

    def has(self, key: str) -> bool:
        """Whether a rank has set it."""
        ...


@dataclass(frozen=True)
class TorchNotes:
    """Those of torch.distributed."""

    store: Any

    def note(self, key: str) -> None:
        """Set a key."""
        self.store.set(key, "1")

    def has(self, key: str) -> bool:
        """Whether a rank has set it."""
        return bool(self.store.check([key]))


@dataclass(frozen=True)
class JaxNotes:
    """Those of jax.distributed, whose client sets a key once only, and knows by an error alone that there is none."""

    client: Any

    def note(self, key: str) -> None:
        """Set a key."""
        try:
            self.client.key_value_set(key, "1")
        except RuntimeError as exc:
            if "ALREADY_EXISTS" not in str(exc):
                raise

    def has(self, key: str) -> bool:
        """Whether a rank has set it."""
        try:
            self.client.key_value_try_get(key)
        except RuntimeError as exc:
            if "NOT_FOUND" not in str(exc):
                raise
            return False
        return True


@dataclass(frozen=True)
class Shared:
    """What the ranks share, and which one this is."""

    notes: Notes
    rank: int
    world_size: int
    prefix: str = _PREFIX


@dataclass(frozen=True)
class Address:
    """Where a worker of a DataLoader finds the store of its rank's processes. attempt: of torchrun, which keeps it."""

    host: str
    port: int
    rank: int
    world_size: int
    attempt: str

    def connected(self) -> Shared:
        """A connection of this process's own. Raises what torch raises."""
        from torch.distributed import TCPStore

        store = TCPStore(
            self.host, self.port, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=CONNECT_SECONDS)
        )
        return Shared(TorchNotes(store), self.rank, self.world_size, f"{_PREFIX}/workers/{self.attempt}")


def require_same(data: Dataset) -> None:
    """DatasetError where ranks of torch.distributed or JAX read different datasets under the same name."""
    shared = _shared_by_torch(data) or _shared_by_jax(data)
    if shared is not None:
        _require_same(data, shared, wait=True)


def require_same_in_worker(data: Dataset, address: Address, *, wait: bool) -> bool:
    """The same for the first worker of a plain DataLoader. wait: for ranks that have noted nothing yet. Whether all
    have."""
    try:
        shared = address.connected()
    except Exception as exc:  # as below
        log.debug("%r: the ranks' datasets can't be compared: %s", data, exc)
        return False
    return _require_same(data, shared, wait=wait)


def _require_same(data: Dataset, shared: Shared, *, wait: bool) -> bool:
    notes, rank = shared.notes, shared.rank
    steps = [(type(op).__name__, getattr(op, "count", None)) for op in data.ops]
    weights = None if data.weights is None else data.weights.describe()
    kind = repr((data.content, data.reading.buffer, data.reading.seed, steps, data.selection, weights))
    key = f"{shared.prefix}/{hashlib.blake2b(kind.encode(), digest_size=8).hexdigest()}"
    mine = fingerprint_of(data)
    try:
        notes.note(f"{key}/{rank}/{mine}")
        notes.note(f"{key}/{rank}")  # the one before is there
        others = [other for other in (range(shared.world_size) if rank == 0 else (0,)) if other != rank]
        differing, absent = _differing(notes, key, mine, others, wait=wait and key not in _alone)
    except Exception as exc:  # a store that is closed, or of a kind that can't tell: reading continues without it
        log.debug("%r: the ranks' datasets can't be compared: %s", data, exc)
        return False
    if absent:
        _alone.add(key)
    if differing:
        named = ", ".join(map(str, differing))
        fact = (
            f"rank {rank} reads another dataset than rank {named}: it was added to, or replaced, between their starts"
        )
        raise DatasetError(repr(data.content), fact, "start all ranks again when nothing writes to the dataset")
    return not absent


def _differing(notes: Notes, key: str, mine: str, ranks: list[int], *, wait: bool) -> tuple[list[int], list[int]]:
    """(the ranks that read something else, those that have noted nothing), after a while."""
    begun, pause = time.monotonic(), 0.01
    while True:
        absent = [rank for rank in ranks if not notes.has(f"{key}/{rank}")]
        differing = [rank for rank in ranks if rank not in absent and not notes.has(f"{key}/{rank}/{mine}")]
        waited = time.monotonic() - begun
        if differing and waited >= DIFFER_SECONDS:
            return differing, absent
        if not differing and (not absent or not wait or waited >= ABSENT_SECONDS):
            return [], absent
        ranks = [*differing, *absent]
        time.sleep(pause)
        pause = min(0.5, pause * 1.5)


def store_address() -> Address | None:
    """Where the processes of torch.distributed have their store; None where there are none, or it is no TCPStore.

    It connects to nothing, so that a forked worker may ask.
    """
    found = _default_store()
    if found is None:
        return None
    store, rank, world_size = found
    while hasattr(store, "underlying_store"):
        store = store.underlying_store
    if not hasattr(store, "host") or not hasattr(store, "port"):
        return None
    return Address(store.host, store.port, rank, world_size, os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def _default_store() -> tuple[Any, int, int] | None:
    """(store of torch.distributed, rank, world size), where there are several ranks."""
    torch: Any = sys.modules.get("torch")
    distributed = getattr(torch, "distributed", None)
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    rank, world_size = distributed.get_rank(), distributed.get_world_size()
    if world_size < 2:
        return None
    try:
        return distributed.distributed_c10d._get_default_store(), rank, world_size
    except (AttributeError, RuntimeError, ValueError):  # another torch, or a group without a store: nothing to compare
        return None


def _shared_by_torch(data: Dataset) -> Shared | None:
    """What is shared where this is the main process of a rank that shares `data`."""
    found = None if _process["forked"] else _default_store()
    if found is None or data.reading.ranks != found[1:]:
        return None
    torch: Any = sys.modules["torch"]
    if torch.utils.data.get_worker_info() is not None:
        return None
    return Shared(TorchNotes(found[0]), *found[1:])


def _shared_by_jax(data: Dataset) -> Shared | None:
    """The same of jax.distributed. Where its client is another one than is known here, nothing is compared."""
    process = None if _process["forked"] else jax_process()
    if (
        process is None
        or process[1] < 2
        or data.reading.ranks != process[:2]
        or not hasattr(process[2], "key_value_try_get")
    ):
        return None
    rank, world_size, client = process
    return Shared(JaxNotes(client), rank, world_size)
