"""A job array of shell processes whose parts are killed at random moments, and run again: the bytes of one machine."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from storage.in_memory import files

import shardkit
from shardkit.location import locate
from shardkit.storage.store import open_store

PARTS = 3
ROUNDS = 3
LATEST_KILL_SECONDS = 3.0


def array(command: list[str], environment: Mapping[str, str]) -> list[subprocess.Popen[bytes]]:
    """The tasks of an array, each a shell that takes its part from the environment, as SLURM starts them."""
    sizes = {"SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_COUNT": str(PARTS)}
    return [
        subprocess.Popen(
            ["sh", "-c", 'exec "$@" --part auto', "sh", *command],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**environment, **sizes, "SLURM_ARRAY_TASK_ID": str(number)},
        )
        for number in range(1, PARTS + 1)
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["disk", "bucket"])
def test_parts_that_are_killed_and_run_again_give_the_bytes_of_one_machine(
    kind: str, tmp_path: Path, draw_tree: Any, request: pytest.FixtureRequest
) -> None:
    tree, one = draw_tree(tmp_path / "many", {"a": 40, "b": 50}), tmp_path / "one"
    shardkit.pack(tree, one / "train", max_count=2, workers=1)
    server = request.getfixturevalue("s3_server") if kind == "bucket" else None
    dest = str(tmp_path / "out" / "train") if server is None else f"{server.url}/train"
    stored = [] if server is None else [f"--storage-option={key}={value}" for key, value in server.options.items()]
    program = [sys.executable, "-m", "shardkit"]
    line = [*program, "pack", str(tree), dest, "--max-count", "2", "--workers", "2", *stored]
    environment = os.environ | {
        "PYTHONPATH": str(Path(shardkit.__file__).parents[1]), "XDG_CACHE_HOME": str(tmp_path / "cache")
    }  # fmt: skip
    chance = random.Random(3)
    for _ in range(ROUNDS):
        tasks = array(line, environment)
        for task in chance.sample(tasks, len(tasks)):
            time.sleep(chance.uniform(0, LATEST_KILL_SECONDS / PARTS))
            task.kill()
        assert all(task.wait(60) is not None for task in tasks)
    assert [task.wait(300) for task in array(line, environment)] == [0] * PARTS
    done = subprocess.run([*program, "merge", dest, *stored], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if server is None:
        found = files(tmp_path / "out")
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(found)
    else:
        store = open_store(locate(server.url), server.options)
        found = {info.name: b"".join(map(bytes, store.pieces(info.name))) for info in store.list()}
    assert found == files(one)
