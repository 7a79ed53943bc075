"""Sizes and values as text, and the number of cores to use."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from reprlib import Repr
from typing import Any

from shardkit.errors import UsageError

UNITS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
"""Bytes in each unit, by its name in lower case."""


_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", re.ASCII)


def parse_bytes(value: int | str, *, place: str = "max_bytes") -> int:
    """A number of bytes, 1 or more: an int, or text such as `64MiB`, `1.5GB`, `1 GB`, `4096`.

    MB is 10⁶ and MiB is 2²⁰; units are case-insensitive. `place` names the option in the UsageError for anything else.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        size, part = value, 1
    else:
        size, part = _measured(value, place)
    if size % part or size < 1:
        raise UsageError(place, f"{value} is not a whole number of bytes, 1 or more", _SIZE_CURE)
    return size // part


_SIZE_CURE = "give bytes, or a number with kB, MB, GB, TB (10³, 10⁶ …) or KiB, MiB, GiB, TiB (2¹⁰, 2²⁰ …)"


def _measured(value: object, place: str) -> tuple[int, int]:
    """The size as a fraction, exact: numerator and denominator."""
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise UsageError(place, f"{value!r} is not a size", _SIZE_CURE)
    number, unit = match.groups()
    if unit.lower() not in UNITS:
        if unit.lower() in ("k", "m", "g", "t"):
            letter = unit.upper()
            raise UsageError(place, f"{value!r} is ambiguous", f"write {number}{letter}B or {number}{letter}iB")
        raise UsageError(place, f"{value!r} has no known unit", _SIZE_CURE)
    whole, _, decimals = number.partition(".")
    return int(whole + decimals) * UNITS[unit.lower()], 10 ** len(decimals)


def format_bytes(count: float) -> str:
    """A human-readable number of bytes, in powers of 1000 with three digits: `999 B`, `1.00 kB`, `25.6 MB`."""
    if count < 999.5:
        return f"{count:.0f} B"
    size = float(count)
    for unit in ("kB", "MB", "GB", "TB"):
        size /= 1000
        if size < 999.5 or unit == "TB":
            break
    digits = 2 if size < 9.995 else 1 if size < 99.95 else 0
    return f"{size:.{digits}f} {unit}"


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


SHOWN_ITEMS = 3
"""The most items of a list that `short_repr` spells out."""

SHOWN_TEXT = 80
"""The most characters of a text that it spells out."""

_texts = Repr()
_texts.maxstring = _texts.maxother = SHOWN_TEXT


def short_repr(value: Any) -> str:
    """The `__repr__` of results, which are dataclasses: one line, with the number of items in place of long lists.

    Fields that have their default, and empty ones, are omitted.
    """
    from dataclasses import MISSING, fields  # takes longer to load than all else here

    names = getattr(value, "__struct_fields__", None)  # a msgspec.Struct is one too
    defaults = {each.name: each.default for each in fields(value)} if names is None else dict.fromkeys(names, MISSING)
    shown = []
    for name, default in defaults.items():
        held = getattr(value, name)
        empty = held is None or (hasattr(held, "__len__") and not len(held))
        if not name.startswith("_") and not empty and (default is MISSING or held != default):
            shown.append(f"{name}={short_value(held)}")
    return f"{type(value).__name__}({', '.join(shown)})"


def short_value(value: Any) -> str:
    """A value in one short line: a long list as the number of its items."""
    if isinstance(value, (tuple, list, set, frozenset, Mapping)):
        plain = all(isinstance(item, (str, int, float)) for item in value) and not isinstance(value, Mapping)
        text = repr(value)[: SHOWN_TEXT + 1] if plain and len(value) <= SHOWN_ITEMS else ""
        return text if 0 < len(text) <= SHOWN_TEXT else f"<{len(value):,}>"
    return _texts.repr(value) if isinstance(value, str) else repr(value)
