"""Checks of the values that an `Augment` takes: each returns the value in plain form, or names the argument."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from shardkit.errors import UsageError, reason_of
from shardkit.options.numbers import switch

LARGEST = float(np.finfo(np.float32).max)
"""Images are float32: a larger number could only make them infinite."""

SMALLEST_SCALE = float(np.finfo(np.float32).tiny)
LARGEST_SCALE = LARGEST / 255
"""The limits of a factor for values from 0 to 255 that neither makes them zero nor infinite."""

_INT64 = 1 << 63


def plain_of(value: object) -> object:
    """A NumPy scalar or array without axes as the Python value in it; anything else unchanged."""
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and not value.ndim):
        return value.item() if value.dtype.char != "g" else float(value)  # a long double has no Python type
    return value


def is_number(value: object) -> bool:
    """Whether it is a finite number of Python or NumPy, and not a bool."""
    value = plain_of(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an int beyond float64
        return False


def number(name: str, value: object, largest: float = LARGEST) -> float:
    """The value as a Python number. UsageError unless it is a finite number of at most `largest`, either way."""
    found = plain_of(value)
    if isinstance(found, bool) or not isinstance(found, (int, float)) or found != found:
        raise UsageError(name, f"{value!r} is not a number", "give a finite number")
    if not abs(found) <= largest:
        shown = "it" if isinstance(found, int) else repr(found)
        raise UsageError(name, f"{shown} is beyond ±{largest:.3g}", "give a number that images can hold")
    return found


def scale(name: str, value: object) -> float:
    """A factor for the values of an image. UsageError for one that makes all of them zero or infinite."""
    found = number(name, value, LARGEST_SCALE)
    if 0 < abs(found) < SMALLEST_SCALE:
        raise UsageError(name, f"{found!r} is so small that every value becomes 0", "give a factor such as 1/255")
    return found


def pair(name: str, value: object, kinds: tuple[type, ...], expected: str) -> tuple[float, float]:
    """(low, high). UsageError unless the value is of one of these types and has two numbers."""
    values: list[Any] = list(value) if isinstance(value, kinds) else []  # type: ignore[call-overload]
    if len(values) != 2 or not all(map(is_number, values)):
        raise UsageError(name, f"{value!r} is not {expected}", "give it as a tuple or list of two numbers")
    return number(name, values[0]), number(name, values[1])


def shift(name: str, value: object) -> float | list[float]:
    """A number, or a list of them. UsageError for anything else."""
    found = plain_of(value)
    if isinstance(found, (tuple, list, range)) or (isinstance(found, np.ndarray) and found.ndim == 1):
        if not all(map(is_number, found)):
            raise UsageError(name, f"{value!r} is neither a number nor a list of numbers", "give one of these")
        return [number(name, each) for each in found]
    if not is_number(found) and not isinstance(found, (int, float)):
        raise UsageError(name, f"{value!r} is neither a number nor a list of numbers", "give one of these")
    span = number(name, found)
    return float(span) if abs(span) >= _INT64 else span  # NumPy can't choose among more whole numbers


def statistic(name: str, value: ArrayLike | None) -> None:
    """Raise UsageError unless a mean, std or zca_matrix is a number, or an array of numbers, that are finite."""
    if value is None:
        return
    array = real_array(name, value, "give a number, or an array that `fit` has computed")
    if not np.isfinite(array).all():
        raise UsageError(name, "it holds NaN or infinity", "give finite numbers, or compute them with `fit`")
    if name == "std" and (array < 0).any():
        raise UsageError(name, "it holds a negative deviation", "give positive numbers, or compute them with `fit`")


def require_real(name: str, value: Any, cure: str) -> NDArray[Any]:
    """The value as an array. UsageError for text, objects, complex numbers, rows of different length, and the like."""
    try:
        array = np.asarray(value)
        if (
            array.dtype.kind == "V" and array.dtype.names is None
        ):  # bfloat16, which is a number, or raw bytes, which fail
            array = array.astype(np.float32)
    except (ValueError, TypeError) as exc:
        raise UsageError(name, f"it is not an array of numbers ({reason_of(exc)})", cure) from exc
    if array.dtype.kind not in "biuf":
        raise UsageError(name, f"an array of {array.dtype} does not hold real numbers", cure)
    return array


def real_array(name: str, value: Any, cure: str) -> NDArray[np.float32]:
    """A copy of the value as float32. UsageError as in `require_real`."""
    with np.errstate(over="ignore"):
        return require_real(name, value, cure).astype(np.float32)


def images(name: str, value: Any, shape: str) -> NDArray[np.float32]:
    """A batch of images, float32 with four axes. UsageError for anything else, and for NaN."""
    array = real_array(name, value, f"give images as an array {shape}")
    if array.ndim != 4 or not array.size:
        raise UsageError(name, f"{array.shape} is not {shape}: four axes, none of them empty", "give a batch of images")
    if not np.isfinite(array).all():
        raise UsageError(name, "its values are not all finite", "remove the images that hold NaN or infinity")
    return array


def dtype(name: str, value: Any) -> str:
    """The name of a dtype of real numbers. UsageError for any other."""
    try:
        found = np.dtype(value)
    except TypeError as exc:
        raise UsageError(name, f"{value!r} is not a dtype", 'give one such as "float32"') from exc
    if found.kind in "SUOcMmb" or found.names is not None:
        raise UsageError(name, f"{found.name} can't hold an image", 'give one such as "float32"')
    return str(found.name)


def seed(value: object) -> int | None:
    """A seed as NumPy takes it. UsageError for anything but None and a whole number from 0 to 2³² - 1."""
    found = plain_of(value)
    if found is None:
        return None
    if isinstance(found, int) and not isinstance(found, bool) and 0 <= found < 1 << 32:
        return found
    raise UsageError("seed", f"{value!r} is not a whole number from 0 to 2**32 - 1", "give one such as 42")


def switches(names: Sequence[str], values: Sequence[object]) -> None:
    """Raise UsageError for a value that is not True or False."""
    for name, value in zip(names, values, strict=True):
        switch(name, value)
