"""`convert`: other formats, shards, orders and fields; there and back."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from generations import is_generation

import shardkit
from shardkit.errors import (
    DamagedError,
    DatasetError,
    DestinationError,
    NotFoundError,
    UsageError,
)
from shardkit.events import Progress
from shardkit.reading.blocks.block import index_table
from shardkit.tools.convert.convert import convert

FORMATS = ["tar", "tfrecord"]
OTHER = {"tar": "tfrecord", "tfrecord": "tar"}


def pack(source: Path, dest: Path, **options: Any) -> shardkit.Manifest:
    return shardkit.pack(source, dest, **{"workers": 1, "max_bytes": 6000} | options).manifest


def to(source: Any, dest: Path, **options: Any) -> shardkit.Manifest:
    return convert(source, dest, **{"workers": 1} | options)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def samples(source: Any) -> list[dict[str, Any]]:
    found = list(shardkit.dataset(source))
    for sample in found:
        del sample["__url__"]
    return found


@pytest.fixture
def odd(tmp_path: Path, draw_image: Any) -> Path:
    """A tree whose names need escapes, PAX headers and new keys, with other formats than JPEG."""
    root = tmp_path / "odd"
    for name in ("ä.b", "__c__", "d\\e", "long" * 30):
        (root / name).mkdir(parents=True)
        (root / name / "x.1.jpg").write_bytes(draw_image(1))
        (root / name / "x_1.JPEG").write_bytes(draw_image(2))
        (root / name / "y.PNG").write_bytes(draw_image(3, format="PNG"))
        os.rename(os.fsencode(root / name / "y.PNG"), os.fsencode(root / name) + b"/y\xff.PNG")
    (root / "empty").mkdir()
    return root


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("options", [{}, {"shuffle": False, "max_count": 2}, {"max_bytes": "1GB"}])
def test_there_and_back_gives_the_same_bytes(odd: Path, tmp_path: Path, format: str, options: dict[str, Any]) -> None:
    (odd / "d\\e" / "bad.jpg").write_bytes(b"bad")
    manifest = pack(odd, tmp_path / "a" / "x", format=format, on_error="skip", **options)
    assert manifest.skipped == 1
    there = to(tmp_path / "a" / "x", tmp_path / "b" / "x", format=OTHER[format])
    assert (there.shard_format, there.samples, there.classes) == (OTHER[format], manifest.samples, manifest.classes)
    assert samples(tmp_path / "b" / "x") == samples(tmp_path / "a" / "x")
    to(tmp_path / "b" / "x.json", tmp_path / "c" / "x", format=format, workers=2)
    assert content(tmp_path / "c") == content(tmp_path / "a")


@pytest.mark.parametrize("format", FORMATS)
def test_samples_of_several_files_come_back_too(tree: Path, tmp_path: Path, format: str) -> None:
    for path in list(tree.glob("*/*.jpg")):
        path.with_suffix(".json").write_text("{}")
        path.with_suffix(".seg.png").write_bytes(b"mask")
    pack(tree, tmp_path / "a" / "x", format=format, fields="json,jpg,seg.png")
    to(tmp_path / "a" / "x", tmp_path / "b" / "x", format=OTHER[format])
    to(tmp_path / "b" / "x", tmp_path / "c" / "x", format=format)
    assert samples(tmp_path / "b" / "x") == samples(tmp_path / "a" / "x")
    assert content(tmp_path / "c").keys() == content(tmp_path / "a").keys()
    for name, data in content(tmp_path / "a").items():
        if not name.endswith(".json"):
            assert content(tmp_path / "c")[name] == data


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("source", FORMATS)
def test_shards_are_cut_and_shuffled_anew(tree: Path, tmp_path: Path, source: str, format: str) -> None:
    pack(tree, tmp_path / "a" / "x", format=source)
    before = samples(tmp_path / "a" / "x")
    manifest = to(tmp_path / "a" / "x", tmp_path / "b" / "x", format=format, max_bytes=4500)
    assert max(entry.bytes for entry in manifest.shards) <= 4500
    assert len(manifest.shards) > 2
    assert samples(tmp_path / "b" / "x") == before
    manifest = to(tmp_path / "a" / "x", tmp_path / "c" / "x", format=format, shuffle=True, seed=1, max_count=5)
    assert [entry.samples for entry in manifest.shards] == [4, 4, 4]
    mixed = samples(tmp_path / "c" / "x")
    assert mixed != before
    assert sorted(map(str, mixed)) == sorted(map(str, before))
    for workers in (1, 2):
        to(tmp_path / "a" / "x", tmp_path / f"{workers}" / "x", format=format, shuffle=True, seed=1, workers=workers)
    assert content(tmp_path / "1") == content(tmp_path / "2") != content(tmp_path / "c")


@pytest.mark.parametrize("format", FORMATS)
def test_fields_are_renamed_dropped_and_kept(tree: Path, tmp_path: Path, format: str) -> None:
    for path in list(tree.glob("*/*.jpg")):
        path.with_suffix(".json").write_text("{}")
        path.with_suffix(".txt").write_text("t")
    pack(tree, tmp_path / "x", fields="jpg,json,txt", format=format)
    manifest = to(tmp_path / "x", tmp_path / "a", rename={"json": "meta.json"}, drop=["txt"])
    assert manifest.fields == ("cls", "jpg", "meta.json")
    assert list(samples(tmp_path / "a")[0]) == ["__key__", "jpg", "cls", "meta.json"]
    manifest = to(tmp_path / "x", tmp_path / "b", fields=["txt", "json"], rename={"txt": "text"})
    assert (manifest.fields, manifest.classes) == (("json", "text"), ())
    assert list(samples(tmp_path / "b")[0]) == ["__key__", "json", "text"]
    manifest = to(tmp_path / "x", tmp_path / "c", fields="jpg,cls", format=OTHER[format])
    assert manifest.fields == ("cls", "jpg")
    assert next(iter(shardkit.dataset(tmp_path / "c").decode(size=8).batch(12))).images.shape == (12, 8, 8, 3)
    manifest = to(tmp_path / "x", tmp_path / "d", drop=["jpg"])
    assert {
        row["image_offset"] for row in index_table(shardkit.dataset(tmp_path / "d").content.catalog).to_pylist()
    } == {None}


@pytest.mark.parametrize(
    ("options", "fact"),
    [
        ({"drop": ["png"]}, "no sample has the field 'png'; the samples have cls, jpg"),
        ({"rename": {"jpg": "cls"}}, "'jpg' can't become 'cls'"),
        ({"rename": {"jpg": ""}}, "'jpg' can't become ''"),
        ({"rename": {"jpg": "b,c=d"}}, "'jpg' can't become 'b,c=d'"),
        ({"rename": {"cls": "jpg"}}, "two fields get the same name"),
        ({"drop": ["jpg", "cls"]}, "no field is left"),
        ({"drop": ["jpg"], "rename": {"jpg": "png"}}, "'jpg' is also to be dropped"),
        ({"fields": ""}, "it names no fields"),
        ({"format": "zip"}, "'zip' is not one of tar, tfrecord"),
        ({"workers": 0}, "0 is too small"),
        ({"max_bytes": 10}, "10 bytes can't hold a sample"),
    ],
)
def test_options_that_make_no_sense_are_refused(tree: Path, tmp_path: Path, options: dict[str, Any], fact: str) -> None:
    pack(tree, tmp_path / "a" / "x")
    with pytest.raises(UsageError, match=fact):
        to(tmp_path / "a" / "x", tmp_path / "b" / "x", **options)
    assert not (tmp_path / "b").exists() or list((tmp_path / "b").iterdir()) == []


@pytest.mark.parametrize("format", FORMATS)
def test_shards_without_a_manifest_get_one(tree: Path, tmp_path: Path, format: str) -> None:
    pack(tree, tmp_path / "a" / "x", format=format)
    before = samples(tmp_path / "a" / "x")
    shards = {name: data for name, data in content(tmp_path / "a").items() if name.startswith("x-")}
    for name in ("x.json", "x.parquet"):
        (tmp_path / "a" / name).unlink()
    manifest = to(str(tmp_path / "a" / "x-*"), tmp_path / "b" / "x", format=OTHER[format])
    assert [(entry.name, entry.count) for entry in manifest.classes] == [("blue", 5), ("red", 7)]
    assert samples(tmp_path / "b" / "x") == before
    to(tmp_path / "b" / "x", tmp_path / "c" / "x", format=format)
    assert {name: data for name, data in content(tmp_path / "c").items() if name.startswith("x-")} == shards


@pytest.mark.parametrize("format", FORMATS)
def test_gzip_shards_are_unpacked(tree: Path, tmp_path: Path, format: str) -> None:
    pack(tree, tmp_path / "a" / "x", format=format)
    (tmp_path / "z").mkdir()
    for shard in (tmp_path / "a").glob("x-*"):
        (tmp_path / "z" / f"{shard.name}.gz").write_bytes(gzip.compress(shard.read_bytes()))
    manifest = to(str(tmp_path / "z" / "x-*.gz"), tmp_path / "b" / "x", format=OTHER[format])
    assert [(entry.name, entry.count) for entry in manifest.classes] == [("blue", 5), ("red", 7)]
    assert samples(tmp_path / "b" / "x") == samples(tmp_path / "a" / "x")
    with pytest.raises(UsageError, match="compressed shards can only be read from front to back"):
        to(str(tmp_path / "z" / "x-*.gz"), tmp_path / "c" / "x", shuffle=True)


def test_some_shards_of_a_dataset_are_a_dataset(tree: Path, tmp_path: Path) -> None:
    manifest = pack(tree, tmp_path / "a" / "x", max_bytes=4000)
    part = to([tmp_path / "a" / entry.name for entry in manifest.shards[:2]], tmp_path / "b" / "y", format="tfrecord")
    assert part.samples == sum(entry.samples for entry in manifest.shards[:2])
    assert sum(entry.count for entry in part.classes) == part.samples
    assert [entry.name for entry in part.shards] == ["y-000000.tfrecord", "y-000001.tfrecord"]
    assert part.plan != manifest.plan


def test_running_again_writes_nothing(tree: Path, tmp_path: Path) -> None:
    pack(tree, tmp_path / "a" / "x")
    for options in ({}, {"shuffle": True}, {"drop": ["cls"]}):
        dest = tmp_path / f"b{len(options)}{'drop' in options}" / "x"
        first = to(tmp_path / "a" / "x", dest, format="tfrecord", **options)
        before = {path: path.stat().st_mtime_ns for path in dest.parent.iterdir()}
        assert to(tmp_path / "a" / "x", dest, format="tfrecord", **options) == first
        assert {path: path.stat().st_mtime_ns for path in dest.parent.iterdir()} == before


def test_another_dataset_is_not_overwritten_unless_asked(tree: Path, tmp_path: Path) -> None:
    pack(tree, tmp_path / "a" / "x")
    to(tmp_path / "a" / "x", tmp_path / "b" / "x", format="tfrecord")
    before = content(tmp_path / "b")
    with pytest.raises(DestinationError, match="another dataset is there"):
        to(tmp_path / "a" / "x", tmp_path / "b" / "x", format="tfrecord", shuffle=True)
    assert content(tmp_path / "b") == before
    to(tmp_path / "a" / "x", tmp_path / "b" / "x", format="tar", overwrite=True)
    assert is_generation(content(tmp_path / "b"), content(tmp_path / "a"), "x", 2)
    with pytest.raises(DestinationError, match="the destination is the source"):
        to(tmp_path / "a" / "x", tmp_path / "a" / "x", format="tfrecord", overwrite=True)


def test_a_source_that_was_changed_since_is_found(tree: Path, tmp_path: Path) -> None:
    pack(tree, tmp_path / "a" / "x")
    to(tmp_path / "a" / "x", tmp_path / "b" / "x", format="tfrecord")
    shard = tmp_path / "a" / "x-000000.tar"
    os.utime(shard, ns=(time.time_ns() + 10**9,) * 2)
    with pytest.raises(DestinationError, match=r"out of date: .*x-000000.tar was changed later"):
        to(tmp_path / "a" / "x", tmp_path / "b" / "x", format="tfrecord")


@pytest.mark.parametrize("workers", [1, 2])
def test_damage_in_the_source_stops_it_and_nothing_appears(tree: Path, tmp_path: Path, workers: int) -> None:
    pack(tree, tmp_path / "a" / "x", max_bytes="1GB")
    rows = index_table(shardkit.dataset(tmp_path / "a" / "x").content.catalog).to_pylist()
    shard = tmp_path / "a" / "x-000000.tar"
    data = bytearray(shard.read_bytes())
    data[rows[5]["image_offset"] + 9] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DamagedError, match=f"sample {rows[5]['key']}: the checksum of the image is not the one in the"):
        to(tmp_path / "a" / "x", tmp_path / "b" / "x", format="tfrecord", workers=workers)
    assert not list((tmp_path / "b").glob("x*")) if (tmp_path / "b").exists() else True


def test_a_missing_shard_or_dataset_is_told(tree: Path, tmp_path: Path) -> None:
    pack(tree, tmp_path / "a" / "x")
    (tmp_path / "a" / "x-000000.tar").unlink()
    with pytest.raises(NotFoundError, match=r"x-000000.tar: the shard is missing"):
        to(tmp_path / "a" / "x", tmp_path / "b" / "x")
    with pytest.raises(NotFoundError):
        to(tmp_path / "none" / "x", tmp_path / "b" / "x")
    with pytest.raises(UsageError, match="a class directory, not a dataset"):
        to(tree, tmp_path / "b" / "x")


def test_a_list_in_a_record_can_not_be_in_a_tar(tmp_path: Path) -> None:
    from shardkit.formats.tfrecord.example import varint
    from shardkit.formats.tfrecord.samples import _LENGTH, masked_crc

    def part(tag: int, data: bytes) -> bytes:
        return bytes([tag]) + varint(len(data)) + data

    data = part(0x0A, part(0x0A, part(0x0A, b"boxes") + part(0x12, part(0x12, part(0x0A, bytes(12))))))
    length = _LENGTH.pack(len(data))
    (tmp_path / "x.tfrecord").write_bytes(length + masked_crc(length) + data + masked_crc(data))
    with pytest.raises(DatasetError, match=r"sample x_tfrecord-0: the field 'boxes' is a list .*; omit it with `drop="):
        to(tmp_path / "x.tfrecord", tmp_path / "b" / "x", format="tar")


def test_two_samples_of_one_key_are_refused(tree: Path, tmp_path: Path) -> None:
    pack(tree, tmp_path / "x", max_bytes="1GB")
    for name in ("a", "b"):
        (tmp_path / f"{name}.tar").write_bytes((tmp_path / "x-000000.tar").read_bytes())
    with pytest.raises(DatasetError, match=r"b.tar: at byte 0: .*the key is already in a\.tar"):
        to([tmp_path / "a.tar", tmp_path / "b.tar"], tmp_path / "out" / "x")


def test_an_interrupted_conversion_goes_on(tree: Path, tmp_path: Path) -> None:
    pack(tree, tmp_path / "a" / "x", max_count=1)
    to(tmp_path / "a" / "x", tmp_path / "whole" / "x", format="tfrecord")

    class StopError(Exception):
        pass

    def stop(progress: Progress) -> None:
        if progress.done >= 5:
            raise StopError

    with pytest.raises(StopError):
        to(tmp_path / "a" / "x", tmp_path / "b" / "x", format="tfrecord", progress=stop)
    assert list((tmp_path / "b").glob("x*")) == []
    work = tmp_path / "b" / ".x.packing"
    kept = {path: path.stat().st_mtime_ns for path in work.glob("*.tfrecord")}
    assert len(kept) >= 4
    inodes = {path.name: path.stat().st_ino for path in kept}
    to(tmp_path / "a" / "x", tmp_path / "b" / "x", format="tfrecord")
    assert content(tmp_path / "b") == content(tmp_path / "whole")
    for name, inode in inodes.items():
        assert (tmp_path / "b" / name).stat().st_ino == inode


def test_a_killed_conversion_leaves_no_dataset_and_goes_on(tree: Path, tmp_path: Path) -> None:
    pack(tree, tmp_path / "a" / "x", max_count=1)
    program = (
        "import os, signal, sys; from shardkit.tools.convert.convert import convert\n"
        "kill = lambda p: p.done >= 6 and os.kill(os.getpid(), signal.SIGKILL)\n"
        "convert(sys.argv[1], sys.argv[2], format='tfrecord', workers=2, progress=kill)"
    )
    home = str(Path(shardkit.__file__).parent.parent)
    command = [sys.executable, "-c", program, str(tmp_path / "a" / "x"), str(tmp_path / "b" / "x")]
    killed = subprocess.run(command, env=os.environ | {"PYTHONPATH": home}, check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert list((tmp_path / "b").glob("x*")) == []
    to(tmp_path / "a" / "x", tmp_path / "b" / "x", format="tfrecord")
    to(tmp_path / "a" / "x", tmp_path / "whole" / "x", format="tfrecord")
    assert content(tmp_path / "b") == content(tmp_path / "whole")


def test_the_options_of_the_source_are_kept_in_the_manifest(tree: Path, tmp_path: Path) -> None:
    before = pack(tree, tmp_path / "a" / "x", seed=5)
    assert to(tmp_path / "a" / "x", tmp_path / "b" / "x", format="tfrecord").options == before.options
    after = to(tmp_path / "a" / "x", tmp_path / "c" / "x", shuffle=True, seed=7, max_bytes="5kB")
    assert after.options == before.options | {"seed": 7, "max_bytes": 5000}
    assert json.loads((tmp_path / "c" / "x.json").read_text())["plan"] == after.plan != before.plan


def test_images_of_several_kinds_get_one_name_where_each_sample_has_one(
    tree: Path, tmp_path: Path, draw_image: Callable[..., bytes]
) -> None:
    (tree / "red" / "x.png").write_bytes(draw_image(99, format="PNG"))
    shardkit.pack(tree, tmp_path / "two", workers=1)
    manifest = shardkit.convert(tmp_path / "two", tmp_path / "one", rename={"png": "jpg"})
    assert manifest.fields == ("cls", "jpg")
    assert not shardkit.verify(tmp_path / "one", decode=True).findings
    images = [batch for batch, _ in shardkit.dataset(tmp_path / "one").decode(size=16).batch(13)]
    assert [batch.shape for batch in images] == [(13, 16, 16, 3)]
    shardkit.unpack(tmp_path / "one", tmp_path / "again")
    assert (tmp_path / "again" / "red" / "x.png").read_bytes() == (tree / "red" / "x.png").read_bytes()


def test_a_sample_with_two_images_does_not_lose_one(tmp_path: Path, draw_image: Callable[..., bytes]) -> None:
    sample = {"__key__": "k", "jpg": draw_image(1), "png": draw_image(2, format="PNG")}
    shardkit.write([sample], tmp_path / "two")
    with pytest.raises(DatasetError, match=r"sample k: its fields .* two of the same name"):
        shardkit.convert(tmp_path / "two", tmp_path / "one", rename={"png": "jpg"}, workers=1)
