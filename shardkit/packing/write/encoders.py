"""Encode the Python value of a field as bytes, according to the last part of the field's name.

    any field                bytes as they are; str as UTF-8
    jpg, png, webp …         a Pillow image, or a uint8 array (height, width), (…, 1), (…, 3) or (…, 4)
    json                     any JSON value, all numbers finite; NumPy numbers and arrays as numbers and lists
    npy                      an array, in NumPy's format
    cls2, class, count …     an integer, in decimal

These are the rules of webdataset's TarWriter for these types, with two differences: JPEG quality is 95, not 100, and
pickles are refused, since reading one runs its code.
"""

from __future__ import annotations

import io
import json
from typing import Any

import msgspec
import numpy as np

from shardkit.sample import IMAGE_FIELDS

NUMBERS = frozenset(("cls", "cls2", "class", "count", "id", "index", "inx"))
PICKLES = frozenset(("pickle", "pkl", "pt", "pth", "pyd"))
JPEG_QUALITY = 95


def encoded(field: str, value: Any) -> bytes:
    """The bytes of a value. ValueError for a value that the field can't have."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, str):
        return _utf8(value)
    ending = field.rpartition(".")[2]
    if ending in PICKLES:
        raise ValueError("pickles are not written, since reading one runs its code; give bytes, or another field")
    if ending in IMAGE_FIELDS:
        return _image(ending, value)
    if ending in ("json", "jsn"):
        return _json(value)
    if ending == "npy":
        sink = io.BytesIO()
        np.lib.format.write_array(sink, np.asanyarray(value), allow_pickle=False)
        return sink.getvalue()
    if ending in NUMBERS and isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return b"%d" % int(value)
    raise ValueError(f"this field can't hold a {type(value).__name__}; give bytes or str, or name it .json or .npy")


def _utf8(value: str) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError as exc:
        raise ValueError(f"the text has an invalid character ({exc.reason})") from exc


def _json(value: Any) -> bytes:
    try:
        data = msgspec.json.encode(value, enc_hook=_plain)
        if b"null" in data:  # msgspec also writes it for NaN and infinity, for which JSON has no number
            json.dumps(msgspec.to_builtins(value, enc_hook=_plain, str_keys=True), allow_nan=False)
        return data
    except (TypeError, ValueError, OverflowError, RecursionError) as exc:
        raise ValueError(f"JSON can't hold it ({exc})") from exc


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a {type(value).__name__} is neither text, number, list nor dict")


def _image(field: str, value: Any) -> bytes:
    from PIL import Image

    if isinstance(value, np.ndarray):
        if value.dtype != np.uint8:
            raise ValueError(f"an image of {value.dtype}: it must be uint8")
        if value.ndim == 3 and value.shape[2] == 1:
            value = value[:, :, 0]
        if value.ndim not in (2, 3) or (value.ndim == 3 and value.shape[2] not in (3, 4)) or not value.size:
            raise ValueError(f"an array of the shape {value.shape} is not an image (height, width, 3)")
        value = Image.fromarray(value)
    if not isinstance(value, Image.Image):
        raise ValueError(f"a {type(value).__name__} is not an image; give bytes, a uint8 array or a Pillow image")
    Image.init()
    name = Image.EXTENSION.get(f".{field}", "")
    options: dict[str, Any] = {"quality": JPEG_QUALITY} if name == "JPEG" else {}
    if name == "JPEG" and value.mode not in ("L", "RGB", "CMYK"):
        value = value.convert("RGB")
    sink = io.BytesIO()
    try:
        value.save(sink, name, **options)
    except (OSError, ValueError, KeyError) as exc:
        raise ValueError(f"Pillow can't write it as {field} ({exc})") from exc
    return sink.getvalue()
