"""The result of resolving a source."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from shardkit.errors import UsageError
from shardkit.location import Location
from shardkit.shards.manifest import Manifest
from shardkit.shards.names import without_version


class Found(msgspec.Struct, frozen=True):
    """What a source is: a manifest (and which of its shards), or shards without one, or a class directory."""

    manifest: Manifest | None = None
    location: Location | None = None
    numbers: tuple[int, ...] | None = None
    shards: tuple[Location, ...] = ()
    tree: Location | None = None
    older: bool = False
    """Whether it is an older version of the dataset, and `location` its own manifest."""

    @property
    def stem(self) -> str:
        """The name of a dataset with a manifest, whatever its version."""
        name = "" if self.location is None else self.location.name.removesuffix(".json")
        return without_version(name) if self.older else name

    def absolute(self) -> Found:
        """The same in a process with another working directory."""
        location, tree = (None if place is None else place.absolute() for place in (self.location, self.tree))
        shards = tuple(shard.absolute() for shard in self.shards)
        return replace(self, location=location, tree=tree, shards=shards)

    @property
    def places(self) -> list[Location]:
        """The selected shards, from a manifest or not; empty for a class directory."""
        if self.manifest is None or self.location is None:
            return list(self.shards)
        numbers = range(len(self.manifest.shards)) if self.numbers is None else self.numbers
        beside = self.manifest.shards_beside(self.location)
        return [beside.sibling(self.manifest.shards[number].name) for number in numbers]

    def require_current(self, what: str) -> None:
        """Raise UsageError for an older version. what: what the caller does with a dataset."""
        if self.older:
            fact = f"this is an older version, and only the current one can be named to {what}"
            raise UsageError(str(self.location), fact, "name the dataset without '@'")

    def require_dataset(self, cure: str) -> None:
        """Raise UsageError with this cure for a class directory."""
        if self.tree is not None:
            raise UsageError(str(self.tree), "this is a class directory, not a dataset", cure)
