"""The list of an unpacked dataset: `metadata.jsonl` with a row for each sample, which `pack` takes as it takes a list.

{"file_name": "cat/1.jpg", "label": "cat", "age": 3, …}        the values of the field json, or else of the index
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from shardkit.errors import DatasetError, UsageError
from shardkit.shards.manifest import Manifest
from shardkit.shards.open import ShardPlace

NAME = b"metadata.jsonl"

_FILE, _LABEL = "file_name", "label"

OF_LIST = {b".json": "json", b".cls.json": "cls.json"}
"""The endings of the files whose content is in the list instead, with their fields."""


@dataclass(slots=True)
class Rows:
    """The rows of a shard's samples. further: the columns of the index by key, for samples without a field json."""

    manifest: Manifest
    place: str
    further: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    lines: list[bytes] = field(default_factory=list)

    def add(self, key: str, path: bytes, label: int, contents: Mapping[str, bytes]) -> None:
        """Add a sample. contents: its fields json and cls.json. DatasetError for one that can't be a row."""
        try:
            name = path.decode()
            record = msgspec.json.decode(contents["json"]) if "json" in contents else dict(self.further.get(key, {}))
            target = msgspec.json.decode(contents["cls.json"]) if "cls.json" in contents else None
        except (UnicodeDecodeError, msgspec.DecodeError) as exc:
            raise self._error(key, f"it can't be a row of a list ({exc})") from exc
        if not isinstance(record, dict):
            raise self._error(key, "its field json is not an object")
        row = {_FILE: name} | self._label(label, target)
        if taken := row.keys() & record.keys():
            raise self._error(key, f"it has a value {min(taken)!r} of its own, which the list needs for itself")
        self.lines.append(msgspec.json.encode(row | record) + b"\n")

    def _label(self, label: int, target: Any) -> dict[str, Any]:
        names = self.manifest.class_names
        if isinstance(target, list) and self.manifest.labels == "multi":
            return {_LABEL: [names[each] for each in target]}
        if target is not None:
            return {_LABEL: target}
        return {_LABEL: names[label] if label < len(names) else label} if label >= 0 else {}

    def _error(self, key: str, fact: str) -> DatasetError:
        return DatasetError(self.place, fact, "unpack it without `metadata`", None, key)


def rows_of(manifest: Manifest | None, shard: ShardPlace, keys: list[str] | None) -> Rows:
    """The list of a shard, empty. keys: of its index rows. UsageError for shards without a manifest."""
    if manifest is None or keys is None:
        raise UsageError("metadata", "these shards have no manifest", "make one with 'shardkit index'")
    table = None if "json" in manifest.fields else shard.further()
    further = {} if table is None else dict(zip(keys, table.to_pylist(), strict=True))
    return Rows(manifest, str(shard.location), further)
