"""The names of the features in our TFRecord shards, and what TensorFlow has to know about them."""

from __future__ import annotations

from typing import Any, Literal, Protocol

from shardkit.sample import IMAGE_FIELDS

KEY, FILENAME = "image/key", "image/filename"
OTHER_KEY = "__key__"
"""The key in records of other layouts; a feature with this name is not a field."""
ENCODED, FORMAT = "image/encoded", "image/format"
LABEL, TEXT = "image/class/label", "image/class/text"
PREFIX = "field/"


class Described(Protocol):
    """What a manifest says about the fields of its samples."""

    @property
    def fields(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def one_image_each(self) -> bool: ...  # noqa: D102


def feature_description(manifest: Described) -> dict[str, tuple[Literal["bytes", "int64"], tuple[int, ...], Any]]:
    """Feature -> (kind, shape, default) for `tf.io.FixedLenFeature` of the records that we write.

    default: None if every sample has the feature; else the value for samples without it: b"", or -1 for a label.
    """
    images = [name for name in manifest.fields if name in IMAGE_FIELDS]
    every = manifest.one_image_each
    absent = None if every else b""
    found: dict[str, tuple[Literal["bytes", "int64"], tuple[int, ...], Any]] = {
        KEY: ("bytes", (), None),
        FILENAME: ("bytes", (), None),
    }
    if images:
        found |= {ENCODED: ("bytes", (), absent), FORMAT: ("bytes", (), absent)}
    if "cls" in manifest.fields:
        found |= {LABEL: ("int64", (), None if every else -1), TEXT: ("bytes", (), absent)}
    others = [name for name in manifest.fields if name != "cls" and name not in images]
    if not every:  # a second image of a sample is a field like any other
        others += images[1:] and images
    found |= {PREFIX + name: ("bytes", (), b"") for name in sorted(others)}
    return found
