"""Read a list in text form (CSV, TSV, JSON lines): it is first checked in pieces, then parsed as a stream."""

from __future__ import annotations

import codecs
import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from shardkit.errors import SourceError
from shardkit.sources.lists.limits import MAX_COLUMNS, MAX_NESTING, MAX_ROW_BYTES, require_room, room_of
from shardkit.sources.lists.typed import read_as

if TYPE_CHECKING:
    import pyarrow as pa

SEPARATORS = (",", ";", "\t", "|")

_log = logging.getLogger(__name__)

_JSON_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*"')
_PIECE = 1 << 20
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_JSON_VALUE = 9
"""Bytes that a column takes in each row, even without a value: a number and a bit, rounded up."""


class _Looked(msgspec.Struct, frozen=True):
    """The result of the check. head: the first bytes. start: where the text begins, after a byte order mark."""

    head: bytes
    start: int
    bytes: int


def read_text(path: str, place: str, *, is_json: bool, texts: tuple[str, ...], first_of: tuple[str, ...]) -> pa.Table:
    """Read the rows of a list. Columns of dates and times stay text as written, as do `texts` and the first of the
    names `first_of` (in any case) that is a column. Raises SourceError."""
    import pyarrow as pa

    looked = _look_through(path, place)
    if is_json:
        _look_at_rows(path, place, looked)
        delimiter = ""
    else:
        delimiter = _separator(looked.head, "\t" if path.lower().endswith(".tsv") else ",", place)
    table = _parse(path, place, looked, delimiter, {})
    names = {name.lower(): name for name in reversed(table.column_names)}
    wanted = {*texts, next((names[name.lower()] for name in first_of if name.lower() in names), "")}
    changed = {
        field.name: pa.string()
        for field in table.schema
        if pa.types.is_temporal(field.type)
        or (field.name in wanted and not pa.types.is_nested(field.type) and field.type != pa.string())
    }
    return _marked(_parse(path, place, looked, delimiter, changed), table.schema) if changed else table


def _marked(table: pa.Table, inferred: pa.Schema) -> pa.Table:
    """The table, whose columns of text say whether dates or times were recognized in them."""
    import pyarrow as pa

    marks = {field.name: read_as(field.type) for field in inferred}
    fields = [field.with_metadata(marks.get(field.name)) if pa.types.is_string(field.type) else field
              for field in table.schema]  # fmt: skip
    return pa.Table.from_arrays(table.columns, schema=pa.schema(fields))


def _look_through(path: str, place: str) -> _Looked:
    """Check the file. SourceError if it is not UTF-8 text, or has a line that is longer than a row may be."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    head, at, lines, length, blank = b"", 0, 0, 0, True
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            if not at:
                head = piece
                if piece.startswith(_UTF16) or b"\0" in piece.partition(b"\n")[0]:
                    cure = "save it as UTF-8, for example with iconv -t UTF-8"
                    raise SourceError(place, "the list is UTF-16, or not text at all", cure)
            waiting = len(decoder.getstate()[0])
            try:
                decoder.decode(piece)
            except UnicodeDecodeError as exc:
                where = exc.start - waiting
                line = lines + piece.count(b"\n", 0, max(where, 0)) + 1
                raise _not_utf8(exc.object[exc.start], line, at + where, place) from exc
            if (nul := piece.find(b"\0")) >= 0:
                line = lines + piece.count(b"\n", 0, nul) + 1
                fact = f"line {line} has a NUL byte"
                raise SourceError(place, fact, "remove it, or write the list again", at + nul)
            first, last = _line_end(piece, piece.find), _line_end(piece, piece.rfind)
            length = length + len(piece) if last < 0 else max(length + first, len(piece) - last - 1)
            if length > MAX_ROW_BYTES:
                raise _too_long(place, lines + 1)
            length = length if last < 0 else len(piece) - last - 1
            lines += piece.count(b"\n")
            blank = blank and not piece.strip()
            at += len(piece)
    if blank:
        raise SourceError(place, "the list is empty", "name at least one file")
    if cut := decoder.getstate()[0]:
        raise _not_utf8(cut[0], lines + 1, at - len(cut), place)
    return _Looked(head, len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0, at)


def _line_end(piece: bytes, find: Callable[[bytes], int]) -> int:
    """The position of a line end: a line feed, or in old files a carriage return alone."""
    return find(b"\n") if b"\n" in piece else find(b"\r")


def _not_utf8(byte: int, line: int, offset: int, place: str) -> SourceError:
    fact = f"line {line} is not UTF-8 (the byte 0x{byte:02x}); it may be Latin-1 or Windows-1252"
    return SourceError(place, fact, "save the list as UTF-8, for example with iconv -f WINDOWS-1252 -t UTF-8", offset)


def _too_long(place: str, line: int) -> SourceError:
    fact = f"the row at line {line} is longer than {MAX_ROW_BYTES >> 20} MiB"
    return SourceError(place, fact, "remove it, or close the quote that is open there")


def _separator(head: bytes, usual: str, place: str) -> str:
    """The column separator: the usual one, or another if the first row does not have it."""
    first = head.lstrip().partition(b"\n")[0].decode("utf-8", "replace")
    found = usual if usual in first else max(SEPARATORS, key=first.count)
    if first.count(found) >= MAX_COLUMNS:
        raise SourceError(place, f"it has over {MAX_COLUMNS} columns", "remove those that are not needed")
    if found in first and found != usual:
        _log.warning("%s: its columns are separated by %r instead of %r, and are read that way", place, found, usual)
        return found
    return usual


def _look_at_rows(path: str, place: str, looked: _Looked) -> None:
    """SourceError for JSON rows with lists and objects nested too deeply, or too many names: each name in any row
    becomes a column, which takes memory in all rows."""
    room = room_of(looked.bytes)
    columns: set[tuple[str, ...]] = set()
    known: set[tuple[str, ...]] = set()
    with open(path, "rb") as file:
        file.seek(looked.start)
        for number, line in enumerate(_lines(file), 1):
            opened = line.count(b"[") + line.count(b"{")
            if opened > MAX_NESTING and _depth(line) > MAX_NESTING:
                fact = f"line {number} has over {MAX_NESTING} nested lists and objects"
                raise SourceError(place, fact, "flatten it, or remove it")
            row = _decode(line)
            names = tuple(row) if isinstance(row, dict) else ()
            if line.count(b"{") > 1 or names not in known:
                known.add(names)
                _add_columns(row, (), columns)
            if len(columns) > MAX_COLUMNS:
                fact = f"with line {number} it has over {MAX_COLUMNS} columns"
                raise SourceError(place, fact, "remove those that are not needed")
            used = number * len(columns) * _JSON_VALUE
            require_room(used, number, room, place, f"{len(columns)} columns up to line {number}")


def _decode(line: bytes) -> Any:
    """A decoded JSON row; None for an invalid one, which PyArrow's reader reports later."""
    try:
        return msgspec.json.decode(line)
    except msgspec.DecodeError:  # NaN, which Python's json and PyArrow accept
        try:
            return json.loads(line)
        except ValueError:
            return None


def _add_columns(value: Any, at: tuple[str, ...], columns: set[tuple[str, ...]]) -> None:
    columns.add(at)
    if isinstance(value, dict):
        for name, each in value.items():
            _add_columns(each, (*at, name), columns)
    elif isinstance(value, list):
        for each in (each for each in value if isinstance(each, dict | list)):
            _add_columns(each, (*at, "[]"), columns)


def _lines(file: BinaryIO) -> Iterator[bytes]:
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


def _parse(path: str, place: str, looked: _Looked, delimiter: str, types: dict[str, Any]) -> pa.Table:
    """Parse the rows. delimiter: "" for JSON lines."""
    import pyarrow as pa

    with pa.OSFile(os.path.abspath(path)) as file:
        file.seek(looked.start)
        try:
            table = _parse_csv(file, delimiter, types) if delimiter else _parse_json(file, types)
        except pa.ArrowInvalid as exc:
            if "straddl" in str(exc):
                raise _too_long(place, _open_quote(path)) from exc
            raise
    require_room(table.nbytes, table.num_rows, room_of(looked.bytes), place, f"{table.num_rows} rows")
    return table


def _open_quote(path: str) -> int:
    """The line where the row begins that is longer than a row may be, because its quote stays open."""
    first = number = 1
    length, is_open = 0, False
    with open(path, "rb") as file:
        for number, line in enumerate(_lines(file), 1):
            if not is_open:
                first, length = number, 0
            length += len(line) + 1
            if length > MAX_ROW_BYTES:
                break
            is_open ^= bool(line.count(b'"') % 2)
    return first


def _parse_csv(file: Any, delimiter: str, types: dict[str, Any]) -> pa.Table:
    from pyarrow import csv

    return csv.read_csv(
        file,
        read_options=csv.ReadOptions(block_size=MAX_ROW_BYTES),
        parse_options=csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=csv.ConvertOptions(column_types=types),
    )


def _parse_json(file: Any, types: dict[str, Any]) -> pa.Table:
    import pyarrow as pa
    from pyarrow import json as arrow_json

    schema = pa.schema(list(types.items())) if types else None
    return arrow_json.read_json(
        file,
        read_options=arrow_json.ReadOptions(block_size=MAX_ROW_BYTES),
        parse_options=arrow_json.ParseOptions(explicit_schema=schema, newlines_in_values=False),
    )
