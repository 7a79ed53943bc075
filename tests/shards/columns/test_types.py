"""The types of further columns: as text, as Arrow types, and of several datasets together."""

from __future__ import annotations

import pyarrow as pa
import pytest

from shardkit.shards.columns.types import (
    LIST_NUMBERS,
    PREFIX,
    column_type,
    common_type,
    fields_of,
    joined_types,
    known_types,
    type_text,
    types_in,
)

EACH = ("int64", "float64", "bool", "string", "date", "timestamp", "timestamp UTC", "int64[3]", "float64[1]",
        f"float64[{LIST_NUMBERS}]")  # fmt: skip


@pytest.mark.parametrize("text", EACH)
def test_each_type_has_an_arrow_type_and_comes_back_from_it(text: str) -> None:
    assert type_text(column_type(text)) == text


@pytest.mark.parametrize("text", ["", "int32", "float64[0]", f"int64[{LIST_NUMBERS + 1}]", "string[3]", "int64[3]x"])
def test_other_texts_are_types_that_this_version_does_not_know(text: str) -> None:
    assert column_type(text) is None
    assert known_types({"a": text, "b": "int64"}) == {"b": "int64"}


@pytest.mark.parametrize(
    "kind",
    [pa.int32(), pa.float32(), pa.binary(), pa.list_(pa.int64()), pa.list_(pa.string(), 2), pa.timestamp("ns"),
     pa.struct({"a": pa.int64()}), pa.list_(pa.int64(), LIST_NUMBERS + 1)],
    ids=str,
)  # fmt: skip
def test_other_arrow_types_are_not_those_of_a_column(kind: pa.DataType) -> None:
    assert type_text(kind) is None


@pytest.mark.parametrize(
    ("types", "common"),
    [
        (["int64"], "int64"),
        (["int64", "float64"], "float64"),
        (["int64", "bool"], "string"),
        (["timestamp", "date", "string"], "string"),
        (["int64[2]", "float64[2]"], "float64[2]"),
        (["int64[2]", "int64[3]"], None),
        (["int64[2]", "int64"], None),
    ],
)
def test_the_type_of_several_holds_the_values_of_each(types: list[str], common: str | None) -> None:
    assert common_type(types) == common == common_type(types[::-1])


def test_datasets_together_have_the_columns_of_all_in_the_order_of_the_first() -> None:
    assert joined_types([{"b": "int64", "a": "bool"}, {"c": "date", "b": "float64"}]) == {
        "b": "float64", "a": "bool", "c": "date",
    }  # fmt: skip
    with pytest.raises(ValueError, match="the column 'a' is bool in one and string in another"):
        joined_types([{"a": "bool"}, {"a": "string"}])


def test_the_index_has_them_with_a_prefix() -> None:
    types = {"age": "int64", "meta.x": "string", "box": "float64[4]"}
    schema = pa.schema([pa.field("label", pa.int64()), *fields_of(types)])
    assert schema.names == ["label", f"{PREFIX}age", f"{PREFIX}meta.x", f"{PREFIX}box"]
    assert types_in(schema) == types
