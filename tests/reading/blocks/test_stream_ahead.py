"""Shards in a store without a manifest are streamed from their first byte."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from reading.far import files_of, put, told, uploaded

import shardkit
from shardkit import DamagedError, DatasetError, NotFoundError
from shardkit.location import locate
from shardkit.reading.blocks import fetch_ahead
from shardkit.reading.blocks.stream_ahead import RemoteFile
from shardkit.reading.stats.record import Recorder
from shardkit.storage.store import ObjectInfo

KeysOf = Callable[[Any], list[str]]
Pairs = dict[str, tuple[str, str]]


@pytest.fixture(scope="session")
def far_foreign(foreign: str) -> str:
    """The shards `foreign` in a store in memory; a glob."""
    return uploaded(foreign.replace("-*.tar", "")) + "-*.tar"


@pytest.mark.parametrize("shuffle", [0, 8])
def test_shards_without_a_manifest_are_streamed(
    foreign: str, far_foreign: str, shuffle: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch_ahead, "CHUNK_BYTES", 1000)
    near, far = shardkit.dataset(foreign, shuffle=shuffle), shardkit.dataset(far_foreign, shuffle=shuffle)
    for _ in range(2):
        assert [told(sample) for sample in far] == [told(sample) for sample in near]
    with pytest.raises(DatasetError, match="shardkit index"):
        len(far)


def test_they_are_dealt_to_workers(far_foreign: str, keys_of: KeysOf) -> None:
    data = shardkit.dataset(far_foreign)
    parts = [keys_of(item for _, item in data.run(0, worker=worker, workers=2)) for worker in range(2)]
    assert sorted(parts[0] + parts[1]) == [f"n{number:02}" for number in range(50)]


def test_gzip_and_tfrecord_streams_are_read_from_a_store(pairs: dict[str, tuple[str, str]], keys_of: KeysOf) -> None:
    for form, ending in (("gzip", "tar.gz"), ("tfrecord", "tfrecord")):
        near = pairs[form][0]
        bare = f"memory://{os.urandom(6).hex()}"
        put(bare, {name: data for name, data in files_of(near).items() if name.startswith("x-")})
        assert keys_of(shardkit.dataset(f"{bare}/x-*.{ending}")) == keys_of(shardkit.dataset(near))


def test_a_shard_that_is_gone_is_told(far_foreign: str) -> None:
    with pytest.raises(NotFoundError, match=r"other-005\.tar"):
        list(shardkit.dataset(far_foreign.replace("*", "{000..009}")))


def test_a_cut_shard_is_told(far_foreign: str, foreign: str) -> None:
    bare = f"memory://{os.urandom(6).hex()}"
    data = Path(foreign).with_name("other-000.tar").read_bytes()
    put(locate(bare), {"a-000.tar": data[: len(data) // 2]})
    with pytest.raises(DamagedError, match=r"a-000\.tar"):
        list(shardkit.dataset(f"{bare}/a-000.tar"))


@pytest.mark.parametrize(
    ("crc32c", "version", "kept"),
    [("0000beef", None, ("0000beef", 0xBEEF)), ("0000beef", "7", ("0000beef", 0xBEEF)), (None, "7", ("7", -1)),
     (None, None, None)],
)  # fmt: skip
def test_a_stream_is_kept_under_its_sum_or_else_its_version_and_without_both_it_is_not(
    crc32c: str | None, version: str | None, kept: tuple[str, int] | None
) -> None:
    entries: list[tuple[str, int, int]] = []
    shard, found = locate("memory://there/a-000.tar"), ObjectInfo("a-000.tar", 99, crc32c=crc32c, version=version)
    cache = SimpleNamespace(entry=lambda *arguments: entries.append(arguments))
    store = SimpleNamespace(info=lambda name: found, pieces=lambda *arguments: iter((b"0",)), root=shard.parent)
    objects = SimpleNamespace(patient=lambda folder: store, cache=cache)
    fetchers = SimpleNamespace(submit=lambda act, place: act())
    streams = SimpleNamespace(objects=objects, fetchers=fetchers, record=Recorder())
    file = RemoteFile(cast(Any, streams), shard)
    file._fetch(0, 1)
    assert entries == ([] if kept is None else [(f"{shard} {kept[0]}", 99, kept[1])])
