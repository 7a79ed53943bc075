"""Options of commands from the fields of a dataclass, and what is written from them."""

from __future__ import annotations

import runpy
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import click
import pytest
from click.testing import CliRunner

from shardkit.cli.click_options import options_from
from shardkit.cli.pack import command, settings
from shardkit.options.fields import About, AtLeast, Help, OptionField, Takes, options_of
from shardkit.packing.settings import PackSettings

SCRIPT = Path(__file__).parents[2] / "scripts" / "options.py"


@dataclass(frozen=True)
class Inner:
    depth: Annotated[int, Help("How deep."), About("Depth.")] = 2


@dataclass(frozen=True)
class Outer:
    kind: Annotated[Literal["a", "b"], Help("Which kind.")] = "a"
    count: Annotated[int | None, AtLeast(1), Help("How many.", "N")] = None
    inner: Inner = field(default_factory=Inner)
    limit: Annotated[int | str, Takes.SIZE, Help("How large.", "SIZE")] = "1MB"
    parts: Annotated[list[str] | None, Takes.WORDS, Help("Which parts.", "PART,...")] = None
    loud: Annotated[bool, Help("Say more.")] = False
    mixed: Annotated[bool, Help("Mix.")] = True
    name: Annotated[str | None, Help("What it is called.")] = None


def given_by(*arguments: str) -> dict[str, Any]:
    """What a command with these options is called with."""
    found: dict[str, Any] = {}

    @click.command()
    @options_from(Outer, before={"loud": click.option("--extra", is_flag=True)})
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
        "kind", "count", "depth", "limit", "parts", "loud", "mixed", "name",
    ]  # fmt: skip
    kinds = ["str", "int", "int", "size", "list", "bool", "bool", "str"]
    assert [option.kind for option in options] == kinds
    assert options[0] == OptionField("kind", "str", "a", Help("Which kind."), choices=("a", "b"))
    assert (options[1].least, options[2].about) == (1, "Depth.")


def test_a_command_has_the_defaults_of_the_dataclass() -> None:
    assert given_by() == {
        "kind": "a", "count": None, "depth": 2, "limit": 1_000_000, "parts": None, "extra": False, "loud": False,
        "mixed": True, "name": None,
    }  # fmt: skip


def test_a_command_takes_what_the_dataclass_says() -> None:
    text = "--kind b --count 3 --depth 1 --limit 2kB --parts x,y --loud --no-mixed --name n"
    given = given_by(*shlex.split(text))
    assert given == {
        "kind": "b", "count": 3, "depth": 1, "limit": 2000, "parts": ["x", "y"], "extra": False, "loud": True,
        "mixed": False, "name": "n",
    }  # fmt: skip


@pytest.mark.parametrize("arguments", [["--count", "0"], ["--kind", "c"], ["--depth", "deep"]])
def test_a_value_that_the_dataclass_does_not_allow_is_refused(arguments: list[str]) -> None:
    with pytest.raises(AssertionError, match="Invalid value"):
        given_by(*arguments)


def test_the_command_and_its_configuration_file_have_every_option_of_pack() -> None:
    names = {option.name for option in options_of(PackSettings)} | {"address", "dry_run"}
    assert set(settings(command)) == names
    shown = {param.name: param.help for param in command.params if isinstance(param, click.Option)}
    assert {option.name: option.help.text for option in options_of(PackSettings)}.items() <= shown.items()


def test_the_example_and_the_table_are_those_of_the_options() -> None:
    """`python scripts/options.py` writes them."""
    script = runpy.run_path(str(SCRIPT))
    assert script["YAML"].read_text("utf-8") == script["yaml_text"]()
    assert script["PAGE"].read_text("utf-8") == script["page_text"]()
