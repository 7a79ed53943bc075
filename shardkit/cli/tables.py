"""Text tables for a terminal: class counts of one dataset, or of several splits side by side."""

from __future__ import annotations

import shutil
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from shardkit.errors import printable
from shardkit.units import format_bytes

if TYPE_CHECKING:
    from shardkit.shards.manifest import ClassEntry

SHOWN_CLASSES = 20


def plural(count: int, noun: str, plural_noun: str = "") -> str:
    """`1 shard`, `2 shards`, `50,000 samples`."""
    return f"{count:,} {noun if count == 1 else plural_noun or noun + 's'}"


def extent(samples: int, shards: int, size: int) -> str:
    """`50,000 samples in 2 shards, 93.1 MB`."""
    return f"{plural(samples, 'sample')} in {plural(shards, 'shard')}, {format_bytes(size)}"


def class_table(columns: Mapping[str, Sequence[ClassEntry]], *, indent: str = "  ") -> str:
    """The class map, label by label, with the number of samples in each dataset. columns: dataset name -> its classes.

    All have the same classes in the same order. The first SHOWN_CLASSES are shown, and the number of further ones.
    """
    maps = list(columns.values())
    if not maps or not maps[0]:
        return f"{indent}no classes"
    heads = [printable(name) for name in columns] if len(columns) > 1 else ["samples"]
    rows = [["label", "class", *heads]]
    for label, entry in enumerate(maps[0][:SHOWN_CLASSES]):
        rows.append([str(label), printable(entry.name), *(f"{classes[label].count:,}" for classes in maps)])
    text = table(rows, left=(1,), indent=indent)
    more = len(maps[0]) - SHOWN_CLASSES
    return f"{text}\n{indent}… and {plural(more, 'more class', 'more classes')}" if more > 0 else text


def table(rows: Sequence[Sequence[str]], *, left: Sequence[int] = (), indent: str = "  ") -> str:
    """Format the rows in columns, two spaces apart; those in `left` are left-aligned, all others right-aligned."""
    widths = [max(width(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = []
        for i, cell in enumerate(row):
            pad = " " * (widths[i] - width(cell))
            cells.append(cell + pad if i in left else pad + cell)
        lines.append((indent + "  ".join(cells)).rstrip())
    return "\n".join(lines)


def facts(rows: Sequence[tuple[str, str]], *, columns: int | None = None, indent: str = "  ") -> str:
    """Format names and their values, each below the one before. columns: those of the terminal (default: of stdout; no
    limit if that is none): a longer value goes on in the next line, at the end of a word."""
    columns = terminal_columns() if columns is None else columns
    names = max(width(name) for name, _ in rows)
    lines = []
    for name, value in rows:
        start = f"{indent}{name}{' ' * (names - width(name))}  "
        first, *more = _folded(value, columns - width(start) if columns else 0)
        lines += [(start + first).rstrip(), *(" " * width(start) + each for each in more)]
    return "\n".join(lines)


LEAST_COLUMNS = 20
"""Text is not folded to fewer columns than these."""


def _folded(text: str, columns: int) -> list[str]:
    """Lines of at most so many columns, unless a word is longer; one line if there are no columns."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if lines[-1] and columns and width(longer) > max(columns, LEAST_COLUMNS):
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def terminal_columns() -> int:
    """The columns of stdout, 0 if it is no terminal: what goes to a file or another program is not folded."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 0


def width(text: str) -> int:
    """The number of terminal columns of `text`: two for a wide East Asian character, none for a combining one."""
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)
