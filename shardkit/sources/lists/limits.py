"""Limits on the content of a list of files, so that a small file can't fill the memory."""

from __future__ import annotations

from shardkit.errors import SourceError

MAX_COLUMNS = 50_000

MAX_NESTING = 64
"""Nested lists and objects in a JSON row: at some thousands, PyArrow's reader crashes the process."""

MAX_ROW_BYTES = 16 << 20
"""The longest row of CSV, TSV and JSON lines."""

LEAST_ROOM = 256 << 20
ROOM_FACTOR = 16
"""In memory, a list may take ROOM_FACTOR times the size of its file, and LEAST_ROOM in any case."""

ROW_COST = 64
"""Bytes that a row costs besides its values, roughly: its path and label become Python objects."""


def room_of(file_bytes: int) -> int:
    """The memory in bytes that the values of a list may take."""
    return max(LEAST_ROOM, ROOM_FACTOR * file_bytes)


def require_room(used: int, rows: int, room: int, place: str, what: str) -> None:
    """SourceError if `used` bytes of values in `rows` rows exceed `room`. what: names what was counted."""
    if used + rows * ROW_COST > room:
        fact = f"its {what} take {used + rows * ROW_COST >> 20} MiB in memory; the limit is {room >> 20} MiB"
        raise SourceError(place, fact, "remove columns that are not needed, or split the list")
