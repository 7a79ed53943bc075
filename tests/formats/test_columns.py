"""Columns of byte strings and numbers hold what lists hold."""

from __future__ import annotations

from array import array
from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardkit.formats import columns
from shardkit.formats.columns import Strings, fields_of, has_negative, int64s, texts_of_paths
from shardkit.sample import field_of, text_of_path

ITEMS = st.lists(st.binary(max_size=5) | st.text("aé/.\\", max_size=5).map(str.encode), max_size=6)
PATHS = st.lists(st.sampled_from([b"a.jpg", b"b/c.JPEG", b"d.e/f", b"g.", b".h", b"", b"i.\xff", b"j.jpe", b"k.l.PNG"]))


@given(ITEMS)
def test_a_column_holds_its_items(items: list[bytes]) -> None:
    column = Strings.of(items)
    assert (len(column), [*column], [column[n] for n in range(len(column))]) == (len(items), items, items)
    assert (column.data, int64s(column.offsets)[-1]) == (b"".join(items), sum(map(len, items)))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(column), type=Strings) == column
    assert [*column.at(range(len(items))[::-2])] == items[::-2]


@pytest.mark.parametrize("number", [-1, 2])
def test_an_item_that_there_is_not_is_an_error(number: int) -> None:
    with pytest.raises(IndexError, match=f"item {number} of 2"):
        Strings.of([b"a", b"b"])[number]


@given(st.lists(st.text(max_size=4), max_size=5))
def test_texts_are_held_as_utf8(texts: list[str]) -> None:
    column = Strings.of_texts(texts)
    assert column == Strings.of(text.encode() for text in texts)
    assert column.texts() == texts


def test_items_are_replaced_at_their_places() -> None:
    column = Strings.of([b"a", b"", b"ccc"])
    assert [*column.replaced({1: b"bb", 2: b""})] == [b"a", b"bb", b""]
    assert column.replaced({}) is column


@given(ITEMS)
def test_paths_become_texts_one_by_one(paths: list[bytes]) -> None:
    assert texts_of_paths(Strings.of(paths)).texts() == [text_of_path(path) for path in paths]


def test_plain_paths_are_their_texts_without_a_copy() -> None:
    paths = Strings.of([b"a.jpg", b"b/c.jpg"])
    assert texts_of_paths(paths) is paths


@pytest.mark.parametrize("native", [True, False])
@given(paths=PATHS)
def test_each_file_has_the_field_of_its_extension(paths: list[bytes], native: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if not native:
            patch.setattr(columns, "load", lambda name: (None, "not built"))
        found = fields_of(Strings.of(paths))
    wanted = [field_of(text_of_path(path[path.rfind(b".") + 1 :])) for path in paths]
    assert [found[number] for number in range(len(paths))] == wanted
    for start in range(len(paths)):
        assert found.counts(start, len(paths)) == Counter(wanted[start:])


def test_any_number_of_extensions_is_told_apart() -> None:
    names = [f"a.e{number % 300}" for number in range(900)]
    found = fields_of(Strings.of_texts(names))
    assert [found[number] for number in range(900)] == [name[2:] for name in names]


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5))
def test_a_negative_number_is_seen_by_its_sign(numbers: list[int]) -> None:
    column = array("q", numbers).tobytes()
    assert [*int64s(column)] == numbers
    assert has_negative(column) == any(number < 0 for number in numbers)
