"""What `decode(boxes=, masks=)` takes: the fields, and how boxes are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from shardkit.errors import UsageError
from shardkit.options.keywords import cure_of_choice, named_fields
from shardkit.options.numbers import is_finite, switch

BoxFormat = Literal["xyxy", "xywh", "cxcywh"]


@named_fields
@dataclass(frozen=True, slots=True)
class Boxes:
    """Boxes that move with their image, for `decode(boxes=)`.

    path: the field, and for JSON the keys to the boxes in it: "boxes.npy", "json/boxes", "json/objects/bbox". A key
    after a list applies to each of its objects. format: "xyxy" is left, top, right, bottom, "xywh" left, top, width,
    height (COCO), "cxcywh" the center, width, height (YOLO). normalized: relative to the image's width and height,
    instead of in pixels. labels: the names of what has an entry for each box, beside them in the JSON object or the
    sample, such as ["labels", "iscrowd"]; "labels" if there are any.

    A box is clipped to the image that is decoded. It is left out, with its labels, if less than `least` pixels of its
    width or height remain, or less than the share `visible` of its area. UsageError for an invalid value.
    """

    path: str
    format: BoxFormat = "xyxy"
    normalized: bool = False
    labels: str | Sequence[str] | None = None
    least: float = 1.0
    visible: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.path, str) or not all(self.path.split("/")):
            fact = f"{self.path!r} is not the name of a field, or a field and keys"
            raise UsageError("boxes", fact, 'such as boxes="json/boxes"')
        if self.format not in get_args(BoxFormat):
            expected = ", ".join(map(repr, get_args(BoxFormat)))
            cure = cure_of_choice("format", self.format, get_args(BoxFormat))
            raise UsageError("boxes, format", f"{self.format!r} is not one of {expected}", cure)
        switch("normalized", self.normalized)
        names = self.label_names
        if not all(isinstance(name, str) and name for name in names):
            raise UsageError("boxes, labels", f"{self.labels!r} are not names", 'such as labels=["labels", "iscrowd"]')
        for name, most in (("least", float("inf")), ("visible", 1.0)):
            value: Any = getattr(self, name)
            is_number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
            if not is_number or not is_finite(value) or not 0 <= value <= most:
                limits = "a number of pixels" if name == "least" else "a share of the area, 0 to 1"
                raise UsageError(f"boxes, {name}", f"{value!r} is not {limits}")

    @property
    def label_names(self) -> tuple[str, ...]:
        """The names of what is beside the boxes."""
        if self.labels is None:
            return ("labels",)
        return (self.labels,) if isinstance(self.labels, str) else tuple(self.labels)


def as_boxes(given: Any) -> Boxes:
    """The Boxes of a path. UsageError for anything else."""
    if isinstance(given, Boxes):
        return given
    if isinstance(given, str):
        return Boxes(given)
    raise UsageError("boxes", f"{given!r} is neither a path nor shardkit.Boxes", 'such as boxes="json/boxes"')


def as_masks(given: Any) -> tuple[str, ...]:
    """The names of the fields with masks. UsageError for anything else."""
    names = (given,) if isinstance(given, str) else given
    if not isinstance(names, (tuple, list)) or not names or not all(isinstance(n, str) and n for n in names):
        raise UsageError("masks", f"{given!r} is not the name of a field, or several", 'such as masks="mask.png"')
    if len(set(names)) < len(names):
        raise UsageError("masks", f"{list(names)} has a field twice", "give each once")
    return tuple(names)
