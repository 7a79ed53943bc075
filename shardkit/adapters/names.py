"""Names of a user's choice for images and labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shardkit.errors import UsageError

if TYPE_CHECKING:
    from shardkit.reading.dataset import Dataset

_CURE = 'give two names, such as ("pixel_values", "labels")'


def checked_names(dataset: Dataset, names: Any) -> tuple[str, str]:
    """The names of images and labels. UsageError unless they are two, and the dataset has images."""
    pair = () if isinstance(names, str) else tuple(names)
    if len(pair) != 2 or not all(isinstance(name, str) for name in pair) or pair[0] == pair[1]:
        raise UsageError("names", f"{names!r} is not a name for the images and one for the labels", _CURE)
    if dataset.steps.decode is None:
        raise UsageError("names", "the images are not decoded", "call decode(size=…) before")
    return pair[0], pair[1]


def not_an_item(item: Any) -> UsageError:
    """The error for an item that has no image and label to be named."""
    fact = f"map() returned {type(item).__name__}, which is neither a batch nor a decoded sample"
    return UsageError("names", fact, "omit `names`, and return the dict from map()")
