"""Corrections of datasets whose labels are several classes or numbers, of samples with other fields, and of tools."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shardkit
from shardkit.errors import UsageError

FORMS = ("tar", "tfrecord")


def written(dest: Path, form: Any, labels: list[Any], draw_image: Callable[..., bytes], **options: Any) -> str:
    samples = (
        {"__key__": f"s{number}", "jpg": draw_image(number, size=(12, 8)), "json": b'{"n": 1}', "cls": label}
        for number, label in enumerate(labels)
    )
    shardkit.write(samples, dest, format=form, max_count=2, **options)
    return str(dest)


@pytest.mark.parametrize("form", FORMS)
def test_labels_of_several_classes_are_corrected_everywhere(
    form: str, tmp_path: Path, draw_image: Callable[..., bytes]
) -> None:
    train = written(tmp_path / "train", form, [[0], [0, 1], [2], [1]], draw_image, classes=["a", "b", "c"])
    shardkit.relabel(train, {"s1": ["c"], "s2": ["a", "d"]}, new_classes=True)
    shardkit.delete(train, ["s0"])
    data = shardkit.dataset(train)
    assert data.class_counts == {"a": 1, "b": 1, "c": 1, "d": 1}
    assert {s["__key__"]: json.loads(s["cls.json"]) for s in data} == {"s1": [2], "s2": [0, 3], "s3": [1]}
    assert json.loads(data["s2"]["cls.json"]) == [0, 3]
    [(_, labels)] = data.decode(size=8).batch(4)
    assert np.asarray(labels).tolist() == [[0, 0, 1, 0], [1, 0, 0, 1], [0, 1, 0, 0]]
    shardkit.convert(train, tmp_path / "again" / "train", workers=1)
    again = shardkit.dataset(tmp_path / "again" / "train")
    assert [json.loads(s["cls.json"]) for s in again] == [[2], [0, 3], [1]]
    assert again.class_counts == data.class_counts
    assert shardkit.verify(train).findings == shardkit.verify(tmp_path / "again" / "train").findings == ()
    rows = shardkit.diff(f"{train}@1", train).table.to_pylist()
    assert [(row["key"], row["change"], row["after"]) for row in rows] == [
        ("s0", "deleted", None), ("s1", "relabelled", "[2]"), ("s2", "relabelled", "[0,3]"),
    ]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_numbers_are_corrected_everywhere(form: str, tmp_path: Path, draw_image: Callable[..., bytes]) -> None:
    train = written(tmp_path / "train", form, [0.5, 1.5, 2.5], draw_image)
    shardkit.relabel(train, {"s1": -1.25})
    shardkit.delete(train, ["s0"])
    [(_, labels)] = shardkit.dataset(train).decode(size=8).batch(4)
    assert np.asarray(labels).tolist() == [-1.25, 2.5]
    (tmp_path / "list.csv").write_text("key,label\ns1,3\n")
    shardkit.relabel(train, tmp_path / "list.csv")
    assert [json.loads(s["cls.json"]) for s in shardkit.dataset(train)] == [3.0, 2.5]
    with pytest.raises(UsageError, match=r"the new label of 's2' has the shape \(2,\), and the one it has \(\)"):
        shardkit.relabel(train, {"s2": [1.0, 2.0]})
    shardkit.convert(train, tmp_path / "again" / "train", workers=1)
    assert [json.loads(s["cls.json"]) for s in shardkit.dataset(tmp_path / "again" / "train")] == [3.0, 2.5]


@pytest.mark.parametrize("form", FORMS)
def test_samples_with_other_fields_show_the_corrected_label(
    form: str, tmp_path: Path, draw_image: Callable[..., bytes]
) -> None:
    train = written(tmp_path / "train", form, [0, 1, 1], draw_image, classes=["a", "b"])
    shardkit.relabel(train, {"s0": "b", "s2": "a"})
    found = {s["__key__"]: s for s in shardkit.dataset(train)}
    assert {key: sample["cls"] for key, sample in found.items()} == {"s0": 1, "s1": 1, "s2": 0}
    assert found["s0"]["json"] == b'{"n": 1}'
    for target in FORMS:
        out = tmp_path / target / "train"
        shardkit.convert(train, out, format=target, workers=1)
        assert {s["__key__"]: s["cls"] for s in shardkit.dataset(out)} == {"s0": 1, "s1": 1, "s2": 0}
        assert shardkit.verify(out).findings == ()


@pytest.mark.parametrize("form", FORMS)
def test_what_is_converted_shows_its_labels_to_readers_of_the_shards_alone(
    form: str, train: str, tmp_path: Path
) -> None:
    shardkit.relabel(train, {"cat/0001": "fox"})
    shardkit.convert(train, tmp_path / "out" / "train", format=form, workers=1, max_count=100)
    for name in ("train.json", "train.parquet"):
        (tmp_path / "out" / name).unlink()
    [shard] = (tmp_path / "out").iterdir()
    found = {s["__key__"]: int(s["cls"]) for s in shardkit.dataset(str(shard))}
    assert found["cat/0001"] == 2 and found["cat/0002"] == 0


def test_a_dataset_without_labels_is_not_relabelled(tmp_path: Path) -> None:
    shardkit.write([{"__key__": "a", "txt": "x"}, {"__key__": "b", "txt": "y"}], tmp_path / "plain")
    with pytest.raises(UsageError, match="the samples of this dataset have no labels"):
        shardkit.relabel(tmp_path / "plain", {"a": "x"})
    shardkit.delete(tmp_path / "plain", ["a"])
    assert [sample["txt"] for sample in shardkit.dataset(tmp_path / "plain")] == [b"y"]


def test_unpacked_files_lie_below_their_corrected_class(train: str, tmp_path: Path) -> None:
    shardkit.relabel(train, {"cat/0001": "fox"})
    shardkit.delete(train, ["dog/0000"])
    done = shardkit.unpack(train, tmp_path / "out")
    assert done.samples == 11
    names = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.jpg")}
    assert "fox/cat/0001.jpg" in names
    assert names.isdisjoint({"cat/0001.jpg", "dog/0000.jpg"})
    assert len(names) == 11
    first = shardkit.unpack(f"{train}@1", tmp_path / "first")
    assert first.samples == 12


def test_what_writes_the_shards_as_packed_is_refused(train: str, tmp_path: Path) -> None:
    shardkit.delete(train, ["dog/0000"])
    with pytest.raises(UsageError, match="was corrected"):
        shardkit.repair(train, tmp_path / "out")
    shardkit.view_page(train)
    shardkit.export(train, "timm")
    shardkit.revert(train, 1)
    shardkit.repair(train, tmp_path / "out")


def test_info_and_report_describe_the_version(train: str, tmp_path: Path) -> None:
    shardkit.delete(train, ["dog/0000"])
    found = shardkit.info(train)
    assert (found.version, found.samples, [entry.count for entry in found.classes]) == (2, 11, [4, 3, 4])
    assert (shardkit.info(f"{train}@1").version, shardkit.info(f"{train}@1").samples) == (1, 12)
    report = shardkit.report(train, tmp_path / "report.html")
    assert [dataset.samples for dataset in report.datasets] == [11]


@pytest.mark.parametrize("overwriting", [False, True])
def test_all_versions_are_uploaded_and_downloaded(
    overwriting: bool, train: str, tmp_path: Path, packed_once: Path
) -> None:
    if overwriting:  # whose files have the same names, so that the copy gets others
        shardkit.pack(packed_once / "tree", tmp_path / "copy" / "train", max_count=2, seed=5, workers=1)
    shardkit.delete(train, ["dog/0000"])
    shardkit.relabel(train, {"cat/0000": "fox"})
    shardkit.revert(train, 2)
    shardkit.upload(train, tmp_path / "copy" / "train", overwrite=overwriting)
    copy = str(tmp_path / "copy" / "train")
    assert shardkit.verify(copy).findings == ()
    for version in range(1, 5):
        here, there = (shardkit.dataset(f"{name}@{version}") for name in (train, copy))
        assert list(here.keys) == list(there.keys)
        assert here.labels.tolist() == there.labels.tolist()
    assert len(list((tmp_path / "copy").iterdir())) == len(list(Path(train).parent.iterdir()))
    assert shardkit.delete(copy, ["cat/0001"]).version == 5


def test_a_dataset_that_is_packed_again_has_no_versions(train: str, packed_once: Path) -> None:
    shardkit.delete(train, ["dog/0000"])
    shardkit.pack(packed_once / "tree", train, max_count=4, workers=1, overwrite=True)
    assert len(shardkit.dataset(train)) == 12
    assert [each.version for each in shardkit.log(train)] == [1]
    assert not [path.name for path in Path(train).parent.iterdir() if ".v" in path.name]
    shardkit.delete(train, ["dog/0000"])
    assert sorted(path.name for path in Path(train).parent.iterdir() if ".v1." in path.name) == ["train-g2.v1.json"]


def test_a_glob_reads_the_current_version(train: str) -> None:
    shardkit.delete(train, ["dog/0000"])
    assert len(shardkit.dataset(f"{train}-*.tar")) == 11
    assert len(shardkit.dataset(f"{train}-000000.tar")) in (1, 2)


def test_an_index_of_shards_elsewhere_is_corrected_too(packed_once: Path, tmp_path: Path) -> None:
    shards = packed_once / "shards"
    shardkit.index_shards(str(shards / "train-*.tar"), out=tmp_path / "index" / "train")
    before = {path.name: path.read_bytes() for path in shards.iterdir()}
    own = tmp_path / "index" / "train"
    shardkit.relabel(own, {"cat/0000": 1})
    shardkit.delete(own, ["fox/0000"])
    data = shardkit.dataset(own)
    assert len(data) == 11 and data["cat/0000"]["cls"] == 1
    assert len(shardkit.dataset(f"{own}@1")) == 12
    assert {path.name: path.read_bytes() for path in shards.iterdir()} == before
