"""Further columns of a list in the index: the same from any workers, parts, interruptions and splits, and appended."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import shardkit
from shardkit.errors import DestinationError, SourceError
from shardkit.packing.dest import work_folder
from shardkit.shards.columns.types import types_in

SAMPLES, PER_SHARD = 12, 4


@pytest.fixture
def photos(draw_tree: Any, tmp_path: Path) -> list[str]:
    """Twelve images of two classes; their paths."""
    draw_tree(tmp_path / "tree", {"blue": 6, "red": 6})
    return sorted(str(path.relative_to(tmp_path)) for path in (tmp_path / "tree").rglob("*.*"))


def listed(folder: Path, photos: list[str], file: str = "list.jsonl", **columns: list[Any]) -> Path:
    """A list of the photos with these columns."""
    path = folder / file
    rows = [{"path": photo, "label": photo.split("/")[1]} for photo in photos]
    for column, values in columns.items():
        for row, value in zip(rows, values, strict=True):
            row[column] = value
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def ages(photos: list[str]) -> list[int]:
    return [3 * number for number, _ in enumerate(photos)]


def index_of(prefix: Path) -> pa.Table:
    """All index files of a dataset, as a reader of Parquet has them."""
    found = json.loads(Path(f"{prefix}.json").read_bytes())
    tables = [pq.read_table(prefix.parent / entry["name"]) for entry in found["index"]]
    return pa.concat_tables(tables, promote_options="default")


def test_the_index_and_the_manifest_have_the_columns_and_json_is_as_before(photos: list[str], tmp_path: Path) -> None:
    path = listed(tmp_path, photos, age=ages(photos), box=[[1.5, 2]] * 6 + [[0.0, 1]] * 6)
    manifest = shardkit.pack(path, tmp_path / "out" / "train", max_count=PER_SHARD, workers=1).manifest
    table = index_of(tmp_path / "out" / "train")
    assert manifest.columns == {"age": "int64", "box": "float64[2]"} == types_in(table.schema)
    assert dict(zip(table["path"].to_pylist(), table["meta.age"].to_pylist(), strict=True)) == dict(
        zip(photos, ages(photos), strict=True)
    )
    for sample, age in zip(shardkit.dataset(tmp_path / "out" / "train"), table["meta.age"].to_pylist(), strict=True):
        assert json.loads(sample["json"])["age"] == age


def test_a_list_without_further_columns_has_the_index_of_its_tree(
    photos: list[str], tmp_path: Path, content_of: Callable[[Path], dict[str, bytes]]
) -> None:
    shardkit.pack(tmp_path / "tree", tmp_path / "a" / "train", workers=1)
    shardkit.pack(listed(tmp_path / "tree", [p[5:] for p in photos], label=["blue"] * 6 + ["red"] * 6),
                  tmp_path / "b" / "train", workers=1)  # fmt: skip
    assert content_of(tmp_path / "a") == content_of(tmp_path / "b")


@pytest.mark.parametrize("format", ["tar", "tfrecord"])
def test_the_bytes_do_not_depend_on_workers_or_parts(
    format: Any, photos: list[str], tmp_path: Path, content_of: Callable[[Path], dict[str, bytes]]
) -> None:
    path = listed(tmp_path, photos, age=ages(photos), name=["a", None] * 6)
    for folder, workers in (("one", 1), ("two", 2)):
        shardkit.pack(path, tmp_path / folder / "train", max_count=PER_SHARD, format=format, workers=workers)
    for part in (2, 1, 3):
        shardkit.pack(path, tmp_path / "parts" / "train", max_count=PER_SHARD, format=format, part=(part, 3), workers=1)
    shardkit.merge(tmp_path / "parts" / "train")
    assert content_of(tmp_path / "one") == content_of(tmp_path / "two") == content_of(tmp_path / "parts")


def test_parts_with_columns_of_other_types_are_refused(photos: list[str], tmp_path: Path) -> None:
    one = listed(tmp_path, photos, age=ages(photos))
    shardkit.pack(one, tmp_path / "out" / "train", max_count=PER_SHARD, part="1/3", workers=1)
    other = listed(tmp_path, photos, age=[str(age) for age in ages(photos)])
    with pytest.raises(DestinationError, match="with the further columns"):
        shardkit.pack(other, tmp_path / "out" / "train", max_count=PER_SHARD, part="2/3", workers=1)


def test_skipped_files_take_their_values_along(photos: list[str], tmp_path: Path) -> None:
    path = listed(tmp_path, photos, age=ages(photos))
    (tmp_path / photos[3]).write_bytes(b"no image")
    shardkit.pack(path, tmp_path / "out" / "train", max_count=PER_SHARD, on_error="skip", workers=1)
    table = index_of(tmp_path / "out" / "train")
    expected = dict(zip(photos, ages(photos), strict=True))
    del expected[photos[3]]
    assert dict(zip(table["path"].to_pylist(), table["meta.age"].to_pylist(), strict=True)) == expected


def test_an_interrupted_run_goes_on_with_the_values_of_the_list(
    photos: list[str], tmp_path: Path, content_of: Callable[[Path], dict[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = listed(tmp_path, photos, age=ages(photos))
    shardkit.pack(path, tmp_path / "whole" / "train", max_count=PER_SHARD, workers=1)

    def broken(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(work_folder.IndexFiles, "end", broken)
        with pytest.raises(KeyboardInterrupt):
            shardkit.pack(path, tmp_path / "out" / "train", max_count=PER_SHARD, workers=1)
    assert os.path.isdir(tmp_path / "out" / ".train.packing")
    shardkit.pack(path, tmp_path / "out" / "train", max_count=PER_SHARD, workers=1)
    assert content_of(tmp_path / "out") == content_of(tmp_path / "whole")


def test_splits_made_while_packing_have_their_own_rows(photos: list[str], tmp_path: Path) -> None:
    path = listed(tmp_path, photos, age=ages(photos))
    shardkit.pack(path, tmp_path / "out", split={"train": 0.5, "test": 0.5}, workers=1)
    found = pa.concat_tables([index_of(tmp_path / "out" / name) for name in ("train", "test")])
    expected = dict(zip(photos, ages(photos), strict=True))
    assert dict(zip(found["path"].to_pylist(), found["meta.age"].to_pylist(), strict=True)) == expected


def test_a_list_in_memory_has_columns_too(photos: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    table = {"path": photos, "label": [0] * 6 + [1] * 6, "score": [0.5, None] * 6}
    manifest = shardkit.pack(table, tmp_path / "out" / "train", workers=1).manifest
    assert manifest.columns == {"score": "float64"}
    assert index_of(tmp_path / "out" / "train")["meta.score"].null_count == SAMPLES / 2


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("path,label,age,age\na.jpg,x,1,2\n")
    with pytest.raises(SourceError, match="two columns have the name 'age'"):
        shardkit.pack(path, tmp_path / "out" / "train", workers=1)


def test_a_table_in_memory_with_a_column_twice_is_refused(tmp_path: Path) -> None:
    table = pa.table([["a.jpg"], ["x"], [1], [2]], names=["path", "label", "age", "age"])
    with pytest.raises(SourceError, match="two columns have the name 'age'"):
        shardkit.pack(table, tmp_path / "out" / "train", workers=1)


class TestAppending:
    """What later files bring along fits the columns that are there."""

    @pytest.fixture
    def prefix(self, photos: list[str], tmp_path: Path) -> Path:
        """Six photos with the columns `age` and `name`."""
        path = listed(tmp_path, photos[:6], age=[1, 2, 3, 4, 5, None], name=["n"] * 6)
        shardkit.pack(path, tmp_path / "out" / "train", workers=1)
        return tmp_path / "out" / "train"

    def append(self, prefix: Path, photos: list[str], **columns: list[Any]) -> Any:
        path = listed(prefix.parents[1], photos[6:], file="more.jsonl", **columns)
        return shardkit.pack(path, prefix, append=True, workers=1).manifest

    def test_a_new_column_is_null_in_the_samples_before(self, prefix: Path, photos: list[str]) -> None:
        manifest = self.append(prefix, photos, age=[7.0] * 6, city=["x"] * 6)
        assert manifest.columns == {"age": "int64", "name": "string", "city": "string"}
        table = index_of(prefix)
        assert sorted(table["meta.age"].drop_null().to_pylist()) == [1, 2, 3, 4, 5] + [7] * 6
        assert table["meta.city"].to_pylist() == [None] * 6 + ["x"] * 6
        assert table["meta.name"].to_pylist() == ["n"] * 6 + [None] * 6

    def test_files_without_a_list_have_null(self, prefix: Path, tmp_path: Path) -> None:
        manifest = shardkit.pack(tmp_path / "tree", prefix, append=True, workers=1).manifest
        assert manifest.columns == {"age": "int64", "name": "string"}
        assert index_of(prefix)["meta.age"].to_pylist()[-6:] == [None] * 6

    def test_values_of_another_type_are_refused_and_nothing_is_written(
        self, prefix: Path, photos: list[str], content_of: Callable[[Path], dict[str, bytes]]
    ) -> None:
        before = content_of(prefix.parent)
        with pytest.raises(DestinationError, match=r"its column 'age' is int64, .*: its values are string, not int64"):
            self.append(prefix, photos, age=["old"] * 6)
        with pytest.raises(DestinationError, match=r"its values are float64, and not all of them can be int64"):
            self.append(prefix, photos, age=[0.5] * 6)
        assert content_of(prefix.parent) == before

    def test_numbers_fit_a_column_of_text(self, prefix: Path, photos: list[str]) -> None:
        self.append(prefix, photos, age=[None] * 6, name=[5] * 6)
        assert index_of(prefix)["meta.name"].to_pylist()[-6:] == ["5"] * 6

    def test_text_of_a_csv_stays_as_written_in_a_column_of_text(self, prefix: Path, photos: list[str]) -> None:
        written = ["007", "1e3", "2024-05-01", "true", "", "0x1"]
        lines = [f"{path},{path.split('/')[-2]},{text},8" for path, text in zip(photos[6:], written, strict=True)]
        path = prefix.parents[1] / "more.csv"
        path.write_text("\n".join(["path,label,name,age", *lines]) + "\n")
        shardkit.pack(path, prefix, append=True, workers=1, shuffle=False)
        table = index_of(prefix)
        assert sorted(each or "" for each in table["meta.name"].to_pylist()[-6:]) == sorted(written)
        assert table["meta.age"].to_pylist()[-6:] == [8] * 6
        names = [json.loads(sample["json"])["name"] for sample in shardkit.dataset(prefix)]
        assert sorted(each or "" for each in names[-6:]) == sorted(written)


def test_text_of_one_split_is_text_as_written_in_all(draw_tree: Any, tmp_path: Path) -> None:
    for split, value in {"train": "007", "validation": "x7"}.items():
        draw_tree(tmp_path / "tree", {f"{split}/red": 2})
        lines = ["file_name,code,age", *(f"red/{n:04}.jpg,{value},{n}" for n in range(2))]
        (tmp_path / "tree" / split / "metadata.csv").write_text("\n".join(lines) + "\n")
    found = shardkit.pack(tmp_path / "tree", tmp_path / "out", workers=1)
    for split, value in {"train": "007", "validation": "x7"}.items():
        assert found[split].manifest.columns == {"code": "string", "age": "int64"}
        assert index_of(tmp_path / "out" / split)["meta.code"].to_pylist() == [value] * 2
        samples = list(shardkit.dataset(tmp_path / "out" / split))
        assert {json.loads(sample["json"])["code"] for sample in samples} == {value}


def test_a_run_over_a_dataset_of_an_older_version_keeps_it(
    photos: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = listed(tmp_path, photos, age=ages(photos))
    shardkit.pack(path, tmp_path / "out" / "train", workers=1)
    manifest = tmp_path / "out" / "train.json"
    found = json.loads(manifest.read_bytes())
    del found["options"]["columns"]
    manifest.write_text(json.dumps(found))
    with caplog.at_level(logging.INFO):
        assert shardkit.pack(path, tmp_path / "out" / "train", workers=1).manifest.columns == {}
    assert "already packed and complete" in caplog.text


ROWS = [[1, 0, 1], [0, 0, 1], [1, 1, 1]]


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.bool_, np.float32])
def test_a_2d_array_is_a_list_of_numbers_for_each_file(kind: Any, photos: list[str], tmp_path: Path) -> None:
    paths = [str(tmp_path / path) for path in photos[:3]]
    source = {"path": paths, "label": [0, 1, 0], "marks": np.array(ROWS, kind)}
    root = shardkit.TableColumns(root="/")
    manifest = shardkit.pack(source, tmp_path / "out" / "t", workers=1, shuffle=False, columns=root).manifest
    assert manifest.columns == {"marks": "float64[3]" if kind is np.float32 else "int64[3]"}
    assert index_of(tmp_path / "out" / "t")["meta.marks"].to_pylist() == ROWS
    data = shardkit.dataset(tmp_path / "out" / "t")
    assert [json.loads(sample["json"])["marks"] for sample in data] == ROWS
    assert [sample["cls"] for sample in data] == [0, 1, 0]


@pytest.mark.parametrize("name", ["label", "marks"])
def test_a_2d_array_of_labels_has_a_column_for_each_class(name: str, photos: list[str], tmp_path: Path) -> None:
    source = {"path": [str(tmp_path / path) for path in photos[:3]], name: np.array(ROWS, np.bool_)}
    columns = shardkit.TableColumns(root="/", label_column=name)
    manifest = shardkit.pack(source, tmp_path / "t", workers=1, shuffle=False, columns=columns).manifest
    assert (manifest.labels, manifest.columns) == ("multi", {})
    assert [json.loads(sample["cls.json"]) for sample in shardkit.dataset(tmp_path / "t")] == [[0, 2], [2], [0, 1, 2]]


def test_lists_of_zeros_and_ones_are_not_taken_for_class_numbers(photos: list[str], tmp_path: Path) -> None:
    paths = [str(tmp_path / path) for path in photos[:3]]
    for labels in (ROWS, [[1, 0], [0, 1], [0, 1]]):
        with pytest.raises(SourceError, match=r"'label' has \d numbers for each file, all of them 0 or 1; .* NumPy"):
            shardkit.pack({"path": paths, "label": labels}, tmp_path / "t", workers=1)
    shardkit.pack({"path": paths, "label": [[0], [1], [0, 1]]}, tmp_path / "t", workers=1)
    with pytest.raises(SourceError, match="all of them 0 or 1"):
        shardkit.relabel(tmp_path / "t", {"0000": [1, 1, 0], "0001": [0, 0, 1]})
