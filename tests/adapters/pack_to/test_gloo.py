"""Ranks of torch.distributed that train in step while they pack, are killed, and go on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from adapters.pack_to.packings import TOTAL, files_in

import shardkit

pytest.importorskip("torch")

BATCH = 4

TRAINING = '''
"""One rank: two epochs, in step with the others by a sum over all of them after each batch; dies after a step."""
import os, signal, sys

import torch
import torch.distributed as dist

import shardkit

photos, dest, store, rank, world, dies = sys.argv[1], sys.argv[2], sys.argv[3], *map(int, sys.argv[4:])
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
data = shardkit.dataset(photos, pack_to={"dest": dest, "max_count": 10}, shuffle=True)
loader = data.decode(size=16).batch(BATCH).to_torch().loader(num_workers=0)
for epoch in range(2):
    seen = torch.zeros(1, dtype=torch.int64)
    for step, (images, labels) in enumerate(loader, 1):
        total = torch.tensor([len(labels)])
        dist.all_reduce(total)
        seen += total
        if step == dies:
            os.kill(os.getpid(), signal.SIGKILL)
    print(int(seen), flush=True)
dist.destroy_process_group()
'''.replace("BATCH", str(BATCH))


def train(photos: Path, folder: Path, run: int, dies: tuple[int, int] = (-1, 0)) -> list[tuple[int, list[str]]]:
    """(exit status, samples of each epoch) of two ranks. dies: one of them, after a step."""
    home = str(Path(shardkit.__file__).parent.parent)
    code = f"import sys; sys.path.insert(0, {home!r})\n{TRAINING}"
    where = [str(photos), str(folder / "train"), str(folder.with_name(f"store-{run}"))]
    commands = [
        [sys.executable, "-c", code, *where, str(rank), "2", str(dies[1] if rank == dies[0] else 0)]
        for rank in range(2)
    ]
    ranks = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) for command in commands
    ]
    try:
        return [(each.wait(240), (each.communicate()[0] or "").split()) for each in ranks]
    finally:
        for each in ranks:
            each.kill()


def test_ranks_that_train_in_step_are_killed_and_go_on_until_the_shards_are_those_of_pack(
    photos: Path, tmp_path: Path, packed: Callable[..., Any]
) -> None:
    folder = tmp_path / "shards"
    for run, dies in enumerate([(1, 1), (0, 5)]):
        ended = train(photos, folder, run, dies)
        assert all(status != 0 for status, _ in ended)  # the other one loses its peer
    assert train(photos, folder, 9) == [(0, [str(TOTAL)] * 2)] * 2
    assert files_in(folder) == packed()


def test_each_rank_packs_a_part_in_step_with_the_other(
    photos: Path, tmp_path: Path, packed: Callable[..., Any]
) -> None:
    assert train(photos, tmp_path / "shards", 0) == [(0, [str(TOTAL)] * 2)] * 2
    assert files_in(tmp_path / "shards") == packed()
