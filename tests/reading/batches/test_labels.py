"""Labels that are several classes, or numbers to be predicted, up to the batches."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shardkit
from shardkit import DatasetError, DecodeError, UsageError

SEVERAL = [[0, 2], [], [1], [0, 1, 2], [2], [1, 2]]
HOT = [[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1], [0, 0, 1], [0, 1, 1]]

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path, draw_image: Callable[..., bytes]) -> Make:
    def made(labels: list[Any], name: str = "x", **options: Any) -> Path:
        samples: Iterator[dict[str, Any]] = (
            {"jpg": draw_image(n, size=(20, 20)), "cls": label} for n, label in enumerate(labels)
        )
        shardkit.write(samples, tmp_path / name / name, **options)
        return tmp_path / name / name

    return made


@pytest.mark.parametrize("format", ["tar", "tfrecord"])
@pytest.mark.parametrize("label", ["int", "multihot"])
def test_several_classes_are_multi_hot_in_batches(make: Make, format: str, label: Any) -> None:
    data = shardkit.dataset(make(SEVERAL, classes=["a", "b", "c"], format=format))
    (batch,) = data.decode(size=8, label=label).batch(6)
    assert batch.images.shape == (6, 8, 8, 3)
    assert batch.labels.dtype == np.float32 and batch.labels.tolist() == HOT
    assert data.classes == ["a", "b", "c"] and data.class_counts == {"a": 2, "b": 3, "c": 4}
    assert "cls.json" not in batch.fields
    assert [sample["cls"].tolist() for sample in data.decode(size=8)] == HOT
    assert data.decode()[3]["cls"].tolist() == [1, 1, 1]
    shuffled = data.shuffle(6).decode(size=8).batch(2)
    assert sorted(row for batch in shuffled for row in batch.labels.tolist()) == sorted(HOT)
    ranked = shardkit.dataset(data.content.source, rank=1, world_size=2).decode(size=8).batch(3)  # type: ignore[attr-defined]
    assert [batch.labels.tolist() for batch in ranked] == [HOT[3:6]]


@pytest.mark.parametrize(
    ("labels", "shape"), [([0.5, 1.0, -2.25, 4.0], (4,)), ([[n / 2, 1.0] for n in range(4)], (4, 2))]
)
def test_numbers_to_be_predicted_are_floats_in_batches(make: Make, labels: list[Any], shape: tuple[int, ...]) -> None:
    (batch,) = shardkit.dataset(make(labels)).decode(size=8).batch(4)
    assert batch.labels.dtype == np.float32 and batch.labels.shape == shape
    np.testing.assert_array_equal(batch.labels, np.array(labels, np.float32))


@pytest.mark.parametrize("label_first", [False, True])
@pytest.mark.parametrize("key", ["a", "deep/" + "long" * 40])
def test_labels_are_found_wherever_they_stand_in_a_sample(
    tmp_path: Path, draw_image: Callable[..., bytes], label_first: bool, key: str
) -> None:
    samples = [{"__key__": f"{key}{n}", "jpg": draw_image(n), "cls": labels} for n, labels in enumerate(SEVERAL)]
    if label_first:
        samples = [{name: sample[name] for name in ("__key__", "cls", "jpg")} for sample in samples]
    shardkit.write(samples, tmp_path / "x")
    (batch,) = shardkit.dataset(tmp_path / "x").decode(size=8).batch(6)
    assert batch.labels.tolist() == HOT


def test_a_label_that_can_not_be_read_is_skipped_where_that_is_asked_for(make: Make) -> None:
    path = make(SEVERAL, classes=["a", "b", "c"])
    manifest = json.loads(path.with_name("x.json").read_text("utf-8"))
    path.with_name("x.json").write_text(json.dumps(manifest | {"classes": manifest["classes"][:2]}), "utf-8")
    (batch,) = shardkit.dataset(path).decode(size=8, on_error="skip").batch(6)
    assert batch.labels.tolist() == [[0, 0], [0, 1]] and batch.keys == ["000000001", "000000002"]


def test_other_fields_come_along(tmp_path: Path, draw_image: Callable[..., bytes]) -> None:
    samples = [{"jpg": draw_image(n), "json": {"n": n}, "cls": [0, n]} for n in (1, 2)]
    shardkit.write(samples, tmp_path / "x")
    (batch,) = shardkit.dataset(tmp_path / "x").decode(size=8).batch(2)
    assert batch.json == [{"n": 1}, {"n": 2}] and batch.labels.tolist() == [[1, 1, 0], [1, 0, 1]]


def test_one_class_may_be_multi_hot_too(tree: Path) -> None:
    (batch,) = shardkit.dataset(tree).decode(size=8, label="multihot").batch(12)
    assert batch.labels.shape == (12, 2) and batch.labels.sum(1).tolist() == [1] * 12


def test_datasets_of_several_classes_are_put_together_by_name(make: Make) -> None:
    one = shardkit.dataset(make([[0], [0, 1]], "one", classes=["a", "b"]))
    two = shardkit.dataset(make([[0], [1, 0]], "two", classes=["c", "a"]))
    (batch,) = shardkit.concat([one, two]).decode(size=8).batch(4)
    assert batch.labels.tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 1], [1, 0, 1]]
    other = shardkit.dataset(make([0, 1], "other"))
    with pytest.raises(UsageError, match="combine datasets of one kind"):
        next(iter(shardkit.concat([one, other]).decode(size=8)))


@pytest.mark.parametrize("label", ["onehot", "binary"])
def test_ways_to_write_one_class_are_refused(make: Make, label: Any) -> None:
    with pytest.raises(UsageError, match="these samples have several classes"):
        next(iter(shardkit.dataset(make(SEVERAL)).decode(size=8, label=label).batch(2)))
    with pytest.raises(UsageError, match="these samples have numbers"):
        next(iter(shardkit.dataset(make([0.5], "n")).decode(size=8, label="multihot").batch(2)))


@pytest.mark.parametrize(
    "use",
    [
        lambda data: len(data.select("0")),
        lambda data: next(iter(data.balance())),
        lambda data: next(iter(data.weight({"0": 1}))),
        lambda data: data[:3].class_counts,
    ],
)
def test_what_needs_one_class_in_the_index_is_refused(make: Make, use: Callable[[shardkit.Dataset], Any]) -> None:
    with pytest.raises(UsageError, match="samples have several classes here, which are not in the index"):
        use(shardkit.dataset(make(SEVERAL)))


@pytest.mark.parametrize(
    ("kind", "field", "fact"),
    [
        ("multi", b"[0, 3]", "label 3 with 3 classes: expected 0 to 2"),
        ("multi", b"[0.5]", "not a label of this dataset"),
        ("multi", b"{", "not a label of this dataset"),
        ("multi", None, "no field 'cls.json'"),
        ("number", b'"x"', "not a label of this dataset"),
        ("number", b"[1, null]", "not a label of this dataset"),
    ],
)
def test_a_wrong_label_is_named_with_its_sample(
    make: Make, draw_image: Callable[..., bytes], tmp_path: Path, kind: str, field: bytes | None, fact: str
) -> None:
    good = {"jpg": draw_image(0), "cls.json": b"[1]"}
    bad = {"jpg": draw_image(0)} | ({} if field is None else {"cls.json": field})
    shardkit.write([good, bad], tmp_path / "x")
    path = tmp_path / "x.json"
    manifest = json.loads(path.read_text("utf-8"))
    assert manifest["options"]["labels"] == "none"
    manifest |= {"classes": [{"name": name, "count": 1} for name in "abc"]}
    manifest["options"]["labels"] = kind
    path.write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(DecodeError, match=rf"x-000000\.tar: .*000000001: .*{fact}"):
        next(iter(shardkit.dataset(tmp_path / "x").decode(size=8).batch(2)))


def test_numbers_of_two_lengths_make_no_batch(make: Make) -> None:
    with pytest.raises(DatasetError, match="labels of equal length: 000000000 has 2 and 000000001 3"):
        next(iter(shardkit.dataset(make([[0.5, 1], [1, 2, 0.5]])).decode(size=8).batch(2)))
