"""Pack a class tree of images into tar shards, and stream them into training.

    shardkit.pack("data/train", "shards/train")
    for images, labels in shardkit.dataset("shards/train", shuffle=10_000).decode(size=224).batch(64): ...

Nothing is loaded before its first use: `import shardkit` costs little, and brings no image, Parquet or training
library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

_HOME = {
    "Dataset": "shardkit.reading.dataset",
    "DatasetInfo": "shardkit.tools.info",
    "Manifest": "shardkit.manifest",
    "Progress": "shardkit.events",
    "Repaired": "shardkit.tools.repair",
    "Unpacked": "shardkit.tools.unpack",
    "Verification": "shardkit.tools.verify",
    "concat": "shardkit.reading.dataset",
    "convert": "shardkit.tools.convert",
    "dataset": "shardkit.reading.dataset",
    "index_shards": "shardkit.tools.indexing",
    "info": "shardkit.tools.info",
    "mix": "shardkit.reading.dataset",
    "pack": "shardkit.packing.job",
    "repair": "shardkit.tools.repair",
    "unpack": "shardkit.tools.unpack",
    "verify": "shardkit.tools.verify",
    "BadFileError": "shardkit.errors",
    "BusyError": "shardkit.errors",
    "DamagedError": "shardkit.errors",
    "DatasetError": "shardkit.errors",
    "DecodeError": "shardkit.errors",
    "DestinationError": "shardkit.errors",
    "ManifestError": "shardkit.errors",
    "MissingExtraError": "shardkit.errors",
    "NotFoundError": "shardkit.errors",
    "ShardkitError": "shardkit.errors",
    "SourceError": "shardkit.errors",
    "StateError": "shardkit.errors",
    "StorageError": "shardkit.errors",
    "UsageError": "shardkit.errors",
    "WorkerError": "shardkit.errors",
}
"""Where each public name lives. A type checker takes them from the imports below; a test holds the two together."""

_MODULES = {"keras": "shardkit.adapters.keras", "tensorflow": "shardkit.adapters.tensorflow"}
"""Modules under a short name, each of which needs its extra: `shardkit.keras.flow_from_shards`."""

__all__ = [
    "BadFileError",
    "BusyError",
    "DamagedError",
    "Dataset",
    "DatasetError",
    "DatasetInfo",
    "DecodeError",
    "DestinationError",
    "Manifest",
    "ManifestError",
    "MissingExtraError",
    "NotFoundError",
    "Progress",
    "Repaired",
    "ShardkitError",
    "SourceError",
    "StateError",
    "StorageError",
    "Unpacked",
    "UsageError",
    "Verification",
    "WorkerError",
    "__version__",
    "concat",
    "convert",
    "dataset",
    "index_shards",
    "info",
    "mix",
    "pack",
    "repair",
    "unpack",
    "verify",
]

if TYPE_CHECKING:
    from shardkit.errors import (
        BadFileError,
        BusyError,
        DamagedError,
        DatasetError,
        DecodeError,
        DestinationError,
        ManifestError,
        MissingExtraError,
        NotFoundError,
        ShardkitError,
        SourceError,
        StateError,
        StorageError,
        UsageError,
        WorkerError,
    )
    from shardkit.events import Progress
    from shardkit.manifest import Manifest
    from shardkit.packing.job import pack
    from shardkit.reading.dataset import Dataset, concat, dataset, mix
    from shardkit.tools.convert import convert
    from shardkit.tools.indexing import index_shards
    from shardkit.tools.info import DatasetInfo, info
    from shardkit.tools.repair import Repaired, repair
    from shardkit.tools.unpack import Unpacked, unpack
    from shardkit.tools.verify import Verification, verify
else:

    def __getattr__(name: str) -> object:
        """Load a public name at its first use (PEP 562)."""
        import importlib

        if name in _MODULES:
            return importlib.import_module(_MODULES[name])
        if name not in _HOME:
            raise AttributeError(f"module 'shardkit' has no attribute {name!r}")
        value = getattr(importlib.import_module(_HOME[name]), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__, *_MODULES})


if TYPE_CHECKING:
    from shardkit.adapters import keras as keras
    from shardkit.adapters import tensorflow as tensorflow
