"""Labels other than one class number: several classes, or regression targets.

The manifest of such a dataset says so (`"labels": "multi"` or `"number"`). Its samples have neither `cls` nor a label
in the index, but the field `cls.json`: a list of class numbers; or a number, or a list of numbers of the same length in
all samples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from shardkit.errors import DecodeError, UsageError

if TYPE_CHECKING:
    from shardkit.reading.blocks.block import Catalog

FIELD = "cls.json"

Kind = Literal["", "multi", "number"]
"""Kind of labels: "" for one class number, the usual case."""

Target = NDArray[np.float32]

_CURE = "fix the field, or read the samples without decode()"


def require_class_labels(catalog: Catalog, place: str) -> None:
    """UsageError if the index has no class numbers because the labels are of another kind."""
    kind = catalog.kind
    if kind:
        fact = f"samples have {'several classes' if kind == 'multi' else 'numbers'} here, which are not in the index"
        raise UsageError(place, fact, f"choose samples by their field {FIELD!r}: filter(), or dataset[numbers]")


def has_labels(catalog: Catalog) -> bool:
    """Whether samples have labels of any kind: batches of others have None in their place."""
    return bool(catalog.kind or catalog.classes or "cls" in catalog.fields)


def require_mode(kind: Kind, mode: str) -> None:
    """UsageError for a `decode(label=)` that labels of this kind do not support."""
    if kind and mode not in ("int", "multihot" if kind == "multi" else "int"):
        what = "several classes" if kind == "multi" else "numbers"
        raise UsageError("label", f"{mode!r} is for one class per sample, but these samples have {what}", "omit label=")


def target_of(data: Any, kind: Kind, classes: int) -> Target:
    """A label as decode() returns it: float32 (classes,) of 0 and 1 for "multi"; float32 () or (k,) for "number".

    data: the bytes of the field, None if the sample has none. DecodeError, without a place, for anything else.
    """
    if data is None:
        raise DecodeError(
            "", f"this sample has no field {FIELD!r}, although its dataset has labels of this kind", _CURE
        )
    try:
        if kind == "multi":
            return _multihot(_LISTS.decode(data), classes)
        return np.asarray(_NUMBERS.decode(data), np.float32)
    except msgspec.MsgspecError as exc:
        raise DecodeError("", f"field {FIELD!r} is not a label of this dataset: {exc}", _CURE) from exc


_LISTS = msgspec.json.Decoder(list[int])
_NUMBERS = msgspec.json.Decoder(float | list[float])


def _multihot(numbers: list[int], classes: int) -> Target:
    found = np.zeros(classes, np.float32)
    for number in numbers:
        if not 0 <= number < classes:
            raise DecodeError("", f"label {number} with {classes} classes: expected 0 to {classes - 1}", _CURE)
        found[number] = 1
    return found


def relabel_field(data: Any, relabel: NDArray[np.integer[Any]]) -> bytes:
    """The field with other class numbers, for a dataset that was combined with others."""
    try:
        return msgspec.json.encode(sorted(int(relabel[number]) for number in _LISTS.decode(data)))
    except (msgspec.MsgspecError, IndexError) as exc:
        raise DecodeError("", f"field {FIELD!r} is not a label of this dataset: {exc}", _CURE) from exc
