"""Ranks that read different datasets under one name say so, and a rank that reads alone does not wait for ever."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
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
fingerprint.ABSENT_SECONDS, fingerprint.DIFFER_SECONDS = 1.0, 2.0
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


def run_ranks(folder: Path, what: str) -> list[str]:
    (folder / "rank.py").write_text(RANK)
    home = str(Path(shardkit.__file__).parents[1])
    import os

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
