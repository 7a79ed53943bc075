"""Check that all ranks read the same dataset: they compare fingerprints when an epoch begins.

Otherwise, a rank that was started after `pack(append=True)` would have another length and order than the rest: some
samples would occur twice, others never, and the ranks would wait for each other at the end. Each rank notes what it
reads in the key-value store that the processes of torch.distributed or JAX share. This is not a collective, so it can't
interfere with the program's own; and a rank that reads alone (an evaluation on rank 0, say) waits ABSENT_SECONDS once
and continues.

The workers of a plain DataLoader have no connection to that store, and may not use their parent's: the first worker of
each rank opens one if the store is torch's TCPStore, as with torchrun. JAX's client can't be created again: there such
workers are not compared.
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
from shardkit.reading.state import FIRST_PLACEMENT

if TYPE_CHECKING:
    from shardkit.reading.dataset import Dataset

log = logging.getLogger(__name__)

ORDER_VERSION = 1
"""Version of the epoch order. Another version gives other fingerprints."""

ABSENT_SECONDS = 5.0
"""How long the first epoch waits for ranks that have not noted anything."""
CONNECT_SECONDS = 10.0
"""How long a DataLoader's worker tries to reach the store."""
DIFFER_SECONDS = 20.0
"""How long a rank that noted another dataset may take to open this one as well."""

_PREFIX = "shardkit/fingerprint"
_alone: set[str] = set()
_process = {"forked": False}

if hasattr(os, "register_at_fork"):  # the store's connection belongs to the parent
    os.register_at_fork(after_in_child=lambda: _process.update(forked=True))


def fingerprint_of(data: Dataset) -> str:
    """32 hex digits: equal if two Datasets give the same samples in the same order, on any machine and path."""
    content = data.content
    if content.streams:
        what: list[Any] = [[shard.name for shard in content.streams], data.reading.buffer, data.reading.seed]
    else:
        catalog = content.catalog
        manifest = None if content.whole_only else catalog.manifest  # some ranks may find it later than others
        shards = [(entry.samples, entry.bytes, entry.crc32c) for entry in manifest.shards] if manifest else []
        placement = [] if data.placement == FIRST_PLACEMENT else [data.placement]
        what = [data.order_identity, *placement, catalog.counts.tolist(), shards, data.classes]
    return hashlib.blake2b(json.dumps([ORDER_VERSION, *what]).encode(), digest_size=16).hexdigest()


class Notes(Protocol):
    """Keys that all ranks see."""

    def note(self, key: str) -> None:
        """Set a key."""
        ...

    def has(self, key: str) -> bool:
        """Whether a rank has set the key."""
        ...


@dataclass(frozen=True)
class TorchNotes:
    """Keys in the store of torch.distributed."""

    store: Any

    def note(self, key: str) -> None:
        """Set a key."""
        self.store.set(key, "1")

    def has(self, key: str) -> bool:
        """Whether a rank has set the key."""
        return bool(self.store.check([key]))


@dataclass(frozen=True)
class JaxNotes:
    """Keys in the store of jax.distributed, whose client sets a key only once, and raises for a missing key."""

    client: Any

    def note(self, key: str) -> None:
        """Set a key."""
        try:
            self.client.key_value_set(key, "1")
        except RuntimeError as exc:
            if "ALREADY_EXISTS" not in str(exc):
                raise

    def has(self, key: str) -> bool:
        """Whether a rank has set the key."""
        try:
            self.client.key_value_try_get(key)
        except RuntimeError as exc:
            if "NOT_FOUND" not in str(exc):
                raise
            return False
        return True


@dataclass(frozen=True)
class Shared:
    """What the ranks share, and which rank this is."""

    notes: Notes
    rank: int
    world_size: int
    prefix: str = _PREFIX


@dataclass(frozen=True)
class Address:
    """How a DataLoader's worker reaches its rank's store. attempt: torchrun's, which keeps the store."""

    host: str
    port: int
    rank: int
    world_size: int
    attempt: str

    def connected(self) -> Shared:
        """Open this process's own connection. Raises torch's exceptions."""
        from torch.distributed import TCPStore

        store = TCPStore(
            self.host, self.port, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=CONNECT_SECONDS)
        )
        return Shared(TorchNotes(store), self.rank, self.world_size, f"{_PREFIX}/workers/{self.attempt}")


def require_same(data: Dataset) -> None:
    """DatasetError if ranks of torch.distributed or JAX read different datasets under the same name."""
    shared = _shared_by_torch(data) or _shared_by_jax(data)
    if shared is not None:
        _require_same(data, shared, wait=True)


def require_same_in_worker(data: Dataset, address: Address, *, wait: bool) -> bool:
    """The same for the first worker of a plain DataLoader. Returns whether all ranks have noted something.

    wait: for ranks that have not noted anything yet.
    """
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
        notes.note(f"{key}/{rank}")  # the previous note is visible
        others = [other for other in (range(shared.world_size) if rank == 0 else (0,)) if other != rank]
        differing, absent = _differing(notes, key, mine, others, wait=wait and key not in _alone)
    except (
        Exception
    ) as exc:  # a closed store, or one that can't check for keys: reading continues without the comparison
        log.debug("%r: the ranks' datasets can't be compared: %s", data, exc)
        return False
    if absent:
        _alone.add(key)
    if differing:
        named = ", ".join(map(str, differing))
        fact = (
            f"rank {rank} reads another dataset than rank {named}: it was appended to or replaced between their starts"
            ", or they have other options or loaded other states"
        )
        cure = "start all ranks again, with the same options, while nothing writes to the dataset"
        raise DatasetError(repr(data.content), fact, cure)
    return not absent


def _differing(notes: Notes, key: str, mine: str, ranks: list[int], *, wait: bool) -> tuple[list[int], list[int]]:
    """(the ranks that read something else, those that have not noted anything), after a while."""
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
    """The address of torch.distributed's store; None if there is none, or it is not a TCPStore.

    It does not connect to anything, so that a forked worker may call it.
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
    """(store of torch.distributed, rank, world size), if there are several ranks."""
    torch: Any = sys.modules.get("torch")
    distributed = getattr(torch, "distributed", None)
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    rank, world_size = distributed.get_rank(), distributed.get_world_size()
    if world_size < 2:
        return None
    try:
        return distributed.distributed_c10d._get_default_store(), rank, world_size
    except (
        AttributeError,
        RuntimeError,
        ValueError,
    ):  # another version of torch, or a group without a store: nothing to compare
        return None


def _shared_by_torch(data: Dataset) -> Shared | None:
    """What is shared, if this is the main process of a rank that shares `data`."""
    found = None if _process["forked"] else _default_store()
    if found is None or data.reading.ranks != found[1:]:
        return None
    torch: Any = sys.modules["torch"]
    if torch.utils.data.get_worker_info() is not None:
        return None
    return Shared(TorchNotes(found[0]), *found[1:])


def _shared_by_jax(data: Dataset) -> Shared | None:
    """The same for jax.distributed. If its client is not of the known kind, nothing is compared."""
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
