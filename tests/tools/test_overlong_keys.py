"""Keys of other writers' shards that are longer than an index can hold."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

import shardkit
from shardkit import DatasetError
from shardkit.formats.tfrecord.features import ENCODED, KEY
from shardkit.formats.tfrecord.samples import FRAME
from shardkit.sample import MAX_KEY_BYTES
from shardkit.shards.index import TEXT_BYTES

LONG = "k" * (MAX_KEY_BYTES + 1)


def tar_with(key: str, image: bytes) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT) as file:
        for name in ("a", key, "b"):
            info = tarfile.TarInfo(f"{name}.jpg")
            info.size = len(image)
            file.addfile(info, io.BytesIO(image))
    return sink.getvalue()


def record_with(key: str, image: bytes) -> bytes:
    tf = pytest.importorskip("tensorflow")

    def feature(data: bytes) -> Any:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[data]))

    features = {KEY: feature(key.encode()), ENCODED: feature(image)}
    data: bytes = tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()
    with io.BytesIO() as sink:
        from shardkit.formats.tfrecord.samples import masked_crc

        head = len(data).to_bytes(8, "little")
        sink.write(head + masked_crc(head) + data + masked_crc(data))
        assert sink.tell() == len(data) + FRAME
        return sink.getvalue()


def write_shard(folder: Path, kind: str, key: str, image: bytes) -> str:
    folder.mkdir()
    path = folder / ("x-000000.tar" if kind == "tar" else "x-000000.tfrecord")
    path.write_bytes((tar_with if kind == "tar" else record_with)(key, image))
    return str(path)


@pytest.mark.parametrize("kind", ["tar", "tfrecord"])
@pytest.mark.parametrize("command", ["index", "convert"])
def test_a_key_that_is_too_long_for_an_index_is_told(kind: str, command: str, tmp_path: Path, draw_image: Any) -> None:
    shard = write_shard(tmp_path / "theirs", kind, LONG, draw_image())
    with pytest.raises(DatasetError, match="a key has 8,001 bytes, and an index holds at most 8,000") as caught:
        if command == "index":
            shardkit.index_shards(shard)
        else:
            shardkit.convert(shard, tmp_path / "own", format="tfrecord" if kind == "tar" else "tar")
    assert "shardkit repair" in caught.value.cure and len(str(caught.value)) < 400
    assert not list(tmp_path.rglob("*.json")) and not list(tmp_path.rglob("*.parquet"))


@pytest.mark.parametrize("kind", ["tar", "tfrecord"])
def test_the_longest_key_is_indexed_and_read(kind: str, tmp_path: Path, draw_image: Any) -> None:
    shard = write_shard(tmp_path / "theirs", kind, LONG[1:], draw_image())
    shardkit.index_shards(shard)
    assert LONG[1:] in [sample["__key__"] for sample in shardkit.dataset(shard)]
    assert len(LONG[1:]) * 2 + len(".jpg") <= TEXT_BYTES


@pytest.mark.parametrize("kind", ["tar", "tfrecord"])
def test_repair_shortens_such_keys(kind: str, tmp_path: Path, draw_image: Any) -> None:
    shard = write_shard(tmp_path / "theirs", kind, LONG, draw_image())
    result = shardkit.repair(shard, tmp_path / "own")
    [renamed] = result.renamed
    assert renamed.key == LONG and len(renamed.new_key.encode()) == MAX_KEY_BYTES
    assert renamed.new_key[:100] == LONG[:100]
    assert shardkit.verify(tmp_path / "own").sound
    assert renamed.new_key in [sample["__key__"] for sample in shardkit.dataset(tmp_path / "own")]
