from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest

import shardkit
from shardkit import NotFoundError, SourceError
from shardkit.reading.blocks.tree import tree_catalog

KeysOf = Callable[[Any], list[str]]


def test_a_class_directory_reads_as_its_packed_dataset_does(small_tree: Path, cars: str) -> None:
    tree, packed = shardkit.dataset(small_tree), shardkit.dataset(cars)
    assert (len(tree), tree.classes, tree.class_counts) == (len(packed), packed.classes, packed.class_counts)
    assert tree.fields == packed.fields
    by_key = {sample["__key__"]: sample for sample in packed}
    for sample in tree:
        other = by_key.pop(sample["__key__"])
        assert [*sample] == [*other]
        assert (sample["jpg"], sample["cls"]) == (other["jpg"], other["cls"])
        assert sample["__url__"] == str(small_tree / f"{sample['__key__']}.jpg")
    assert by_key == {}


def test_it_is_read_in_the_order_of_its_classes(small_tree: Path, keys_of: KeysOf) -> None:
    keys = keys_of(shardkit.dataset(small_tree))
    assert keys == sorted(keys)


def test_it_is_shuffled_decoded_and_batched(small_tree: Path) -> None:
    dataset = shardkit.dataset(small_tree, shuffle=50).decode(size=8, crop="random").batch(10)
    first, second = list(dataset), list(dataset)
    assert [len(batch.keys) for batch in first] == [10] * 9 + [7]
    assert first[0].images.shape == (10, 8, 8, 3)
    keys = [[key for batch in batches for key in batch.keys] for batches in (first, second)]
    assert sorted(keys[0]) == sorted(keys[1])
    assert keys[0] != keys[1]


def test_views_of_it_need_no_packing(small_tree: Path, keys_of: KeysOf) -> None:
    tree = shardkit.dataset(small_tree)
    assert tree["red/004"]["cls"] == 2
    assert tree[-1]["__key__"] == "red/049"
    assert keys_of(tree[30:33]) == ["green/000", "green/001", "green/002"]
    assert len(tree.select("green")) == 17
    parts = tree.split({"train": 0.8, "validation": 0.2}, seed=1)
    assert [len(part) for part in parts.values()] == [78, 19]
    sizes = np.array([path.stat().st_size for path in sorted(small_tree.rglob("*.jpg"))])
    assert len(tree.where(pc.field("image_size") > int(np.median(sizes)))) == (sizes > np.median(sizes)).sum()


def test_ranks_share_it(small_tree: Path, keys_of: KeysOf) -> None:
    parts = [keys_of(shardkit.dataset(small_tree, shuffle=9, rank=rank, world_size=4)) for rank in range(4)]
    assert [len(part) for part in parts] == [24] * 4
    assert len({key for part in parts for key in part}) == 96


def test_a_file_that_has_vanished_since_the_scan_is_named(small_tree: Path, tmp_path: Path) -> None:
    import shutil

    root = shutil.copytree(small_tree, tmp_path / "tree")
    dataset = shardkit.dataset(root)
    assert len(dataset) == 97
    (root / "red" / "007.jpg").unlink()
    with pytest.raises(NotFoundError, match=r"red/007\.jpg: the file has vanished since the scan"):
        list(dataset)
    with pytest.raises(NotFoundError, match=r"red/007\.jpg"):
        list(dataset.decode(size=8).batch(8))


def test_a_folder_without_classes_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError):
        next(iter(shardkit.dataset(tmp_path)))


def test_trees_that_differ_in_one_file_have_other_states(small_tree: Path, tmp_path: Path) -> None:
    import shutil

    root = shutil.copytree(small_tree, tmp_path / "tree")
    (root / "red" / "000.jpg").rename(root / "red" / "zzz.jpg")
    with pytest.raises(shardkit.StateError):
        shardkit.dataset(root).load_state_dict(shardkit.dataset(small_tree).state_dict())


@pytest.mark.parametrize("names", [("train", "test"), ("training_set", "test_set"), ("train2017", "val2017")])
def test_a_folder_of_splits_is_no_tree_of_classes(small_tree: Path, tmp_path: Path, names: tuple[str, str]) -> None:
    for name in names:
        shutil.copytree(small_tree, tmp_path / "data" / name)
    with pytest.raises(SourceError, match=rf"holds splits.*{min(names)}, {max(names)}; open each separately"):
        len(shardkit.dataset(tmp_path / "data"))
    assert len(shardkit.dataset(tmp_path / "data" / names[0])) == 97


def test_the_mean_size_of_its_images_is_known(small_tree: Path) -> None:
    sizes = [path.stat().st_size for path in small_tree.rglob("*.jpg")]
    assert tree_catalog(str(small_tree)).mean_bytes == sum(sizes) // len(sizes)
