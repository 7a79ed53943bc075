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
    "BenchResult": "shardkit.tools.bench.bench",
    "ContactSheet": "shardkit.tools.view",
    "Dataset": "shardkit.reading.dataset",
    "DatasetInfo": "shardkit.tools.info",
    "Manifest": "shardkit.shards.manifest",
    "Progress": "shardkit.events",
    "Repaired": "shardkit.tools.repair.repair",
    "Report": "shardkit.tools.report.report",
    "ShardWriter": "shardkit.packing.shard_writer",
    "Transferred": "shardkit.tools.transfer.copy",
    "Unpacked": "shardkit.tools.unpack.unpack",
    "Verification": "shardkit.tools.verify.verify",
    "bench": "shardkit.tools.bench.bench",
    "concat": "shardkit.reading.dataset",
    "convert": "shardkit.tools.convert.convert",
    "dataset": "shardkit.reading.dataset",
    "download": "shardkit.tools.transfer.download",
    "index_shards": "shardkit.tools.index_shards",
    "info": "shardkit.tools.info",
    "mix": "shardkit.reading.dataset",
    "pack": "shardkit.packing.pack",
    "repair": "shardkit.tools.repair.repair",
    "report": "shardkit.tools.report.report",
    "unpack": "shardkit.tools.unpack.unpack",
    "upload": "shardkit.tools.transfer.upload",
    "verify": "shardkit.tools.verify.verify",
    "view": "shardkit.tools.view",
    "write": "shardkit.packing.shard_writer",
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
    from shardkit.packing.pack import pack
    from shardkit.packing.shard_writer import ShardWriter, write
    from shardkit.reading.dataset import Dataset, concat, dataset, mix
    from shardkit.shards.manifest import Manifest
    from shardkit.tools.bench.bench import BenchResult, bench
    from shardkit.tools.convert.convert import convert
    from shardkit.tools.index_shards import index_shards
    from shardkit.tools.info import DatasetInfo, info
    from shardkit.tools.repair.repair import Repaired, repair
    from shardkit.tools.report.report import Report, report
    from shardkit.tools.transfer.copy import Transferred
    from shardkit.tools.transfer.download import download
    from shardkit.tools.transfer.upload import upload
    from shardkit.tools.unpack.unpack import Unpacked, unpack
    from shardkit.tools.verify.verify import Verification, verify
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
