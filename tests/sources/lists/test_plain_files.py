"""The files of a list that are looked at all at once give what they give row by row, and pack as those of a tree."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import shardkit
from shardkit.formats.tar import fast_write
from shardkit.native import load
from shardkit.packing.write.plain import is_native
from shardkit.sources.lists import plain_files as module
from shardkit.sources.lists import rows
from shardkit.sources.lists.plain_files import file_sizes, plain_files

Content = Callable[[Path], dict[str, bytes]]
EXTENSIONS = ("jpg", "png")


@pytest.fixture(params=["C", "Python"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of looking at files: with the C extension `tree` if it is built here, and without."""
    if request.param == "Python":
        monkeypatch.setattr(module, "load", lambda name: (None, "switched off"))


@pytest.mark.usefixtures("way")
def test_sizes_are_those_of_regular_files_only(tmp_path: Path) -> None:
    names = ["a.jpg", "ü.jpg", os.fsdecode(b"caf\xe9.jpg"), "empty.jpg"]
    for length, name in zip((3, 5, 7, 0), names, strict=True):
        (tmp_path / name).write_bytes(b"x" * length)
    os.symlink("a.jpg", tmp_path / "link.jpg")
    os.symlink("nowhere", tmp_path / "broken.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    names += ["link.jpg", "broken.jpg", "pipe.jpg", "missing.jpg", "."]
    assert file_sizes([str(tmp_path / name) for name in names]) == [3, 5, 7, 0, 3, -1, -1, -1, -1]
    assert file_sizes([]) == []


@pytest.mark.usefixtures("way")
def test_files_of_a_plain_list_have_their_paths_below_the_root_or_from_the_top(tree: Path) -> None:
    values = ["blue/0000.jpg", str(tree / "red" / "0001.jpg")]
    (found,) = plain_files(values, str(tree), EXTENSIONS) or ()
    assert found.names == ["blue/0000.jpg", "red/0001.jpg"]
    assert found.real == [str(tree / name) for name in found.names]
    assert found.sizes == [os.path.getsize(path) for path in found.real]
    (away,) = plain_files(found.real, str(tree / "blue"), EXTENSIONS) or ()
    assert away.names == ["0000.jpg", found.real[1].lstrip("/")]


@pytest.mark.parametrize(
    "odd", [None, 3, "", b"blue/0000.jpg", "blue/../red/0000.jpg", "./blue/0000.jpg", "blue//0000.jpg", "blue/0000",
            "blue/", "blue/.hidden.jpg", "blue/0000.gif", "blue/jpg", "blue/0\0.jpg", "blue/0001.jpg", "b\\.jpg"],
    ids=repr,
)  # fmt: skip
def test_a_list_with_a_path_that_follows_further_rules_is_read_row_by_row(odd: object, tree: Path) -> None:
    assert plain_files(["blue/0001.jpg", odd], str(tree), EXTENSIONS) is None


def test_a_file_that_is_missing_ends_the_look(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ROWS", 2)
    values = ["blue/0000.jpg", "blue/0001.jpg", "blue/0002.jpg", "blue/none.jpg"]
    assert [part.names for part in plain_files(values, str(tree), EXTENSIONS) or ()] == [values[:2]]
    with pytest.raises(shardkit.SourceError, match=r"row 4: there is no file .*none\.jpg"):
        shardkit.plan_pack((values, ["a"] * 4), tree.parent / "out", columns=shardkit.TableColumns(root=tree))


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("away", [True, False])
def test_a_list_packs_to_the_same_bytes_every_way(
    tree: Path, out: Path, monkeypatch: pytest.MonkeyPatch, content_of: Content, *, shuffle: bool, away: bool
) -> None:
    files = sorted(tree.rglob("*.jpg"), reverse=True)
    given = [str(path) for path in files], [path.parent.name for path in files]
    root = str(out.parent) if away else str(tree)

    def packed(name: str) -> dict[str, bytes]:
        columns = shardkit.TableColumns(root=root)
        shardkit.pack(given, out / name / "d", columns=columns, shuffle=shuffle, workers=1, max_count=5)
        return content_of(out / name)

    fast = packed("all_at_once")
    monkeypatch.setattr(rows, "plain_files", lambda *arguments: None)
    assert packed("row_by_row") == fast
    monkeypatch.setattr(fast_write, "extension", lambda: None)
    assert packed("in_python") == fast
    if not away and shuffle:
        shardkit.pack(tree, out / "tree" / "d", workers=1, max_count=5)
        of_tree = content_of(out / "tree")
        assert {name: data for name, data in of_tree.items() if name.endswith(".tar")} == {
            name: data for name, data in fast.items() if name.endswith(".tar")
        }


@pytest.mark.skipif(load("gather")[0] is None, reason="the C extension is not built here")
def test_files_outside_the_root_of_a_list_are_written_by_the_c_extension(
    tree: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def noted(task: Any) -> bool:
        asked.append(is_native(task))
        return asked[-1]

    monkeypatch.setattr("shardkit.packing.engine.engine.is_native", noted)
    files = [str(path) for path in sorted(tree.rglob("*.jpg"))]
    shardkit.pack((files, ["a"] * len(files)), out / "train", workers=2)
    assert asked == [True]
