"""The dataset card: what Hugging Face's `datasets` reads by it, and what stays of a card that is there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from storage.in_memory import refused

import shardkit
from shardkit.errors import DatasetError, DestinationError, UsageError
from shardkit.tools.export.card import BEGIN, END, MARK

STRANGE = ["no", "007", "a: b", "- c", '"quoted"', "it's", "#hash", "中文 😀", "{x}", "back\\slash", "a\nb", "\x85"]
"""Class names that mean something else in YAML."""


def card_of(folder: Path) -> tuple[dict[str, Any], str]:
    """The metadata of a card, and its text."""
    _, front, body = (folder / "README.md").read_text("utf-8").split("---\n", 2)
    return yaml.safe_load(front), body


@pytest.fixture
def packed(splits: Path, tmp_path: Path) -> Path:
    """A folder with the datasets train, validation and test."""
    shardkit.pack(splits, tmp_path / "shards", max_count=3, workers=1)
    return tmp_path / "shards"


def test_the_card_says_which_shards_are_which_split_and_what_the_columns_are(packed: Path) -> None:
    shardkit.export(packed, "huggingface")
    metadata, body = card_of(packed)
    [config] = metadata["configs"]
    assert {each["split"]: each["path"] for each in config["data_files"]} == {
        name: f"{name}-[0-9]*.tar" for name in ("train", "validation", "test")
    }
    features = {each["name"]: each["dtype"] for each in metadata["dataset_info"]["features"]}
    assert features == {
        "jpg": "image",
        "cls": {"class_label": {"names": {"0": "blue", "1": "red"}}},
        "__key__": "string",
        "__url__": "string",
    }
    assert "| `train` | 10 | 4 |" in body and "Classes: 0: blue, 1: red." in body


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The package `datasets`, without the network."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return pytest.importorskip("datasets")


@pytest.mark.filterwarnings("ignore")  # of datasets
def test_load_dataset_of_the_folder_gives_images_and_class_names(packed: Path, tmp_path: Path, offline: Any) -> None:
    shardkit.export(packed, "huggingface")
    loaded = offline.load_dataset(str(packed), cache_dir=str(tmp_path / "cache"))
    assert {name: split.num_rows for name, split in loaded.items()} == {"train": 10, "validation": 4, "test": 2}
    ours = {sample["__key__"]: sample for sample in shardkit.dataset(packed / "train")}
    rows = loaded["train"]
    assert rows.features["cls"].names == ["blue", "red"]
    assert {row["__key__"]: row["cls"] for row in rows} == {key: int(ours[key]["cls"]) for key in ours}
    assert rows[0]["jpg"].size == (40, 30)
    streamed = offline.load_dataset(str(packed), split="validation", streaming=True)
    assert sorted(row["__key__"] for row in streamed) == ["blue/0000", "blue/0001", "red/0000", "red/0001"]


@pytest.mark.filterwarnings("ignore")
def test_jpeg_and_png_in_one_dataset_load(
    tree: Path, tmp_path: Path, draw_image: Callable[..., bytes], offline: Any
) -> None:
    (tree / "red" / "x.png").write_bytes(draw_image(7, format="PNG"))
    shardkit.pack(tree, tmp_path / "s" / "train", workers=1)
    shardkit.export(tmp_path / "s", "huggingface")
    rows = offline.load_dataset(str(tmp_path / "s"), split="train", cache_dir=str(tmp_path / "cache"))
    assert sum(row["jpg"] is not None for row in rows) == 12
    assert sum(row["png"] is not None for row in rows) == 1


def test_names_that_mean_something_in_yaml_are_read_back(draw_image: Callable[..., bytes], tmp_path: Path) -> None:
    samples = [{"__key__": str(n), "jpg": draw_image(n), "cls": n} for n in range(len(STRANGE))]
    shardkit.write(samples, tmp_path / "train", classes=STRANGE)
    shardkit.export(tmp_path / "train", "huggingface")
    features = card_of(tmp_path)[0]["dataset_info"]["features"]
    names = next(each for each in features if each["name"] == "cls")["dtype"]["class_label"]["names"]
    assert names == {str(label): name for label, name in enumerate(STRANGE)}


def test_a_dataset_alone_in_its_folder_is_train(tree: Path, tmp_path: Path) -> None:
    shardkit.pack(tree, tmp_path / "cars", workers=1)
    shardkit.export(tmp_path / "cars", "huggingface")
    assert card_of(tmp_path)[0]["configs"][0]["data_files"] == [{"split": "train", "path": "cars-[0-9]*.tar"}]


def test_a_pattern_matches_the_shards_of_its_own_split_only(tree: Path, tmp_path: Path) -> None:
    for name in ("train", "train-0"):
        shardkit.pack(tree, tmp_path / name, max_count=6, workers=1)
    shardkit.export([tmp_path / "train", tmp_path / "train-0"], "huggingface")
    assert card_of(tmp_path)[0]["configs"][0]["data_files"] == [
        {"split": "train", "path": ["train-000000.tar", "train-000001.tar"]},
        {"split": "train_0", "path": "train-0-[0-9]*.tar"},
    ]


def test_splits_that_hugging_face_can_not_have_are_refused(tree: Path, tmp_path: Path) -> None:
    for name in ("a-b", "a.b"):
        shardkit.pack(tree, tmp_path / name, workers=1)
    text = refused(DatasetError, lambda: shardkit.export(tmp_path, "huggingface"))
    assert "several datasets would be the split 'a_b'" in text
    shardkit.pack(tree, tmp_path / "r" / "train", format="tfrecord", workers=1)
    text = refused(UsageError, lambda: shardkit.export(tmp_path / "r", "huggingface"))
    assert "Hugging Face datasets reads tar shards" in text and "shardkit convert" in text


def test_columns_whose_type_only_the_data_tells_are_left_to_hugging_face(
    draw_image: Callable[..., bytes], tmp_path: Path
) -> None:
    shardkit.write([{"__key__": "a", "jpg": draw_image(), "json": b"{}", "cls": 0}], tmp_path / "train", classes=["c"])
    shardkit.export(tmp_path / "train", "huggingface")
    metadata, body = card_of(tmp_path)
    assert "dataset_info" not in metadata and metadata["configs"]
    assert "Classes: 0: c." in body


def test_several_classes_of_a_sample_are_a_list_of_class_labels(
    draw_image: Callable[..., bytes], tmp_path: Path
) -> None:
    shardkit.write([{"__key__": "a", "jpg": draw_image(), "cls": [0, 1]}], tmp_path / "t", classes=["c", "d"])
    shardkit.export(tmp_path / "t", "huggingface")
    features = {each.pop("name"): each for each in card_of(tmp_path)[0]["dataset_info"]["features"]}
    assert features["cls.json"] == {"list": {"dtype": {"class_label": {"names": {"0": "c", "1": "d"}}}}}


MINE = """---
license: mit  # ours alone
tags:
- cars
pretty_name: Cars
---
# Cars

Our text.
"""


def test_a_card_that_is_there_is_completed_and_keeps_all_else(packed: Path) -> None:
    (packed / "README.md").write_text(MINE)
    shardkit.export(packed, "huggingface")
    text = (packed / "README.md").read_text()
    head, added, body = text.partition("configs:")
    assert head == MINE.partition("---\n# Cars")[0]
    assert added and body.endswith("---\n# Cars\n\nOur text.\n")
    assert set(card_of(packed)[0]) == {"license", "tags", "pretty_name", "configs", "dataset_info"}


def test_the_next_export_replaces_its_own_part_of_the_card(packed: Path) -> None:
    shardkit.export(packed, "huggingface")
    text = (packed / "README.md").read_text()
    (packed / "README.md").write_text(
        text.replace("---\ntask", "---\nlicense: mit\ntask")
        .replace("# shards", "# Cars")
        .replace(END, f"{END}\nMore.\n")
    )
    shardkit.export(packed / "train", "huggingface")
    metadata, body = card_of(packed)
    assert metadata["license"] == "mit" and len(metadata["configs"][0]["data_files"]) == 1
    assert body.startswith("\n# Cars\n") and body.count(BEGIN) == 1 and "More." in body
    assert "`validation`" not in body


def test_a_card_without_metadata_gets_some(packed: Path) -> None:
    (packed / "README.md").write_text("# Cars\n")
    shardkit.export(packed, "huggingface")
    assert set(card_of(packed)[0]) == {"configs", "dataset_info"}
    assert card_of(packed)[1] == "\n# Cars\n"


@pytest.mark.parametrize(
    ("card", "fact"),
    [
        (b"---\nconfigs:\n- config_name: mine\n---\n", "has the key configs, which shardkit did not write"),
        (b"---\n{configs: []}\n---\n", "has the key configs, which shardkit did not write"),
        (b"---\ndataset_info:\n  features: []\n---\n", "has the key dataset_info, which shardkit did not write"),
        (b"---\n[: x\n---\n", "is not YAML"),
        (b"---\n- a\n---\n", "is not a list of keys"),
        (b"---\nlicense: \xff\n---\n", "is not UTF-8"),
    ],
)
def test_a_card_that_can_not_be_completed_is_refused(card: bytes, fact: str, packed: Path) -> None:
    (packed / "README.md").write_bytes(card)
    for overwrite in (False, True):
        text = refused(
            DestinationError, lambda overwrite=overwrite: shardkit.export(packed, "huggingface", overwrite=overwrite)
        )
        assert fact in text
    assert (packed / "README.md").read_bytes() == card


def test_the_mark_is_a_comment_that_yaml_does_not_see(packed: Path) -> None:
    shardkit.export(packed, "huggingface")
    assert (packed / "README.md").read_text().count(MARK) == 2
    assert MARK not in str(card_of(packed)[0])
