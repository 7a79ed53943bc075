"""Ranks that read different datasets under one name say so, and a rank that reads alone does not wait for ever."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import shardkit
from shardkit.reading import fingerprint

pytest.importorskip("torch")

RANK = """
import sys
import torch.distributed as dist
import shardkit
from shardkit.reading import fingerprint

rank, folder, what = int(sys.argv[1]), sys.argv[2], sys.argv[3]
fingerprint.ABSENT_SECONDS, fingerprint.DIFFER_SECONDS = 20.0 if what == "differ" else 1.0, 2.0
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
name = f"{folder}/{'old' if what == 'differ' and rank else 'new'}/train"
if what == "differ":  # the same place, at two times
    import os
    if rank == 0:
        os.rename(f"{folder}/new", f"{folder}/data")
        data = shardkit.dataset(f"{folder}/data/train", shuffle=8, seed=1)
        len(data)
        os.rename(f"{folder}/data", f"{folder}/new")
        os.rename(f"{folder}/old", f"{folder}/data")
        dist.barrier()
    else:
        dist.barrier()
        data = shardkit.dataset(f"{folder}/data/train", shuffle=8, seed=1)
else:
    data = shardkit.dataset(name, shuffle=8, seed=1)
workers = 2 if what == "workers" else 0
try:
    if what == "alone" and rank == 1:
        print("read", 0)
    elif what == "differ":
        for sample in data: break
        print("no error")
    else:
        loader = data.decode(size=8).batch(2, drop_last=False).to_torch().loader(num_workers=workers)
        print("read", sum(len(batch.keys) for _ in range(2) for batch in loader))
except shardkit.DatasetError as exc:
    print("error", exc)
dist.barrier()
dist.destroy_process_group()
"""


PLAIN = """
import os, sys

import torch.distributed as dist
from torch.utils.data import DataLoader

import shardkit
from shardkit.reading import fingerprint


def main():
    rank, folder, what = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    changed, _, start = what.partition("-")
    fingerprint.ABSENT_SECONDS, fingerprint.DIFFER_SECONDS = 1.0, 1.0
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{PORT}", rank=rank, world_size=2)
    data = shardkit.dataset(f"{folder}/new/train", shuffle=8, seed=1).decode(size=8).batch(2, drop_last=False)
    workers = 2 if start == "fork" else 1
    loader = DataLoader(data.to_torch(), batch_size=None, num_workers=workers, multiprocessing_context=start)
    if rank == 0:
        read(loader)
        if changed == "late":  # as an append would
            os.rename(f"{folder}/new", f"{folder}/kept")
            os.rename(f"{folder}/old", f"{folder}/new")
    dist.barrier()
    if rank == 1:
        read(loader)
    dist.barrier()
    dist.destroy_process_group()


def read(loader):
    try:
        print("read", sum(len(images) for images, labels in loader))
    except Exception as exc:
        print("error", exc)


if __name__ == "__main__":
    main()
"""


def run_ranks(folder: Path, what: str, script: str = RANK) -> list[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    (folder / "rank.py").write_text(script.replace("{PORT}", str(port)))
    home = str(Path(shardkit.__file__).parents[1])
    ranks = [
        subprocess.Popen(
            [sys.executable, str(folder / "rank.py"), str(rank), str(folder), what],
            stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": home},
        )
        for rank in range(2)
    ]  # fmt: skip
    outputs = [process.communicate(timeout=120)[0].strip() for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0]
    return outputs


@pytest.fixture
def folder(tmp_path: Path, draw_tree: Any) -> Path:
    """`old/train`, and `new/train` of the same with more files."""
    tree = draw_tree(tmp_path / "tree", {"cat": 10, "dog": 10}, size=(12, 12))
    shardkit.pack(tree, tmp_path / "old" / "train", workers=1)
    shardkit.pack(tree, tmp_path / "new" / "train", workers=1)
    draw_tree(tree, {"fox": 6}, size=(12, 12), seed=50)
    shardkit.pack(tree, tmp_path / "new" / "train", workers=1, append=True)
    return tmp_path


@pytest.mark.parametrize("what", ["equal", "workers"])
def test_equal_ranks_read_every_sample_once(folder: Path, what: str) -> None:
    assert run_ranks(folder, what) == ["read 26", "read 26"]  # two epochs of 13


def test_ranks_of_different_datasets_both_say_which_differs(folder: Path) -> None:
    first, second = run_ranks(folder, "differ")
    assert "rank 0 reads another dataset than rank 1" in first
    assert "rank 1 reads another dataset than rank 0" in second


def test_a_rank_that_reads_alone_goes_on(folder: Path) -> None:
    assert run_ranks(folder, "alone") == ["read 26", "read 0"]


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_the_workers_of_plain_data_loaders_compare_what_they_read(folder: Path, start: str) -> None:
    if start == "fork":
        assert run_ranks(folder, f"equal-{start}", PLAIN) == ["read 13", "read 13"]
    first, second = run_ranks(folder, f"late-{start}", PLAIN)
    assert first == "read 13"
    assert "rank 1 reads another dataset than rank 0" in second


JAX = """
import sys

import shardkit
from shardkit.reading import fingerprint

rank, folder, port = int(sys.argv[1]), sys.argv[2], sys.argv[3]
fingerprint.ABSENT_SECONDS, fingerprint.DIFFER_SECONDS = 20.0, 1.0
import jax

jax.distributed.initialize(f"127.0.0.1:{PORT}", 2, rank)
for epoch in range(2):
    print("read", sum(1 for _ in shardkit.dataset(f"{folder}/new/train", shuffle=8, seed=1)))
"""


def test_processes_of_jax_compare_what_they_read(folder: Path) -> None:
    pytest.importorskip("jax")
    assert run_ranks(folder, "equal", JAX) == ["read 13\nread 13"] * 2


class FakeClient:
    """What jaxlib's DistributedRuntimeClient does with keys: none is set twice, and each answer that isn't one is an
    error."""

    def __init__(self) -> None:
        self.keys: dict[str, str] = {}

    def key_value_set(self, key: str, value: str, allow_overwrite: bool = False) -> None:
        if key in self.keys and not allow_overwrite:
            raise RuntimeError(f"ALREADY_EXISTS: key {key} already exists.")
        self.keys[key] = value

    def key_value_try_get(self, key: str) -> str:
        if key not in self.keys:
            raise RuntimeError(f"NOT_FOUND: Config key {key} not found.")
        return self.keys[key]


def be_process_of_jax(monkeypatch: pytest.MonkeyPatch, client: Any, rank: int) -> None:
    jax, internal = ModuleType("jax"), ModuleType("jax._src.distributed")
    jax.distributed = SimpleNamespace(is_initialized=lambda: True)  # type: ignore[attr-defined]
    state = SimpleNamespace(client=client, process_id=rank, num_processes=2)
    internal.global_state = state  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "jax", jax)
    monkeypatch.setitem(sys.modules, "jax._src.distributed", internal)


def test_a_process_of_jax_that_reads_another_dataset_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "ABSENT_SECONDS", 0.0)
    monkeypatch.setattr(fingerprint, "DIFFER_SECONDS", 0.0)
    client = FakeClient()
    be_process_of_jax(monkeypatch, client, 0)
    data = shardkit.dataset(folder / "new" / "train", shuffle=8, seed=1)
    assert len(list(data)) == 13
    assert len(list(data)) == 13
    assert len(client.keys) == 2
    be_process_of_jax(monkeypatch, client, 1)
    assert len(list(shardkit.dataset(folder / "new" / "train", shuffle=8, seed=1))) == 13
    (folder / "new").rename(folder / "kept")
    (folder / "old").rename(folder / "new")
    late = shardkit.dataset(folder / "new" / "train", shuffle=8, seed=1)
    with pytest.raises(shardkit.DatasetError, match="rank 1 reads another dataset than rank 0"):
        next(iter(late))


@pytest.mark.parametrize("answer", ["UNAVAILABLE: the service is gone", "INTERNAL: oops"])
def test_a_service_of_jax_that_fails_stops_no_reading(
    folder: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    class Failing(FakeClient):
        def key_value_try_get(self, key: str) -> str:
            raise RuntimeError(answer)

    be_process_of_jax(monkeypatch, Failing(), 0)
    assert len(list(shardkit.dataset(folder / "new" / "train", shuffle=8, seed=1))) == 13


def test_the_fingerprint_tells_datasets_orders_and_views_apart_and_not_places(folder: Path) -> None:
    def of(name: str, **options: Any) -> str:
        return shardkit.dataset(folder / name / "train", **options).fingerprint

    import shutil

    shutil.copytree(folder / "old", folder / "copy")
    assert of("old") == of("copy")
    data = shardkit.dataset(folder / "old" / "train")
    every = [of("old"), of("new"), of("old", shuffle=8), of("old", shuffle=8, seed=1), data.take(3).fingerprint,
             data.select("cat").fingerprint]  # fmt: skip
    assert len(set(every)) == len(every)
    (folder / "copy" / "train.json").unlink()
    (folder / "old" / "train.json").unlink()
    streams = [shardkit.dataset(str(folder / name / "train-*.tar")).fingerprint for name in ("copy", "old")]
    assert streams[0] == streams[1]


def test_a_new_version_of_the_order_gives_other_fingerprints(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = shardkit.dataset(folder / "old" / "train")
    before = data.fingerprint
    monkeypatch.setattr(fingerprint, "ORDER_VERSION", fingerprint.ORDER_VERSION + 1)
    assert data.fingerprint != before
