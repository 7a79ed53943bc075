"""The smallest and largest values of columns in a row group, and which row groups an expression rules out by them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq


class Range(NamedTuple):
    """What is known of a column: its values are `low` to `high` (None, None: all are null). nulls: whether some may be
    null. Numbers of dates and times count from 1970, as Parquet stores them. Any floating-point value may be NaN."""

    low: int | float | bool | None
    high: int | float | bool | None
    nulls: bool


Ranges = Mapping[str, Range]
"""Those of the columns of a row group of which something is known, by the names in the index."""

Holds = Callable[[Sequence[Ranges]], Sequence[bool]]
"""For each row group, whether it may hold what is looked for."""

MOST_CASES = 81
"""The combinations of values, null and NaN that are looked at; further columns rule nothing out."""

TOTAL = frozenset({"is_null", "is_valid", "is_nan", "is_finite", "is_inf", "is_in", "invert"})
"""The functions of expressions that have a result for every value. Others, such as `cast`, may fail for a value, which
has to be an error even where no row could meet the whole expression: they rule nothing out."""


def ranges_of(group: pq.RowGroupMetaData, columns: Mapping[str, int]) -> dict[str, Range]:
    """What the file's statistics say of single numbers, truth values, dates and times. columns: name -> its number."""
    found = {}
    for name, number in columns.items():
        about = group.column(number).statistics
        if about is None or about.physical_type == "BYTE_ARRAY":
            continue
        nulls = about.null_count if about.has_null_count else None
        if about.has_min_max:
            found[name] = Range(about.min_raw, about.max_raw, nulls != 0)
        elif nulls == group.num_rows:
            found[name] = Range(None, None, nulls=True)
    return found


def excluding(expression: pc.Expression, names: Mapping[str, str], schema: pa.Schema) -> Holds:
    """A function that tells which row groups may hold a row for which the expression is true, or can't be told: all
    may where the expression would raise an error for a row of any of them.

    names: name in the expression -> column. schema: of the columns as the expression sees them.
    """
    import pyarrow as pa
    import pyarrow.dataset as ds
    import pyarrow.fs as fs

    seen = pa.schema([pa.field(name, schema.field(column).type) for name, column in names.items()])
    total = TOTAL.issuperset(re.findall(r"(\w+)\(", str(expression)))
    form, nowhere = ds.ParquetFileFormat(), fs.LocalFileSystem()  # no file is opened: the conditions decide

    def holds(groups: Sequence[Ranges]) -> list[bool]:
        if not total:
            return [True] * len(groups)
        fragments = [
            form.make_fragment(str(number), filesystem=nowhere, partition_expression=condition)
            for number, ranges in enumerate(groups)
            for condition in _conditions(ranges, names, schema)
        ]
        try:
            _ends(groups, names, schema).filter(expression)
            kept = ds.FileSystemDataset(fragments, seen, form, nowhere).get_fragments(filter=expression)
            numbers = {int(fragment.path) for fragment in kept}
        except pa.ArrowException:  # an expression that can't be applied is an error where it is applied
            return [True] * len(groups)
        return [number in numbers for number in range(len(groups))]

    return holds


def _ends(groups: Sequence[Ranges], names: Mapping[str, str], schema: pa.Schema) -> pa.Table:
    """The smallest and largest values of the columns as the expression sees them, null where nothing is known: what
    Arrow can convert to another type at both ends of a range, it can in all of it."""
    import pyarrow as pa

    def column(name: str) -> pa.Array:
        unknown = Range(None, None, nulls=True)
        ends = [end for ranges in groups for end in ranges.get(name, unknown)[:2]]
        try:
            return pa.array(ends, schema.field(name).type)
        except (pa.ArrowException, TypeError):  # the values of several indexes have a common type
            return pa.nulls(len(ends), schema.field(name).type)

    return pa.table({name: column(its) for name, its in names.items()})


def _conditions(ranges: Ranges, names: Mapping[str, str], schema: pa.Schema) -> list[pc.Expression]:
    """Conditions of which each row of a row group meets one. Null and NaN have their own: comparisons with them are
    not those of any range."""
    import pyarrow.compute as pc

    several, count = list[list[pc.Expression]](), 1
    for column in dict.fromkeys(names.values()):
        of_column = [name for name, its in names.items() if its == column]
        cases = _cases(ranges.get(column), of_column, schema.field(column).type)
        if cases and count * len(cases) <= MOST_CASES:
            several.append(cases)
            count *= len(cases)
    every = pc.scalar(True)
    return [_all([every, *chosen]) for chosen in product(*several)]


def _cases(found: Range | None, names: Sequence[str], kind: pa.DataType) -> list[pc.Expression]:
    """What a column may be, under each of its names: in a range, NaN, null. Empty if nothing is known."""
    import pyarrow as pa
    import pyarrow.compute as pc

    fields = [pc.field(name) for name in names]
    cases = []
    if found is None:
        return []
    if found.low is not None:
        try:
            low, high = pa.scalar(found.low, kind), pa.scalar(found.high, kind)
        except (pa.ArrowException, TypeError):  # the values of several indexes have a common type
            return []
        # A field that equals a value is replaced by it, but 0.0 and -0.0 are equal, and differ in isin() and as text.
        same = found.low == found.high and (found.low != 0 or not pa.types.is_floating(kind))
        cases.append(_all([field == low if same else (field >= low) & (field <= high) for field in fields]))
        if pa.types.is_floating(kind):
            cases.append(_all([field == pa.scalar(float("nan"), kind) for field in fields]))
    if found.nulls:
        cases.append(_all([field.is_null() for field in fields]))
    return cases


def _all(conditions: Sequence[pc.Expression]) -> pc.Expression:
    first, *rest = conditions
    for condition in rest:
        first = first & condition
    return first
