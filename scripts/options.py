#!/usr/bin/env python3
"""Writes what follows from the options of the commands: `configs/pack.yaml`, and the tables in `docs/`.

python scripts/options.py        write all of it; `tests/cli/test_click_options.py` compares
"""

from __future__ import annotations

import textwrap
from pathlib import Path

import click

from shardkit.cli.click_options import FieldOption, default_text, flag_of, limits_text, variable_of
from shardkit.cli.main import COMMANDS, cli
from shardkit.cli.pack import command as pack_command
from shardkit.cli.pack import config_options
from shardkit.options.fields import OptionField

ROOT = Path(__file__).parent.parent
YAML, PACKING, PAGE = ROOT / "configs" / "pack.yaml", ROOT / "docs" / "packing.md", ROOT / "docs" / "commands.md"
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

TOP = """\
# Commands and their options

<!-- This page is written by scripts/options.py. -->

`shardkit help COMMAND` shows the same with examples. From Python, an option is the keyword argument of the same name
(`--max-count 100` is `max_count=100`), or of its plural where it is repeatable (`--class cat` is `classes=["cat"]`).
`--threads N` and `--transfers N` are `workers=N` there, and `upload --verify` is `check=`. A value that is not allowed
is a `UsageError` there, and exit code 2 here, with the option, the value and what is allowed.

Every command takes `-v` (`--verbose`) for more messages, `-q` (`--quiet`) for none but errors and what is asked for
(the result of `info`, the findings of `verify`, `--json`), `--debug` for tracebacks of errors, and `-h` (`--help`).
Sizes: MB is 10⁶ bytes and MiB is 2²⁰.

## Environment variables

Options that depend on the machine more than on the data can be set for all commands. An option on the command line wins
over its variable, and the variable over a configuration file.

| Variable | Option |
|---|---|
{variables}
`SHARDKIT_STORAGE_OPTIONS` holds pairs with spaces between them: `endpoint=http://10.0.0.1:9000 region=eu-west-1`. It
and `SHARDKIT_WORK` apply to commands that name a bucket.
"""


def yaml_text() -> str:
    """The text of configs/pack.yaml."""
    lines = [HEAD]
    for option in config_options(pack_command):
        if option.about:
            wrapped = textwrap.wrap(option.about, WIDTH - 2, break_on_hyphens=False)
            lines += ["\n", *(f"# {line}\n" for line in wrapped)]
        value = "" if option.default is None else str(option.default)
        lines.append(f"{option.name}: {value.lower() if option.kind == 'bool' else value}".rstrip() + "\n")
    return "".join(lines)


def row_of(option: OptionField) -> str:
    """A row of a table."""
    value = ", ".join(option.choices or option.words) or option.help.metavar or ""
    default = default_text(option)
    default = "on" if option.default is True else f"`{default}`" if default != option.help.unset else default
    limits = limits_text(option)
    text = f"{option.help.text.rstrip('.')} ({limits})." if limits else option.help.text
    cells = [f"`{flag_of(option)} {value}`".replace(" `", "`"), default, text]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def table(command: click.Command) -> str:
    """The options of a command as a table; "" where it has none of its own."""
    options = [param.field for param in command.params if isinstance(param, FieldOption)]
    head = ["| Option | Default | What it does |\n", "|---|---|---|\n"]
    return "".join([*head, *map(row_of, options)]) if options else ""


def packing_text() -> str:
    """The text of docs/packing.md with the table of today."""
    before, _, rest = PACKING.read_text("utf-8").partition(BEGIN)
    return before + BEGIN + table(pack_command) + END + rest.partition(END)[2]


def variables_text(context: click.Context) -> str:
    """The environment variables and their options, a row each."""
    commands = [cli.get_command(context, name) for name in COMMANDS]
    options = [p.field for command in commands if command for p in command.params if isinstance(p, FieldOption)]
    found = {variable_of(option): f"`{flag_of(option)}`" for option in options if variable_of(option)}
    return "".join(f"| `{variable}` | {flag} |\n" for variable, flag in sorted(found.items())) + "\n"


def page_text() -> str:
    """The text of docs/commands.md."""
    context = click.Context(cli, **cli.context_settings)
    parts = [TOP.replace("{variables}\n", variables_text(context))]
    for name, (_, text) in COMMANDS.items():
        command = cli.get_command(context, name)
        assert command is not None
        usage = " ".join(part for part in command.collect_usage_pieces(context) if part != "[OPTIONS]")
        parts.append(f"\n## {name}\n\n`shardkit {name} {usage}`: {text[0].lower()}{text[1:]}\n")
        if command is pack_command:
            parts.append("\nIts options are in [packing.md](packing.md#every-option).\n")
        elif found := table(command):
            parts.append(f"\n{found}")
    return "".join(parts)


if __name__ == "__main__":
    YAML.write_text(yaml_text(), "utf-8")
    PACKING.write_text(packing_text(), "utf-8")
    PAGE.write_text(page_text(), "utf-8")
