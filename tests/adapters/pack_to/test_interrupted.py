"""Epochs that end early, states, and processes that are killed: nothing that was packed is lost."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from adapters.pack_to.packings import SMALL, files_in, finished_shards, settle

import shardkit

Reference = Callable[..., dict[str, bytes]]


def opened(photos: Path, dest: Path, **options: Any) -> shardkit.Dataset[Any]:
    return shardkit.dataset(photos, pack_to={"dest": dest, **SMALL}, shuffle=True, **options)


@pytest.mark.usefixtures("close_behind")
def test_a_part_of_an_epoch_leaves_a_packing_that_the_next_one_ends(
    photos: Path, tmp_path: Path, packed: Reference
) -> None:
    data = opened(photos, tmp_path / "shards" / "train")
    for number, _ in enumerate(data):
        if number == 40:
            break
    settle()
    kept = finished_shards(tmp_path / "shards")
    assert 0 < len(kept) < 12 and not (tmp_path / "shards" / "train.json").exists()
    for _ in data:
        pass
    assert files_in(tmp_path / "shards") == packed()
    assert {name: (tmp_path / "shards" / name).stat().st_ino for name in kept} == kept


@pytest.mark.usefixtures("close_behind")
def test_epochs_of_a_few_samples_pack_on_and_on(photos: Path, tmp_path: Path, packed: Reference) -> None:
    data = opened(photos, tmp_path / "shards" / "train").take(3)
    for _ in range(14):
        assert len(list(data)) == 3
        settle()
    assert files_in(tmp_path / "shards") == packed()


@pytest.mark.usefixtures("close_behind")
def test_pack_ends_what_an_epoch_has_begun(photos: Path, tmp_path: Path, packed: Reference) -> None:
    iterator = iter(opened(photos, tmp_path / "shards" / "train"))
    for _ in range(30):
        next(iterator)
    with pytest.raises(shardkit.BusyError):
        shardkit.pack(photos, tmp_path / "shards" / "train", **SMALL)
    del iterator
    settle()
    kept = finished_shards(tmp_path / "shards")
    assert kept
    shardkit.pack(photos, tmp_path / "shards" / "train", **SMALL)
    assert files_in(tmp_path / "shards") == packed()


def test_while_another_process_packs_the_epoch_reads_the_tree(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = (opened(photos, tmp_path / "shards" / "train") for _ in range(2))
    from shardkit.adapters.pack_to.plan import plan_packing

    with plan_packing(first.content.asked).destination.locked():
        keys = [sample["__key__"] for sample in first]
    assert "another run" in caplog.text and "packs nothing" in caplog.text
    assert not (tmp_path / "shards" / "train.json").exists()
    assert keys == [sample["__key__"] for sample in second]


@pytest.mark.parametrize("done", [0, 1, 37, 119])
@pytest.mark.parametrize("ended", [False, True], ids=["unfinished", "packed"])
def test_a_state_of_the_first_epoch_resumes_at_the_next_sample(
    photos: Path, tmp_path: Path, done: int, ended: bool
) -> None:
    whole = [sample["__key__"] for sample in opened(photos, tmp_path / "reference" / "train")]
    data = opened(photos, tmp_path / "shards" / "train")
    iterator = iter(data)
    before = [next(iterator)["__key__"] for _ in range(done)]
    state = data.state_dict()
    if ended:
        for _ in iterator:
            pass
    del iterator
    settle()
    again = opened(photos, tmp_path / "shards" / "train")
    again.load_state_dict(state)
    rest = [sample["__key__"] for sample in again]
    assert before + rest == whole
    settle()
    assert [sample["__key__"] for sample in again] != whole


def test_a_state_of_other_shards_is_refused(photos: Path, tmp_path: Path) -> None:
    data = opened(photos, tmp_path / "shards" / "train")
    state = data.state_dict()
    other = shardkit.dataset(photos, pack_to={"dest": tmp_path / "other", "max_count": 10, "seed": 1}, shuffle=True)
    with pytest.raises(shardkit.StateError, match="another dataset, or to another order"):
        other.load_state_dict(state)
    for _ in data:
        pass
    with pytest.raises(shardkit.StateError, match="another dataset, or to another order"):
        shardkit.dataset(tmp_path / "shards" / "train", shuffle=True).load_state_dict(state)


_PROGRAM = """
import sys, shardkit
photos, dest = sys.argv[1:]
data = shardkit.dataset(photos, pack_to={"dest": dest, "max_count": 10}, shuffle=True).decode(size=16).batch(4)
print("begun", flush=True)
print(sum(len(labels) for _, labels in data), flush=True)
"""


@pytest.mark.parametrize("how", ["KILL", "INT"])
def test_a_process_that_is_ended_at_any_moment_loses_no_finished_shard(
    photos: Path, tmp_path: Path, packed: Reference, how: str
) -> None:
    reference, chance = packed(), random.Random(how)
    for number in range(2):
        folder = tmp_path / f"shards{number}"
        running = start(photos, folder)
        assert running.stdout is not None and running.stdout.readline() == b"begun\n"
        time.sleep(chance.uniform(0, 0.25))
        running.send_signal(getattr(signal, f"SIG{how}"))
        running.communicate(timeout=60)
        kept = finished_shards(folder)
        again = start(photos, folder)
        assert again.communicate(timeout=60)[0] == b"begun\n120\n"
        assert files_in(folder) == reference
        assert {name: (folder / name).stat().st_ino for name in kept} == kept


def start(photos: Path, folder: Path) -> subprocess.Popen[bytes]:
    program = [sys.executable, "-c", _PROGRAM, str(photos), str(folder / "train")]
    return subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
