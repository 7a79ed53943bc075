from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardkit import ManifestError, NotFoundError, UsageError, info, pack, upload
from shardkit.shards.manifest import ClassEntry
from shardkit.tools.info import Range, _range


@pytest.fixture
def packed(draw_tree: Any, tmp_path: Path) -> Path:
    """A dataset of 9 images: 5 of 40 x 30 pixels in red, 4 of 20 x 60 in blue."""
    tree = draw_tree(tmp_path / "tree", {"red": 5})
    draw_tree(tree, {"blue": 4}, size=(20, 60))
    pack(tree, tmp_path / "shards" / "train", workers=1, max_count=4)
    return tmp_path / "shards" / "train"


def test_it_tells_what_is_in_a_dataset(packed: Path, tmp_path: Path) -> None:
    found = info(packed)
    shards = sorted(packed.parent.glob("*.tar"))
    sizes = [path.stat().st_size for path in shards]
    assert found.source == f"{packed}.json"
    assert (found.samples, found.shards, found.shard_format) == (9, 3, "tar")
    assert (found.bytes, found.shard_bytes) == (sum(sizes), Range(min(sizes), sorted(sizes)[1], max(sizes)))
    assert found.image_bytes == sum(path.stat().st_size for path in (tmp_path / "tree").glob("*/*.jpg"))
    assert found.classes == (ClassEntry("blue", 4), ClassEntry("red", 5))
    assert found.fields == ("cls", "jpg")
    assert (found.width, found.height) == (Range(20, 40, 40), Range(30, 30, 60))
    assert found.common_sizes == ((40, 30, 5), (20, 60, 4))
    assert found.unknown_sizes == 0
    assert found.options["max_count"] == 4


def test_a_dataset_is_found_by_prefix_manifest_glob_range_and_shard(packed: Path) -> None:
    expected = info(packed)
    for form in (
        str(packed),
        f"{packed}.json",
        f"{packed}-*.tar",
        f"{packed}-{{000000..000002}}.tar",
        f"{packed}-000000.tar",
    ):
        assert info(form) == expected


def test_a_prefix_with_a_dash_is_its_own_dataset(tree: Path, tmp_path: Path) -> None:
    pack(tree, tmp_path / "cars-small", workers=1)
    assert info(tmp_path / "cars-small").samples == 12
    assert info(f"{tmp_path}/cars-small-*.tar").samples == 12


def test_images_without_a_known_size_are_counted(tree: Path, tmp_path: Path) -> None:
    pack(tree, tmp_path / "out", workers=1, check="none")
    found = info(tmp_path / "out")
    known = found.samples - found.unknown_sizes
    assert sum(count for *_, count in found.common_sizes) == known
    assert (found.width is None) == (known == 0)


def test_the_folder_of_one_dataset_means_that_dataset(packed: Path) -> None:
    assert info(packed.parent) == info(packed)


def test_what_is_not_there_is_an_error_that_names_it(packed: Path) -> None:
    with pytest.raises(NotFoundError, match=f"{packed.parent / 'validation'}: there is no dataset here"):
        info(packed.parent / "validation")


def test_shards_without_a_manifest_are_refused_and_a_class_tree_is_described(packed: Path, tree: Path) -> None:
    Path(f"{packed}.json").unlink()
    with pytest.raises(NotFoundError, match=r'no dataset here \(no manifest\); make one with: shardkit index "'):
        info(packed)
    found = info(tree)
    assert (found.source, found.shard_format, found.shards, found.samples) == (str(tree), "", 0, 12)
    assert found.bytes == found.image_bytes == sum(path.stat().st_size for path in tree.glob("*/*"))


def test_a_damaged_manifest_is_an_error_of_its_own(packed: Path) -> None:
    Path(f"{packed}.json").write_text("{}")
    with pytest.raises(ManifestError, match=r"train\.json: this is not a manifest"):
        info(packed)


def test_a_manifest_of_a_later_version_is_refused_with_the_version(packed: Path) -> None:
    path = Path(f"{packed}.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 99}))
    with pytest.raises(ManifestError, match="version 99"):
        info(packed)


def test_a_missing_or_damaged_index_is_named(packed: Path) -> None:
    index = Path(f"{packed}.parquet")
    index.write_bytes(b"PAR1" * 9)
    with pytest.raises(ManifestError, match=r"train\.parquet: the index is not the one that its manifest names"):
        info(packed)
    index.unlink()
    with pytest.raises(NotFoundError, match=r"train\.parquet: the index is missing"):
        info(packed)


def test_a_dataset_in_a_store_is_told_as_one_of_this_machine(packed: Path) -> None:
    upload(packed, "memory://info/train")
    here, there = info(packed), info("memory://info/train")
    assert replace(there, source=here.source, jpegs=here.jpegs) == here
    assert there.jpegs == 0, "the images of a store are not fetched"
    assert there.source == "memory://info/train.json"
    with pytest.raises(UsageError, match="storage options"):
        info("memory://info/train", storage_options={"region": "here"})


@given(st.lists(st.integers(1, 50), min_size=1))
def test_the_range_is_that_of_the_sorted_numbers(numbers: list[int]) -> None:
    ordered = sorted(numbers)
    assert _range(Counter(numbers)) == Range(ordered[0], ordered[(len(ordered) - 1) // 2], ordered[-1])
