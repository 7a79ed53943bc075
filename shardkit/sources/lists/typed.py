"""The further columns of lists with a type each, the same in all splits: for the index, beside the field `json`."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from shardkit.errors import SourceError, printable, reason_of
from shardkit.shards.columns.types import common_type, type_text
from shardkit.shards.columns.values import fitted_column, natural_column

if TYPE_CHECKING:
    import pyarrow as pa

    from shardkit.sources.lists.rows import Listed

_log = logging.getLogger(__name__)

DAY_LENGTH = len("2024-05-01")

READS_AS = b"shardkit reads as"
"""The metadata of a column of text that is one of dates or times, with its type: JSON has them as written."""


def typed_tables(lists: Mapping[str, Listed]) -> dict[str, pa.Table | None]:
    """The further columns of each list (split -> its list), row for row; None for one that has none.

    A column has one type in all of them: the natural one if all agree, float64 for whole and other numbers, otherwise
    text. What can't be a column is logged. Raises SourceError for text that is not UTF-8.
    """
    found = {split: _natural(each) for split, each in lists.items()}
    types: dict[str, str] = {}
    for name in dict.fromkeys(name for columns in found.values() for name in columns):
        types.update(_joined(name, found))
    return {split: _fitted(columns, types) for split, columns in found.items()}


def texts_of(lists: Iterable[Listed]) -> set[str]:
    """The columns that are text in one list and read as something else in another: all of it is text, as written."""
    kinds = defaultdict[str, set[str]](set)
    for listed in lists:
        for name in listed.fields:
            field = listed.table.schema.field(name)
            kinds[name].add((field.metadata or {}).get(READS_AS, b"").decode() or type_text(field.type) or "")
    return {name for name, found in kinds.items() if "string" in found and len(found - {""}) > 1}


def _natural(listed: Listed) -> dict[str, pa.ChunkedArray]:
    import pyarrow as pa

    found, others = {}, list[str]()
    for name in listed.fields:
        try:
            column, why = natural_column(as_recognized(listed.table.schema.field(name), listed.table[name]))
        except (pa.ArrowInvalid, UnicodeDecodeError) as exc:
            fact = f"the column {printable(name)!r} can't be read ({printable(reason_of(exc))})"
            raise SourceError(listed.place, fact, "write its text as UTF-8") from exc
        if column is None or not name:
            others.append(f"{printable(name)} ({why or 'it has no name'})")
        else:
            found[name] = column
    if others:
        _log.info("%s: only in the field json, and not columns of the index: %s", listed.place, "; ".join(others))
    return found


def as_recognized(field: pa.Field, values: pa.ChunkedArray) -> pa.ChunkedArray:
    """The dates and times of a column of text that has them, as Arrow recognized them."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import csv

    kind = (field.metadata or {}).get(READS_AS, b"").decode()
    if not kind:
        return values
    null = pc.is_in(values, pa.array(csv.ConvertOptions().null_values))
    present = pc.if_else(null, pa.scalar(None, pa.string()), values)
    unit, _, zone = kind.partition(" ")
    if not zone and pc.all(pc.equal(pc.utf8_length(present), DAY_LENGTH)).as_py():
        unit = "date"  # in JSON lines, Arrow takes days for points in time
    return present.cast(pa.date32() if unit == "date" else pa.timestamp(unit, zone or None))


def read_as(kind: pa.DataType) -> dict[bytes, bytes] | None:
    """The metadata of a text column whose values are of this type; None for a type that stays text."""
    import pyarrow.types as of

    if of.is_date(kind):
        return {READS_AS: b"date"}
    if of.is_timestamp(kind):
        return {READS_AS: f"{kind.unit} {kind.tz or ''}".strip().encode()}
    return None


def _joined(name: str, found: Mapping[str, dict[str, pa.ChunkedArray]]) -> dict[str, str]:
    """The column with its type in all splits; nothing if it can't have one."""
    columns = [columns[name] for columns in found.values() if name in columns]
    types = [type_text(column.type) or "" for column in columns]
    common = common_type(types)
    if common == "float64" and not all(_fits(column, common) for column in columns):
        common = "string"
    if common is None:
        _log.warning("the column %s is not in the index: it is %s", printable(name), " and ".join(_distinct(types)))
        return {}
    if len(_distinct(types)) > 1:
        _log.warning("the column %s is %s in all splits, which have %s", printable(name), common,
                     " and ".join(_distinct(types)))  # fmt: skip
    return {name: common}


def _fits(column: pa.ChunkedArray, text: str) -> bool:
    try:
        fitted_column(column, text)
    except ValueError:
        return False
    return True


def _distinct(types: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(types))


def _fitted(columns: Mapping[str, pa.ChunkedArray], types: Mapping[str, str]) -> pa.Table | None:
    import pyarrow as pa

    fitted = {name: fitted_column(column, types[name]) for name, column in columns.items() if name in types}
    return pa.table(fitted).combine_chunks() if fitted else None
