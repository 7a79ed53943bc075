from __future__ import annotations

import logging
from pathlib import Path

import pytest

from shardkit.errors import SourceError, UsageError
from shardkit.events import Progress
from shardkit.shards.names import SPLIT_NAMES, are_splits, split_names_of
from shardkit.sources.source import find_splits, scan_tree, scan_walks, split_walks


def grow(root: Path, *files: str) -> Path:
    for name in files:
        path = root / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.write_bytes(b"xy")
    return root


@pytest.mark.parametrize(
    ("files", "splits"),
    [
        (["train/cat/1.jpg", "validation/cat/1.jpg", "test/cat/1.jpg"], ["test", "train", "validation"]),
        (["Train/cat/1.jpg", "VAL/cat/1.jpg", "README.md", ".git/x", "__MACOSX/train/1.jpg"], ["Train", "VAL"]),
        (["train/cat/1.jpg"], ["train"]),
        (["train/cat/1.jpg", "val/"], ["train", "val"]),
        (["train/cat/1.jpg", "train/labels.csv", "test/dog/sub/1.jpg"], ["test", "train"]),
        (["cat/1.jpg", "dog/1.jpg"], None),
        (["test/1.jpg", "cat/1.jpg"], None),
        (["test/1.jpg", "train/1.jpg"], None),
        (["test/1.jpg", "test/more/1.jpg"], None),
        (["train/", "test/"], None),
    ],
)
def test_splits_are_known_by_their_names_and_by_what_they_hold(
    tmp_path: Path, files: list[str], splits: list[str] | None
) -> None:
    assert find_splits(grow(tmp_path, *files)) == splits


@pytest.mark.parametrize("word", sorted(SPLIT_NAMES))
@pytest.mark.parametrize("form", ["{}", "{}_set", "{}-images", "{}2017", "images_{}", "{}set", "{} 1"])
def test_a_split_may_have_words_about_its_name_that_say_no_more(word: str, form: str) -> None:
    name = form.format(word)
    assert split_names_of(["cat", name, name.title()]) == [name, name.title()]


@pytest.mark.parametrize(
    "names",
    [
        ["training_set", "test_set"],
        ["seg_train", "seg_test"],
        ["train_images", "test_images"],
        ["train2017", "val2017"],
        ["asl_alphabet_test", "asl_alphabet_train"],
        ["petsTrain", "petsVal"],
        ["pets-train", "pets-validation"],
        ["trainval", "test"],
    ],
)
def test_names_that_differ_in_the_word_of_a_split_alone_are_splits(names: list[str], tmp_path: Path) -> None:
    assert are_splits(names)
    assert find_splits(grow(tmp_path, *(f"{name}/cat/1.jpg" for name in names))) == sorted(names)


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["train_station", "train_wagon"],
        ["contest", "protest"],
        ["test_tube", "bottle"],
        ["valley", "trainer", "devil"],
        ["cat", "train"],
    ],
)
def test_names_that_only_hold_such_a_word_are_classes(names: list[str]) -> None:
    assert not are_splits(names)


@pytest.mark.parametrize("part", ["_", "1", "dataset", "-1", "images", "train"])
def test_a_long_name_is_judged_at_once(part: str) -> None:
    assert split_names_of([part * 40 + "cat", "dog"]) == []


def test_a_split_that_holds_only_a_folder_of_its_own_name_is_an_error(tmp_path: Path) -> None:
    grow(tmp_path, "seg_train/seg_train/cat/1.jpg", "seg_test/seg_test/cat/1.jpg")
    with pytest.raises(SourceError, match="its only folder has its own name") as caught:
        scan_walks(split_walks(tmp_path, ["seg_test", "seg_train"]))
    assert str(tmp_path / "seg_test" / "seg_test") in caught.value.cure


def test_one_split_name_among_classes_is_a_class_and_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert find_splits(grow(tmp_path, "test/sub/1.jpg", "cat/1.jpg", "dog/1.jpg")) is None
    assert "test: taken as a class" in caplog.text


@pytest.mark.parametrize(
    ("files", "named"),
    [
        (["train/cat/1.jpg", "test/cat/1.jpg", "annotations/1.json"], "annotations"),
        (["train/cat/1.jpg", "test/1.jpg"], "test"),
    ],
)
def test_splits_beside_other_folders_are_an_error_that_names_them(tmp_path: Path, files: list[str], named: str) -> None:
    with pytest.raises(SourceError, match=f"but {named} beside them do not; pack each split separately"):
        find_splits(grow(tmp_path, *files))


def test_a_missing_root_has_no_splits_but_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such folder"):
        find_splits(tmp_path / "nowhere")


def test_splits_share_one_class_map_and_a_lacking_class_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    grow(tmp_path, "train/cat/1.jpg", "train/dog/1.jpg", "val/ant/1.jpg", "val/dog/1.jpg", "val/dog/2.jpg", "words.txt")
    caplog.set_level(logging.INFO, "shardkit")
    sources = scan_walks(split_walks(tmp_path, ["train", "val"]))
    assert list(sources) == ["train", "val"]
    assert {source.classes for source in sources.values()} == {("ant", "cat", "dog")}
    assert sources["train"].counts.tolist() == [0, 1, 1]
    assert sources["val"].counts.tolist() == [1, 0, 2]
    assert list(sources["val"].paths) == [b"ant/1.jpg", b"dog/1.jpg", b"dog/2.jpg"]
    assert "train: no image of class ant" in caplog.text
    assert "val: no image of class cat" in caplog.text
    assert "outside the splits: files not in a class folder: 1 (words.txt)" in caplog.text


def test_a_folder_that_is_none_of_the_splits_asked_for_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scan_walks(split_walks(grow(tmp_path, "train/cat/1.jpg", "test/cat/1.jpg"), ["train"]))
    assert "folders that are not splits: test" in caplog.text


def test_given_classes_hold_for_every_split(tmp_path: Path) -> None:
    grow(tmp_path, "train/cat/1.jpg", "train/dog/1.jpg", "val/dog/1.jpg")
    sources = scan_walks(split_walks(tmp_path, ["train", "val"]), classes=["dog", "cat"])
    assert sources["train"].labels.tolist() == [0, 1]
    with pytest.raises(SourceError, match="train: it has the class folders cat, which `classes`"):
        scan_walks(split_walks(tmp_path, ["train", "val"]), classes=["dog"])


@pytest.mark.parametrize("empty", ["val/", "val/cat/", "val/cat/1.txt"])
def test_a_split_without_images_is_an_error_that_names_it(tmp_path: Path, empty: str) -> None:
    grow(tmp_path, "train/cat/1.jpg", empty)
    with pytest.raises(SourceError, match="val: ") as caught:
        scan_walks(split_walks(tmp_path, ["train", "val"]))
    assert caught.value.place.endswith("val")


@pytest.mark.parametrize("splits", [[], "train"])
def test_splits_without_sense_are_refused(tmp_path: Path, splits: list[str]) -> None:
    with pytest.raises(UsageError, match="splits"):
        scan_walks(split_walks(tmp_path, splits))


def test_progress_goes_on_over_the_splits(tmp_path: Path) -> None:
    seen: list[Progress] = []
    scan_walks(
        split_walks(grow(tmp_path, "train/c/1.jpg", "val/c/1.jpg", "val/c/2.jpg"), ["train", "val"]),
        progress=seen.append,
    )
    assert [(at.done, at.bytes_done) for at in seen] == [(1, 2), (3, 6)]


def test_a_split_reads_as_its_own_tree(tmp_path: Path) -> None:
    grow(tmp_path, "train/cat/1.jpg", "val/cat/2.jpg")
    split, tree = scan_walks(split_walks(tmp_path, ["val"]))["val"], scan_tree(tmp_path / "val")
    assert (split.root, list(split.paths), split.keys([0])) == (tree.root, list(tree.paths), tree.keys([0]))
