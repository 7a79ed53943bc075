"""`dataset_info.json`, `features.json` and the class names, for `tfds.builder_from_directory` on TFRecord shards.

The first two are protocol buffers of TensorFlow Datasets as JSON (core/proto/dataset_info.proto, feature.proto there).
A template in the first says how the shards of a split are called: `{SPLIT}-0{SHARD_INDEX}.{FILEFORMAT}`, since its
SHARD_INDEX has five digits up to 100,000 shards, and ours have six. The names are in `image.class.label.labels.txt`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from shardkit.errors import DatasetError, UsageError, printable
from shardkit.formats.tfrecord.example import parse_example
from shardkit.formats.tfrecord.features import ENCODED, FILENAME, FORMAT, KEY, LABEL, TEXT
from shardkit.storage.store import read
from shardkit.tools.export.class_names import class_names_text
from shardkit.tools.export.files import GENERATOR
from shardkit.tools.export.splits import Split, Splits

INFO, FEATURES, LABELS = "dataset_info.json", "features.json", f"{LABEL.replace('/', '.')}.labels.txt"
VERSION = "1.0.0"
LENGTH_BYTES, HEAD_BYTES = 8, 12
"""A record begins with its length, and has its data after the checksum of that."""

DIGITS = 5
"""The digits of TFDS' SHARD_INDEX, more only where the number of shards has more."""

DECODED = ("jpg", "png", "gif", "bmp")
"""The fields whose images TensorFlow decodes."""

CURE = "write them again: shardkit convert SOURCE DEST --format tfrecord"
"""For shards that TFDS can't read."""

_PYTHON = "tensorflow_datasets.core.features"


def info_json(splits: Splits) -> bytes:
    """The content of `dataset_info.json`. UsageError for tar shards; DatasetError for names that TFDS can't have."""
    _require_readable(splits)
    found: dict[str, Any] = {
        "name": re.sub(r"\W+", "_", splits.title, flags=re.ASCII).strip("_").lower() or "dataset",
        "version": VERSION,
        "moduleName": GENERATOR,
        "fileFormat": "tfrecord",
        "splits": [
            {
                "name": split.name,
                "shardLengths": [str(shard.samples) for shard in split.manifest.shards],
                "numBytes": str(split.manifest.bytes),
                "filepathTemplate": _template(split),
            }
            for split in splits.splits
        ],
    }
    if splits.columns:  # features.json has those of the records only
        told = ", ".join(f"{name} ({text})" for name, text in splits.columns.items())
        found["description"] = f"Columns of the index, a Parquet file beside the shards: {told}."
    if _has_labels(splits):
        found["supervisedKeys"] = {"input": ENCODED, "output": LABEL}
    return _json(found)


def features_json(splits: Splits) -> bytes:
    """The content of `features.json`: the features that every record has."""
    _require_readable(splits)
    there = set.intersection(*(_features_of(split) for split in splits.splits))
    text = _feature("text_feature.Text", text={})
    known = {
        ENCODED: _feature("image_feature.Image", image={"dtype": "uint8", "shape": {"dimensions": ["-1", "-1", "3"]}}),
        **dict.fromkeys((FORMAT, FILENAME, KEY, TEXT), text),
    }
    if _has_labels(splits):
        classes = {"numClasses": str(len(splits.classes))}
        known[LABEL] = _feature("class_label_feature.ClassLabel", classLabel=classes)
    features = {name: feature for name, feature in known.items() if name in there}
    return _json(_feature("features_dict.FeaturesDict", featuresDict={"features": features}))


def _features_of(split: Split) -> set[str]:
    """The names of the features in the first record. DatasetError for records of another layout."""
    shard = split.manifest.shards[0]
    store, name = split.files.store, split.source_of(shard).name
    size = min(int.from_bytes(bytes(read(store, name, 0, LENGTH_BYTES)), "little"), shard.bytes)
    found = set(parse_example(bytes(read(store, name, HEAD_BYTES, HEAD_BYTES + size))))
    needed = {ENCODED, LABEL} if split.manifest.classes else {ENCODED}
    if needed - found:
        fact = f"its records have no feature {min(needed - found)}: another program wrote them"
        raise DatasetError(split.place, fact, CURE)
    return found


def is_features(data: bytes) -> bool:
    """Whether a file is a `features.json` of TensorFlow Datasets, for records as shardkit writes them."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return False
    features = found.get("featuresDict", {}) if isinstance(found, dict) else {}
    return isinstance(features, dict) and ENCODED in features.get("features", ())


def labels_text(splits: Splits) -> bytes | None:
    """The names of the classes, one per line; None for a dataset without labels."""
    return class_names_text(splits) if _has_labels(splits) else None


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=4, sort_keys=True).encode() + b"\n"


def _feature(name: str, **how: Any) -> dict[str, Any]:
    return {"pythonClassName": f"{_PYTHON}.{name}", **how}


def _has_labels(splits: Splits) -> bool:
    """Whether each sample has one class."""
    return all(
        split.manifest.labels in ("class", "listed")
        and sum(entry.count for entry in split.manifest.classes) == split.manifest.samples
        for split in splits.splits
    )


def _template(split: Split) -> str:
    """The template of the shards' names. DatasetError if TFDS can't give them."""
    names = [shard.name for shard in split.manifest.shards]
    head = re.fullmatch(rf"{re.escape(split.name)}(?P<generation>(-g\d+)?)-\d+\.tfrecord", names[0] if names else "")
    if head is not None:
        digits = max(DIGITS, len(str(len(names))))
        for filler in ("0", ""):
            generation = head["generation"]
            made = [f"{split.name}{generation}-{filler}{n:0{digits}}.tfrecord" for n in range(len(names))]
            if made == names:
                return f"{{SPLIT}}{generation}-{filler}{{SHARD_INDEX}}.{{FILEFORMAT}}"
    fact = "TFDS wants uncompressed shards that are numbered from 0, such as train-000000.tfrecord"
    raise DatasetError(split.place, fact, CURE)


def _require_readable(splits: Splits) -> None:
    for split in splits.splits:
        split.require_format("tfrecord", "tfds.builder_from_directory")
        if re.search(r"[{}\[\]+%:]", split.name):
            raise DatasetError(split.place, f"TFDS can't have a split of the name {split.name!r}", "rename the dataset")
        _require_images(split, split.manifest.fields)


def _require_images(split: Split, fields: Sequence[str]) -> None:
    """DatasetError unless each sample has an image that TensorFlow decodes."""
    others = [name for name in fields if name in ("webp", "tif", "tiff")]
    if not set(fields) & set(DECODED) or others:
        what = ", ".join(map(printable, fields)) or "none"
        fact = f"TensorFlow decodes images in {', '.join(DECODED)}, and the fields are {what}"
        raise UsageError(split.place, fact, "pack the images as JPEG or PNG: shardkit pack SOURCE DEST --to png")
