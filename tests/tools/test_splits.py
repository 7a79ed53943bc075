"""A folder that stands for several datasets, or class trees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shardkit import pack, upload
from shardkit.storage.access import Remote
from shardkit.tools.splits import splits_in


@pytest.fixture
def data(draw_tree: Any, tmp_path: Path) -> Path:
    """A tree of two splits."""
    for split in ("train", "test"):
        draw_tree(tmp_path / "data" / split, {"red": 2, "blue": 1})
    return tmp_path / "data"


def test_a_folder_of_datasets_gives_their_prefixes(data: Path, tmp_path: Path) -> None:
    pack(data, tmp_path / "shards", workers=1)
    shards = tmp_path / "shards"
    assert splits_in(str(shards), Remote()) == {"test": f"{shards}/test", "train": f"{shards}/train"}
    upload(shards, "memory://splits/cars/")
    expected = {"test": "memory://splits/cars/test", "train": "memory://splits/cars/train"}
    assert splits_in("memory://splits/cars/", Remote()) == splits_in("memory://splits/cars", Remote()) == expected


def test_a_tree_of_splits_gives_its_folders(data: Path) -> None:
    assert splits_in(str(data), Remote()) == {"train": f"{data}/train", "test": f"{data}/test"}


def test_anything_else_has_no_splits(data: Path, tmp_path: Path) -> None:
    pack(data / "train", tmp_path / "one" / "train", workers=1)
    for source in (data / "train", tmp_path / "one", tmp_path / "one" / "train", tmp_path / "gone"):
        assert splits_in(str(source), Remote()) == {}
