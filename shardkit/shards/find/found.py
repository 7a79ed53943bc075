"""The result of resolving a source."""

from __future__ import annotations

from dataclasses import dataclass

from shardkit.errors import UsageError
from shardkit.location import Location
from shardkit.shards.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Found:
    """What a source is: a manifest (and which of its shards), or shards without one, or a class directory."""

    manifest: Manifest | None = None
    location: Location | None = None
    numbers: tuple[int, ...] | None = None
    shards: tuple[Location, ...] = ()
    tree: Location | None = None

    @property
    def places(self) -> list[Location]:
        """The selected shards, from a manifest or not; empty for a class directory."""
        if self.manifest is None or self.location is None:
            return list(self.shards)
        numbers = range(len(self.manifest.shards)) if self.numbers is None else self.numbers
        beside = self.manifest.shards_beside(self.location)
        return [beside.sibling(self.manifest.shards[number].name) for number in numbers]

    def require_dataset(self, cure: str) -> None:
        """Raise UsageError with this cure for a class directory."""
        if self.tree is not None:
            raise UsageError(str(self.tree), "this is a class directory, not a dataset", cure)
