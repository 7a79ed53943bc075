"""The class of all commands: options in groups, old spellings, and options that environment variables give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import click
from click.core import ParameterSource

from shardkit.cli import console
from shardkit.cli.click_options import FieldOption
from shardkit.cli.flags import Flags
from shardkit.errors import UsageError

GROUPS: Mapping[str, Sequence[str]] = {
    "Source": (
        "--classes", "--classes-from", "--ext", "--fields", "--path-column", "--label-column", "--label-separator",
        "--root", "--label-from", "--merge", "--no-labels", "--rename", "--drop",
    ),
    "Splits": ("--split", "--group-by", "--group-near-duplicates"),
    "Images": (
        "--resize", "--max-side", "--to", "--quality", "--baseline", "--strip", "--orient", "--subsampling",
        "--restart-rows", "--seek-points", "--quality-columns",
    ),
    "Shards": ("--format", "--max-bytes", "--max-count", "--shuffle", "--seed"),
    "Checks": ("--check", "--on-error"),
    "Destination": ("--append", "--overwrite", "--part", "--work", "--dry-run"),
    "Run": ("--workers", "--engine", "--address", "--storage-option", "--config"),
}  # fmt: skip
"""The headings of the help of a command with many options, and the options below each."""

OTHERS = "Output"
"""The heading of the options that no group has."""
LEAST_GROUPED = 15
"""With fewer options of its own, a command lists them without headings."""


@dataclass(frozen=True, slots=True)
class Renamed:
    """What an option of a command is called now. parts: several words of the old one (`a,b`) are given one by one."""

    flag: str
    parts: bool = False


_THREADS, _TRANSFERS = {"--workers": Renamed("--threads")}, {"--workers": Renamed("--transfers")}

OLD_FLAGS: Mapping[str, Mapping[str, Renamed]] = {
    "verify": _THREADS,
    "repair": _THREADS,
    "unpack": _THREADS,
    "index": _THREADS,
    "export": _THREADS,
    "upload": {**_TRANSFERS, "--check": Renamed("--verify")},
    "download": _TRANSFERS,
    "view": {"--classes": Renamed("--class", parts=True)},
}
"""Spellings of the last release, by command. They work until the next one, with a warning."""


class Command(click.Command):
    """A command of shardkit."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Like click's, with old spellings; without what the environment says about stores if none is named."""
        words = self._renamed(args)
        try:
            left = super().parse_args(ctx, [*words])
        except click.MissingParameter as exc:
            exc.param = self._missing(ctx, exc.param, words)
            raise
        except click.UsageError as exc:
            raise self._explained(exc, words) from exc
        _omit_store_options(ctx)
        _refuse_memory(ctx)
        return left

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options below their headings."""
        groups: dict[str, list[tuple[str, str]]] = {name: [] for name in (*GROUPS, OTHERS)}
        own = sum(isinstance(param, FieldOption) for param in self.params)
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and isinstance(param, click.Option):
                groups[group_of(param) if own >= LEAST_GROUPED else OTHERS].append(record)
        for name, records in groups.items():
            if records:
                with formatter.section(name if own >= LEAST_GROUPED else "Options"):
                    formatter.write_dl(records)

    def _missing(self, ctx: click.Context, found: click.Parameter | None, words: list[str]) -> click.Parameter | None:
        """The argument that is missing: click gives a single word to the last one, but a user starts with the first."""
        arguments = [param for param in self.params if isinstance(param, click.Argument)]
        if found not in arguments:
            return found
        given, _, _ = self.make_parser(ctx).parse_args([*words])
        words_given = any(isinstance(value, (str, tuple)) and value for value in map(given.get, _names(arguments)))
        return arguments[-1] if words_given else found

    def _explained(self, exc: click.UsageError, words: list[str]) -> click.UsageError:
        """The error; for an argument too many, with the option without a value before it, and what names files."""
        if not exc.message.startswith("Got unexpected extra"):
            return exc
        options = [param for param in self.params if isinstance(param, click.Option)]
        flags = {name for option in options if option.is_flag for name in (*option.opts, *option.secondary_opts)}
        alone = sum(isinstance(param, click.Argument) for param in self.params) == 1
        for flag, word in pairwise(words):
            if flag in flags and not word.startswith("-") and (alone or exc.message.endswith(f"({word})")):
                named = "; --out names the file" if any("--out" in option.opts for option in options) else ""
                return click.UsageError(f"unexpected argument ({word}): {flag} takes no value{named}", exc.ctx)
        return exc

    def _renamed(self, args: Sequence[str]) -> list[str]:
        """The arguments with new spellings in place of old ones, of which the user is warned."""
        old = OLD_FLAGS.get(self.name or "", {})
        found: list[str] = []
        given = iter(args)
        for arg in given:
            flag, equals, value = arg.partition("=")
            if arg == "--":
                return [*found, arg, *given]
            if flag not in old:
                found.append(arg)
                continue
            new = old[flag]
            console.warn(f"{flag} is now called {new.flag}; the old name works until the next release")
            values = [value] if equals else [each for each in [next(given, None)] if each is not None]
            if new.parts:
                values = [part.strip() for each in values for part in each.split(",") if part.strip()]
            found += [word for each in values for word in (new.flag, each)] or [new.flag]
        return found


def group_of(param: click.Parameter) -> str:
    """The heading of an option in the help of its command."""
    return next((name for name, flags in GROUPS.items() if param.opts and param.opts[0] in flags), OTHERS)


def _omit_store_options(ctx: click.Context) -> None:
    """Ignore the environment's options of a bucket for a command that names none: on a disk they would be an error."""
    places = [ctx.params.get(param.name or "") for param in ctx.command.params if isinstance(param, click.Argument)]
    if any("://" in place for each in places for place in _texts(each)):
        return
    for param in ctx.command.params:
        name = param.name or ""
        if name in ("storage_options", "work") and ctx.get_parameter_source(name) is ParameterSource.ENVIRONMENT:
            ctx.params[name] = None


def _refuse_memory(ctx: click.Context) -> None:
    """UsageError for a destination in the memory of this process, which ends with the command."""
    flags, dest = ctx.find_object(Flags), ctx.params.get("dest")
    if flags and flags.alone and isinstance(dest, str) and dest.partition("://")[0].rpartition("+")[2] == "memory":
        fact = "this is in the memory of this process, and lost when the command ends"
        raise UsageError(dest, fact, "give a folder or a bucket; memory:// is for tests in Python")


def _names(params: Sequence[click.Parameter]) -> list[str]:
    return [param.name or "" for param in params]


def _texts(value: Any) -> Sequence[str]:
    return [] if value is None else [str(each) for each in value] if isinstance(value, tuple) else [str(value)]
