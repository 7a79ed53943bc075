"""Ray Data: tasks that read runs of whole shards, every sample once, for one reader and distributed to two ranks."""

from __future__ import annotations

import json
import pickle
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest

import shardkit
from shardkit.errors import UsageError
from shardkit.reading.order.ranks import find_rank

SAMPLES = 30

needs_ray = pytest.mark.skipif(not (find_spec("ray") and find_spec("pandas")), reason="ray[data] is not installed")


@pytest.fixture(scope="module")
def cars(tmp_path_factory: pytest.TempPathFactory, draw_tree: Any) -> Path:
    """Shards of different sizes: 4 + 4 + … samples."""
    root = tmp_path_factory.mktemp("ray")
    tree = draw_tree(root / "tree", {"blue": 10, "red": SAMPLES - 10}, size=(12, 12))
    shardkit.pack(tree, root / "cars", workers=1, max_count=4)
    return root / "cars"


SCRIPT = """
import json, sys
import ray
import shardkit

ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=80 << 20)
data = shardkit.dataset(sys.argv[1])
raw = data.to_ray()
decoded = data.decode(size=8).to_ray(names=("image", "label"))
tensors = list(decoded.iter_torch_batches(batch_size=10))
parts = data.decode(size=8).to_ray().streaming_split(2, equal=False)

@ray.remote(num_cpus=0)
def read(part):
    return [str(key) for batch in part.iter_batches(batch_size=3) for key in batch["__key__"]]

print(json.dumps({
    "keys": sorted(row["__key__"] for row in raw.take_all()),
    "columns": [raw.schema().names, decoded.schema().names],
    "images": [list(batch["image"].shape) for batch in tensors],
    "labels": sorted(int(label) for batch in tensors for label in batch["label"]),
    "ranks": ray.get([read.remote(part) for part in parts]),
    "few": sorted(row["__key__"] for row in data[:5].to_ray().take_all()),
    "sizes": sorted(row["jpg"].shape[0] for row in data[:2].decode().to_ray().take_all()),
    "filtered": len(data.filter(lambda sample: sample["cls"] == 0).to_ray().take_all()),
}))
"""


@needs_ray
def test_ray_reads_every_sample_once(cars: Path, run_python: Any) -> None:
    pytest.importorskip("torch")
    run = run_python("-c", SCRIPT, str(cars), cwd=cars.parent, RAY_DATA_DISABLE_PROGRESS_BARS="1")
    found = json.loads(run.stdout.splitlines()[-1])
    data = shardkit.dataset(cars)
    keys = sorted(data.keys)
    assert found["keys"] == keys
    assert found["columns"] == [["__key__", "__url__", "jpg", "cls"], ["image", "label"]]
    assert [size[1:] for size in found["images"]] == [[8, 8, 3]] * 3
    assert found["labels"] == sorted(data.labels)
    assert sorted(found["ranks"][0] + found["ranks"][1]) == keys
    assert all(found["ranks"])
    assert found["few"] == sorted(data.keys[:5])
    assert found["sizes"] == [12, 12]
    assert found["filtered"] == 10


@needs_ray
def test_a_task_in_another_working_directory_reads_the_same(
    cars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shardkit.adapters.ray import ShardSource

    monkeypatch.chdir(cars.parent)
    tasks = pickle.dumps(ShardSource(shardkit.dataset(cars.name)).get_read_tasks(2))
    monkeypatch.chdir(tmp_path)
    assert [key for task in pickle.loads(tasks) for block in task() for key in block["__key__"].to_pylist()] == list(
        shardkit.dataset(cars).keys
    )


@needs_ray
@pytest.mark.parametrize("empty", [lambda data: data[:0], lambda data: data.where(pc.field("width") > 1000)])
def test_an_empty_view_has_no_rows(cars: Path, empty: Any) -> None:
    from shardkit.adapters.ray import ShardSource

    (task,) = ShardSource(empty(shardkit.dataset(cars))).get_read_tasks(4)
    assert list(task()) == []
    assert task.metadata.num_rows == 0


@needs_ray
def test_what_is_no_dataset_is_refused(cars: Path) -> None:
    from shardkit.adapters.ray import ShardSource

    with pytest.raises(UsageError, match=r"str is not a Dataset; give one, such as shardkit\.dataset"):
        ShardSource(str(cars))  # type: ignore[arg-type]


@needs_ray
@pytest.mark.parametrize("tasks", [1, 2, 3, 8, 100])
def test_a_task_reads_whole_shards(cars: Path, tasks: int) -> None:
    from shardkit.adapters.ray import shard_runs

    data = shardkit.dataset(cars)
    counts = data.content.catalog.counts
    bounds = shard_runs(data, tasks)
    assert len(bounds) == min(tasks, len(counts))
    assert [low for low, _ in bounds] == [0, *(high for _, high in bounds[:-1])] and bounds[-1][1] == SAMPLES
    assert {high for _, high in bounds} <= set(np.cumsum(counts).tolist())
    odd = data[1::2]
    assert sum(high - low for low, high in shard_runs(odd, tasks)) == SAMPLES // 2
    ends = {high for _, high in shard_runs(odd, tasks)}
    assert ends <= set(np.searchsorted(np.arange(1, SAMPLES, 2), np.cumsum(counts)).tolist())
    assert sum(high - low for low, high in shard_runs(data[[5, 3, 2]], tasks)) == 3


@needs_ray
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.decode(size=8).batch(2), r"Ray makes its own batches; omit batch\(\)"),
        (lambda data: data.shuffle(), r"the dataset is shuffled, .*use random_shuffle\(\)"),
        (lambda data: data.repeat(2), "need shardkit's epochs"),
        (lambda data: data.balance(), "need shardkit's epochs"),
        (lambda data: data.epoch_size(5), "need shardkit's epochs"),
        (lambda data: shardkit.mix([data, data]), "need shardkit's epochs"),
        (lambda data: data.decode(size=8, flip=True), r"would not change; omit them, and use map_batches\(\)"),
        (lambda data: data.map(lambda sample, rng: sample, rng=True), "would not change"),
    ],
)
def test_what_ray_does_itself_is_refused(cars: Path, change: Any, message: str) -> None:
    from shardkit.adapters.ray import ShardSource

    with pytest.raises(UsageError, match=rf"to_ray\(\): .*{message}"):
        ShardSource(change(shardkit.dataset(cars)))


@needs_ray
def test_the_part_of_a_rank_is_refused(cars: Path) -> None:
    from shardkit.adapters.ray import ShardSource

    with pytest.raises(UsageError, match=r"this is the part of rank 1 of 2, and Ray would distribute it .* again"):
        ShardSource(shardkit.dataset(cars, rank=1, world_size=2))
    with pytest.raises(UsageError, match="names: the images are not decoded"):
        ShardSource(shardkit.dataset(cars), names=("image", "label"))


def test_a_worker_of_ray_train_knows_its_rank(cars: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also without a process group, as with Ray's trainers for other frameworks."""
    context = SimpleNamespace(get_world_rank=lambda: 1, get_world_size=lambda: 2)
    monkeypatch.setitem(sys.modules, "ray.train", SimpleNamespace(get_context=lambda: context))
    assert find_rank(None, None, {}) == (1, 2)
    assert len(shardkit.dataset(cars)) == SAMPLES // 2


def test_a_program_that_only_imports_ray_train_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_in_a_worker() -> None:
        raise RuntimeError("`get_context` cannot be used outside of a Ray Train training function.")

    monkeypatch.setitem(sys.modules, "ray.train", SimpleNamespace(get_context=not_in_a_worker))
    assert find_rank(None, None, {}) == (0, 1)
