"""The labels of samples made by a program: a class by number or name, several classes, or a number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import numpy as np

from shardkit.sample import MAX_LABEL, label_number

Kind = Literal["class", "multi", "number", "none"]


class Targets:
    """Converts the value of `cls` to its stored form. All samples must have the same kind of label."""

    def __init__(self, classes: Sequence[str] | None) -> None:
        self.classes = None if classes is None else tuple(classes)
        self.kind: Kind | None = None
        self.most = -1
        self.places = {name: number for number, name in enumerate(classes or ())}

    def stored(self, value: Any) -> tuple[int, list[tuple[str, bytes]], list[int]]:
        """(label for the index, -1 for none; fields to store; classes to count). ValueError for an invalid label."""
        kind, found = self._read(value)
        if self.kind not in (None, kind):
            what = {"class": "one class", "multi": "several classes", "number": "a number", "none": "no label"}
            raise ValueError(f"it has {what[kind]}, but those before have {what[self.kind or 'none']}")
        self.kind = kind
        if kind == "none":
            return -1, [], []
        if kind == "class":
            return found, [("cls", b"%d" % found)], [found]
        return -1, [("cls.json", msgspec.json.encode(found))], found if kind == "multi" else []

    def names(self) -> tuple[str, ...]:
        """The classes in label order: those given, or the numbers."""
        return tuple(str(number) for number in range(self.most + 1)) if self.classes is None else self.classes

    def _read(self, value: Any) -> tuple[Kind, Any]:
        if value is None:
            return "none", None
        if isinstance(value, (np.ndarray, np.generic)):
            value = value.tolist()
        if isinstance(value, bytes):
            value = value.decode("utf-8", "backslashreplace")
        if isinstance(value, float):
            return "number", _finite(value)
        if not isinstance(value, (list, tuple)):
            return "class", self._number(value)
        if any(isinstance(each, float) for each in value):
            return "number", [_finite(each) for each in value]
        return "multi", sorted({self._number(each) for each in value})

    def _number(self, value: Any) -> int:
        number = self.places.get(value) if isinstance(value, str) else value
        if number is None and value.isdigit() and value.isascii():
            number = label_number(value.encode())
        if number is None:
            how = (
                "give its number, or classes=[…] in label order"
                if self.classes is None
                else "it is not one of the classes"
            )
            raise ValueError(f"a class by its name, {value!r}: {how}")
        if isinstance(number, bool) or not isinstance(number, int):
            raise ValueError(
                f"a {type(value).__name__} is not a label: give a class number or name, a float, or a list"
            )
        limit = MAX_LABEL + 1 if self.classes is None else len(self.classes)
        if not 0 <= number < limit:
            raise ValueError(f"the class {number} is not in 0 … {limit - 1}")
        self.most = max(self.most, number)
        return number


def _finite(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a number to predict")
    return float(value)
