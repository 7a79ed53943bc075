"""Options of commands from the fields of a dataclass: their names, types, limits, defaults and help."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from shardkit.cli.engine import engine_options
from shardkit.cli.storage import storage_options
from shardkit.errors import UsageError
from shardkit.options.fields import OptionField, options_of
from shardkit.units import parse_bytes

_F = TypeVar("_F", bound=Callable[..., Any])

FILE = click.Path(path_type=Path)


def size(_: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """The option's callback for a number of bytes, as `64MiB`."""
    return None if value is None else parse_bytes(value, place=param.opts[0])


def words(_: click.Context, param: click.Parameter, value: str | None) -> list[str] | None:
    """The option's callback for words with commas between them, as `jpg,png`."""
    if value is None:
        return None
    found = [word.strip() for word in value.split(",") if word.strip()]
    if not found:
        raise UsageError(param.opts[0], "it is empty", "give at least one word, as in jpg,png")
    return found


def flag_of(option: OptionField) -> str:
    """The name of an option on the command line; with its opposite where it is on by default."""
    flag = "--" + option.name.replace("_", "-")
    return f"{flag}/--no-{flag[2:]}" if option.default is True else flag


def click_option(option: OptionField) -> Callable[[_F], _F]:
    """The decorator that adds an option to a command."""
    shown = option.default is not None and option.default is not False
    asked: dict[str, Any] = {"help": option.help.text, "default": option.default, "show_default": shown}
    if option.kind == "bool":
        asked |= {} if option.default else {"is_flag": True}
    elif option.choices:
        asked["type"] = click.Choice(option.choices)
    elif option.kind == "int":
        asked["type"] = int if option.least is None else click.IntRange(option.least)
    elif option.kind == "path":
        asked["type"] = FILE
    if option.kind in ("size", "list"):
        asked["callback"] = size if option.kind == "size" else words
    return click.option(flag_of(option), metavar=option.help.metavar, **asked)


_SHARED = {"engine": engine_options, "storage_options": storage_options}
"""Options that several commands have, and that are more than a value of their own."""


def options_from(settings: type[Any], before: Mapping[str, Callable[[Any], Any]] | None = None) -> Callable[[_F], _F]:
    """The decorator that adds all options of a dataclass to a command, in their order.

    before: options that the command has beyond these, by the names of those that they come before.
    """

    def decorate(function: _F) -> _F:
        for option in reversed(options_of(settings)):
            function = _SHARED.get(option.name, click_option(option))(function)
            if before is not None and option.name in before:
                function = before[option.name](function)
        return function

    return decorate
