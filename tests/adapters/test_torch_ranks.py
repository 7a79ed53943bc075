from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import shardkit

pytest.importorskip("torch")

TRAINING = '''
"""One rank of two: trains without a break, then again with a break; or goes on from the last checkpoint."""
import os, signal, sys

import torch
import torch.distributed as dist

import shardkit

rank, folder, resume = int(sys.argv[1]), sys.argv[2], sys.argv[3] == "resume"
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/store-{sys.argv[3]}", rank=rank, world_size=2)


def save(value, name):
    if rank == 0:
        torch.save(value, f"{folder}/{name}.part")
        os.replace(f"{folder}/{name}.part", f"{folder}/{name}")


def train(checkpoint=None, die_at=None):
    data = shardkit.dataset(f"{folder}/cars", shuffle=20, seed=1, threads=1)
    loader = data.decode(size=8, crop="random", flip=True, rescale=1 / 255).batch(5).to_torch().loader()
    model = torch.nn.Linear(8 * 8 * 3, 2)
    torch.manual_seed(0)
    torch.nn.init.normal_(model.weight, std=0.01)
    torch.nn.init.zeros_(model.bias)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    step = epoch = 0
    if checkpoint is not None:
        model.load_state_dict(checkpoint["model"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        loader.load_state_dict(checkpoint["loader"])
        step, epoch = checkpoint["step"], checkpoint["loader"]["epoch"]
    keys = []
    for epoch in range(epoch, 3):
        loader.set_epoch(epoch)
        for batch in loader:
            if step == die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            loss = torch.nn.functional.cross_entropy(model(batch.images.flatten(1)), batch.labels)
            optimizer.zero_grad()
            loss.backward()
            for parameter in model.parameters():
                dist.all_reduce(parameter.grad)
                parameter.grad /= 2
            optimizer.step()
            step += 1
            keys += batch.keys
            if step % 4 == 0 and die_at is not None:
                save({"model": model.state_dict(), "optimizer": optimizer.state_dict(),
                      "loader": loader.state_dict(), "step": step}, "checkpoint")
    save({"weights": model.state_dict(), "step": step, "keys": keys}, "resumed" if resume else "whole")


if resume:
    train(torch.load(f"{folder}/checkpoint"))
else:
    train()
    train(die_at=10)
dist.destroy_process_group()
'''


def run_two_ranks(folder: Path, what: str) -> list[int]:
    home = str(Path(shardkit.__file__).parent.parent)
    ranks = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"import sys; sys.path.insert(0, {home!r})\n{TRAINING}",
                str(rank),
                str(folder),
                what,
            ]
        )
        for rank in (0, 1)
    ]
    try:
        return [process.wait(120) for process in ranks]
    finally:
        for process in ranks:
            process.kill()


def test_two_ranks_that_are_killed_and_resumed_end_with_the_same_weights(tmp_path: Path, draw_tree: Any) -> None:
    """60 samples, 2 ranks, batches of 5: 6 steps an epoch; killed in the second epoch, two steps after a checkpoint."""
    import torch

    shardkit.pack(draw_tree(tmp_path / "tree", {"blue": 25, "red": 35}, size=(10, 10)), tmp_path / "cars", workers=1)
    assert run_two_ranks(tmp_path, "begin") == [-signal.SIGKILL, -signal.SIGKILL]
    assert torch.load(tmp_path / "checkpoint")["step"] == 8
    assert run_two_ranks(tmp_path, "resume") == [0, 0]
    whole, resumed = torch.load(tmp_path / "whole"), torch.load(tmp_path / "resumed")
    assert whole["step"] == resumed["step"] == 18
    assert resumed["keys"] == whole["keys"][8 * 5 :]
    for name, weights in whole["weights"].items():
        assert torch.equal(resumed["weights"][name], weights)
    assert float(whole["weights"]["weight"].abs().max()) > 0.05
