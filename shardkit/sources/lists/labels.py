"""The labels of a list: a class by name or number, several classes, or a number to predict."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from shardkit.errors import SourceError, UsageError, printable
from shardkit.sources.lists.coded import Coded, coded, coded_texts

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
        if types.is_string(kind.value_type):
            return _of_texts(_as_coded(column, place, name), place, separator, all_text=all_text)
        column, kind = column.cast(kind.value_type), kind.value_type
    if types.is_binary(kind) or types.is_large_binary(kind):
        column, kind = _as_text(column, place, name), pa.string()
    if types.is_string(kind) or types.is_large_string(kind) or types.is_null(kind):
        return _of_texts(_as_coded(column, place, name), place, separator, all_text=all_text)
    values = column.to_pylist()
    if separator is not None:
        fact = f"the label column {name!r} is {kind}, and a separator is only for text"
        raise SourceError(place, fact, "omit `label_separator`")
    if types.is_boolean(kind):
        return Labels("class", coded(None if value is None else str(value).lower() for value in values), True)
    if types.is_integer(kind):
        return Labels("class", coded(values), False)
    if types.is_floating(kind) or types.is_decimal(kind):
        return _decimal([_finite(value) for value in values], place)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _listed(values, kind.value_type, place, name)
    raise SourceError(place, f"the label column {name!r} is {kind}", "give names, numbers, or lists of them") from None


def _of_texts(texts: Coded, place: str, separator: str | None, *, all_text: bool) -> Labels:
    if separator is not None:
        return _separate(texts, separator)
    return _parse_written(texts, place) if all_text else Labels("class", texts.map(lambda text: text or None), True)


def _as_coded(column: pa.ChunkedArray, place: str, name: str) -> Coded:
    try:
        return coded_texts(column)
    except UnicodeDecodeError as exc:
        raise _not_text(place, name) from exc


def _not_text(place: str, name: str) -> SourceError:
    fact = f"the label column {name!r} holds bytes that are not UTF-8"
    return SourceError(place, fact, "decode them, or give the class names as text")


def _as_text(column: pa.ChunkedArray, place: str, name: str) -> pa.ChunkedArray:
    import pyarrow as pa

    try:
        return column.cast(pa.string())
    except pa.ArrowInvalid as exc:
        raise _not_text(place, name) from exc


def _parse_written(values: Coded, place: str) -> Labels:
    """The labels of a column in a text file."""
    texts = values.map(lambda value: None if value is None or value.strip() in _NO_VALUE else value.strip())
    given = {text for text in texts.distinct if text is not None}
    if given and all(map(_WHOLE.fullmatch, given)):
        return Labels("class", texts.map(lambda text: None if text is None else int(text)), False)
    if given and all(map(_NUMBER.fullmatch, given)) and any(set(text) & set(".eE") for text in given):
        return _decimal(list(texts.map(lambda text: None if text is None else _finite(float(text)))), place)
    if given and {text.lower() for text in given} <= {"true", "false"}:
        return Labels("class", texts.map(lambda text: None if text is None else text.lower()), True)
    return Labels("class", values.map(lambda value: value or None), True)


def _decimal(values: Sequence[float | None], place: str) -> Labels:
    """Numbers to predict; class numbers if all are whole, since tables turn integers into floats if a cell is empty."""
    given = {value for value in values if value is not None}
    if not given or not all(value.is_integer() and 0 <= value < _SPARSE for value in given):
        return Labels("number", values, False)
    text = "%s: its labels are whole numbers written as decimals, such as %s: they are taken as class numbers"
    _log.warning(text + " (write numbers to predict as lists of one, in JSON lines or Parquet)", place, min(given))
    return Labels("class", coded(None if value is None else int(value) for value in values), False)


def _separate(texts: Coded, separator: str) -> Labels:
    parts = texts.map(
        lambda text: None if text is None else [part.strip() for part in text.split(separator) if part.strip()]
    )
    numbers = all(part.isdigit() and part.isascii() for each in parts.distinct for part in each or ())
    if numbers and any(parts.distinct):
        return Labels("multi", parts.map(lambda each: None if each is None else [int(part) for part in each]), False)
    return Labels("multi", parts, True)


def _listed(values: Sequence[list[Any] | None], kind: Any, place: str, name: str) -> Labels:
    import pyarrow.types as types

    if types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind) or types.is_null(kind):
        _require_class_lists(values, place, name)
        lists = [None if each is None or None in each else each for each in values]
        return Labels("multi", lists, not types.is_integer(kind))
    if types.is_floating(kind):
        numbers = [None if each is None or any(_finite(value) is None for value in each) else each for each in values]
        return Labels("number", numbers, False)
    raise SourceError(place, f"the label column {name!r} has lists of {kind}", "give lists of names or numbers")


def _require_class_lists(values: Sequence[list[Any] | None], place: str, name: str) -> None:
    """SourceError for rows of 0 and 1 of one length that are not the classes of each file: a class would be there
    twice, or the classes 0 and 1 in every row."""
    rows = {tuple(each) for each in values if each is not None}
    if len(rows) < 2 and not any(len(set(row)) < len(row) for row in rows):
        return
    lengths, numbers = {len(row) for row in rows}, {number for row in rows for number in row}
    if len(lengths) == 1 and lengths != {1} and numbers <= {0, 1}:
        fact = f"the label column {name!r} has {lengths.pop()} numbers for each file, all of them 0 or 1"
        cure = "give the numbers of a file's classes, each once, or a NumPy array with a column for each class"
        raise SourceError(place, fact, cure)


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
        for value in _distinct(labels.values):
            known.update(value if isinstance(value, list) else (value,))
    known.discard(None)
    if named:
        return tuple(sorted(known))
    most = max(known, default=-1)
    if most >= max(_SPARSE, 100 * len(known)):
        fact = f"its class numbers go up to {most}, but there are only {len(known)} of them"
        raise SourceError(found[0][0], fact, "number the classes from 0, or write them as names")
    return tuple(str(number) for number in range(most + 1))


def number_labels(labels: Labels, classes: Sequence[str]) -> tuple[Sequence[Any], dict[int, str]]:
    """(label of each row: an int, a sorted list of ints, a number or list of numbers; row -> what is wrong with it)."""
    if labels.kind == "number":
        return list(labels.values), {
            row: "its label is empty, or not a number" for row, value in enumerate(labels.values) if value is None
        }
    if labels.kind == "none":
        return [], {}
    places = {name: number for number, name in enumerate(classes)}
    found = [_numbers(value, places, len(classes)) for value in _distinct(labels.values)]
    numbers, reasons = [number for number, _ in found], [reason for _, reason in found]
    if not isinstance(labels.values, Coded):
        return numbers, {row: reason for row, reason in enumerate(reasons) if reason}
    values = Coded(numbers, labels.values.codes)
    if not any(reasons):
        return values, {}
    return values, {row: reason for row, reason in enumerate(Coded(reasons, values.codes)) if reason}


def _distinct(values: Sequence[Any]) -> Sequence[Any]:
    """Values of which each value of the rows is one."""
    return values.distinct if isinstance(values, Coded) else values


def _numbers(value: Any, places: dict[str, int], count: int) -> tuple[Any, str]:
    """(the label of a row as a number or a sorted list of numbers, what is wrong with it)."""
    if value is None:
        return -1, "its label is empty"
    several, wrong = isinstance(value, list), ""
    numbers = [_number(each, places, count) for each in (value if several else (value,))]
    if None in numbers:
        unknown = (value if several else (value,))[numbers.index(None)]
        wrong = f"its label {printable(str(unknown))!r} is not one of the {count} classes"
    return sorted({number for number in numbers if number is not None}) if several else numbers[0] or 0, wrong


def _number(value: str | int, places: dict[str, int], count: int) -> int | None:
    if isinstance(value, int):
        return value if 0 <= value < count else None
    return places.get(value)
