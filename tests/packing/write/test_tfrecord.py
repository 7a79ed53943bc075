"""`pack(format="tfrecord")`, and reading it: the same dataset as in tar shards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import shardkit
from shardkit.errors import BadFileError, DamagedError, DatasetError, DestinationError, ShardkitError
from shardkit.formats.tfrecord import samples as tfrecord
from shardkit.formats.tfrecord.samples import feature_description, read_samples
from shardkit.shards import names

Pack = Callable[..., Any]


def pack(source: Path, dest: Path, **options: Any) -> shardkit.Manifest:
    return shardkit.pack(source, dest, **{"workers": 1, "format": "tfrecord"} | options).manifest


def test_the_manifest_and_the_index_tell_where_everything_is(tree: Path, tmp_path: Path) -> None:
    manifest = pack(tree, tmp_path / "out" / "train", max_bytes=4000)
    assert (manifest.shard_format, manifest.samples, manifest.fields) == ("tfrecord", 12, ("cls", "jpg"))
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "train.json", "train.parquet", *(entry.name for entry in manifest.shards)
    }  # fmt: skip
    assert manifest.shards[0].name == "train-000000.tfrecord"
    for group, entry in enumerate(manifest.shards):
        shard = (tmp_path / "out" / entry.name).read_bytes()
        rows = pq.ParquetFile(tmp_path / "out" / "train.parquet").read_row_group(group).to_pylist()
        for row, sample in zip(rows, read_samples(shard, place="x"), strict=True):
            assert (row["key"], row["offset"], row["size"]) == (sample.key, sample.offset, sample.size)
            image = (tree / row["path"]).read_bytes()
            assert shard[row["image_offset"] : row["image_offset"] + row["image_size"]] == image
            assert (sample.path, sample.text) == (row["path"], row["path"].split("/")[0])
            assert sample.values == {"cls": row["label"]}


@pytest.mark.parametrize("names", [("a", "b"), ("a.b\\c", "é" * 60), ("x y", "__z__")])
def test_the_planned_bytes_are_the_bytes_that_are_written(names: tuple[str, str], tmp_path: Path) -> None:
    from shardkit.packing.pack import PackPlan

    sizes = [0, 1, 20, 100, 127, 128, 129, 16300, 16383, 16384]
    for folder in names:
        below = tmp_path / "tree" / folder / ("deep" * 30)
        below.mkdir(parents=True)
        for n, size in enumerate(sizes):
            for ending in ("jpg", "JPEG", "png", "jpe", "tiff"):
                (below / f"f{n}.{ending}").write_bytes(bytes(size))
    options: dict[str, Any] = {"format": "tfrecord", "check": "none", "max_bytes": 50_000, "workers": 1}
    plan = shardkit.plan_pack(tmp_path / "tree", tmp_path / "out" / "x", **options)
    assert isinstance(plan, PackPlan)
    manifest = shardkit.pack(tmp_path / "tree", tmp_path / "out" / "x", **options)
    assert isinstance(manifest, shardkit.Packed)
    assert [size for _, _, size in plan.datasets[0].shards] == [entry.bytes for entry in manifest.shards]


def test_the_bytes_do_not_depend_on_the_workers(tree: Path, tmp_path: Path) -> None:
    for workers in (1, 2):
        pack(tree, tmp_path / str(workers) / "x", workers=workers, max_bytes=4000)
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / n).iterdir()} for n in ("1", "2"))
    assert one == two


def test_a_dataset_of_the_other_format_is_in_the_way(tree: Path, tmp_path: Path) -> None:
    shardkit.pack(tree, tmp_path / "x", workers=1)
    with pytest.raises(DestinationError, match="another dataset is there, of the format tar, not tfrecord"):
        pack(tree, tmp_path / "x")
    pack(tree, tmp_path / "x", overwrite=True)
    base = names.base_of("x", 2)
    assert sorted(p.name for p in tmp_path.glob("x*")) == sorted(
        [names.shard_name(base, 0, ".tfrecord"), names.manifest_name("x"), names.index_name(base)]
    )
    assert pack(tree, tmp_path / "x") == pack(tree, tmp_path / "x")


def test_it_reads_as_a_tar_does(tree: Path, tmp_path: Path) -> None:
    shardkit.pack(tree, tmp_path / "tar" / "x", workers=1)
    pack(tree, tmp_path / "tfr" / "x")
    tar, tfr = shardkit.dataset(tmp_path / "tar" / "x"), shardkit.dataset(tmp_path / "tfr" / "x")
    for one, two in zip(tar, tfr, strict=True):
        one.pop("__url__"), two.pop("__url__")
        assert one == two
        assert list(one) == list(two)
    assert (len(tar), tar.classes, tar.class_counts) == (len(tfr), tfr.classes, tfr.class_counts)
    assert tar[3]["jpg"] == tfr[3]["jpg"] == tfr[tar[3]["__key__"]]["jpg"]
    one, two = (ds.shuffle(4, seed=1).decode(size=16, crop="random").batch(5) for ds in (tar, tfr))
    for first, second in zip(one, two, strict=True):
        assert first.keys == second.keys
        np.testing.assert_array_equal(first.images, second.images)
        np.testing.assert_array_equal(first.labels, second.labels)


def test_a_run_of_shards_is_read_without_its_manifest(tree: Path, tmp_path: Path) -> None:
    pack(tree, tmp_path / "x", max_bytes=4000)
    with_manifest = list(shardkit.dataset(tmp_path / "x"))
    for name in ("x.json", "x.parquet"):
        (tmp_path / name).unlink()
    for source in ("x-*.tfrecord", "x"):
        assert list(shardkit.dataset(tmp_path / source)) == with_manifest


def test_a_flipped_bit_of_an_image_is_found_on_every_way_of_reading(tree: Path, tmp_path: Path) -> None:
    pack(tree, tmp_path / "x")
    shard = tmp_path / "x-000000.tfrecord"
    row = pq.read_table(tmp_path / "x.parquet").to_pylist()[2]
    data = bytearray(shard.read_bytes())
    data[row["image_offset"] + 100] ^= 1
    shard.write_bytes(data)
    ds = shardkit.dataset(tmp_path / "x")
    place = f"x-000000.tfrecord: at byte {row['image_offset']}: sample {row['key']}: the checksum of the image's"
    with pytest.raises(DamagedError, match=place):
        list(ds)
    with pytest.raises(DamagedError, match=place):
        list(ds.decode(size=8).batch(4))
    record = f"at byte {row['offset'] + 12}: the checksum of a record's"
    with pytest.raises(DamagedError, match=place):
        ds.decode()[2]
    (tmp_path / "x.json").unlink()
    with pytest.raises(DamagedError, match=record):
        list(shardkit.dataset(tmp_path / "x-*.tfrecord"))


def test_tensorflow_parses_it_with_the_description(tree: Path, tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")
    manifest = pack(tree, tmp_path / "x")
    kinds = {"bytes": tf.string, "int64": tf.int64}
    spec = {
        name: tf.io.FixedLenFeature(shape, kinds[kind], default)
        for name, (kind, shape, default) in feature_description(manifest).items()
    }
    records = tf.data.TFRecordDataset(str(tmp_path / "x-000000.tfrecord")).batch(12)
    [batch] = list(records.map(lambda data: tf.io.parse_example(data, spec)))
    samples = list(shardkit.dataset(tmp_path / "x"))
    assert batch["image/class/label"].numpy().tolist() == [sample["cls"] for sample in samples]
    assert batch["image/encoded"].numpy().tolist() == [sample["jpg"] for sample in samples]
    assert batch["image/key"].numpy().tolist() == [sample["__key__"].encode() for sample in samples]
    assert set(batch) == {f"image/{n}" for n in ("key", "filename", "encoded", "format", "class/label", "class/text")}


def test_a_sample_of_more_bytes_than_readers_parse_is_an_error_that_names_it(
    tree: Path, out: Path, pack_one: Pack, draw_image: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    largest = max(path.stat().st_size for path in tree.rglob("*.jpg"))
    (tree / "red" / "large.jpg").write_bytes(draw_image(3) + bytes(2 * largest))
    monkeypatch.setattr(tfrecord, "MAX_EXAMPLE_BYTES", 2 * largest)
    with pytest.raises(BadFileError, match=r"red/large\.jpg: it would be an Example of \d+ bytes, but readers parse"):
        pack_one(tree, out / "train", format="tfrecord")
    assert pack_one(tree, out / "train", format="tfrecord", on_error="skip").skipped == 1
    assert pack_one(tree, out / "tar").samples == 13
    with pytest.raises(DatasetError, match="can't hold this sample: it would be an Example"):
        shardkit.convert(out / "tar", out / "tf", format="tfrecord", workers=1)
    with (
        pytest.raises(ShardkitError, match="it would be an Example"),
        shardkit.ShardWriter(out / "written", format="tfrecord") as sink,
    ):
        sink.write({"__key__": "a", "jpg": (tree / "red" / "large.jpg").read_bytes()})


def test_the_largest_sample_is_what_protobuf_parses() -> None:
    assert tfrecord.MAX_EXAMPLE_BYTES == 2**31 - 1
