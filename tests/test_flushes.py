"""The order in which each writer flushes: a loss of power must not leave a name without what it stands for.

- What gets a final name was flushed under its temporary one.
- Before the manifest gets its name, the folder is flushed, with the names of all else in it.
- After it the folder is flushed again, before any file of the dataset that was replaced is removed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from test_crashes import JOBS, beginning, jobs, start

from shardkit.shards.names import REPLACED, manifest_name
from shardkit.storage import files
from shardkit.storage.parts import part_named
from shardkit.tools.unpack import unpack as unpack_module

__all__ = ["start"]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="paths of open files are asked of /proc")

CHECKED_WHEN_READ = (".rows", ".receipt")
"""Files of the work folder that the next run holds against their shard: a loss of power may take them."""


class Log:
    """What was flushed, named and removed, in order; and the files that were flushed."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.steps: list[tuple[str, str]] = []
        self.flushed: set[int] = set()
        self.early: list[str] = []
        """What got a name before it was flushed."""
        self.real = {name: getattr(os, name) for name in ("fsync", "replace", "rename", "unlink")}
        for name in self.real:
            patch.setattr(os, name, getattr(self, "rename" if name == "replace" else name))

    def fsync(self, fd: int) -> None:
        self.real["fsync"](fd)
        self.flushed.add(os.fstat(fd).st_ino)
        self.steps.append(("flush", os.readlink(f"/proc/self/fd/{fd}")))

    def rename(self, old: Any, new: Any) -> None:
        path, target = os.fsdecode(old), os.fsdecode(new)
        below = [path, *(str(each) for each in Path(path).rglob("*"))] if os.path.isdir(path) else [path]
        if not target.endswith(CHECKED_WHEN_READ):
            self.early += [each for each in below if os.stat(each).st_ino not in self.flushed]
        self.real["rename"](old, new)
        self.steps.append(("name", target))

    def unlink(self, path: Any, **options: Any) -> None:
        self.real["unlink"](path, **options)
        if "dir_fd" not in options:
            self.steps.append(("remove", os.fsdecode(path)))

    def of(self, folder: Path) -> list[tuple[str, str]]:
        """The steps on a folder: flushes of itself, and what was named and removed in it, in order."""
        return [
            (what, os.path.basename(path))
            for what, path in self.steps
            if (path == str(folder) if what == "flush" else os.path.dirname(path) == str(folder))
        ]


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    monkeypatch.setattr(files, "_sync_file_system", lambda folder: False)
    return Log(monkeypatch)


@pytest.mark.parametrize("name", JOBS)
def test_all_is_flushed_before_the_name_that_it_is_found_by(name: str, start: Path, tmp_path: Path, log: Log) -> None:
    before, job = jobs(start)[name]
    out = beginning(start, before, tmp_path / "out")
    old = set(os.listdir(out))
    log.steps.clear()
    job(out)
    assert log.early == []
    steps = log.of(out)
    assert [what for what, _ in steps if what != "remove"][-1] == "flush"
    if name == "unpack":
        return
    place = steps.index(("name", manifest_name("train")))
    named = [number for number, (what, _) in enumerate(steps[:place]) if what == "name"]
    assert named
    assert ("flush", out.name) in steps[named[-1] : place], "the folder is not flushed before the manifest is named"
    replaced = [number for number, step in enumerate(steps) if step[0] == "remove" and step[1] in old]
    assert bool(replaced) == name.endswith("overwriting")
    after = steps.index(("flush", out.name), place)
    assert all(number > after for number in replaced)


@pytest.mark.parametrize("name", [name for name in JOBS if name not in ("index", "unpack") and "upload" not in name])
def test_what_was_decided_is_flushed_before_the_first_file_gets_its_place(
    name: str, start: Path, tmp_path: Path, log: Log
) -> None:
    before, job = jobs(start)[name]
    out = beginning(start, before, tmp_path / "out")
    log.steps.clear()
    job(out)
    first = next(number for number, (what, path) in enumerate(log.steps) if what == "name" and Path(path).parent == out)
    del log.steps[first:]
    [work] = {Path(path).parent for what, path in log.steps if what == "name"}
    assert work.parent == out
    kept = [step for step in log.of(work) if step[0] != "remove" and not step[1].endswith(CHECKED_WHEN_READ)]
    names = [manifest_name("train"), *([REPLACED] if before else [])]
    assert kept[-2 * len(names) :] == [step for each in names for step in (("name", each), ("flush", work.name))]


def test_unpack_flushes_the_file_system_where_that_is_one_call(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, bool]] = []
    real = files._sync_file_system

    def flush(folder: str) -> bool:
        part = part_named(os.path.basename(folder))
        told.append(("" if part is None else part.name, (tmp_path / "tree").exists()))
        return real(folder)

    monkeypatch.setattr(files, "_sync_file_system", flush)
    result = unpack_module.unpack(str(start / "in" / "train"), tmp_path / "tree", workers=1)
    assert result.files == 4
    assert told == [(".tree.unpacking", False)]
    assert real(str(tmp_path))
