"""Options of commands from the fields of a dataclass, and what is written from them."""

from __future__ import annotations

import re
import runpy
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import click
import pytest
from click.testing import CliRunner

from shardkit.cli.click_options import help_text, options_from
from shardkit.cli.pack import command, settings
from shardkit.errors import UsageError
from shardkit.options.fields import About, AtLeast, AtMost, Flag, Help, OptionField, Takes, options_of
from shardkit.packing.settings import PackSettings

SCRIPT = Path(__file__).parents[2] / "scripts" / "options.py"


@dataclass(frozen=True)
class Inner:
    depth: Annotated[int, Help("How deep."), About("Depth.")] = 2


@dataclass(frozen=True)
class Outer:
    kind: Annotated[Literal["a", "b"], Help("Which kind.")] = "a"
    count: Annotated[int | None, AtLeast(1), Help("How many.", "N", unset="all")] = None
    inner: Inner = field(default_factory=Inner)
    limit: Annotated[int | str, Takes.SIZE, Help("How large.", "SIZE")] = "1MB"
    parts: Annotated[list[str] | None, Takes.WORDS, Help("Which parts.", "PART,...")] = None
    loud: Annotated[bool, Help("Say more.")] = False
    mixed: Annotated[bool, Help("Mix.")] = True
    name: Annotated[str | None, Help("What it is called.")] = None
    sides: Annotated[Sequence[int], Takes.NUMBERS, AtLeast(2), Help("Which sides.", "N,...")] = (3, 4)
    share: Annotated[float, AtLeast(0), AtMost(1), Help("Which part.")] = 0.5
    keys: Annotated[Sequence[str] | None, Takes.TEXTS, Flag("--key"), Help("Which keys.", "KEY")] = None
    access: Annotated[dict[str, str] | None, Takes.PAIRS, Help("How to reach it.", "KEY=VALUE")] = None
    new: Annotated[dict[str, str] | None, Takes.NAMES, Help("New names.", "OLD=NEW,...")] = None
    on: Annotated[bool, Flag("--on/--off"), Help("On.")] = False


@dataclass(frozen=True)
class More:
    extra: Annotated[bool, Help("Extra.")] = False


def given_by(*arguments: str) -> dict[str, Any]:
    """What a command with these options is called with."""
    found: dict[str, Any] = {}

    @click.command()
    @options_from(Outer, More)
    def run(**options: Any) -> None:
        found.update(options)

    result = CliRunner().invoke(run, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return found


def test_the_options_of_a_dataclass_and_of_those_in_it_come_in_their_order() -> None:
    options = options_of(Outer)
    assert [option.name for option in options] == [
        "kind", "count", "depth", "limit", "parts", "loud", "mixed", "name", "sides", "share", "keys", "access", "new",
        "on",
    ]  # fmt: skip
    kinds = [
        "str",
        "int",
        "int",
        "size",
        "list",
        "bool",
        "bool",
        "str",
        "numbers",
        "float",
        "texts",
        "pairs",
        "names",
        "bool",
    ]
    assert [option.kind for option in options] == kinds
    assert options[0] == OptionField("kind", "str", "a", Help("Which kind."), choices=("a", "b"))
    assert (options[1].least, options[2].about) == (1, "Depth.")


def test_a_command_has_the_defaults_of_the_dataclass() -> None:
    assert given_by() == {
        "kind": "a", "count": None, "depth": 2, "limit": 1_000_000, "parts": None, "extra": False, "loud": False,
        "mixed": True, "name": None, "sides": (3, 4), "share": 0.5, "keys": None, "access": None, "new": None,
        "on": False,
    }  # fmt: skip


def test_a_command_takes_what_the_dataclass_says() -> None:
    text = "--kind b --count 3 --depth 1 --limit 2kB --parts x,y --parts z --loud --no-mixed --name n"
    text += " --sides 5,6 --share 1 --key a,b --key c --access a=b=c --access d= --new a=b,c=d --new e=f --on --extra"
    given = given_by(*shlex.split(text))
    assert given == {
        "kind": "b", "count": 3, "depth": 1, "limit": 2000, "parts": ["x", "y", "z"], "extra": True,
        "loud": True, "mixed": False, "name": "n", "sides": [5, 6], "share": 1.0, "keys": ["a,b", "c"],
        "access": {"a": "b=c", "d": ""}, "new": {"a": "b", "c": "d", "e": "f"}, "on": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kind", "c"], "--kind: 'c' is not one of a, b; choose one of these"),
        (["--depth", "deep"], "--depth: 'deep' is not a whole number; give a whole number"),
        (["--depth", "1.5"], "--depth: '1.5' is not a whole number"),
        (["--share", "half"], "--share: 'half' is not a number; give 0 to 1"),
        (["--count", "0"], "count: 0 is too small; give at least 1"),
        (["--sides", "3,1"], "sides: 1 is too small; give at least 2"),
        (["--share", "1.5"], "share: 1.5 is out of range; give 0 to 1"),
        (["--share", "nan"], "share: nan is out of range; give 0 to 1"),
        (["--sides", "3,"], "--sides: '3,' is not a list of numbers; write it as 1,2,4"),
        (["--limit", "0"], "--limit: 0 is not a whole number of bytes, 1 or more"),
        (["--parts", " ,"], "--parts: it is empty; give at least one word"),
        (["--access", "secret"], "--access: number 1 of them is not KEY=VALUE"),
        (["--access", "a=1", "--access", "a=2"], "--access: a is given twice"),
        (["--new", "a=b,a=c"], "--new: 'a=c' is not OLD=NEW, or occurs twice"),
    ],
)
def test_a_value_that_the_dataclass_does_not_allow_is_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        given_by(*arguments)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("kind", "Which kind.  [default: a]"),
        ("count", "How many.  [default: all]"),
        ("loud", "Say more."),
        ("mixed", "Mix.  [default: mixed]"),
        ("sides", "Which sides.  [default: 3,4; at least 2]"),
        ("share", "Which part.  [default: 0.5; 0 to 1]"),
    ],
)
def test_the_help_has_the_default_and_the_limits(name: str, text: str) -> None:
    assert help_text({option.name: option for option in options_of(Outer)}[name]) == text


def test_the_command_and_its_configuration_file_have_every_option_of_pack() -> None:
    names = {option.name for option in options_of(PackSettings)} | {"address", "dry_run"}
    assert set(settings(command)) == names
    shown = {param.name: param.help for param in command.params if isinstance(param, click.Option)}
    assert {option.name: help_text(option) for option in options_of(PackSettings)}.items() <= shown.items()


def test_the_example_and_the_tables_are_those_of_the_options() -> None:
    """`python scripts/options.py` writes them."""
    script = runpy.run_path(str(SCRIPT))
    assert script["YAML"].read_text("utf-8") == script["yaml_text"]()
    assert script["PACKING"].read_text("utf-8") == script["packing_text"]()
    assert script["PAGE"].read_text("utf-8") == script["page_text"]()
