"""Further columns of the index in samples and batches: which are asked for, and what stands for null."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shardkit.errors import DatasetError, UsageError, printable
from shardkit.options.keywords import closest
from shardkit.shards.columns.arrays import Values, shape_of
from shardkit.shards.columns.types import PREFIX, types_in

if TYPE_CHECKING:
    from shardkit.reading.blocks.block import Catalog, Rows

ColumnsLike = Sequence[str] | Mapping[str, Any]
"""The names of columns, or for each name the value that stands for null."""

RESERVED = ("cls", "images", "labels", "keys", "repeats", "fields", "columns")
"""Names that mean something else in a sample or a batch."""

Further = Mapping[str, Values]
"""The values of some samples by the names that were asked for."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A column that was asked for: its name as given, and what stands for null (None: NaN, NaT, None, or an error)."""

    name: str
    fill: Any = None


def asked_columns(place: str, given: ColumnsLike | None) -> tuple[Asked, ...]:
    """The columns of `columns=`. UsageError for anything but names, and for a name that is given twice."""
    if given is None:
        return ()
    named = {} if isinstance(given, (str, bytes)) else given
    names = list(named)
    if isinstance(given, (str, bytes)) or not all(isinstance(name, str) and name for name in names):
        cure = 'give a list such as ["age"], or a dict with the values that stand for null: {"age": -1}'
        raise UsageError(place, f"{given!r} is not a list of names of columns", cure)
    for name in names:
        if names.count(name) > 1:
            raise UsageError(place, f"{printable(name)!r} is named twice", "name each column once")
    return tuple(Asked(name, named[name] if isinstance(named, Mapping) else None) for name in names)


class ColumnReader:
    """Reads the columns that a Dataset was asked for. Thread-safe."""

    def __init__(self, place: str, asked: Sequence[Asked], catalog: Catalog, taken: Sequence[str] = ()) -> None:
        """taken: names of a batch that mean something else. UsageError for a name that is no further column of the
        catalog, or means something else, and for a value that does not fit its column."""
        self._place, self._catalog = place, catalog
        names = catalog.index_schema().names
        self._types = types_in(catalog.index_schema())
        taken = (*RESERVED, *taken, *catalog.fields)
        self._own = {each.name: self._resolved(each.name, names, taken) for each in asked}
        self.types = {name: self._types[own] for name, own in self._own.items()}
        """The types of the columns, by the names that were asked for."""
        self._fills = {each.name: _fill(place, each, self.types[each.name]) for each in asked if each.fill is not None}

    def _resolved(self, name: str, names: Sequence[str], taken: Sequence[str]) -> str:
        """The column that a name stands for. UsageError if there is none, or the name means something else."""
        short = name.removeprefix(PREFIX)
        own = short if short != name and short in self._types else name
        known = own in self._types
        if name in names and not name.startswith(PREFIX) and known:
            fact = f"{name!r} is the index's own column, not that of a list"
            raise UsageError(self._place, fact, f"give {PREFIX + name!r} for the list's")
        if name in taken and known:
            fact = f"{name!r} has another meaning in a sample or a batch"
            raise UsageError(self._place, fact, f"give {PREFIX + name!r} for the column")
        if known:
            return own
        meant = closest(name, self._types)
        cure = f"did you mean {printable(meant)}? " if meant else ""
        if self._types:
            cure += f"its columns are {', '.join(map(printable, self._types))}"
        else:
            cure += "pack a list with further columns, or make them of the field json with `index_shards(columns=…)`"
        raise UsageError(self._place, f"the dataset has no column {printable(name)!r}", cure)

    def of(self, rows: Rows) -> Further:
        """The values of some rows of the catalog, null filled where a value for it was given."""
        found = self._catalog.further(rows, {own: self._types[own] for own in self._own.values()})
        return {name: self._filled(name, found[own]) for name, own in self._own.items()}

    def _filled(self, name: str, values: Values) -> Values:
        if name not in self._fills or values.missing is None:
            return values
        array = values.array.copy()
        array[values.missing] = self._fills[name]
        return Values(array, None)

    def batch(self, further: Further, which: slice | NDArray[np.int64], keys: Sequence[str]) -> dict[str, Any]:
        """The values of a batch: arrays, and lists of text. keys: of its samples. DatasetError for a null that has no
        value."""
        found = dict[str, Any]()
        for name, values in further.items():
            array = values.array[which]
            if values.missing is not None and array.dtype.kind in "ib":
                self._require_all(name, values.missing[which], keys)
            found[name] = array.tolist() if array.dtype.kind == "O" else array
        return found

    def sample(self, further: Further, at: int, key: str) -> dict[str, Any]:
        """The values of one sample: NumPy scalars, arrays for lists, and text."""
        for name, values in further.items():
            if values.missing is not None and values.array.dtype.kind in "ib":
                self._require_all(name, values.missing[at : at + 1], [key])
        return {name: values.array[at] for name, values in further.items()}

    def _require_all(self, name: str, missing: NDArray[np.bool_], keys: Sequence[str]) -> None:
        if missing.any():
            kind, key = self.types[name], keys[int(np.argmax(missing))]
            fact = f"the sample {printable(key)!r} has no value in the column {printable(name)!r}, which is {kind}"
            example = "False" if kind == "bool" else "-1"
            cure = f"give a value for it: columns={{{name!r}: {example}}}; or select those that have one with where()"
            raise DatasetError(self._place, fact, cure)

    def joined(self, item: Any) -> Any:
        """A batch of samples, or the dict of one, whose lists of NumPy scalars are arrays."""
        fields = item if isinstance(item, dict) else getattr(item, "fields", {})
        for name in self._own:
            if isinstance(fields.get(name), list):
                fields[name] = _together(fields[name])
        return item

    def taken_from(self, samples: Sequence[Any]) -> dict[str, Any]:
        """The values of a batch, out of its samples: a map() may have replaced or removed them."""
        there = [name for name in self._own if all(isinstance(each, dict) and name in each for each in samples)]
        return {name: _together([sample.pop(name) for sample in samples]) for name in there}


def _together(values: list[Any]) -> Any:
    """NumPy scalars, or arrays of one shape, as one array; anything else as the list that it is."""
    numbers = all(isinstance(value, np.generic) for value in values)
    lists = all(isinstance(value, np.ndarray) and value.shape == values[0].shape for value in values)
    return np.array(values) if values and (numbers or lists) else values


def _fill(place: str, asked: Asked, text: str) -> Any:
    """The value for null in the type of its column. UsageError if it does not fit."""
    dtype, _ = shape_of(text)
    kinds: dict[str, Any] = {"i": (int, np.integer), "f": (int, float, np.number), "b": (bool, np.bool_), "O": str}
    try:
        fits = isinstance(asked.fill, kinds.get(dtype.kind, object))
        if not fits or (isinstance(asked.fill, bool) and dtype.kind != "b"):
            raise ValueError
        return asked.fill if dtype.kind == "O" else np.array(asked.fill, dtype)
    except (ValueError, TypeError, OverflowError) as exc:
        fact = f"{asked.fill!r} can't stand for null in the column {printable(asked.name)!r}, which is {text}"
        raise UsageError(place, fact, "give a value of its type") from exc
