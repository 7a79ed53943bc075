"""The C extension lists folders, takes paths and makes keys as Python does, and refuses what it was not made for."""

from __future__ import annotations

import os
from array import array
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardkit.formats.columns import Strings
from shardkit.native import load
from shardkit.sources.columns import PathColumn, PathColumnBuilder
from shardkit.sources.keys import key_of_file, keys_of_files, share_a_key
from shardkit.sources.tree.names import JoinedNames
from shardkit.sources.tree.native import Named, lister

tree = load("tree")[0]
pytestmark = pytest.mark.skipif(tree is None, reason="the C extension is not built here")

BYTES = st.binary(max_size=12) | st.text("ab./_\\\xe9\0", max_size=14).map(str.encode)


@given(st.lists(BYTES, max_size=5))
def test_keys_are_those_of_python(paths: list[bytes]) -> None:
    paths = [*paths, *(b"__" + path for path in paths), *(path + b".jpg" for path in paths)]
    assert keys_of_files(Strings.of(paths)).texts() == [key_of_file(path) for path in paths]


NAMES = st.lists(st.text("ab.ü", min_size=1, max_size=4).map(lambda stem: f"{stem}.jpg"), max_size=6)


@given(st.lists(st.tuples(st.sampled_from(["", "a/", "ü/b/"]), NAMES), max_size=4))
def test_joined_names_are_added_as_names_are(folders: list[tuple[str, list[str]]]) -> None:
    one_by_one, together = PathColumnBuilder(), PathColumnBuilder()
    for prefix, names in folders:
        whole = JoinedNames("".join(f"{name}/" for name in names), len(names))
        assert (len(whole), [*whole], share_a_key(whole)) == (len(names), names, share_a_key(names))
        assert not names or (whole[-1], whole[1:]) == (names[-1], names[1:])
        one_by_one.extend(prefix, names)
        together.extend(prefix, whole)
        assert len(together) == len(one_by_one)
    assert [*together.build()] == [*one_by_one.build()]


def test_a_key_of_a_long_path_is_that_of_python() -> None:
    paths = [b"a." * count + b"jpg" for count in (2046, 2047, 3000)]
    assert keys_of_files(Strings.of(paths)).texts() == [key_of_file(path) for path in paths]


NEARLY_UTF8 = [
    b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe0\x9f\xbf", b"\xf0\x8f\xbf\xbf", b"\xc3", b"\xe2\x82",
    b"\xf8\x88\x80\x80\x80", b"\x80", b"\xc3\x28",
]  # fmt: skip


@pytest.mark.parametrize("text", [*NEARLY_UTF8, "é€😀\ud7ff\ue000\U0010ffff".encode()])
def test_what_is_utf8_for_a_key_is_what_python_says(text: bytes) -> None:
    paths = Strings.of([b"a/" + text + b".jpg", text + b"/b.jpg", b"c." + text])
    assert keys_of_files(paths).texts() == [key_of_file(path) for path in paths]


@given(st.lists(BYTES.filter(lambda name: b"\0" not in name), min_size=1, max_size=6), st.data())
def test_paths_are_taken_in_the_order_of_the_rows(paths: list[bytes], data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(0, len(paths) - 1), max_size=9))
    column = PathColumn.of(paths)
    assert column.take(rows) == [paths[row] for row in rows]
    assert column.at(rows) == Strings.of(paths[row] for row in rows)


@pytest.mark.parametrize("row", [-1, 2])
def test_a_row_that_there_is_not_is_refused(row: int) -> None:
    with pytest.raises(IndexError):
        tree.take(b"abc", np.array([0, 1, 3]), np.array([row]))


@pytest.mark.parametrize("offsets", [[0, 4], [-1, 2], [2, 1]])
def test_offsets_outside_the_blob_are_refused(offsets: list[int]) -> None:
    with pytest.raises(ValueError, match="outside the blob"):
        tree.take(b"abc", np.array(offsets), np.array([0]))
    for function in (tree.keys, tree.extensions):
        with pytest.raises(ValueError, match="outside the blob"):
            function(b"abc", np.array(offsets))


def test_only_regular_files_with_a_known_extension_are_listed_with_their_size(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.JPG", "c.txt", ".d.jpg", "e", "f.", ".jpg", "g.jpg.part", "h.jpgx"):
        (tmp_path / name).write_bytes(b"abc")
    (tmp_path / "folder.jpg").mkdir()
    os.symlink("a.jpg", tmp_path / "link.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    found = lister(frozenset(("jpg", "JPG")))
    assert found is not None
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        listed = found(folder)
        assert listed is not None
        names, sizes, others = listed
        assert found(folder) == listed, "the descriptor is where it was"
        kinds = {name: (Named(name, folder).is_dir(), Named(name, folder).is_file()) for name in others}
    finally:
        os.close(folder)
    assert (names, [*array("q", sizes)]) == ("a.jpg/b.JPG/", [3, 3])
    assert others == sorted(set(os.listdir(tmp_path)) - {"a.jpg", "b.JPG"})
    assert kinds["folder.jpg"] == (True, False) and kinds["link.jpg"] == (False, True)
    assert kinds["pipe.jpg"] == (False, False)


def test_a_folder_with_an_image_whose_name_is_not_utf8_is_left_to_python(tmp_path: Path) -> None:
    found = lister(frozenset(("jpg",)))
    assert found is not None
    with open(os.path.join(os.fsencode(tmp_path), b"\xff.jpg"), "wb"):
        pass
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        assert found(folder) is None
    finally:
        os.close(folder)


def test_a_folder_that_is_none_is_an_error(tmp_path: Path) -> None:
    with open(tmp_path / "file", "wb") as file, pytest.raises(OSError, match="Not a directory"):
        tree.list_folder(file.fileno(), b"jpg\0")
    with pytest.raises(ValueError, match="followed by a NUL"):
        tree.list_folder(0, b"jpg")
