"""The files of TensorFlow Datasets: what `tfds.builder_from_directory` reads by them, and what it can not read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from storage.in_memory import refused

import shardkit
from shardkit.errors import DatasetError, UsageError
from shardkit.formats.tfrecord.features import ENCODED, LABEL
from shardkit.tools.export.tfds import DIGITS


@pytest.fixture
def packed(splits: Path, tmp_path: Path) -> Path:
    """A folder with the TFRecord datasets train, validation and test."""
    shardkit.pack(splits, tmp_path / "cars", max_count=3, format="tfrecord", workers=1)
    return tmp_path / "cars"


def read(path: Path) -> Any:
    return json.loads(path.read_bytes())


def test_the_files_name_splits_features_and_classes(packed: Path) -> None:
    result = shardkit.export(packed, "tfds")
    assert [Path(file.file).name for file in result.files] == [
        "dataset_info.json",
        "features.json",
        "image.class.label.labels.txt",
    ]
    info = read(packed / "dataset_info.json")
    assert (info["name"], info["fileFormat"]) == ("cars", "tfrecord")
    assert info["supervisedKeys"] == {"input": ENCODED, "output": LABEL}
    features = read(packed / "features.json")["featuresDict"]["features"]
    assert features[LABEL]["classLabel"] == {"numClasses": "2"}
    assert (packed / "image.class.label.labels.txt").read_text() == "blue\nred\n"


def test_the_template_gives_the_names_of_the_shards(packed: Path) -> None:
    shardkit.export(packed, "tfds")
    for split in read(packed / "dataset_info.json")["splits"]:
        manifest = shardkit.info(packed / split["name"])
        assert [int(length) for length in split["shardLengths"]] and manifest.shards == len(split["shardLengths"])
        for number in range(manifest.shards):
            name = split["filepathTemplate"].format(
                SPLIT=split["name"], SHARD_INDEX=f"{number:0{DIGITS}}", FILEFORMAT="tfrecord"
            )
            assert (packed / name).exists()


@pytest.mark.filterwarnings("ignore")  # of TensorFlow
def test_tfds_reads_every_sample_once(packed: Path) -> None:
    tfds = pytest.importorskip("tensorflow_datasets")
    shardkit.export(packed, "tfds")
    builder = tfds.builder_from_directory(str(packed))
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == {
        "train": 10,
        "validation": 4,
        "test": 2,
    }
    label = builder.info.features[LABEL]
    read = [
        (row["image/key"].decode(), label.int2str(row[LABEL])) for row in tfds.as_numpy(builder.as_dataset("train"))
    ]
    assert sorted(read) == sorted(
        (s["__key__"], s["__key__"].split("/")[0]) for s in shardkit.dataset(packed / "train")
    )
    image, _ = next(iter(builder.as_dataset("test", as_supervised=True)))
    assert image.shape == (30, 40, 3)


def test_an_overwritten_dataset_has_a_template_of_its_generation(packed: Path, tree: Path) -> None:
    shardkit.pack(tree, packed / "train", format="tfrecord", overwrite=True, workers=1)
    shardkit.export(packed / "train", "tfds")
    assert [split["filepathTemplate"] for split in read(packed / "dataset_info.json")["splits"]] == [
        "{SPLIT}-g2-0{SHARD_INDEX}.{FILEFORMAT}"
    ]


def test_a_dataset_without_labels_has_no_file_of_names(draw_image: Callable[..., bytes], tmp_path: Path) -> None:
    shardkit.write([{"__key__": "a", "jpg": draw_image()}], tmp_path / "test", format="tfrecord")
    result = shardkit.export(tmp_path / "test", "tfds")
    assert [Path(file.file).name for file in result.files] == ["dataset_info.json", "features.json"]
    assert LABEL not in read(tmp_path / "features.json")["featuresDict"]["features"]
    assert "supervisedKeys" not in read(tmp_path / "dataset_info.json")


def test_tar_shards_are_refused_with_the_command_that_converts_them(tree: Path, tmp_path: Path) -> None:
    shardkit.pack(tree, tmp_path / "x", workers=1)
    text = refused(UsageError, lambda: shardkit.export(tmp_path / "x", "tfds"))
    assert "reads tfrecord shards; convert it first: shardkit convert SOURCE DEST --format tfrecord" in text


def test_images_that_tensorflow_can_not_decode_are_refused(draw_image: Callable[..., bytes], tmp_path: Path) -> None:
    sample = {"__key__": "a", "webp": draw_image(format="WEBP"), "cls": 0}
    shardkit.write([sample], tmp_path / "x", classes=["c"], format="tfrecord")
    assert "TensorFlow decodes images in" in refused(UsageError, lambda: shardkit.export(tmp_path / "x", "tfds"))


def test_shards_with_names_that_tfds_can_not_give_are_refused(tree: Path, tmp_path: Path) -> None:
    shardkit.pack(tree, tmp_path / "x", max_count=6, format="tfrecord", workers=1)
    for number in range(2):
        (tmp_path / f"x-00000{number}.tfrecord").rename(tmp_path / f"y-0000{number}-of-00002.tfrecord")
    shardkit.index_shards(tmp_path / "y-*.tfrecord")
    text = refused(DatasetError, lambda: shardkit.export(tmp_path / "y", "tfds"))
    assert "numbered from 0" in text and "shardkit convert" in text


def test_records_of_another_layout_are_refused(tmp_path: Path, draw_image: Callable[..., bytes]) -> None:
    tf = pytest.importorskip("tensorflow")

    def feature(value: Any) -> Any:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    with tf.io.TFRecordWriter(str(tmp_path / "x-000000.tfrecord")) as writer:
        features = tf.train.Features(feature={"image": feature(draw_image())})
        writer.write(tf.train.Example(features=features).SerializeToString())
    shardkit.index_shards(tmp_path / "x-000000.tfrecord")
    text = refused(shardkit.ShardkitError, lambda: shardkit.export(tmp_path / "x", "tfds"))
    assert "convert" in text or "pack" in text
