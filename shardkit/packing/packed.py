"""The result of a packing: each dataset by name, with its location and manifest."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from shardkit.errors import UsageError
from shardkit.shards.manifest import ClassEntry, IndexEntry, Manifest, ShardEntry


class _OfManifest:
    """The values of a manifest as properties."""

    __slots__ = ()

    def _of(self) -> Manifest:
        raise NotImplementedError

    @property
    def samples(self) -> int:
        """The number of samples."""
        return self._of().samples

    @property
    def bytes(self) -> int:
        """The total size of the shards in bytes."""
        return self._of().bytes

    @property
    def shard_format(self) -> str:
        """The format of the shards, such as "tar"."""
        return self._of().shard_format

    @property
    def classes(self) -> tuple[ClassEntry, ...]:
        """The classes in label order, each with its count."""
        return self._of().classes

    @property
    def class_names(self) -> list[str]:
        """The class names in label order."""
        return self._of().class_names

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of the samples' fields."""
        return self._of().fields

    @property
    def shards(self) -> tuple[ShardEntry, ...]:
        """The shards in order."""
        return self._of().shards

    @property
    def index(self) -> tuple[IndexEntry, ...]:
        """The index files."""
        return self._of().index

    @property
    def skipped(self) -> int:
        """The number of files that were skipped as bad."""
        return self._of().skipped

    @property
    def options(self) -> dict[str, Any]:
        """The options that determine the content."""
        return self._of().options

    @property
    def plan(self) -> str:
        """The digest of the plan (hex), equal for equal packings."""
        return self._of().plan


@dataclass(frozen=True, slots=True, eq=False)
class PackedDataset(_OfManifest):
    """A packed dataset. `dataset(packed)` reads it.

    location: the beginning of the names of its files, in the form in which `dest` was given: relative, absolute or a
    URL.
    """

    location: str
    manifest: Manifest

    def __repr__(self) -> str:
        manifest = self.manifest
        counts = f"samples={manifest.samples}, shards={len(manifest.shards)}, classes={len(manifest.classes)}"
        return f"PackedDataset({str(self.location)!r}, {counts})"

    def __fspath__(self) -> str:
        return self.location

    def __eq__(self, other: object) -> bool:
        """Whether the manifests are equal, wherever the files are. A manifest can be compared too."""
        return self.manifest == (other.manifest if isinstance(other, PackedDataset) else other)

    __hash__ = None  # type: ignore[assignment]

    def _of(self) -> Manifest:
        return self.manifest


class Packed(_OfManifest, Mapping[str, PackedDataset]):
    """The packed datasets: name -> PackedDataset. For splits, the names are those of the splits, in order.

    If there is only one dataset, the values of its manifest are available here too: `packed.samples`, `packed.shards`.
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
        parts = (f"{name}: {each.manifest.samples:,} samples in {each.location}" for name, each in self.items())
        return f"Packed({', '.join(parts)})"

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
        """The manifest of the only dataset. UsageError if there are several."""
        return self._only().manifest

    @property
    def location(self) -> str:
        """The location of the only dataset. UsageError if there are several."""
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
"""A dataset whose classes to use: its manifest, as a file or a value, or a result of `pack`."""
