"""Reads a list of files (CSV, TSV, JSON lines, Parquet) as an Arrow table, its text as it is written.

pyarrow is imported when a list is read.
"""

from __future__ import annotations

import codecs
import os
from typing import TYPE_CHECKING, Any

from shardkit.errors import MissingSourceError, SourceError, printable
from shardkit.sample import fs_text

if TYPE_CHECKING:
    import pyarrow as pa

LIST_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")

_PIECE = 1 << 20
_JSON_BLOCK = 16 << 20  # the longest row of JSON lines
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_table(path: str, text_columns: tuple[str, ...] = ()) -> pa.Table:
    """The rows of a list. Columns of dates and times, and `text_columns`, are text as it is written there.

    Raises SourceError: unreadable, damaged, not UTF-8 (with the row), without rows, or with two columns of one name.
    """
    import pyarrow as pa

    place = fs_text(path)
    try:
        if path.lower().endswith(".parquet"):
            import pyarrow.parquet as pq

            with pq.ParquetFile(path) as file:
                table = file.read()
        else:
            table = _read_text(path, place, text_columns)
    except (pa.ArrowException, UnicodeDecodeError) as exc:
        fact = f"can't be read as a list ({printable(str(exc))})"
        raise SourceError(place, fact, "mend the row, or check that the name's ending is what the file is") from exc
    except FileNotFoundError as exc:
        raise MissingSourceError(place, "there is no such list", "check the path of the source") from exc
    except OSError as exc:
        raise SourceError(
            place, f"can't be read ({exc.strerror or exc})", "check that it exists and its rights"
        ) from exc
    _demand_distinct(table.column_names, place)
    if not table.num_rows:
        raise SourceError(place, "the list has no rows", "name at least one file")
    return table.combine_chunks()


def _read_text(path: str, place: str, text_columns: tuple[str, ...]) -> pa.Table:
    import pyarrow as pa

    data = _content(path, place)
    parse = _parse_json if path.lower().endswith(("jsonl", ".ndjson")) else _parse_csv
    delimiter = "\t" if path.lower().endswith(".tsv") else ","
    table = parse(data, delimiter, {})
    _demand_distinct(table.column_names, place)
    changed = {
        field.name: pa.string()
        for field in table.schema
        if pa.types.is_temporal(field.type)
        or (field.name in text_columns and not pa.types.is_nested(field.type) and field.type != pa.string())
    }
    return parse(data, delimiter, changed) if changed else table


def _demand_distinct(names: list[str], place: str) -> None:
    if twice := [name for name in names if names.count(name) > 1]:
        raise SourceError(place, f"two columns have the name {printable(twice[0])!r}", "rename one of them")


def _content(path: str, place: str) -> Any:
    """The bytes of a list, found to be UTF-8, without a mark at the beginning."""
    import pyarrow as pa

    with open(path, "rb") as file:
        data = file.read()
    if not data.strip():
        raise SourceError(place, "the list is empty", "name at least one file")
    if data.startswith(_UTF16) or b"\0" in data[:_PIECE]:
        raise SourceError(place, "the list is UTF-16, or not text at all", "save it as UTF-8, as with iconv -t UTF-8")
    decoder = codecs.getincrementaldecoder("utf-8")()
    at = 0
    try:
        while at < len(data):
            decoder.decode(data[at : at + _PIECE], final=at + _PIECE >= len(data))
            at += _PIECE
    except UnicodeDecodeError as exc:
        where = at + exc.start - (len(exc.object) - len(data[at : at + _PIECE]))
        line = data.count(b"\n", 0, where) + 1
        fact = f"line {line} is not UTF-8 (the byte 0x{data[where]:02x}); it may be Latin-1 or Windows-1252"
        raise SourceError(place, fact, "save the list as UTF-8, as with iconv -f WINDOWS-1252 -t UTF-8", where) from exc
    start = len(codecs.BOM_UTF8) if data.startswith(codecs.BOM_UTF8) else 0
    return pa.py_buffer(data)[start:]


def _parse_csv(data: Any, delimiter: str, types: dict[str, Any]) -> pa.Table:
    import pyarrow as pa
    from pyarrow import csv

    return csv.read_csv(
        pa.BufferReader(data),
        parse_options=csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=csv.ConvertOptions(column_types=types),
    )


def _parse_json(data: Any, delimiter: str, types: dict[str, Any]) -> pa.Table:
    import pyarrow as pa
    from pyarrow import json

    schema = pa.schema(list(types.items())) if types else None
    return json.read_json(
        pa.BufferReader(data),
        read_options=json.ReadOptions(block_size=_JSON_BLOCK),
        parse_options=json.ParseOptions(explicit_schema=schema, newlines_in_values=False),
    )


def is_list(path: str) -> bool:
    """Whether a file's name is that of a list."""
    return path.lower().endswith(LIST_SUFFIXES) and not os.path.isdir(path)
