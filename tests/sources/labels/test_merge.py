"""Several classes as one."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shardkit
from shardkit import LabelOptions
from shardkit.cli.main import run
from shardkit.errors import SourceError, UsageError

ANIMALS = LabelOptions(merge={"animal": ["cat", "dog"]})


@pytest.fixture
def things(tmp_path: Path, draw_tree: Any) -> Path:
    return Path(draw_tree(tmp_path / "things", {"bus": 1, "cat": 2, "dog": 3}))


def counts(manifest: Any) -> dict[str, int]:
    return {entry.name: entry.count for entry in manifest.classes}


def labelled(prefix: Path) -> dict[str, str]:
    dataset = shardkit.dataset(prefix)
    return {sample["__key__"]: dataset.classes[sample["cls"]] for sample in dataset}


def test_class_folders_are_merged_and_keep_their_keys(things: Path, out: Path) -> None:
    manifest = shardkit.pack(things, out / "x", labels=ANIMALS, workers=1).manifest
    assert counts(manifest) == {"animal": 5, "bus": 1}
    assert (manifest.labels, manifest.options["merge"]) == ("listed", {"animal": ["cat", "dog"]})
    found = labelled(out / "x")
    assert found["cat/0000"] == found["dog/0000"] == "animal" and found["bus/0000"] == "bus"
    assert shardkit.verify(out / "x").sound


def test_a_class_that_has_the_new_name_becomes_part_of_it(things: Path, out: Path) -> None:
    manifest = shardkit.pack(things, out / "x", labels=LabelOptions(merge={"cat": ["dog"]}), workers=1).manifest
    assert counts(manifest) == {"bus": 1, "cat": 5}


def test_splits_keep_one_class_map(splits: Path, out: Path) -> None:
    packed = shardkit.pack(splits, out, labels=LabelOptions(merge={"colour": ["red", "blue"]}), workers=1)
    assert {name: counts(each.manifest) for name, each in packed.items()} == {
        "test": {"colour": 2}, "train": {"colour": 10}, "validation": {"colour": 4}
    }  # fmt: skip


def test_given_classes_are_those_after_merging(things: Path, out: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "shardkit"):
        manifest = shardkit.pack(
            things, out / "x", labels=ANIMALS, workers=1, classes=["van", "bus", "animal"]
        ).manifest
    assert counts(manifest) == {"van": 0, "bus": 1, "animal": 5}
    assert any("no image of class van" in record.getMessage() for record in caplog.records)
    with pytest.raises(SourceError, match="after merging, it has the classes animal, which `classes` does not name"):
        shardkit.pack(things, out / "y", labels=ANIMALS, classes=["bus", "cat", "dog"])


def test_classes_in_file_names_are_merged(tmp_path: Path, out: Path, draw_image: Any) -> None:
    (tmp_path / "pets").mkdir()
    for name in ("cat.1", "dog.1", "bus.1"):
        (tmp_path / f"pets/{name}.jpg").write_bytes(draw_image(1))
    labels = LabelOptions(label_from=r"(\w+)\.\d", merge={"animal": ["cat", "dog"]})
    assert counts(shardkit.pack(tmp_path / "pets", out / "x", labels=labels, workers=1).manifest) == {
        "animal": 2, "bus": 1
    }  # fmt: skip


def test_labels_of_lists_are_merged_several_of_a_sample_too(things: Path, out: Path) -> None:
    paths = [str(path) for path in sorted(things.rglob("*.jpg"))][:3]
    one = shardkit.pack((paths, ["dog", "cat", "bus"]), out / "one", labels=ANIMALS, workers=1).manifest
    assert counts(one) == {"animal": 2, "bus": 1}
    several = [["cat", "dog"], ["bus", "dog"], []]
    many = shardkit.pack((paths, several), out / "many", labels=ANIMALS, workers=1, shuffle=False).manifest
    assert counts(many) == {"animal": 2, "bus": 1}
    assert [json.loads(bytes(sample["cls.json"])) for sample in shardkit.dataset(out / "many")] == [[0], [0, 1], []]


def test_classes_of_arrays_keep_their_order(tmp_path: Path, out: Path) -> None:
    pixels, numbers = np.zeros((4, 3, 3), np.uint8), np.array([0, 1, 2, 3])
    np.savez(tmp_path / "data.npz", x=pixels, y=numbers, class_names=["dog", "zebra", "bus", "cat"])
    manifest = shardkit.pack(tmp_path / "data.npz", out / "x", labels=ANIMALS, workers=1).manifest
    assert counts(manifest) == {"animal": 2, "zebra": 1, "bus": 1}


def test_numbers_to_predict_are_not_merged(things: Path, out: Path) -> None:
    path = str(next(things.rglob("*.jpg")))
    with pytest.raises(UsageError, match=r"merge: the labels of .* are not classes"):
        shardkit.pack(([path], [0.5]), out / "x", labels=ANIMALS)


def test_a_class_that_is_not_there_is_named(things: Path, out: Path) -> None:
    with pytest.raises(UsageError, match="merge: there is no class dgo; the classes are bus, cat, dog"):
        shardkit.pack(things, out / "x", labels=LabelOptions(merge={"animal": ["cat", "dgo"]}))
    assert not out.exists()


def test_merged_classes_are_another_dataset_and_more_can_be_added(things: Path, out: Path, draw_image: Any) -> None:
    shardkit.pack(things, out / "x", labels=ANIMALS, workers=1)
    (things / "dog/new.jpg").write_bytes(draw_image(7))
    assert shardkit.pack(things, out / "x", labels=ANIMALS, workers=1, append=True).manifest.samples == 7
    with pytest.raises(shardkit.DestinationError, match="packed with the option merge"):
        shardkit.pack(things, out / "x", workers=1, append=True)


def test_the_command_and_its_configuration_file_merge(things: Path, out: Path, tmp_path: Path) -> None:
    assert run(["pack", str(things), str(out / "a"), "--merge", "animal=cat,dog", "--merge", "car=bus", "-q"]) == 0
    assert shardkit.dataset(out / "a").classes == ["animal", "car"]
    config = tmp_path / "pack.yaml"
    config.write_text('merge: ["animal=cat,dog", "car=bus"]\n')
    assert run(["pack", str(things), str(out / "b"), "--config", str(config), "-q"]) == 0
    assert (out / "a-000000.tar").read_bytes() == (out / "b-000000.tar").read_bytes()


@pytest.mark.parametrize("text", ["animal", "=cat", "animal=", "animal=cat,,dog"])
def test_what_is_not_name_and_classes_is_refused_by_the_command(
    text: str, things: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["pack", str(things), str(out / "a"), "--merge", text]) == 2
    assert "--merge: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("merge", "message"),
    [
        ({}, "names no classes to merge"),
        (["cat"], "names no classes to merge"),
        ({"animal": "cat"}, "is not a class with a list of classes"),
        ({"animal": []}, "is not a class with a list of classes"),
        ({"": ["cat"]}, "is not a class with a list of classes"),
        ({"animal": [1]}, "is not a class with a list of classes"),
        ({"animal": ["cat"], "pet": ["cat"]}, "the class 'cat' is named twice"),
    ],
)
def test_what_can_not_be_merged_is_refused(merge: Any, message: str) -> None:
    with pytest.raises(UsageError, match=f"merge: .*{message}"):
        LabelOptions(merge=merge)
