"""GZIP and ZLIB TFRecords, as TensorFlow writes them: each command reads them as the plain ones, or says why not."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Any

import pytest

import shardkit
from shardkit.errors import ShardkitError, UsageError
from shardkit.tools.dali import write_dali_index

PACKINGS = {"gzip": gzip.compress, "zlib": zlib.compress}
NAMES = ["x-{}.tfrecord", "x-{}.tfrecord.{}", "x-{}-of-00003"]


@pytest.fixture
def plain(tree: Path, tmp_path: Path) -> Path:
    """12 images in 3 plain shards with a manifest: 5 blue, 7 red."""
    shardkit.pack(tree, tmp_path / "plain" / "x", format="tfrecord", workers=1, max_count=4)
    return tmp_path / "plain" / "x"


@pytest.fixture(params=[(packing, name) for packing in PACKINGS for name in NAMES], ids=" ".join)
def packed(request: pytest.FixtureRequest, plain: Path, tmp_path: Path) -> str:
    """The same shards compressed, without a manifest."""
    packing, name = request.param
    folder = tmp_path / "packed"
    folder.mkdir()
    for number, shard in enumerate(sorted(plain.parent.glob("x-*.tfrecord"))):
        (folder / name.format(f"{number:05}", packing)).write_bytes(PACKINGS[packing](shard.read_bytes()))
    return str(folder / "x-*")


def samples(source: Any) -> list[dict[str, Any]]:
    return [{name: value for name, value in sample.items() if name != "__url__"} for sample in shardkit.dataset(source)]


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def same_everywhere(source: Any, plain: Path, tree: Path, out: Path) -> None:
    """What needs no manifest."""
    assert samples(source) == samples(plain)
    checked = shardkit.verify(source, decode=True)
    assert (checked.sound, checked.samples, checked.decoded) == (True, 12, 12)
    shardkit.unpack(source, out / "tree")
    assert files(out / "tree") == files(tree)
    for format in ("tar", "tfrecord"):
        made = shardkit.convert(source, out / format / "x", format=format, workers=1)
        assert [(entry.name, entry.count) for entry in made.classes] == [("blue", 5), ("red", 7)]
        assert samples(out / format / "x") == samples(plain)
    assert [path.read_bytes() for path in sorted((out / "tfrecord").glob("x-*"))] == [
        path.read_bytes() for path in sorted(plain.parent.glob("x-*"))
    ]
    shardkit.repair(source, out / "repaired" / "x")
    assert samples(out / "repaired" / "x") == samples(plain)
    with pytest.raises(UsageError, match="the shard is compressed, which DALI can't read"):
        write_dali_index(source)


def test_shards_without_a_manifest_are_read_as_plain_ones(packed: str, plain: Path, tree: Path, tmp_path: Path) -> None:
    same_everywhere(packed, plain, tree, tmp_path / "out")
    shardkit.upload(packed, tmp_path / "up" / "x")
    assert samples(str(tmp_path / "up" / "x-*")) == samples(plain)
    for command in (shardkit.info, shardkit.report, shardkit.view, shardkit.bench):
        with pytest.raises(ShardkitError, match=r"manifest.* make one with: shardkit index"):
            command(packed)


def test_shards_with_a_manifest_are_read_as_plain_ones(packed: str, plain: Path, tree: Path, tmp_path: Path) -> None:
    made = shardkit.index_shards(packed)
    assert (made.samples, made.classes) == (12, shardkit.info(plain).classes)
    assert made.options["unpacked_bytes"] == [path.stat().st_size for path in sorted(plain.parent.glob("x-*"))]
    source = tmp_path / "packed" / "x"
    same_everywhere(source, plain, tree, tmp_path / "out")
    ours, theirs = (next(iter(shardkit.dataset(at, shuffle=9).decode(size=8).batch(12))) for at in (source, plain))
    assert (ours.images == theirs.images).all()
    assert ours.labels.tolist() == theirs.labels.tolist()
    assert shardkit.info(source).image_bytes == shardkit.info(plain).image_bytes
    shardkit.view(source, tmp_path / "packed.png"), shardkit.view(plain, tmp_path / "plain.png")
    assert (tmp_path / "packed.png").read_bytes() == (tmp_path / "plain.png").read_bytes()
    found, expected = (shardkit.report(at, tmp_path / "r.html").datasets for at in (source, plain))
    assert [item.samples for item in found] == [item.samples for item in expected] == [12]
    shardkit.upload(source, tmp_path / "up" / "x")
    assert samples(tmp_path / "up" / "x") == samples(plain)


@pytest.mark.parametrize("packing", PACKINGS)
def test_compressed_shards_are_measured_too(plain: Path, tmp_path: Path, packing: str) -> None:
    for shard in plain.parent.glob("x-*.tfrecord"):
        (tmp_path / shard.name).write_bytes(PACKINGS[packing](shard.read_bytes()))
    shardkit.index_shards(tmp_path / "x")
    result = shardkit.bench(tmp_path / "x", seconds=1, threads=[1], size=8, folder=tmp_path)
    assert result.samples == 12
