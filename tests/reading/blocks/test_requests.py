"""What is asked of a store, and what is held in memory."""

from __future__ import annotations

import gc
import io
import itertools
import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
from reading.far import drawn, put, uploaded

import shardkit
from shardkit.location import locate
from shardkit.reading.blocks import fetch_ahead, source
from shardkit.reading.blocks.fetched import FetchedBytes
from shardkit.shards import index_file
from shardkit.shards.index import INTEGERS, ShardRows, write_index
from shardkit.shards.manifest import IndexEntry, ShardEntry
from shardkit.shards.objects import Objects
from shardkit.shards.parquet import sources
from shardkit.storage import fetchers, ranged
from shardkit.storage.access import Remote

KeysOf = Callable[[Any], list[str]]
Pairs = dict[str, tuple[str, str]]


@pytest.fixture
def flows(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The flow of each iteration, with `begun_at`: the bytes that were known when it asked for the first."""
    made: list[Any] = []

    class Flow(fetch_ahead._Flow):
        begun_at = 0

        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self)

        def _start(self) -> None:
            self.begun_at = self.begun_at or self.bytes
            super()._start()

    monkeypatch.setattr(fetch_ahead, "_Flow", Flow)
    return made


def test_a_first_batch_needs_a_few_ranges(
    tmp_path: Path, draw_tree: Any, watched: Any, flows: list[Any], monkeypatch: Any
) -> None:
    """All that was asked for when the first batch is there: how much of it came meanwhile is a matter of time."""
    draw_tree(tmp_path / "tree", {"a": 150, "b": 150}, size=(200, 200))
    manifest = shardkit.pack(tmp_path / "tree", tmp_path / "x", max_count=75, workers=1)
    assert isinstance(manifest, shardkit.Packed)
    far, requests, bound = uploaded(str(tmp_path / "x")), watched(), 256 << 10
    monkeypatch.setattr(fetch_ahead, "GAP_BYTES", fetch_ahead.GAP_BYTES * (64 << 10) // fetch_ahead.CHUNK_BYTES)
    monkeypatch.setattr(fetch_ahead, "CHUNK_BYTES", 64 << 10)
    for shuffle in (0, 64):
        requests.clear()
        batches = iter(shardkit.dataset(far, shuffle=shuffle, ahead_bytes=bound).batch(8))
        next(batches)
        flow = flows.pop()
        flow.ahead.end()  # nothing more is asked for, and what was asked for comes
        flow.ahead.fetchers.join(60.0)
        read = sum(size for kind, name, _, size in requests if kind == "read" and name.endswith(".tar"))
        assert 0 < flow.ahead.asked <= min(read, bound + bound / 8)
        assert read < manifest.bytes / 2
        assert {name for kind, name, *_ in requests if kind == "read"} >= {"x.json", "x.parquet"}
        batches.close()


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
    monkeypatch.setattr(fetch_ahead, "GAP_BYTES", 100)
    far = pairs["tar"][1]
    requests = watched()
    chosen = list(shardkit.dataset(far)[::10])
    assert len(chosen) == 10
    read = sum(size for kind, name, _, size in requests if kind == "read" and name.endswith(".tar"))
    assert read == sum(len(sample["jpg"]) for sample in chosen)


def test_memory_is_bounded_with_a_thousand_shards(flows: list[Any]) -> None:
    bound, keys, most, given = 64 << 10, set(), 0, 0
    for sample in shardkit.dataset(drawn(1000), shuffle=100, ahead_bytes=bound):
        keys.add(sample["__key__"])
        given += len(sample["jpg"])
        most = max(most, flows[0].ahead.asked - given)
    assert len(keys) == 1000
    assert 0 < most <= bound + bound / 8
    assert threading.active_count() < 100


def test_the_first_request_does_not_wait_for_all_that_may_be_under_way(flows: list[Any], monkeypatch: Any) -> None:
    monkeypatch.setattr(fetch_ahead, "CHUNK_BYTES", 4 << 10)
    monkeypatch.setattr(source, "BLOCK_BYTES", 4 << 10)
    total = sum(len(sample["jpg"]) for sample in shardkit.dataset(drawn(200)))
    assert flows[0].ahead.flight == fetchers.REQUESTS * (4 << 10) < total
    assert 0 < flows[0].begun_at <= 3 * (4 << 10)


@pytest.mark.parametrize(("shuffle", "limit", "kept"), [(0, "64KiB", True), (50, "2GiB", True), (50, "64KiB", False)])
def test_samples_stay_where_they_arrived_unless_a_shuffle_holds_too_many(
    flows: list[Any], shuffle: int, limit: str, kept: bool
) -> None:
    assert len(list(shardkit.dataset(drawn(200), shuffle=shuffle, ahead_bytes=limit))) == 200
    assert flows[0].ahead.keep is kept


@pytest.mark.parametrize("shuffle", [0, 20])
@pytest.mark.parametrize("count", [97, 1])
def test_what_a_block_fetched_is_freed_with_it(
    pairs: Pairs, flows: list[Any], chunks: None, monkeypatch: pytest.MonkeyPatch, shuffle: int, count: int
) -> None:
    made: list[Any] = []
    init = FetchedBytes.__init__

    def watched(self: FetchedBytes, *arguments: Any) -> None:
        init(self, *arguments)
        made.append(weakref.ref(self))

    monkeypatch.setattr(FetchedBytes, "__init__", watched)
    gc.disable()  # no cycle may hold it
    try:
        samples = iter(shardkit.dataset(pairs["tar"][1], shuffle=shuffle, ahead_bytes="16KiB"))
        assert len(list(itertools.islice(samples, count))) == count
        del samples
        flows.pop().ahead.fetchers.join(10.0)
        assert made and not any(block() for block in made)
    finally:
        gc.enable()


@pytest.mark.parametrize(("slow", "threads"), [(1e9, fetchers.FIRST_REQUESTS), (-1.0, fetchers.REQUESTS)])
def test_more_requests_at_a_time_only_where_a_store_is_slow(monkeypatch: Any, slow: float, threads: int) -> None:
    monkeypatch.setattr(fetchers, "SLOW_SECONDS", slow)
    pool = fetchers.Fetchers(60.0)
    jobs = [pool.submit(lambda: None, "here") for _ in range(10_000)]
    assert all(job.value() is None for job in jobs)
    pool.close()
    pool.join(10.0)
    assert len(pool._threads) == threads


@pytest.mark.parametrize(("limit", "slow"), [(1e9, False), (-1.0, True)])
def test_a_store_is_slow_whose_answers_take_longer_than_the_limit(monkeypatch: Any, limit: float, slow: bool) -> None:
    monkeypatch.setattr(fetchers, "SLOW_SECONDS", limit)
    pool = fetchers.Fetchers(60.0)
    assert not pool.slow
    pool.submit(lambda: None, "here").value()
    pool.end()
    pool.join(60.0)
    assert pool.slow == slow


@pytest.mark.parametrize(("slow", "wide"), [(False, fetch_ahead.WIDE), (True, 1)])
def test_neighbours_come_in_one_request_while_a_store_is_fast(
    tmp_path: Path, draw_tree: Any, watched: Any, monkeypatch: pytest.MonkeyPatch, slow: bool, wide: int
) -> None:
    draw_tree(tmp_path / "tree", {"a": 200, "b": 200}, size=(64, 64))
    shardkit.pack(tmp_path / "tree", tmp_path / "x", workers=1)
    far, requests, chunk = uploaded(str(tmp_path / "x")), watched(), 16 << 10
    monkeypatch.setattr(fetch_ahead, "CHUNK_BYTES", chunk)
    monkeypatch.setattr(fetchers.Fetchers, "slow", property(lambda _: slow, lambda *_: None), raising=False)
    monkeypatch.setattr(source, "BLOCK_BYTES", 4 * chunk)
    assert len(list(shardkit.dataset(far))) == 400
    sizes = [size for kind, name, _, size in requests if kind == "read" and name.endswith(".tar")]
    assert len(sizes) > 4 and max(round(size / chunk) for size in sizes) == wide


def test_of_a_large_index_only_parts_are_read(watched: Any, monkeypatch: Any) -> None:
    numbers = {name: np.arange(2000, dtype=dtype) for name, dtype in INTEGERS.items()}
    keys = [f"{n * 7919 % 2000:05}" for n in range(2000)]
    sink = io.BytesIO()
    write_index(sink, [ShardRows(f"x-{n}.tar", [f"{n}/{key}" for key in keys], keys, numbers) for n in range(40)])
    data, place = sink.getvalue(), locate(f"memory://{os.urandom(6).hex()}")
    put(place, {"x.parquet": data})
    requests = watched()
    monkeypatch.setattr(sources, "FETCHED_WHOLE_BYTES", 10)
    monkeypatch.setattr(ranged, "GAP_BYTES", 100)
    entry = IndexEntry("x.parquet", 40, len(data), f"{google_crc32c.value(data):08x}")
    shards = [ShardEntry(f"x-{n}.tar", 2000, 0, "") for n in range(40)]
    index = index_file.open_index_at(Objects(Remote()), place.child("x.parquet"), entry, shards)
    columns = index.columns(17, ["key", "offset"])
    assert columns["key"].to_pylist() == [f"17/{key}" for key in keys]
    assert columns["offset"].tolist() == list(range(2000))
    assert 0 < sum(count for kind, _, _, count in requests if kind == "read") < len(data) / 4


def test_the_stem_of_a_pattern_is_what_stands_before_its_first_sign(far: str, watched: Any, keys_of: KeysOf) -> None:
    """So a range between brackets needs no list, which some stores refuse."""
    requests, folder = watched(), far.rpartition("/")[0]
    keys = keys_of(shardkit.dataset([f"{far}-00000{number}.tar" for number in range(3)]))
    for pattern in (f"{far}-00000[0-2].tar", f"{folder}/cars-*[0-2].tar", f"{far}-00000[!3-9].tar"):
        requests.clear()
        assert keys_of(shardkit.dataset(pattern)) == keys
        assert not [name for kind, name, *_ in requests if kind == "list"]
