"""Exports describe the further columns of the index with their types."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import shardkit

COLUMNS = {
    "age": "int64", "score": "float64", "ok": "bool", "city|x": "string", "day": "date", "taken": "timestamp",
    "seen": "timestamp UTC", "box": "float64[2]", "a/b": "int64", "a_b": "int64", "a b": "int64",
}  # fmt: skip


@pytest.fixture(params=["tar", "tfrecord"])
def packed(request: pytest.FixtureRequest, tmp_path: Path, draw_tree: Any) -> Path:
    """Shards of four photos with a column of each type."""
    pa = pytest.importorskip("pyarrow")
    draw_tree(tmp_path / "tree", {"blue": 2, "red": 2})
    paths = sorted(map(str, (tmp_path / "tree").rglob("*.jpg")))
    days, times = pa.array(range(4), pa.date32()), pa.array(range(4), pa.timestamp("us"))
    table = pa.table({
        "path": paths, "label": [Path(path).parent.name for path in paths], "age": range(4), "score": [0.5] * 4,
        "ok": [True] * 4, "city|x": ["Bern"] * 4, "day": days, "taken": times,
        "seen": times.cast(pa.timestamp("us", "UTC")), "box": [[0.5, 1.0]] * 4, "a/b": range(4), "a_b": range(4),
        "a b": range(4),
    })  # fmt: skip
    columns = shardkit.TableColumns(root="/")
    shardkit.pack(table, tmp_path / "cars" / "train", workers=1, format=request.param, columns=columns)
    assert dict(shardkit.info(tmp_path / "cars" / "train").columns) == COLUMNS
    return tmp_path / "cars"


def test_croissant_has_a_field_of_its_type_for_each_column(packed: Path) -> None:
    shardkit.export(packed, "croissant")
    records = {each["@id"]: each for each in json.loads((packed / "croissant.json").read_bytes())["recordSet"]}
    fields = {field["name"]: field for field in records["train"]["field"]}
    assert len({field["@id"] for field in records["train"]["field"]}) == len(fields)
    assert all(field["@id"].count("/") == 1 and " " not in field["@id"] for field in fields.values())
    assert {name.removeprefix("meta."): field["dataType"] for name, field in fields.items() if "meta." in name} == {
        "age": "cr:Int64", "score": "cr:Float64", "ok": "sc:Boolean", "city|x": "sc:Text", "day": "sc:Date",
        "taken": "sc:DateTime", "seen": "sc:DateTime", "box": "cr:Float64", "a/b": "cr:Int64", "a_b": "cr:Int64",
        "a b": "cr:Int64",
    }  # fmt: skip
    assert fields["meta.box"]["isArray"] and fields["meta.box"]["arrayShape"] == "2"
    assert fields["meta.a b"]["source"]["extract"] == {"column": "meta.a b"}


@pytest.mark.filterwarnings("ignore")  # of mlcroissant
def test_mlcroissant_loads_the_columns_of_each_sample(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlcroissant = pytest.importorskip("mlcroissant")
    from etils import epath

    monkeypatch.setattr("mlcroissant._src.operation_graph.operations.extract.EXTRACT_PATH", epath.Path(tmp_path / "c"))
    shardkit.export(packed, "croissant")
    dataset = mlcroissant.Dataset(packed / "croissant.json")
    assert not dataset.metadata.ctx.issues.errors
    rows = sorted(dataset.records("train"), key=lambda row: row["train/meta.age"])
    assert [(row["train/meta.age"], row["train/meta.score"], row["train/meta.ok"]) for row in rows] == [
        (n, 0.5, True) for n in range(4)
    ]


def test_the_other_files_name_the_columns_with_their_types(packed: Path) -> None:
    tar = shardkit.info(packed / "train").shard_format == "tar"
    shardkit.export(packed, ["timm", "huggingface"] if tar else "tfds")
    if not tar:
        told = json.loads((packed / "dataset_info.json").read_bytes())["description"]
        assert all(f"meta.{name} ({text})" in told for name, text in COLUMNS.items())
        return
    assert json.loads((packed / "_info.json").read_bytes())["columns"] == {f"meta.{n}": t for n, t in COLUMNS.items()}
    card = (packed / "README.md").read_text("utf-8")
    assert yaml.safe_load(card.split("---\n")[1])["configs"]
    assert r"| meta.city\|x | string |" in card and "| meta.seen | timestamp UTC |" in card


def test_a_column_that_has_several_types_has_all_of_them(packed: Path, tmp_path: Path, draw_tree: Any) -> None:
    if shardkit.info(packed / "train").shard_format != "tar":
        return
    paths = sorted(map(str, (tmp_path / "tree").rglob("*.jpg")))
    table = {"path": paths, "label": ["blue", "blue", "red", "red"], "age": ["old"] * 4}
    shardkit.pack(table, packed / "test", workers=1, columns=shardkit.TableColumns(root="/"))
    shardkit.export(packed, "timm")
    assert json.loads((packed / "_info.json").read_bytes())["columns"]["meta.age"] == "string or int64"
