"""What is asked of a store, and what is held in memory."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
from reading.far import drawn, put, uploaded

import shardkit
from shardkit.index import INTEGERS, ShardRows, read_columns, write_index
from shardkit.location import locate
from shardkit.manifest import IndexEntry
from shardkit.reading import ahead, remote
from shardkit.reading.options import Remote

KeysOf = Callable[[Any], list[str]]
Pairs = dict[str, tuple[str, str]]


def test_a_first_batch_needs_a_few_ranges(tmp_path: Path, draw_tree: Any, watched: Any, monkeypatch: Any) -> None:
    draw_tree(tmp_path / "tree", {"a": 150, "b": 150}, size=(200, 200))
    manifest = shardkit.pack(tmp_path / "tree", tmp_path / "x", max_count=75, workers=1)
    assert isinstance(manifest, shardkit.Manifest)
    far, requests = uploaded(str(tmp_path / "x")), watched()
    monkeypatch.setattr(ahead, "CHUNK_BYTES", 64 << 10)
    for shuffle in (0, 64):
        requests.clear()
        batches = iter(shardkit.dataset(far, shuffle=shuffle, ahead_bytes=256 << 10).batch(8))
        next(batches)
        batches.close()
        read = sum(size for kind, name, _, size in requests if kind == "read" and name.endswith(".tar"))
        assert 0 < read < manifest.bytes / 3
        assert {name for kind, name, *_ in requests if kind == "read"} >= {"x.json", "x.parquet"}


def test_an_epoch_fetches_each_byte_about_once(pairs: dict[str, tuple[str, str]], watched: Any, chunks: None) -> None:
    near, far = pairs["tar"]
    total = sum(path.stat().st_size for path in Path(near).parent.glob("x-*.tar"))
    requests = watched()
    for shuffle in (0, 20, 1000):
        requests.clear()
        assert len(list(shardkit.dataset(far, shuffle=shuffle))) == 97
        assert sum(size for kind, name, _, size in requests if kind == "read" and name.endswith(".tar")) <= total
        assert len([kind for kind, *_ in requests if kind == "info"]) == 5


def test_a_sparse_selection_fetches_only_its_samples(pairs: Any, watched: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(ahead, "GAP_BYTES", 100)
    far = pairs["tar"][1]
    requests = watched()
    chosen = list(shardkit.dataset(far)[::10])
    assert len(chosen) == 10
    read = sum(size for kind, name, _, size in requests if kind == "read" and name.endswith(".tar"))
    assert read == sum(len(sample["jpg"]) for sample in chosen)


def test_memory_is_bounded_with_a_thousand_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    flows: list[Any] = []

    class Flow(ahead._Flow):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            flows.append(self)

    monkeypatch.setattr(ahead, "_Flow", Flow)
    bound, keys, most, given = 64 << 10, set(), 0, 0
    for sample in shardkit.dataset(drawn(1000), shuffle=100, ahead_bytes=bound):
        keys.add(sample["__key__"])
        given += len(sample["jpg"])
        most = max(most, flows[0].ahead.asked - given)
    assert len(keys) == 1000
    assert 0 < most <= bound + bound / 8
    assert threading.active_count() < 100


def test_of_a_large_index_only_parts_are_read(watched: Any, monkeypatch: Any) -> None:
    numbers = {name: np.arange(2000, dtype=dtype) for name, dtype in INTEGERS.items()}
    keys = [f"{n * 7919 % 2000:05}" for n in range(2000)]
    sink = io.BytesIO()
    write_index(sink, [ShardRows(f"x-{n}.tar", [f"{n}/{key}" for key in keys], keys, numbers) for n in range(40)])
    data, place = sink.getvalue(), locate(f"memory://{os.urandom(6).hex()}")
    put(place, {"x.parquet": data})
    requests = watched()
    monkeypatch.setattr(remote, "WHOLE_INDEX_BYTES", 10)
    monkeypatch.setattr(remote.RangedFile, "BLOCK", 1024)
    entry = IndexEntry("x.parquet", 40, len(data), f"{google_crc32c.value(data):08x}")
    with remote.open_index(remote.Objects(place, Remote()), entry) as file:
        columns = read_columns(file, 17, ["key", "offset"])
    assert columns["key"].to_pylist() == [f"17/{key}" for key in keys]
    assert columns["offset"].tolist() == list(range(2000))
    assert 0 < sum(count for kind, _, _, count in requests if kind == "read") < len(data) / 4
