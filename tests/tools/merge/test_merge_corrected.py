"""Datasets with corrections are merged as they are corrected, and stay as packed in version 1 of the merged one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import shardkit
from shardkit.errors import UsageError

Content = dict[str, tuple[str, bytes, Any]]


def content(source: str | Path) -> Content:
    """Key -> (class, image, age)."""
    data = shardkit.dataset(source)
    catalog = data.content.catalog
    assert catalog.manifest is not None
    ages: dict[str, Any] = {}
    if "age" in catalog.manifest.columns:
        tables = catalog.index_tables(["key", "meta.age"])
        ages = {row["key"]: row["meta.age"] for table in tables for row in table.to_pylist()}
    return {s["__key__"]: (data.classes[s["cls"]], s["jpg"], ages.get(s["__key__"])) for s in data}


@pytest.fixture(params=["tar", "tfrecord"])
def two(request: pytest.FixtureRequest, tmp_path: Path, draw_tree: Callable[..., Path]) -> tuple[str, str]:
    """Two datasets of one folder with corrections: other labels, a new class, deleted samples, and a field."""
    one = draw_tree(tmp_path / "one", {"cat": 4, "dog": 4}, size=(12, 10))
    other = draw_tree(tmp_path / "other", {"cat": 0, "dog": 3}, size=(12, 10), seed=9)
    for path in sorted((other / "dog").iterdir()):
        path.rename(path.with_name(f"more{path.name}"))
    a, b = str(tmp_path / "shards" / "a"), str(tmp_path / "shards" / "b")
    shardkit.pack(one, a, max_count=3, workers=1, format=request.param)
    shardkit.pack(other, b, max_count=2, workers=1, format=request.param, classes=["cat", "dog"])
    keys, others = sorted(content(a)), sorted(content(b))
    shardkit.relabel(a, {keys[0]: "dog", keys[5]: "emu"}, new_classes=True)
    shardkit.add_fields(a, {keys[0]: {"age": 1}, keys[1]: {"age": 2}})
    shardkit.delete(a, [keys[1], keys[7]])
    shardkit.add_fields(b, {others[0]: {"age": 0.5}, others[1]: {"age": 7}})
    shardkit.delete(b, [others[2]])
    return a, b


def test_a_merged_dataset_has_the_corrections_of_all(two: tuple[str, str], tmp_path: Path) -> None:
    a, b = two
    before = {path.name: path.read_bytes() for path in (tmp_path / "shards").iterdir()}
    both = tmp_path / "shards" / "both"
    shardkit.merge([a, b], both)
    wanted = content(a) | content(b)
    assert content(both) == wanted and len(shardkit.dataset(both)) == len(wanted)
    assert shardkit.dataset(both).class_counts == {
        name: sum(value[0] == name for value in wanted.values()) for name in ("cat", "dog", "emu")
    }
    packed = content(f"{a}@1") | content(f"{b}@1")
    assert content(f"{both}@1") == packed
    assert [(each.version, each.kind, each.deleted) for each in shardkit.log(both)] == [(1, "pack", 0), (2, "merge", 3)]
    for source in (both, f"{both}@1"):
        assert shardkit.verify(source).findings == ()
    assert {name: (tmp_path / "shards" / name).read_bytes() for name in before} == before
    shardkit.merge([a, b], both)
    shardkit.convert(both, tmp_path / "out" / "both", workers=1)
    assert content(tmp_path / "out" / "both") == wanted
    shardkit.upload(both, tmp_path / "copy" / "both")
    assert content(tmp_path / "copy" / "both") == wanted


def test_a_merged_dataset_is_corrected_further_and_replaced(two: tuple[str, str], tmp_path: Path) -> None:
    a, b = two
    both = str(tmp_path / "shards" / "both")
    shardkit.merge([a, b], both)
    keys = sorted(content(both))
    shardkit.add_fields(both, {keys[-1]: {"age": 99}}, overwrite=True)
    shardkit.delete(both, keys[:1])
    assert content(both)[keys[-1]][2] == 99 and keys[0] not in content(both)
    assert keys[0] in content(a) and len(shardkit.log(a)) == 4
    shardkit.revert(both, 2)
    assert content(both) == content(a) | content(b)
    shardkit.delete(b, sorted(content(b))[:1])
    with pytest.raises(shardkit.DestinationError, match="another dataset is there"):
        shardkit.merge([a, b], both)
    shardkit.merge([a, b], both, overwrite=True)
    assert content(both) == content(a) | content(b)
    assert shardkit.verify(both).findings == () and len(shardkit.log(both)) == 2
    there = [name for name in os.listdir(tmp_path / "shards") if name.startswith("both")]
    assert len([name for name in there if ".v" in name]) == len(there) - 1 == 4


def test_one_corrected_dataset_and_one_as_packed_are_merged(two: tuple[str, str], tmp_path: Path) -> None:
    a, b = two
    shardkit.revert(b, 1)
    shardkit.merge([b, a], tmp_path / "shards" / "both")
    assert content(tmp_path / "shards" / "both") == content(b) | content(a)


def test_corrected_labels_of_several_classes_are_not_merged(tmp_path: Path, draw_image: Callable[..., bytes]) -> None:
    for name in ("a", "b"):
        samples = [{"__key__": f"{name}{n}", "jpg": draw_image(n, size=(8, 8)), "cls": [n % 2]} for n in range(3)]
        shardkit.write(samples, tmp_path / name, classes=["x", "y"])
    shardkit.relabel(tmp_path / "a", {"a0": ["x", "y"]})
    with pytest.raises(UsageError, match=r"was corrected \(version 2\), and corrected labels of several classes"):
        shardkit.merge([tmp_path / "a", tmp_path / "b"], tmp_path / "both")
