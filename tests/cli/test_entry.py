"""The entry point begins to list a tree before the command line is loaded, which nobody notices."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from shardkit import __main__ as entry
from shardkit import errors
from shardkit.sources.tree import early
from shardkit.system import POSIX


@pytest.mark.parametrize(
    ("line", "tree"),
    [
        ("pack data/train shards/train", "data/train"),
        ("pack data/train shards/train --ext png -q", "data/train"),
        ("pack data/train -q shards/train", "data/train"),
        ("pack s3://bucket/train shards/train", "s3://bucket/train"),
        ("pack data/train", None),
        ("pack -q data/train shards/train", None),
        ("-q pack data/train shards/train", None),
        ("pack data/train shards/train --help", None),
        ("pack data/train shards/train -h", None),
        ("pack data/train shards/train --dry-run", None),
        ("unpack shards/train data/train", None),
        ("--version", None),
        ("", None),
    ],
)
def test_the_tree_is_the_first_argument_of_pack(line: str, tree: str | None) -> None:
    assert entry.tree_of(line.split()) == tree


def ran(*line: str, where: Path) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "shardkit", *line], cwd=where, capture_output=True, text=True, stdin=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(Path(errors.__file__).parent.parent)},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def a_file(place: Path) -> None:
    place.write_text("no list, and no archive")


def a_pipe(place: Path) -> None:
    os.mkfifo(place)


def an_empty_folder(place: Path) -> None:
    place.mkdir()


def a_folder_without_permission(place: Path) -> None:
    (place / "red").mkdir(parents=True)
    place.chmod(0)


def nothing(place: Path) -> None:
    """Nothing is there."""


@pytest.mark.skipif(not POSIX, reason="nothing is begun on Windows")
@pytest.mark.parametrize(
    "make", [a_file, a_pipe, an_empty_folder, a_folder_without_permission, nothing], ids=lambda make: make.__name__
)
def test_a_source_that_can_not_be_packed_gives_the_same_error(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "tree")
    begun = ran("pack", "tree", "dest/train", where=tmp_path)
    assert begun == ran("-q", "pack", "tree", "dest/train", where=tmp_path)
    assert begun[0] == 3
    assert sorted(os.listdir(tmp_path)) in ([], ["tree"])


@pytest.mark.parametrize("options", [(), ("--ext", "png"), ("--check", "full"), ("--size", "8"), ("--no-such",)])
def test_what_is_begun_changes_no_result(tree: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    begun = ran("pack", str(tree), "begun/train", *options, where=tmp_path)
    later = ran("-q", "pack", str(tree), "later/train", *options, where=tmp_path)
    assert begun[0] == later[0]
    if begun[0] == 0:
        files = [sorted((tmp_path / name).iterdir()) for name in ("begun", "later")]
        assert [file.name for file in files[0]] == [file.name for file in files[1]]
        assert [file.read_bytes() for file in files[0]] == [file.read_bytes() for file in files[1]]


def test_the_entry_begins_what_the_command_goes_on_with(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = []
    monkeypatch.setattr(early, "begin", begun.append)
    monkeypatch.setattr("shardkit.cli.main.main", lambda: None)
    monkeypatch.setattr(sys, "argv", ["shardkit", "pack", str(tree), str(tmp_path / "dest")])
    entry.main()
    assert begun == [str(tree)]
    monkeypatch.setattr(sys, "argv", ["shardkit", "info", str(tree)])
    entry.main()
    assert begun == [str(tree)]
