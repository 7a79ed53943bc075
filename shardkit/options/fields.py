"""Options: what the fields of a dataclass say of them, for the command line, the configuration file and the docs.

And keyword arguments that have moved: the old spelling works for one release, with a warning that gives the new one.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any, Literal, ParamSpec, TypeVar, get_args, get_origin, get_type_hints

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
        old = spelled(given)
        return Moved(old, f"{parameter}=shardkit.{value.__name__}({old})")

    return move


def spelled(kwargs: dict[str, Any]) -> str:
    """Keyword arguments as one writes them."""
    return ", ".join(f"{name}={value!r}" for name, value in kwargs.items())


@dataclass(frozen=True, slots=True)
class Help:
    """What an option does, in a line, and what its value is called: `N`, `FILE`."""

    text: str
    metavar: str | None = None


@dataclass(frozen=True, slots=True)
class About:
    """What a configuration file says above an option, and above those that follow it without words of their own."""

    text: str


@dataclass(frozen=True, slots=True)
class AtLeast:
    """The smallest value of a number."""

    least: int


class Takes(Enum):
    """What an option takes where its type does not tell."""

    SIZE = "size"
    WORDS = "list"
    FILE = "path"
    PAIRS = "pairs"


@dataclass(frozen=True, slots=True)
class OptionField:
    """An option of a command. kind: bool, int, str, size, list, path or pairs. choices: the only values, if any."""

    name: str
    kind: str
    default: Any
    help: Help
    about: str = ""
    least: int | None = None
    choices: tuple[str, ...] = ()


def options_of(settings: type[Any]) -> list[OptionField]:
    """The options of a command: the fields of a dataclass, and those of the dataclasses in it, in their order."""
    hints = get_type_hints(settings, include_extras=True)
    found: list[OptionField] = []
    for each in fields(settings):
        if isinstance(each.default_factory, type):
            found += options_of(each.default_factory)
        else:
            found.append(_option_of(each.name, hints[each.name], each.default))
    return found


def _option_of(name: str, hint: Any, default: Any) -> OptionField:
    value, *marks = get_args(hint)
    by_type = {type(mark): mark for mark in marks}
    types = set(get_args(value)) - {type(None)} or {value}
    choices = get_args(value) if get_origin(value) is Literal else ()
    kind = "bool" if types == {bool} else "int" if types == {int} else "str"
    takes, least, about = by_type.get(Takes), by_type.get(AtLeast), by_type.get(About)
    return OptionField(
        name=name,
        kind=kind if takes is None else takes.value,
        default=default,
        help=by_type[Help],
        about="" if about is None else about.text,
        least=None if least is None else least.least,
        choices=choices,
    )
