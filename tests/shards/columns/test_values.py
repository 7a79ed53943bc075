"""The values of further columns: in which type they are stored, and what has none."""

from __future__ import annotations

import datetime
import math
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from shardkit.shards.columns.types import LIST_NUMBERS, TEXT_BYTES, type_text
from shardkit.shards.columns.values import (
    completed_table,
    decoded_columns,
    encoded_columns,
    fitted_column,
    natural_column,
    whole_columns,
)

NOON = datetime.datetime(2024, 5, 1, 12, tzinfo=datetime.UTC)


def column(values: list[Any], kind: pa.DataType | None = None) -> pa.ChunkedArray:
    """The values in two chunks."""
    return pa.chunked_array([pa.array(values[:1], kind), pa.array(values[1:], kind)] if kind else [pa.array(values)])


@pytest.mark.parametrize(
    ("values", "kind", "text", "stored"),
    [
        ([1, None, 3], pa.int8(), "int64", [1, None, 3]),
        ([2**63 - 1, 0], pa.uint64(), "int64", [2**63 - 1, 0]),
        ([2**63, 7, None], pa.uint64(), "string", ["9223372036854775808", "7", None]),
        ([0.5, None], pa.float32(), "float64", [0.5, None]),
        ([Decimal("1.50"), Decimal("2.25")], pa.decimal128(5, 2), "float64", [1.5, 2.25]),
        ([True, None], pa.bool_(), "bool", [True, None]),
        (["a", "", None, "ä"], pa.large_string(), "string", ["a", "", None, "ä"]),
        (["a", "b", "a"], pa.dictionary(pa.int8(), pa.string()), "string", ["a", "b", "a"]),
        ([datetime.date(2024, 5, 1), None], pa.date32(), "date", [datetime.date(2024, 5, 1), None]),
        ([NOON.replace(tzinfo=None)], pa.timestamp("s"), "timestamp", [NOON.replace(tzinfo=None)]),
        ([NOON], pa.timestamp("ms", "Europe/Zurich"), "timestamp UTC", [NOON]),
        ([datetime.time(10, 30)], pa.time32("s"), "string", ["10:30:00"]),
        ([[1, 2], None, [3, 4]], pa.list_(pa.int32()), "int64[2]", [[1, 2], None, [3, 4]]),
        ([[1.5], [2.5]], pa.large_list(pa.float32()), "float64[1]", [[1.5], [2.5]]),
        ([[1, 2, 3], None], pa.list_(pa.uint8(), 3), "int64[3]", [[1, 2, 3], None]),
        ([[2**63]], pa.list_(pa.uint64()), "float64[1]", [[2.0**63]]),
    ],
)
def test_values_are_stored_in_the_type_that_is_natural_for_them(
    values: list[Any], kind: pa.DataType, text: str, stored: list[Any]
) -> None:
    found, why = natural_column(column(values, kind))
    assert found is not None, why
    assert (type_text(found.type), found.to_pylist()) == (text, stored)


def test_nan_is_a_number_and_not_null() -> None:
    found, _ = natural_column(column([math.nan, None], pa.float64()))
    assert found is not None
    assert (found.null_count, math.isnan(found[0].as_py())) == (1, True)


def test_nanoseconds_are_cut_off() -> None:
    found, _ = natural_column(column([1_999, 2_000], pa.timestamp("ns")))
    assert found is not None
    assert found.cast(pa.int64()).to_pylist() == [1, 2]


@pytest.mark.parametrize(
    ("values", "kind", "why"),
    [
        ([None, None], pa.null(), "it has no value"),
        ([None, None], pa.int64(), "it has no value"),
        ([b"x"], pa.binary(), "values of the type binary have no column"),
        ([{"a": 1}], pa.struct({"a": pa.int64()}), "have no column"),
        ([["a"]], pa.list_(pa.string()), "lists of the type string have no column"),
        ([[1], [1, 2]], pa.list_(pa.int64()), "its lists have 1 to 2 numbers, and a column needs as many in each row"),
        ([[], []], pa.list_(pa.int64()), "its lists have 0 numbers, and a column holds 1 to 4096"),
        ([[0] * (LIST_NUMBERS + 1)], pa.list_(pa.int64()), "its lists have 4097 numbers"),
        (["x" * (TEXT_BYTES + 1)], pa.string(), "it has a text of 65537 bytes, and a column holds 65536"),
    ],
    ids=lambda value: str(value)[:30],
)  # fmt: skip
def test_what_can_not_be_a_column_says_why(values: list[Any], kind: pa.DataType, why: str) -> None:
    found, told = natural_column(column(values, kind))
    assert found is None
    assert why in told


def test_text_that_is_not_utf8_is_refused() -> None:
    wrong = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.array([0, 1], pa.int32()).buffers()[1], pa.py_buffer(b"\xff")]
    )
    with pytest.raises(pa.ArrowInvalid, match="UTF8"):
        natural_column(pa.chunked_array([wrong]))


@pytest.mark.parametrize(
    ("values", "text", "stored"),
    [
        ([1, None], "float64", [1.0, None]),
        ([1.0, None, 3.0], "int64", [1, None, 3]),
        ([1, 2], "string", ["1", "2"]),
        ([True, None], "string", ["true", None]),
        ([None, None], "date", [None, None]),
    ],
)
def test_values_fit_another_type_if_none_of_them_changes(values: list[Any], text: str, stored: list[Any]) -> None:
    found = fitted_column(column(values), text)
    assert (type_text(found.type), found.to_pylist()) == (text, stored)


@pytest.mark.parametrize(
    ("values", "text", "why"),
    [
        ([1.5], "int64", "its values are float64, and not all of them can be int64"),
        ([2**53 + 1], "float64", "its values are int64, and not all of them can be float64"),
        (["1"], "int64", "its values are string, not int64"),
        ([True], "int64", "its values are bool, not int64"),
    ],
)
def test_values_that_would_change_do_not_fit(values: list[Any], text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        fitted_column(column(values), text)


def test_columns_come_back_from_their_bytes_in_part_or_whole() -> None:
    table = pa.table(
        {"a": [1, None, 3], "b": ["x", "y", None], "v": pa.array([[1.0], None, [2.0]], pa.list_(pa.float64(), 1))}
    )
    data = encoded_columns(table)
    assert decoded_columns(data, None).to_pylist() == table.to_pylist()
    assert decoded_columns(data, [2, 0]).to_pylist() == [table.to_pylist()[2], table.to_pylist()[0]]


def test_a_column_that_is_not_there_is_null() -> None:
    table = pa.table({"meta.a": [1, 2], "key": ["x", "y"]})
    found = completed_table(table, ["key", "meta.b", "meta.a"], {"a": "float64", "b": "string"})
    assert found.column_names == ["key", "meta.b", "meta.a"]
    assert found.to_pydict() == {"key": ["x", "y"], "meta.b": [None, None], "meta.a": [1.0, 2.0]}
    assert [each.to_pylist() for each in whole_columns(None, {"a": "bool"}, 2)] == [[None, None]]
