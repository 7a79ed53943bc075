"""Decode the fields of a sample other than images, and encode labels for Keras."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from shardkit.errors import DecodeError, UsageError, printable, reason_of
from shardkit.sample import MAX_LABEL, label_number

_CURE = "fix the field, or read it as bytes"


def decode_label(data: bytes) -> int:
    """Decode a class number, according to `sample.label_number`."""
    number = label_number(data)
    if number is None:
        raise ValueError(f"not a class number from 0 to {MAX_LABEL}: {_start(data)}")
    return number


def decode_text(data: bytes) -> str:
    """Decode UTF-8 text."""
    return str(data, "utf-8")


def decode_json(data: bytes) -> Any:
    """Decode a JSON document: object, list, str, int, float, bool or None."""
    return json.loads(str(data, "utf-8"))


def decode_npy(data: bytes) -> NDArray[Any]:
    """Decode an array written by `numpy.save`, without pickle. Its size is checked against the data first."""
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read_header(stream)
    if dtype.hasobject:
        raise ValueError("an array of Python objects, which would need pickle")
    if not dtype.itemsize:  # any number of them would fit
        raise ValueError(f"an array of {dtype}, whose items have no bytes")
    count = math.prod(shape)
    start = stream.tell()
    if min(shape, default=0) < 0 or count * dtype.itemsize > len(data) - start:
        raise ValueError(f"an array of {shape} {dtype} in {len(data) - start} bytes: it is truncated")
    values = np.frombuffer(data, dtype, count, start)
    return values.reshape(shape, order="F" if fortran else "C").copy()


FIELD_DECODERS: Mapping[str, Callable[[bytes], Any]] = {
    "cls": decode_label,
    "txt": decode_text,
    "text": decode_text,
    "json": decode_json,
    "npy": decode_npy,
}
"""Decoders by the last extension of a field's name."""


def decode_field(name: str, data: bytes, *, decoders: Mapping[str, Callable[[bytes], Any]] = FIELD_DECODERS) -> Any:
    """Decode a field according to the last extension of its name; return its bytes if there is no decoder for it.

    DecodeError, without a place, if decoding fails with any exception.
    """
    decoder = decoders.get(name.rpartition(".")[2])
    if decoder is None:
        return data
    try:
        return decoder(data)
    except Exception as exc:  # a decoder may be the caller's, and may raise anything
        raise DecodeError("", f"field {printable(name)!r} can't be decoded: {reason_of(exc)}", _CURE) from exc


def decode_fields(
    sample: Mapping[str, Any], *, decoders: Mapping[str, Callable[[bytes], Any]] = FIELD_DECODERS
) -> dict[str, Any]:
    """The sample with each bytes field decoded that has a decoder. `{**FIELD_DECODERS, "ext": fn}` adds one."""
    return {
        name: decode_field(name, value, decoders=decoders) if isinstance(value, bytes) else value
        for name, value in sample.items()
    }


def encode_labels(
    labels: NDArray[np.int64], mode: Literal["int", "onehot", "binary", "multihot"], classes: int
) -> NDArray[Any]:
    """Encode class numbers like Keras' class_mode.

    "int" ("sparse"): int64 (n,). "onehot" ("categorical") and "multihot": float32 (n, classes). "binary": float32 (n,)
    of 0 and 1. UsageError for binary unless there are two classes; DecodeError for a label outside 0 … classes - 1.
    """
    labels = np.asarray(labels, np.int64)
    if mode == "int":
        return labels
    if not classes:
        cure = 'use "int", or create a manifest with classes: shardkit index SHARDS'
        raise UsageError("label", f'"{mode}" needs the number of classes, which is not known for these samples', cure)
    if mode == "binary" and classes != 2:
        raise UsageError("label", f'"binary" needs two classes, but there are {classes}', 'use "int" or "onehot"')
    outside = (labels < 0) | (labels >= classes)
    if outside.any():
        raise DecodeError("", f"label {labels[outside][0]} with {classes} classes: expected 0 to {classes - 1}")
    if mode == "binary":
        return labels.astype(np.float32)
    encoded = np.zeros((len(labels), classes), np.float32)
    encoded[np.arange(len(labels)), labels] = 1
    return encoded


def _start(data: bytes) -> str:
    return repr(data[:20])
