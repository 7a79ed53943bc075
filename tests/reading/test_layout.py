"""The layout of an order in views, mixes and states: what the ranks of another world do with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import shardkit
from shardkit import Dataset, StateError, UsageError
from shardkit.reading.order.epoch_order import EpochOrder
from shardkit.reading.order.layout import MOST_SECTIONS

Make = Callable[[str, int, int], Dataset]
RANKS, NODE = 4, 2


def of_rank(prefix: str, rank: int, world: int = RANKS, **options: Any) -> Dataset:
    return shardkit.dataset(prefix, **{"shuffle": 20, "seed": 3, "rank": rank, "world_size": world, **options})


def mixed(prefix: str, rank: int, world: int = RANKS, **options: Any) -> Dataset:
    return shardkit.mix([of_rank(prefix, rank, world, **options).select(name) for name in ("red", "blue")])


def keys(data: Dataset) -> list[str]:
    return [sample["__key__"] for sample in data]


def nodes_of(make: Make, prefix: str, epoch: int) -> dict[str, int]:
    """The node of each sample of an epoch."""
    found = {}
    for rank in range(RANKS):
        data = make(prefix, rank, RANKS)
        data.set_epoch(epoch)
        found |= dict.fromkeys(keys(data), rank // NODE)
    return found


AFFINE: dict[str, Make] = {
    "small buffer": lambda prefix, rank, world: of_rank(prefix, rank, world, node_affinity=NODE),
    "whole buffer": lambda prefix, rank, world: of_rank(prefix, rank, world, node_affinity=NODE, shuffle=True),
    "selected": lambda prefix, rank, world: of_rank(prefix, rank, world, node_affinity=NODE).select("red"),
}


@pytest.mark.parametrize("make", AFFINE.values(), ids=AFFINE)
def test_with_affinity_a_node_has_the_same_samples_in_all_epochs(cars: str, make: Make) -> None:
    first, later = (nodes_of(make, cars, epoch) for epoch in (0, 3))
    assert {key: first[key] for key in later.keys() & first.keys()} == {
        key: later[key] for key in later.keys() & first.keys()
    }


def test_with_affinity_a_whole_buffer_still_permutes_all_of_a_node(cars: str) -> None:
    one, two = (EpochOrder(np.array([50] * 8), 400, 1, epoch, 4, RANKS, NODE) for epoch in (0, 1))
    for node in range(RANKS // NODE):
        places = np.flatnonzero(np.arange(400) % RANKS // NODE == node)
        rows = one.rows_at(places), two.rows_at(places)
        assert np.array_equal(np.sort(rows[0]), np.sort(rows[1]))
        assert not np.array_equal(rows[0], rows[1])


def test_more_lanes_than_samples_cost_nothing_and_give_each_sample_once() -> None:
    rows = [EpochOrder(np.array([5, 6]), 3, 0, 1, lanes, 2).rows_at(np.arange(11)) for lanes in (6, 10**12)]
    assert np.array_equal(*rows) and np.array_equal(np.sort(rows[0]), np.arange(11))


UNSTEADY: dict[str, Callable[[Dataset], Dataset]] = {
    "weights": lambda data: data.balance(),
    "mix": lambda data: shardkit.mix([data]),
    "epoch_size": lambda data: data.epoch_size(50),
}


@pytest.mark.parametrize("chain", UNSTEADY.values(), ids=UNSTEADY)
def test_nodes_that_could_not_keep_their_samples_are_refused(cars: str, chain: Callable[[Dataset], Dataset]) -> None:
    with pytest.raises(UsageError, match="node_affinity"):
        keys(chain(of_rank(cars, 0, node_affinity=NODE)))
    assert keys(chain(of_rank(cars, 0, node_affinity=RANKS))), "one node has all samples"


def test_a_mix_refuses_a_state_of_another_layout_than_it_was_given(cars: str) -> None:
    with pytest.raises(StateError, match=r"for 4 ranks, and this dataset's for 2; use layout=4"):
        mixed(cars, 0, layout=2).load_state_dict(mixed(cars, 0).state_dict())


@pytest.mark.parametrize("world", [1, 3])
def test_a_state_of_a_mix_brings_its_layout(cars: str, world: int) -> None:
    whole = [sorted(step) for step in zip(*(keys(mixed(cars, rank)) for rank in range(RANKS)), strict=True)]
    expected = [key for step in whole[6:] for key in step]
    begun = mixed(cars, 0)
    rest = iter(begun)
    for _ in range(6):
        next(rest)
    state = json.loads(json.dumps(begun.state_dict()))
    found = []
    for rank in range(world):
        data = mixed(cars, rank, world, remainder="drop")
        data.load_state_dict(state)
        found += keys(data)
    assert set(found) <= set(keys(shardkit.dataset(cars))) and len(found) // world == len(expected) // world
    if world == 1:
        assert sorted(found[: len(expected)]) == sorted(expected)


def test_a_part_that_was_read_from_a_state_is_laid_out_as_its_mix(cars: str) -> None:
    part = of_rank(cars, 0, 1)
    expected = keys(shardkit.mix([of_rank(cars, 0, 1)]))
    part.load_state_dict(of_rank(cars, 0).state_dict())
    assert keys(shardkit.mix([part])) == expected


@pytest.mark.parametrize("combine", [shardkit.concat, shardkit.mix])
@pytest.mark.parametrize(
    ("name", "values", "fact"),
    [("layout", (2, 4), "have layouts 2 and 4"), ("node_affinity", (1, 2), "have node affinities 1 and 2")],
)
def test_parts_of_different_layouts_are_refused(
    cars: str, combine: Any, name: str, values: tuple[int, int], fact: str
) -> None:
    parts = [of_rank(cars, 0, **{name: value}) for value in values]
    with pytest.raises(UsageError, match=f"{name}: the datasets {fact}"):
        combine(parts)
    assert getattr(combine([of_rank(cars, 0), parts[1]]).reading, name) == values[1]


def test_a_single_rank_needs_no_number_of_ranks_on_its_node(cars: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert len(keys(of_rank(cars, 0, 1, node_affinity=True))) == 97
    with pytest.raises(UsageError, match="node_affinity=8"):
        keys(of_rank(cars, 0, 2, node_affinity=True))


@pytest.mark.parametrize("layout", [0, -1, True, "64", 2.0, MOST_SECTIONS + 1])
def test_what_is_no_layout_is_refused(cars: str, layout: Any) -> None:
    with pytest.raises(UsageError, match="layout"):
        shardkit.dataset(cars, shuffle=True, layout=layout)


def test_an_impossible_layout_in_a_state_is_damage(cars: str) -> None:
    state = of_rank(cars, 0).state_dict()
    with pytest.raises(StateError, match="damaged"):
        of_rank(cars, 0).load_state_dict({**state, "layout": MOST_SECTIONS + 1})
