from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shardkit
from shardkit import Dataset, DatasetError, StateError
from shardkit.reading.order.epoch_order import EpochOrder
from shardkit.reading.order.share import Share
from shardkit.reading.state import STATE_VERSION

KeysOf = Callable[[Any], list[str]]


def shuffled(prefix: str, **options: Any) -> Dataset:
    return shardkit.dataset(prefix, **{"shuffle": 30, "seed": 3, "lanes": 12, "layout": 1, **options})


def augmented(prefix: str, **options: Any) -> Dataset:
    return shuffled(prefix, **options).decode(size=8, crop="random", flip=True)


def through_json(state: dict[str, Any]) -> dict[str, Any]:
    copied: dict[str, Any] = json.loads(json.dumps(state))
    assert copied == state
    return copied


def first(iterator: Any, count: int) -> list[Any]:
    return [next(iterator) for _ in range(count)]


def pixels(batches: Any) -> np.ndarray:
    return np.concatenate([batch.images for batch in batches])


def odd(sample: Any) -> bool:
    return int(sample["__key__"][-1]) % 2 == 1


def third(sample: Any) -> bool:
    return int(sample["__key__"][-2:]) % 3 != 0


def third_of(batch: Any) -> int:
    return sum(int(key[-2:]) for key in batch["__key__"]) % 3


CHAINS: dict[str, Callable[[Dataset], Dataset]] = {
    "samples": lambda d: d,
    "map": lambda d: d.map(lambda sample: {"__key__": sample["__key__"] + "!"}),
    "filter": lambda d: d.filter(lambda sample: sample["cls"] != 1),
    "filter and batch": lambda d: d.filter(lambda sample: sample["cls"] != 1).batch(5),
    "filter and take": lambda d: d.filter(lambda sample: sample["cls"] != 1).skip(3).take(50),
    "filter, take and filter": lambda d: d.filter(odd).take(40).filter(third),
    "filter, skip, take and filter": lambda d: d.filter(odd).skip(3).take(20).filter(third).skip(1),
    "filter, batch, take and filter": lambda d: d.filter(odd).batch(4).take(7).filter(lambda b: third_of(b) != 0),
    "filter, take, filter, take": lambda d: d.filter(odd).take(30).filter(third).take(9).repeat(2),
    "batch": lambda d: d.batch(7),
    "batch and filter": lambda d: d.batch(7).filter(lambda batch: int(batch["cls"].sum()) % 3 != 0),
    "batch, take and filter": lambda d: d.batch(7).take(9).filter(lambda batch: int(batch["cls"].sum()) % 3 != 0),
    "drop_last": lambda d: d.batch(7, drop_last=True),
    "take and skip": lambda d: d.skip(10).take(60).batch(7),
    "take and skip of batches": lambda d: d.batch(7).skip(2).take(9),
    "epoch_size": lambda d: d.epoch_size(40),
    "epoch_size of batches": lambda d: d.batch(6).epoch_size(7),
    "repeat": lambda d: d.batch(10).repeat(2),
    "balance": lambda d: d.balance().batch(4),
    "weight": lambda d: d.weight({"red": 1, "green": 5}),
    "select": lambda d: d.select(["red", "green"]).batch(3),
    "slice": lambda d: d[3:80:2],
}


def keys_by_item(items: list[Any]) -> list[Any]:
    return [item["__key__"] for item in items]


@pytest.mark.parametrize("name", CHAINS)
def test_a_stream_that_is_stopped_and_resumed_is_that_of_one_that_was_not(cars: str, name: str) -> None:
    """Over the end of an epoch, too: at every place of a short one, at every third of others."""
    chain = CHAINS[name]
    whole = chain(shuffled(cars))
    expected = [keys_by_item(list(whole)) for _ in range(3)]
    for stop in range(0, len(expected[0]) + len(expected[1]), 3 if len(expected[0]) > 20 else 1):
        dataset = chain(shuffled(cars))
        epoch, place = divmod(stop, len(expected[0])) if stop < len(expected[0]) else (1, stop - len(expected[0]))
        for _ in range(epoch):
            list(dataset)
        iterator = iter(dataset)
        assert keys_by_item(first(iterator, place)) == expected[epoch][:place]
        resumed = chain(shuffled(cars))
        resumed.load_state_dict(through_json(dataset.state_dict()))
        assert keys_by_item(list(resumed)) == expected[epoch][place:], stop
        assert keys_by_item(list(resumed)) == expected[epoch + 1]


def test_resumed_at_fifty_random_places_pixels_and_keys_go_on_as_they_were(cars: str) -> None:
    whole = list(augmented(cars).batch(5))
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(whole), 50).tolist():
        dataset = augmented(cars).batch(5)
        first(iter(dataset), place)
        resumed = augmented(cars).batch(5)
        resumed.load_state_dict(through_json(dataset.state_dict()))
        rest = list(resumed)
        assert [batch.keys for batch in rest] == [batch.keys for batch in whole[place:]]
        assert (pixels(rest) == pixels(whole[place:])).all()


def step_of(ranks: list[Any]) -> list[Any]:
    """The next batch of each rank, or [] at the end; all ranks end together."""
    found = [next(rank, None) for rank in ranks]
    assert len({batch is None for batch in found}) == 1
    return [] if found[0] is None else found


def joined(steps: list[list[Any]]) -> list[tuple[str, bytes]]:
    """(key, pixels) of all samples of each step, which the ranks share, in the order of their keys."""
    found = []
    for step in steps:
        found += sorted(
            (key, batch.images[number].tobytes()) for batch in step for number, key in enumerate(batch.keys)
        )
    return found


def test_at_each_of_fifty_random_places_training_goes_on_with_any_number_of_ranks(cars: str) -> None:
    """Stopped again and again with 1, 2, 3, 4 or 6 ranks, and batches that make up 12: the stream is the same."""
    [*expected] = joined([[batch] for batch in augmented(cars).batch(12, drop_last=True)])
    rng = np.random.default_rng(5)
    for _ in range(50):
        state, found, places = None, list[tuple[str, bytes]](), sorted(rng.integers(0, 9, 3).tolist())
        for begin, end in zip([0, *places], [*places, 99], strict=True):
            world = int(rng.choice([1, 2, 3, 4, 6]))
            datasets = [
                augmented(cars, rank=rank, world_size=world).batch(12 // world, drop_last=True) for rank in range(world)
            ]
            for dataset in datasets:
                if state is not None:
                    dataset.load_state_dict(through_json(state))
            iterators, steps = [iter(dataset) for dataset in datasets], []
            while len(steps) < end - begin and (step := step_of(iterators)):
                steps.append(step)
            found += joined(steps)
            states = [dataset.state_dict() for dataset in datasets]
            assert len({json.dumps({**each, "rank": 0}) for each in states}) == 1
            state = states[int(rng.integers(world))]
        assert found == expected


@pytest.mark.parametrize("remainder", ["drop", "pad", "uneven"])
def test_each_sample_comes_once_over_a_change_of_the_number_of_ranks(
    cars: str, remainder: Any, keys_of: KeysOf
) -> None:
    def ranks(world: int) -> list[Dataset]:
        return [shuffled(cars, rank=rank, world_size=world, remainder=remainder).batch(3) for rank in range(world)]

    before, after = ranks(4), ranks(3)
    seen = [key for dataset in before for key in keys_of(first(iter(dataset), 5))]
    for dataset in after:
        dataset.load_state_dict(before[0].state_dict())
    parts = [list(dataset) for dataset in after]
    seen += [key for part in parts for key in keys_of(part)]
    repeats = sum(int(batch["__repeat__"].sum()) for part in parts for batch in part if "__repeat__" in batch)
    left = 97 - 4 * 15
    assert len(set(seen)) == (97 - left % 3 if remainder == "drop" else 97)
    assert len(seen) - len(set(seen)) == repeats == (-left % 3 if remainder == "pad" else 0)


def test_a_mix_is_resumed_at_the_next_sample_with_any_number_of_ranks(cars: str, keys_of: KeysOf) -> None:
    def mix(rank: int = 0, world: int = 1) -> Dataset:
        parts = [shuffled(cars, rank=rank, world_size=world).select(name) for name in ("red", "green")]
        return shardkit.mix(parts, [3, 1], seed=9)

    whole = [keys_of(dataset) for dataset in [mix()] for _ in range(2)]
    dataset = mix(1, 2)
    first(iter(dataset), 20)
    ranks = [mix(rank, 3) for rank in range(3)]
    for rank in ranks:
        rank.load_state_dict(through_json(dataset.state_dict()))
    parts = [keys_of(rank) for rank in ranks]
    assert [parts[place % 3][place // 3] for place in range(27)] == whole[0][40:67]
    assert keys_of(ranks[0]) == whole[1][: 22 * 3 : 3]


def test_a_state_of_a_finished_epoch_goes_on_with_the_next_one(cars: str, keys_of: KeysOf) -> None:
    dataset, resumed = shuffled(cars), shuffled(cars)
    list(dataset)
    state = dataset.state_dict()
    assert (state["epoch"], state["samples"]) == (1, 0)
    resumed.load_state_dict(state)
    assert keys_of(resumed) == keys_of(dataset)


def test_a_state_at_the_very_end_of_an_epoch_leaves_nothing_of_it(cars: str, keys_of: KeysOf) -> None:
    dataset, resumed = shuffled(cars), shuffled(cars)
    first(iter(dataset), 97)
    resumed.load_state_dict(dataset.state_dict())
    assert keys_of(resumed) == []
    dataset.set_epoch(1)
    assert keys_of(resumed) == keys_of(dataset)


def test_set_epoch_to_the_resumed_epoch_keeps_the_place_and_to_another_drops_it(cars: str, keys_of: KeysOf) -> None:
    dataset = shuffled(cars)
    dataset.set_epoch(4)
    expected = keys_of(dataset)
    dataset.set_epoch(4)
    first(iter(dataset), 30)
    state = dataset.state_dict()
    for epoch, begin in ((4, 30), (5, 0)):
        resumed = shuffled(cars)
        resumed.load_state_dict(state)
        resumed.set_epoch(epoch)
        if epoch == 5:
            dataset.set_epoch(5)
            expected = keys_of(dataset)
        assert keys_of(resumed) == expected[begin:]


def test_a_state_counts_what_was_delivered_and_not_what_threads_made_ahead(cars: str) -> None:
    dataset = shuffled(cars, threads=2, ahead=8).decode(size=8).batch(4)
    iterator = iter(dataset)
    assert dataset.state_dict()["samples"] == 0
    for number in range(1, 6):
        next(iterator)
        assert (dataset.state_dict()["samples"], dataset.state_dict()["items"]) == (4 * number, number)


def test_a_state_is_small_and_plain(cars: str) -> None:
    dataset = shuffled(cars).balance().batch(8)
    first(iter(dataset), 3)
    text = json.dumps(dataset.state_dict())
    assert len(text) < 300
    assert not [value for value in dataset.state_dict().values() if not isinstance(value, (int, str, bool))]


def test_an_iteration_that_was_given_up_is_where_it_stopped(cars: str, keys_of: KeysOf) -> None:
    dataset, resumed = shuffled(cars), shuffled(cars)
    expected = keys_of(shuffled(cars))
    for number, _ in enumerate(dataset, 1):
        if number == 17:
            break
    resumed.load_state_dict(dataset.state_dict())
    assert keys_of(resumed) == expected[17:]


@pytest.mark.parametrize(
    "change",
    [
        lambda cars: shuffled(cars, seed=4),
        lambda cars: shuffled(cars, shuffle=31),
        lambda cars: shuffled(cars, lanes=6),
        lambda cars: shuffled(cars).select("red"),
        lambda cars: shuffled(cars)[:50],
        lambda cars: shuffled(cars).take(90),
        lambda cars: shuffled(cars).balance(),
        lambda cars: shuffled(cars).epoch_size(50),
        lambda cars: shardkit.concat([shuffled(cars)]).shuffle(30, seed=3),
        lambda cars: shuffled(f"{cars}-00000[0-3].tar"),
    ],
)
def test_a_state_of_another_order_is_refused(cars: str, change: Callable[[str], Dataset]) -> None:
    dataset = shuffled(cars)
    first(iter(dataset), 5)
    with pytest.raises(StateError, match=r"another dataset, or to another order.*same files, shuffle, seed and lanes"):
        change(cars).load_state_dict(dataset.state_dict())


def test_a_state_of_another_dataset_is_refused(cars: str, by_shards: dict[int, str]) -> None:
    with pytest.raises(StateError, match="another dataset"):
        shuffled(cars).load_state_dict(shuffled(by_shards[3]).state_dict())


def test_the_same_content_elsewhere_takes_the_state(cars: str, tmp_path: Any, keys_of: KeysOf) -> None:
    dataset = shuffled(cars)
    first(iter(dataset), 5)
    shutil.copytree(Path(cars).parent, tmp_path / "copy")
    moved = shuffled(str(tmp_path / "copy" / Path(cars).name))
    moved.load_state_dict(dataset.state_dict())
    assert keys_of(moved) == keys_of(shuffled(cars))[5:]


@pytest.mark.parametrize(
    "damage",
    [
        {"epoch": -1},
        {"samples": "5"},
        {"items": None},
        {"world_size": 2.5},
        {"turn": []},
        {"order": 5},
        {"rank": None},
    ],
)
def test_a_damaged_state_is_refused(cars: str, damage: dict[str, Any]) -> None:
    with pytest.raises(StateError):
        shuffled(cars).load_state_dict({**shuffled(cars).state_dict(), **damage})


@pytest.mark.parametrize("name", ["epoch", "samples", "items", "turn", "rank", "world_size", "order", "version"])
def test_a_state_that_lacks_something_is_refused(cars: str, name: str) -> None:
    state = shuffled(cars).state_dict()
    del state[name]
    with pytest.raises(StateError):
        shuffled(cars).load_state_dict(state)


@pytest.mark.parametrize("state", [None, 5, "state", [], {}, {"epoch": 1}])
def test_what_is_no_state_is_refused(cars: str, state: Any) -> None:
    with pytest.raises(StateError, match="not a state of a shardkit Dataset"):
        shuffled(cars).load_state_dict(state)


def test_a_state_of_a_later_version_is_refused_with_both_versions(cars: str) -> None:
    later = STATE_VERSION + 1
    with pytest.raises(StateError, match=f"has version {later}, and this shardkit reads versions 1 to {STATE_VERSION}"):
        shuffled(cars).load_state_dict({**shuffled(cars).state_dict(), "version": later})


def for_ranks(prefix: str, rank: int, world: int, **options: Any) -> Dataset:
    """Laid out as it is by default: for its ranks."""
    return shuffled(prefix, **{"layout": None, "rank": rank, "world_size": world, **options})


def keys_of_ranks(datasets: list[Dataset], keys_of: KeysOf) -> list[str]:
    return sorted(key for dataset in datasets for key in keys_of(dataset))


def steps_of(datasets: list[Dataset]) -> list[list[str]]:
    """The keys of each global batch."""
    return [sorted(key for batch in step for key in batch["__key__"]) for step in zip(*datasets, strict=True)]


@pytest.mark.parametrize("options", [{}, {"node_affinity": 2}])
@pytest.mark.parametrize("world", [1, 2, 3, 6])
def test_a_state_brings_its_layout_to_any_number_of_ranks(
    cars: str, world: int, options: dict[str, Any], keys_of: KeysOf
) -> None:
    before = [for_ranks(cars, rank, 4, **options).batch(3) for rank in range(4)]
    whole = [for_ranks(cars, rank, 4, **options).batch(3) for rank in range(4)]
    expected = [steps_of(whole), steps_of(whole)]
    for dataset in before:
        first(iter(dataset), 5)
    state = through_json(before[0].state_dict())
    assert (state["layout"], state["node"]) == (4, options.get("node_affinity", 0))
    after = [for_ranks(cars, rank, world, **options).batch(12 // world) for rank in range(world)]
    for dataset in after:
        dataset.load_state_dict(state)
    assert steps_of(after)[:3] == expected[0][5:8]
    assert {dataset.state_dict()["layout"] for dataset in after} == {4}
    assert steps_of(after)[:8] == expected[1][:8]


def test_a_state_of_version_1_goes_on_in_the_order_of_that_version(cars: str, keys_of: KeysOf) -> None:
    whole = shuffled(cars).batch(6)
    expected = [keys_of(whole) for _ in range(2)]
    state = {**shuffled(cars).batch(6).state_dict(), "version": 1, "samples": 36, "items": 6}
    del state["layout"], state["node"]
    ranks = [for_ranks(cars, rank, 3, remainder="uneven").batch(4) for rank in range(3)]
    for dataset in ranks:
        dataset.load_state_dict(through_json(state))
    assert keys_of_ranks(ranks, keys_of) == sorted(expected[0][36:])
    assert keys_of_ranks(ranks, keys_of) == sorted(expected[1])


def test_a_state_of_another_layout_than_the_dataset_was_given_is_refused(cars: str) -> None:
    state = for_ranks(cars, 0, 4).state_dict()
    with pytest.raises(StateError, match="laid out for 4 ranks, and this dataset's for 2; use layout=4"):
        for_ranks(cars, 0, 4, layout=2).load_state_dict(state)
    with pytest.raises(StateError, match="an order without `node_affinity`"):
        for_ranks(cars, 0, 4, node_affinity=2).load_state_dict(state)
    kept = for_ranks(cars, 0, 4, node_affinity=2).state_dict()
    with pytest.raises(StateError, match="an order with `node_affinity`"):
        for_ranks(cars, 0, 4).load_state_dict(kept)


@pytest.mark.parametrize(("name", "value"), [("layout", 0), ("layout", "4"), ("node", -1), ("node", 9), ("node", None)])
def test_a_state_with_a_damaged_layout_is_refused(cars: str, name: str, value: Any) -> None:
    with pytest.raises(StateError, match="damaged"):
        for_ranks(cars, 0, 4).load_state_dict({**for_ranks(cars, 0, 4).state_dict(), name: value})


def test_with_filter_ranks_take_places_in_turn_as_in_the_states_of_version_1(cars: str, keys_of: KeysOf) -> None:
    """Each rank is at its own position, so no step is the same for all of them."""
    whole = keys_of(shuffled(cars))
    for rank in (0, 1):
        own = shuffled(cars, rank=rank, world_size=2).batch(5).filter(lambda batch: True)
        assert keys_of(own) == whole[rank:96:2]


def test_with_filter_a_state_belongs_to_its_rank(cars: str, keys_of: KeysOf) -> None:
    def part(rank: int, world: int) -> Dataset:
        return shuffled(cars, rank=rank, world_size=world).filter(lambda sample: sample["cls"] == 2)

    expected = keys_of(part(1, 2))
    dataset, resumed = part(1, 2), part(1, 2)
    first(iter(dataset), 7)
    resumed.load_state_dict(dataset.state_dict())
    assert keys_of(resumed) == expected[7:]
    for rank, world in ((0, 2), (1, 3)):
        with pytest.raises(StateError, match=r"rank 1 of 2.*state for each rank"):
            part(rank, world).load_state_dict(dataset.state_dict())


def test_epochs_of_so_many_batches_are_others_with_other_ranks_and_that_is_said(cars: str) -> None:
    state = shuffled(cars, rank=0, world_size=2).batch(4).epoch_size(5).state_dict()
    with pytest.raises(StateError, match=r"2 ranks and 1; call epoch_size\(\) before batch\(\)"):
        shuffled(cars).batch(4).epoch_size(5).load_state_dict(state)


def test_epochs_of_so_many_samples_go_on_with_other_ranks(cars: str, keys_of: KeysOf) -> None:
    whole = shuffled(cars).epoch_size(60)
    expected = [keys_of(whole) for _ in range(3)]
    dataset = shuffled(cars, rank=0, world_size=2).epoch_size(60)
    keys_of(dataset)
    first(iter(dataset), 10)
    ranks = [shuffled(cars, rank=rank, world_size=4).epoch_size(60) for rank in range(4)]
    for rank in ranks:
        rank.load_state_dict(dataset.state_dict())
    assert sorted(key for rank in ranks for key in keys_of(rank)) == sorted(expected[1][20:])
    assert sorted(key for rank in ranks for key in keys_of(rank)) == sorted(expected[2])


def test_a_state_is_loaded_into_a_view_of_an_unpacked_tree(small_tree: Any, keys_of: KeysOf) -> None:
    dataset, resumed = (shardkit.dataset(small_tree, shuffle=20).batch(4) for _ in range(2))
    expected = keys_of(shardkit.dataset(small_tree, shuffle=20))
    first(iter(dataset), 6)
    resumed.load_state_dict(dataset.state_dict())
    assert keys_of(resumed) == expected[24:]


def test_to_resume_deep_in_an_epoch_of_a_billion_orders_no_more_than_a_neighbourhood() -> None:
    order = EpochOrder(np.full(1_000, 1_000_000, np.int64), 10_000, 0, 0, 16)
    share = Share(0, order.samples, 3, 8, "drop", done=777_777_776)
    rows, _ = share.rows(order, np.arange(64))
    assert len(set(rows.tolist())) == 64
    assert max(len(chunk) for _, chunk in order._chunks.values()) <= 4_096


def test_a_batch_without_one_good_image_counts_for_what_comes_after(tmp_path: Path, draw_image: Any) -> None:
    (tmp_path / "tree" / "a").mkdir(parents=True)
    for number in range(24):
        data = draw_image(number, size=(8, 8))
        (tmp_path / "tree" / "a" / f"{number:02}.jpg").write_bytes(data[: len(data) // (2 if 4 <= number < 8 else 1)])
    shardkit.pack(tmp_path / "tree", tmp_path / "d", workers=1, check="none", shuffle=False)

    def four_batches() -> Any:
        return shardkit.dataset(tmp_path / "d").decode(size=8, on_error="skip").batch(4).take(4)

    expected = [list(batch.keys) for batch in four_batches()]
    assert [keys[0] for keys in expected] == ["a/00", "a/08", "a/12"]  # the second of the four is lost
    stopped = four_batches()
    items = iter(stopped)
    begun = [list(next(items).keys) for _ in range(2)]
    again = four_batches()
    again.load_state_dict(stopped.state_dict())
    assert begun + [list(batch.keys) for batch in again] == expected


def test_repeat_of_nothing_but_damage_is_an_error_and_no_endless_loop(tmp_path: Path, draw_image: Any) -> None:
    (tmp_path / "tree" / "a").mkdir(parents=True)
    for number in range(4):
        (tmp_path / "tree" / "a" / f"{number}.jpg").write_bytes(draw_image(number)[:300])
    shardkit.pack(tmp_path / "tree", tmp_path / "d", workers=1, check="none")
    with pytest.raises(DatasetError, match="an epoch has no items"):
        list(shardkit.dataset(tmp_path / "d").decode(size=8, on_error="skip").batch(2).repeat())
