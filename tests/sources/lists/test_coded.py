"""Columns of a list are numbered by their distinct texts, by the C extension as by Python."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shardkit.native import load
from shardkit.sources.columns import PathColumn
from shardkit.sources.lists import coded as module
from shardkit.sources.lists import plain_files
from shardkit.sources.lists.coded import SECRET, coded, coded_texts, numbered, text_column
from shardkit.sources.lists.files import ListedFiles

native = load("lists")[0]
needs_native = pytest.mark.skipif(native is None, reason="the C extension is not built here")
SETTINGS = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TEXTS = st.lists(st.sampled_from(["", "a", "b", "a/b", "a/c", "ab", "ü", "ü/x", "/a"]), max_size=12)


@pytest.fixture(autouse=True, params=["C", "Python"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test is for both ways."""
    if request.param == "Python":
        for each in (module, plain_files):
            monkeypatch.setattr(each, "load", lambda name: (None, "switched off"))


@SETTINGS
@given(texts=TEXTS, stop=st.sampled_from([b"", b"/"]))
def test_texts_are_numbered_as_they_come(texts: list[str], stop: bytes) -> None:
    values = [text.encode().partition(stop)[0] if stop else text.encode() for text in texts]
    codes, firsts = numbered(PathColumn.of(text.encode() for text in texts), stop)
    distinct = list(dict.fromkeys(values))
    assert codes.tolist() == [distinct.index(value) for value in values]
    assert [*firsts] == [values.index(value) for value in distinct]


@SETTINGS
@given(texts=TEXTS, cut=st.integers(0, 3))
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())], ids=str)
def test_the_texts_of_an_arrow_column_are_kept(texts: list[str], cut: int, kind: pa.DataType) -> None:
    parts = [pa.array(texts, kind).slice(cut), pa.array(texts, kind)]
    column, wanted = pa.chunked_array(parts, kind), texts[cut:] + texts
    found = text_column(column)
    assert found is not None
    assert [*found] == [text.encode() for text in wanted]
    values = coded_texts(column)
    assert (list(values), set(values.distinct)) == (wanted, set(wanted))


@pytest.mark.parametrize(
    "values", [["a", None, "a"], [None], pa.array(["a", None]).dictionary_encode(), [1, 2], [b"a"]]
)
def test_other_columns_have_values_but_no_texts(values: Any) -> None:
    column = pa.chunked_array([pa.array(values)])
    assert text_column(column) is None
    assert list(coded_texts(column)) == column.to_pylist()


def test_values_are_found_by_row_and_mapped() -> None:
    values = coded(["b", None, "b", "a"])
    assert (values.distinct, values.codes.tolist(), len(values)) == (["b", None, "a"], [0, 1, 0, 2], 4)
    assert (values[3], [*values[1:]], None in values, values.index("a")) == ("a", [None, "b", "a"], True, 3)
    assert list(values.map(str)) == ["b", "None", "b", "a"]


def test_bytes_that_are_not_utf8_are_no_labels() -> None:
    with pytest.raises(UnicodeDecodeError):
        coded_texts(pa.chunked_array([pa.array([b"\xff", b"a"]).view(pa.string())]))


def files_of(names: list[str]) -> ListedFiles:
    column = PathColumn.of(name.encode() for name in names)
    return ListedFiles(np.arange(len(names)), column, column, np.arange(len(names)) * 2, True)


PATHS = st.lists(
    st.sampled_from(["a", "a/b.jpg", "a/b/c.jpg", "a-/b.jpg", "a/a.b", "ü/a.jpg", "b", "a/b.png"]), max_size=9
)


@SETTINGS
@given(names=PATHS, data=st.data())
def test_files_are_put_in_the_order_of_a_scan(names: list[str], data: st.DataObject) -> None:
    labels = np.array(data.draw(st.lists(st.integers(-1, 3), min_size=len(names), max_size=len(names))), np.int32)
    files, found = files_of(names).in_scan_order(labels)
    keys = [(label, *name.encode().rpartition(b"/")[::2]) for label, name in zip(labels.tolist(), names, strict=True)]
    order = sorted(range(len(names)), key=keys.__getitem__)
    assert files.rows.tolist() == order
    assert files.sizes.tolist() == [2 * row for row in order]
    assert found.tolist() == [labels[row] for row in order]
    assert [*files.names] == [*files.real] == [names[row].encode() for row in order]


@SETTINGS
@given(names=PATHS)
def test_keys_that_occur_twice_are_changed(names: list[str]) -> None:
    renamed = files_of(names).renamed()
    keys = [name.partition(".")[0] for name in names]
    assert set(renamed) == {row for row, key in enumerate(keys) if key in keys[:row]}


@pytest.mark.parametrize(
    ("names", "labels", "wanted"),
    [
        (["a/1.jpg", "b/1.jpg"], [0, 1], True), (["a/1.jpg", "b/1.jpg"], [1, 0], False), (["1.jpg"], [0], False),
        (["a/c/1.jpg", "a/1.jpg"], [0, 0], True), (["c/1.jpg"], [0], False), (["a"], [0], True), ([], [], True),
    ],
)  # fmt: skip
def test_class_folders_are_the_top_ones(names: list[str], labels: list[int], wanted: bool) -> None:
    assert files_of(names).are_in_class_folders(np.array(labels, np.int32), ("a", "b")) == wanted


@needs_native
def test_columns_with_many_texts_are_numbered_too() -> None:
    texts = PathColumn.of(b"%d" % (number // 2) for number in range(140_000))
    codes, firsts = numbered(texts)
    assert codes.tolist() == [number // 2 for number in range(140_000)]
    assert [*firsts] == [*range(0, 140_000, 2)]


@needs_native
def test_wrong_arguments_are_refused() -> None:
    beyond, none, labels = np.array([0, 4]), np.array([], np.int64), np.zeros(1, np.int32)
    wrong = [
        (native.numbers, b"abc", beyond, SECRET, -1),
        (native.numbers, b"abc", none, SECRET, -1),
        (native.numbers, b"abc", np.array([0, 3]), b"short", -1),
        (native.are_distinct, b"abc", np.array([2, 1]), SECRET),
        (native.paths, b"abc", beyond, b"/", b"jpg\0", SECRET),
        (native.paths, b"abc", np.array([0, 3]), b"/", b"jpg", SECRET),
        (native.sizes, b"abc", np.array([0, 3]), 0, 2),
        (native.sizes, b"abc", np.array([0, 3]), -1, 1),
        (native.order, labels, b"abc", beyond),
        (native.order, labels[:0], b"abc", np.array([0, 3])),
    ]
    for function, *args in wrong:
        with pytest.raises(ValueError, match=r"outside|offset|secret|extensions"):
            function(*args)
