"""Samples of several files each, and datasets without images."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import shardkit
from shardkit.errors import BadFileError, DecodeError, DestinationError, SourceError, UsageError
from shardkit.formats.tfrecord.samples import feature_description
from shardkit.packing.pack import PackPlan

FORMATS = ["tar", "tfrecord"]


def pack(source: Path, dest: Path, **options: Any) -> shardkit.Manifest:
    return shardkit.pack(source, dest, **{"workers": 1, "fields": "jpg,json,txt"} | options).manifest


@pytest.fixture
def mixed(tmp_path: Path, draw_image: Callable[..., bytes]) -> Path:
    """Two classes of 6 samples, each with an image, JSON, text, a mask and a sound."""
    root = tmp_path / "mixed"
    for number, name in enumerate(("cat", "dog")):
        (root / name).mkdir(parents=True)
        for n in range(6):
            stem = f"{root / name}/{n}.v1"
            endings = {
                ".JPEG": draw_image(n + 10 * number), ".json": json.dumps({"n": n}).encode(), ".txt": f"t{n}".encode(),
                ".mask.png": draw_image(n, format="PNG"), ".wav": b"RIFF" + bytes(n),
            }  # fmt: skip
            for ending, data in endings.items():
                Path(stem + ending).write_bytes(data)
    return root


@pytest.mark.parametrize("format", FORMATS)
def test_files_of_one_name_are_one_sample(mixed: Path, tmp_path: Path, format: str) -> None:
    manifest = pack(mixed, tmp_path / "out" / "x", format=format, fields="jpg,json,mask.png,txt")
    assert (manifest.samples, manifest.fields) == (12, ("cls", "jpg", "json", "mask.png", "txt"))
    samples = {sample["__key__"]: sample for sample in shardkit.dataset(tmp_path / "out" / "x")}
    assert min(samples) == "cat/0_v1"
    for name, label in (("cat", 0), ("dog", 1)):
        for n in range(6):
            sample = samples[f"{name}/{n}_v1"]
            assert list(sample) == ["__key__", "__url__", "jpg", "cls", "json", "mask.png", "txt"]
            assert sample["cls"] == label
            for field, ending in (("jpg", "JPEG"), ("json", "json"), ("mask.png", "mask.png"), ("txt", "txt")):
                assert sample[field] == (mixed / name / f"{n}.v1.{ending}").read_bytes()
    rows = pq.read_table(tmp_path / "out" / "x.parquet").to_pylist()
    for row in rows:
        shard = (tmp_path / "out" / row["shard"]).read_bytes()
        image = shard[row["image_offset"] : row["image_offset"] + row["image_size"]]
        assert image == (mixed / row["path"]).read_bytes()
        assert (row["width"], row["height"]) == (40, 30)


@pytest.mark.parametrize("format", FORMATS)
def test_the_planned_bytes_are_written(mixed: Path, tmp_path: Path, format: str) -> None:
    for fields in ("jpg,json,txt", "wav", "txt,mask.png"):
        options: dict[str, Any] = {"format": format, "fields": fields, "max_bytes": 6000}
        plan = shardkit.plan_pack(mixed, tmp_path / fields / "x", **options)
        assert isinstance(plan, PackPlan)
        manifest = pack(mixed, tmp_path / fields / "x", **options)
        assert [size for _, _, size in plan.datasets[0].shards] == [entry.bytes for entry in manifest.shards]


@pytest.mark.parametrize("format", FORMATS)
def test_they_decode_by_their_extensions(mixed: Path, tmp_path: Path, format: str) -> None:
    pack(mixed, tmp_path / "x", format=format)
    batch = next(iter(shardkit.dataset(tmp_path / "x").decode(size=16).batch(12)))
    assert batch.images.shape == (12, 16, 16, 3)
    for key, label, told, text in zip(batch.keys, batch.labels.tolist(), batch.json, batch.txt, strict=True):
        n = int(key[4])
        assert (label, told, text) == (int(key.startswith("dog")), {"n": n}, f"t{n}")


@pytest.mark.parametrize("format", FORMATS)
def test_a_dataset_needs_no_image(mixed: Path, tmp_path: Path, format: str) -> None:
    manifest = pack(mixed, tmp_path / "x", format=format, fields=["wav", "txt"])
    assert manifest.fields == ("cls", "txt", "wav")
    rows = pq.read_table(tmp_path / "x.parquet").to_pylist()
    assert {(row["image_offset"], row["image_size"], row["crc32c"]) for row in rows} == {(None, None, 0)}
    ds = shardkit.dataset(tmp_path / "x", shuffle=4, decoders={"wav": lambda data: np.array([len(data)])})
    raw = next(iter(ds))
    assert (type(raw["wav"]), type(raw["txt"]), type(raw["cls"])) == (bytes, bytes, int)
    batch = next(iter(ds.decode().batch(12)))
    assert batch["wav"].shape == (12, 1)
    assert sorted(batch["txt"]) == sorted(f"t{n}" for n in range(6) for _ in range(2))
    assert sorted(batch["cls"].tolist()) == [0] * 6 + [1] * 6


def test_a_decoder_of_the_user_that_fails_is_told_with_the_sample(mixed: Path, tmp_path: Path) -> None:
    pack(mixed, tmp_path / "x", fields="wav")

    def decode(data: bytes) -> None:
        raise KeyError("no riff")

    ds = shardkit.dataset(tmp_path / "x", decoders={"wav": decode}).decode()
    with pytest.raises(
        DecodeError, match=r"x-000000.tar: .*sample (cat|dog)/\d_v1: field 'wav' can't be decoded: .*riff"
    ):
        list(ds)


def test_running_again_writes_nothing_and_a_changed_file_is_found(mixed: Path, tmp_path: Path) -> None:
    first = pack(mixed, tmp_path / "out" / "x", fields="txt,json")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()}
    assert pack(mixed, tmp_path / "out" / "x", fields="txt,json") == first
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()} == before
    (mixed / "cat" / "0.v1.txt").write_bytes(b"xx")
    with pytest.raises(DestinationError, match=r"out of date: the source's cat/0.v1.txt"):
        pack(mixed, tmp_path / "out" / "x", fields="txt,json")
    with pytest.raises(DestinationError, match="another dataset is there"):
        pack(mixed, tmp_path / "out" / "x", fields="txt")


def test_a_sample_that_lacks_a_file_stops_the_packing_or_is_left_out(mixed: Path, tmp_path: Path) -> None:
    (mixed / "cat" / "3.v1.json").unlink()
    (mixed / "dog" / "4.v1.JPEG").write_bytes(b"no image")
    with pytest.raises(
        BadFileError, match=r"cat/3.v1.JPEG: there is no .json beside it; add it, or .*`on_error=\"skip\"`"
    ):
        pack(mixed, tmp_path / "out" / "x")
    manifest = pack(mixed, tmp_path / "out" / "x", on_error="skip")
    assert (manifest.samples, manifest.skipped) == (10, 2)
    listed = json.loads((tmp_path / "out" / "x.skipped.json").read_text())
    assert {entry["path"] for entry in listed} == {"cat/3.v1.JPEG", "dog/4.v1.JPEG"}


def test_two_files_for_one_field_are_refused(mixed: Path, tmp_path: Path) -> None:
    (mixed / "cat" / "3.v1.jpg").write_bytes(b"x")
    with pytest.raises(SourceError, match="two files of one sample have the field 'jpg'; rename one of them"):
        pack(mixed, tmp_path / "x")


def test_names_that_give_one_key_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "t" / "a").mkdir(parents=True)
    for name in ("x.1.txt", "x_1.txt"):
        (tmp_path / "t" / "a" / name).write_text(name)
    pack(tmp_path / "t", tmp_path / "x", fields="txt", shuffle=False)
    assert [(s["__key__"], s["txt"]) for s in shardkit.dataset(tmp_path / "x")] == [
        ("a/x_1", b"x.1.txt"), ("a/x_1-2", b"x_1.txt")
    ]  # fmt: skip


@pytest.mark.parametrize("fields", ["cls", "jpg,jpg", "", "a/b", "__x__", ".."])
def test_fields_that_make_no_sense_are_refused(mixed: Path, tmp_path: Path, fields: str) -> None:
    with pytest.raises(UsageError, match="fields"):
        pack(mixed, tmp_path / "x", fields=fields)


def test_ext_and_fields_are_not_given_together(mixed: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="fields: given together with `ext`"):
        pack(mixed, tmp_path / "x", ext="jpg")


def test_a_field_that_no_sample_has_is_an_error(mixed: Path, tmp_path: Path) -> None:
    with pytest.raises(BadFileError, match=r"no .flac beside it"):
        pack(mixed, tmp_path / "x", fields="jpg,flac")
    with pytest.raises(SourceError, match="no sample has all of the fields"):
        pack(mixed, tmp_path / "x", fields="jpg,flac", on_error="skip")


def test_the_bytes_do_not_depend_on_the_workers(mixed: Path, tmp_path: Path) -> None:
    for workers in (1, 2):
        pack(mixed, tmp_path / str(workers) / "x", workers=workers, max_bytes=9000)
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / n).iterdir()} for n in ("1", "2"))
    assert one == two


def test_the_description_of_features_has_every_field(mixed: Path, tmp_path: Path) -> None:
    found = feature_description(pack(mixed, tmp_path / "x", format="tfrecord"))
    assert found["field/json"] == found["field/txt"] == ("bytes", (), b"")
    assert found["image/class/label"] == ("int64", (), -1)
    without = feature_description(pack(mixed, tmp_path / "y", format="tfrecord", fields="wav"))
    assert set(without) == {"image/key", "image/filename", "image/class/label", "image/class/text", "field/wav"}
