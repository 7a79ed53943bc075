"""Selections: which rows of a dataset belong to a view. Each is a value; applied to a catalog it gives rows."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from shardkit.errors import NotFoundError, UsageError, printable, reason_of
from shardkit.options.keywords import closest
from shardkit.reading.batches.labels import require_class_labels
from shardkit.reading.blocks.block import Catalog
from shardkit.reading.content import Content
from shardkit.reading.order.derived import (
    Line,
    deals_over_classes,
    fold_places,
    label_counts,
    split_places,
    weight_classes,
    weight_samples,
)
from shardkit.reading.order.groups import pieces
from shardkit.shards.columns.ranges import Holds, excluding
from shardkit.shards.columns.types import PREFIX, type_text

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.compute as pc

log = logging.getLogger(__name__)

Rows = NDArray[np.int64]

_NUMBER = "\n"
"""The column of row numbers beside those of the index while an expression is applied: no user's column."""


class Selection(Protocol):
    """One step of a view. before: the rows of the previous one; None for all rows, in order."""

    def rows(self, catalog: Catalog, before: Rows | None) -> Rows:
        """The rows of `before` that remain."""
        ...

    def describe(self, catalog: Catalog, before: Rows | None) -> str:
        """A description; the same selection gives the same text."""
        ...


@dataclass(frozen=True, eq=False)
class OfClasses:
    """The samples of some classes, by name or label."""

    classes: tuple[str | int, ...]

    def rows(self, catalog: Catalog, before: Rows | None) -> Rows:
        """The rows with these labels."""
        require_class_labels(catalog, "select()")
        names = [entry.name for entry in catalog.classes]
        wanted = np.zeros(len(names) + 1, np.bool_)  # the last is for -1, no label
        wanted[[label_of(name, names) for name in self.classes]] = True
        labels, chosen = catalog.labels(), np.empty(samples_of(catalog, before), np.bool_)
        for low, high in pieces(len(chosen)):
            chosen[low:high] = wanted[labels[slice(low, high) if before is None else before[low:high]]]
        return rows_where(chosen, before)

    def describe(self, catalog: Catalog, before: Rows | None) -> str:
        """The classes."""
        return f"classes={self.classes!r}"


@dataclass(frozen=True, eq=False)
class Where:
    """The samples for which an expression over the index's columns is true."""

    expression: pc.Expression

    def rows(self, catalog: Catalog, before: Rows | None) -> Rows:
        """The rows for which the expression is true."""
        import pyarrow as pa

        schema = catalog.index_schema()
        used, short = self._used(schema.names), short_names(schema.names)
        chosen = np.zeros(samples_of(catalog), np.bool_)
        seen = pa.schema(
            [schema.field(name) for name in used]
            + [schema.field(name).with_name(short[name]) for name in used if name in short]
        )
        try:
            seen.empty_table().filter(self.expression)  # an error of its types, even where no shard may hold a row
            for rows, table in catalog.candidates(used, self._holds(used, short, schema)):
                more = {short[name]: table[name] for name in used if name in short}
                numbered = pa.table({name: table[name] for name in used} | more | {_NUMBER: pa.array(rows)})
                chosen[numbered.filter(self.expression)[_NUMBER].to_numpy()] = True
        except pa.ArrowException as exc:
            raise _wrong_expression(exc, catalog) from exc
        return np.flatnonzero(chosen) if before is None else before[chosen[before]]

    def _holds(self, used: Sequence[str], short: Mapping[str, str], schema: pa.Schema) -> Holds:
        """Which shards may hold a row for which the expression is true, by what the index says of their values."""
        if "FieldPath" in str(self.expression):  # columns by number, which are not those of the index
            return lambda groups: [True] * len(groups)
        names = {name: name for name in used} | {short[name]: name for name in used if name in short}
        return excluding(self.expression, names, schema)

    def _used(self, names: Sequence[str]) -> list[str]:
        """The columns that the expression may use: all whose names are in its text. Other columns are not read."""
        text, short = str(self.expression), short_names(names)
        used = [name for name in names if short.get(name, name) in text]
        return list(names) if not used or "FieldPath" in text else used

    def describe(self, catalog: Catalog, before: Rows | None) -> str:
        """The expression."""
        return f"where={self.expression}"


@dataclass(frozen=True, eq=False)
class AtNumbers:
    """The samples at some places of the previous rows.

    The places are a slice, integers (negative from the end), or True or False for each sample.
    """

    numbers: slice | Rows | NDArray[np.bool_]

    def rows(self, catalog: Catalog, before: Rows | None) -> Rows:
        """The rows at these places, in the order of the numbers."""
        numbers, samples = self.numbers, samples_of(catalog, before)
        if isinstance(numbers, slice):
            return np.arange(*numbers.indices(samples)) if before is None else before[numbers]
        if numbers.dtype == np.bool_:
            if len(numbers) != samples:
                fact = f"{len(numbers)} values True or False for {samples} samples"
                raise UsageError("dataset[…]", fact, "give one for each sample")
            return rows_where(numbers.astype(np.bool_, copy=False), before)
        wrong = (numbers < -samples) | (numbers >= samples)
        if wrong.any():
            fact = f"there is no sample {int(numbers[wrong][0])} among {samples}"
            raise NotFoundError("dataset[…]", fact, "sample numbers start at 0")
        return np.where(numbers < 0, numbers + samples, numbers) if before is None else before[numbers]

    def describe(self, catalog: Catalog, before: Rows | None) -> str:
        """The slice, or a digest of the numbers."""
        numbers = self.numbers
        if isinstance(numbers, slice):
            return str(numbers)
        return blake2b(f"{numbers.dtype}".encode() + numbers.tobytes(), digest_size=16).hexdigest()


@dataclass(frozen=True, eq=False)
class PartOf:
    """One part of a split."""

    fractions: tuple[tuple[str, float], ...]
    name: str
    seed: int
    stratify: bool

    def rows(self, catalog: Catalog, before: Rows | None) -> Rows:
        """The rows of this part."""
        labels, samples = catalog.labels() if self.stratify else None, samples_of(catalog, before)
        fractions = dict(self.fractions)
        parts = split_places(before, samples, labels, fractions, self.seed)
        found = rows_where(parts == list(fractions).index(self.name), before)
        if samples and not len(found):
            log.warning("split(): the part %r gets none of %d samples", self.name, samples)
        return found

    def describe(self, catalog: Catalog, before: Rows | None) -> str:
        """The fractions, the part, the seed; and whether it is distributed as in older versions."""
        if not self.stratify:
            return self._text
        counts = label_counts(before, samples_of(catalog, before), catalog.labels())
        dealt = deals_over_classes(counts, dict(self.fractions), self.seed)
        return self._text + (":dealt over classes" if dealt else "")

    @property
    def _text(self) -> str:
        return f"part={self.fractions!r}:{self.name}:{self.seed}:{self.stratify}"


@dataclass(frozen=True, eq=False)
class Fold:
    """One fold of a cross-validation, or all samples but its own.

    The samples are put in a random order, by class if stratified, and dealt to the folds in turn: neither the folds nor
    the samples of a class in them differ in number by more than one.
    """

    number: int
    folds: int
    seed: int
    stratify: bool
    others: bool

    def rows(self, catalog: Catalog, before: Rows | None) -> Rows:
        """Return the rows of the fold, or the others, in their order."""
        labels = catalog.labels() if self.stratify else None
        fold = fold_places(before, samples_of(catalog, before), labels, self.folds, self.seed)
        return rows_where((fold == self.number) != self.others, before)

    def describe(self, catalog: Catalog, before: Rows | None) -> str:
        """Return the fold, the seed, and which side it is."""
        side = "others" if self.others else "own"
        return f"fold={self.number}/{self.folds}:{self.seed}:{self.stratify}:{side}"


@dataclass(frozen=True, eq=False)
class Weights:
    """How often samples occur: None for all classes equally, weights by class, or one weight per sample."""

    weights: Mapping[str | int, float] | NDArray[np.float64] | None

    def drawn(self, line: Line, view: Rows | None, catalog: Catalog, key: int) -> Rows:
        """The rows of an epoch, as many as the view has. line: its rows in reading order."""
        samples = samples_of(catalog, view)
        if isinstance(self.weights, np.ndarray):
            return weight_samples(line, samples, self._of_rows(self.weights, view, samples_of(catalog)), key)
        require_class_labels(catalog, "weight(), balance()")
        labels, names = catalog.labels(), [entry.name for entry in catalog.classes]
        given = self.weights
        weights = dict.fromkeys(range(len(names)), 1.0) if given is None else class_weights(given, names)
        return weight_classes(line, samples, labels, weights, key)

    def _of_rows(self, weights: NDArray[np.float64], view: Rows | None, total: int) -> NDArray[np.float64]:
        expected = total if view is None else len(view)
        if weights.shape != (expected,):
            fact = f"{weights.shape} weights for {expected} samples"
            raise UsageError("weight()", fact, "give one number for each sample, or a dict for classes")
        if not np.isfinite(weights).all() or (weights < 0).any() or not weights.sum():
            raise UsageError(
                "weight()", "a weight is negative or not a number, or all are 0", "give non-negative numbers"
            )
        if view is None:
            return weights
        whole = np.zeros(total)
        whole[view] = weights
        return whole

    def describe(self) -> str:
        """The weights, or a digest of them."""
        if isinstance(self.weights, np.ndarray):
            return blake2b(self.weights.tobytes(), digest_size=16).hexdigest()
        return "balance" if self.weights is None else repr(sorted(self.weights.items(), key=str))


def short_names(names: Sequence[str]) -> dict[str, str]:
    """`meta.NAME` -> NAME for each further column of an index whose NAME is not itself the name of a column."""
    several = {name: name.removeprefix(PREFIX) for name in names if name.startswith(PREFIX)}
    return {name: short for name, short in several.items() if short not in names}


def _wrong_expression(exc: Exception, catalog: Catalog) -> UsageError:
    """The error for an expression that Arrow refuses: it names no column, or compares one with a value
    of another type."""
    schema = catalog.index_schema()
    missing = re.search(r"No match for FieldRef.Name\((.*)\) in ", str(exc))
    short = [short_names(schema.names).get(name, name) for name in schema.names]
    if missing is None:
        typed = zip(short, schema, strict=True)
        shown = ", ".join(f"{printable(name)} {type_text(field.type) or field.type}" for name, field in typed)
        return UsageError("where()", reason_of(exc), f"compare the index's columns by their types: {shown}")
    meant = closest(missing[1], short)
    cure = f"did you mean {printable(meant)}? " if meant else ""
    cure += f"use the index's columns: {', '.join(map(printable, short))}"
    if "json" in catalog.fields:
        cure += "; values in the field json become columns with `index_shards(columns=…)`"
    return UsageError("where()", f"the index has no column {printable(missing[1])!r}", cure)


def samples_of(catalog: Catalog, rows: Rows | None = None) -> int:
    """The number of these rows, or of all."""
    return int(catalog.counts.sum()) if rows is None else len(rows)


def rows_where(chosen: NDArray[np.bool_], before: Rows | None) -> Rows:
    """The rows at the places that are True."""
    return np.flatnonzero(chosen) if before is None else before[chosen]


def label_of(name: str | int, names: Sequence[str]) -> int:
    """The label of a class given by name or label. UsageError if it does not exist."""
    if isinstance(name, str) and name in names:
        return names.index(name)
    if isinstance(name, (int, np.integer)) and 0 <= name < len(names):
        return int(name)
    shown = ", ".join(names[:10]) + (" …" if len(names) > 10 else "")
    raise UsageError("classes", f"there is no class {name!r}", f"the classes are {shown}")


def class_weights(weights: Mapping[str | int, float], names: Sequence[str]) -> dict[int, float]:
    """Weights by label. UsageError for an unknown class, or a negative weight."""
    found = {label_of(name, names): float(weight) for name, weight in weights.items()}
    if any(not np.isfinite(weight) or weight < 0 for weight in found.values()):
        raise UsageError("weight()", "a weight is negative or not a number", "give non-negative numbers")
    return found


def numbers_of(item: Any) -> slice | Rows | NDArray[np.bool_]:
    """Convert what a user gives between brackets to a slice, or an int64 or bool array (n,). UsageError otherwise."""
    if isinstance(item, slice):
        if not all(part is None or hasattr(part, "__index__") for part in (item.start, item.stop, item.step)):
            raise UsageError("dataset[…]", f"{item!r} does not contain integers", "give integers")
        if item.step is not None and item.step == 0:
            raise UsageError("dataset[…]", "a slice can't have step 0", "give another step")
        return item
    try:
        array = np.asarray(item)
    except ValueError as exc:
        raise UsageError("dataset[…]", f"{item!r} is not a list of numbers", "give one") from exc
    if array.ndim == 1 and array.dtype == np.bool_:
        return array
    if array.ndim != 1 or (array.dtype.kind not in "iu" and array.size):
        raise UsageError("dataset[…]", f"{item!r} is not a number, key, slice or list of numbers", "give one of these")
    return array.astype(np.int64)


Chosen = tuple[Rows | None, Sequence[str]]
"""The rows of a view, None for all; and the description of each of its selections."""

_Remembered = tuple[int, Content, tuple[Selection, ...], Chosen]

_chosen: WeakKeyDictionary[Selection, _Remembered] = WeakKeyDictionary()
"""Last selection -> (process, content, selections before it, result): kept as long as a Dataset has this selection."""


def chosen_of(content: Content, selection: tuple[Selection, ...]) -> Chosen:
    """What these selections, one after the other, choose of a content."""
    found = _find(content, selection)
    if selection:  # the steps before it are not kept: a view of a view has one array of rows
        _chosen[selection[-1]] = os.getpid(), content, selection[:-1], found
    return found


def _find(content: Content, selection: tuple[Selection, ...]) -> Chosen:
    if not selection:
        return content.rows(), ()
    before, last = selection[:-1], selection[-1]
    kept = _chosen.get(last)
    if kept is not None and kept[0] == os.getpid() and kept[1] is content and kept[2] == before:
        return kept[3]
    rows, texts = _find(content, before)
    return last.rows(content.catalog, rows), (*texts, last.describe(content.catalog, rows))


def forget_chosen(selection: Sequence[Selection]) -> None:
    """Find the rows again at the next use."""
    for step in selection:
        _chosen.pop(step, None)
