"""Pack a class tree of images into tar shards, and stream them into training.

    shardkit.pack("data/train", "shards/train")
    for images, labels in shardkit.dataset("shards/train", shuffle=10_000).decode(size=224).batch(64): ...

Nothing is loaded before its first use: `import shardkit` is cheap, and imports no image, Parquet or training
library. Type checkers and editors find the names in `__init__.pyi`.
"""

from __future__ import annotations

from shardkit.version import __version__

_HOME = {
    "Advice": "shardkit.tools.bench.advice",
    "Augment": "shardkit.images.augment.options",
    "Boxes": "shardkit.images.annotations.options",
    "Batch": "shardkit.reading.batches.batch",
    "EncodedBatch": "shardkit.reading.batches.encoded",
    "BenchResult": "shardkit.tools.bench.bench",
    "ChangeFindings": "shardkit.tools.report.report",
    "ClassEntry": "shardkit.shards.manifest",
    "ContactSheet": "shardkit.tools.view",
    "Corrected": "shardkit.tools.corrections.commit",
    "Copied": "shardkit.tools.transfer.copy",
    "Dataset": "shardkit.reading.dataset",
    "DecodedSample": "shardkit.sample",
    "DatasetFindings": "shardkit.tools.report.report",
    "DatasetInfo": "shardkit.tools.info",
    "DatasetPlan": "shardkit.packing.pack",
    "Difference": "shardkit.tools.corrections.diff",
    "Exported": "shardkit.tools.export.export",
    "ExportedFile": "shardkit.tools.export.export",
    "FieldsEntry": "shardkit.shards.corrections.block",
    "FileEntry": "shardkit.shards.corrections.block",
    "Finding": "shardkit.shards.findings",
    "Headspace": "shardkit.reading.stats.headspace",
    "Images": "shardkit.packing.settings",
    "IndexEntry": "shardkit.shards.manifest",
    "LabelOptions": "shardkit.sources.options",
    "LeakFindings": "shardkit.tools.report.report",
    "LeftOut": "shardkit.tools.repair.salvaged",
    "Manifest": "shardkit.shards.manifest",
    "Measurement": "shardkit.tools.bench.measure",
    "OpenTelemetryStats": "shardkit.reading.stats.exported",
    "OverlayEntry": "shardkit.shards.corrections.block",
    "PackPlan": "shardkit.packing.pack",
    "PageDataset": "shardkit.tools.viewer.page",
    "Packed": "shardkit.packing.packed",
    "PackedDataset": "shardkit.packing.packed",
    "PathSummary": "shardkit.packing.plan.append",
    "Pictures": "shardkit.tools.settings",
    "Progress": "shardkit.events",
    "Range": "shardkit.tools.info",
    "Ray": "shardkit.packing.engine.options",
    "Renamed": "shardkit.tools.repair.repair",
    "Repaired": "shardkit.tools.repair.repair",
    "Report": "shardkit.tools.report.report",
    "Sample": "shardkit.sample",
    "ShardEntry": "shardkit.shards.manifest",
    "ShardWriter": "shardkit.packing.shard_writer",
    "ShownClass": "shardkit.tools.view",
    "StageTime": "shardkit.reading.stats.stats",
    "Stats": "shardkit.reading.stats.stats",
    "TableColumns": "shardkit.sources.options",
    "Transferred": "shardkit.tools.transfer.copy",
    "Unpacked": "shardkit.tools.unpack.unpack",
    "Verification": "shardkit.tools.verify.verify",
    "VersionEntry": "shardkit.shards.corrections.block",
    "View": "shardkit.images.views.options",
    "ViewPage": "shardkit.tools.viewer.page",
    "add_fields": "shardkit.tools.corrections.add_fields",
    "bench": "shardkit.tools.bench.bench",
    "concat": "shardkit.reading.combine",
    "convert": "shardkit.tools.convert.convert",
    "dataset": "shardkit.reading.dataset",
    "delete": "shardkit.tools.corrections.delete",
    "diff": "shardkit.tools.corrections.diff",
    "download": "shardkit.tools.transfer.download",
    "export": "shardkit.tools.export.export",
    "headspace": "shardkit.reading.stats.headspace",
    "index_shards": "shardkit.tools.index_shards",
    "info": "shardkit.tools.info",
    "log": "shardkit.tools.corrections.history",
    "merge": "shardkit.tools.merge.merge",
    "mix": "shardkit.reading.combine",
    "pack": "shardkit.packing.pack",
    "plan_pack": "shardkit.packing.pack",
    "relabel": "shardkit.tools.corrections.relabel",
    "repair": "shardkit.tools.repair.repair",
    "report": "shardkit.tools.report.report",
    "revert": "shardkit.tools.corrections.history",
    "unpack": "shardkit.tools.unpack.unpack",
    "upload": "shardkit.tools.transfer.upload",
    "verify": "shardkit.tools.verify.verify",
    "view": "shardkit.tools.view",
    "view_page": "shardkit.tools.viewer.page",
    "write": "shardkit.packing.shard_writer",
    "BadFileError": "shardkit.errors",
    "BusyError": "shardkit.errors",
    "DamagedError": "shardkit.errors",
    "DatasetError": "shardkit.errors",
    "DecodeError": "shardkit.errors",
    "DestinationError": "shardkit.errors",
    "LengthError": "shardkit.errors",
    "ManifestError": "shardkit.errors",
    "MissingExtraError": "shardkit.errors",
    "MissingFileError": "shardkit.errors",
    "MissingSourceError": "shardkit.errors",
    "NotFoundError": "shardkit.errors",
    "ReplacedError": "shardkit.errors",
    "SampleIndexError": "shardkit.errors",
    "ShardkitError": "shardkit.errors",
    "SourceError": "shardkit.errors",
    "StateError": "shardkit.errors",
    "StorageError": "shardkit.errors",
    "TransientError": "shardkit.errors",
    "UsageError": "shardkit.errors",
    "WorkerError": "shardkit.errors",
}
"""The module of each public name. `__init__.pyi` imports the same names; a test compares the two."""

_NEED_EXTRA = {
    "KerasDataset": "shardkit.adapters.keras.pydataset",
    "TorchBatch": "shardkit.adapters.torch.tensors",
    "TorchDataset": "shardkit.adapters.torch.iterable",
    "TorchLoader": "shardkit.adapters.torch.loader",
    "TorchMap": "shardkit.adapters.torch.numbered",
    "WebDatasetPipeline": "shardkit.adapters.webdataset",
}
"""Public classes that need an extra. They are not in `__all__`, so that `import *` works without it."""

_MODULES = ("keras", "lightning", "ray", "tensorflow")
"""Modules that are also loaded on first use, and need an extra: `shardkit.keras.flow_from_shards`."""

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> object:
    """Load a public name on first use (PEP 562)."""
    import importlib

    if name in _MODULES:
        return importlib.import_module(f"shardkit.{name}")
    home = _HOME.get(name) or _NEED_EXTRA.get(name)
    if home is None:
        raise _no_name(name)
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def _no_name(name: str) -> AttributeError:
    import importlib.util

    if name.startswith("_") or importlib.util.find_spec(f"shardkit.{name}") is not None:
        return AttributeError(f"module 'shardkit' has no attribute {name!r}")  # `from shardkit import rng` asks first
    from shardkit.options.keywords import no_name

    return no_name("shardkit", name, __all__)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, *_NEED_EXTRA, *_MODULES})
