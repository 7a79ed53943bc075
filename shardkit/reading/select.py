"""Selections: which rows of a dataset belong to a view. Each is a value; applied to a catalog it gives rows."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from shardkit.errors import NotFoundError, UsageError
from shardkit.reading.batches.labels import require_class_labels
from shardkit.reading.blocks.block import Catalog
from shardkit.reading.order.derived import deals_over_classes, split_rows, weight_classes, weight_samples
from shardkit.rng import stream_key, uniform

if TYPE_CHECKING:
    import pyarrow.compute as pc

log = logging.getLogger(__name__)

Rows = NDArray[np.int64]

_NUMBER = "#"
"""The column of row numbers beside those of the index while an expression is applied."""


class Selection(Protocol):
    """One step of a view."""

    def rows(self, catalog: Catalog, before: Rows) -> Rows:
        """The rows of `before` that remain."""
        ...

    def describe(self, catalog: Catalog, before: Rows) -> str:
        """A description; the same selection gives the same text."""
        ...


@dataclass(frozen=True, eq=False)
class OfClasses:
    """The samples of some classes, by name or label."""

    classes: tuple[str | int, ...]

    def rows(self, catalog: Catalog, before: Rows) -> Rows:
        """The rows with these labels."""
        require_class_labels(catalog, "select()")
        names = [entry.name for entry in catalog.classes]
        return before[np.isin(catalog.labels()[before], [label_of(name, names) for name in self.classes])]

    def describe(self, catalog: Catalog, before: Rows) -> str:
        """The classes."""
        return f"classes={self.classes!r}"


@dataclass(frozen=True, eq=False)
class Where:
    """The samples for which an expression over the index's columns is true."""

    expression: pc.Expression

    def rows(self, catalog: Catalog, before: Rows) -> Rows:
        """The rows for which the expression is true."""
        import pyarrow as pa

        names = catalog.index_schema().names
        chosen = np.zeros(int(catalog.counts.sum()), np.bool_)
        first = 0
        try:
            for table in catalog.index_tables(self._used(names)):
                numbered = table.append_column(_NUMBER, pa.array(np.arange(first, first + len(table))))
                chosen[numbered.filter(self.expression)[_NUMBER].to_numpy()] = True
                first += len(table)
        except pa.ArrowException as exc:
            fact = str(exc).partition("\n")[0]
            raise UsageError("where()", fact, f"use the index's columns: {', '.join(names)}") from exc
        return before[chosen[before]]

    def _used(self, names: Sequence[str]) -> list[str]:
        """The columns that the expression may use: all whose names are in its text. Other columns are not read."""
        text = str(self.expression)
        used = [name for name in names if name in text]
        return list(names) if not used or "FieldPath" in text else used

    def describe(self, catalog: Catalog, before: Rows) -> str:
        """The expression."""
        return f"where={self.expression}"


@dataclass(frozen=True, eq=False)
class AtNumbers:
    """The samples at some places of the previous rows.

    The places are a slice, integers (negative from the end), or True or False for each sample.
    """

    numbers: slice | Rows | NDArray[np.bool_]

    def rows(self, catalog: Catalog, before: Rows) -> Rows:
        """The rows at these places, in the order of the numbers."""
        if isinstance(self.numbers, slice):
            return before[self.numbers]
        if self.numbers.dtype == np.bool_:
            if len(self.numbers) != len(before):
                fact = f"{len(self.numbers)} values True or False for {len(before)} samples"
                raise UsageError("dataset[…]", fact, "give one for each sample")
            return before[self.numbers]
        wrong = (self.numbers < -len(before)) | (self.numbers >= len(before))
        if wrong.any():
            fact = f"there is no sample {int(self.numbers[wrong][0])} among {len(before)}"
            raise NotFoundError("dataset[…]", fact, "sample numbers start at 0")
        return before[self.numbers]

    def describe(self, catalog: Catalog, before: Rows) -> str:
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

    def rows(self, catalog: Catalog, before: Rows) -> Rows:
        """The rows of this part."""
        labels = catalog.labels()[before] if self.stratify else None
        found = split_rows(before, labels, dict(self.fractions), self.seed)[self.name]
        if len(before) and not len(found):
            log.warning("split(): the part %r gets none of %d samples", self.name, len(before))
        return found

    def describe(self, catalog: Catalog, before: Rows) -> str:
        """The fractions, the part, the seed; and whether it is distributed as in older versions."""
        dealt = self.stratify and deals_over_classes(catalog.labels()[before], dict(self.fractions), self.seed)
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

    def rows(self, catalog: Catalog, before: Rows) -> Rows:
        """Return the rows of the fold, or the others, in their order."""
        chance = uniform(stream_key("folds", self.seed), before)
        order = np.lexsort((chance, catalog.labels()[before])) if self.stratify else np.argsort(chance, kind="stable")
        fold = np.empty(len(before), np.int64)
        fold[order] = np.arange(len(before)) % self.folds
        chosen: Rows = before[(fold == self.number) != self.others]
        return chosen

    def describe(self, catalog: Catalog, before: Rows) -> str:
        """Return the fold, the seed, and which side it is."""
        side = "others" if self.others else "own"
        return f"fold={self.number}/{self.folds}:{self.seed}:{self.stratify}:{side}"


@dataclass(frozen=True, eq=False)
class Weights:
    """How often samples occur: None for all classes equally, weights by class, or one weight per sample."""

    weights: Mapping[str | int, float] | NDArray[np.float64] | None

    def drawn(self, line: Rows, view: Rows | None, catalog: Catalog, key: int) -> Rows:
        """The rows of an epoch, as many as `line` has. line: the rows of the view in reading order."""
        if isinstance(self.weights, np.ndarray):
            return weight_samples(line, self._of_rows(self.weights, view, int(catalog.counts.sum())), key)
        require_class_labels(catalog, "weight(), balance()")
        labels, names = catalog.labels()[line], [entry.name for entry in catalog.classes]
        if self.weights is None:
            return weight_classes(line, labels, dict.fromkeys(range(len(names)), 1.0), key)
        return weight_classes(line, labels, class_weights(self.weights, names), key)

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
