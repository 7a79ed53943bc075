"""A dataset of a list is unpacked as a folder with a list, which packs to the same dataset."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import shardkit
from shardkit.cli import main
from shardkit.errors import DatasetError, UsageError


@pytest.fixture
def photos(draw_tree: Any, tmp_path: Path) -> list[str]:
    """Ten photos in folders that are not their classes; the paths."""
    draw_tree(tmp_path / "photos", {"one": 5, "two": 5})
    return sorted(str(path.relative_to(tmp_path / "photos")) for path in (tmp_path / "photos").rglob("*.*"))


def packed(photos: list[str], tmp_path: Path, labels: list[Any], name: str = "train", **columns: list[Any]) -> Path:
    rows = [{"path": path, "label": label} for path, label in zip(photos, labels, strict=True)]
    for column, values in columns.items():
        for row, value in zip(rows, values, strict=True):
            row[column] = value
    listed = tmp_path / "photos" / "list.jsonl"
    listed.write_text("".join(json.dumps(row) + "\n" for row in rows))
    shardkit.pack(listed, tmp_path / "out" / name, workers=1)
    return tmp_path / "out" / name


LABELS: dict[str, list[Any]] = {
    "class": ["cat", "dog"] * 5, "multi": [["cat"], [], ["dog", "cat"], ["cat"], ["dog"]] * 2,
    "number": [n + 0.5 for n in range(10)],
}  # fmt: skip


@pytest.mark.parametrize("kind", LABELS)
def test_the_folder_packs_to_the_same_shards_and_index(
    kind: str, photos: list[str], tmp_path: Path, content_of: Callable[[Path], dict[str, bytes]]
) -> None:
    prefix = packed(
        photos, tmp_path, LABELS[kind], age=[None if n == 3 else n for n in range(10)],
        day=[f"2024-05-{n + 1:02}" for n in range(10)], box=[[n, 0.5] for n in range(10)],
        tags=[["x"] * n for n in range(10)],
    )  # fmt: skip
    assert main.run(["unpack", str(prefix), str(tmp_path / "again"), "--metadata"]) == 0
    assert sorted(path.suffix for path in (tmp_path / "again").rglob("*.*")) == [".jpg"] * 10 + [".jsonl"]
    shardkit.pack(tmp_path / "again", tmp_path / "new" / "train", workers=1)
    assert content_of(tmp_path / "new") == content_of(prefix.parent)


def test_without_the_field_json_the_index_has_the_values(photos: list[str], tmp_path: Path) -> None:
    prefix = packed(photos, tmp_path, ["cat"] * 10, age=list(range(10)), day=["2024-05-01"] * 10)
    plain = tmp_path / "plain" / "train"
    shardkit.convert(prefix, plain, drop=["json"], workers=1)
    shardkit.unpack(plain, tmp_path / "again", metadata=True)
    rows = [json.loads(line) for line in (tmp_path / "again" / "metadata.jsonl").read_text().splitlines()]
    assert {row["file_name"]: (row["label"], row["age"], row["day"]) for row in rows} == {
        path: ("cat", number, "2024-05-01") for number, path in enumerate(photos)
    }
    manifest = shardkit.pack(tmp_path / "again", tmp_path / "new" / "train", workers=1).manifest
    assert manifest.columns == {"age": "int64", "day": "date"}


def test_only_some_samples_have_a_shorter_list(photos: list[str], tmp_path: Path) -> None:
    prefix = packed(photos, tmp_path, LABELS["class"], age=list(range(10)))
    done = shardkit.unpack(prefix, tmp_path / "again", classes=["dog"], metadata=True)
    rows = (tmp_path / "again" / "metadata.jsonl").read_text().splitlines()
    assert (done.samples, done.files, len(rows)) == (5, 6, 5)


def test_a_column_with_the_name_of_the_list_s_own_is_told_and_nothing_is_left(
    photos: list[str], tmp_path: Path
) -> None:
    table = pa.table({"path": photos, "class": ["cat"] * 10, "label": [1] * 10})
    root = shardkit.TableColumns(root=str(tmp_path / "photos"), label_column="class")
    shardkit.pack(table, tmp_path / "out" / "train", workers=1, columns=root)
    with pytest.raises(DatasetError, match="it has a value 'label' of its own"):
        shardkit.unpack(tmp_path / "out" / "train", tmp_path / "again", metadata=True)
    assert not (tmp_path / "again").exists()


def test_a_field_that_is_not_an_object_is_told(tmp_path: Path) -> None:
    for number, value in enumerate((b"[1]", b"{")):
        shardkit.write([{"txt": "a", "json": value}], tmp_path / "out" / f"t{number}")
        with pytest.raises(DatasetError, match=r"its field json is not an object|it can't be a row of a list"):
            shardkit.unpack(tmp_path / "out" / f"t{number}", tmp_path / "again", metadata=True)


def test_shards_without_a_manifest_have_no_list(photos: list[str], tmp_path: Path) -> None:
    prefix = packed(photos, tmp_path, ["cat"] * 10, age=list(range(10)))
    Path(f"{prefix}.json").unlink()
    with pytest.raises(UsageError, match=r"metadata: these shards have no manifest; make one with 'shardkit index'"):
        shardkit.unpack(f"{prefix}-*.tar", tmp_path / "again", metadata=True)
