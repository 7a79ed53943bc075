"""Boxes and masks in the fields of a sample, moved with its image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shardkit.errors import DecodeError, printable, reason_of
from shardkit.images.annotations.move import Move
from shardkit.images.annotations.options import Boxes
from shardkit.images.pillow import open_image

_CURE = "fix the field, or name another one in decode()"


def move_boxes(fields: Mapping[str, Any], boxes: Boxes, move: Move) -> dict[str, Any]:
    """The decoded fields of a sample with its boxes moved, and the labels of those that are left out removed. Nothing
    that was given is changed. DecodeError, without a place, for anything but boxes."""
    name = field_of_path(fields, boxes.path)
    keys = [name, *boxes.path[len(name) + 1 :].split("/")] if len(boxes.path) > len(name) else [name]
    try:
        return _in_object(fields, keys, boxes, move)
    except (ValueError, TypeError, KeyError, OverflowError) as exc:
        reason = f"there is no {exc}" if isinstance(exc, KeyError) else reason_of(exc)
        raise DecodeError("", f"field {printable(name)!r} has no boxes at {boxes.path!r}: {reason}", _CURE) from exc


def field_of_path(fields: Mapping[str, Any], path: str) -> str:
    """The field at the beginning of a path: the longest name that fits. DecodeError if there is none."""
    parts = path.split("/")
    for count in range(len(parts), 0, -1):
        if (name := "/".join(parts[:count])) in fields:
            return name
    raise _missing(fields, parts[0], "boxes")


def _missing(fields: Mapping[str, Any], name: str, what: str) -> DecodeError:
    given = ", ".join(printable(field) for field in fields if not field.startswith("__")) or "none"
    fact = f"this sample has no field {printable(name)!r} for its {what}; its other fields: {given}"
    return DecodeError("", fact, f"name the field in decode({what}=), or give each sample one, empty if need be")


def _in_object(node: Mapping[str, Any], keys: Sequence[str], boxes: Boxes, move: Move) -> dict[str, Any]:
    key, rest = keys[0], keys[1:]
    if key not in node:
        raise KeyError(key)
    child = node[key]
    if not rest:
        found, kept = move.boxes(_values(child), boxes)
        return {**node, key: found, **_labels(node, len(child), kept, boxes)}
    if isinstance(child, Mapping):
        return {**node, key: _in_object(child, rest, boxes, move)}
    if not isinstance(child, list):
        raise TypeError(f"{key!r} is neither an object nor a list")
    found, kept = move.boxes(_values([_value_at(item, rest) for item in child]), boxes)
    pairs = zip(kept.tolist(), found.tolist(), strict=True)
    return {**node, key: [_with(child[number], rest, box) for number, box in pairs]}


def _values(given: Any) -> NDArray[np.float64]:
    """Boxes (n, 4). ValueError for anything else."""
    if isinstance(given, (str, bytes, Mapping)):
        raise TypeError(f"{type(given).__name__} is not a list of boxes")
    values = np.asarray(given, np.float64)
    if values.size == 0:
        return np.empty((0, 4))
    if values.ndim != 2 or values.shape[1] != 4:
        raise ValueError(f"{values.shape} is not the shape of boxes (n, 4)")
    if not np.isfinite(values).all():
        raise ValueError("a number is not finite")
    return values


def _labels(node: Mapping[str, Any], count: int, kept: NDArray[np.int64], boxes: Boxes) -> dict[str, Any]:
    found = {}
    for name in boxes.label_names:
        if name not in node:
            if boxes.labels is not None:
                raise KeyError(name)
            continue
        values = node[name]
        if not isinstance(values, (list, np.ndarray)) or len(values) != count:
            size = len(values) if isinstance(values, (list, np.ndarray)) else type(values).__name__
            raise ValueError(f"{name!r} has {size} entries for {count} boxes")
        column = _column(values)
        found[name] = column[kept] if isinstance(column, np.ndarray) else [column[at] for at in kept.tolist()]
    return found


def _column(values: Any) -> Any:
    """A list of whole numbers as int64, of other numbers as float32; anything else as it is."""
    if isinstance(values, np.ndarray):
        return values
    if all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        return np.array(values, np.int64)
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        return np.array(values, np.float32)
    return values


def _value_at(item: Any, keys: Sequence[str]) -> Any:
    for key in keys:
        if not isinstance(item, Mapping):
            raise TypeError(f"there is no {key!r} in {type(item).__name__}")
        item = item[key]
    return item


def _with(item: Any, keys: Sequence[str], value: Any) -> Any:
    return {**item, keys[0]: _with(item[keys[0]], keys[1:], value)} if keys else value


def move_masks(fields: Mapping[str, Any], names: Sequence[str], move: Move, max_pixels: int) -> dict[str, Any]:
    """The masks of these fields, moved: those in images with their values as stored (a palette's numbers, uint8, or
    int32 of 16 and 32 bits), arrays in their own dtype. DecodeError, without a place, for anything else."""
    found = {}
    for name in names:
        if name not in fields:
            raise _missing(fields, name, "masks")
        mask = fields[name]
        if isinstance(mask, (bytes, memoryview)):
            mask = _of_image(bytes(mask), name, max_pixels)
        if not isinstance(mask, np.ndarray) or mask.ndim < 2 or mask.shape[:2] != move.size:
            shape = mask.shape if isinstance(mask, np.ndarray) else type(mask).__name__
            fact = (
                f"the mask {printable(name)!r} of shape {shape} does not fit its image of (height, width) {move.size}"
            )
            raise DecodeError("", fact, _CURE)
        found[name] = np.ascontiguousarray(move.pixels(mask))
    return found


def _of_image(data: bytes, name: str, max_pixels: int) -> NDArray[Any]:
    try:
        with open_image(data, max_pixels=max_pixels) as image:
            image.load()
            values = np.asarray(image)
    except ValueError as exc:
        raise DecodeError("", f"the mask {printable(name)!r} can't be decoded: {exc}", _CURE) from exc
    if values.dtype == np.bool_:
        return values.astype(np.uint8)
    wide = values.dtype.kind in "iu" and values.dtype.itemsize > 1 and math.prod(values.shape) > 0
    return values.astype(np.int32) if wide else values
