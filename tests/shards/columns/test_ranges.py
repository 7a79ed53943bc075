"""Row groups are ruled out by their statistics only if no row of them can meet an expression."""

from __future__ import annotations

import io
import math
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardkit.shards.columns.ranges import Range, excluding, ranges_of

SCHEMA = pa.schema({
    "meta.age": pa.int64(), "meta.score": pa.float64(), "meta.ok": pa.bool_(), "meta.day": pa.date32(),
    "meta.taken": pa.timestamp("us"), "meta.seen": pa.timestamp("us", "UTC"), "label": pa.int32(),
})  # fmt: skip
NAMES = {name: name for name in SCHEMA.names} | {name.removeprefix("meta."): name for name in SCHEMA.names}

whole = st.integers(-3, 3)
values = {
    "meta.age": whole,
    "meta.score": st.sampled_from([-math.inf, -1.5, -0.0, 0.0, 1.5, math.inf, math.nan]),
    "meta.ok": st.booleans(),
    "meta.day": whole,
    "meta.taken": whole,
    "meta.seen": whole,
    "label": whole,
}
rows = st.fixed_dictionaries({name: st.none() | each for name, each in values.items()})

FIELDS = ["age", "meta.age", "score", "day", "taken", "seen", "label"]


def compared(field: str, how: int, value: Any) -> pc.Expression:
    column = pc.field(field)
    kind = SCHEMA.field(NAMES[field]).type
    scalar = pa.scalar(float(value) if pa.types.is_floating(kind) else value, kind)
    return [
        column < scalar, column <= scalar, column > scalar, column >= scalar, column == scalar, column != scalar,
        column.is_null(), column.is_valid(), column.is_null(nan_is_null=True), column.isin([scalar]),
    ][how]  # fmt: skip


simple = st.builds(compared, st.sampled_from(FIELDS), st.integers(0, 9), whole) | st.just(pc.field("ok"))
expressions = st.recursive(
    simple,
    lambda inner: (
        st.builds(lambda a, b: a & b, inner, inner)
        | st.builds(lambda a, b: a | b, inner, inner)
        | st.builds(lambda a: ~a, inner)
    ),
    max_leaves=5,
)


def groups_of(parts: list[pa.Table]) -> list[dict[str, Range]]:
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, SCHEMA) as writer:
        for part in parts:
            writer.write_table(part, max(1, len(part)))
    about = pq.ParquetFile(sink).metadata
    columns = {name: number for number, name in enumerate(SCHEMA.names)}
    return [ranges_of(about.row_group(number), columns) for number in range(about.num_row_groups)]


@given(st.lists(st.lists(rows, min_size=1, max_size=4), min_size=1, max_size=5), expressions)
def test_no_row_that_an_expression_selects_is_ruled_out(
    groups: list[list[dict[str, Any]]], expression: pc.Expression
) -> None:
    parts = [pa.Table.from_pylist(group, SCHEMA) for group in groups]
    held = excluding(expression, NAMES, SCHEMA)(groups_of(parts))
    for part, kept in zip(parts, held, strict=True):
        more = {name: part[column] for name, column in NAMES.items()}
        assert kept or not len(pa.table(more).filter(expression))


@pytest.mark.parametrize(
    ("expression", "kept"),
    [
        (pc.field("age") > 15, [False, True, True]),
        (pc.field("meta.age") <= 9, [True, False, False]),
        ((pc.field("age") > 15) & (pc.field("score") < 12), [False, True, False]),
        ((pc.field("age") < 5) | (pc.field("score") > 25), [True, False, True]),
        (~(pc.field("age") > 15), [True, True, False]),
        (pc.field("age").is_null(), [False, True, False]),
        (pc.field("score") == 25.5, [False, False, True]),
        (pc.field("day") >= pa.scalar(20, pa.date32()), [False, False, True]),
        (pc.field("taken") < pa.scalar(10, pa.timestamp("us")), [True, False, False]),
        (~pc.field("ok"), [True, False, False]),
        (pc.field("nothing") > 1, [True, True, True]),
        (pc.field("age") > "text", [True, True, True]),
        ((pc.field("age") > 99) & (pc.field("day").cast("string") == "x"), [True, True, True]),
    ],
    ids=str,
)
def test_groups_that_can_not_hold_a_row_are_ruled_out(expression: pc.Expression, kept: list[bool]) -> None:
    def group(first: int) -> pa.Table:
        number = list(range(first, first + 10))
        columns = [number, [n + 0.5 for n in number], [first > 5] * 10, number, number, number, number]
        arrays = [pa.array(column).cast(pa.int32()) if pa.types.is_date32(kind) else pa.array(column)
                  for column, kind in zip(columns, SCHEMA.types, strict=True)]  # fmt: skip
        return pa.table([array.cast(kind) for array, kind in zip(arrays, SCHEMA.types, strict=True)], schema=SCHEMA)

    parts = [group(0), group(10), group(20)]
    parts[1] = parts[1].set_column(0, "meta.age", pa.array([None, *range(11, 20)], pa.int64()))
    assert list(excluding(expression, NAMES, SCHEMA)(groups_of(parts))) == kept


def test_text_and_columns_without_statistics_rule_nothing_out() -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"meta.city": ["Bern"], "meta.age": [1]}), sink, write_statistics=["meta.city"])
    group = pq.ParquetFile(sink).metadata.row_group(0)
    assert ranges_of(group, {"meta.city": 0, "meta.age": 1}) == {}


@pytest.mark.parametrize("zeros", [(-0.0, 0.0), (0.0, 0.0), (-0.0, -0.0)], ids=["both", "positive", "negative"])
@pytest.mark.parametrize(
    "expression",
    [
        pc.field("score").isin(pa.array([0.0])), pc.field("score").isin(pa.array([-0.0])),
        pc.field("score").cast("string") == "0", pc.field("score").cast("string") == "-0",
    ],
    ids=["isin zero", "isin negative zero", "text of zero", "text of negative zero"],
)  # fmt: skip
def test_a_row_group_of_zeros_may_hold_negative_and_positive_ones(
    zeros: tuple[float, float], expression: pc.Expression
) -> None:
    part = pa.Table.from_pylist([{"meta.score": value} for value in zeros], schema=SCHEMA)
    seen = part.append_column("score", part["meta.score"])
    if seen.filter(expression).num_rows:
        assert excluding(expression, NAMES, SCHEMA)(groups_of([part])) == [True]


def test_a_comparison_whose_conversion_overflows_in_any_group_rules_nothing_out() -> None:
    schema = pa.schema({"meta.age": pa.int64(), "meta.taken": pa.timestamp("s")})
    age = Range(1, 2, nulls=False)
    near, far = ({"meta.age": age, "meta.taken": Range(1, end, nulls=False)} for end in (2, 2**61))
    never = (pc.field("age") > 99) & (pc.field("taken") < pa.scalar(1, pa.timestamp("us")))
    holds = excluding(never, {"age": "meta.age", "taken": "meta.taken"}, schema)
    assert list(holds([near, near])) == [False, False]
    assert list(holds([near, far])) == [True, True]
