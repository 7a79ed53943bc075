from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from shardkit.reading.order import groups
from shardkit.reading.order.derived import (
    fold_places,
    label_counts,
    line_counts,
    split_places,
    stratify,
    weight_classes,
    weight_samples,
)
from shardkit.reading.order.epoch_order import EpochOrder
from shardkit.reading.order.groups import group_places, in_random_order, limits_of
from shardkit.rng import stream_key, uniform

PIECES = [3, 8, groups.PIECE]

COUNT = 60


@pytest.fixture(params=PIECES, ids=str)
def small_pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "PIECE", request.param)


def drawn_labels(seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(-1, 5, COUNT).astype(np.int8)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("most", [4, 1 << 17], ids=["few groups", "many groups"])
def test_places_of_a_group_are_ascending_and_together(most: int) -> None:
    keys = np.random.default_rng(1).integers(0, most, COUNT)
    places, bounds = group_places(lambda low, high: keys[low:high], COUNT, most)
    assert places.tolist() == np.argsort(keys, kind="stable").tolist()
    assert np.diff(bounds).tolist() == np.bincount(keys, minlength=most).tolist()


@pytest.mark.usefixtures("small_pieces")
def test_a_random_order_is_that_of_the_chances_with_ties_as_they_were() -> None:
    chances = np.random.default_rng(2).integers(0, 8, COUNT) / 8
    places = np.arange(COUNT, dtype=np.uint32)
    found = np.concatenate(list(in_random_order(places, lambda some: chances[some])))
    assert found.tolist() == np.argsort(chances, kind="stable").tolist()


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("steps", [1, 8, 1 << 30], ids=["equal", "few values", "distinct"])
def test_limits_are_what_has_these_numbers_in_the_random_order(steps: int) -> None:
    chances = np.random.default_rng(2).integers(0, steps, COUNT) / steps
    places, numbers = np.arange(0, COUNT, 2, dtype=np.uint32), np.array([0, 1, 7, 7, 29, 30, 99])
    limits, found = limits_of(places, lambda some: chances[some], numbers)
    order = places[np.argsort(chances[places], kind="stable")]
    assert found[:5].tolist() == order[numbers[:5]].tolist()
    assert limits[:5].tolist() == chances[order[numbers[:5]]].tolist()
    assert np.isinf(limits[5:]).all()


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("stratified", [False, True])
@pytest.mark.parametrize("some", [False, True], ids=["all rows", "a view"])
def test_parts_of_a_split_follow_each_other_in_the_order_of_labels_and_chances(stratified: bool, some: bool) -> None:
    labels, rows = drawn_labels(), np.arange(COUNT)[::-2].copy() if some else np.arange(COUNT)
    chances, own = uniform(stream_key("split", 3), rows), labels[rows] if stratified else np.zeros(len(rows), int)
    expected = np.empty(len(rows), np.int64)
    values, sizes = np.unique(own, return_counts=True)
    counts, _ = stratify(sizes, np.array([0.5, 0.3, 0.2]), 3)
    for value, parts in zip(values, counts, strict=True):
        inside = np.flatnonzero(own == value)
        expected[inside[np.argsort(chances[inside], kind="stable")]] = np.repeat(np.arange(3), parts)
    fractions = {"a": 0.5, "b": 0.3}
    found = split_places(rows if some else None, len(rows), labels if stratified else None, fractions, 3)
    assert found.tolist() == expected.tolist()


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("stratify", [False, True])
@pytest.mark.parametrize("some", [False, True], ids=["all rows", "a view"])
def test_folds_are_dealt_in_the_order_of_labels_and_chances(stratify: bool, some: bool) -> None:
    labels, rows = drawn_labels(), np.arange(COUNT)[::-2].copy() if some else np.arange(COUNT)
    chances = uniform(stream_key("folds", 3), rows)
    order = np.lexsort((chances, labels[rows])) if stratify else np.argsort(chances, kind="stable")
    expected = np.empty(len(rows), np.int64)
    expected[order] = np.arange(len(rows)) % 4
    found = fold_places(rows if some else None, len(rows), labels if stratify else None, 4, 3)
    assert found.tolist() == expected.tolist()


@pytest.mark.usefixtures("small_pieces")
def test_the_length_of_the_pieces_changes_no_order(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, rows = drawn_labels(), np.sort(np.random.default_rng(4).permutation(COUNT)[:50])
    order = EpochOrder(np.array([20, 30, 10]), 7, 5, 0, 1)
    chances = np.random.default_rng(5).random(COUNT)

    def made() -> list[Any]:
        weights = {0: 1.0, 1: 0.3, 2: 7.0, 4: 0.0}
        line = order.line(rows)
        return [
            split_places(None, COUNT, labels, {"a": 0.5, "b": 0.3}, 1).tolist(),
            split_places(rows, len(rows), None, {"a": 0.5, "b": 0.3}, 1).tolist(),
            weight_classes(order.rows_of_line, COUNT, labels, weights, 9).tolist(),
            weight_classes(line.__getitem__, len(line), labels, weights, 9).tolist(),
            weight_samples(order.rows_of_line, COUNT, chances, 9).tolist(),
            weight_samples(line.__getitem__, len(line), chances, 9).tolist(),
            line_counts(rows, np.array([0, 20, 50])).tolist(),
            label_counts(rows, len(rows), labels).tolist(),
        ]

    found = made()
    monkeypatch.setattr(groups, "PIECE", 1 << 20)
    assert found == made()
    assert label_counts(None, COUNT, labels).tolist() == np.bincount(labels + 1).tolist()


def test_the_line_of_some_rows_has_them_in_the_order_of_their_shards_repeats_beside_each_other() -> None:
    order = EpochOrder(np.array([3, 5, 2]), 4, 1, 0, 1)
    rows = np.array([9, 0, 4, 4, 2, 7])
    places = {row: place for place, row in enumerate(order.line().tolist())}
    assert order.line(rows).tolist() == sorted(rows.tolist(), key=lambda row: places[row])
    assert order.line(np.empty(0, np.int64)).tolist() == []
