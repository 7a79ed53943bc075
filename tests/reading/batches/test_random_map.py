from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import shardkit
from shardkit import Dataset, UsageError
from shardkit.reading.batches.random_map import SEED_BITS, callers
from shardkit.reading.ops import Map
from shardkit.rng import stream_key


def drawn(sample: dict[str, Any], rng: np.random.Generator) -> tuple[str, float]:
    return sample["__key__"], float(rng.random())


def seeded(sample: dict[str, Any], seed: int) -> tuple[str, int]:
    return sample["__key__"], seed


def of_batch(batch: Any, rng: np.random.Generator) -> tuple[tuple[str, ...], float]:
    return tuple(batch["__key__"]), float(rng.random())


def test_each_sample_of_an_epoch_has_numbers_of_its_own(cars: str) -> None:
    dataset = shardkit.dataset(cars).map(drawn, rng=True)
    first, second = dict(list(dataset)), dict(list(dataset))
    assert len(set(first.values())) == len(first) == len(dataset)
    assert first.keys() == second.keys()
    assert not set(first.values()) & set(second.values())


def test_the_numbers_follow_the_sample_and_not_its_place(cars: str) -> None:
    plain = dict(list(shardkit.dataset(cars, seed=3).map(drawn, rng=True)))
    shuffled = list(shardkit.dataset(cars, seed=3, shuffle=True).map(drawn, rng=True))
    assert [key for key, _ in shuffled] != list(plain)
    assert dict(shuffled) == plain
    assert dict(list(shardkit.dataset(cars, seed=4).map(drawn, rng=True))) != plain


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("ranks", [1, 2])
def test_the_numbers_are_the_same_for_any_threads_and_ranks(cars: str, threads: int, ranks: int) -> None:
    expected = dict(list(shardkit.dataset(cars).map(drawn, rng=True)))
    parts = [shardkit.dataset(cars, threads=threads, rank=rank, world_size=ranks) for rank in range(ranks)]
    found = dict(pair for part in parts for pair in part.map(drawn, rng=True))
    assert found == expected


def test_shards_without_an_index_give_numbers_that_do_not_depend_on_the_threads(foreign: str) -> None:
    once, again = (dict(list(shardkit.dataset(foreign, threads=threads).map(drawn, rng=True))) for threads in (1, 3))
    assert once == again
    assert len(set(once.values())) == len(once)


CHAINS = {
    "samples": lambda d: d.map(drawn, rng=True),
    "seeds": lambda d: d.map(seeded, rng="seed"),
    "after a filter": lambda d: d.filter(lambda s: s["cls"] != 1).map(drawn, rng=True),
    "batches": lambda d: d.batch(7).map(of_batch, rng=True),
    "batches of what a filter left": lambda d: d.filter(lambda s: s["cls"] != 1).batch(7).map(of_batch, rng=True),
    "decoded batches": lambda d: d.decode(size=8).batch(7).map(lambda b, rng: (b.keys, rng.random()), rng=True),
}


@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
def test_what_comes_after_a_resume_is_what_would_have_come(cars: str, chain: Any) -> None:
    def made() -> Dataset:
        return chain(shardkit.dataset(cars, shuffle=True, seed=2))  # type: ignore[no-any-return]

    whole = list(made())
    stopped = made()
    iterator = iter(stopped)
    begun = [next(iterator) for _ in range(4)]
    resumed = made()
    resumed.load_state_dict(stopped.state_dict())
    assert begun + list(resumed) == whole


def test_two_maps_of_a_chain_draw_different_numbers(cars: str) -> None:
    chain = shardkit.dataset(cars).map(drawn, rng=True).map(lambda pair, rng: (pair[1], rng.random()), rng=True)
    assert all(first != second for first, second in chain)


def test_a_map_without_random_numbers_between_does_not_change_them(cars: str) -> None:
    plain = list(shardkit.dataset(cars).map(drawn, rng=True))
    assert list(shardkit.dataset(cars).map(lambda s: s).map(drawn, rng=True)) == plain


def test_seeds_fit_what_other_libraries_take(cars: str) -> None:
    seeds = [seed for _, seed in shardkit.dataset(cars).map(seeded, rng="seed")]
    assert len(set(seeds)) == len(seeds)
    assert all(type(seed) is int and 0 <= seed < 1 << SEED_BITS for seed in seeds)
    assert max(seeds) >= 1 << (SEED_BITS - 1)
    np.random.RandomState(max(seeds))


def test_the_generator_is_philox_keyed_by_stream_and_sample() -> None:
    (call,) = callers([Map(lambda item, rng: rng.integers(1 << 62), "generator")], 5, 6)
    key = np.array([stream_key("map", 0, 5, 6), 9], np.uint64)
    assert call(None, 9) == np.random.Generator(np.random.Philox(key=key)).integers(1 << 62)


def test_one_sample_by_number_has_the_numbers_of_epoch_0(cars: str) -> None:
    dataset = shardkit.dataset(cars).map(drawn, rng=True)
    assert dataset[5] == next(pair for pair in dataset if pair[0] == dataset[5][0])


@pytest.mark.parametrize("after", [lambda d: d.batch(4).filter(len), lambda d: d.filter(len).take(4)])
def test_random_numbers_behind_a_count_of_items_are_refused_with_the_right_order(cars: str, after: Any) -> None:
    with pytest.raises(UsageError, match=r"call map\(fn, rng=True\) before"):
        list(after(shardkit.dataset(cars)).map(drawn, rng=True))


def test_a_misspelled_choice_is_refused(cars: str) -> None:
    with pytest.raises(UsageError, match="'numpy' is not a valid choice"):
        shardkit.dataset(cars).map(drawn, rng="numpy")  # type: ignore[arg-type]
