"""Keyword arguments that have moved: the old spelling works for one release, with a warning that gives the new one."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ParamSpec, TypeVar

from shardkit.errors import UsageError

_P = ParamSpec("_P")
_R = TypeVar("_R")


@dataclass(frozen=True, slots=True)
class Moved:
    """What was found in the old spelling, and how to write it. function: what to call in place of the one called."""

    old: str
    new: str
    function: Callable[..., Any] | None = None


Move = Callable[[dict[str, Any]], Moved | None]
"""Brings the keyword arguments of a call into the new spelling, in place; None where there is nothing to move."""


def accept_old_keywords(*moves: Move) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """A decorator: the function takes the old keyword arguments too, with a DeprecationWarning for its caller."""

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        @functools.wraps(function)
        def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            target = function
            for move in moves:
                moved = move(kwargs)
                if moved is not None:
                    text = f"{function.__name__}(): {moved.old} is deprecated, write {moved.new}"
                    warnings.warn(text, DeprecationWarning, stacklevel=2)
                    target = moved.function or target
            return target(*args, **kwargs)

        return call

    return decorate


def moved_into(parameter: str, value: type[Any]) -> Move:
    """The move of keyword arguments that are now the fields of one value, such as `images=shardkit.Images(resize=9)`.

    Raises UsageError where the value is given as well.
    """
    names = [field.name for field in fields(value)]

    def move(kwargs: dict[str, Any]) -> Moved | None:
        given = {name: kwargs.pop(name) for name in names if name in kwargs}
        if not given:
            return None
        if parameter in kwargs:
            name = next(iter(given))
            raise UsageError(name, f"given together with {parameter}", f"make it a part of {parameter}")
        kwargs[parameter] = value(**given)
        old = spell(given)
        return Moved(old, f"{parameter}=shardkit.{value.__name__}({old})")

    return move


def spell(kwargs: dict[str, Any]) -> str:
    """Keyword arguments as one writes them."""
    return ", ".join(f"{name}={value!r}" for name, value in kwargs.items())
