"""Each command that makes a version, killed at each step on the disk: the old version is there, or the new one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from test_crashes import killed_at

import shardkit
from shardkit.errors import SourceError
from shardkit.storage import files

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are killed by fork and _exit")

Job = Callable[[Path], object]
Labels = Callable[[str], dict[str, str]]


def appended(out: Path) -> object:
    tree = out / "tree"
    (tree / "cat" / "0009.jpg").write_bytes((tree / "cat" / "0001.jpg").read_bytes())
    return shardkit.pack(tree, out / "train", max_count=2, workers=1, append=True)


JOBS: dict[str, Job] = {
    "relabel": lambda out: shardkit.relabel(out / "train", {"cat/0002": "dog", "fox/0001": "new"}, new_classes=True),
    "delete": lambda out: shardkit.delete(out / "train", ["cat/0002", "fox/0001"]),
    "add-fields": lambda out: shardkit.add_fields(out / "train", {"cat/0002": {"age": 2}, "fox/0001": {"age": 3}}),
    "revert": lambda out: shardkit.revert(out / "train", 1),
    "append": appended,
}


@pytest.fixture(scope="module")
def start(packed_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of three versions, with the tree that it was packed from."""
    folder = tmp_path_factory.mktemp("kills") / "start"
    shutil.copytree(packed_once / "shards", folder)
    shutil.copytree(packed_once / "tree", folder / "tree")
    shardkit.add_fields(folder / "train", {"cat/0001": {"age": 1}})
    shardkit.delete(folder / "train", ["dog/0000"])
    return folder


def content_of(source: str, labels_of: Labels) -> tuple[dict[str, str], list[Any]]:
    """Key -> name of the class, and the values of the field."""
    catalog = shardkit.dataset(source).content.catalog
    there = catalog.manifest is not None and "age" in catalog.manifest.columns
    tables = catalog.index_tables(["meta.age"]) if there else ()
    return labels_of(source), [value for table in tables for value in table["meta.age"].to_pylist()]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("name", JOBS)
def test_a_killed_command_leaves_the_old_version_or_the_new_one(
    name: str, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labels_of: Labels
) -> None:
    monkeypatch.setattr(os, "fsync", lambda fd: None)  # the machine goes on: what was written is there
    monkeypatch.setattr(files, "_sync_file_system", lambda folder: True)
    job, out = JOBS[name], tmp_path / "out"

    def begin() -> Path:
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(start, out)
        return out

    before = content_of(str(begin() / "train"), labels_of)
    job(out)
    after = content_of(str(out / "train"), labels_of)
    names = {path.name for path in out.iterdir()}
    step, seen = 1, set[int]()
    while killed_at(step, job, begin()):
        number = len(shardkit.log(out / "train"))
        seen.add(number)
        assert content_of(str(out / "train"), labels_of) == (before if number == 3 else after), step
        found = {finding.kind for finding in shardkit.verify(out / "train").findings}
        assert found <= ({"shard-unknown"} if name == "append" else set()), step  # as for any interrupted append
        with suppress(SourceError):  # a sample can't be deleted twice
            job(out)
        assert content_of(str(out / "train"), labels_of) == after, step
        assert len(shardkit.log(out / "train")) == 4, step
        assert {path.name for path in out.iterdir()} <= names | {".train.packing"}, step
        step += 1
    assert step > 10 and seen == {3, 4}
