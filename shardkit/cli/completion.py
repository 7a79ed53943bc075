"""`shardkit completion`: print the script for shell completion of commands, options and files."""

from __future__ import annotations

from typing import Any

import click
from click.shell_completion import CompletionItem, get_completion_class, shell_complete

from shardkit.cli import console
from shardkit.cli.click_options import Choice, Json, options_from
from shardkit.cli.command import Command
from shardkit.errors import UsageError
from shardkit.options.keywords import closest

VARIABLE = "_SHARDKIT_COMPLETE"
"""The environment variable with which a shell requests completions."""

SHELLS = ("bash", "zsh", "fish")


@click.command(cls=Command, name="completion", short_help="Print the completion script for a shell.")
@click.argument("shell", type=Choice(SHELLS))
@options_from(Json)
@console.output_options
def command(shell: str, as_json: bool) -> None:
    """Print the script with which SHELL completes commands, options and files. Store it where the shell looks for it.

    \b
    shardkit completion bash > ~/.local/share/bash-completion/completions/shardkit
    shardkit completion zsh  > ~/.zfunc/_shardkit         with  fpath+=~/.zfunc  before compinit in ~/.zshrc
    shardkit completion fish > ~/.config/fish/completions/shardkit.fish
    """
    if shell not in SHELLS:
        close = closest(shell, SHELLS)
        cure = f"did you mean {close}?" if close else "choose one of these"
        raise UsageError("SHELL", f"{shell!r} is not one of {', '.join(SHELLS)}", cure)
    text = script(shell)
    if as_json:
        console.write_json({"shell": shell, "script": text})
    else:
        console.write(text)


def script(shell: str) -> str:
    """The completion script of a shell."""
    found: Any = get_completion_class(shell)
    assert found is not None
    maker = found(click.Command("shardkit"), {}, "shardkit", VARIABLE)
    text: str = maker.source_template % maker.source_vars()
    return text.strip()


def complete(group: click.Group, instruction: str) -> int:
    """Answer a shell's request for completions, and return the exit code."""
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        for param in found.params if found is not None else ():
            _complete_files(param)
    return shell_complete(group, {}, "shardkit", VARIABLE, instruction)


def _complete_files(param: click.Parameter) -> None:
    """Complete arguments and options that are locations as files: to click they are plain text."""
    place = isinstance(param, click.Argument) or param.metavar in ("SOURCE", "FILE", "MANIFEST", "DEST")
    if place and type(param.type) is type(click.STRING):
        param._custom_shell_complete = lambda ctx, param, incomplete: [CompletionItem(incomplete, type="file")]
