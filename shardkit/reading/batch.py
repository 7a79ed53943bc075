"""Batches: what a batch is, and how samples become one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shardkit.errors import DatasetError
from shardkit.sample import IMAGE_FIELDS, Sample

_NONE = object()

REPEAT = "__repeat__"
"""True in a sample that was given before and fills up a rank's part (remainder="pad"); not there in others."""


class Batch(tuple[Any, ...]):
    """`(images, labels)`, ready for Keras and torch; and by name what else the samples hold.

    images: (n, height, width, channels), or (n, channels, height, width) with layout="chw". labels: int64 (n,), or as
    `decode(label=)` says. keys: n str. repeats: bool (n,), True for samples that fill up the last batch
    (remainder="pad"), or None where there are none. Other fields are attributes and items: `batch.txt`, `batch["txt"]`.
    """

    keys: list[str]
    repeats: NDArray[np.bool_] | None
    fields: dict[str, Any]

    def __new__(
        cls,
        images: Any,
        labels: Any = _NONE,
        *,
        keys: Sequence[str] = (),
        fields: Mapping[str, Any] | None = None,
        repeats: NDArray[np.bool_] | None = None,
    ) -> Batch:
        """A batch of these values, or of the two in one iterable, as tuples are made: code that maps over a nested
        structure and builds it again from its type (Lightning, accelerate) does so; keys and fields are lost then."""
        if labels is _NONE:
            images, labels = images
        batch = super().__new__(cls, (images, labels))
        batch.keys = list(keys)
        batch.repeats = repeats
        batch.fields = dict(fields or {})
        return batch

    @property
    def images(self) -> Any:
        """The first of the two values."""
        return tuple.__getitem__(self, 0)

    @property
    def labels(self) -> Any:
        """The second of the two values."""
        return tuple.__getitem__(self, 1)

    def __getitem__(self, item: Any) -> Any:
        return self.fields[item] if isinstance(item, str) else tuple.__getitem__(self, item)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["fields"][name]
        except KeyError:
            raise AttributeError(f"this batch has no {name!r}") from None

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (self.images, self.labels, self.keys, self.fields, self.repeats)

    def __repr__(self) -> str:
        shape = getattr(self.images, "shape", None)
        return f"Batch(images={shape}, labels={getattr(self.labels, 'shape', None)}, keys={len(self.keys)})"


def _rebuilt(images: Any, labels: Any, keys: list[str], fields: dict[str, Any], repeats: Any) -> Batch:
    return Batch(images, labels, keys=keys, fields=fields, repeats=repeats)


def collate(samples: Sequence[Any]) -> Any:
    """Samples as one batch.

    Dicts with a decoded image (an array in an image field) give a Batch; other dicts a dict of lists, with arrays of
    one shape stacked, and `__repeat__` (bool, n) where one of them is a repeat.
    Tuples give a tuple of columns. Raises DatasetError for images of different sizes.
    """
    first = samples[0]
    if isinstance(first, dict):
        image = next((n for n, v in first.items() if n in IMAGE_FIELDS and isinstance(v, np.ndarray)), None)
        return _columns(samples) if image is None else _batch(samples)
    if isinstance(first, (tuple, list)):
        return tuple(_column([sample[i] for sample in samples]) for i in range(len(first)))
    return _column(samples)


def image_field(sample: Sample) -> str:
    """The field of a decoded sample that holds its image."""
    return next(name for name, value in sample.items() if name in IMAGE_FIELDS and isinstance(value, np.ndarray))


def _batch(samples: Sequence[Sample]) -> Batch:
    names = [image_field(sample) for sample in samples]
    images = [sample[name] for sample, name in zip(samples, names, strict=True)]
    labels = [sample.get("cls") for sample in samples]
    shared = set(samples[0]).intersection(*samples[1:]) - {*names, "cls", "__url__", REPEAT}
    fields = {name: _column([sample[name] for sample in samples]) for name in sorted(shared - {"__key__"})}
    keys = [str(sample.get("__key__", "")) for sample in samples]
    given = None if any(label is None for label in labels) else stacked_labels(labels, keys)
    return Batch(stacked(images, keys), given, keys=keys, fields=fields, repeats=_repeats(samples))


def stacked_labels(labels: Sequence[Any], keys: Sequence[str]) -> NDArray[Any]:
    """Labels as an array: numbers, or arrays of one length. Raises DatasetError that names two that are not."""
    for label, key in zip(labels, keys, strict=True):
        if np.shape(label) != np.shape(labels[0]):
            fact = f"a batch needs labels of one length: {keys[0]} has {np.size(labels[0])} and {key} {np.size(label)}"
            raise DatasetError("batch()", fact, "mend the labels, or make them of one length with map()")
    return np.asarray(labels)


def _repeats(samples: Sequence[Sample]) -> NDArray[np.bool_] | None:
    marks = np.array([REPEAT in sample for sample in samples])
    return marks if marks.any() else None


def stacked(images: Sequence[NDArray[Any]], keys: Sequence[str]) -> NDArray[Any]:
    """Images of one size as one array (n, …). Raises DatasetError that names two of different sizes."""
    shape = images[0].shape
    for image, key in zip(images, keys, strict=True):
        if image.shape != shape:
            fact = f"a batch needs images of one size: {keys[0]} is {_size(shape)} and {key} is {_size(image.shape)}"
            raise DatasetError("batch()", fact, "give a size: .decode(size=224)")
    return np.stack(images)


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _columns(samples: Sequence[Sample]) -> dict[str, Any]:
    names = dict.fromkeys(name for sample in samples for name in sample if name != REPEAT)
    columns = {name: _column([sample.get(name) for sample in samples]) for name in names}
    repeats = _repeats(samples)
    return columns if repeats is None else columns | {REPEAT: repeats}


def _column(values: Sequence[Any]) -> Any:
    first = values[0]
    if isinstance(first, np.ndarray) and all(isinstance(v, np.ndarray) and v.shape == first.shape for v in values):
        return np.stack(values)
    if isinstance(first, (int, float, np.number)) and not isinstance(first, bool) and None not in values:
        return np.asarray(values)
    return list(values)
