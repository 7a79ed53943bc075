"""Batches, and how samples are collated into one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Self, SupportsIndex, overload

import numpy as np
from numpy.typing import NDArray

from shardkit.errors import DatasetError
from shardkit.sample import IMAGE_FIELDS, AnySample

if TYPE_CHECKING:  # Python 3.11 has no defaults of type variables
    from typing_extensions import TypeVar

    A = TypeVar("A", default=NDArray[Any], covariant=True)
else:
    from typing import TypeVar

    A = TypeVar("A", covariant=True)

_NONE = object()

REPEAT = "__repeat__"
"""True in a repeated sample that fills up a rank's part (remainder="pad"); absent in others."""


class Batch(tuple[A, A], Generic[A]):
    """`(images, labels)`, ready for Keras and torch; other fields of the samples are available by name.

    images: (n, height, width, channels), or (n, channels, height, width) with layout="chw"; with collate="list" a list
    of n arrays of their own shapes; with decode(views=) a dict
    of one array for each name, (n, count, …), which are items as well: `batch["global"]`. labels: int64 (n,), or as
    specified by `decode(label=)`; None if the samples have none. keys: n str. repeats: bool (n,), True for samples that
    fill up the last batch (remainder="pad"), or None if there are none. Other fields are attributes and items:
    `batch.txt`, `batch["txt"]`. `Batch[A]`: images and labels are of type A, NumPy arrays by default.
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
    ) -> Self:
        """Create a batch from these values, or from an iterable of images and labels, like a tuple.

        Code that maps over a nested structure and rebuilds it from its type (Lightning, accelerate) uses the latter;
        keys and fields are lost then.
        """
        if labels is _NONE:
            images, labels = images
        batch = super().__new__(cls, (images, labels))
        batch.keys = list(keys)
        batch.repeats = repeats
        batch.fields = dict(fields or {})
        return batch

    @property
    def images(self) -> A:
        """The first of the two values."""
        return tuple.__getitem__(self, 0)

    @property
    def labels(self) -> A:
        """The second of the two values."""
        return tuple.__getitem__(self, 1)

    @overload
    def __getitem__(self, item: SupportsIndex, /) -> A: ...
    @overload
    def __getitem__(self, item: slice, /) -> tuple[A, ...]: ...
    @overload
    def __getitem__(self, item: str, /) -> Any: ...

    def __getitem__(self, item: Any, /) -> Any:
        if not isinstance(item, str):
            return tuple.__getitem__(self, item)
        images: Any = self.images
        return images[item] if isinstance(images, dict) and item in images else self.fields[item]

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["fields"][name]
        except KeyError:
            raise AttributeError(f"this batch has no {name!r}") from None

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (self.images, self.labels, self.keys, self.fields, self.repeats)

    def __repr__(self) -> str:
        shapes = f"images={_shape_of(self.images)}, labels={_shape_of(self.labels)}, keys={len(self.keys)}"
        fields = "".join(f", {name}=…" for name in self.fields)
        return f"{type(self).__name__}({shapes}{fields})"

    def _repr_html_(self) -> str | None:
        """The first of the images, with their labels, for notebooks."""
        from shardkit.reading.shown import page_of_batch

        return page_of_batch(self)


def _shape_of(values: Any) -> Any:
    if isinstance(values, list):
        return [_shape_of(value) for value in values]
    if isinstance(values, dict):
        return {name: _shape_of(value) for name, value in values.items()}
    shape = getattr(values, "shape", None)
    return shape if shape is None else tuple(shape)


def _rebuilt(images: Any, labels: Any, keys: list[str], fields: dict[str, Any], repeats: Any) -> Batch:
    return Batch(images, labels, keys=keys, fields=fields, repeats=repeats)


def collate(samples: Sequence[Any], *, ragged: bool = False, lists: frozenset[str] = frozenset()) -> Any:
    """Collate samples into one batch. ragged: images, and fields that are arrays, are lists in it; lists: these fields.

    Dicts with a decoded image (an array in an image field) become a Batch; other dicts become a dict of lists, in which
    arrays of one shape are stacked, with `__repeat__` (bool, n) if any of them is a repeat. A field that only some
    samples have is a list with None for the others. Tuples become a tuple of columns. Raises DatasetError for images of
    different sizes, items of different kinds or lengths, and if only some of the samples have an image or a label.
    """
    first = samples[0]
    if isinstance(first, dict):
        _require_alike(samples, dict)
        if any(image_field(sample) for sample in samples):
            return _batch(samples, ragged, lists)
        return _columns(samples)
    if isinstance(first, (tuple, list)):
        _require_alike(samples, (tuple, list))
        other = next((sample for sample in samples if len(sample) != len(first)), None)
        if other is not None:
            fact = f"a batch needs tuples of equal length, but some have {len(first)} and some {len(other)} values"
            raise DatasetError("batch()", fact, "make map() return the same number of values for each sample")
        return tuple(_column([sample[i] for sample in samples]) for i in range(len(first)))
    return _column(samples)


def _require_alike(items: Sequence[Any], kind: type | tuple[type, ...]) -> None:
    other = next((item for item in items if not isinstance(item, kind)), None)
    if not all(isinstance(item, kind) for item in items):
        fact = f"a batch needs items of one type, but there are {type(items[0]).__name__} and {type(other).__name__}"
        raise DatasetError("batch()", fact, "make map() return the same type for each sample")


def image_field(sample: AnySample) -> str | None:
    """The field of a decoded sample that holds its image, or the views of it; None if there is none."""
    return next((n for n, v in sample.items() if n in IMAGE_FIELDS and _is_decoded(v)), None)


def _is_decoded(value: Any) -> bool:
    if isinstance(value, dict):
        return bool(value) and all(isinstance(one, np.ndarray) for one in value.values())
    return isinstance(value, np.ndarray)


def _image_fields(samples: Sequence[AnySample]) -> list[str]:
    """The image field of each sample. Raises DatasetError naming a sample without one."""
    names = [image_field(sample) for sample in samples]
    if None in names:
        fact = f"a batch needs an image for each sample, but {_key_of(samples[names.index(None)])} has none"
        raise DatasetError("batch()", fact, "add one in map(), or omit the sample with filter()")
    return names  # type: ignore[return-value]


def _key_of(sample: Any) -> str:
    return repr(sample.get("__key__", "a sample")) if isinstance(sample, dict) else "an item"


def _batch(samples: Sequence[AnySample], ragged: bool, lists: frozenset[str]) -> Batch:
    names = _image_fields(samples)
    images = [sample[name] for sample, name in zip(samples, names, strict=True)]
    labels = [sample.get("cls") for sample in samples]
    found = set().union(*samples) - {"cls", "__key__", "__url__", REPEAT}
    fields = {}
    for field in sorted(found):
        values = [None if field == name else sample.get(field) for sample, name in zip(samples, names, strict=True)]
        if field not in names or any(value is not None for value in values):
            fields[field] = list(values) if ragged or field in lists else _column(values)
    keys = [str(sample.get("__key__", "")) for sample in samples]
    given = None if all(label is None for label in labels) else stacked_labels(labels, keys)
    whole = images if ragged else stack_images(images, keys)
    return Batch(whole, given, keys=keys, fields=fields, repeats=_repeats(samples))


def stacked_labels(labels: Sequence[Any], keys: Sequence[str]) -> NDArray[Any]:
    """Labels as an array: numbers, or arrays of one length. Raises DatasetError naming those that do not fit."""
    for label, key in zip(labels, keys, strict=True):
        if label is None:
            fact = f"a batch needs a label (cls) for each sample, but {key!r} has none"
            raise DatasetError("batch()", fact, "add one in map(), or omit the sample with filter()")
        if np.shape(label) != np.shape(labels[0]):
            fact = (
                f"a batch needs labels of equal length: {keys[0]} has {np.size(labels[0])} and {key} {np.size(label)}"
            )
            raise DatasetError("batch()", fact, "fix the labels, or make their lengths equal with map()")
    return np.asarray(labels)


def _repeats(samples: Sequence[AnySample]) -> NDArray[np.bool_] | None:
    marks = np.array([REPEAT in sample for sample in samples])
    return marks if marks.any() else None


def stack_images(images: Sequence[Any], keys: Sequence[str]) -> Any:
    """Images of one size as one array (n, …); views of images as such an array for each name. Raises DatasetError
    naming two of different sizes.
    """
    if isinstance(images[0], dict):
        return {name: stack_images([views[name] for views in images], keys) for name in images[0]}
    shape = images[0].shape
    for image, key in zip(images, keys, strict=True):
        if image.shape != shape:
            fact = f"a batch needs images of one size: {keys[0]} is {_size(shape)} and {key} is {_size(image.shape)}"
            raise DatasetError(
                "batch()", fact, 'give a size: .decode(size=224), or lists of images: .batch(n, collate="list")'
            )
    return np.stack(images)


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _columns(samples: Sequence[AnySample]) -> dict[str, Any]:
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
