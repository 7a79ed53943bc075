"""JAX: the part of each process on its devices, as one global array of all processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import shardkit

pytestmark = pytest.mark.skipif(not find_spec("jax"), reason="jax is not installed")

SAMPLES, BATCH, DEVICES = 24, 4, 2

SCRIPT = """
import json, sys
import jax

prefix, size, rank, processes, port = sys.argv[1], *map(int, sys.argv[2:])
if processes > 1:
    jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=processes, process_id=rank)
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import shardkit

mesh = Mesh(np.array(jax.devices()), ("batch",))
sharding = NamedSharding(mesh, PartitionSpec("batch"))
keys, shapes, devices, local = [], [], [], True
for batch in shardkit.dataset(prefix, shuffle=8, seed=1, threads=1).decode(size=8).batch(size):
    images, labels = (jax.make_array_from_process_local_data(sharding, part) for part in batch)
    keys += batch.keys
    shapes.append(images.shape)
    devices.append(len(images.sharding.device_set))
    mine = np.concatenate([np.asarray(shard.data) for shard in images.addressable_shards])
    local = local and bool((mine == batch.images).all())
print(json.dumps({"keys": keys, "shapes": shapes, "devices": devices, "local": local}))
"""


@pytest.fixture(scope="module")
def cars(tmp_path_factory: pytest.TempPathFactory, draw_tree: Any) -> Path:
    root = tmp_path_factory.mktemp("jax")
    tree = draw_tree(root / "tree", {"blue": SAMPLES // 2, "red": SAMPLES - SAMPLES // 2}, size=(12, 12))
    shardkit.pack(tree, root / "cars", workers=1)
    return root / "cars"


@pytest.mark.parametrize("processes", [1, 2])
def test_every_sample_is_once_on_the_devices_of_a_process(cars: Path, processes: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    home = str(Path(shardkit.__file__).parent.parent)
    devices = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"--xla_force_host_platform_device_count={DEVICES}"}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, *map(str, (cars, BATCH, rank, processes, port))], cwd=cars.parent,
            stdout=subprocess.PIPE, text=True, env={**os.environ, **devices, "PYTHONPATH": home},
        )
        for rank in range(processes)
    ]  # fmt: skip
    try:
        found = [json.loads(process.communicate(timeout=240)[0].splitlines()[-1]) for process in running]
    finally:
        for process in running:
            process.kill()
    assert sorted(key for rank in found for key in rank["keys"]) == sorted(shardkit.dataset(cars).keys)
    for rank in found:
        assert len(rank["keys"]) == SAMPLES // processes
        assert rank["shapes"] == [[BATCH * processes, 8, 8, 3]] * (SAMPLES // processes // BATCH)
        assert set(rank["devices"]) == {DEVICES * processes}
        assert rank["local"]
