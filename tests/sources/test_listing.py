"""Folders and images are found in a list of names, by the C extension as by Python."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shardkit.errors import SourceError
from shardkit.native import load
from shardkit.sources import listing
from shardkit.sources.columns import PathColumn
from shardkit.sources.listing import FileListing, ListedWalk

native = load("archives")[0]

PARTS = st.sampled_from(
    ["a", "b", "B", "é", ".h", "a.jpg", "b.JPG", "c.Jpg", ".jpg", "d.png", "e.txt", "x.zip", "Thumbs.db", "f."]
)
PATHS = st.lists(st.lists(PARTS, min_size=1, max_size=3).map("/".join), max_size=12)


def walked(names: list[bytes], extensions: list[str]) -> Any:
    """What a walk of a listing finds, or the text of the error."""
    found = FileListing("x.zip", PathColumn.of(names), np.arange(len(names)) * 3)
    walk = ListedWalk(found, "", extensions)
    try:
        folders = [each for top in walk.class_folders() for each in walk.folders(top)]
    except SourceError as exc:
        return str(exc)
    listed = [(each.path, [*each.names], [*each.sizes]) for each in folders]
    return listed, walk.rows.build().tolist(), walk.left_out.result()


def both_ways(monkeypatch: pytest.MonkeyPatch, names: list[bytes], extensions: list[str]) -> Any:
    """The same, which must not depend on the C extension."""
    found = walked(names, extensions)
    with monkeypatch.context() as patch:
        patch.setattr(listing, "load", lambda name: (None, "not wanted"))
        assert walked(names, extensions) == found
    return found


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(paths=PATHS, extensions=st.sampled_from([["jpg"], ["jpg", "png"], ["db", "jpg"], ["jpg", "zip"]]))
def test_folders_and_images_are_found_as_by_python(
    monkeypatch: pytest.MonkeyPatch, paths: list[str], extensions: list[str]
) -> None:
    both_ways(monkeypatch, [os.fsencode(path) for path in paths], extensions)


def test_names_that_are_not_utf8_are_listed_as_by_python(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [b"a/\xff.jpg", b"a/b.jpg", b"\xe9/c.jpg", b"\xe9/\xe9.txt"]
    listed, rows, _ = both_ways(monkeypatch, names, ["jpg"])
    assert rows == [1, 0, 2]
    assert [path for path, _, _ in listed] == ["a", os.fsdecode(b"\xe9")]


@pytest.mark.parametrize("name", [b"a/b.jpg", b"a/b"])
def test_a_file_and_a_folder_of_one_name_are_refused(name: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    told = both_ways(monkeypatch, [name, name + b"/c.jpg"], ["jpg"])
    assert told.startswith(f"x.zip/{name.decode()}: a file and a folder have this name")


def test_two_files_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (b"a/b.jpg", b"a/b.txt"):
        told = both_ways(monkeypatch, [name, b"a/c.jpg", name], ["jpg"])
        assert told.startswith(f"x.zip/{name.decode()}: two files have this name")


@pytest.mark.parametrize("ending", [b".cls", b"s", b"a/b.cls"])
def test_paths_with_an_ending_are_counted(ending: bytes) -> None:
    paths = [b"a/b.cls", b".cls", b"cls", b"s", b"", b"a.clS", b"a.cls/"]
    assert PathColumn.of(paths).count_ending(ending) == sum(path.endswith(ending) for path in paths)
    assert PathColumn.of([]).count_ending(ending) == 0


@pytest.mark.skipif(native is None, reason="the C extension is not built here")
def test_wrong_arguments_are_refused() -> None:
    offsets, rows = np.array([0, 3]), np.array([0])
    wrong = [
        (native.folders, b"abc", np.array([0, 4])),
        (native.folders, b"abc", np.array([2, 1])),
        (native.images, b"abc", offsets, np.array([1]), 0, b"jpg\0"),
        (native.images, b"abc", offsets, rows, 4, b"jpg\0"),
        (native.images, b"abc", offsets, rows, -1, b"jpg\0"),
        (native.images, b"abc", offsets, rows, 0, b"jpg"),
        (native.images, b"abc", offsets, rows, 0, b""),
    ]
    for function, *args in wrong:
        with pytest.raises(ValueError, match=r"outside|extensions"):
            function(*args)
    assert native.folders(b"", np.array([], np.int64)) == native.folders(b"", np.array([0])) == b""
