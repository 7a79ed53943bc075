"""Images in memory as a flow: `ImageDataGenerator.flow`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from shardkit.adapters.keras.arguments import flags
from shardkit.adapters.keras.indexed import Arrays, FlowOptions, IndexedFlow, Numbers
from shardkit.errors import UsageError
from shardkit.images.augment.options import Augment


@dataclass(frozen=True, slots=True)
class Beside:
    """What comes with images in memory: more inputs, and then y and sample_weight, as far as they are there."""

    inputs: Sequence[NDArray[Any]]
    targets: Sequence[NDArray[Any]]

    def __call__(self, numbers: Numbers, images: NDArray[Any]) -> tuple[Any, ...]:
        """(inputs, y, sample_weight), without what there is not."""
        first = [images, *(array[numbers] for array in self.inputs)] if self.inputs else images
        return (first, *(array[numbers] for array in self.targets))


class ArrayFlow(IndexedFlow):
    """Batches of images in memory: x, y and sample_weight are those of its subset."""

    def __init__(self, images: NDArray[np.float32], beside: Beside, augment: Augment, options: FlowOptions) -> None:
        super().__init__(Arrays(images, options.channels_first), beside, augment, options)
        self.x, self.x_misc = images, list(beside.inputs)
        self.y, self.sample_weight = (*beside.targets, None, None)[:2]


def flow_of_arrays(
    x: Any, y: ArrayLike | None, sample_weight: ArrayLike | None, augment: Augment, options: FlowOptions,
    *, ignore_class_split: bool = False,
) -> ArrayFlow:  # fmt: skip
    """The flow of x (four axes, or a sequence of that and further arrays), y and sample_weight.

    UsageError for arrays of different lengths, of objects, or with other axes, and for a split by which the two parts
    have different labels.
    """
    if isinstance(x, (tuple, list)) and len(x) < 2:
        raise UsageError("x", f"a {type(x).__name__} of {len(x)} is not (images, other inputs)", "give an array")
    images, more = (x[0], x[1] if isinstance(x[1], list) else [x[1]]) if isinstance(x, (tuple, list)) else (x, [])
    found = _images(images, options)
    (ignore_class_split,) = flags(ignore_class_split=ignore_class_split)
    others = {"x": [_array("x", one) for one in more]}
    for name, value in (("y", y), ("sample_weight", sample_weight)):
        if value is not None:
            others[name] = [_array(name, value)]
    for weights in others.get("sample_weight", ()):
        if weights.dtype.kind not in "biuf" or not np.isfinite(weights).all():
            raise UsageError(
                "sample_weight", "it holds NaN, infinity, or no numbers", "give a finite number for each image"
            )
    for name, arrays in others.items():
        for array in arrays:
            if len(array) != len(found):
                fact = f"there are {len(found)} images in `x`, and {len(array)} values here"
                raise UsageError(name, fact, "give one for each image")
    part = options.part(len(found))
    if options.subset is not None and "y" in others and not ignore_class_split:
        _require_same_classes(others["y"][0], options)
    at = slice(part.start, part.stop)
    targets = [others[name][0][at] for name in ("y", "sample_weight") if name in others and "y" in others]
    return ArrayFlow(found[at], Beside([array[at] for array in others["x"]], targets), augment, options)


def _array(name: str, value: ArrayLike) -> NDArray[Any]:
    try:
        array = np.asarray(value)
    except ValueError as exc:
        raise UsageError(name, str(exc), "give an array of numbers") from exc
    if array.dtype == object or not array.ndim:
        raise UsageError(name, f"an array of {array.dtype}, {array.shape}, has no numbers", "give an array of numbers")
    return array


def _images(value: ArrayLike, options: FlowOptions) -> NDArray[np.float32]:
    array = _array("x", value)
    if array.ndim != 4 or array.dtype.kind not in "iufb":
        fact = f"images are an array of numbers with four axes, and this is {array.dtype} {array.shape}"
        raise UsageError("x", fact, "give one such as (n, height, width, channels)")
    channels = array.shape[1 if options.channels_first else 3]
    if channels not in (1, 3, 4):
        text = f"Expected 1, 3 or 4 channels by data_format={options.data_format!r}, but `x` has shape {array.shape}."
        warnings.warn(text, stacklevel=4)
    return np.asarray(array, np.float32)


def _require_same_classes(y: NDArray[Any], options: FlowOptions) -> None:
    held = int(options.validation_split * len(y))
    if not np.array_equal(np.unique(y[:held]), np.unique(y[held:])):
        fact = "training and validation have different classes after the split"
        raise UsageError("y", fact, "shuffle x and y together, or give ignore_class_split=True")
