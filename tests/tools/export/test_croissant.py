"""`croissant.json`: what it says of the files and the samples, and what mlcroissant reads by it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from storage.in_memory import refused

import shardkit
from shardkit.errors import DamagedError, DatasetError
from shardkit.events import Progress
from shardkit.tools.export.croissant import CONFORMS_TO

pytestmark = pytest.mark.usefixtures("no_objects")


@pytest.fixture
def packed(splits: Path, tmp_path: Path) -> Path:
    """A folder with the datasets train, validation and test."""
    shardkit.pack(splits, tmp_path / "cars", max_count=3, workers=1)
    return tmp_path / "cars"


def read(folder: Path) -> Any:
    return json.loads((folder / "croissant.json").read_bytes())


def test_every_shard_and_index_has_its_sha256_and_size(packed: Path) -> None:
    shardkit.export(packed, "croissant")
    found = read(packed)
    assert (found["name"], found["conformsTo"]) == ("cars", CONFORMS_TO)
    files = {each["contentUrl"]: each for each in found["distribution"] if each["@type"] == "cr:FileObject"}
    assert set(files) == {path.name for path in packed.iterdir() if path.suffix in (".tar", ".parquet")}
    for name, file in files.items():
        data = (packed / name).read_bytes()
        assert (file["sha256"], file["contentSize"]) == (hashlib.sha256(data).hexdigest(), f"{len(data)} B")


def test_there_are_records_of_the_classes_and_of_each_split(packed: Path) -> None:
    shardkit.export(packed, "croissant")
    records = {each["@id"]: each for each in read(packed)["recordSet"]}
    assert list(records) == ["classes", "test", "train", "validation"]
    assert records["classes"]["data"] == [
        {"classes/label": 0, "classes/name": "blue"},
        {"classes/label": 1, "classes/name": "red"},
    ]
    names = [field["name"] for field in records["train"]["field"]]
    assert names == ["key", "image", "label", "path", "width", "height"]


@pytest.mark.filterwarnings("ignore")  # of mlcroissant
def test_mlcroissant_validates_and_loads_every_sample_once(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, draw_image: Callable[..., bytes], splits: Path
) -> None:
    mlcroissant = pytest.importorskip("mlcroissant")
    from etils import epath

    monkeypatch.setattr("mlcroissant._src.operation_graph.operations.extract.EXTRACT_PATH", epath.Path(tmp_path / "c"))
    (splits / "train" / "red" / "x.png").write_bytes(draw_image(9, format="PNG"))
    shardkit.pack(splits / "train", packed / "train", append=True, max_count=3, workers=1)
    shardkit.export(packed, "croissant")
    dataset = mlcroissant.Dataset(packed / "croissant.json")
    assert not dataset.metadata.ctx.issues.errors
    rows = list(dataset.records("train"))
    ours = {s["__key__"]: (int(s["cls"]), s["__key__"].split("/")[0]) for s in shardkit.dataset(packed / "train")}
    assert len(rows) == len(ours) == 11
    names = {row["classes/label"]: _text(row["classes/name"]) for row in dataset.records("classes")}
    assert {_text(row["train/key"]): (row["train/label"], names[row["train/label"]]) for row in rows} == ours
    assert {row["train/image"].size for row in rows} == {(40, 30)}


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def test_names_with_spaces_are_ids_without(tree: Path, tmp_path: Path) -> None:
    shardkit.pack(tree, tmp_path / "my cars", workers=1)
    shardkit.export(tmp_path / "my cars", "croissant")
    found = read(tmp_path)
    ids = [each["@id"] for each in (*found["distribution"], *found["recordSet"], *found["recordSet"][1]["field"])]
    assert "my_cars" in ids and not any(" " in each for each in ids)
    assert {"my cars-000000.tar", "my cars.parquet"} <= {each.get("contentUrl") for each in found["distribution"]}
    shardkit.pack(tree, tmp_path / "my_cars", workers=1)
    text = refused(DatasetError, lambda: shardkit.export(tmp_path, "croissant"))
    assert "two datasets would get the id 'my_cars'" in text


def test_several_classes_of_a_sample_are_no_label(draw_image: Callable[..., bytes], tmp_path: Path) -> None:
    shardkit.write([{"__key__": "a", "jpg": draw_image(), "cls": [0, 1]}], tmp_path / "t", classes=["c", "d"])
    shardkit.export(tmp_path / "t", "croissant")
    fields = [field["name"] for field in read(tmp_path)["recordSet"][1]["field"]]
    assert fields == ["key", "image", "path", "width", "height"]


def test_what_a_user_added_is_kept(packed: Path) -> None:
    shardkit.export(packed, "croissant")
    found = read(packed)
    mine = {"license": "https://spdx.org/licenses/MIT", "description": "My cars", "name": "My cars"}
    (packed / "croissant.json").write_text(json.dumps(found | mine))
    shardkit.export(packed / "train", "croissant")
    again = read(packed)
    assert {key: again[key] for key in mine} == mine
    assert [each["@id"] for each in again["recordSet"]] == ["classes", "train"]


def test_a_damaged_shard_is_no_file_to_vouch_for(packed: Path) -> None:
    shard = packed / "train-000001.tar"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    assert refused(DamagedError, lambda: shardkit.export(packed, "croissant")).startswith(str(shard))
    assert not (packed / "croissant.json").exists()


def test_progress_counts_the_files_that_are_read(packed: Path) -> None:
    told: list[Progress] = []
    shardkit.export(packed / "train", "croissant", workers=1, progress=told.append)
    shards = [event for event in told if event.total > 1]
    assert [event.done for event in shards] == [1, 2, 3, 4]
    assert {event.step for event in told} == {"checksum"}
    assert shards[-1].bytes_done == shards[-1].bytes_total == shardkit.info(packed / "train").bytes


def test_a_dataset_in_a_bucket_has_the_same_metadata(packed: Path) -> None:
    from storage.in_memory import objects

    shardkit.upload(packed, "memory://b/cars")
    shardkit.export(packed, "croissant")
    shardkit.export("memory://b/cars", "croissant")
    assert json.loads(objects("b/cars")["croissant.json"]) == read(packed)


def test_tfrecord_shards_are_listed_without_images(tree: Path, tmp_path: Path) -> None:
    shardkit.pack(tree, tmp_path / "x", format="tfrecord", workers=1)
    shardkit.export(tmp_path / "x", "croissant")
    found = read(tmp_path)
    assert [each["@type"] for each in found["distribution"]] == ["cr:FileObject", "cr:FileObject"]
    fields = [field["name"] for field in found["recordSet"][1]["field"]]
    assert fields == ["key", "label", "path", "width", "height"]
