from __future__ import annotations

import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from numpy.typing import NDArray

import shardkit
from shardkit.errors import UsageError
from shardkit.formats.format import FORMATS
from shardkit.formats.tar.samples import encode_sample
from shardkit.packing.plan import plan as plan_module
from shardkit.packing.plan.cut import split_evenly
from shardkit.packing.plan.plan import Plan, ShardNames, plan_shards
from shardkit.packing.plan.sizes import sample_bytes
from shardkit.sample import text_of_path
from shardkit.sources import scratch
from shardkit.sources.source import scan_tree

MIB = 1 << 20


def plan(
    sizes: list[int] | NDArray[np.int64],
    *,
    max_bytes: int = 256_000_000,
    max_count: int | None = None,
    shuffle: bool = True,
    seed: int = 0,
    overhead: int = 0,
) -> Plan:
    return plan_shards(
        np.asarray(sizes, dtype=np.int64),
        ShardNames("train", ".tar"),
        overhead=overhead,
        max_bytes=max_bytes,
        max_count=max_count,
        shuffle=shuffle,
        seed=seed,
    )


def cut(sizes: list[int] | NDArray[np.int64], max_bytes: int, max_count: int = 10**9, least: int = 1) -> list[int]:
    ends = np.concatenate(([0], np.cumsum(np.asarray(sizes, dtype=np.int64)))).astype(np.int64)
    return split_evenly(ends, max_bytes=max_bytes, max_count=max_count, least=least).tolist()


def test_the_order_of_more_samples_than_32_bits_count_has_64() -> None:
    assert plan_module.order_type(2**31) == np.int64
    assert plan_module.order_type(2**31 - 1) == np.int32


some_sizes = st.lists(st.integers(0, 3000), max_size=120)


@given(some_sizes, st.integers(1, 5000), st.none() | st.integers(1, 50), st.booleans(), st.integers(0, 9))
def test_every_row_is_in_one_shard_and_the_limits_hold(
    sizes: list[int], room: int, max_count: int | None, shuffle: bool, seed: int
) -> None:
    made = plan(sizes, max_bytes=room + 1024, overhead=1024, max_count=max_count, shuffle=shuffle, seed=seed)
    shards = [made.shard(number) for number in range(len(made))]
    rows = [row for shard in shards for row in shard.rows.tolist()]
    assert sorted(rows) == list(range(len(sizes)))
    assert shuffle or rows == sorted(rows)
    for shard in shards:
        assert shard.rows.dtype == np.int64
        assert len(shard.rows) >= 1
        assert max_count is None or len(shard.rows) <= max_count
        assert shard.bytes == sum(sizes[row] for row in shard.rows) + 1024
        assert shard.bytes <= room + 1024 or len(shard.rows) == 1
    again = plan(sizes, max_bytes=room + 1024, overhead=1024, max_count=max_count, shuffle=shuffle, seed=seed)
    assert again.order.tolist() == made.order.tolist()
    assert again.bounds.tolist() == made.bounds.tolist()


@given(st.lists(st.integers(1, 100), min_size=1, max_size=400), st.integers(1000, 9000), st.integers(1, 12))
def test_shards_are_even_within_a_sample_and_few(sizes: list[int], max_bytes: int, least: int) -> None:
    bounds = cut(sizes, max_bytes, least=least)
    runs, total, largest = len(bounds) - 1, sum(sizes), max(sizes)
    loads = [sum(sizes[start:end]) for start, end in pairwise(bounds)]
    if total >= 2 * largest * runs:  # otherwise a bound may have to move, so that no run is empty
        assert max(abs(load * runs - total) for load in loads) <= (largest + 1) * runs
    assert runs <= max(min(least, len(sizes)), -(-total // (max_bytes - largest)))
    assert runs >= min(len(sizes), max(least, -(-total // max_bytes)))


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=40), st.integers(0, 300), st.integers(1, 7))
def test_samples_of_about_the_limit_are_cut_into_few_runs(sizes: list[int], slack: int, max_count: int) -> None:
    max_bytes = max(sizes) + slack + 1
    fewest, load, held = 1, 0, 0
    for size in sizes:
        if load + size > max_bytes or held == max_count:
            fewest, load, held = fewest + 1, 0, 0
        load, held = load + size, held + 1
    bounds = cut(sizes, max_bytes, max_count)
    assert fewest <= len(bounds) - 1 <= fewest + max(8, fewest // 4)


def best_cut(sizes: list[int], max_bytes: int, max_count: int) -> tuple[int, int]:
    """(the fewest runs under both limits, the least that the largest of so many can have), by trying all."""
    ways: list[dict[int, int]] = [{0: 0}]  # for each number of samples: runs -> the least largest run
    for end in range(1, len(sizes) + 1):
        found: dict[int, int] = {}
        for start in range(max(0, end - max_count), end):
            load = sum(sizes[start:end])
            if load <= max_bytes:
                for runs, largest in ways[start].items():
                    found[runs + 1] = min(found.get(runs + 1, max_bytes), max(largest, load))
        ways.append(found)
    return min(ways[-1].items())


@pytest.mark.parametrize("max_count", [2, 3, 10**9])
@pytest.mark.parametrize("seed", range(4))
def test_where_an_even_cut_needs_many_more_runs_the_cut_is_the_fewest_and_the_least_largest(
    max_count: int, seed: int
) -> None:
    """Samples of over half the limit, next to each other, and some that fit together."""
    rng = np.random.default_rng(seed)
    sizes = [*rng.integers(51, 70, 80).tolist(), *rng.integers(20, 30, 10).tolist()]
    fewest, largest = best_cut(sizes, 100, max_count)
    share = -(-sum(sizes) // 100)
    assert fewest > share + max(8, share // 4), "an even cut would do, and is what other tests are about"
    bounds = cut(sizes, 100, max_count)
    assert bounds[0] == 0 and bounds[-1] == len(sizes)
    assert len(bounds) - 1 == fewest
    assert max(sum(sizes[start:end]) for start, end in pairwise(bounds)) == largest
    assert max(end - start for start, end in pairwise(bounds)) <= max_count


def test_samples_of_over_half_the_limit_are_a_shard_each() -> None:
    made = plan([51] * 100, max_bytes=101, shuffle=False)
    assert made.bounds.tolist() == list(range(101))


def test_a_tight_cut_lowers_the_largest_run_as_far_as_the_fewest_runs_allow() -> None:
    """The small ones fill up to 100 bytes where that saves a run, and no further than that."""
    sizes = [70] * 40 + [45, 45]
    bounds = cut(sizes, 100)
    assert bounds == [*range(41), 42]
    assert cut([70] * 40 + [10] * 9, 100)[-3:] == [39, 41, 49]
    assert cut([70] * 40 + [1] * 90, 100)[-3:] == [39, 50, 130], "two runs of 80 bytes"


@given(st.integers(1, 500), st.integers(1, 60))
def test_where_the_count_decides_there_are_the_fewest_shards_it_allows(count: int, max_count: int) -> None:
    sizes = np.random.default_rng(0).integers(1, 9, count)
    counts = np.diff(cut(sizes, 10**9, max_count))
    assert len(counts) == -(-count // max_count)
    assert counts.max() <= max_count


def test_equal_samples_are_dealt_evenly_with_no_runt() -> None:
    made = plan([1000] * 1001, max_bytes=100_000)
    assert len(made) == 11
    assert set(made.shard_bytes.tolist()) == {91_000}
    assert np.diff(cut([10] * 100, 10**6, 30)).tolist() == [25, 25, 25, 25]


def test_a_sample_over_the_limit_gets_a_shard_of_its_own_and_the_rest_stays_even() -> None:
    sizes = [10] * 50 + [999] + [10] * 20 + [1000, 1001] + [10] * 30
    assert cut(sizes, 200) == [0, 17, 33, 50, 51, 71, 72, 73, 88, 103]
    assert cut([999], 200) == [0, 1]
    assert cut([999] * 3, 200) == [0, 1, 2, 3]


def test_the_overhead_counts_against_the_limit() -> None:
    assert len(plan([100] * 10, max_bytes=1000)) == 1
    assert len(plan([100] * 10, max_bytes=1000, overhead=1)) == 2
    assert plan([100] * 10, max_bytes=1000, overhead=1).shard_bytes.tolist() == [501, 501]


@pytest.mark.parametrize(
    ("total", "shards"), [(1024, 1), (8 * MIB, 1), (16 * MIB - 1024, 1), (16 * MIB, 2), (63 * MIB, 7), (900 * MIB, 8)]
)
def test_a_dataset_of_some_size_has_several_shards(total: int, shards: int) -> None:
    assert len(plan([1024] * (total // 1024), max_bytes=10**12)) == shards


def test_there_are_no_more_shards_than_samples() -> None:
    assert len(plan([100 * MIB] * 3, max_bytes=10**12)) == 3


def test_no_samples_are_no_shards() -> None:
    made = plan([])
    assert (len(made), made.names, made.bounds.tolist()) == (0, [], [0])


def test_sizes_beyond_32_bits_are_summed_exactly() -> None:
    sizes = np.full(4000, 2**50 + 1, dtype=np.int64)
    made = plan(sizes, max_bytes=2**54)
    assert made.shard_bytes.sum() == 4000 * (2**50 + 1)
    assert made.shard_bytes.max() <= 2**54
    assert len(made) == 267


def test_the_order_of_a_seed_is_pinned() -> None:
    made = plan([1] * 12, max_count=5)
    assert made.order.dtype == np.int32
    assert made.order.tolist() == PINNED
    assert made.bounds.tolist() == [0, 4, 8, 12]
    assert plan([1] * 12, seed=1).order.tolist() != PINNED
    assert plan([1] * 12, shuffle=False).order.tolist() == list(range(12))


PINNED = [5, 2, 3, 9, 1, 6, 10, 8, 4, 7, 0, 11]


def test_names_have_six_digits_or_as_many_as_the_last_one_needs() -> None:
    assert plan([1] * 3, max_count=1).names == ["train-000000.tar", "train-000001.tar", "train-000002.tar"]
    empty = np.zeros(0, dtype=np.int64)
    for shards, first in ((1_000_000, "t-000000.tar"), (1_000_001, "t-0000000.tar")):
        made = Plan(empty, empty, np.zeros(shards, dtype=np.int64), ShardNames("t", ".tar"))
        assert made.name(0) == first
        assert len({len(made.name(0)), len(made.name(shards - 1))}) == 1


def test_a_shard_carries_its_place_name_rows_and_bytes() -> None:
    made = plan([5, 6, 7], max_count=2, shuffle=False, overhead=1)
    shard = made.shard(1)
    assert (shard.number, shard.name, shard.rows.tolist(), shard.bytes) == (1, "train-000001.tar", [2], 8)


@pytest.mark.parametrize("number", [-1, 1])
def test_a_shard_beyond_the_plan_is_an_index_error(number: int) -> None:
    with pytest.raises(IndexError, match=f"shard {number} of 1"):
        plan([1]).shard(number)


@pytest.mark.parametrize(("max_bytes", "max_count"), [(1024, None), (0, None), (2000, 0), (2000, -1)])
def test_limits_that_hold_no_sample_are_refused(max_bytes: int, max_count: int | None) -> None:
    with pytest.raises(UsageError, match="max_"):
        plan([1], max_bytes=max_bytes, overhead=1024, max_count=max_count)


def test_ten_million_samples_are_cut_into_a_hundred_thousand_runs() -> None:
    sizes = np.random.default_rng(0).integers(1, 200, 10_000_000)
    bounds = np.array(cut(sizes, 10_000))
    ends = np.concatenate(([0], np.cumsum(sizes)))
    loads = np.diff(ends[bounds])
    assert loads.max() <= 10_000
    assert loads.max() - loads.min() <= 400
    assert 100_000 <= len(loads) <= -(-int(ends[-1]) // (10_000 - 199))


@pytest.mark.parametrize("form", ["tar", "tfrecord"])
@pytest.mark.parametrize("odd", [b"", b"\x80", b"\xff", b"\\", "é".encode(), b"\x80\xff\\"])
def test_the_planned_bytes_of_a_sample_are_those_that_it_takes_whatever_the_length_of_its_name(
    form: Any, odd: bytes, tmp_path: Path, draw_image: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch, "PIECE", 50)
    image = draw_image(1)
    folder = os.fsencode(tmp_path / "tree" / "c")
    os.makedirs(folder)
    for size in range(40, 106):
        for count in (1, 4, 16):
            name = (b"%03d" % size + odd * count).ljust(size - len(b"c/-16.jpg"), b"x") + b"-%02d.jpg" % count
            with open(os.path.join(folder, name), "wb") as file:
                file.write(image)
    shardkit.pack(tmp_path / "tree", tmp_path / "x", format=form, workers=1)
    written = pq.read_table(tmp_path / "x.parquet", columns=["path", "size"]).to_pydict()
    source = scan_tree(tmp_path / "tree")
    planned = sample_bytes(source, None, FORMATS[form]).tolist()
    expected = dict(zip(map(text_of_path, source.paths), planned, strict=True))
    assert expected == dict(zip(written["path"], written["size"], strict=True))
    assert len(set(planned)) > 1


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 1024])
def test_an_image_takes_whole_blocks_of_a_tar_shard(size: int, tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "a.jpg").write_bytes(bytes(size))
    [found] = FORMATS["tar"].sample_bytes(scan_tree(tmp_path)).tolist()
    assert found == encode_sample("cat/a", [("jpg", bytes(size)), ("cls", b"0")])[2]
