"""What a packing gives back: each dataset by its name, with its place and its manifest."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from shardkit.errors import UsageError
from shardkit.shards.manifest import ClassEntry, IndexEntry, Manifest, ShardEntry


class _OfManifest:
    """The values of a manifest, as the properties of what has it."""

    __slots__ = ()

    def _of(self) -> Manifest:
        raise NotImplementedError

    @property
    def samples(self) -> int:
        """How many samples it has."""
        return self._of().samples

    @property
    def bytes(self) -> int:
        """The bytes of its shards."""
        return self._of().bytes

    @property
    def shard_format(self) -> str:
        """The format of its shards, such as "tar"."""
        return self._of().shard_format

    @property
    def classes(self) -> tuple[ClassEntry, ...]:
        """Its classes in label order, each with its count."""
        return self._of().classes

    @property
    def class_names(self) -> list[str]:
        """The names of its classes in label order."""
        return self._of().class_names

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of the fields that its samples have."""
        return self._of().fields

    @property
    def shards(self) -> tuple[ShardEntry, ...]:
        """Its shards, in their order."""
        return self._of().shards

    @property
    def index(self) -> tuple[IndexEntry, ...]:
        """The files of its index."""
        return self._of().index

    @property
    def skipped(self) -> int:
        """How many files were left out as bad."""
        return self._of().skipped

    @property
    def options(self) -> dict[str, Any]:
        """The options that decided its content."""
        return self._of().options

    @property
    def plan(self) -> str:
        """What tells equal packings (hex)."""
        return self._of().plan


@dataclass(frozen=True, slots=True, eq=False)
class PackedDataset(_OfManifest):
    """A dataset that was packed. `dataset(packed)` reads it.

    location: what the names of its files start with, as `dest` was given: relative, absolute or a URL.
    """

    location: str
    manifest: Manifest

    def __fspath__(self) -> str:
        return self.location

    def __eq__(self, other: object) -> bool:
        """Whether the manifests are equal, wherever the files are. A manifest can be compared too."""
        return self.manifest == (other.manifest if isinstance(other, PackedDataset) else other)

    __hash__ = None  # type: ignore[assignment]

    def _of(self) -> Manifest:
        return self.manifest


class Packed(_OfManifest, Mapping[str, PackedDataset]):
    """The datasets that were packed: name -> PackedDataset. Of splits the names are theirs, in their order.

    Where there is one dataset, its manifest's values are to be had from this, too: `packed.samples`, `packed.shards`.
    """

    __slots__ = ("_datasets", "splits")

    def __init__(self, datasets: Mapping[str, PackedDataset], *, splits: bool) -> None:
        self._datasets = dict(datasets)
        self.splits = splits
        """Whether the datasets are splits of one source."""

    def __getitem__(self, name: str) -> PackedDataset:
        return self._datasets[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._datasets)

    def __len__(self) -> int:
        return len(self._datasets)

    def __repr__(self) -> str:
        return f"Packed({', '.join(f'{name}: {each.location}' for name, each in self.items())})"

    def __eq__(self, other: object) -> bool:
        """Whether the manifests are equal. A manifest, and a mapping of name to manifest, can be compared too."""
        if isinstance(other, Packed):
            return self._compared() == other._compared()
        return self._compared() == other

    __hash__ = None  # type: ignore[assignment]

    def _compared(self) -> Manifest | dict[str, Manifest]:
        return self.manifests if self.splits else self.manifest

    def __fspath__(self) -> str:
        return self._only().location

    @property
    def manifest(self) -> Manifest:
        """The manifest of the only dataset. UsageError where there are several."""
        return self._only().manifest

    @property
    def location(self) -> str:
        """The location of the only dataset. UsageError where there are several."""
        return self._only().location

    @property
    def manifests(self) -> dict[str, Manifest]:
        """The manifest of each dataset."""
        return {name: each.manifest for name, each in self.items()}

    def _of(self) -> Manifest:
        return self._only().manifest

    def _only(self) -> PackedDataset:
        if len(self) != 1:
            cure = f"choose one, such as result[{next(iter(self), '')!r}]"
            raise UsageError("Packed", f"it has {len(self)} datasets: {', '.join(self)}", cure)
        return next(iter(self._datasets.values()))


ClassesFrom = str | os.PathLike[str] | Manifest | Packed | PackedDataset
"""A dataset whose classes are to be used: its manifest, as a file or a value, or what `pack` gave back."""
