from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardkit.errors import UsageError
from shardkit.reading.order.derived import (
    MIX_BLOCK,
    SIZE_TOLERANCE,
    EndlessOrder,
    MixedOrder,
    apportion,
    line_counts,
    order_of_rows,
    quotas_of,
    split_places,
    stratify,
    weight_classes,
    weight_samples,
)
from shardkit.reading.order.epoch_order import EpochOrder
from shardkit.reading.order.layout import Layout
from shardkit.rng import stream_key, uniform


def by_row(rows: Any, labels: Any) -> Any:
    """The labels of some rows, as an array with one for every row."""
    whole = np.full(int(rows.max()) + 1, -1)
    whole[rows] = labels
    return whole


def weighed(line: Any, labels: Any, weights: dict[int, float], key: int) -> Any:
    return weight_classes(line.__getitem__, len(line), by_row(line, labels), weights, key)


def split(rows: Any, labels: Any, fractions: dict[str, float], seed: int) -> dict[str, Any]:
    found = split_places(rows, len(rows), None if labels is None else by_row(rows, labels), fractions, seed)
    return {name: rows[found == part] for part, name in enumerate(fractions)}


def epoch_order(samples: int, epoch: int = 0) -> EpochOrder:
    return EpochOrder(np.array([samples]), 7, 0, epoch, 1)


def mixed(epoch: int = 0, samples: int = 3_000) -> MixedOrder:
    parts = [lambda epoch, n=n: epoch_order(n, epoch) for n in (50, 400)]
    return MixedOrder(parts, [50, 400], [0, 50], [250, 750], 1, epoch, samples)


def test_an_endless_order_is_one_epoch_after_the_other() -> None:
    endless = EndlessOrder(lambda epoch: epoch_order(10, epoch), 10)
    expected = [epoch_order(10, epoch).rows_at(np.arange(10)) for epoch in range(4)]
    assert endless.rows_at(np.arange(40)).tolist() == np.concatenate(expected).tolist()
    assert endless.rows_at(np.array([9, 10, 35])).tolist() == [expected[0][9], expected[1][0], expected[3][5]]


def test_in_each_thousand_of_a_mix_the_shares_are_exact() -> None:
    rows = mixed().rows_at(np.arange(3_000))
    for block in range(3):
        chosen = rows[block * MIX_BLOCK : (block + 1) * MIX_BLOCK]
        assert (chosen < 50).sum() == 250


def test_a_mix_goes_through_each_dataset_before_it_begins_again() -> None:
    rows = mixed().rows_at(np.arange(3_000))
    first, second = rows[rows < 50], rows[rows >= 50] - 50
    for found, length in ((first, 50), (second, 400)):
        epochs = [epoch_order(length, epoch).rows_at(np.arange(length)) for epoch in range(-(-len(found) // length))]
        assert found.tolist() == np.concatenate(epochs)[: len(found)].tolist()
    assert (len(first), len(second)) == (750, 2_250)


def test_an_epoch_of_a_mix_goes_on_where_the_last_one_stopped() -> None:
    whole = mixed(0, 3_000).rows_at(np.arange(3_000)).tolist()
    halves = [mixed(epoch, 1_500).rows_at(np.arange(1_500)).tolist() for epoch in (0, 1)]
    assert halves[0] + halves[1] == whole


@given(st.integers(0, 2_990))
def test_a_place_of_a_mix_is_found_alone(place: int) -> None:
    assert mixed().rows_at(np.array([place]))[0] == mixed().rows_at(np.arange(3_000))[place]


@given(st.lists(st.floats(0.001, 100), min_size=1, max_size=8), st.integers(0, 1_000))
def test_what_is_dealt_out_adds_up_and_is_off_by_less_than_one(weights: list[float], total: int) -> None:
    counts = apportion(np.array(weights), total)
    assert counts.sum() == total
    assert (np.abs(counts - np.array(weights) / sum(weights) * total) < 1).all()


def test_weights_of_a_mix_become_thousandths() -> None:
    assert quotas_of([1, 3]) == [250, 750]
    assert quotas_of([1, 1, 1]) == [334, 333, 333]
    assert quotas_of([0, 2]) == [0, 1_000]


@pytest.mark.parametrize("weights", [[], [0, 0], [1, -1], [1, float("nan")], [float("inf"), 1]])
def test_weights_without_sense_are_refused(weights: list[float]) -> None:
    with pytest.raises(UsageError, match="are not valid weights"):
        quotas_of(weights)


def test_a_weight_too_small_to_come_up_is_refused() -> None:
    with pytest.raises(UsageError, match=r"too small to occur in 1,000 samples.*concat"):
        quotas_of([1_000_000, 100])


def test_weighted_classes_come_as_often_as_their_weights_say_and_evenly() -> None:
    labels = np.repeat([0, 1, 2], [900, 90, 10])
    line = np.random.default_rng(0).permutation(1_000)
    rows = weighed(line, labels[line], {0: 1.0, 1: 1.0, 2: 2.0}, key=5)
    assert np.bincount(labels[rows]).tolist() == [250, 250, 500]
    for begin in range(0, 1_000, 100):
        assert np.abs(np.bincount(labels[rows[begin : begin + 100]]) - [25, 25, 50]).max() <= 2


def test_a_class_with_few_samples_is_gone_through_evenly() -> None:
    labels = np.repeat([0, 1], [95, 5])
    rows = weighed(np.arange(100), labels, {0: 1.0, 1: 1.0}, key=1)
    assert sorted(Counter(rows[rows >= 95].tolist()).values()) == [10] * 5
    assert max(Counter(rows[rows < 95].tolist()).values()) == 1


@pytest.mark.parametrize("length", [1, 7, 60])
@pytest.mark.parametrize("key", [0, 9])
def test_each_class_goes_on_from_a_random_row_of_it_at_even_moments(length: int, key: int) -> None:
    labels, weights = np.array([2, 0, 1, 0, 2, 2, 4, -1, 0, 1] * 6)[:length], {0: 2.0, 1: 0.5, 2: 1.0, 3: 1.0, 4: 0.0}
    line = np.arange(length)[::-1] * 3
    chosen = [label for label in (0, 1, 2) if label in labels]
    counts = apportion(np.array([weights[label] for label in chosen]), length).tolist()
    begins = uniform(key, np.arange(len(chosen))).tolist()
    expected = []
    for label, count, begin in zip(chosen, counts, begins, strict=True):
        own = [row for row, other in zip(line.tolist(), labels.tolist(), strict=True) if other == label]
        first = int(begin * len(own))
        expected += [((step + begin) / count, label, own[(first + step) % len(own)]) for step in range(count)]
    found = weighed(line, labels, weights, key)
    assert found.tolist() == [row for _, _, row in sorted(expected)]
    assert len(found) == length


def test_a_class_is_weighted_whose_samples_are_the_only_ones_of_the_last_label() -> None:
    assert weighed(np.arange(3), np.array([0, 0, 5]), {0: 0.0, 5: 1.0}, 0).tolist() == [2, 2, 2]
    assert weighed(np.arange(3), np.array([1, 1, 0]), {1: 0.0, 0: 1.0}, 0).tolist() == [2, 2, 2]


def test_samples_without_a_label_are_in_no_class() -> None:
    labels = np.array([-1, 0, 1, -1, 1])
    assert set(weighed(np.arange(5), labels, {0: 1.0, 1: 1.0}, key=1).tolist()) <= {1, 2, 4}


def test_weights_for_classes_without_samples_are_refused() -> None:
    with pytest.raises(UsageError, match="no class with samples"):
        weighed(np.arange(3), np.zeros(3, np.int64), {1: 1.0}, key=0)


@given(st.lists(st.floats(0, 10), min_size=2, max_size=40).filter(lambda w: sum(w) > 0.01), st.integers(0, 99))
def test_weighted_samples_come_as_often_as_their_weights_say_rounded(weights: list[float], key: int) -> None:
    array = np.array(weights)
    rows = weight_samples(np.arange(len(array)).__getitem__, len(array), array, key)
    assert len(rows) == len(array)
    expected = array / array.sum() * len(array)
    assert (np.abs(np.bincount(rows, minlength=len(array)) - expected) < 1 + 1e-6).all()


@pytest.mark.parametrize("key", range(5))
def test_each_sample_comes_as_often_as_whole_numbers_lie_in_its_part_of_the_line(key: int) -> None:
    line, weights = np.array([4, 0, 3, 1]), np.array([0.25, 3.0, 9.9, 0.0, 0.75])
    chance, begin, expected = float(uniform(key, np.zeros(1, np.int64))[0]), 0.0, []
    for row in line.tolist():
        end = begin + weights[row]  # the four weigh as much as they are
        expected += [row] * (int(end + chance) - int(begin + chance))
        begin = end
    assert weight_samples(line.__getitem__, len(line), weights, key).tolist() == expected
    assert weight_samples(line.__getitem__, len(line), weights * 10, key).tolist() == expected
    assert len(expected) == 4


@pytest.mark.parametrize("stratify", [False, True])
def test_the_samples_of_each_class_are_dealt_to_the_parts_by_their_chances(stratify: bool) -> None:
    rows, labels = np.arange(3, 90, 2), np.arange(44) % 3
    chance = uniform(stream_key("split", 6), rows)
    expected: dict[str, list[int]] = {"a": [], "b": []}
    for label in range(3) if stratify else (None,):
        own = [at for at in range(44) if label is None or labels[at] == label]
        own.sort(key=lambda at: chance[at])
        first, second, _ = apportion(np.array([0.5, 0.3, 0.2]), len(own)).tolist()
        expected["a"] += own[:first]
        expected["b"] += own[first : first + second]
    parts = split(rows, labels if stratify else None, {"a": 0.5, "b": 0.3}, 6)
    assert {name: part.tolist() for name, part in parts.items()} == {
        name: rows[sorted(own)].tolist() for name, own in expected.items()
    }


@pytest.mark.parametrize(
    ("singles", "large", "over_all"),
    [(2, 0, False), (3, 0, False), (4, 0, True), (4, 396, False), (4, 394, True), (6, 394, True), (6, 594, False)],
)
def test_each_class_is_dealt_alone_while_no_part_is_off_by_more_than_one_or_the_tolerance(
    singles: int, large: int, over_all: bool
) -> None:
    sizes = np.array([1] * singles + [large] * (large > 0))
    half = int(sizes.sum()) // 2
    off = singles + large // 2 - -(-int(sizes.sum()) // 2)
    assert (off > max(1, half // SIZE_TOLERANCE)) is over_all
    counts, dealt_over_all = stratify(sizes, np.array([0.5, 0.5]), 1)
    assert dealt_over_all is over_all
    assert np.sum(counts, axis=0)[0] == half + (sizes.sum() % 2 if over_all else off + sizes.sum() % 2)


def test_a_class_that_is_dealt_over_all_has_no_more_and_no_fewer_than_its_samples() -> None:
    sizes = np.array([1, 2, 3] * 40)
    for weights in (np.array([0.5, 0.3, 0.2]), np.array([0.5, 0.5, 0.0])):
        counts, over_all = stratify(sizes, weights, 3)
        assert over_all
        assert np.sum(counts, axis=1).tolist() == sizes.tolist()
        assert np.sum(counts, axis=0).tolist() == (weights * 240).tolist()
        assert min(map(min, counts)) == 0


def test_a_split_is_disjoint_whole_and_the_same_for_a_seed() -> None:
    rows, labels = np.arange(1_000), np.repeat([0, 1, 2], [700, 250, 50])
    parts = split(rows, labels, {"train": 0.8, "validation": 0.2}, 4)
    assert sorted(np.concatenate(list(parts.values())).tolist()) == rows.tolist()
    assert np.bincount(labels[parts["validation"]]).tolist() == [140, 50, 10]
    again = split(rows, labels, {"train": 0.8, "validation": 0.2}, 4)
    assert all((parts[name] == again[name]).all() for name in parts)
    other = split(rows, labels, {"train": 0.8, "validation": 0.2}, 5)
    assert parts["validation"].tolist() != other["validation"].tolist()


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_split_of_many_small_classes_has_parts_of_their_sizes(size: int, seed: int) -> None:
    rows, labels = np.arange(200 * size), np.repeat(np.arange(200), size)
    parts = split(rows, labels, {"train": 0.7, "validation": 0.2, "test": 0.1}, seed)
    assert [len(part) for part in parts.values()] == [140 * size, 40 * size, 20 * size]
    assert sorted(np.concatenate(list(parts.values())).tolist()) == rows.tolist()
    for part, share in zip(parts.values(), (0.7, 0.2, 0.1), strict=True):
        in_class = np.bincount(labels[part], minlength=200)
        assert (np.abs(in_class - share * size) <= 1).all()
    low = (np.unique(labels[parts["validation"]]) < 100).mean()
    assert 0.2 < low < 0.8  # not the first classes, by chance


@given(st.lists(st.integers(1, 9), min_size=1, max_size=80), st.integers(0, 9))
def test_parts_of_a_split_are_off_by_one_or_by_the_tolerance_at_most(sizes: list[int], seed: int) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    parts = split(np.arange(len(labels)), labels, {"a": 0.8, "b": 0.15, "c": 0.05}, seed)
    for part, share in zip(parts.values(), (0.8, 0.15, 0.05), strict=True):
        exact = share * len(labels)
        assert abs(len(part) - exact) <= 1 + max(1, exact // SIZE_TOLERANCE)


def test_classes_of_many_samples_are_split_each_by_itself() -> None:
    sizes, weights = np.array([713, 205, 1_021]), np.array([0.8, 0.2])
    counts, over_all = stratify(sizes, weights, 0)
    assert [each.tolist() for each in counts] == [apportion(weights, size).tolist() for size in sizes.tolist()]
    assert not over_all
    assert stratify(np.full(50, 2), weights, 0)[1]


def test_fractions_below_one_leave_the_rest_out() -> None:
    parts = split(np.arange(100), None, {"a": 0.25, "b": 0.25}, 0)
    assert [len(part) for part in parts.values()] == [25, 25]


def test_a_fraction_may_be_all_of_it_and_what_is_rounded_up_beyond_it_is_no_error() -> None:
    assert split(np.arange(10), None, {"a": 1.0}, 0)["a"].tolist() == list(range(10))
    tenths = {str(number): 0.1 for number in range(10)}
    assert np.cumsum(list(tenths.values()))[-1] != 1  # Python 3.12's sum() would be exact
    assert [len(part) for part in split(np.arange(40), None, tenths, 0).values()] == [4] * 10
    assert [len(part) for part in split(np.arange(10), None, {"a": 0.5, "b": 0.5 + 1e-10}, 0).values()] == [5, 5]


@pytest.mark.parametrize("fractions", [{}, {"a": 0.0}, {"a": -1.0}, {"a": 0.8, "b": 0.3}])
def test_fractions_without_sense_are_refused(fractions: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="are not valid fractions"):
        split(np.arange(10), None, fractions, 0)


def test_runs_of_rows_in_one_shard_take_the_place_of_shards() -> None:
    starts = np.array([0, 10, 20])
    assert line_counts(np.array([1, 2, 11, 25, 29]), starts).tolist() == [2, 1, 2]
    assert line_counts(np.array([], np.int64), starts).tolist() == []
    found = order_of_rows(np.array([1, 2, 11, 25, 29]), starts, buffer=100, seed=0, epoch=0, layout=Layout(2))
    assert sorted(found.rows_at(np.arange(5)).tolist()) == [1, 2, 11, 25, 29]
