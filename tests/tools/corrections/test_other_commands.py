"""What commands that know nothing of corrections do with a corrected dataset, and with its older versions."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import shardkit
from shardkit.errors import DestinationError, UsageError

Labels = Callable[[str], dict[str, str]]


def test_a_new_index_would_lose_the_corrections_and_is_refused(train: str, labels_of: Labels) -> None:
    shardkit.delete(train, ["cat/0001"])
    before = labels_of(train)
    for source in (train, f"{train}-*.tar"):
        with pytest.raises(DestinationError, match=r"was corrected \(version 2\), and a new index would lose"):
            shardkit.index_shards(source, overwrite=True)
    assert labels_of(train) == before


def test_an_older_version_is_sound_when_later_ones_have_further_shards(
    train: str, packed_once: Path, tmp_path: Path, draw_tree: Callable[..., Path]
) -> None:
    shardkit.relabel(train, {"cat/0001": "dog"})
    more = draw_tree(tmp_path / "more", {"cat": 6, "dog": 4, "fox": 4}, size=(12, 10), seed=70)
    shardkit.pack(more, train, append=True, workers=1)
    for version in ("@1", "@2", ""):
        assert shardkit.verify(train + version).findings == ()
    Path(f"{train}-000099.tar").write_bytes(b"")
    assert [finding.kind for finding in shardkit.verify(train).findings] == ["shard-unknown"]


def test_a_folder_with_an_index_of_shards_elsewhere_holds_one_dataset_when_it_was_corrected(
    train: str, tmp_path: Path, labels_of: Labels
) -> None:
    (tmp_path / "own").mkdir()
    shardkit.index_shards(f"{train}-*.tar", out=tmp_path / "own")
    own = str(tmp_path / "own")
    shardkit.relabel(own, {"cat/0001": 2})
    assert min(os.listdir(own)) == "train.json" and "train.v1.json" in os.listdir(own)
    assert labels_of(own) == labels_of(f"{own}/train")


def test_a_dataset_of_which_everything_was_purged_is_sound(train: str, labels_of: Labels) -> None:
    shardkit.delete(train, list(labels_of(train)), purge=True)
    assert len(shardkit.dataset(train)) == 0
    assert shardkit.verify(train).findings == ()


def test_packing_the_same_tree_again_says_that_the_dataset_was_corrected(train: str, packed_once: Path) -> None:
    shardkit.relabel(train, {"cat/0001": "dog"})
    with pytest.raises(DestinationError, match=r"a dataset with corrections is there \(version 2\)"):
        shardkit.pack(packed_once / "tree", train, max_count=2, workers=1)


def test_new_classes_may_be_numbers_where_all_are(
    tmp_path: Path, draw_tree: Callable[..., Path], labels_of: Labels
) -> None:
    tree = draw_tree(tmp_path / "tree", {"3": 2, "7": 2})
    train = str(tmp_path / "train")
    shardkit.pack(tree, train, workers=1)
    shardkit.relabel(train, {"3/0001": 9}, new_classes=True)
    assert labels_of(train)["3/0001"] == "9" and shardkit.dataset(train).classes == ["3", "7", "9"]


@pytest.mark.parametrize("name", [".", ".."])
def test_no_class_is_called_like_a_folder_above(train: str, name: str) -> None:
    with pytest.raises(UsageError, match=r"no class can have the name"):
        shardkit.relabel(train, {"cat/0001": name}, new_classes=True)


def test_a_version_that_is_no_number_is_told(train: str) -> None:
    with pytest.raises(UsageError, match="'2' is not a whole number"):
        shardkit.revert(train, "2")  # type: ignore[arg-type]


def test_another_version_is_not_taken_for_one_that_was_converted_already(train: str, tmp_path: Path) -> None:
    out = tmp_path / "out" / "train"
    shardkit.relabel(train, {"cat/0001": "dog", "dog/0001": "cat"})
    shardkit.convert(train, out, max_count=4, workers=1)
    shardkit.convert(train, out, max_count=4, workers=1)
    shardkit.relabel(train, {"cat/0001": "cat", "cat/0002": "dog"})  # as many of each class
    with pytest.raises(DestinationError, match="another dataset is there"):
        shardkit.convert(train, out, max_count=4, workers=1)


def test_an_export_describes_what_other_readers_see_and_says_so(
    train: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def exported(prefix: str) -> list[object]:
        folder = Path(prefix).parent
        shardkit.export(prefix, ["timm", "huggingface", "croissant", "class-names"])
        names = ("_info.json", "README.md", "croissant.json", "classnames.txt")
        return [re.sub(r'"version": ".*"', "", (folder / name).read_text()) for name in names]

    packed = exported(train)
    shardkit.relabel(train, {"cat/0001": "wolf", "cat/0002": "dog"}, new_classes=True)
    shardkit.delete(train, ["fox/0000"])
    shardkit.add_fields(train, {"cat/0001": {"age": 1}})
    assert exported(train) == packed
    assert "describe these 12 samples; the dataset has 11 in version 4" in caplog.text
    assert "the fields age are not in the index, so the files leave them out" in caplog.text
    caplog.clear()
    shardkit.upload(train, tmp_path / "copy" / "train", export=["timm"])
    assert json.loads((tmp_path / "copy" / "_info.json").read_text())["splits"]["train"]["num_samples"] == 12
    assert "other libraries read the shards as packed" in caplog.text
