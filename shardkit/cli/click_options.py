"""Options of commands from the fields of dataclasses: their names, types, limits, defaults and help."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, TypeVar

import click
from click.core import ParameterSource

from shardkit.cli.flags import Flags
from shardkit.errors import UsageError, printable
from shardkit.options.fields import Flag, Help, OptionField, Takes, options_of
from shardkit.units import parse_bytes

_F = TypeVar("_F", bound=Callable[..., Any])

FILE = click.Path(path_type=Path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """The option that comes with `engine`: on the command line a cluster is a word and an address."""

    address: Annotated[str | None, Help("Address of the Ray cluster; otherwise Ray runs locally.", "HOST:PORT")] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Json:
    """The option of commands that print a result."""

    as_json: Annotated[bool, Flag("--json"), Help("Print the result as JSON.")] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """The option of commands whose result can be drawn."""

    plot_file: Annotated[
        str | os.PathLike[str] | None, Takes.FILE, Flag("--plot"), Help("Write a plot to this PNG or SVG file.", "FILE")
    ] = None


def words(texts: Iterable[str], place: str) -> list[str]:
    """Words with commas between them, as `jpg,png`, given once or more."""
    found = [word.strip() for text in texts for word in text.split(",") if word.strip()]
    if not found:
        raise UsageError(place, "it is empty", "give at least one word, as in jpg,png")
    return found


def numbers(text: str, place: str) -> list[int]:
    """Whole numbers with commas between them, as `1,2,4`."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as exc:
        raise UsageError(place, f"{text!r} is not a list of numbers", "write it as 1,2,4") from exc


def names(texts: Iterable[str], place: str) -> dict[str, str]:
    """Texts such as `old=new`, with commas between them, given once or more: old -> new."""
    found: dict[str, str] = {}
    for text in (each for given in texts for each in given.split(",")):
        old, equals, new = (part.strip() for part in text.partition("="))
        if not (old and equals and new) or "=" in new or old in found:
            cure = "write it as png=mask.png, with commas between several"
            raise UsageError(place, f"{text!r} is not OLD=NEW, or occurs twice", cure)
        found[old] = new
    return found


def pairs(texts: Iterable[str], place: str) -> dict[str, str]:
    """Texts such as `key=value`: key -> value. UsageError without their values, which may be secret."""
    found: dict[str, str] = {}
    for number, text in enumerate(texts, 1):
        key, equals, value = text.partition("=")
        key = key.strip()
        if not key or not equals:
            raise UsageError(place, f"number {number} of them is not KEY=VALUE", "write it as region=eu-west-1")
        if key in found:
            raise UsageError(place, f"{printable(key)} is given twice", "leave one of them out")
        found[key] = value.strip()
    return found


def groups(texts: Iterable[str], place: str) -> dict[str, list[str]]:
    """Texts such as `name=one,two`, given once or more: name -> its words."""
    found: dict[str, list[str]] = {}
    for text in texts:
        name, _, parts = (part.strip() for part in text.partition("="))
        each = [part.strip() for part in parts.split(",")]
        if not name or not all(each) or name in found:
            fact = f"{text!r} is not NAME=WORD,WORD, or occurs twice"
            raise UsageError(place, fact, "write it as animal=cat,dog, once for each name")
        found[name] = each
    return found


def _size(text: str, place: str) -> int:
    return parse_bytes(text, place=place)


def _texts(texts: Sequence[str], _: str) -> list[str]:
    return list(texts)


class Choice(click.Choice[str]):
    """Words that the help shows and the shell completes. The option checks them, so that its errors are shardkit's."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The text as it was given."""
        return value


_READERS: dict[str, Callable[[Any, str], Any]] = {
    "size": _size, "list": words, "numbers": numbers, "texts": _texts, "pairs": pairs, "names": names,
    "groups": groups,
}  # fmt: skip
"""What makes a value of the text that is given, by the option's kind; the flag is the place of an error."""

_REPEATED = ("list", "texts", "pairs", "names", "groups")
_NUMBERS: dict[str, Callable[[str], float]] = {"int": int, "float": float}


class FieldOption(click.Option):
    """An option of a command that the field of a dataclass describes.

    Those that a machine sets (MACHINE) can also be given by an environment variable; the command line wins.
    """

    def __init__(self, declared: Sequence[str], *, field: OptionField, **asked: Any) -> None:
        super().__init__(declared, envvar=variable_of(field) or None, **asked)
        self.field = field

    def process_value(self, ctx: click.Context, value: Any) -> Any:
        """The value that the function takes. Raises UsageError for what it can't be."""
        given = super().process_value(ctx, value)
        if given is None or given == ():
            return self.field.default
        place = self.opts[0]
        if ctx.get_parameter_source(self.field.name) is ParameterSource.ENVIRONMENT:
            place = f"${variable_of(self.field)}"
            if flags := ctx.find_object(Flags):
                flags.origins[self.field.name] = place
        return value_of(self.field, given, place)


def value_of(option: OptionField, given: Any, place: str) -> Any:
    """The value of an option that is given as text. place: what a UsageError about it names."""
    if option.words:
        if given not in option.words:
            raise option.not_a_choice(given, option.words, place)
        return given
    if option.kind in _NUMBERS and isinstance(given, str):
        try:
            given = _NUMBERS[option.kind](given)
        except ValueError as exc:
            raise option.not_a_number(given, place) from exc
    read = _READERS.get(option.kind)
    found = given if read is None else read(given, place)
    option.require(found, place)
    return found


def flag_of(option: OptionField) -> str:
    """The spelling of an option; with its opposite where it is on by default."""
    flag = option.flag or "--" + option.name.replace("_", "-")
    return f"{flag}/--no-{flag[2:]}" if option.default is True and "/" not in flag else flag


MACHINE = ("--workers", "--threads", "--transfers", "--work", "--folder", "--storage-option")
"""Options that depend on the machine more than on the data: an environment variable gives them for all commands."""


def variable_of(option: OptionField) -> str:
    """The environment variable of an option: SHARDKIT_WORKERS; "" where it has none."""
    flag = flag_of(option)
    if flag not in MACHINE or option.kind == "numbers":
        return ""
    return "SHARDKIT_" + flag[2:].replace("-", "_").upper() + ("S" if option.kind == "pairs" else "")


def default_text(option: OptionField) -> str:
    """The default as a reader sees it; "" for nothing, and for off."""
    if option.default is None or option.default is False:
        return option.help.unset
    if option.default is True:
        return flag_of(option).partition("/")[0][2:]
    return ",".join(map(str, option.default)) if isinstance(option.default, tuple) else str(option.default)


def limits_text(option: OptionField) -> str:
    """The limits as a reader sees them; "" for those that go without saying."""
    return option.limits if option.most is not None or (option.least or 0) > 1 else ""


def help_text(option: OptionField) -> str:
    """The help of an option, with its default and limits."""
    default = default_text(option)
    variable = variable_of(option)
    notes = "; ".join(
        filter(None, [default and f"default: {default}", limits_text(option), variable and f"env: {variable}"])
    )
    return f"{option.help.text}  [{notes}]" if notes else option.help.text


def click_option(option: OptionField) -> Callable[[_F], _F]:
    """The decorator that adds an option to a command."""
    flag, choices = flag_of(option), option.choices or option.words
    asked: dict[str, Any] = {"help": help_text(option), "metavar": option.help.metavar, "field": option}
    if option.kind == "bool":
        asked |= {"default": option.default} if "/" in flag else {"is_flag": True}
    else:
        asked["type"] = Choice(choices) if choices else FILE if option.kind == "path" else click.STRING
        asked |= {"multiple": True} if option.kind in _REPEATED else {}
        asked["default"] = None if isinstance(option.default, tuple) else option.default
    return click.option(flag, option.name, cls=FieldOption, **asked)


def options_from(*settings: type[Any]) -> Callable[[_F], _F]:
    """The decorator that adds all options of some dataclasses to a command, in their order."""
    found: list[OptionField] = []
    for option in (option for each in settings for option in options_of(each)):
        found += [option, *options_of(Address)] if option.name == "engine" else [option]

    def decorate(function: _F) -> _F:
        for option in reversed(found):
            function = click_option(option)(function)
        return function

    return decorate


def arguments(settings: type[Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments of a function: those that are parts of one value, as its class says, are put together."""
    found = dict(options)
    for each in fields(settings):
        if isinstance(each.default_factory, type):
            parts = {part.name: found.pop(part.name) for part in fields(each.default_factory)}
            found[each.name] = each.default_factory(**parts)
    return found
