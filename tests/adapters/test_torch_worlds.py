"""Ranks of torch.distributed that are killed, and resumed by another number of them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import shardkit

pytest.importorskip("torch")

READING = '''
"""One rank: reads batches, and notes the keys of each; rank 0 saves the state after some, and all die later."""
import json, os, signal, sys

import torch.distributed as dist

import shardkit

folder, run, rank, world, size, save_at, die_at = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
dist.init_process_group("gloo", init_method=f"file://{folder}/store-{run}", rank=rank, world_size=world)
data = shardkit.dataset(f"{folder}/cars", shuffle=12, seed=4, remainder="uneven", threads=1).batch(size)
if os.path.exists(f"{folder}/state"):
    with open(f"{folder}/state") as file:
        data.load_state_dict(json.load(file))
with open(f"{folder}/keys-{run}-{rank}", "w") as out:
    for step, batch in enumerate(data, 1):
        out.write(json.dumps(list(batch["__key__"])) + "\\n")
        out.flush()
        if step == save_at and rank == 0:
            with open(f"{folder}/state", "w") as file:
                json.dump(data.state_dict(), file)
        if step == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
dist.destroy_process_group()
'''


def run_world(folder: Path, run: str, world: int, size: int, save_at: int = 0, die_at: int = 0) -> list[int]:
    home = str(Path(shardkit.__file__).parent.parent)
    code = f"import sys; sys.path.insert(0, {home!r})\n{READING}"
    numbers = [[str(number) for number in (rank, world, size, save_at, die_at)] for rank in range(world)]
    ranks = [subprocess.Popen([sys.executable, "-c", code, str(folder), run, *own]) for own in numbers]
    try:
        return [process.wait(120) for process in ranks]
    finally:
        for process in ranks:
            process.kill()


def batches_of(folder: Path, run: str, world: int) -> list[list[list[str]]]:
    """The batches of each rank, as keys."""
    texts = [(folder / f"keys-{run}-{rank}").read_text() for rank in range(world)]
    return [[json.loads(line) for line in text.splitlines()] for text in texts]


def test_ranks_that_are_killed_are_resumed_by_others_with_every_sample_once(tmp_path: Path, draw_tree: Any) -> None:
    """4 ranks with batches of 3 save after 2 steps and die after 3; 3 ranks do the same with batches of 2, 2 finish."""
    tree = draw_tree(tmp_path / "tree", {"blue": 35, "red": 36}, size=(10, 10))
    shardkit.pack(tree, tmp_path / "cars", workers=1, max_count=6)
    assert run_world(tmp_path, "a", 4, 3, 2, 3) == [-signal.SIGKILL] * 4
    assert json.loads((tmp_path / "state").read_text())["layout"] == 4
    assert run_world(tmp_path, "b", 3, 2, 2, 3) == [-signal.SIGKILL] * 3
    assert json.loads((tmp_path / "state").read_text())["layout"] == 4
    assert run_world(tmp_path, "c", 2, 5) == [0, 0]
    first = [own[:2] for own in batches_of(tmp_path, "a", 4)]
    second = [own[:2] for own in batches_of(tmp_path, "b", 3)]
    kept = [*first, *second, *batches_of(tmp_path, "c", 2)]
    found = sorted(key for own in kept for batch in own for key in batch)
    assert found == sorted(sample["__key__"] for sample in shardkit.dataset(tmp_path / "cars"))
