"""The labels of a list: a class by name or number, several classes, or a number to predict."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from shardkit.errors import SourceError, UsageError, printable

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["class", "multi", "number", "none"]

_log = logging.getLogger(__name__)

_NO_VALUE = frozenset(("", "NA", "N/A", "#N/A", "NaN", "nan", "null", "NULL"))
"""What programs write for a missing value in a column of numbers."""
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}")
_NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")

_SPARSE = 1_000_000
"""The limit for class numbers without names: a larger number is probably another kind of ID, not a class number."""


class Labels(msgspec.Struct, frozen=True):
    """The labels of the rows of a list. values: for each row a name or number ("class"), a list of them ("multi"), a
    float or a list of floats ("number"), or None if the row has no valid label."""

    kind: Kind
    values: Sequence[Any]
    named: bool
    """Whether classes are given by name instead of by number."""


NO_LABELS = Labels("none", (), False)


def labels_of(
    column: pa.ChunkedArray, place: str, name: str, separator: str | None, *, all_text: bool = False
) -> Labels:
    """Parse the labels in a column. separator: the text between several labels in one value. Raises SourceError.

    all_text: the file has only text, so that the form of a value decides what it is. Numbers are class numbers if each
    is written in the usual form, and names otherwise: 007 is a name.
    """
    import pyarrow as pa
    import pyarrow.types as types

    kind = column.type
    if types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if types.is_binary(kind) or types.is_large_binary(kind):
        column, kind = _as_text(column, place, name), pa.string()
    values = column.to_pylist()
    if types.is_string(kind) or types.is_large_string(kind) or types.is_null(kind):
        if separator is not None:
            return _separate(values, separator)
        return _parse_written(values, place) if all_text else Labels("class", [value or None for value in values], True)
    if separator is not None:
        fact = f"the label column {name!r} is {kind}, and a separator is only for text"
        raise SourceError(place, fact, "omit `label_separator`")
    if types.is_boolean(kind):
        return Labels("class", [None if value is None else str(value).lower() for value in values], True)
    if types.is_integer(kind):
        return Labels("class", values, False)
    if types.is_floating(kind) or types.is_decimal(kind):
        return _decimal([_finite(value) for value in values], place)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _listed(values, kind.value_type, place, name)
    raise SourceError(place, f"the label column {name!r} is {kind}", "give names, numbers, or lists of them") from None


def _as_text(column: pa.ChunkedArray, place: str, name: str) -> pa.ChunkedArray:
    import pyarrow as pa

    try:
        return column.cast(pa.string())
    except pa.ArrowInvalid as exc:
        fact = f"the label column {name!r} holds bytes that are not UTF-8"
        raise SourceError(place, fact, "decode them, or give the class names as text") from exc


def _parse_written(values: Sequence[str | None], place: str) -> Labels:
    """The labels of a column in a text file."""
    texts = [None if value is None or value.strip() in _NO_VALUE else value.strip() for value in values]
    given = {text for text in texts if text is not None}
    if given and all(map(_WHOLE.fullmatch, given)):
        return Labels("class", [None if text is None else int(text) for text in texts], False)
    if given and all(map(_NUMBER.fullmatch, given)) and any(set(text) & set(".eE") for text in given):
        return _decimal([None if text is None else _finite(float(text)) for text in texts], place)
    if given and {text.lower() for text in given} <= {"true", "false"}:
        return Labels("class", [None if text is None else text.lower() for text in texts], True)
    return Labels("class", [value or None for value in values], True)


def _decimal(values: Sequence[float | None], place: str) -> Labels:
    """Numbers to predict; class numbers if all are whole, since tables turn integers into floats if a cell is empty."""
    given = {value for value in values if value is not None}
    if not given or not all(value.is_integer() and 0 <= value < _SPARSE for value in given):
        return Labels("number", values, False)
    text = "%s: its labels are whole numbers written as decimals, such as %s: they are taken as class numbers"
    _log.warning(text + " (write numbers to predict as lists of one, in JSON lines or Parquet)", place, min(given))
    return Labels("class", [None if value is None else int(value) for value in values], False)


def _separate(values: Sequence[str | None], separator: str) -> Labels:
    parts = [None if text is None else [part.strip() for part in text.split(separator) if part.strip()]
             for text in values]  # fmt: skip
    numbers = all(part.isdigit() and part.isascii() for each in parts for part in each or ())
    if numbers and any(parts):
        return Labels("multi", [None if each is None else [int(part) for part in each] for each in parts], False)
    return Labels("multi", parts, True)


def _listed(values: Sequence[list[Any] | None], kind: Any, place: str, name: str) -> Labels:
    import pyarrow.types as types

    if types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind) or types.is_null(kind):
        lists = [None if each is None or None in each else each for each in values]
        return Labels("multi", lists, not types.is_integer(kind))
    if types.is_floating(kind):
        numbers = [None if each is None or any(_finite(value) is None for value in each) else each for each in values]
        return Labels("number", numbers, False)
    raise SourceError(place, f"the label column {name!r} has lists of {kind}", "give lists of names or numbers")


def _finite(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def class_map(all_labels: Iterable[tuple[str, Labels]], classes: Sequence[str] | None) -> tuple[str, ...]:
    """The classes in label order, for (place, labels) of each split: the given ones, the sorted names, or 0, 1 ….

    Raises SourceError if one split has names and another numbers, or kinds differ; UsageError if classes are given for
    labels that are not classes.
    """
    found = list(all_labels)
    kinds = {(labels.kind, labels.named) for _, labels in found}
    if len(kinds) > 1:
        raise SourceError(found[0][0], "its splits have labels of different kinds", "give all of them the same kind")
    kind, named = next(iter(kinds))
    if kind in ("number", "none"):
        if classes is not None:
            raise UsageError("classes", f"the labels of {found[0][0]} are not classes", "omit `classes`")
        return ()
    if classes is not None:
        return tuple(classes)
    known: set[Any] = set()
    for _, labels in found:
        for value in labels.values:
            known.update(value if isinstance(value, list) else (value,))
    known.discard(None)
    if named:
        return tuple(sorted(known))
    most = max(known, default=-1)
    if most >= max(_SPARSE, 100 * len(known)):
        fact = f"its class numbers go up to {most}, but there are only {len(known)} of them"
        raise SourceError(found[0][0], fact, "number the classes from 0, or write them as names")
    return tuple(str(number) for number in range(most + 1))


def number_labels(labels: Labels, classes: Sequence[str]) -> tuple[list[Any], dict[int, str]]:
    """(label of each row: an int, a sorted list of ints, a number or list of numbers; row -> what is wrong with it)."""
    if labels.kind == "number":
        return list(labels.values), {
            row: "its label is empty, or not a number" for row, value in enumerate(labels.values) if value is None
        }
    if labels.kind == "none":
        return [], {}
    places = {name: number for number, name in enumerate(classes)}
    found: list[Any] = []
    wrong: dict[int, str] = {}
    for row, value in enumerate(labels.values):
        if value is None:
            wrong[row] = "its label is empty"
            found.append(-1)
            continue
        several = isinstance(value, list)
        numbers = [_number(each, places, len(classes)) for each in (value if several else (value,))]
        if None in numbers:
            unknown = (value if several else (value,))[numbers.index(None)]
            wrong[row] = f"its label {printable(str(unknown))!r} is not one of the {len(classes)} classes"
        found.append(sorted({number for number in numbers if number is not None}) if several else numbers[0] or 0)
    return found, wrong


def _number(value: str | int, places: dict[str, int], count: int) -> int | None:
    if isinstance(value, int):
        return value if 0 <= value < count else None
    return places.get(value)
