"""What counts as a number of pixels, as a range, or as a switch, where a user gives one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from shardkit.errors import UsageError


def is_whole(value: object) -> bool:
    """Whether it is an int, NumPy's too, and not a bool."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def switch(name: str, value: object) -> bool:
    """`value`, NumPy's too, as a bool. UsageError unless it is one: a text such as "no" would count as True."""
    if not isinstance(value, (bool, np.bool_)):
        raise UsageError(name, f"{value!r} is not True or False", "give one of these")
    return bool(value)


def is_finite(value: Any) -> bool:
    """Whether a number is finite as a float."""
    try:
        return math.isfinite(value)
    except OverflowError:  # an int that no float holds
        return False


def is_range(given: Any, most: float) -> bool:
    """Whether it is (low, high) with 0 < low <= high <= most, and high is finite."""
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        return False
    if not all(isinstance(v, (int, float, np.number)) and not isinstance(v, bool) for v in given):
        return False
    return bool(0 < given[0] <= given[1] <= most) and is_finite(given[1])
