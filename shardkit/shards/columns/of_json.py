"""Further columns from values in the field `json` of samples: kept as JSON texts until their types are known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from shardkit.errors import DatasetError, UsageError, printable
from shardkit.shards.columns.types import Types, column_type, common_type, type_text
from shardkit.shards.columns.values import natural_column

if TYPE_CHECKING:
    import pyarrow as pa

    from shardkit.shards.scan import ShardBytes

FIELD = "json"

_DATES = ("date", "timestamp", "timestamp UTC")


def texts_of(data: ShardBytes, names: Sequence[str]) -> pa.Table:
    """The values with these names in the field `json` of each sample of a shard, as JSON texts; null where a sample has
    none. DatasetError for a field that is not JSON."""
    import pyarrow as pa

    found: dict[str, list[str | None]] = {name: [] for name in names}
    for sample in data.samples():
        start, size = sample.fields.get(FIELD, (0, 0))
        record: Any = None
        if size:
            try:
                record = msgspec.json.decode(bytes(data.buffer[start : start + size]))
            except (msgspec.DecodeError, UnicodeDecodeError) as exc:
                cure = "repair the sample, or omit `columns`"
                raise DatasetError(
                    data.place, f"its field json can't be read ({exc})", cure, start, sample.key
                ) from exc
        values = record if isinstance(record, dict) else {}
        for name, texts in found.items():
            value = values.get(name)
            texts.append(None if value is None else msgspec.json.encode(value).decode())
    return pa.table({name: pa.array(texts, pa.string()) for name, texts in found.items()})


def types_of_texts(shards: Iterable[pa.Table], names: Sequence[str]) -> dict[str, str]:
    """The type of each column over all shards. UsageError for one that has no value, or values without a type."""
    seen: dict[str, set[str]] = {name: set() for name in names}
    for table in shards:
        for name in names:
            text, why = _type_of(_values(table[name]))
            if text is None and why:
                raise UsageError("columns", f"{printable(name)!r} can't be a column: {why}", "omit it")
            seen[name] |= {text} if text is not None else set()
    found = {}
    for name, types in seen.items():
        common = common_type(types) if types else None
        if common is None:
            fact = f"the values of {printable(name)!r} are {' and '.join(sorted(types))}" if types else \
                f"no sample has a value {printable(name)!r} in a field json"  # fmt: skip
            raise UsageError("columns", fact, "name values of one type, which the samples have")
        found[name] = common
    return found


def typed_texts(table: pa.Table, types: Types) -> pa.Table:
    """The values in the types of their columns; as text, those that are not are as JSON has them. ValueError for a
    number that does not fit."""
    import pyarrow as pa

    made = {name: _column(table[name], text) for name, text in types.items()}
    return pa.table(made)


def _values(texts: pa.ChunkedArray) -> list[Any]:
    return [None if text is None else msgspec.json.decode(text) for text in texts.to_pylist()]


def _type_of(values: list[Any]) -> tuple[str | None, str]:
    """The type of values; None and "" if all are null, None and the reason if there is none for them."""
    import pyarrow as pa

    if all(value is None for value in values):
        return None, ""
    try:
        column, why = natural_column(pa.chunked_array([pa.array(values)]))
    except (pa.ArrowException, OverflowError, TypeError):
        if any(isinstance(value, (dict, list)) for value in values):
            return None, "its values are of several kinds, some of them lists or objects"
        return "string", ""
    if column is None:
        return None, why
    text = type_text(column.type)
    if text != "string" or not all(isinstance(value, str | None) for value in values):
        return text, ""
    return next((kind for kind in _DATES if _dates(values, kind) is not None), text), ""


def _dates(values: list[Any], text: str) -> pa.Array | None:
    """Texts as dates or points in time; None if one of them is not."""
    import pyarrow as pa

    if not all(value is None or (len(value) == 10) == (text == "date") for value in values):
        return None
    try:
        return pa.array(values, pa.string()).cast(column_type(text))
    except pa.ArrowInvalid:
        return None


def _column(texts: pa.ChunkedArray, text: str) -> pa.Array:
    import pyarrow as pa

    values = _values(texts)
    if text == "string":
        plain = texts.to_pylist()
        return pa.array(
            [value if isinstance(value, str) else as_json for value, as_json in zip(values, plain, strict=True)],
            pa.string(),
        )
    if text in _DATES:
        found = _dates(values, text)
        if found is not None:
            return found
        return pa.nulls(len(values), column_type(text))
    try:
        return pa.array(values, column_type(text))
    except (pa.ArrowException, OverflowError, TypeError) as exc:
        raise ValueError(f"a value of {text} does not fit ({exc})") from exc
