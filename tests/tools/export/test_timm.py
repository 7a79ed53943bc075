"""`_info.json`: what timm's `wds/` reader finds in it, and what it would skip or misread."""

from __future__ import annotations

import io
import json
import logging
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from storage.in_memory import refused

import shardkit
from shardkit.errors import DatasetError, UsageError
from shardkit.tools.export.timm import IMAGE_FIELDS


def info_of(folder: Path) -> Any:
    return json.loads((folder / "_info.json").read_bytes())


def test_each_split_has_its_shards_with_their_samples(splits: Path, tmp_path: Path) -> None:
    packed = shardkit.pack(splits, tmp_path / "shards", max_count=3, workers=1)
    shardkit.export(tmp_path / "shards", "timm")
    info = info_of(tmp_path / "shards")
    assert set(info["splits"]) == {"train", "validation", "test"}
    for name, split in packed.items():
        shards = split.shards
        assert info["splits"][name] == {
            "name": name,
            "num_samples": split.samples,
            "filenames": [shard.name for shard in shards],
            "shard_lengths": [shard.samples for shard in shards],
        }
    assert info["class_names"] == ["blue", "red"]


@pytest.mark.filterwarnings("ignore")  # of timm and torch
@pytest.mark.parametrize("is_training", [False, True])
def test_timm_reads_every_sample_once(is_training: bool, splits: Path, tmp_path: Path) -> None:
    pytest.importorskip("timm")
    from timm.data.readers.reader_wds import ReaderWds

    shardkit.pack(splits, tmp_path / "shards", max_count=3, workers=1)
    shardkit.export(tmp_path / "shards", "timm")
    train = shardkit.dataset(tmp_path / "shards" / "train")
    reader = ReaderWds(str(tmp_path / "shards"), split="train", is_training=is_training)
    assert len(reader) == len(train) == 10

    def seen(image: Any, label: int) -> tuple[bytes, int]:
        return image.tobytes(), label

    ours = Counter(seen(_pillow(sample["jpg"]), int(sample["cls"])) for sample in train)
    assert Counter(seen(image, label) for image, label in reader) == ours
    assert set(ours.values()) == {1}


def _pillow(data: bytes) -> Any:
    from PIL import Image

    return Image.open(io.BytesIO(data)).convert("RGB")


def test_shards_that_timm_can_not_read_are_refused(tree: Path, tmp_path: Path) -> None:
    shardkit.pack(tree, tmp_path / "x", format="tfrecord", workers=1)
    text = refused(UsageError, lambda: shardkit.export(tmp_path / "x", "timm"))
    assert (
        "the shards are tfrecord, and timm's wds/ reader reads tar shards; convert it first: shardkit convert" in text
    )


@pytest.mark.parametrize("name", ["starfish", "a..b"])
def test_a_split_whose_name_timm_takes_for_a_file_is_refused(name: str, tree: Path, tmp_path: Path) -> None:
    shardkit.pack(tree, tmp_path / name, workers=1)
    assert f"timm takes {name!r} for a file name" in refused(
        DatasetError, lambda: shardkit.export(tmp_path / name, "timm")
    )


def test_samples_without_one_class_each_are_refused(draw_image: Callable[..., bytes], tmp_path: Path) -> None:
    shardkit.write([{"__key__": "a", "jpg": draw_image()}], tmp_path / "plain")
    shardkit.write([{"__key__": "a", "jpg": draw_image(), "cls": [0, 1]}], tmp_path / "multi")
    for name in ("plain", "multi"):
        text = refused(DatasetError, lambda name=name: shardkit.export(tmp_path / name, "timm"))
        assert "its samples do not have one class each, which timm needs" in text


def test_images_in_fields_that_timm_does_not_look_for_are_refused(
    draw_image: Callable[..., bytes], tmp_path: Path
) -> None:
    assert "gif" not in IMAGE_FIELDS
    sample = {"__key__": "a", "gif": draw_image(format="GIF"), "cls": 0}
    shardkit.write([sample], tmp_path / "x", classes=["c"])
    text = refused(DatasetError, lambda: shardkit.export(tmp_path / "x", "timm"))
    assert "none of its fields (cls, gif) is one of jpg, png, webp" in text and "--rename" in text


def test_unlabelled_samples_among_others_are_counted_in_a_warning(
    draw_image: Callable[..., bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with tarfile.open(tmp_path / "x-000000.tar", "w") as tar:
        for name, data in (("a.jpg", draw_image(1)), ("a.cls", b"0"), ("b.jpg", draw_image(2))):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    shardkit.index_shards(tmp_path / "x-000000.tar")
    with caplog.at_level(logging.WARNING, "shardkit"):
        shardkit.export(tmp_path / "x", "timm")
    assert "timm skips the 1 samples that have no label" in caplog.text
