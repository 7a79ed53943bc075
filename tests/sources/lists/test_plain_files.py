"""The files of a list that are looked at all at once give what they give row by row, and pack as those of a tree."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import shardkit
from shardkit.formats.tar import fast_write
from shardkit.native import load
from shardkit.packing.write.plain import is_native
from shardkit.sources.columns import PathColumn
from shardkit.sources.lists import plain_files, rows
from shardkit.sources.lists.plain_files import PlainPaths, file_sizes, plain_paths

Content = Callable[[Path], dict[str, bytes]]
EXTENSIONS = ("jpg", "png")


@pytest.fixture(params=["C", "Python"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of looking at files: with the C extension `lists` if it is built here, and without."""
    if request.param == "Python":
        monkeypatch.setattr(plain_files, "load", lambda name: (None, "switched off"))


def column(*texts: str) -> PathColumn:
    return PathColumn.of(map(os.fsencode, texts))


def lists_of(found: PlainPaths | None) -> Any:
    return found and ([*found.real], [*found.names], found.inside)


@pytest.mark.usefixtures("way")
def test_sizes_are_those_of_regular_files_only(tmp_path: Path) -> None:
    names = ["a.jpg", "ü.jpg", os.fsdecode(b"caf\xe9.jpg"), "empty.jpg"]
    for length, name in zip((3, 5, 7, 0), names, strict=True):
        (tmp_path / name).write_bytes(b"x" * length)
    os.symlink("a.jpg", tmp_path / "link.jpg")
    os.symlink("nowhere", tmp_path / "broken.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    names += ["link.jpg", "broken.jpg", "pipe.jpg", "missing.jpg", ".", "no folder/a.jpg", "n\0l", "x" * 5000]
    paths = column(*(str(tmp_path / name) for name in names), "", "a.jpg")
    wanted = [3, 5, 7, 0, 3] + 9 * [-1]
    assert file_sizes(paths, 0, len(paths)).tolist() == wanted
    assert file_sizes(paths, 2, 5).tolist() == wanted[2:5]
    assert file_sizes(PathColumn.of(()), 0, 0).tolist() == []


@pytest.mark.usefixtures("way")
def test_files_of_many_folders_are_looked_at(tree: Path) -> None:
    files = sorted(tree.rglob("*.jpg"))
    mixed = files[::2] + files[1::2] + files
    sizes = file_sizes(column(*map(str, mixed)), 0, len(mixed)).tolist()
    assert sizes == [path.stat().st_size for path in mixed]


@pytest.mark.usefixtures("way")
def test_files_of_a_plain_list_have_their_paths_below_the_root_or_from_the_top(tree: Path) -> None:
    red = str(tree / "red" / "0001.jpg")
    found = plain_paths(column("blue/0000.jpg", red, "./red/0002.JPG"), str(tree), EXTENSIONS)
    names = ["blue/0000.jpg", "red/0001.jpg", "red/0002.JPG"]
    assert lists_of(found) == ([os.fsencode(tree / name) for name in names], [*map(os.fsencode, names)], True)
    away = plain_paths(column("0000.jpg", red), str(tree / "blue"), EXTENSIONS)
    assert away is not None
    assert ([*away.names], away.inside) == ([b"0000.jpg", os.fsencode(red[1:])], False)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    "odd", ["", "blue/../red/0000.jpg", ".", "./", ".//blue/0000.jpg", "././blue/0000.jpg", "blue//0000.jpg",
            "blue/0000", "blue/", "blue/.hidden.jpg", ".hidden/a.jpg", "blue/0000.gif", "blue/jpg", "blue/0\0.jpg",
            "blue/0001.jpg", "./blue/0001.jpg", "b\\.jpg", "blue.jpg/a", "blue/a.", "jpg", ".jpg", "/", "/.jpg",
            os.fsdecode(b"\xe9.jpg")],
    ids=ascii,
)  # fmt: skip
def test_a_list_with_a_path_that_follows_further_rules_is_read_row_by_row(odd: str, tree: Path) -> None:
    assert plain_paths(column("blue/0001.jpg", odd), str(tree), EXTENSIONS) is None
    assert plain_paths(column(odd, "blue/0001.jpg"), str(tree), EXTENSIONS) is None


@pytest.mark.usefixtures("way")
def test_two_paths_of_one_name_are_read_row_by_row(tree: Path) -> None:
    inside = str(tree / "blue" / "0001.jpg")
    assert plain_paths(column("blue/0001.jpg", inside), str(tree), EXTENSIONS) is None
    assert plain_paths(column("/x/a.jpg", "x/a.jpg"), str(tree), EXTENSIONS) is None


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text("ab/.J\\ü", max_size=6).map(lambda stem: stem + ".jpg") | st.text("a/.jpg", max_size=9)))
def test_paths_are_those_of_python(texts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    found = lists_of(plain_paths(column(*texts), "/a", EXTENSIONS))
    with monkeypatch.context() as patch:
        patch.setattr(plain_files, "load", lambda name: (None, "switched off"))
        assert lists_of(plain_paths(column(*texts), "/a", EXTENSIONS)) == found


@pytest.mark.usefixtures("way")
def test_a_file_that_is_missing_ends_the_look(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_LOOK_ROWS", 2)
    values = ["blue/0000.jpg", "blue/0001.jpg", "blue/0002.jpg", "blue/none.jpg"]
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
    monkeypatch.setattr(rows, "plain_paths", lambda *arguments: None)
    assert packed("row_by_row") == fast
    monkeypatch.setattr(plain_files, "load", lambda name: (None, "switched off"))
    assert packed("without_c") == fast
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
