"""Accelerate: each way to give it shards, in each of its modes, reads every sample once, or says before the first batch
what to do."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import shardkit

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

BATCH, SAMPLES = 3, 26
"""The samples are neither a multiple of what two ranks take in a step, nor of what four do."""

RANK = '''
"""One rank: an epoch of each way and mode, and the samples that came, as the sums of their pixels."""
import json, sys

import torch
from accelerate import Accelerator, DataLoaderConfiguration
from accelerate.state import AcceleratorState, GradientState

import shardkit

prefix, sink, batch, *cases = sys.argv[1:]
batch = int(batch)
torch.set_num_threads(1)


def source(what, **options):
    whole = {"rank": 0, "world_size": 1} if what == "whole" else {}
    return shardkit.dataset(prefix, threads=1, remainder="pad", **whole).decode(size=8).batch(batch, drop_last=False)


def given(way, what):
    data = source(what).to_torch()
    if way == "loader":
        return data.loader()
    return data if way == "dataset" else torch.utils.data.DataLoader(data, batch_size=None)


def epoch(accelerator, loader):
    layer = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(layer.parameters(), 0.1)
    layer, optimizer = accelerator.prepare(layer, optimizer)
    seen, synchronized = [], []
    for images, labels in loader:
        with accelerator.accumulate(layer):
            accelerator.backward(layer(images.float().mean((1, 2, 3))[:, None]).sum())
            optimizer.step()
            optimizer.zero_grad()
            synchronized.append(accelerator.sync_gradients)
        seen += [str(image.flatten().tolist()) for image in images]
    return {"seen": seen, "synchronized": synchronized}


MODES = {
    "dispatch": {"dispatch_batches": True}, "shard": {"dispatch_batches": False}, "split": {"split_batches": True},
    "default": {},
}
results = {}
for case in cases:
    what, way, mode = case.split()
    AcceleratorState._reset_state()
    GradientState._reset_state()
    settings = DataLoaderConfiguration(**MODES[mode])
    accelerator = Accelerator(cpu=True, dataloader_config=settings, gradient_accumulation_steps=2)
    try:
        results[case] = epoch(accelerator, accelerator.prepare(given(way, what)))
    except shardkit.UsageError as exc:
        results[case] = {"error": str(exc)}
with open(sink, "w") as file:
    json.dump(results, file)
if torch.distributed.is_initialized():
    torch.distributed.destroy_process_group()
'''


READ = [
    "part dataset default", "part loader default", "part loader dispatch", "part loader shard", "part loader split",
    "whole plain dispatch", "whole loader default",
]  # fmt: skip
"""What reads everything: the dataset of this rank's part, its loader in each mode, and the whole, distributed."""

REFUSED = {
    "part plain default": "this is already the part of rank",
    "part plain shard": "this is already the part of rank",
    "whole plain shard": "IterableDatasetShard can't distribute a dataset of whole batches",
}


def run_ranks(folder: Path, prefix: Path, count: int) -> list[dict[str, Any]]:
    """What each of `count` ranks wrote."""
    (folder / "rank.py").write_text(RANK)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    home = str(Path(shardkit.__file__).parent.parent)
    world = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port} if count > 1 else {}
    ranks = []
    for rank in range(count):
        numbered = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if count > 1 else {}
        ranks.append(
            subprocess.Popen(
                [sys.executable, "rank.py", str(prefix), f"rank-{rank}.json", str(BATCH), *READ, *REFUSED],
                cwd=folder,
                env={**os.environ, **world, **numbered, "PYTHONPATH": home, "OMP_NUM_THREADS": "1"},
            )
        )
    try:
        assert [process.wait(timeout=240) for process in ranks] == [0] * count
    finally:
        for process in ranks:
            process.kill()
    return [json.loads((folder / f"rank-{rank}.json").read_text("utf-8")) for rank in range(count)]


@pytest.fixture
def cars(tmp_path: Path, draw_tree: Any) -> Path:
    tree = draw_tree(tmp_path / "tree", {"blue": 10, "red": SAMPLES - 10}, size=(12, 12))
    shardkit.pack(tree, tmp_path / "cars", workers=1)
    return tmp_path / "cars"


@pytest.mark.parametrize("count", [1, 2, 4])
def test_each_way_reads_every_sample_or_says_what_to_do(tmp_path: Path, cars: Path, count: int) -> None:
    """What the ranks can't share evenly comes twice: shardkit and Accelerate fill up the last step."""
    ranks = run_ranks(tmp_path, cars, count)
    for case in READ:
        each = [rank[case]["seen"] for rank in ranks]
        seen = Counter(key for keys in each for key in keys)
        assert len(seen) == SAMPLES, case
        assert len({len(keys) for keys in each}) == 1, case
        assert sum(seen.values()) == -(-SAMPLES // count) * count, case
    for case, fact in REFUSED.items():
        for rank in ranks:
            if count == 1:
                assert len(set(rank[case]["seen"])) == len(rank[case]["seen"]) == SAMPLES
            else:
                assert fact in rank[case]["error"]
                assert "give accelerator.prepare() the loader of to_torch().loader()" in rank[case]["error"]
    for rank in ranks:  # gradients of two steps are accumulated, and those of a last odd step too
        steps = rank["part loader default"]["synchronized"]
        assert len(steps) == -(-SAMPLES // (BATCH * count))
        assert steps == [step % 2 == 1 or step == len(steps) - 1 for step in range(len(steps))]


def prepared(cars: Path, workers: int = 0) -> Any:
    from accelerate import Accelerator

    data = shardkit.dataset(cars, shuffle=8, seed=1, threads=1).decode(size=8).batch(BATCH, drop_last=False)
    options = {"multiprocessing_context": "fork"} if workers else {}
    return Accelerator(cpu=True).prepare(data.to_torch().loader(num_workers=workers, **options))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", [1, 4, -(-SAMPLES // BATCH)])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork")
def test_a_prepared_loader_is_resumed_at_the_batch_after_the_delivered_one(cars: Path, workers: int, stop: int) -> None:
    whole, first, second = (prepared(cars, workers) for _ in range(3))
    expected = [[batch.keys for batch in whole] for _ in range(2)]
    iterator = iter(first)
    found = [next(iterator).keys for _ in range(stop)]
    second.load_state_dict(first.state_dict())
    del iterator
    assert found + [batch.keys for batch in second] == expected[0]
    assert [batch.keys for batch in second] == expected[1]


def test_a_prepared_loader_tells_accelerate_where_its_epoch_ends(cars: Path) -> None:
    from accelerate.state import GradientState

    loader = prepared(cars)
    ends = [GradientState().end_of_dataloader for _ in loader]
    assert ends == [False] * (len(loader) - 1) + [True]
    assert not GradientState().in_dataloader


def test_the_batches_of_a_prepared_loader_are_on_the_device(cars: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate.state import PartialState

    loader = prepared(cars)
    monkeypatch.setattr(PartialState(), "device", torch.device("meta"))
    batch = next(iter(loader))
    assert (batch.images.device.type, batch.labels.device.type) == ("meta", "meta")
    assert len(batch.keys) == BATCH
