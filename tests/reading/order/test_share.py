from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import shardkit
from shardkit.reading.order.epoch_order import EpochOrder
from shardkit.reading.order.share import Remainder, Share, lost_by

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


def test_a_world_that_does_not_divide_the_lanes_is_told_what_is_lost_and_what_works() -> None:
    assert lost_by(4, 16) is None
    assert "3 times its part" in str(lost_by(3, 16)) and "lanes=18" in str(lost_by(3, 16))
    assert "lanes=32" in str(lost_by(32, 16))


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
def test_each_world_that_divides_the_lanes_has_the_same_global_batches(by_shards: dict[int, str], shards: int) -> None:
    found = []
    for world in (1, 2, 3, 4, 8):
        for workers in (0, 3):
            size = 24 // world
            ranks = [
                run_all(
                    shardkit.dataset(by_shards[shards], shuffle=40, lanes=24, rank=rank, world_size=world).batch(
                        size, drop_last=True
                    ),
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
    ranks = [run_all(shardkit.dataset(cars, shuffle=30, rank=r, world_size=5, remainder="uneven"), 0) for r in range(5)]
    merged = [ranks[place % 5][place // 5]["__key__"] for place in range(97)]
    assert merged == [sample["__key__"] for sample in run_all(shardkit.dataset(cars, shuffle=30), 0)]


def test_what_is_lost_by_a_world_that_does_not_fit_is_logged_once(cars: str, caplog: pytest.LogCaptureFixture) -> None:
    for rank in (0, 1):
        len(shardkit.dataset(cars, shuffle=30, lanes=10, rank=rank, world_size=7))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "lanes=14" in caplog.text


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


@pytest.mark.parametrize(
    ("world", "lanes", "fold", "better"), [(3, 16, 3, 18), (32, 16, 2, 32), (6, 4, 3, 6), (7, 14, 1, 0), (5, 11, 5, 15)]
)
def test_what_a_world_loses_is_its_size_without_what_it_shares_with_the_lanes(
    world: int, lanes: int, fold: int, better: int
) -> None:
    said = lost_by(world, lanes)
    if fold == 1:
        assert said is None
    else:
        assert f" {fold} times its part " in str(said) and f"; lanes={better} " in str(said)
