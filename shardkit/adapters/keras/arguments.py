"""Checks of the arguments that flows and datasets take, with Keras' meaning. Each raises UsageError."""

from __future__ import annotations

import operator
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from shardkit.errors import UsageError
from shardkit.images.augment import checks
from shardkit.options.keywords import cure_of_choice
from shardkit.units import short_value


def flags(**values: object) -> list[bool]:
    """The values as True and False, in their order; a whole number or None by Python's rule. UsageError for others."""
    for name, value in values.items():
        if value is not None and not isinstance(value, (bool, int, np.bool_, np.integer)):
            raise UsageError(name, f"{short_value(value)} is neither true nor false", "give True or False")
    return [bool(value) for value in values.values()]


def folder_of(name: str, value: object) -> str | None:
    """A folder as text, None for no folder: None or an empty text. UsageError for what is not a path."""
    if value is None or (isinstance(value, str) and not value):
        return None
    if not isinstance(value, (str, os.PathLike)):
        raise UsageError(name, f"{type(value).__name__} is not a path", "give a path as text")
    found = os.fspath(value)
    return os.fsdecode(found) if isinstance(found, bytes) else found


def class_list(name: str, value: Any) -> list[str] | None:
    """Class names in order, from any sequence of them; None for none, as in Keras. UsageError for anything else."""
    if value is None:
        return None
    if isinstance(value, (str, bytes, Mapping)) or not (isinstance(value, Sequence) or hasattr(value, "__array__")):
        raise UsageError(
            name, f"{type(value).__name__} is not a list of class names", 'give one such as ["cat", "dog"]'
        )
    values = np.asarray(value, object).tolist() if hasattr(value, "__array__") else list(value)
    if not isinstance(values, list) or not all(isinstance(each, (str, int, np.integer)) for each in values):
        raise UsageError(name, f"{value!r} is not a list of class names", 'give one such as ["cat", "dog"]')
    return [str(each) for each in values] or None


def require_part(subset: str | None, validation_split: float) -> None:
    """Raise UsageError for a subset, or a fraction for it, that makes no sense."""
    one_of("subset", subset, ("training", "validation", None))
    if not fraction(validation_split) and subset is not None:
        fact = f"{validation_split!r} is not a fraction between 0 and 1"
        raise UsageError("validation_split", fact, "give one such as 0.2 together with subset")


def fraction(validation_split: object) -> float:
    """A `validation_split` as a float, 0 for none. UsageError unless it is a number from 0 up to, but not, 1."""
    found = 0.0 if validation_split is None else checks.plain_of(validation_split)
    if isinstance(found, bool) or not isinstance(found, (int, float)) or not 0 <= found < 1:
        raise UsageError("validation_split", f"{validation_split!r} is not between 0 and 1", "give one such as 0.2")
    return float(found)


def two_sides(value: Any, name: str = "target_size") -> tuple[int, int]:
    """(height, width) from a user's size. UsageError for anything but two positive integers."""
    try:
        height, width = map(operator.index, value)
    except (TypeError, ValueError) as exc:
        raise UsageError(name, f"{value!r} is not (height, width)", "give two integers, such as (150, 150)") from exc
    if min(height, width) < 1:
        raise UsageError(name, f"{value!r} has a side below 1", "give two positive integers")
    return height, width


def one_of(argument: str, value: object, allowed: Sequence[object]) -> None:
    """Raise UsageError for a value that is not allowed."""
    if not any(value is one or (isinstance(value, str) and value == one) for one in allowed):
        cure = cure_of_choice(argument, value, allowed)
        raise UsageError(argument, f"{value!r} is not one of {', '.join(map(repr, allowed))}", cure)
