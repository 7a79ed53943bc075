from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import shardkit
from shardkit.shards import open as opening
from shardkit.shards.open import open_dataset


@pytest.fixture
def grown(tmp_path: Path, draw_tree: Any) -> Path:
    """A dataset with two index files; the prefix."""
    for part in range(2):
        draw_tree(tmp_path / "tree", {f"class{part}": 4})
        shardkit.pack(tmp_path / "tree", tmp_path / "out" / "train", max_count=2, workers=1, append=part > 0)
    return tmp_path / "out" / "train"


@pytest.mark.parametrize("limit", [0, opening.OPEN_BYTES])
def test_a_dataset_is_checked_with_few_index_files_open(
    grown: Path, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "OPEN_BYTES", limit)
    opened = open_dataset(grown)
    expected = shardkit.dataset(grown).keys.tolist()
    for shards in (opened.shards, opened.shards[::-1]):
        rows = [shard.rows() for shard in shards]
        assert sorted(key for found in rows if found is not None for key in found.keys) == sorted(expected)
    assert len(opened.index[0]._files._rows) == (2 if limit else 1)
    assert shardkit.verify(grown).sound


@pytest.mark.parametrize("change", ["other", "gone"])
def test_an_index_that_is_changed_while_it_is_checked_is_found(
    grown: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "OPEN_BYTES", 0)
    opened = open_dataset(grown)
    path = grown.with_name("train.parquet")
    if change == "gone":
        path.unlink()
    else:
        path.write_bytes(grown.with_name("train.00001.parquet").read_bytes())
    assert opened.shards[-1].rows() is not None
    assert opened.shards[0].rows() is None
    kinds = [found.kind for found in opened.index[0].findings]
    assert kinds == (["index-missing"] if change == "gone" else ["index-crc"])
