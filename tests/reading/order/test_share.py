from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import shardkit
from shardkit.reading.order.epoch_order import EpochOrder
from shardkit.reading.order.layout import Layout, reads_through
from shardkit.reading.order.share import Remainder, Share

REMAINDERS = get_args(Remainder)
SAMPLES = 190
BATCH = 6


def straight(samples: int) -> EpochOrder:
    return EpochOrder(np.array([samples]), 0, 0, 0, 1)


def taken(share: Share, samples: int) -> tuple[list[int], list[bool]]:
    rows, marks = share.rows(straight(samples), np.arange(len(share)))
    return rows.tolist(), [False] * len(rows) if marks is None else marks.tolist()


@given(st.integers(0, 60), st.integers(1, 12), st.integers(0, 70))
def test_drop_gives_all_ranks_the_same_number_and_leaves_out_fewer_than_ranks(n: int, world: int, done: int) -> None:
    shares = [taken(Share(0, n, rank, world, "drop", done), n)[0] for rank in range(world)]
    together = [row for rows in shares for row in rows]
    left = max(0, n - done)
    assert {len(rows) for rows in shares} == {left // world}
    assert sorted(together) == list(range(done, done + left - left % world))


@given(st.integers(1, 60), st.integers(1, 12), st.integers(0, 70))
def test_pad_gives_all_ranks_the_same_number_and_marks_what_is_repeated(n: int, world: int, done: int) -> None:
    shares = [taken(Share(0, n, rank, world, "pad", done), n) for rank in range(world)]
    assert len({len(rows) for rows, _ in shares}) == 1
    firsts = [row for rows, marks in shares for row, mark in zip(rows, marks, strict=True) if not mark]
    repeats = [row for rows, marks in shares for row, mark in zip(rows, marks, strict=True) if mark]
    assert sorted(firsts) == list(range(min(done, n), n))
    assert len(repeats) == -max(0, n - done) % world
    assert set(repeats) <= set(range(n))


@given(st.integers(0, 60), st.integers(1, 12), st.integers(0, 70))
def test_uneven_gives_every_sample_and_at_most_one_more_to_some_ranks(n: int, world: int, done: int) -> None:
    shares = [taken(Share(0, n, rank, world, "uneven", done), n)[0] for rank in range(world)]
    assert sorted(row for rows in shares for row in rows) == list(range(min(done, n), n))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def run_all(dataset: shardkit.Dataset, workers: int) -> list[Any]:
    """An epoch as a DataLoader with so many workers gives it: a batch of each worker in turn."""
    if workers == 0:
        return [item for _, item in dataset.run(0)]
    streams = [dataset.run(0, worker=worker, workers=workers) for worker in range(workers)]
    made: list[Any] = []
    while streams:
        for stream in list(streams):
            item = next(stream, None)
            if item is None:
                streams.remove(stream)
            else:
                made.append(item[1])
    return made


@pytest.mark.parametrize("remainder", REMAINDERS)
@pytest.mark.parametrize("shards", [1, 2, 3, 7, 64])
def test_every_sample_comes_once_and_all_ranks_work_equally(
    by_shards: dict[int, str], shards: int, remainder: Remainder
) -> None:
    counts = shardkit.info(by_shards[shards])
    assert counts.samples == SAMPLES
    whole = {item["__key__"] for item in shardkit.dataset(by_shards[shards])}
    for world in (1, 2, 3, 4, 8):
        for workers in (0, 1, 2, 3):
            ranks = [
                run_all(
                    shardkit.dataset(
                        by_shards[shards], shuffle=40, lanes=24, rank=rank, world_size=world, remainder=remainder
                    ).batch(BATCH),
                    workers,
                )
                for rank in range(world)
            ]
            keys = [key for batches in ranks for batch in batches for key in batch["__key__"]]
            repeats = sum(
                int(batch["__repeat__"].sum()) for batches in ranks for batch in batches if "__repeat__" in batch
            )
            over = SAMPLES % world
            assert set(keys) <= whole
            assert len(set(keys)) == (SAMPLES - over if remainder == "drop" else SAMPLES)
            assert len(keys) - len(set(keys)) == repeats == (-SAMPLES % world if remainder == "pad" else 0)
            if remainder != "uneven":
                assert len({tuple(len(batch["__key__"]) for batch in batches) for batches in ranks}) == 1


@pytest.mark.parametrize("shards", [1, 7, 64])
@pytest.mark.parametrize("layout", [1, 2, 5])
def test_each_world_has_the_same_global_batches_with_one_layout(
    by_shards: dict[int, str], shards: int, layout: int
) -> None:
    found = []
    for world in (1, 2, 3, 4, 8):
        for workers in (0, 3):
            size = 24 // world
            ranks = [
                run_all(
                    shardkit.dataset(
                        by_shards[shards], shuffle=40, lanes=24, layout=layout, rank=rank, world_size=world
                    ).batch(size, drop_last=True),
                    workers,
                )
                for rank in range(world)
            ]
            found.append([{key for batch in step for key in batch["__key__"]} for step in zip(*ranks, strict=True)])
    assert len(found[0]) == SAMPLES // 24
    assert all(len(batch) == 24 for batch in found[0])
    assert all(batches == found[0] for batches in found[1:])


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_order_does_not_depend_on_workers(cars: str, workers: int) -> None:
    for options in ({}, {"shuffle": 30}):
        plain = shardkit.dataset(cars, **options).batch(7)
        for dataset in (plain, plain.skip(2), plain.take(5), plain.skip(1).take(3), shardkit.dataset(cars, **options)):
            expected = [item["__key__"] for item in run_all(dataset, 0)]
            assert [item["__key__"] for item in run_all(dataset, workers)] == expected


def test_a_world_that_does_not_divide_the_lanes_still_has_the_same_epoch(cars: str) -> None:
    ranks = [
        run_all(shardkit.dataset(cars, shuffle=30, layout=1, rank=r, world_size=5, remainder="uneven"), 0)
        for r in range(5)
    ]
    merged = [ranks[place % 5][place // 5]["__key__"] for place in range(97)]
    assert merged == [sample["__key__"] for sample in run_all(shardkit.dataset(cars, shuffle=30), 0)]


def test_what_is_lost_by_a_world_that_does_not_fit_is_logged_once(cars: str, caplog: pytest.LogCaptureFixture) -> None:
    for rank in (0, 1):
        len(shardkit.dataset(cars, shuffle=30, lanes=10, layout=1, rank=rank, world_size=7))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "reads through 7 times its part" in caplog.text and "layout=7" in caplog.text


def test_a_buffer_smaller_than_a_batch_is_logged(cars: str, caplog: pytest.LogCaptureFixture) -> None:
    len(shardkit.dataset(cars, shuffle=5, rank=0, world_size=2).batch(5))
    assert not caplog.records
    len(shardkit.dataset(cars, shuffle=5, rank=0, world_size=2).batch(6))
    assert "holds 5 samples, fewer than its batches of 6" in caplog.text


def test_fewer_samples_than_ranks_are_padded_for_all_of_them(cars: str) -> None:
    few = shardkit.dataset(cars)[:2]
    keys = [sample["__key__"] for sample in few]
    for rank in range(8):
        view = shardkit.dataset(cars, rank=rank, world_size=8)[:2]
        assert len(view) == 1
        (sample,) = view
        assert sample["__key__"] == keys[rank % 2]
        assert sample.get("__repeat__", False) is (rank >= 2)


@pytest.mark.parametrize("remainder", REMAINDERS)
@pytest.mark.parametrize("world", [1, 3, 4, 16])
@pytest.mark.parametrize(("low", "high", "done"), [(5, 16, 0), (5, 16, 3), (2, 4, 0), (1, 7, 5), (3, 6, 3), (3, 6, 4)])
def test_the_places_of_a_part_are_dealt_in_turn_from_the_first_that_is_left(
    remainder: Remainder, world: int, low: int, high: int, done: int
) -> None:
    left = list(range(low + done, high))
    over = len(left) % world
    if remainder == "drop":
        left = left[: len(left) - over]
    firsts = len(left)
    if remainder == "pad" and over:
        left += [low + number % (high - low) for number in range(world - over)]
    for rank in range(world):
        share = Share(low, high, rank, world, remainder, done)
        assert len(share) == len(left[rank::world])
        assert taken(share, high + 1) == (left[rank::world], [at >= firsts for at in range(len(left))[rank::world]])


@given(
    st.integers(0, 60), st.integers(0, 20), st.integers(1, 9), st.integers(1, 5), st.integers(1, 5), st.integers(1, 4),
    st.sampled_from(REMAINDERS),
)  # fmt: skip
def test_each_step_is_dealt_once_whatever_the_layout(
    n: int, done: int, world: int, unit: int, sections: int, lanes: int, remainder: Remainder
) -> None:
    layout = Layout(lanes, sections)
    shares = [Share(3, 3 + n, rank, world, remainder, done, unit, layout) for rank in range(world)]
    places = [share.places(np.arange(len(share))) for share in shares]
    left, first = max(0, n - done), 3 + done
    for step in range(left // (world * unit)):
        together = np.concatenate([own[step * unit : (step + 1) * unit] for own in places])
        assert np.sort(together).tolist() == list(range(first, first + world * unit)), "a step is a run of places"
        first += world * unit
    dealt = {"drop": left // world * world, "pad": -(-left // world) * world, "uneven": left}[remainder]
    assert np.sort(np.concatenate(places)).tolist() == list(range(3 + done, 3 + done + dealt))
    for share, own in zip(shares, places, strict=True):
        assert [share.places(np.array([number]))[0] for number in range(len(own))] == own.tolist()


@pytest.mark.parametrize("unit", [1, 6])
@pytest.mark.parametrize("world", [2, 5])
def test_with_a_section_for_each_rank_a_rank_reads_its_own_only(world: int, unit: int) -> None:
    share = Share(0, world * unit * 4, 1, world, "drop", 0, unit, Layout(3, world))
    assert set(share.places(np.arange(len(share))) % world) == {1}


@given(st.integers(1, 200), st.integers(1, 40), st.integers(1, 40))
def test_the_rank_that_reads_most_lanes_is_known_without_a_look_at_each_rank(
    world: int, lanes: int, sections: int
) -> None:
    every, layout = lanes * sections, Layout(lanes, sections)
    touched = [-(-(rank + 1) * every // world) - rank * every // world for rank in range(world)]
    assert reads_through(world, layout, in_runs=True) == max(touched) * world / every
    assert reads_through(10**12, layout, in_runs=True) >= 10**12 / every, "no memory for each rank"


def test_ranks_read_neighbouring_samples_without_shuffling(cars: str) -> None:
    ranks = [run_all(shardkit.dataset(cars, rank=rank, world_size=2).batch(10), 0) for rank in (0, 1)]
    whole = [sample["__key__"] for sample in shardkit.dataset(cars)]
    assert [key for step in zip(*ranks, strict=True) for batch in step for key in batch["__key__"]][:97] == whole
