"""Reads a list of files (CSV, TSV, JSON lines, Parquet) as an Arrow table, its text as it is written.

pyarrow is imported when a list is read.
"""

from __future__ import annotations

import codecs
import logging
import os
import re
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from shardkit.errors import MissingSourceError, SourceError, printable
from shardkit.sample import fs_text

if TYPE_CHECKING:
    import pyarrow as pa

LIST_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")

_log = logging.getLogger(__name__)

SEPARATORS = (",", ";", "\t", "|")
MAX_COLUMNS = 100_000
MAX_NESTING = 64
"""Lists and objects in each other, in a row of JSON: PyArrow's reader ends the process at some thousands."""

_JSON_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*"')
_PIECE = 1 << 20
_JSON_BLOCK = 16 << 20  # the longest row of JSON lines
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_table(path: str, text_columns: tuple[str, ...] = (), csv_texts: tuple[str, ...] = ()) -> pa.Table:
    """The rows of a list. Columns of dates and times, and `text_columns`, are text as it is written there.

    csv_texts: the first of these names, in any case of letters, is one of them where the file has nothing but text.

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
            table = _read_text(path, place, text_columns, () if is_json(path) else csv_texts)
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


def is_json(path: str) -> bool:
    """Whether a list's name says JSON lines."""
    return path.lower().endswith((".jsonl", ".ndjson"))


def _read_text(path: str, place: str, text_columns: tuple[str, ...], first_of: tuple[str, ...]) -> pa.Table:
    import pyarrow as pa

    data = _content(path, place)
    parse, delimiter = _parse_csv, ","
    if is_json(path):
        parse = _parse_json
        _demand_flat(data, place)
    else:
        delimiter = _separator(data, "\t" if path.lower().endswith(".tsv") else ",", place)
    table = parse(data, delimiter, {})
    _demand_distinct(table.column_names, place)
    names = {name.lower(): name for name in reversed(table.column_names)}
    texts = {*text_columns, next((names[name.lower()] for name in first_of if name.lower() in names), "")}
    changed = {
        field.name: pa.string()
        for field in table.schema
        if pa.types.is_temporal(field.type)
        or (field.name in texts and not pa.types.is_nested(field.type) and field.type != pa.string())
    }
    return parse(data, delimiter, changed) if changed else table


def _demand_distinct(names: list[str], place: str) -> None:
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise SourceError(place, f"two columns have the name {printable(twice[0])!r}", "rename one of them")


def _separator(data: pa.Buffer, usual: str, place: str) -> str:
    """What stands between the columns: the usual, or where the first row has none of it, another."""
    first = bytes(data[:_PIECE]).lstrip().partition(b"\n")[0].decode("utf-8", "replace")
    found = usual if usual in first else max(SEPARATORS, key=first.count)
    if first.count(found) >= MAX_COLUMNS:
        raise SourceError(place, f"it has over {MAX_COLUMNS} columns", "leave out those that are not needed")
    if found in first and found != usual:
        _log.warning("%s: its columns are separated by %r, not %r, and are read so", place, found, usual)
        return found
    return usual


def _demand_flat(data: pa.Buffer, place: str) -> None:
    """SourceError for a row with far too many lists and objects in each other."""
    for number, line in enumerate(_lines(data), 1):
        if line.count(b"[") + line.count(b"{") > MAX_NESTING and _depth(line) > MAX_NESTING:
            fact = f"line {number} has over {MAX_NESTING} lists and objects in each other"
            raise SourceError(place, fact, "make it flat, or leave it out")


def _lines(data: pa.Buffer) -> Iterator[bytes]:
    import pyarrow as pa

    with pa.BufferReader(data) as file:
        rest = b""
        while piece := file.read(_PIECE):
            *lines, rest = (rest + piece).split(b"\n")
            yield from lines
        yield rest


def _depth(line: bytes) -> int:
    depth = most = 0
    for mark in re.findall(rb"[\[\]{}]", _JSON_TEXT.sub(b"", line)):
        depth += 1 if mark in b"[{" else -1
        most = max(most, depth)
    return most


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
