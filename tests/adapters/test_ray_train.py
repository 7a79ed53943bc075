"""Ray Train: each worker is a rank, and a state in a checkpoint is resumed by another number of workers."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import shardkit

SAMPLES, BATCH = 40, 4

needs_train = pytest.mark.skipif(
    not all(map(find_spec, ("ray", "torch", "pandas", "pyarrow"))), reason="ray[train] and torch are not installed"
)

SCRIPT = """
import json, os, sys, tempfile
import ray, shardkit
from ray.train import Checkpoint, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=80 << 20)

def loop(config):
    import ray.train
    data = shardkit.dataset(config["source"], shuffle=20, seed=3).batch(4, drop_last=False)
    before = ray.train.get_checkpoint() or config["state"]
    if before is not None:
        with before.as_directory() as folder, open(os.path.join(folder, "state.json")) as file:
            data.load_state_dict(json.load(file))
    keys = []
    for number, batch in enumerate(data, 1):
        keys += batch["__key__"]
        if number == config["batches"]:
            break
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "state.json"), "w") as file:
            json.dump(data.state_dict(), file)
        rank = ray.train.get_context().get_world_rank()
        with open(os.path.join(config["out"], f"{config['name']}-{rank}.json"), "w") as file:
            json.dump([data.reading.ranks, keys], file)
        ray.train.report({}, checkpoint=Checkpoint.from_directory(folder) if rank == 0 else None)

def train(name, workers, batches, state=None):
    config = {"source": sys.argv[1], "out": sys.argv[2], "name": name, "batches": batches, "state": state}
    scaling = ScalingConfig(num_workers=workers, resources_per_worker={"CPU": 0.5})
    run = RunConfig(name=name, storage_path=sys.argv[2])
    return TorchTrainer(loop, train_loop_config=config, scaling_config=scaling, run_config=run).fit().checkpoint

train("second", 1, 0, train("first", 2, 2))
"""


@needs_train
def test_workers_of_ray_train_are_ranks_and_another_number_of_them_goes_on(
    tmp_path: Path, draw_tree: Any, run_python: Any
) -> None:
    tree = draw_tree(tmp_path / "tree", {"blue": SAMPLES // 2, "red": SAMPLES // 2}, size=(12, 12))
    shardkit.pack(tree, tmp_path / "cars", workers=1, max_count=6)
    out = tmp_path / "out"
    out.mkdir()
    run_python("-c", SCRIPT, str(tmp_path / "cars"), str(out), cwd=tmp_path, RAY_TRAIN_V2_ENABLED="1")
    first = [json.loads((out / f"first-{rank}.json").read_text()) for rank in range(2)]
    second = json.loads((out / "second-0.json").read_text())
    assert [ranks for ranks, _ in first] == [[0, 2], [1, 2]]
    assert second[0] == [0, 1]
    assert [len(keys) for _, keys in first] == [2 * BATCH] * 2
    everything = [*first[0][1], *first[1][1], *second[1]]
    assert sorted(everything) == sorted(shardkit.dataset(tmp_path / "cars").keys.tolist())


@pytest.mark.skipif(not find_spec("ray"), reason="ray is not installed")
def test_the_module_of_ray_has_the_source_of_ray_data() -> None:
    from shardkit.adapters.ray import ShardSource, to_ray

    assert (shardkit.ray.ShardSource, shardkit.ray.to_ray) == (ShardSource, to_ray)
