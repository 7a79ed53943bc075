"""Two real workers of a tf.distribute strategy, which know their ranks by TF_CONFIG."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import shardkit

pytest.importorskip("tensorflow")

READING = """
import os, sys

import tensorflow as tf

import shardkit
from shardkit.adapters.keras import to_keras

strategy = tf.distribute.MultiWorkerMirroredStrategy()
data = shardkit.dataset(sys.argv[1], shuffle=True, threads=1).decode(size=8).batch(4)
try:
    to_keras(data)
except shardkit.UsageError as exc:
    print(exc)
parts = [strategy.experimental_local_results(labels)[0]
         for _, labels in strategy.experimental_distribute_dataset(data.to_tf())]
print("labels", *(int(label) for part in parts for label in part.numpy()), flush=True)
os._exit(0)  # the strategy's own shutdown waits for the other worker
"""


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def test_the_workers_of_a_strategy_read_each_sample_once(tmp_path: Path, draw_tree: Any) -> None:
    """A class for each sample, so that the labels tell them apart."""
    names = {f"class{number:02}": 1 for number in range(16)}
    shardkit.pack(draw_tree(tmp_path / "tree", names, size=(10, 10)), tmp_path / "cars", workers=1)
    hosts = [f"127.0.0.1:{port}" for port in free_ports(2)]
    home = str(Path(shardkit.__file__).parent.parent)
    workers = []
    for index in range(2):
        config = {"cluster": {"worker": hosts}, "task": {"type": "worker", "index": index}}
        code = f"import sys; sys.path.insert(0, {home!r})\n{READING}"
        env = {**os.environ, "TF_CONFIG": json.dumps(config), "CUDA_VISIBLE_DEVICES": ""}
        command = [sys.executable, "-c", code, str(tmp_path / "cars")]
        workers.append(subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE))
    try:
        said = [worker.communicate(timeout=120)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    labels = [
        int(word) for text in said for line in text.splitlines() if line[:6] == "labels" for word in line.split()[1:]
    ]
    assert sorted(labels) == list(range(16))
    assert all("a strategy from $TF_CONFIG would shard it again; use to_tf()" in text for text in said)
