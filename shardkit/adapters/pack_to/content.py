"""What a Dataset with `pack_to` reads: the class tree while it is packed, then its shards.

Both have the same rows: sample i of the plan is row i of the shards. So the order of each epoch is the same whether the
shards are there yet or not, and so are a position in it, labels and random numbers. The first epoch of a shuffled
Dataset has the order of the plan, which the packing shuffled, in a run of it for each rank; the others have the usual
order.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shardkit.adapters.pack_to.catalog import PlannedCatalog
from shardkit.adapters.pack_to.options import PackTo, pack_to_of
from shardkit.adapters.pack_to.packer import Packer, packer_of
from shardkit.adapters.pack_to.plan import PackingPlan, plan_packing
from shardkit.adapters.pack_to.ranks import await_merge
from shardkit.errors import redacted
from shardkit.formats.tfrecord.samples import FieldNames
from shardkit.location import Location
from shardkit.packing.parts.part import Part
from shardkit.reading.blocks.block import Catalog
from shardkit.reading.content import Named, Ordering, UsualContent
from shardkit.reading.options import Reading
from shardkit.reading.order.as_packed import PackedOrder
from shardkit.reading.order.epoch_order import Order
from shardkit.reading.order.layout import Layout
from shardkit.shards.manifest import Manifest
from shardkit.storage.access import Remote

AWAITED_SECONDS = 30.0
"""How long a rank waits at the beginning of an epoch for the shards of the others."""


@dataclass(frozen=True)
class EpochContent(UsualContent):
    """What one epoch reads: the tree and what is written of the shards, or the complete shards."""

    catalog: Catalog
    identity: str
    remote: Remote
    streams: Sequence[Location] = ()
    names: FieldNames | None = None
    resolved = True
    whole_only = True
    versions: Sequence[int] = (1,)

    def now(self, reading: Reading) -> EpochContent:
        """Itself."""
        return self

    def forget(self) -> None:
        """Do nothing: this is of one epoch."""

    def order(self, ordering: Ordering, layout: Layout, epoch: int) -> Order | None:
        """The order of the packing in the first epoch, if it is shuffled at all; None for the usual order."""
        if epoch or not ordering.buffer:
            return None
        return PackedOrder(self.samples(None), layout.sections)


class PackedWhileRead(UsualContent):
    """A class tree that is packed while it is read. Opened once per process; pickled, it is opened again."""

    streams: Sequence[Location] = ()
    names: FieldNames | None = None
    whole_only = True
    versions: Sequence[int] = (1,)

    def __init__(self, asked: PackTo, *, verify: bool | None, remote: Remote) -> None:
        self.asked, self.verify, self.remote = asked, verify, remote
        self._lock = threading.RLock()
        self._plan: PackingPlan | None = None
        self._packer: Packer | None = None
        self._tree: PlannedCatalog | None = None
        self._shards: tuple[str, Named] | None = None
        self._awaited = False

    def __getstate__(self) -> dict[str, Any]:
        """Without what was scanned; with the shards if they are complete."""
        return {"asked": self.asked, "verify": self.verify, "remote": self.remote, "_shards": self._shards}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["asked"], verify=state["verify"], remote=state["remote"])  # type: ignore[misc]
        self._shards = state["_shards"]

    def __repr__(self) -> str:
        return redacted(f"{self.asked.source!r} pack_to={self.asked.dest!r}")

    @property
    def resolved(self) -> bool:
        """Whether the tree was scanned, or the shards were found."""
        return self._plan is not None or self._shards is not None

    def forget(self) -> None:
        """Scan the tree again at the next use."""
        with self._lock:
            self._plan = self._packer = self._tree = self._shards = None

    def now(self, reading: Reading | None) -> EpochContent:
        """What an epoch reads that begins now. Without `reading`, nothing is packed."""
        with self._lock:
            if self._shards is None and (reading is not None or self._plan is None):
                self._look()
            if self._shards is not None:
                identity, named = self._shards
                return EpochContent(named.catalog, identity, self.remote)
            plan = self._planned()
            packer = None if reading is None else self._packer_of(plan, reading.ranks)
            if self._tree is None:
                self._tree = PlannedCatalog(plan)
            catalog = self._tree if packer is None else self._tree.packed_by(packer)
            return EpochContent(catalog, _identity(plan, len(plan.content.source)), self.remote)

    @property
    def catalog(self) -> Catalog:
        """The catalog, which has the same rows before and after the packing."""
        return self.now(None).catalog

    @property
    def identity(self) -> str:
        """The plan, and the number of samples."""
        return self.now(None).identity

    def order(self, ordering: Ordering, layout: Layout, epoch: int) -> Order | None:
        """As of an epoch that begins now."""
        return self.now(None).order(ordering, layout, epoch)

    def _planned(self) -> PackingPlan:
        if self._plan is None:
            self._plan = plan_packing(self.asked)
        return self._plan

    def _packer_of(self, plan: PackingPlan, ranks: tuple[int, int]) -> Packer:
        rank, world_size = ranks
        part = Part(rank + 1, world_size) if world_size > 1 else None
        known = self._packer
        if known is None or known.part != part or known.process != os.getpid():  # threads do not live on after a fork
            known = self._packer = packer_of(plan, part)
        return known

    def _look(self) -> None:
        """Find the shards, if they are complete; wait for those of other ranks if this one's are."""
        plan, packer = self._planned(), self._packer
        if packer is not None and packer.finished and packer.part is not None:
            await_merge(plan, packer.part, 0.0 if self._awaited else AWAITED_SECONDS)
            self._awaited = True
        manifest: Manifest | None = plan.finished()
        if manifest is not None:
            named = Named(str(plan.destination), verify=self.verify, remote=self.remote)
            self._shards = _identity(plan, manifest.samples), named
            self._plan = self._packer = self._tree = None


def _identity(plan: PackingPlan, samples: int) -> str:
    """Names the samples and their order. Files that a packing skipped make another dataset."""
    return f"packed:{plan.digest}:{samples}"


def packed_while_read(
    source: object, given: object, storage_options: Mapping[str, Any] | None, *, verify: bool | None, remote: Remote
) -> PackedWhileRead:
    """The content of `dataset(source, pack_to=given)`. UsageError."""
    return PackedWhileRead(pack_to_of(source, given, storage_options), verify=verify, remote=remote)
