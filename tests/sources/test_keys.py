from __future__ import annotations

import os
import re
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from shardkit.sources.columns import PathColumn
from shardkit.sources.keys import folder_changes, key_of_file, new_keys, renamed_rows, share_a_key
from shardkit.sources.source import Source, scan_tree


def scan(root: Path, *files: str) -> Source:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return scan_tree(root)


def keys(source: Source) -> dict[str, str]:
    return dict(zip(map(os.fsdecode, source.paths), source.keys(range(len(source))), strict=True))


def test_dots_become_underscores_and_the_extension_goes(tmp_path: Path) -> None:
    source = scan(tmp_path, "c/cat.0.jpg", "c/cat.1.jpg", "c/a.b.c/x.y.png")
    assert keys(source) == {
        "c/cat.0.jpg": "c/cat_0",
        "c/cat.1.jpg": "c/cat_1",
        "c/a.b.c/x.y.png": "c/a_b_c/x_y",
    }
    assert source.renamed == {}


def test_files_that_meet_in_one_key_are_numbered_in_scan_order(tmp_path: Path) -> None:
    source = scan(tmp_path, "c/x.jpg", "c/x.png", "c/x.bmp", "c/x-2.jpg", "d/x.jpg", "c/A.jpg", "c/a.jpg")
    assert keys(source) == {
        "c/A.jpg": "c/A",
        "c/a.jpg": "c/a",
        "c/x-2.jpg": "c/x-2",
        "c/x.bmp": "c/x",
        "c/x.jpg": "c/x-3",
        "c/x.png": "c/x-4",
        "d/x.jpg": "d/x",
    }
    assert sorted(source.renamed.values()) == ["c/x-3", "c/x-4"]
    assert [source.key(row) for row in range(len(source))] == list(keys(source).values())


def test_a_dot_and_an_underscore_that_meet_are_told_apart(tmp_path: Path) -> None:
    source = scan(tmp_path, "c/a.b.jpg", "c/a_b.jpg")
    assert list(keys(source).values()) == ["c/a_b", "c/a_b-2"]


def test_folders_that_meet_in_one_key_are_told_apart(tmp_path: Path) -> None:
    source = scan(tmp_path, "v.1/s.t/1.jpg", "v_1/s_t/1.jpg", "v_1/s.t/1.jpg", "v_1/s.t/1.png", "v_1/s_t/2.jpg")
    assert keys(source) == {
        "v.1/s.t/1.jpg": "v_1/s_t/1",
        "v_1/s.t/1.jpg": "v_1/s_t/1-2",
        "v_1/s.t/1.png": "v_1/s_t/1-3",
        "v_1/s_t/1.jpg": "v_1/s_t/1-4",
        "v_1/s_t/2.jpg": "v_1/s_t/2",
    }


def test_a_class_that_webdataset_would_skip_gets_other_keys(tmp_path: Path) -> None:
    source = scan(tmp_path, "__background__/1.jpg", "_background__/1.jpg", "cat/__x__.jpg")
    assert source.classes[0] == "__background__"
    assert list(keys(source).values()) == ["_background__/1", "_background__/1-2", "cat/__x__"]


@pytest.mark.parametrize("top", ["____", "_____", "__a__", "___a___", "__", "__a", "a__", "_a_", "__a__b__"])
def test_no_key_begins_with_what_webdataset_takes_for_metadata(top: str) -> None:
    key = key_of_file(f"{top}/1.jpg".encode())
    assert not re.match(r"__[^/]*__($|/)", key)
    assert key.endswith("/1")


parts = st.text("ab._-2é", min_size=1, max_size=3).filter(lambda part: not part.startswith("."))
trees = st.lists(
    st.tuples(
        st.lists(parts | st.just("__a__"), min_size=1, max_size=2), parts, st.sampled_from(["jpg", "png", "gif"])
    ),
    min_size=1,
    max_size=25,
)


@given(trees)
def test_keys_are_unique_whatever_the_names(tree: list[tuple[list[str], str, str]]) -> None:
    files = {("/".join(folders), f"{stem}.{extension}") for folders, stem, extension in tree}
    folders = sorted({folder for folder, _ in files})
    rows = [(folder, sorted(name for place, name in files if place == folder)) for folder in folders]
    column = PathColumn.of(f"{folder}/{name}".encode() for folder, names in rows for name in names)
    starts = np.cumsum([0, *(len(names) for _, names in rows)])[:-1]
    shared = np.array([number for number, (_, names) in enumerate(rows) if share_a_key(names)], dtype=np.int64)
    changed = [number for number, (folder, _) in enumerate(rows) if folder_changes(folder.encode())]
    renamed = renamed_rows(column, starts, shared, np.array(changed, dtype=np.int64))
    own = [key_of_file(path) for path in column]
    final = [renamed.get(row, key) for row, key in enumerate(own)]
    assert len(set(final)) == len(final)
    firsts = [row for row, key in enumerate(own) if key not in own[:row]]
    assert not set(firsts) & set(renamed), "the first file with a key keeps it"
    assert all(key.startswith(own[row] + "-") for row, key in renamed.items())


@given(st.lists(st.sampled_from(["a", "a-2", "a-2-2", "a-3", "b"]), max_size=12))
def test_new_keys_are_unique_and_take_nobodys_own(own: list[str]) -> None:
    renamed = new_keys(own)
    assert len({renamed.get(place, key) for place, key in enumerate(own)}) == len(own)
    assert not set(renamed.values()) & set(own)


@given(st.lists(st.binary(max_size=9)))
def test_a_column_gives_its_paths_back(names: list[bytes]) -> None:
    column = PathColumn.of(names)
    assert list(column) == names == [column[row] for row in range(len(names))]
    assert column.take(range(len(names) - 1, -1, -1)) == names[::-1]
    assert column.nbytes == sum(map(len, names)) + 8 * (len(names) + 1)


@pytest.mark.parametrize("row", [-1, 2])
def test_a_row_beyond_a_column_is_an_index_error(row: int) -> None:
    column = PathColumn.of([b"a", b"b"])
    with pytest.raises(IndexError):
        column[row]
    with pytest.raises(IndexError):
        column.take([0, row])
