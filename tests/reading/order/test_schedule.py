"""Mixing by schedule: weights that are a function of the sample."""

from __future__ import annotations

import importlib
import pickle
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shardkit
from shardkit import Dataset, StateError, UsageError
from shardkit.reading.order.derived import MIX_BLOCK, MixedOrder
from shardkit.reading.order.epoch_order import EpochOrder
from shardkit.reading.order.schedule import Schedule

LENGTHS = (50, 400, 90)


def ramp(sample: int) -> list[float]:
    """From the first dataset to the second, with some of the third; 0 in places."""
    done = min(1.0, sample / 5_000)
    return [1 - done, done, 0.2]


def switch(sample: int, after: int = 2_000) -> list[float]:
    return [1, 0, 0] if sample < after else [0, 1, 1]


def order_of(length: int, epoch: int, sections: int = 1) -> EpochOrder:
    return EpochOrder(np.array([length]), 7, 0, epoch, 2, sections)


def mixed(fn: Any, *, epoch: int = 0, samples: int = 6_000, sections: int = 1) -> MixedOrder:
    parts = [partial(order_of, length, sections=sections) for length in LENGTHS]
    offsets = [0, *np.cumsum(LENGTHS)[:-1].tolist()]
    return MixedOrder(parts, LENGTHS, offsets, Schedule(fn, 3), 1, epoch, samples, sections)


def members(rows: np.ndarray) -> np.ndarray:
    return np.searchsorted(np.cumsum(LENGTHS), rows, side="right")


@pytest.mark.parametrize("sections", [1, 3])
@pytest.mark.parametrize("fn", [ramp, switch])
def test_in_each_block_the_shares_are_those_of_the_function(fn: Any, sections: int) -> None:
    found = members(mixed(fn, sections=sections).rows_at(np.arange(6_000)))
    for section in range(sections):
        own = found[section::sections]
        for block in range(len(own) // MIX_BLOCK):
            counts = np.bincount(own[block * MIX_BLOCK : (block + 1) * MIX_BLOCK], minlength=3)
            weights = np.array(fn(block * MIX_BLOCK * sections))
            assert (np.abs(counts - weights / weights.sum() * MIX_BLOCK) < 1).all()


@pytest.mark.parametrize("fn", [ramp, switch])
def test_each_dataset_goes_on_where_it_stopped(fn: Any) -> None:
    rows = mixed(fn).rows_at(np.arange(6_000))
    for part, (length, offset) in enumerate(zip(LENGTHS, np.cumsum(LENGTHS) - LENGTHS, strict=True)):
        own = rows[members(rows) == part] - offset
        epochs = [order_of(length, epoch).rows_at(np.arange(length)) for epoch in range(len(own) // length + 1)]
        assert own.tolist() == np.concatenate(epochs)[: len(own)].tolist()


@settings(max_examples=40)
@given(st.integers(0, 5_999), st.integers(1, 300), st.sampled_from([1, 4]))
def test_any_place_is_found_alone_and_epochs_count_on(place: int, count: int, sections: int) -> None:
    places = np.arange(place, min(place + count, 6_000))
    whole = mixed(ramp, sections=sections).rows_at(np.arange(6_000))
    assert mixed(ramp, sections=sections).rows_at(places).tolist() == whole[places].tolist()
    halves = [mixed(ramp, epoch=epoch, samples=3_000).rows_at(np.arange(3_000)) for epoch in (0, 1)]
    assert np.concatenate(halves).tolist() == mixed(ramp).rows_at(np.arange(6_000)).tolist()


def test_a_constant_function_mixes_as_its_weights_do() -> None:
    fixed = MixedOrder(mixed(ramp).parts, LENGTHS, mixed(ramp).offsets, [200, 300, 500], 1, 0, 6_000)
    places = np.arange(6_000)
    assert fixed.rows_at(places).tolist() == mixed(lambda sample: [2, 3, 5]).rows_at(places).tolist()


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory, draw_tree: Any) -> list[str]:
    """The prefixes of three datasets, of 30, 20 and 10 samples."""
    root = tmp_path_factory.mktemp("parts")
    for name, count in (("a", 30), ("b", 20), ("c", 10)):
        draw_tree(root / name, {f"{name}0": count // 2, f"{name}1": count - count // 2}, size=(8, 8))
        shardkit.pack(root / name, root / "shards" / name, workers=1)
    return [str(root / "shards" / name) for name in "abc"]


def mix_of(parts: list[str], fn: Any = ramp, **options: Any) -> Dataset[Any]:
    return shardkit.mix([shardkit.dataset(part, shuffle=9, **options) for part in parts], fn, seed=3)


def names_of(items: Any) -> list[str]:
    return [sample["__key__"] for sample in items]


def test_an_epoch_of_a_set_size_counts_on_in_all_epochs(parts: list[str]) -> None:
    data = mix_of(parts, partial(switch, after=4_000)).epoch_size(2_000)
    classes = [Counter(key[0] for key in names_of(data)) for _ in range(3)]
    assert classes == [{"a": 2_000}, {"a": 2_000}, {"b": 1_000, "c": 1_000}]


@settings(max_examples=15)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 3), st.integers(1, 40))
def test_ranks_and_resumes_read_the_same_mix(parts: list[str], world: int, other: int, size: int, steps: int) -> None:
    def of(rank: int, ranks: int) -> Dataset[Any]:
        options = {"rank": rank, "world_size": ranks, "layout": 1, "remainder": "uneven"}
        return mix_of(parts, partial(switch, after=1_000), **options).epoch_size(1_500).batch(size)

    def keys(batches: Any) -> list[str]:
        return [key for batch in batches for key in batch["__key__"]]

    whole = keys(of(0, 1))
    before, states = list[str](), list[Any]()
    for rank in range(world):
        data = of(rank, world)
        items = iter(data)
        before += keys(next(items) for _ in range(steps))
        states.append(data.state_dict())
    after = list[str]()
    for rank in range(other):
        data = of(rank, other)
        data.load_state_dict(states[rank % world])
        after += keys(data)
    assert Counter(before + after) == Counter(whole)
    assert Counter(before) == Counter(whole[: len(before)])


def test_a_state_of_other_weights_is_refused(parts: list[str]) -> None:
    state = mix_of(parts, partial(switch, after=0)).state_dict()
    mix_of(parts, partial(switch, after=0)).load_state_dict(state)
    for other in (ramp, [1, 1, 1]):
        with pytest.raises(StateError):
            mix_of(parts, other).load_state_dict(state)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ([1, -1, 1], "sample 0 are .*not valid"), ([1, float("nan"), 1], "not valid"), ([0, 0, 0], "not valid"),
        ([1, float("inf"), 1], "not valid"), ([1, 1], "2 weights for 3 datasets"), ([], "0 weights for 3"),
        (1, "no list of weights"), (None, "no list of weights|are None"), ("abc", "are 'abc'"),
        ([[1], [1, 2], 3], "sample 0"),
    ],
)  # fmt: skip
def test_functions_that_return_no_weights_are_refused_with_the_sample(
    parts: list[str], weights: Any, words: str
) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        mix_of(parts, lambda sample: weights)
    assert caught.value.cure
    late = mix_of(parts, lambda sample: [1, 1, 1] if sample < 1_000 else weights).epoch_size(1_500)
    with pytest.raises(UsageError, match=r"sample 1,000"):
        list(late)


def test_a_function_with_a_memory_is_refused(parts: list[str]) -> None:
    random = np.random.default_rng(0)
    with pytest.raises(UsageError, match="different weights for the same sample"):
        mix_of(parts, lambda sample: random.random(3))


def test_a_function_that_a_process_can_not_get_is_refused(parts: list[str]) -> None:
    with pytest.raises(UsageError, match="can't be passed to another process"):
        pickle.dumps(mix_of(parts, lambda sample: [1, 1, 1]))


def test_a_process_that_is_started_anew_reads_the_same(
    parts: list[str], run_python: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ramps.py").write_text("def ramp(sample):\n    return [1 - min(1.0, sample / 5_000), 0.5, 0.2]\n")
    monkeypatch.syspath_prepend(tmp_path)
    data = mix_of(parts, importlib.import_module("ramps").ramp).epoch_size(300)
    (tmp_path / "data.pickle").write_bytes(pickle.dumps(data))
    code = "import pickle; [print(sample['__key__']) for sample in pickle.load(open('data.pickle', 'rb'))]"
    found = run_python("-c", code, cwd=tmp_path).stdout.splitlines()
    assert found == names_of(data)


def test_only_the_blocks_that_are_read_are_asked_for(parts: list[str]) -> None:
    asked = list[int]()

    def fn(sample: int) -> list[float]:
        asked.append(sample)
        return [1, 1, 1]

    list(mix_of(parts, fn).epoch_size(2_500))
    assert set(asked) == {0, 1_000, 2_000}
