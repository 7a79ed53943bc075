"""Grain reads samples by number: every sample once, resumed at its state, and what would differ refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import shardkit
from shardkit.errors import UsageError

grain = pytest.importorskip("grain")

SAMPLES, BATCH = 17, 4


@pytest.fixture(scope="module")
def cars(tmp_path_factory: pytest.TempPathFactory, draw_tree: Any) -> Path:
    root = tmp_path_factory.mktemp("grain")
    tree = draw_tree(root / "tree", {"blue": 8, "red": SAMPLES - 8}, size=(12, 12))
    shardkit.pack(tree, root / "cars", workers=1, max_count=5)
    return root / "cars"


def source(cars: Path, **options: Any) -> Any:
    return grain.MapDataset.source(shardkit.dataset(cars, rank=0, world_size=1, **options).decode(size=8))


def keys(items: Any) -> list[str]:
    return [str(key) for item in items for key in item["__key__"]]


def test_every_sample_comes_once_in_each_epoch(cars: Path) -> None:
    expected = sorted(shardkit.dataset(cars).keys)
    batches = source(cars).shuffle(seed=1).batch(BATCH).to_iter_dataset()
    first = next(iter(batches))
    assert first["jpg"].shape == (BATCH, 8, 8, 3) and first["cls"].shape == (BATCH,)
    assert sorted(keys(batches)) == expected
    twice = source(cars).seed(1).shuffle().repeat(2).to_iter_dataset()
    found = [sample["__key__"] for sample in twice]
    assert sorted(found[:SAMPLES]) == sorted(found[SAMPLES:]) == expected
    assert found[:SAMPLES] != found[SAMPLES:]


def test_two_processes_share_the_samples(cars: Path) -> None:
    parts = [source(cars).shuffle(seed=1)[rank::2].batch(BATCH).to_iter_dataset() for rank in range(2)]
    found = [keys(part) for part in parts]
    assert sorted(found[0] + found[1]) == sorted(shardkit.dataset(cars).keys)
    assert abs(len(found[0]) - len(found[1])) <= 1


def test_grains_own_loader_shards_for_its_processes(cars: Path) -> None:
    """It reads an equal number for each process, so that one of an odd number of samples would be left out."""
    data = shardkit.dataset(cars, rank=0, world_size=1).decode(size=8)[: SAMPLES - 1]
    found = []
    for rank in range(2):
        shard = grain.sharding.ShardOptions(shard_index=rank, shard_count=2)
        sampler = grain.samplers.IndexSampler(len(data), shard_options=shard, shuffle=True, seed=1, num_epochs=1)
        found += [sample["__key__"] for sample in grain.DataLoader(data_source=data, sampler=sampler, worker_count=0)]
    assert sorted(found) == sorted(data.keys)


@pytest.mark.parametrize("stop", [0, 2, 4])
def test_an_iterator_is_resumed_at_the_next_batch(cars: Path, stop: int) -> None:
    iterator = iter(source(cars).shuffle(seed=1).batch(BATCH).to_iter_dataset())
    for _ in range(stop):
        next(iterator)
    state = iterator.get_state()
    resumed = iter(source(cars).shuffle(seed=1).batch(BATCH).to_iter_dataset())
    resumed.set_state(state)
    assert keys(resumed) == keys(iterator)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.decode(size=8).batch(2), r"batches are not numbered; omit batch\(\)"),
        (
            lambda data: data.shuffle(),
            r"this dataset is shuffled; omit shuffle= and call shuffle\(\) on the MapDataset",
        ),
        (lambda data: data.decode(size=8, flip=True), r"same in each epoch; .*random_map\(\)"),
        (lambda data: data.map(lambda sample, rng: sample, rng=True), r"same in each epoch; .*random_map\(\)"),
    ],
)
def test_what_numbers_ignore_is_refused(cars: Path, change: Any, message: str) -> None:
    data = change(shardkit.dataset(cars))
    with pytest.raises(UsageError, match=rf"MapDataset\.source\(dataset\): .*{message}"):
        grain.MapDataset.source(data)[0]
    with pytest.raises(UsageError, match=message):
        next(iter(grain.MapDataset.source(data).to_iter_dataset()))


def test_the_part_of_a_rank_that_grain_would_shard_again_is_refused(cars: Path) -> None:
    part = shardkit.dataset(cars, rank=1, world_size=2).decode(size=8)
    with pytest.raises(UsageError, match=r"count over all 2 ranks.*give dataset\(\) rank=0, world_size=1, and shard"):
        next(iter(grain.MapDataset.source(part)[1::2].to_iter_dataset()))
