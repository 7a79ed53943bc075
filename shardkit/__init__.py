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
    "BenchResult": "shardkit.tools.bench",
    "ContactSheet": "shardkit.tools.view",
    "Dataset": "shardkit.reading.dataset",
    "DatasetInfo": "shardkit.tools.info",
    "Manifest": "shardkit.manifest",
    "Progress": "shardkit.events",
    "Repaired": "shardkit.tools.repair",
    "Report": "shardkit.tools.report",
    "ShardWriter": "shardkit.packing.writer",
    "Transferred": "shardkit.tools._transfer",
    "Unpacked": "shardkit.tools.unpack",
    "Verification": "shardkit.tools.verify",
    "bench": "shardkit.tools.bench",
    "concat": "shardkit.reading.dataset",
    "convert": "shardkit.tools.convert",
    "dataset": "shardkit.reading.dataset",
    "download": "shardkit.tools.download",
    "index_shards": "shardkit.tools.indexing",
    "info": "shardkit.tools.info",
    "mix": "shardkit.reading.dataset",
    "pack": "shardkit.packing.job",
    "repair": "shardkit.tools.repair",
    "report": "shardkit.tools.report",
    "unpack": "shardkit.tools.unpack",
    "upload": "shardkit.tools.upload",
    "verify": "shardkit.tools.verify",
    "view": "shardkit.tools.view",
    "write": "shardkit.packing.writer",
    "BadFileError": "shardkit.errors",
    "BusyError": "shardkit.errors",
    "DamagedError": "shardkit.errors",
    "DatasetError": "shardkit.errors",
    "DecodeError": "shardkit.errors",
    "DestinationError": "shardkit.errors",
    "ManifestError": "shardkit.errors",
    "MissingExtraError": "shardkit.errors",
    "MissingFileError": "shardkit.errors",
    "MissingSourceError": "shardkit.errors",
    "NotFoundError": "shardkit.errors",
    "ShardkitError": "shardkit.errors",
    "SourceError": "shardkit.errors",
    "StateError": "shardkit.errors",
    "StorageError": "shardkit.errors",
    "UsageError": "shardkit.errors",
    "WorkerError": "shardkit.errors",
}
"""Where each public name lives. A type checker takes them from the imports below; a test holds the two together."""

_MODULES = ("keras", "tensorflow")
"""Modules that are loaded at their first use, too, and need their extra: `shardkit.keras.flow_from_shards`."""

__all__ = [
    "BadFileError",
    "BenchResult",
    "BusyError",
    "ContactSheet",
    "DamagedError",
    "Dataset",
    "DatasetError",
    "DatasetInfo",
    "DecodeError",
    "DestinationError",
    "Manifest",
    "ManifestError",
    "MissingExtraError",
    "MissingFileError",
    "MissingSourceError",
    "NotFoundError",
    "Progress",
    "Repaired",
    "Report",
    "ShardWriter",
    "ShardkitError",
    "SourceError",
    "StateError",
    "StorageError",
    "Transferred",
    "Unpacked",
    "UsageError",
    "Verification",
    "WorkerError",
    "__version__",
    "bench",
    "concat",
    "convert",
    "dataset",
    "download",
    "index_shards",
    "info",
    "mix",
    "pack",
    "repair",
    "report",
    "unpack",
    "upload",
    "verify",
    "view",
    "write",
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
        MissingFileError,
        MissingSourceError,
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
    from shardkit.packing.writer import ShardWriter, write
    from shardkit.reading.dataset import Dataset, concat, dataset, mix
    from shardkit.tools._transfer import Transferred
    from shardkit.tools.bench import BenchResult, bench
    from shardkit.tools.convert import convert
    from shardkit.tools.download import download
    from shardkit.tools.indexing import index_shards
    from shardkit.tools.info import DatasetInfo, info
    from shardkit.tools.repair import Repaired, repair
    from shardkit.tools.report import Report, report
    from shardkit.tools.unpack import Unpacked, unpack
    from shardkit.tools.upload import upload
    from shardkit.tools.verify import Verification, verify
    from shardkit.tools.view import ContactSheet, view
else:

    def __getattr__(name: str) -> object:
        """Load a public name at its first use (PEP 562)."""
        import importlib

        if name in _MODULES:
            return importlib.import_module(f"shardkit.{name}")
        if name not in _HOME:
            raise AttributeError(f"module 'shardkit' has no attribute {name!r}")
        value = getattr(importlib.import_module(_HOME[name]), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__, *_MODULES})


if TYPE_CHECKING:
    from shardkit import keras as keras
    from shardkit import tensorflow as tensorflow
