"""What `decode(views=)` takes: how many crops of which size each name has, and what part of the image they show."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from shardkit.errors import UsageError
from shardkit.images.crops import MAX_SIDE
from shardkit.options.keywords import closest, named_fields
from shardkit.options.numbers import is_range, is_whole

MAX_VIEWS = 1024
"""The most views of an image, of all names together (MOST_VIEWS in native/include/pixels/view.h)."""

_CURE = 'such as views={"global": (2, 224), "local": (8, 96)}'


@named_fields
@dataclass(frozen=True, slots=True)
class View:
    """Random crops of each image, for `decode(views=)`.

    count: how many of them. size: to which they are resized, a square's side or (height, width), in pixels. scale: the
    (low, high) share of the image's area that each shows. ratio: (low, high) of their width / height. None for these
    is what `decode()` has. UsageError for an invalid value.
    """

    count: int
    size: int | tuple[int, int]
    scale: tuple[float, float] | None = None
    ratio: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not is_whole(self.count) or not 1 <= self.count <= MAX_VIEWS:
            raise UsageError("views", f"a count of {self.count!r} is not a whole number from 1 to {MAX_VIEWS:,}", _CURE)
        if not is_size(self.size):
            fact = f"a size of {self.size!r} is neither a number of pixels nor (height, width), 1 to {MAX_SIDE:,}"
            raise UsageError("views", fact, _CURE)
        for name, most in (("scale", 1.0), ("ratio", math.inf)):
            limits = getattr(self, name)
            if limits is not None and not is_range(limits, most):
                least = "(low, high) with 0 < low <= high" + (" <= 1" if most == 1 else "")
                raise UsageError("views", f"a {name} of {limits!r} is not {least}")
        for name, plain in (("count", int(self.count)), ("size", sides_of(self.size))):
            object.__setattr__(self, name, plain)  # tuples, so that equal values are equal


def sides_of(size: Any) -> tuple[Any, ...]:
    """(height, width) of a size."""
    return tuple(size) if isinstance(size, (tuple, list)) else (size, size)


def is_size(size: Any) -> bool:
    """Whether it is a number of pixels, or (height, width)."""
    sides = sides_of(size)
    return len(sides) == 2 and all(is_whole(side) and 1 <= side <= MAX_SIDE for side in sides)


def as_views(given: Any) -> dict[str, View]:
    """The views by name. Each may be a View, (count, size), or a mapping of a View's fields. UsageError for others."""
    if not isinstance(given, Mapping) or not given:
        raise UsageError("views", f"{given!r} is not a dict of at least one name", _CURE)
    views = {}
    for name, value in given.items():
        if not isinstance(name, str) or not name:
            raise UsageError("views", f"{name!r} is not a name", _CURE)
        try:
            views[name] = _view(value)
        except UsageError as exc:
            raise UsageError("views", f"{name!r}: {exc.fact}", exc.cure) from exc
    total = sum(view.count for view in views.values())
    if total > MAX_VIEWS:
        raise UsageError("views", f"{total:,} views of each image are more than {MAX_VIEWS:,}", "give smaller counts")
    return views


def _view(value: Any) -> View:
    if isinstance(value, View):
        return value
    if isinstance(value, (tuple, list)) and len(value) == 2:
        return View(*value)
    if not isinstance(value, Mapping):
        cure = "give (count, size), or shardkit.View(count, size, scale=(0.4, 1)) for more"
        raise UsageError("views", f"{value!r} is not (count, size)", cure)
    known = [field.name for field in fields(View)]
    for key in value:
        if key not in known:
            meant = closest(str(key), known)
            cure = f"did you mean {meant!r}?" if meant else "omit it"
            raise UsageError("views", f"{key!r} is not one of {', '.join(known)}", cure)
    if missing := [key for key in ("count", "size") if key not in value]:
        raise UsageError("views", f"it has no {' and no '.join(missing)}", _CURE)
    return View(**value)
