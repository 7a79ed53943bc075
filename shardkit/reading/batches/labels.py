"""Labels that are not one class number: several classes, or numbers to be predicted.

Such a dataset says so in its manifest (`"labels": "multi"` or `"number"`). Its samples have no `cls` and no label in
the index, but the field `cls.json`: a list of class numbers; or a number, or a list of numbers that is of one length
in all of the samples.
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
"""What labels are: "" for one class number, the usual."""

Target = NDArray[np.float32]

_CURE = "fix the field, or read the samples without decode()"


def require_class_labels(catalog: Catalog, place: str) -> None:
    """UsageError where the index has no class numbers, since samples have several of them, or others."""
    kind = catalog.kind
    if kind:
        fact = f"samples have {'several classes' if kind == 'multi' else 'numbers'} here, which are not in the index"
        raise UsageError(place, fact, f"choose samples by their field {FIELD!r}: filter(), or dataset[numbers]")


def require_mode(kind: Kind, mode: str) -> None:
    """UsageError for a `decode(label=)` that labels of this kind can't have."""
    if kind and mode not in ("int", "multihot" if kind == "multi" else "int"):
        what = "several classes" if kind == "multi" else "numbers to be predicted"
        raise UsageError("label", f"{mode!r} is for one class, and these samples have {what}", "leave label= out")


def target_of(data: Any, kind: Kind, classes: int) -> Target:
    """A label as decode() gives it: float32 (classes,) of 0 and 1 for "multi"; float32 () or (k,) for "number".

    data: the bytes of the field, None where the sample has none. DecodeError, without a place, for anything else.
    """
    if data is None:
        raise DecodeError("", f"this sample has no field {FIELD!r}, and its dataset says so", _CURE)
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


def relabelled(data: Any, relabel: NDArray[np.integer[Any]]) -> bytes:
    """The field with other class numbers: of a dataset that was put together with others."""
    try:
        return msgspec.json.encode(sorted(int(relabel[number]) for number in _LISTS.decode(data)))
    except (msgspec.MsgspecError, IndexError) as exc:
        raise DecodeError("", f"field {FIELD!r} is not a label of this dataset: {exc}", _CURE) from exc
