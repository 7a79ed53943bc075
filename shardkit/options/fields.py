"""Options: what the fields of a dataclass say of them, for the command line, the configuration file and the docs.

A function spells its options out; the dataclass beside it has the same names, types and defaults, and their limits and
help. `checked_by` holds the arguments of a call against the limits, so that Python and the command line give one error.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from enum import Enum
from math import inf
from numbers import Integral, Real
from typing import Any, Literal, ParamSpec, TypeVar, get_args, get_origin, get_type_hints

from shardkit.errors import UsageError
from shardkit.options.keywords import cure_of_choice, named_options

_P = ParamSpec("_P")
_R = TypeVar("_R")


@dataclass(frozen=True, slots=True)
class Help:
    """What an option does, in a line; what its value is called (`N`, `FILE`); and what happens without a value."""

    text: str
    metavar: str | None = None
    unset: str = ""


@dataclass(frozen=True, slots=True)
class About:
    """What a configuration file says above an option, and above those that follow it without words of their own."""

    text: str


@dataclass(frozen=True, slots=True)
class AtLeast:
    """The smallest value of a number, or of each number in a list."""

    least: float


@dataclass(frozen=True, slots=True)
class AtMost:
    """The largest value of a number."""

    most: float


@dataclass(frozen=True, slots=True)
class Flag:
    """The spelling on the command line, where it is not the option's name: `--class`, `--shuffle/--no-shuffle`."""

    text: str


@dataclass(frozen=True, slots=True)
class Words:
    """What the command line takes, where the function takes other values."""

    words: tuple[str, ...]


class Takes(Enum):
    """What an option takes where its type does not tell."""

    SIZE = "size"
    WORDS = "list"
    NUMBERS = "numbers"
    TEXTS = "texts"
    FILE = "path"
    PAIRS = "pairs"
    NAMES = "names"
    GROUPS = "groups"


@dataclass(frozen=True, slots=True)
class OptionField:
    """An option of a command.

    kind: bool, int, float, str, size, list (words with commas between them), numbers (the same of numbers), texts (one
    or more, each given as it is), path, pairs (KEY=VALUE, one or more), names (OLD=NEW, with commas between them) or
    groups (NAME=WORD,WORD, one or more).
    choices: the only values, if any; words: the only ones on the command line.
    """

    name: str
    kind: str
    default: Any
    help: Help
    about: str = ""
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    flag: str = ""

    def require(self, value: object, place: str = "") -> None:
        """UsageError for a value that the option can't have. place: what the error names (default: the option)."""
        place = place or self.name
        if value is None and self.default is None:
            return
        if self.choices and value not in self.choices:
            raise self.not_a_choice(value, self.choices, place)
        if self.kind == "numbers":
            if isinstance(value, str) or not isinstance(value, Iterable):
                raise UsageError(place, f"{value!r} is not a list of numbers", "write it as [1, 2, 4]")
            for number in value:
                self._require_number(number, place)
        elif self.kind in ("int", "float"):
            self._require_number(value, place)

    def not_a_choice(self, value: object, choices: Sequence[str], place: str) -> UsageError:
        """The error for a value that is not one of `choices`."""
        fact = f"{value!r} is not one of {', '.join(choices)}"
        return UsageError(place, fact, cure_of_choice(self.name, value, choices))

    def not_a_number(self, value: object, place: str) -> UsageError:
        """The error for a value that is not a number of the option's kind."""
        what = "a number" if self.kind == "float" else "a whole number"
        return UsageError(place, f"{value!r} is not {what}", f"give {self.limits or what}")

    def _require_number(self, value: Any, place: str) -> None:
        number: Any = Real if self.kind == "float" else Integral
        if isinstance(value, bool) or not isinstance(value, number):
            raise self.not_a_number(value, place)
        if not (-inf if self.least is None else self.least) <= value <= (inf if self.most is None else self.most):
            fact = "is too small" if self.most is None else "is out of range"
            written = format(value, "g") if number is Real else str(value)
            raise UsageError(place, f"{written} {fact}", f"give {self.limits}")

    @property
    def limits(self) -> str:
        """The limits in words; "" where there are none."""
        if self.least is None:
            return "" if self.most is None else f"at most {self.most:,}"
        return f"at least {self.least:,}" if self.most is None else f"{self.least:,} to {self.most:,}"


def options_of(settings: type[Any]) -> tuple[OptionField, ...]:
    """The options of a command: the fields of a dataclass, and those of the dataclasses in it, in their order."""
    hints = get_type_hints(settings, include_extras=True)
    found: list[OptionField] = []
    for each in fields(settings):
        if each.default is MISSING and isinstance(each.default_factory, type):
            found += options_of(each.default_factory)
        else:
            found.append(_option_of(each.name, hints[each.name], each.default))
    return tuple(found)


def _option_of(name: str, hint: Any, default: Any) -> OptionField:
    value, *marks = get_args(hint)
    by_type = {type(mark): mark for mark in marks}
    takes, least, most = by_type.get(Takes), by_type.get(AtLeast), by_type.get(AtMost)
    return OptionField(
        name=name,
        kind=_kind_of(value) if takes is None else takes.value,
        default=default,
        help=by_type[Help],
        about=by_type[About].text if About in by_type else "",
        least=None if least is None else least.least,
        most=None if most is None else most.most,
        choices=() if Words in by_type else _choices_of(value),
        words=by_type[Words].words if Words in by_type else (),
        flag=by_type[Flag].text if Flag in by_type else "",
    )


def _kind_of(value: Any) -> str:
    types = set(get_args(value)) - {type(None)} or {value}
    return next((kind.__name__ for kind in (bool, int, float) if types == {kind}), "str")


def _choices_of(value: Any) -> tuple[str, ...]:
    literal = next((part for part in (value, *get_args(value)) if get_origin(part) is Literal), None)
    return () if literal is None else get_args(literal)


def require_limits(settings: type[Any], values: Mapping[str, Any]) -> None:
    """UsageError for the first of the options by name whose value is outside its limits."""
    for option in options_of(settings):
        if option.name in values:
            option.require(values[option.name])


def checked_by(settings: type[Any]) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """A decorator: the function's keyword arguments are held against the limits of the options of their names.

    One that the function does not have is an error that gives the right name.
    """

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        named = named_options(function)

        @functools.wraps(function)
        def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            require_limits(settings, kwargs)
            return named(*args, **kwargs)

        return call

    return decorate
