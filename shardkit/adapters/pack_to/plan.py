"""What is packed while it is read: the scanned class tree with its plan, and what is at its destination already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from shardkit.adapters.pack_to.options import PackTo
from shardkit.errors import DestinationError, SourceError, UsageError, printable
from shardkit.events import no_progress
from shardkit.location import Location, locate
from shardkit.packing.dest.destination import Destination
from shardkit.packing.dest.earlier_run import find_finished
from shardkit.packing.dest.in_the_way import check_free
from shardkit.packing.options import PackOptions
from shardkit.packing.pack import Job, prepare
from shardkit.packing.parts.part import Part
from shardkit.packing.plan.content import PlannedDataset
from shardkit.sample import fs_text
from shardkit.shards.manifest import Manifest


@dataclass(frozen=True, slots=True, eq=False)
class PackingPlan:
    """A planned packing of a class tree."""

    asked: PackTo
    destination: Destination
    content: PlannedDataset
    options: PackOptions

    @property
    def digest(self) -> str:
        """32 hex digits for the content of the shards: the `plan` of their manifest."""
        return self.content.digest

    @property
    def location(self) -> Location:
        """The prefix of the shards."""
        return locate(str(self.destination).removesuffix(".json"))

    @property
    def storage_options(self) -> Mapping[str, Any] | None:
        """Options for the destination."""
        return self.asked.settings.storage_options

    def job(self, part: Part | None) -> Job:
        """The packing, or a part of it. For a destination that is locked. DestinationError for files in its way."""
        with self.own_cures():
            destination = check_free(self.destination, overwrite=False, parts=True)
        return Job("", destination, self.content, self.options, part)

    def finished(self) -> Manifest | None:
        """The manifest of the shards if they are complete; None if there is none. DestinationError for others, and if
        the tree has changed since."""
        with self.own_cures():
            return find_finished(self.destination, self.content, self.options)

    @contextmanager
    def own_cures(self) -> Iterator[None]:
        """Where `pack` would say `overwrite=True`, which is no option here, say what to call."""
        try:
            yield
        except DestinationError as exc:
            if "overwrite" not in exc.cure:
                raise
            cure = f"choose another destination, or replace it with {self.asked.command(overwrite=True)}"
            raise type(exc)(exc.place, exc.fact, cure) from exc


def plan_packing(asked: PackTo) -> PackingPlan:
    """Scan the class tree and plan its shards. Raises as `pack` does, and UsageError for anything but a class tree."""
    packing = prepare(asked.source, asked.dest, asked.settings, no_progress)
    splits = packing.opened.splits
    if splits is not None:
        fact = f"this folder holds splits, not classes: {', '.join(map(printable, splits))}"
        raise SourceError(fs_text(asked.source), fact, "name one of them, with a `pack_to` of its own")
    [job] = packing.jobs(packing.destinations, no_progress)
    source = job.content.source
    if source.elsewhere is not None or source.inline is not None:
        fact = "`pack_to` is for a folder of class folders, which can be read before it is packed"
        raise UsageError(fs_text(asked.source), fact, f"pack it first: {asked.command()}")
    return PackingPlan(asked, job.destination, job.content, packing.options)
