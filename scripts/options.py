#!/usr/bin/env python3
"""Writes what follows from the options of `pack`: `configs/pack.yaml`, and the table in `docs/packing.md`.

python scripts/options.py        write both; `tests/cli/test_click_options.py` compares them
"""

from __future__ import annotations

import textwrap
from pathlib import Path

import click

from shardkit.cli.pack import command, settings
from shardkit.options.fields import OptionField, options_of
from shardkit.packing.settings import PackSettings

ROOT = Path(__file__).parent.parent
YAML, PAGE = ROOT / "configs" / "pack.yaml", ROOT / "docs" / "packing.md"
BEGIN, END = "<!-- The table is written by scripts/options.py. -->\n", "<!-- End of the table. -->\n"
WIDTH = 120

HEAD = """\
# Every option of `shardkit pack`, at its default. Written by scripts/options.py from `PackSettings`. Use it with
#
#     shardkit pack data/train shards/train --config pack.yaml
#
# An option on the command line wins over the one here; a line may be omitted, and a key without a value
# (`workers:`) means the default. Sizes: MB is 10⁶ bytes and MiB is 2²⁰.
"""


def with_address(options: list[OptionField]) -> list[tuple[str, str, str]]:
    """(name, value, comment) of each key of the file: `engine` has its address beside it, `overwrite` the dry run."""
    found = []
    for option in options:
        value = "" if option.default is None else str(option.default)
        found.append((option.name, value.lower() if option.kind == "bool" else value, option.about))
        if option.name == "engine":
            found.append(("address", "", ""))
        if option.name == "overwrite":
            found.append(("dry_run", "false", "Print the plan and write nothing."))
    return found


def yaml_text() -> str:
    """The text of configs/pack.yaml."""
    lines = [HEAD]
    for name, value, about in with_address(options_of(PackSettings)):
        if about:
            lines += ["\n", *(f"# {line}\n" for line in textwrap.wrap(about, WIDTH - 2, break_on_hyphens=False))]
        lines.append(f"{name}: {value}".rstrip() + "\n")
    return "".join(lines)


def row_of(option: click.Option) -> str:
    """A row of the table."""
    flag = "/".join([*option.opts, *option.secondary_opts])
    text, _, by_words = str(option.help).partition("  [default: ")
    default = f"`{option.default}`" if option.show_default and not option.secondary_opts else by_words.rstrip("]")
    value = f" {option.metavar}" if option.metavar else ""
    if isinstance(option.type, click.Choice):
        value = f" {', '.join(map(str, option.type.choices))}"
    cells = [f"`{flag}{value}`", default or ("on" if option.default is True else ""), text]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def table() -> str:
    """The table of docs/packing.md."""
    names = settings(command)
    options = [param for param in command.params if isinstance(param, click.Option) and param.name in names]
    return "".join(["| Option | Default | What it does |\n", "|---|---|---|\n", *map(row_of, options)])


def page_text() -> str:
    """The text of docs/packing.md with the table of today."""
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    return before + BEGIN + table() + END + rest.partition(END)[2]


if __name__ == "__main__":
    YAML.write_text(yaml_text(), "utf-8")
    PAGE.write_text(page_text(), "utf-8")
