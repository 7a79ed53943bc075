"""Several ranks, workers and frameworks: each rank packs its shards, and all of them have equal steps."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adapters.pack_to.packings import SMALL, TOTAL, files_in, finished_shards, settle

import shardkit

Reference = Callable[..., dict[str, bytes]]


def rank_of(photos: Path, dest: Path, rank: int, world_size: int, **options: Any) -> shardkit.Dataset[Any]:
    pack_to = {"dest": dest, **SMALL}
    return shardkit.dataset(photos, pack_to=pack_to, shuffle=True, rank=rank, world_size=world_size, **options)


def together(work: Callable[[int], Any], world_size: int) -> list[Any]:
    """What `work(rank)` returns for each rank, all in threads of their own."""
    found: list[Any] = [None] * world_size

    def run(rank: int) -> None:
        try:
            found[rank] = work(rank)
        except BaseException as exc:
            found[rank] = exc

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(world_size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not [each for each in found if isinstance(each, BaseException)], found
    return found


@pytest.mark.parametrize("world_size", [2, 3, 4, 13])
def test_each_rank_packs_its_shards_and_the_last_one_makes_the_dataset(
    photos: Path, tmp_path: Path, packed: Reference, world_size: int
) -> None:
    dest = tmp_path / "shards" / "train"
    datas = [rank_of(photos, dest, rank, world_size, remainder="uneven") for rank in range(world_size)]
    first = together(lambda rank: [sample["__key__"] for sample in datas[rank]], world_size)
    assert files_in(tmp_path / "shards") == packed()
    order = [sample["__key__"] for sample in shardkit.dataset(dest)]
    assert [key for keys in first for key in keys] == order
    second = together(lambda rank: [sample["__url__"] for sample in datas[rank]], world_size)
    assert {Path(url).parent for urls in second for url in urls} == {tmp_path / "shards"}


@pytest.mark.parametrize("remainder", ["drop", "pad"])
def test_all_ranks_have_equal_steps(photos: Path, tmp_path: Path, remainder: Any) -> None:
    dest = tmp_path / "shards" / "train"
    datas = [rank_of(photos, dest, rank, 7, remainder=remainder).batch(4) for rank in range(7)]
    lengths = [len(data) for data in datas]
    counts = together(lambda rank: [len(batch["cls"]) for batch in datas[rank]], 7)
    assert len({tuple(each) for each in counts}) == 1
    assert [len(each) for each in counts] == lengths
    assert [len(data) for data in datas] == lengths


def test_all_ranks_have_one_fingerprint_before_and_after_the_packing(photos: Path, tmp_path: Path) -> None:
    dest = tmp_path / "shards" / "train"
    before = rank_of(photos, dest, 0, 2).fingerprint
    together(lambda rank: list(rank_of(photos, dest, rank, 2)), 2)
    assert {rank_of(photos, dest, rank, 2).fingerprint for rank in range(2)} == {before}


@pytest.mark.usefixtures("close_behind")
@pytest.mark.parametrize(("old", "new"), [(2, 3), (3, 1), (1, 4), (4, 2)])
def test_another_world_resumes_the_first_epoch_and_its_packing(
    photos: Path, tmp_path: Path, packed: Reference, old: int, new: int
) -> None:
    dest = tmp_path / "shards" / "train"

    def some(rank: int) -> tuple[list[str], dict[str, Any]]:
        data = rank_of(photos, dest, rank, old)
        iterator = iter(data)
        return [next(iterator)["__key__"] for _ in range(60 // old)], data.state_dict()

    begun = together(some, old)
    settle()
    kept = finished_shards(tmp_path / "shards")
    assert kept

    def rest(rank: int) -> list[str]:
        data = rank_of(photos, dest, rank, new)
        data.load_state_dict(begun[0][1])
        return [sample["__key__"] for sample in data]

    ended = together(rest, new)
    keys = [key for part in [*(keys for keys, _ in begun), *ended] for key in part]
    assert sorted(keys) == sorted(shardkit.dataset(photos).keys)
    assert files_in(tmp_path / "shards") == packed()
    assert {name: (tmp_path / "shards" / name).stat().st_ino for name in kept} == kept


_RANK = """
import sys, time, shardkit
photos, dest, rank, world = sys.argv[1:]
data = shardkit.dataset(photos, pack_to={"dest": dest, "max_count": 10}, shuffle=True, rank=int(rank),
                        world_size=int(world)).decode(size=16).batch(4)
print("begun", flush=True)
print(sum(len(labels) for _, labels in data), flush=True)
print(sum(len(labels) for _, labels in data), flush=True)
"""


def start(photos: Path, folder: Path, rank: int, world_size: int) -> subprocess.Popen[bytes]:
    program = [sys.executable, "-c", _RANK, str(photos), str(folder / "train"), str(rank), str(world_size)]
    return subprocess.Popen(program, stdout=subprocess.PIPE)


def test_processes_that_are_killed_and_started_again(photos: Path, tmp_path: Path, packed: Reference) -> None:
    reference, chance = packed(), random.Random(0)
    folder = tmp_path / "shards"
    running = [start(photos, folder, rank, 3) for rank in range(3)]
    for each in running:
        assert each.stdout is not None and each.stdout.readline() == b"begun\n"
    for each in running:
        time.sleep(chance.uniform(0, 0.1))
        each.kill()
        each.communicate(timeout=60)
    again = [start(photos, folder, rank, 2) for rank in range(2)]
    assert [each.communicate(timeout=60)[0] for each in again] == [b"begun\n60\n60\n"] * 2
    assert files_in(folder) == reference


def test_the_workers_of_a_loader_read_while_the_first_one_packs(
    photos: Path, tmp_path: Path, packed: Reference
) -> None:
    pytest.importorskip("torch")
    dest = tmp_path / "shards" / "train"
    data = shardkit.dataset(photos, pack_to={"dest": dest, **SMALL}, shuffle=True).decode(size=16).batch(8)
    loader = data.to_torch().loader(num_workers=2)
    first = [labels.tolist() for _, labels in loader]
    assert files_in(tmp_path / "shards") == packed()
    assert first == [labels.tolist() for _, labels in shardkit.dataset(dest).decode(size=16).batch(8)]
    assert [labels.tolist() for _, labels in loader] == second_epoch(dest)


def second_epoch(dest: Path) -> list[Any]:
    shards = shardkit.dataset(dest, shuffle=True).decode(size=16).batch(8)
    shards.set_epoch(1)
    return [labels.tolist() for _, labels in shards]


def test_tensorflow_and_keras_read_and_pack(photos: Path, tmp_path: Path, packed: Reference) -> None:
    pytest.importorskip("tensorflow")
    reference = packed()
    for number, convert in enumerate(["to_tf", "to_keras"]):
        folder = tmp_path / f"shards{number}"
        data = shardkit.dataset(photos, pack_to={"dest": folder / "train", **SMALL}, shuffle=True)
        made = getattr(data.decode(size=16).batch(8), convert)()
        first = [np.asarray(labels).tolist() for _, labels in (made[n] for n in range(len(made)))] if number else [
            labels.numpy().tolist() for _, labels in made]  # fmt: skip
        assert sum(map(len, first)) == TOTAL
        settle()
        assert files_in(folder) == reference
