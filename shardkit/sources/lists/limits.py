"""What a list of files may hold, so that a small file can't fill the memory."""

from __future__ import annotations

from shardkit.errors import SourceError

MAX_COLUMNS = 50_000

MAX_NESTING = 64
"""Lists and objects in each other, in a row of JSON: PyArrow's reader ends the process at some thousands."""

MAX_ROW_BYTES = 16 << 20
"""The longest row of CSV, TSV and JSON lines."""

LEAST_ROOM = 256 << 20
ROOM_FACTOR = 16
"""A list may come to so many times its file in memory, and to LEAST_ROOM in any case."""

ROW_COST = 64
"""Bytes that a row costs beside its values, roughly: its path and label become objects of Python."""


def room_of(file_bytes: int) -> int:
    """The bytes of memory that the values of a list may come to."""
    return max(LEAST_ROOM, ROOM_FACTOR * file_bytes)


def require_room(used: int, rows: int, room: int, place: str, what: str) -> None:
    """SourceError where values of `used` bytes in `rows` rows are beyond `room`. what: those that were counted."""
    if used + rows * ROW_COST > room:
        fact = f"its {what} come to {used + rows * ROW_COST >> 20} MiB in memory, {room >> 20} MiB are the most"
        raise SourceError(place, fact, "leave out columns that are not needed, or split the list")
