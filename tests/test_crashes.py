"""Each writer, killed at each step on the disk, and the order in which each flushes what it names.

A kill is a child process that ends at its N-th call of a function that changes the disk (STEPS), or at its N-th write
to a file that is to appear. Whatever N is, a dataset is absent or whole, and the same command run again
gives the same files as an undisturbed run, and leaves nothing else.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shardkit
from shardkit.errors import DestinationError
from shardkit.storage import files
from shardkit.storage.parts import is_part

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are killed by fork and _exit")

KILLED = 77
STEPS = ("replace", "rename", "unlink", "fsync", "rmdir", "mkdir", "write")
Job = Callable[[Path], object]


def packed(source: str, dest: Path, **options: Any) -> object:
    return shardkit.pack(source, dest, workers=1, max_count=2, seed=1, **options)


def written(out: Path, **options: Any) -> object:
    samples = ({"__key__": f"{n}", "npy": np.full(3, n), "cls": n % 2} for n in range(4))
    return shardkit.write(samples, out / "train", max_count=2, classes=["a", "b"], **options)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory, draw_image: Any) -> Path:
    """A tree, and datasets to begin with: `in` (two classes), `old` (another dataset of the same name)."""
    root = tmp_path_factory.mktemp("start")
    for number in range(4):
        path = root / "tree" / "cd"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(draw_image(number, size=(16, 16)))
    packed(str(root / "tree"), root / "in" / "train")
    shardkit.pack(root / "tree", root / "old" / "train", workers=1, max_count=3, seed=2)
    shutil.copytree(root / "in", root / "bare")
    for name in ("train.json", "train.parquet"):
        (root / "bare" / name).unlink()
    shutil.copytree(root / "in", root / "torn")
    with open(root / "torn" / "train-000001.tar", "r+b") as file:
        file.write(b"\0" * 100)
    return root


def jobs(start: Path) -> dict[str, tuple[str, Job]]:
    """Name -> the dataset that is there before, and the job."""
    given = {"workers": 1}
    source = str(start / "in" / "train")
    return {
        "pack": ("", lambda out: packed(str(start / "tree"), out / "train")),
        "pack overwriting": ("old", lambda out: packed(str(start / "tree"), out / "train", overwrite=True)),
        "convert": ("", lambda out: shardkit.convert(source, out / "train", format="tfrecord", **given)),
        "write": ("", written),
        "write overwriting": ("old", lambda out: written(out, overwrite=True)),
        "repair": ("", lambda out: shardkit.repair(str(start / "torn" / "train"), out / "train", **given)),
        "unpack": ("", lambda out: shardkit.unpack(source, out / "tree", **given)),
        "index": ("bare", lambda out: shardkit.index_shards(str(out / "train-*.tar"), **given)),
        "upload": ("", lambda out: shardkit.upload(source, f"{out}/", **given)),
        "upload overwriting": ("old", lambda out: shardkit.upload(source, f"{out}/", overwrite=True, **given)),
    }


JOBS = list(jobs(Path()))


def beginning(start: Path, before: str, out: Path) -> Path:
    shutil.rmtree(out, ignore_errors=True)
    if before:
        shutil.copytree(start / before, out)
    else:
        out.mkdir()
    return out


def content(out: Path) -> dict[str, bytes]:
    found = {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    return found | {
        f"{path.relative_to(out)}/": b"" for path in out.rglob("*") if path.is_dir() and not any(path.iterdir())
    }


def shapes(found: dict[str, bytes]) -> set[str]:
    """The names without their generation, and the bytes of those that don't name other files."""
    plain = {name: local_name(name) for name in found}
    return {f"{plain[n]}:{'' if n.endswith(('.json', '.parquet')) else hash(data)}" for n, data in found.items()}


def local_name(name: str) -> str:
    return next((name.replace(f"train-g{n}", "train") for n in range(2, 5) if f"train-g{n}" in name), name)


class Counter:
    """Counts the steps, and ends the process without another at one of them."""

    def __init__(self, patch: pytest.MonkeyPatch, last: int) -> None:
        self.left, self.done = last, 0
        for name in STEPS:
            patch.setattr(os, name, self.wrapped(getattr(os, name)))
        patch.setattr(files._Part, "write", self.wrapped(files._Part.write))

    def wrapped(self, real: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            self.done += 1
            if self.done == self.left:
                os._exit(KILLED)
            return real(*args, **options)

        return call


def killed_at(step: int, job: Job, out: Path) -> bool:
    """Whether the job, in a child, came to that step."""
    pid = os.fork()
    if not pid:
        with pytest.MonkeyPatch.context() as patch:
            Counter(patch, step)
            try:
                job(out)
            except BaseException:
                os._exit(1)
            os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, KILLED)
    return code == KILLED


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("name", JOBS)
def test_a_writer_that_is_killed_at_any_step_is_finished_by_the_next_run(
    name: str, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda fd: None)  # the machine goes on: what was written is there
    monkeypatch.setattr(files, "_sync_file_system", lambda folder: True)
    before, job = jobs(start)[name]
    out = beginning(start, before, tmp_path / "out")
    job(out)
    expected = content(out)
    assert not [path for path in out.rglob("*") if is_part(path.name)]
    step = 1
    while killed_at(step, job, beginning(start, before, out)):
        if (out / "train.json").exists():
            assert not shardkit.verify(out / "train").findings
        elif before and name != "index":
            raise AssertionError(f"no dataset at step {step}")
        try:
            job(out)
        except DestinationError as exc:
            assert any(words in exc.fact for words in ("there", "exists", "not empty"))
        assert shapes(content(out)) == shapes(expected), step
        step += 1
    assert step > 3
