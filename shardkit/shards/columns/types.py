"""Names and types of further columns: `meta.NAME` in the index, and NAME with its type in the manifest.

    int64 float64 bool string       numbers, truth values, text
    date                            a day
    timestamp, timestamp UTC        microseconds, without or with a time zone
    int64[3] float64[3]             lists with as many numbers in each sample

A column has one type in all samples of a dataset, and any of its values may be null.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

PREFIX = "meta."
"""What the index puts before the name of a column."""

Types = Mapping[str, str]
"""Columns in their order: the name, without prefix, and the type as above."""

LIST_NUMBERS = 4096
"""The maximum numbers in a list: a small file may repeat one endlessly."""

TEXT_BYTES = 64 << 10
"""The maximum bytes of a text."""

_LIST = re.compile(r"(int64|float64)\[([0-9]{1,4})\]")

_PLAIN = ("int64", "float64", "bool", "string", "date", "timestamp", "timestamp UTC")


def column_type(text: str) -> pa.DataType | None:
    """The Arrow type for the text of a type; None for one that this version does not know."""
    import pyarrow as pa

    if text in _PLAIN:
        plain = (pa.int64(), pa.float64(), pa.bool_(), pa.string(), pa.date32())
        return (*plain, pa.timestamp("us"), pa.timestamp("us", "UTC"))[_PLAIN.index(text)]
    found = _LIST.fullmatch(text)
    if found is None or not 1 <= int(found[2]) <= LIST_NUMBERS:
        return None
    return pa.list_(pa.int64() if found[1] == "int64" else pa.float64(), int(found[2]))


def type_text(kind: pa.DataType) -> str | None:
    """The text of a type; None for one that no column has."""
    import pyarrow as pa

    for text in _PLAIN:
        if column_type(text) == kind:
            return text
    if not pa.types.is_fixed_size_list(kind) or not 1 <= kind.list_size <= LIST_NUMBERS:
        return None
    each = {pa.int64(): "int64", pa.float64(): "float64"}.get(kind.value_type)
    return None if each is None else f"{each}[{kind.list_size}]"


def common_type(types: Iterable[str]) -> str | None:
    """The type that holds the values of all of these: float64 for whole and other numbers, text for any single values;
    None if some are lists and others are not, or lists of other lengths."""
    wanted = set(types)
    if len(wanted) == 1:
        return wanted.pop()
    lists = [found for text in wanted if (found := _LIST.fullmatch(text))]
    if lists:
        same = len(lists) == len(wanted) and len({found[2] for found in lists}) == 1
        return f"float64[{lists[0][2]}]" if same else None
    return "float64" if wanted == {"int64", "float64"} else "string"


def joined_types(several: Sequence[Types]) -> dict[str, str]:
    """The columns of several datasets together, in the order in which they first occur. ValueError for one whose types
    differ by more than whole and other numbers."""
    found: dict[str, str] = {}
    for types in several:
        for name, text in types.items():
            before = found.setdefault(name, text)
            if text != before:
                common = common_type([before, text])
                if common is None or common == "string":
                    raise ValueError(f"the column {name!r} is {before} in one and {text} in another")
                found[name] = common
    return found


def known_types(types: Types) -> dict[str, str]:
    """Those of the columns whose types this version knows."""
    return {name: text for name, text in types.items() if column_type(text) is not None}


def types_in(schema: pa.Schema) -> dict[str, str]:
    """The further columns of an index with this schema, with their types."""
    several = ((field.name.removeprefix(PREFIX), type_text(field.type)) for field in schema
               if field.name.startswith(PREFIX) and schema.names.count(field.name) == 1)  # fmt: skip
    return {name: text for name, text in several if text is not None}


def fields_of(types: Types) -> list[pa.Field]:
    """The columns as they are in the index."""
    import pyarrow as pa

    return [pa.field(PREFIX + name, column_type(text)) for name, text in types.items()]
