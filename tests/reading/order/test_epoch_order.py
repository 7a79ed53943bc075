from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardkit.reading.order import epoch_order as order_module
from shardkit.reading.order.epoch_order import CHUNK, FRACTION, EpochOrder, default_lanes, sorted_by_key
from shardkit.rng import permutation, stream_key, uniform


def order(counts: Any, buffer: int, seed: int = 0, epoch: int = 0, lanes: int = 1) -> EpochOrder:
    return EpochOrder(np.asarray(counts, np.int64), buffer, seed, epoch, lanes)


def all_rows(order: EpochOrder) -> list[int]:
    rows: list[int] = order.rows_at(np.arange(order.samples)).tolist()
    return rows


counts = st.lists(st.integers(0, 40), min_size=1, max_size=12)
buffers = st.integers(0, 200)
lane_counts = st.integers(1, 20)


def test_the_order_is_pinned() -> None:
    assert all_rows(order([3, 5, 4, 6], 4, seed=7, epoch=2, lanes=2)) == PINNED_SMALL
    rows = np.array(all_rows(order([1000] * 20, 500, seed=1, epoch=3, lanes=16)))
    assert rows[:12].tolist() == PINNED_BEGIN
    assert int((rows * np.arange(20_000)).sum()) == PINNED_SUM


sections = st.integers(1, 12)


@given(counts, buffers, st.integers(1, 5), sections, st.data())
def test_with_sections_each_row_comes_once_and_is_found_alone(
    counts: list[int], buffer: int, lanes: int, sections: int, data: st.DataObject
) -> None:
    node = data.draw(st.integers(0, sections))
    made = EpochOrder(np.asarray(counts, np.int64), buffer, 3, 1, lanes, sections, node)
    rows = np.array(all_rows(made), np.int64)
    assert np.sort(rows).tolist() == list(range(sum(counts)))
    places = np.array(sorted(data.draw(st.sets(st.integers(0, 480)))), np.int64)
    again = EpochOrder(np.asarray(counts, np.int64), buffer, 3, 1, lanes, sections, node)
    assert again.rows_at(places[places < len(rows)]).tolist() == rows[places[places < len(rows)]].tolist()
    own = np.arange(data.draw(st.integers(0, sections - 1)), len(rows), sections)
    assert again.rows_at(own).tolist() == rows[own].tolist()


def test_the_order_of_sections_is_pinned() -> None:
    made = EpochOrder(np.array([3, 5, 4, 6]), 4, 7, 2, 2, 3)
    assert all_rows(made) == PINNED_SECTIONS
    assert all_rows(EpochOrder(np.array([3, 5, 4, 6]), 4, 7, 2, 2, 4, 2)) == PINNED_NODES


def test_a_node_keeps_its_rows_in_all_epochs_and_reads_few_shards() -> None:
    counts, found = np.full(40, 50), []
    for epoch in range(3):
        rows = np.array(all_rows(EpochOrder(counts, 100, 5, epoch, 4, 10, 2)))
        found.append([set(rows[np.arange(len(rows)) % 10 // 2 == node].tolist()) for node in range(5)])
        assert all(len({row // 50 for row in own}) <= 9 for own in found[-1]), "8 shards, one more at the boundaries"
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("node", [0, 8])
def test_samples_from_two_lanes_of_a_section_seldom_share_a_section_again(node: int) -> None:
    counts, lanes, sections = np.full(10, 1024), 16, 16
    first, second = (EpochOrder(counts, 10_000, 0, epoch, lanes, sections, node) for epoch in range(2))
    section_of = np.empty(first.samples, np.int64)
    section_of[all_rows(second)] = np.arange(first.samples) % sections
    rows = np.array(all_rows(first)).reshape(-1, lanes, sections)  # one of each lane and section
    pairs = section_of[rows[:, :-1]] == section_of[rows[:, 1:]]
    chance = 1 / (node or sections)
    assert chance / 2 < pairs.mean() < 2 * chance


def test_a_section_reads_its_part_of_the_line_only() -> None:
    counts, lanes = np.full(100, 100), 4
    for sections in (5, 16):
        rows = np.array(all_rows(EpochOrder(counts, 200, 0, 1, lanes, sections)))
        for section in range(sections):
            own = np.sort(rows[section::sections])
            runs = 1 + int((np.diff(own) > 1).sum())
            assert runs <= 2 * lanes + len(counts) * len(own) // len(rows) + 1


PINNED_SECTIONS = [3, 6, 9, 13, 17, 2, 4, 7, 10, 15, 16, 1, 5, 12, 11, 14, 0, 8]
PINNED_NODES = [10, 1, 6, 3, 13, 9, 15, 16, 11, 2, 5, 4, 14, 8, 7, 17, 0, 12]
PINNED_SMALL = [3, 16, 4, 0, 5, 1, 6, 17, 12, 2, 7, 8, 13, 10, 15, 9, 14, 11]
PINNED_BEGIN = [17008, 15252, 10505, 9754, 5013, 12252, 13501, 4754, 19009, 16256, 8506, 11753]
PINNED_SUM = 1_929_518_910_872


@given(counts, buffers, lane_counts, st.integers(0, 5), st.integers(0, 3))
def test_each_row_comes_once_whatever_the_shards_the_buffer_and_the_lanes(
    counts: list[int], buffer: int, lanes: int, seed: int, epoch: int
) -> None:
    assert sorted(all_rows(order(counts, buffer, seed, epoch, lanes))) == list(range(sum(counts)))


@given(counts, buffers, lane_counts, st.data())
def test_a_place_found_alone_has_the_row_that_it_has_in_sequence(
    counts: list[int], buffer: int, lanes: int, data: st.DataObject
) -> None:
    total = sum(counts)
    rows = all_rows(order(counts, buffer, 3, 1, lanes))
    low = data.draw(st.integers(0, total))
    step = data.draw(st.integers(1, 9))
    places = np.arange(low, total, step)
    assert order(counts, buffer, 3, 1, lanes).rows_at(places).tolist() == rows[low::step]


def by_definition(found: EpochOrder, lane: int) -> list[int]:
    """The rows of a lane in the order of the keys i + 2 b u(i), cut as the module says, all sorted at once."""
    start, length = found.lane_range(lane)
    i = np.arange(length)
    u = uniform(stream_key("lane", found.seed, found.epoch, lane), i)
    keys = (i << FRACTION) + np.floor(u * (2 * found.lane_buffer() << FRACTION)).astype(np.int64)
    rows: list[int] = found.rows_of_line(start + np.argsort(keys, kind="stable")).tolist()
    return rows


@pytest.mark.parametrize(
    ("chunks", "buffer", "lanes"),
    [(3, CHUNK // 3, 1), (3, CHUNK // 4 + 1, 1), (9, CHUNK, 1), (5, CHUNK, 2), (1, 9, 1), (2, CHUNK // 2, 1)],
)
@pytest.mark.parametrize("beyond", [-1, 0, 1])
def test_lanes_of_several_chunks_leave_in_the_order_of_all_their_keys(
    chunks: int, buffer: int, lanes: int, beyond: int
) -> None:
    total = chunks * CHUNK + beyond
    counts = [total // 3, 0, total - total // 3]
    found = order(counts, buffer, 5, 2, lanes)
    rows = all_rows(found)
    assert sorted(rows) == list(range(total))
    for lane in range(lanes):
        assert rows[lane::lanes] == by_definition(found, lane)


@pytest.mark.parametrize("by", [1, 2, 3])
def test_places_around_the_end_of_a_chunk_are_those_of_the_whole_order(by: int) -> None:
    buffer, lanes = CHUNK // 3, 2
    args = ([9 * CHUNK], buffer, 1, 1, lanes)
    rows = np.array(all_rows(order(*args)))
    size = order(*args).chunk_size(9 * CHUNK // lanes)
    for first in range(lanes * size - 4, lanes * size + 4):
        for stop in range(first + 1, lanes * size + 9):
            places = np.arange(first, stop, by)
            fresh = order(*args)
            assert fresh.rows_at(places).tolist() == rows[places].tolist()
            assert fresh.rows_at(places[::-1][:2][::-1]).tolist() == rows[places[-2:]].tolist()
    uneven = np.array([0, 1, 5, 2 * size - 1, 2 * size, 2 * size + 3, 4 * size, 9 * CHUNK - 1])
    assert order(*args).rows_at(uneven).tolist() == rows[uneven].tolist()


def test_a_chunk_is_as_large_as_four_buffers_of_its_lane_or_the_lane() -> None:
    for buffer, lanes, length, size in (
        (CHUNK // 4, 1, 10 * CHUNK, CHUNK),
        (CHUNK // 4 + 1, 1, 10 * CHUNK, CHUNK + 4),
        (CHUNK, 1, CHUNK + 1, 4 * CHUNK),
        (CHUNK, 1, CHUNK, CHUNK),
        (2 * CHUNK + 1, 2, 10 * CHUNK, 4 * (CHUNK + 1)),
    ):
        assert order([lanes * length], buffer, lanes=lanes).chunk_size(length) == size


def test_a_lane_that_its_buffer_holds_is_a_permutation_and_one_sample_more_is_not() -> None:
    for length, whole in ((50, True), (51, False)):
        found = order([2 * length], 99, seed=2, epoch=1, lanes=2)
        for lane in range(2):
            start, _ = found.lane_range(lane)
            full = found.rows_of_line(start + permutation(length, stream_key("lane", 2, 1, lane))).tolist()
            assert (all_rows(found)[lane::2] == full) == whole
            assert whole or all_rows(found)[lane::2] == by_definition(found, lane)


@pytest.mark.parametrize(("low", "high", "buffer"), [(0, 5_000, 700), (300, 9_000, 1), (7, 8, 50), (0, 3_000, 3_000)])
def test_keys_are_sorted_alike_in_one_word_and_by_argsort(
    low: int, high: int, buffer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = sorted_by_key(3, low, high, buffer).tolist()
    monkeypatch.setattr(order_module, "PACKED_WINDOW", 0)
    assert sorted_by_key(3, low, high, buffer).tolist() == packed


def test_a_window_too_large_for_one_word_is_sorted_by_argsort() -> None:
    """Its keys would not fit 24 bits before the point."""
    buffer = order_module.PACKED_WINDOW * 4
    found = sorted_by_key(3, 0, 2_000, buffer)
    u = uniform(3, np.arange(2_000))
    assert found.tolist() == np.argsort(np.arange(2_000) + 2 * buffer * u, kind="stable").tolist()


def test_a_place_far_inside_is_found_from_its_neighbourhood() -> None:
    counts, total = [7_000] * 12, 84_000
    rows = all_rows(order(counts, 3_000, 5, 4, 4))
    fresh = order(counts, 3_000, 5, 4, 4)
    for place in np.random.default_rng(0).integers(0, total, 30).tolist():
        assert fresh.rows_at(np.array([place]))[0] == rows[place]
    assert all(size <= max(CHUNK, 4 * 750) for size in map(len, (part for _, part in fresh._chunks.values())))


def test_epochs_and_seeds_give_other_orders_and_the_same_ones_again() -> None:
    found = {(seed, epoch): tuple(all_rows(order([50] * 4, 40, seed, epoch, 4))) for seed in (0, 1) for epoch in (0, 1)}
    assert len(set(found.values())) == 4
    assert found[1, 1] == tuple(all_rows(order([50] * 4, 40, 1, 1, 4)))


def test_without_a_buffer_the_order_is_that_of_the_shards() -> None:
    assert all_rows(order([3, 0, 5, 1], 0, seed=9, epoch=9)) == list(range(9))


def test_lanes_without_a_buffer_are_read_side_by_side() -> None:
    assert all_rows(order([7], 0, lanes=3)) == [0, 3, 5, 1, 4, 6, 2]


def test_a_buffer_as_large_as_a_lane_shuffles_it_through_and_through() -> None:
    whole = order([40, 40], 79, seed=2, lanes=2)
    rows = np.array(all_rows(whole))
    for lane in (0, 1):
        start, length = whole.lane_range(lane)
        assert sorted(rows[lane::2]) == sorted(whole.rows_of_line(np.arange(start, start + length)).tolist())
    # Over many seeds each of a lane's samples is equally often at each place.
    places = np.zeros((12, 12))
    for seed in range(1_000):
        places[np.arange(12), all_rows(order([12], 12, seed))] += 1
    chi_square = ((places - 1_000 / 12) ** 2 / (1_000 / 12)).sum()
    assert 121 - 4 * np.sqrt(242) < chi_square < 121 + 4 * np.sqrt(242)  # 121 degrees of freedom, 4 deviations


def test_a_buffer_that_holds_the_dataset_is_a_full_permutation_whatever_the_lanes() -> None:
    for lanes in (1, 16):
        whole = permutation(12, stream_key("whole", 3, 1)).tolist()
        assert all_rows(order([5, 7], 12, seed=3, epoch=1, lanes=lanes)) == whole
        assert all_rows(order([5, 7], 11, seed=3, epoch=1, lanes=lanes)) != whole
    places = np.zeros((12, 12))
    for seed in range(1_000):
        places[np.arange(12), all_rows(order([5, 7], 10_000, seed, lanes=16))] += 1
    chi_square = ((places - 1_000 / 12) ** 2 / (1_000 / 12)).sum()
    assert 121 - 4 * np.sqrt(242) < chi_square < 121 + 4 * np.sqrt(242)


def test_a_sample_moves_by_at_most_two_buffers() -> None:
    for lanes, buffer in ((1, 500), (4, 500), (16, 1_600)):
        found = order([30_000], buffer, seed=1, lanes=lanes)
        b = found.lane_buffer()
        rows = np.array(all_rows(found))
        for lane in range(lanes):
            start, length = found.lane_range(lane)
            moved = np.abs(rows[lane::lanes] - start - np.arange(length))
            assert moved.max() <= 2 * b
            assert 0.42 * b < moved.mean() < 0.55 * b  # about |2 b u - b|, whose mean is b / 2


def test_at_most_two_buffers_wait_and_about_one_does() -> None:
    buffer, length = 400, 20_000
    rows = np.array(all_rows(order([length], buffer, seed=3)))
    # Reading the line in sequence, what has been read and did not leave yet waits.
    read = np.maximum.accumulate(rows) + 1
    waiting = read - np.arange(1, length + 1)
    assert waiting.max() <= 2 * buffer
    assert buffer * 0.8 < np.median(waiting) < buffer * 2


def test_the_shuffle_mixes_neighbours_as_a_full_permutation_does_within_the_buffer() -> None:
    """Labels that lie in runs of 250 come out of a buffer of 5,000 in runs as short as a full permutation's."""
    labels = np.arange(50_000) // 250 % 2
    shuffled = labels[np.array(all_rows(order([50_000], 5_000, seed=4)))]
    full = labels[permutation(50_000, 4)]
    runs, runs_of_full = (int((np.diff(values) != 0).sum()) for values in (shuffled, full))
    assert abs(runs - runs_of_full) < 4 * np.sqrt(50_000 / 4)


def test_with_shards_permuted_a_sample_is_equally_often_in_each_quarter_of_the_epoch() -> None:
    quarters = np.zeros((8, 4))
    for seed in range(400):
        rows = all_rows(order([25] * 8, 50, seed, lanes=2))
        for place, row in enumerate(rows):
            quarters[row // 25, place // 50] += 1
    expected = 400 * 25 / 4
    # Samples of a shard move together, so that the counts vary as those of 400 draws of 25 samples at once.
    assert np.abs(quarters - expected).max() < 4.5 * 25 * np.sqrt(400 * 3 / 16)
    assert (quarters.sum(axis=1) == 400 * 25).all()


@given(counts, buffers, st.integers(1, 8))
def test_lanes_are_equal_parts_of_the_line(counts: list[int], buffer: int, lanes: int) -> None:
    ranges = [order(counts, buffer, lanes=lanes).lane_range(lane) for lane in range(max(1, min(lanes, sum(counts))))]
    assert ranges[0][0] == 0
    assert all(start + length == after for (start, length), (after, _) in pairwise(ranges))
    assert sum(length for _, length in ranges) == sum(counts)
    assert max(length for _, length in ranges) - min(length for _, length in ranges) <= 1


def test_a_lane_reads_its_part_of_the_line_alone() -> None:
    found = order([30] * 10, 30, seed=6, lanes=5)
    rows = np.array(all_rows(found))
    for lane in range(5):
        start, length = found.lane_range(lane)
        assert set(rows[lane::5]) == set(found.rows_of_line(np.arange(start, start + length)).tolist())


@pytest.mark.parametrize("lanes", [1, 3])
def test_the_line_of_some_rows_has_them_as_often_as_they_are_named(lanes: int) -> None:
    found = order([5, 5, 5], 4, seed=1, lanes=lanes)
    line = found.line(np.array([2, 2, 7, 14]))
    assert sorted(line.tolist()) == [2, 2, 7, 14]
    whole = found.line().tolist()
    assert [whole.index(row) for row in line] == sorted(whole.index(row) for row in line)


def test_no_more_of_a_lane_is_put_in_order_than_the_chunks_that_hold_the_places(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    windows: list[tuple[int, int]] = []

    def watched(key: int, low: int, high: int, buffer: int) -> Any:
        windows.append((low, high))
        return sorted_by_key(key, low, high, buffer)

    monkeypatch.setattr(order_module, "sorted_by_key", watched)
    buffer, total = CHUNK // 4, 3 * CHUNK + 10
    around = [(max(0, at - 2 * buffer), min(total, at + CHUNK + 2 * buffer)) for at in range(0, total, CHUNK)]
    for first, stop, step, chunks in (
        (0, CHUNK, 1, [0]),
        (1, CHUNK + 1, 2, [0]),
        (CHUNK - 1, CHUNK + 1, 1, [0, 1]),
        (CHUNK, 2 * CHUNK, 1, [1]),
        (CHUNK, 2 * CHUNK + 1, CHUNK, [1, 2]),
        (3 * CHUNK, total, 1, [3]),
    ):
        found = order([total], buffer, 5, 2)
        windows.clear()
        places = np.arange(first, stop, step)
        found.rows_at(places)
        assert windows == [around[chunk] for chunk in chunks]
        found.rows_at(places[-1:])  # the latest chunk is kept
        assert len(windows) == len(chunks)
    windows.clear()
    order([total], buffer, 5, 2).rows_at(np.array([0, 1, 2 * CHUNK - 1]))
    assert windows == around[:2]


def test_lanes_by_default() -> None:
    assert default_lanes(False) == 1
    assert default_lanes(True) == 16
