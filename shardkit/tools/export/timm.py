"""`_info.json`, which the `wds/` reader of timm looks for beside the shards (timm/data/readers/reader_wds.py).

    {"splits": {"train": {"name": "train", "num_samples": 3, "filenames": ["train-000000.tar"], "shard_lengths": [3]}},
     "class_names": ["cat", "dog"], "columns": {"meta.age": "int64"}, "generator": "shardkit"}

`columns` are further columns of the index, if it has any. The reader uses `splits` alone, takes images from the fields
jpg, png and webp, and labels from cls. A sample without one of these is skipped with a warning in its log.
"""

from __future__ import annotations

import json
import logging

from shardkit.errors import DatasetError, printable
from shardkit.tools.export.files import GENERATOR
from shardkit.tools.export.splits import Split, Splits, require_labels

log = logging.getLogger(__name__)

NAME = "_info.json"
IMAGE_FIELDS = ("jpg", "png", "webp")
"""The fields that the reader looks for unless `--input-key` names others."""


def info_json(splits: Splits) -> bytes:
    """The content of `_info.json`. UsageError for TFRecord; DatasetError for what the reader would skip or misread."""
    found = {}
    for split in splits.splits:
        _require_readable(split)
        shards = split.manifest.shards
        found[split.name] = {
            "name": split.name,
            "num_samples": split.manifest.samples,
            "filenames": [shard.name for shard in shards],
            "shard_lengths": [shard.samples for shard in shards],
        }
    columns = {"columns": splits.columns} if splits.columns else {}
    told = {"splits": found, "class_names": splits.classes, **columns, "generator": GENERATOR}
    return json.dumps(told, indent=2, ensure_ascii=True).encode() + b"\n"


def _require_readable(split: Split) -> None:
    split.require_format("tar", "timm's wds/ reader")
    if "tar" in split.name or ".." in split.name:
        fact = f"timm takes {split.name!r} for a file name, since it contains 'tar' or '..'"
        raise DatasetError(split.place, fact, "give the dataset another name with 'shardkit convert'")
    require_labels(split, "timm", "leave this dataset out: name those that have labels")
    fields = set(split.manifest.fields)
    if "cls" not in fields:
        raise DatasetError(split.place, "its samples have no field cls", "pack it again with labels")
    images = [name for name in fields if name in IMAGE_FIELDS]
    if not images:
        fact = f"none of its fields ({', '.join(map(printable, sorted(fields)))}) is one of {', '.join(IMAGE_FIELDS)}"
        raise DatasetError(split.place, fact, "rename the images' field: shardkit convert SOURCE DEST --rename OLD=jpg")
    unlabelled = split.manifest.samples - sum(entry.count for entry in split.manifest.classes)
    if unlabelled > 0:
        log.warning("%s: timm skips the %d samples that have no label", split.place, unlabelled)
