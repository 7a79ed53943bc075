"""`pack --append`: what is there stays as it is, and a new manifest names more."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import shardkit
from shardkit import Images, Manifest, TableColumns
from shardkit.cli.main import run
from shardkit.errors import BadFileError, DestinationError, StateError, UsageError
from shardkit.packing.pack import PackPlan
from shardkit.packing.plan import changed
from shardkit.packing.plan.append import _Look
from shardkit.packing.plan.known_rows import RowsByPath, free_keys
from shardkit.sources.columns import PathColumn
from shardkit.sources.left_out import LeftOut
from shardkit.sources.source import Source

Pack = Callable[..., Manifest]
Draw = Callable[..., bytes]


@pytest.fixture
def add(draw_image: Draw) -> Callable[..., None]:
    """Writes images; each name gives another."""

    def add(root: Path, *names: str) -> None:
        for name in names:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            format = {".png": "PNG"}.get(path.suffix, "JPEG")
            path.write_bytes(draw_image(sum(name.encode()), format=format))

    return add


def rows_of(prefix: Path) -> dict[str, dict[str, Any]]:
    """Path -> index row, of all index files that the manifest names."""
    import pyarrow.parquet as pq

    manifest = json.loads(Path(f"{prefix}.json").read_bytes())
    tables = [pq.read_table(prefix.parent / entry["name"]) for entry in manifest["index"]]
    return {row["path"]: row for table in tables for row in table.to_pylist()}


def images_of(prefix: Path) -> dict[str, bytes]:
    """Path -> the image's bytes, through the reader."""
    dataset, rows = shardkit.dataset(prefix), rows_of(prefix)
    by_key = {sample["__key__"]: sample for sample in dataset}
    assert len(by_key) == len(rows) == len(dataset)
    return {path: by_key[row["key"]][Path(path).suffix[1:]] for path, row in rows.items()}


def files_below(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.*")}


def test_what_is_new_comes_as_further_shards_and_the_old_ones_stay(
    tree: Path, out: Path, pack_one: Pack, add: Any, content_of: Any
) -> None:
    old = pack_one(tree, out / "train", max_count=5)
    before = content_of(out)
    add(tree, "blue/new.jpg", "red/new.jpg", "red/sub/new.jpg")
    new = pack_one(tree, out / "train", max_count=5, append=True)
    after = content_of(out)
    assert sorted(after.keys() - before.keys()) == ["train-000003.tar", "train.00001.parquet"]
    assert {name for name in before if after[name] != before[name]} == {"train.json"}
    assert new.shards[:3] == old.shards
    assert new.index[:1] == old.index
    assert (new.samples, len(new.shards), [entry.count for entry in new.classes]) == (15, 4, [6, 9])
    assert new.options["appended"] == [{"shards": 1, "samples": 3, "changed": 0, "gone": 0}]
    assert new.plan != old.plan
    assert images_of(out / "train") == files_below(tree)


def test_an_appended_dataset_is_sound_and_reads_in_every_way(tree: Path, out: Path, pack_one: Pack, add: Any) -> None:
    pack_one(tree, out / "train", max_count=5)
    add(tree, *(f"blue/new{n}.jpg" for n in range(7)))
    pack_one(tree, out / "train", max_count=3, append=True)
    assert shardkit.verify(out / "train", decode=True).sound
    train = shardkit.dataset(out / "train", shuffle=True, seed=1)
    assert sorted(sample["__key__"] for sample in train) == sorted(name[:-4] for name in files_below(tree))
    assert train["blue/new3"]["cls"] in (0, b"0")
    assert len(train) == len(train.select("red")) + 12 == 19
    images, labels = next(iter(shardkit.dataset(out / "train").decode(size=8).batch(19)))
    assert images.shape == (19, 8, 8, 3) and sorted(labels.tolist()) == [0] * 12 + [1] * 7


def test_a_state_of_the_dataset_before_is_refused(tree: Path, out: Path, pack_one: Pack, add: Any) -> None:
    pack_one(tree, out / "train")
    batches = shardkit.dataset(out / "train", shuffle=True).decode(size=8).batch(2)
    next(iter(batches))
    state = batches.state_dict()
    add(tree, "blue/new.jpg")
    pack_one(tree, out / "train", append=True)
    with pytest.raises(StateError):
        shardkit.dataset(out / "train", shuffle=True).decode(size=8).batch(2).load_state_dict(state)


def test_it_can_be_added_to_again_and_again(tree: Path, out: Path, pack_one: Pack, add: Any) -> None:
    pack_one(tree, out / "train")
    for number in range(3):
        add(tree, f"red/more{number}.jpg")
        manifest = pack_one(tree, out / "train", append=True)
    assert [entry.name for entry in manifest.index] == [
        "train.parquet", "train.00001.parquet", "train.00002.parquet", "train.00003.parquet",
    ]  # fmt: skip
    assert [each["samples"] for each in manifest.options["appended"]] == [1, 1, 1]
    assert images_of(out / "train") == files_below(tree)


def test_nothing_new_writes_nothing(
    tree: Path, out: Path, pack_one: Pack, content_of: Any, caplog: pytest.LogCaptureFixture
) -> None:
    first = pack_one(tree, out / "train")
    before, times = content_of(out), {path: path.stat().st_mtime_ns for path in out.iterdir()}
    with caplog.at_level(logging.INFO):
        assert pack_one(tree, out / "train", append=True) == first
    assert f"{out}/train.json: nothing to add" in caplog.text
    assert content_of(out) == before
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == times
    assert run(["pack", str(tree), str(out / "train"), "--append", "--workers", "1"]) == 0


def test_without_a_dataset_everything_is_packed(tree: Path, out: Path, pack_one: Pack, content_of: Any) -> None:
    pack_one(tree, out / "plain" / "train")
    pack_one(tree, out / "append" / "train", append=True)
    assert content_of(out / "plain") == content_of(out / "append")


def test_the_bytes_depend_on_what_is_there_and_what_is_new_alone(
    tree: Path, out: Path, pack_one: Pack, add: Any, content_of: Any
) -> None:
    for name in ("one", "two"):
        pack_one(tree, out / name / "train", max_count=5)
    add(tree, *(f"red/new{n}.jpg" for n in range(9)))
    pack_one(tree, out / "one" / "train", max_count=2, append=True)
    pack_one(tree, out / "two" / "train", max_count=2, append=True, workers=2)
    assert content_of(out / "one") == content_of(out / "two")


def test_new_classes_get_the_next_labels_and_that_is_said(
    tree: Path, out: Path, pack_one: Pack, add: Any, caplog: pytest.LogCaptureFixture
) -> None:
    pack_one(tree, out / "train")
    add(tree, "ant/1.jpg", "cat/1.jpg", "red/new.jpg")
    manifest = pack_one(tree, out / "train", append=True)
    assert [(entry.name, entry.count) for entry in manifest.classes] == [
        ("blue", 5), ("red", 8), ("ant", 1), ("cat", 1),
    ]  # fmt: skip
    assert "new classes get labels from 2 on" in caplog.text and "ant, cat" in caplog.text
    labels = {path.partition("/")[0]: row["label"] for path, row in rows_of(out / "train").items()}
    assert labels == {"blue": 0, "red": 1, "ant": 2, "cat": 3}
    assert {
        sample["__key__"].partition("/")[0]: int(sample["cls"]) for sample in shardkit.dataset(out / "train")
    } == labels


def test_a_class_folder_that_is_gone_keeps_its_label(tree: Path, out: Path, pack_one: Pack, add: Any) -> None:
    pack_one(tree, out / "train")
    for path in (tree / "blue").iterdir():
        path.unlink()
    (tree / "blue").rmdir()
    add(tree, "red/new.jpg")
    manifest = pack_one(tree, out / "train", append=True)
    assert [(entry.name, entry.count) for entry in manifest.classes] == [("blue", 5), ("red", 8)]
    assert rows_of(out / "train")["red/new.jpg"]["label"] == 1
    assert manifest.options["appended"][0]["gone"] == 5


def test_classes_that_contradict_the_labels_there_are_refused(tree: Path, out: Path, pack_one: Pack, add: Any) -> None:
    pack_one(tree, out / "train")
    add(tree, "red/new.jpg")
    with pytest.raises(UsageError, match="the first 2 classes given are not those of the existing dataset"):
        pack_one(tree, out / "train", append=True, classes=["red", "blue"])
    assert pack_one(tree, out / "train", append=True, classes_from=out / "train.json").samples == 13


def test_what_has_changed_or_gone_is_told_and_stays(
    tree: Path, out: Path, pack_one: Pack, add: Any, draw_image: Draw, caplog: pytest.LogCaptureFixture
) -> None:
    pack_one(tree, out / "train")
    before = images_of(out / "train")
    (tree / "blue" / "0001.jpg").write_bytes(draw_image(77, size=(90, 90)))
    for name in ("0000.jpg", "0003.jpg"):
        (tree / "red" / name).unlink()
    add(tree, "red/new.jpg")
    plan = shardkit.plan_pack(tree, out / "train", append=True)
    assert isinstance(plan, PackPlan)
    (dataset,) = plan.datasets
    assert (dataset.samples, [name for name, _, _ in dataset.shards]) == (1, ["train-000001.tar"])
    assert (dataset.changed.count, dataset.changed.examples) == (1, ("blue/0001.jpg",))
    assert (dataset.gone.count, sorted(dataset.gone.examples)) == (2, ["red/0000.jpg", "red/0003.jpg"])
    manifest = pack_one(tree, out / "train", append=True)
    assert "changed since but stay in the dataset as they were: 1 (blue/0001.jpg)" in caplog.text
    assert "gone from the source but stay in the dataset: 2 (red/" in caplog.text
    assert manifest.options["appended"] == [{"shards": 1, "samples": 1, "changed": 1, "gone": 2}]
    after = images_of(out / "train")
    assert after == before | {"red/new.jpg": (tree / "red" / "new.jpg").read_bytes()}


def test_only_a_full_check_sees_other_bytes_of_the_same_size(
    tree: Path, out: Path, pack_one: Pack, caplog: pytest.LogCaptureFixture
) -> None:
    pack_one(tree, out / "train")
    path = tree / "red" / "0002.jpg"
    path.write_bytes(path.read_bytes()[:-2] + b"\0\0")
    pack_one(tree, out / "train", append=True)
    assert "changed since" not in caplog.text
    pack_one(tree, out / "train", append=True, check="full")
    assert "as they were: 1 (red/0002.jpg)" in caplog.text


def test_a_file_that_was_empty_and_no_longer_is_has_changed(
    tree: Path, out: Path, pack_one: Pack, caplog: pytest.LogCaptureFixture
) -> None:
    path = tree / "red" / "0002.jpg"
    path.write_bytes(b"")
    pack_one(tree, out / "train", check="none")
    path.write_bytes(b"no longer")
    pack_one(tree, out / "train", check="none", append=True)
    assert "as they were: 1 (red/0002.jpg)" in caplog.text


def test_many_names_are_cut_short(tmp_path: Path, out: Path, pack_one: Pack, draw_tree: Any, caplog: Any) -> None:
    tree = draw_tree(tmp_path / "many", {"cat": 9})
    pack_one(tree, out / "train")
    for number in range(7):
        (tree / "cat" / f"000{number}.jpg").unlink()
    pack_one(tree, out / "train", append=True)
    line = next(record.getMessage() for record in caplog.records if "gone" in record.getMessage())
    assert ": 7 (" in line and line.count(".jpg") == 5 and line.endswith(" …)")


def test_keys_stay_unique(tree: Path, out: Path, pack_one: Pack, add: Any) -> None:
    add(tree, "red/x.png", "red/a.1.jpg", "red/gone.jpg")
    pack_one(tree, out / "train")
    assert rows_of(out / "train")["red/x.png"]["key"] == "red/x"
    (tree / "red" / "gone.jpg").unlink()
    add(tree, "red/x.jpg", "red/x-2.jpg", "red/a_1.jpg", "red/gone.png")  # x.jpg comes first in a scan of its own
    pack_one(tree, out / "train", append=True)
    keys = {path: row["key"] for path, row in rows_of(out / "train").items()}
    assert len(set(keys.values())) == len(keys) == 19
    assert keys["red/x.png"] == "red/x" and keys["red/x-2.jpg"] == "red/x-2" and keys["red/x.jpg"] == "red/x-3"
    assert keys["red/a_1.jpg"] == "red/a_1-2" and keys["red/gone.png"] == "red/gone-2"
    assert shardkit.verify(out / "train").sound


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "tfrecord"}, "this dataset is of the format tar, not tfrecord"),
        ({"ext": "jpg"}, r"packed with the option ext None, not \['jpg'\]"),
        ({"fields": "jpg,json"}, "packed with the option fields None"),
        ({"split": {"train": 1.0}}, "packed with the option group_by|packed with the option split"),
    ],
)
def test_other_options_than_those_it_was_packed_with_are_refused(
    tree: Path, out: Path, pack_one: Pack, content_of: Any, options: dict[str, Any], message: str
) -> None:
    pack_one(tree, out / "train")
    before = content_of(out)
    dest = out if "split" in options else out / "train"
    with pytest.raises(DestinationError, match=message):
        shardkit.pack(tree, dest, append=True, workers=1, **options)
    assert content_of(out) == before


def test_limits_and_seed_may_be_others(tree: Path, out: Path, pack_one: Pack, add: Any) -> None:
    pack_one(tree, out / "train", seed=1, max_bytes="1MB", check="full")
    add(tree, "red/new.jpg")
    manifest = pack_one(tree, out / "train", seed=2, max_count=9, append=True, on_error="skip")
    assert manifest.samples == 13
    assert manifest.options["seed"] == 1


def test_append_and_overwrite_contradict_each_other(tree: Path, out: Path, pack_one: Pack) -> None:
    with pytest.raises(UsageError, match="given together with `overwrite`"):
        pack_one(tree, out / "train", append=True, overwrite=True)


def test_shards_of_others_are_not_added_to(tree: Path, out: Path, pack_one: Pack) -> None:
    pack_one(tree, out / "train")
    (out / "train.json").unlink()
    shardkit.index_shards(out / "train")
    with pytest.raises(DestinationError, match="was not written by 'shardkit pack'"):
        pack_one(tree, out / "train", append=True)


@pytest.mark.parametrize("name", ["train-000000.tar", "train.parquet"])
def test_a_dataset_that_is_not_whole_is_not_added_to(tree: Path, out: Path, pack_one: Pack, name: str) -> None:
    pack_one(tree, out / "train")
    (out / name).unlink()
    with pytest.raises(DestinationError, match=f"names {name}, which is missing"):
        pack_one(tree, out / "train", append=True)


def test_a_damaged_index_is_named(tree: Path, out: Path, pack_one: Pack) -> None:
    pack_one(tree, out / "train")
    path = out / "train.parquet"
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(DestinationError, match=r"train\.parquet: the index is not the one"):
        pack_one(tree, out / "train", append=True)


def test_a_file_of_somebody_else_is_not_replaced(tree: Path, out: Path, pack_one: Pack, add: Any) -> None:
    pack_one(tree, out / "train")
    add(tree, "red/new.jpg")
    (out / "train-000001.tar").write_bytes(b"mine")
    with pytest.raises(DestinationError, match=r"train-000001\.tar: this file already exists, but the manifest"):
        pack_one(tree, out / "train", append=True)
    assert (out / "train-000001.tar").read_bytes() == b"mine"


def test_a_plain_pack_says_how_to_go_on(tree: Path, out: Path, pack_one: Pack, add: Any) -> None:
    pack_one(tree, out / "train")
    add(tree, "red/new.jpg")
    with pytest.raises(DestinationError, match="of other files; add what is new with `append=True`"):
        pack_one(tree, out / "train")
    pack_one(tree, out / "train", append=True)
    with pytest.raises(DestinationError, match="of other files; add what is new with `append=True`"):
        pack_one(tree, out / "train")


def test_an_append_that_is_cut_short_leaves_the_old_dataset_and_goes_on(
    tree: Path, out: Path, pack_one: Pack, add: Any, content_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack_one(tree, out / "train", max_count=5)
    before = content_of(out)
    images = images_of(out / "train")
    add(tree, *(f"red/new{n}.jpg" for n in range(9)))
    broken = tree / "red" / "new8.jpg"
    whole = broken.read_bytes()
    broken.write_bytes(b"no image" + bytes(len(whole) - 8))
    with pytest.raises(BadFileError, match=r"new8\.jpg"):
        pack_one(tree, out / "train", max_count=1, append=True)
    kept = content_of(out)
    assert before.items() <= kept.items()
    assert images_of(out / "train") == images
    broken.write_bytes(whole)
    finished = [name for name in kept if name.endswith(".receipt")]
    assert finished
    manifest = pack_one(tree, out / "train", max_count=1, append=True)
    assert manifest.samples == 21
    assert images_of(out / "train") == files_below(tree)
    assert not list(out.glob(".*"))


@pytest.mark.parametrize("moves", range(5))
def test_a_commit_that_is_cut_short_keeps_the_old_dataset_whole_until_the_new_one_is_there(
    tree: Path, out: Path, pack_one: Pack, add: Any, content_of: Any, monkeypatch: pytest.MonkeyPatch, moves: int
) -> None:
    pack_one(tree, out / "train", max_count=5)
    images, done = images_of(out / "train"), 0
    add(tree, *(f"red/new{n}.jpg" for n in range(3)))
    real = os.replace

    def replace(source: Any, target: Any) -> None:
        nonlocal done
        if not os.fsdecode(target).startswith(str(out / ".train.packing")):
            if done == moves:
                raise KeyboardInterrupt
            real(source, target)
            done += 1
        else:
            real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        if moves < 4:  # two shards, an index file, the manifest
            with pytest.raises(KeyboardInterrupt):
                pack_one(tree, out / "train", max_count=2, append=True)
            assert images_of(out / "train") == images
        else:
            pack_one(tree, out / "train", max_count=2, append=True)
    manifest = pack_one(tree, out / "train", max_count=2, append=True)
    assert (manifest.samples, len(manifest.shards)) == (15, 5)
    assert images_of(out / "train") == files_below(tree)
    assert sorted(content_of(out)) == sorted(
        [entry.name for entry in (*manifest.shards, *manifest.index)] + ["train.json"]
    )


def test_a_bad_file_is_tried_again_and_listed_as_long_as_it_is_bad(
    tree: Path, out: Path, pack_one: Pack, add: Any, draw_image: Draw, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("bad.jpg", "worse.jpg"):
        (tree / "red" / name).write_bytes(b"no image")
    first = pack_one(tree, out / "train", on_error="skip")
    assert (first.samples, first.skipped) == (12, 2)
    with caplog.at_level(logging.INFO):
        assert pack_one(tree, out / "train", on_error="skip", append=True) == first
    assert "nothing to add" in caplog.text
    (tree / "red" / "bad.jpg").write_bytes(draw_image(1))
    second = pack_one(tree, out / "train", on_error="skip", append=True)
    assert (second.samples, second.skipped) == (13, 1)
    listed = json.loads((out / "train.skipped.json").read_bytes())
    assert [item["path"] for item in listed] == ["red/worse.jpg"]
    (tree / "red" / "worse.jpg").write_bytes(draw_image(2))
    third = pack_one(tree, out / "train", on_error="skip", append=True)
    assert (third.samples, third.skipped) == (14, 0)
    assert not (out / "train.skipped.json").exists()


def test_splits_are_added_to_with_one_class_map(splits: Path, out: Path, add: Any) -> None:
    shardkit.pack(splits, out, workers=1)
    add(splits, "train/ant/1.jpg", "test/red/new.jpg")
    found = shardkit.pack(splits, out, workers=1, append=True)
    assert isinstance(found, shardkit.Packed)
    assert {split: manifest.samples for split, manifest in found.items()} == {"train": 11, "validation": 4, "test": 3}
    assert {tuple(manifest.class_names) for manifest in found.values()} == {("blue", "red", "ant")}
    for split in found:
        assert shardkit.verify(out / split).sound
        assert images_of(out / split) == files_below(splits / split)
    again = shardkit.pack(splits, out, workers=1, append=True)
    assert again == found


def append_one_split(splits: Path, out: Path, split: str, new: Path) -> None:
    """Add an image of a new class to a split, from a tree that has no other split."""
    shutil.copytree(splits / split, splits.parent / f"{split}_alone" / split)
    (splits.parent / f"{split}_alone" / split / new).parent.mkdir()
    shutil.copy(next((splits / split).rglob("*.jpg")), splits.parent / f"{split}_alone" / split / new)
    shardkit.pack(splits.parent / f"{split}_alone", out, workers=1, append=True)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_split_that_got_a_class_alone_gives_it_to_the_others(splits: Path, out: Path, add: Any, split: str) -> None:
    shardkit.pack(splits, out, workers=1)
    append_one_split(splits, out, split, Path("bee/1.jpg"))
    add(splits, "validation/ant/1.jpg")
    found = shardkit.pack(splits, out, workers=1, append=True)
    assert isinstance(found, shardkit.Packed)
    assert {name: tuple(manifest.class_names) for name, manifest in found.items()} == {
        "train": ("blue", "red", "bee", "ant"), "validation": ("blue", "red", "bee", "ant"),
        "test": ("blue", "red", "bee", "ant"),
    }  # fmt: skip


def test_splits_whose_new_classes_contradict_each_other_are_not_added_to(splits: Path, out: Path) -> None:
    shardkit.pack(splits, out, workers=1)
    append_one_split(splits, out, "train", Path("bee/1.jpg"))
    append_one_split(splits, out, "test", Path("cow/1.jpg"))
    with pytest.raises(DestinationError, match="classes differ from those of another split that is added to"):
        shardkit.pack(splits, out, workers=1, append=True)


def test_splits_that_were_made_while_packing_stay_as_they_are(
    tmp_path: Path, out: Path, draw_tree: Any, add: Any
) -> None:
    tree = draw_tree(tmp_path / "tree", {"cat": 30, "dog": 30})
    options: dict[str, Any] = {"split": {"train": 0.7, "test": 0.3}, "workers": 1, "append": True}
    shardkit.pack(tree, out, **options)
    before = {name: set(rows_of(out / name)) for name in ("train", "test")}
    add(tree, *(f"cat/new{n}.jpg" for n in range(30)))
    shardkit.pack(tree, out, **options)
    after = {name: set(rows_of(out / name)) for name in ("train", "test")}
    assert all(before[name] < after[name] for name in before)
    assert len(after["train"] | after["test"]) == 90 and not after["train"] & after["test"]
    with pytest.raises(DestinationError, match="option seed 0, not 1"):
        shardkit.pack(tree, out, seed=1, **options)


def test_samples_of_several_files_are_added(tree: Path, out: Path, pack_one: Pack, add: Any) -> None:
    def describe() -> None:
        for path in tree.rglob("*.jpg"):
            path.with_suffix(".json").write_text(json.dumps(path.name))

    describe()
    pack_one(tree, out / "train", fields="jpg,json")
    add(tree, "red/new.jpg", "blue/new.jpg")
    describe()
    manifest = pack_one(tree, out / "train", fields="jpg,json", append=True)
    assert manifest.samples == 14
    for sample in shardkit.dataset(out / "train"):
        assert json.loads(sample["json"]) == sample["__key__"].partition("/")[2] + ".jpg"
    assert shardkit.verify(out / "train").sound


def test_tfrecord_is_added_to(tree: Path, out: Path, pack_one: Pack, add: Any) -> None:
    pack_one(tree, out / "train", format="tfrecord")
    add(tree, "red/new.jpg", "ant/new.jpg")
    manifest = pack_one(tree, out / "train", format="tfrecord", append=True)
    assert [entry.name for entry in manifest.shards] == ["train-000000.tfrecord", "train-000001.tfrecord"]
    assert images_of(out / "train") == files_below(tree)
    assert shardkit.verify(out / "train").sound


def test_the_command_tells_what_a_dry_run_would_add(
    tree: Path, out: Path, pack_one: Pack, add: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    pack_one(tree, out / "train")
    add(tree, "red/new.jpg")
    (tree / "blue" / "0000.jpg").unlink()
    assert run(["pack", str(tree), str(out / "train"), "--append", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "train-000001.tar" in shown and "gone from the source: 1 (blue/0000.jpg)" in shown
    assert "nothing was written" in shown


def made_up(paths: list[bytes]) -> Source:
    n = len(paths)
    return Source(b"/x", ("a",), PathColumn.of(paths), np.ones(n, np.int64), np.zeros(n, np.int32), {}, LeftOut())


def test_rows_are_found_also_where_all_hashes_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [b"a/%d.jpg" % number for number in range(50)]
    wanted = [paths[7], b"a/none.jpg", paths[49], paths[0]]
    assert RowsByPath(PathColumn.of(paths)).find(wanted).tolist() == [7, -1, 49, 0]
    monkeypatch.setattr("shardkit.packing.plan.known_rows.hash", lambda _: 5, raising=False)
    assert RowsByPath(PathColumn.of(paths)).find(wanted).tolist() == [7, -1, 49, 0]
    assert RowsByPath(PathColumn.of(paths)).find([]).tolist() == []


def test_free_keys_are_those_that_nobody_has() -> None:
    source = made_up([b"a/x.jpg", b"a/y.jpg", b"a/x-2.jpg", b"a/z.jpg"])
    rows = np.arange(4)
    assert free_keys(source, rows, lambda: [["a/x", "a/w"], ["a/x-3"]]) == {0: "a/x-4"}
    assert free_keys(source, rows[1:2], lambda: [["a/x"]]) == {}
    assert free_keys(source, rows[:0], lambda: [["a/x"]]) == {}


def test_what_a_list_names_is_added(tree: Path, out: Path, pack_one: Pack) -> None:
    rows = [f"{path.relative_to(tree)},{path.parent.name},{path.stem}" for path in sorted(tree.rglob("*.jpg"))]
    listed = tree / "list.csv"
    listed.write_text("\n".join(["path,label,note", *rows[:8]]))
    first = pack_one(listed, out / "train")
    listed.write_text("\n".join(["path,label,note", *rows]))
    second = pack_one(listed, out / "train", append=True)
    assert (first.samples, second.samples, second.class_names) == (8, 12, ["blue", "red"])
    for sample in shardkit.dataset(out / "train"):
        assert json.loads(sample["json"]) == {"note": int(sample["__key__"].partition("/")[2])}
    assert shardkit.verify(out / "train").sound


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet", "metadata.csv"])
@pytest.mark.parametrize("numbers", [False, True])
def test_labels_that_were_corrected_in_a_list_are_told_and_stay(
    ending: str, numbers: bool, tree: Path, out: Path, pack_one: Pack, caplog: pytest.LogCaptureFixture
) -> None:
    names = [str(path.relative_to(tree)) for path in sorted(tree.rglob("*.jpg"))]
    classes = [0, 1] if numbers else ["blue", "red"]
    labels = [classes[name.startswith("red")] for name in names]
    listed = tree / (ending if ending[0] != "." else f"list{ending}")
    source = tree if ending[0] != "." else listed

    def write(labels: list[Any]) -> None:
        rows = [{"file_name": name, "label": label} for name, label in zip(names, labels, strict=False)]
        if ending.endswith(".csv"):
            listed.write_text("\n".join(["file_name,label", *(f"{row['file_name']},{row['label']}" for row in rows)]))
        elif ending == ".jsonl":
            listed.write_text("\n".join(map(json.dumps, rows)))
        else:
            pq.write_table(pa.Table.from_pylist(rows), listed)

    write(labels[:-1])
    pack_one(source, out / "train")
    before = rows_of(out / "train")
    labels[0], labels[3] = classes[1], classes[1]
    write(labels)
    manifest = pack_one(source, out / "train", append=True)
    told = "files whose label has changed since but which keep the old one in the dataset: 2 (%s, %s)"
    assert told % (names[0], names[3]) in caplog.text or told % (names[3], names[0]) in caplog.text
    assert "again with `overwrite=True`" in caplog.text
    assert "files that have changed since" not in caplog.text
    assert manifest.options["appended"] == [{"shards": 1, "samples": 1, "changed": 2, "gone": 0}]
    assert {path: row for path, row in rows_of(out / "train").items() if path in before} == before


def test_labels_are_compared_by_the_name_of_the_class(
    tree: Path, out: Path, pack_one: Pack, caplog: pytest.LogCaptureFixture
) -> None:
    names = [str(path.relative_to(tree)) for path in sorted(tree.rglob("*.jpg"))]
    listed = tree / "list.csv"
    listed.write_text("\n".join(["path,label", *(f"{name},{name.partition('/')[0]}" for name in names[:8])]))
    pack_one(listed, out / "train")
    with listed.open("a") as file:  # a class that comes first in the order of names
        file.write("".join(f"\n{name},aqua" for name in names[8:]))
    manifest = pack_one(listed, out / "train", append=True)
    assert manifest.class_names == ["blue", "red", "aqua"]
    assert "whose label has changed" not in caplog.text
    assert manifest.options["appended"][0]["changed"] == 0


def test_a_file_of_another_size_and_class_is_counted_once(
    tree: Path, out: Path, pack_one: Pack, draw_image: Draw, caplog: pytest.LogCaptureFixture
) -> None:
    names = [str(path.relative_to(tree)) for path in sorted(tree.rglob("*.jpg"))]
    listed = tree / "list.csv"
    rows = [f"{name},{name.partition('/')[0]}" for name in names]
    listed.write_text("\n".join(["path,label", *rows]))
    pack_one(listed, out / "train")
    (tree / names[0]).write_bytes(draw_image(77, size=(90, 90)))
    listed.write_text("\n".join(["path,label", f"{names[0]},red", *rows[1:]]))
    plan = shardkit.plan_pack(listed, out / "train", append=True)
    assert isinstance(plan, PackPlan)
    assert (plan.datasets[0].changed.count, plan.datasets[0].changed.examples) == (1, (names[0],))
    assert f"as they were: 1 ({names[0]})" in caplog.text and f"in the dataset: 1 ({names[0]})" in caplog.text


def test_labels_of_another_kind_are_refused(tree: Path, out: Path, pack_one: Pack) -> None:
    rows = [f"{path.relative_to(tree)},{number}.5" for number, path in enumerate(sorted(tree.rglob("*.jpg")))]
    listed = tree / "list.csv"
    listed.write_text("\n".join(["path,label", *rows]))
    pack_one(tree, out / "train")
    with pytest.raises(DestinationError, match="its labels are of the kind 'class', and those of the source 'number'"):
        pack_one(listed, out / "train", append=True)


def test_several_labels_keep_their_numbers(
    tree: Path, out: Path, pack_one: Pack, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    names = [str(path.relative_to(tree)) for path in sorted(tree.rglob("*.jpg"))]
    listed = tree / "list.csv"
    listed.write_text("\n".join(["path,label", *(f"{name},dog;cat" for name in names[:8])]))
    pack_one(listed, out / "train", columns=TableColumns(label_separator=";"))
    listed.write_text("\n".join(["path,label", *(f"{name},dog;cat;ant" for name in names)]))
    with pytest.raises(UsageError, match="several labels each"):
        pack_one(listed, out / "train", columns=TableColumns(label_separator=";"), append=True)
    manifest = pack_one(
        listed,
        out / "train",
        columns=TableColumns(label_separator=";"),
        append=True,
        classes=["cat", "dog", "ant"],
    )
    assert [(entry.name, entry.count) for entry in manifest.classes] == [("cat", 12), ("dog", 12), ("ant", 4)]
    assert "changed labels of the 8 existing samples are not detected" in caplog.text
    found = {sample["__key__"]: sorted(json.loads(sample["cls.json"])) for sample in shardkit.dataset(out / "train")}
    assert sorted(map(str, found.values())) == ["[0, 1, 2]"] * 4 + ["[0, 1]"] * 8


def test_a_transcoded_dataset_is_added_to(tree: Path, out: Path, pack_one: Pack, add: Any, caplog: Any) -> None:
    pack_one(tree, out / "train", images=Images(resize=16))
    add(tree, "red/new.jpg")
    manifest = pack_one(tree, out / "train", images=Images(resize=16), append=True)
    assert manifest.samples == 13
    assert "changed" not in caplog.text  # the sizes of files and images can't be compared
    with pytest.raises(DestinationError, match="packed with the option"):
        pack_one(tree, out / "train", images=Images(resize=20), append=True)


@pytest.mark.parametrize(("later", "found"), [(-1, None), (0, None), (1, "cat/a.jpg")])
def test_a_file_counts_as_newer_from_the_first_nanosecond_on(
    later: int, found: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Elsewhere:
        origin = SimpleNamespace(watched=lambda rows: [b"here/a.jpg"])
        paths = PathColumn.of([b"cat/a.jpg"])

        def __len__(self) -> int:
            return 1

    source: Any = Elsewhere()
    monkeypatch.setattr(changed, "changed_at", lambda path: 1000 + later)
    monkeypatch.setattr(changed, "_checksums_of", lambda source, rows: [7] * len(rows))
    none = np.zeros(0, np.int64)
    assert changed.changed_file(source, none, 1000, [{"cat/a.jpg": 8}]) == found
    assert changed.changed_file(source, none, 1000, [{"cat/a.jpg": 7}]) is None


def test_each_row_that_is_known_is_looked_at_from_the_first_on() -> None:
    source: Any = SimpleNamespace(elsewhere=None, labels=np.array([0, 1]))
    look = _Look(source, np.array([5, 6]), full=False, copied=True)
    columns = {"image_size": np.array([6, 6, 6]), "label": np.array([1, 1, 1]), "crc32c": np.zeros(3, np.int64)}
    look.at(np.array([0, 1, -1]), ["first", "second", "gone"], columns)
    assert [summary.examples for summary in (look.files, look.labels, look.changed)] == [("first",)] * 3
