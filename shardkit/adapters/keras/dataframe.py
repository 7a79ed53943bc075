"""The rows of a DataFrame as files and targets: what Keras' `flow_from_dataframe` makes of its arguments."""

from __future__ import annotations

import os
import warnings
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shardkit.adapters.keras.arguments import one_of
from shardkit.errors import UsageError

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".tif", ".tiff")
"""Keras' own list, less GIF and WebP."""

NAMED = 5
"""Rows or files that a message names; it counts the others."""

WITHOUT_CLASSES = ("input", "multi_output", "raw", None)
CLASS_MODES = ("binary", "categorical", "sparse", *WITHOUT_CLASSES)

Label = str | Sequence[str]


@dataclass(frozen=True, slots=True)
class Columns:
    """The arguments of `flow_from_dataframe` that name columns, classes and files."""

    x_col: str
    y_col: Any
    weight_col: str | None
    class_mode: str | None
    classes: Sequence[str] | None
    directory: str
    validate_filenames: bool


@dataclass(slots=True)
class Rows:
    """The chosen rows: file names, and for each its label, targets or weight, where there are some.

    labels: class names of each row. targets: a column for class_mode "raw", several for "multi_output".
    """

    filenames: list[str]
    labels: list[Label] | None = None
    classes: list[str] | None = None
    targets: list[NDArray[Any]] | None = None
    weights: NDArray[Any] | None = None

    def taken(self, numbers: Sequence[int]) -> Rows:
        """The rows with these numbers."""
        at = np.asarray(numbers, np.int64)
        return Rows(
            [self.filenames[n] for n in numbers],
            None if self.labels is None else [self.labels[n] for n in numbers],
            self.classes,
            None if self.targets is None else [target[at] for target in self.targets],
            None if self.weights is None else self.weights[at],
        )


def rows_of(frame: Any, columns: Columns) -> Rows:
    """The rows of a pandas or polars DataFrame, in its order. UsageError for what Keras refuses, and for missing labels
    (NaN)."""
    one_of("class_mode", columns.class_mode, CLASS_MODES)
    names = _strings(frame, columns.x_col)
    rows = Rows(names)
    if columns.weight_col is not None:
        rows.weights = _numbers("weight_col", frame, columns.weight_col)
    if columns.class_mode in WITHOUT_CLASSES:
        if columns.classes:
            text = f"`classes` will be ignored given the class_mode={columns.class_mode!r}"
            warnings.warn(text, stacklevel=4)
        rows.targets = _targets(frame, columns)
    else:
        rows.labels = _labels(frame, columns)
    if columns.validate_filenames:
        rows = rows.taken(_valid(names, columns))
    if rows.labels is not None:
        rows = _of_classes(rows, columns)
    return rows


def listed_columns(y_col: Any) -> Any:
    """Names of columns that are in an array or an index as a list; a single name as it is."""
    return np.asarray(y_col).tolist() if hasattr(y_col, "__array__") and np.ndim(y_col) == 1 else y_col


def _values(argument: str, frame: Any, name: Any) -> list[Any]:
    known = list(getattr(frame, "columns", ()))
    if isinstance(name, (list, np.ndarray)) or not isinstance(name, Hashable) or name not in known:
        fact = f"there is no column {name!r}" if known else f"{type(frame).__name__} is not a DataFrame"
        raise UsageError(argument, fact, f"its columns are {', '.join(map(str, known[:10]))}" if known else "give one")
    column = frame[name]
    values: list[Any] = column.to_list() if hasattr(column, "to_list") else list(column)
    return values


def _missing(value: Any) -> bool:
    return (
        value is None or (isinstance(value, float) and value != value) or type(value).__name__ in ("NAType", "NaTType")
    )


def _require_there(argument: str, name: Any, values: Sequence[Any]) -> None:
    gone = [number for number, value in enumerate(values) if _missing(value)]
    if gone:
        fact = f"column {name!r} has no value in {len(gone)} of {len(values)} rows: {_first(gone)}"
        raise UsageError(argument, fact, "fill them, or drop these rows with dropna()")


def _first(values: Sequence[Any]) -> str:
    more = f" and {len(values) - NAMED} more" if len(values) > NAMED else ""
    return ", ".join(map(str, values[:NAMED])) + more


def _strings(frame: Any, name: str) -> list[str]:
    values = _values("x_col", frame, name)
    _require_there("x_col", name, values)
    wrong = next((value for value in values if not isinstance(value, str)), None)
    if wrong is not None:
        raise UsageError(
            "x_col", f"all values of column {name!r} must be strings, and one is {wrong!r}", "convert them"
        )
    return values


def _numbers(argument: str, frame: Any, name: Any) -> NDArray[Any]:
    values = _values(argument, frame, name)
    _require_there(argument, name, values)
    array = np.asarray(values)
    if array.dtype.kind not in "iufb":
        raise UsageError(argument, f"column {name!r} is not numeric", "give a column of numbers")
    return array


def _array(name: Any, values: list[Any]) -> NDArray[Any]:
    """A column of numbers, strings, or arrays of one shape."""
    _require_there("y_col", name, values)
    try:
        array = np.array(values)
    except ValueError:  # of several lengths
        array = np.empty(len(values), object)
    if array.dtype == object:
        fact = f"the values of column {name!r} are not of one kind and shape"
        raise UsageError("y_col", fact, "give numbers, or lists of one length")
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise UsageError("y_col", f"column {name!r} holds NaN", "fill the values, or drop these rows")
    return array


def _targets(frame: Any, columns: Columns) -> list[NDArray[Any]] | None:
    if columns.class_mode == "multi_output":
        if not isinstance(columns.y_col, (list, tuple)):
            fact = f'class_mode="multi_output" needs a list of columns, and this is {columns.y_col!r}'
            raise UsageError("y_col", fact, "give the names of the columns in a list")
        return [_array(name, _values("y_col", frame, name)) for name in columns.y_col]
    if columns.class_mode != "raw":
        return None
    if isinstance(columns.y_col, (list, tuple)):
        parts = [_array(name, _values("y_col", frame, name)) for name in columns.y_col]
        return [np.stack(parts, axis=1)]
    return [_array(columns.y_col, _values("y_col", frame, columns.y_col))]


def _labels(frame: Any, columns: Columns) -> list[Label]:
    values = _values("y_col", frame, columns.y_col)
    _require_there("y_col", columns.y_col, values)
    several = columns.class_mode == "categorical"
    wrong = next((value for value in values if not _is_label(value, several)), None)
    if wrong is not None:
        expected = "strings, or lists of strings" if several else "strings"
        fact = f"with class_mode={columns.class_mode!r} the values of {columns.y_col!r} must be {expected}: {wrong!r}"
        raise UsageError("y_col", fact, 'convert them with astype(str), or use class_mode="raw"')
    if columns.class_mode == "binary":
        found = set(columns.classes or values)
        if len(found) != 2:
            fact = f'"binary" needs two classes, but there are {len(found)}'
            raise UsageError("class_mode", fact, 'use "sparse" or "categorical"')
    return values


def _is_label(value: object, several: bool) -> bool:
    """Whether it is a class name, or where several are allowed a list of class names."""
    listed = several and isinstance(value, (list, tuple)) and all(isinstance(name, str) for name in value)
    return isinstance(value, str) or listed


def _valid(names: Sequence[str], columns: Columns) -> list[int]:
    """The numbers of the files that are there; a warning counts and names those that are not, as Keras counts them."""
    paths = [os.path.join(columns.directory, name) for name in names]
    good = [n for n, path in enumerate(paths) if path.lower().endswith(ENDINGS) and os.path.isfile(path)]
    if len(good) < len(names):
        kept = set(good)
        left = [name for n, name in enumerate(names) if n not in kept]
        where = f" below {columns.directory!r}" if columns.directory else ""
        text = f"Found {len(left)} invalid image filename(s) in x_col={columns.x_col!r}{where}: {_first(left)}."
        if not good:
            raise UsageError("dataframe", text, "correct the names or `directory`")
        warnings.warn(f"{text} These filename(s) will be ignored.", stacklevel=5)
    return good


def _of_classes(rows: Rows, columns: Columns) -> Rows:
    """The rows that have one of the chosen classes; the labels of other classes are left out."""
    assert rows.labels is not None
    if not columns.classes:
        rows.classes = sorted({name for label in rows.labels for name in names_of(label)})
        return rows
    rows.classes = list(dict.fromkeys(columns.classes))
    chosen = set(rows.classes)
    rows.labels = [
        label if isinstance(label, str) else [name for name in label if name in chosen] for label in rows.labels
    ]
    return rows.taken([n for n, label in enumerate(rows.labels) if chosen.intersection(names_of(label))])


def names_of(label: Label) -> Iterable[str]:
    """The class names of a label."""
    return (label,) if isinstance(label, str) else label
