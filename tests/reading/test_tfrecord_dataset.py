"""Reading TFRecord shards that others wrote, as a stream."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import shardkit
from shardkit.errors import DamagedError, DatasetError, DecodeError, NotFoundError, UsageError
from shardkit.formats.tfrecord.example import bytes_entry_head, entry_name, int64_entry, varint
from shardkit.formats.tfrecord.samples import masked_crc

Draw = Callable[..., bytes]


def record(**features: bytes | int) -> bytes:
    """A framed Example, its features in this order."""
    entries = [
        int64_entry(entry_name(name), value)
        if isinstance(value, int)
        else bytes_entry_head(entry_name(name), len(value)) + value
        for name, value in features.items()
    ]
    inside = b"".join(entries)
    data = b"\x0a" + varint(len(inside)) + inside
    length = struct.pack("<Q", len(data))
    return length + masked_crc(length) + data + masked_crc(data)


@pytest.fixture
def old(tmp_path: Path, draw_image: Draw) -> Path:
    """Two shards of 4 records, named as TensorFlow Datasets names them."""
    for shard in range(2):
        rows = [record(img=draw_image(4 * shard + n), y=n % 2, note=b"x") for n in range(4)]
        (tmp_path / f"cats-train.tfrecord-0000{shard}-of-00002").write_bytes(b"".join(rows))
    return tmp_path


@pytest.mark.parametrize("source", ["cats-train.tfrecord-*", "cats-train*", "cats-train.tfrecord-0000{0..1}-of-00002"])
def test_names_of_tensorflow_datasets_are_understood(old: Path, source: str) -> None:
    samples = list(shardkit.dataset(old / source))
    assert len(samples) == 8
    assert samples[0]["__key__"] == "cats-train_tfrecord-00000-of-00002-0"
    assert set(samples[0]) == {"__key__", "__url__", "img", "y", "note"}


def test_image_and_label_are_named_by_the_user(old: Path) -> None:
    ds = shardkit.dataset(old / "cats-train.tfrecord-*", image_field="img", label_field="y")
    [batch] = list(ds.decode(size=16).batch(8))
    assert batch.images.shape == (8, 16, 16, 3)
    assert batch.labels.tolist() == [0, 1, 0, 1] * 2
    assert batch.note == [b"x"] * 8


def test_gzip_shards_are_read_with_any_ending(old: Path) -> None:
    plain = [sample["img"] for sample in shardkit.dataset(old / "cats-train.tfrecord-*")]
    for number, shard in enumerate(sorted(old.glob("cats*"))):
        (old / f"z-{number}.tfrecord.gz").write_bytes(gzip.compress(shard.read_bytes()))
        (old / f"z-{number}").write_bytes(gzip.compress(shard.read_bytes()))
    assert [sample["img"] for sample in shardkit.dataset(old / "z-*.gz")] == plain
    assert [sample["img"] for sample in shardkit.dataset([old / "z-0", old / "z-1"])] == plain


def test_a_record_without_the_named_feature_is_an_error(old: Path) -> None:
    with pytest.raises(DamagedError, match=r"at byte 0: the record has no feature 'image', .*; it has img, y, note"):
        list(shardkit.dataset(old / "cats-train.tfrecord-*", image_field="image"))


def test_examples_without_image_or_label_are_read_as_they_are(tmp_path: Path, draw_image: Draw) -> None:
    rows = record(**{"image/encoded": draw_image(1)}), record(**{"image/class/label": 1}), record(a=b"z")
    (tmp_path / "x.tfrecord").write_bytes(b"".join(rows))
    ds = shardkit.dataset(tmp_path / "x.tfrecord")
    assert [set(sample) - {"__key__", "__url__"} for sample in ds] == [{"jpg"}, {"cls"}, {"a"}]
    assert [sample.get("cls") for sample in ds.decode(on_error="skip")] == [None]
    assert next(iter(ds.take(1).decode(size=8).batch(1))).labels is None


def test_a_label_out_of_range_is_told_where_it_counts(tmp_path: Path, tree: Path) -> None:
    shardkit.pack(tree, tmp_path / "x", format="tfrecord", workers=1)
    manifest = json.loads((tmp_path / "x.json").read_text())
    assert [entry["name"] for entry in manifest["classes"]] == ["blue", "red"]

    def labels() -> Any:
        data = shardkit.dataset(tmp_path / "x-*.tfrecord").decode(size=8, label="onehot").batch(12)
        return next(iter(data)).labels

    assert labels().shape == (12, 2)
    (tmp_path / "x.json").write_text(json.dumps(manifest | {"classes": manifest["classes"][:1]}))
    with pytest.raises(DecodeError, match=r"x-000000.tfrecord: sample .*: label 1 with 1 classes: expected 0 to 0"):
        labels()
    (tmp_path / "x.json").unlink()
    with pytest.raises(UsageError, match=r'"onehot" needs the number of classes.*: shardkit index'):
        labels()


def test_a_schema_may_change_between_records(tmp_path: Path) -> None:
    (tmp_path / "x.tfrecord").write_bytes(record(a=1) + record(a=b"1") + record(b=2))
    samples = list(shardkit.dataset(tmp_path / "x.tfrecord"))
    assert [{k: v for k, v in s.items() if k[0] != "_"} for s in samples] == [{"a": 1}, {"a": b"1"}, {"b": 2}]
    [batch] = list(shardkit.dataset(tmp_path / "x.tfrecord").batch(3))
    assert batch["b"] == [None, None, 2]


def test_shards_of_two_formats_in_one_glob_are_refused(old: Path, tree: Path) -> None:
    shardkit.pack(tree, old / "cats-train", workers=1)
    for name in ("cats-train.json", "cats-train.parquet"):
        (old / name).unlink()
    with pytest.raises(
        UsageError, match=r"shards of more than one format: cats-train-000000.tar, cats-train.tfrecord-0"
    ):
        list(shardkit.dataset(old / "cats-*"))


def test_names_of_features_are_refused_for_tar(tree: Path, tmp_path: Path) -> None:
    shardkit.pack(tree, tmp_path / "x", workers=1)
    for source in ("x", "x-*.tar"):
        with pytest.raises(UsageError, match="name features of TFRecord shards, and this is tar"):
            list(shardkit.dataset(tmp_path / source, image_field="jpg"))
        (tmp_path / "x.json").unlink(missing_ok=True)


def test_what_needs_an_index_says_so(old: Path) -> None:
    with pytest.raises(DatasetError, match="no manifest"):
        len(shardkit.dataset(old / "cats-train.tfrecord-*"))
    with pytest.raises(NotFoundError, match="no file matches"):
        list(shardkit.dataset(old / "dogs-*.tfrecord"))


def test_a_file_that_is_no_tfrecord_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.tfrecord").write_bytes(b"this is some text, not records")
    with pytest.raises(DamagedError, match=r"x.tfrecord: at byte 0: the checksum of a record's length is wrong"):
        list(shardkit.dataset(tmp_path / "x.tfrecord"))


def test_an_empty_file_is_a_shard_without_records(tmp_path: Path) -> None:
    (tmp_path / "x.tfrecord").write_bytes(b"")
    assert list(shardkit.dataset(tmp_path / "x.tfrecord")) == []
