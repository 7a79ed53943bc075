"""Replace the parameter names in the library's messages by command-line flags.

A message names a parameter in backquotes: `overwrite=True`, `on_error="skip"`, `classes`. The running command knows its
flags, so that stderr shows --overwrite, --on-error skip, --classes.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
from collections.abc import Sequence

import click

from shardkit.errors import ShardkitError, UsageError

_RELATIVE = re.compile(r"(?!-|~|[\w+.-]+://)[^/\\\0][^\0]*\Z")
"""An argument that may be a relative path."""
_PARAMETER = re.compile(r"`([a-z][a-z_]*)(?:=([^`]*))?`")


class Flags:
    """The flags of the running command. arguments: its command line.

    origins: where the values of options come from that the command line does not give: a line of a configuration file,
    or an environment variable. alone: the process ends with the command.
    """

    def __init__(self, arguments: Sequence[str] = (), *, alone: bool = False) -> None:
        self.arguments = frozenset(arguments)
        self.parameters: dict[str, click.Parameter] = {}
        self.origins: dict[str, str] = {}
        self.alone = alone

    def use(self, command: click.Command) -> None:
        """Use the flags of `command` from now on."""
        self.parameters = {parameter.name: parameter for parameter in command.params if parameter.name}

    def spelled(self, text: str) -> str:
        """Replace parameters in `text` by flags, and paths by the relative ones that were typed.

        Parameters that the command does not have are left unchanged.
        """
        return self.as_typed(_PARAMETER.sub(self._flag, text))

    def as_typed(self, text: str) -> str:
        """Replace absolute paths in `text` that begin with an argument of the command line by that argument. If the
        working directory has been removed, no path is relative to it.
        """
        try:
            os.getcwd()
        except FileNotFoundError:
            return text
        for argument in sorted(self.arguments, key=len, reverse=True):
            if _RELATIVE.match(argument) and (whole := os.path.abspath(argument)) != os.sep:
                end = r"(?=[/:;, ]|$)" if argument.strip("./") == "" else ""
                typed = (argument.rstrip("/") or ".").replace("\\", r"\\")
                text = re.sub(rf"(?<![\w./-]){re.escape(whole)}{end}", typed, text)
        return text

    def error_text(self, error: ShardkitError) -> str:
        """The message of an error. The place of a UsageError is often a parameter, unless the user gave a path of that
        name; then it is where the value comes from.
        """
        text = str(error)
        if isinstance(error, UsageError) and error.place in self.parameters and error.place not in self.arguments:
            origin = self.origins.get(error.place) or _flag_of(self.parameters[error.place])
            text = origin + text.removeprefix(error.place)
        return self.spelled(text)

    def _flag(self, named: re.Match[str]) -> str:
        name, value = named[1], named[2]
        parameter = self.parameters.get(name)
        if parameter is None:
            return named[0]
        if value is None:
            return _flag_of(parameter)
        if isinstance(parameter, click.Option) and parameter.is_flag:
            flags = {"True": parameter.opts, "False": parameter.secondary_opts}.get(value)
            return flags[0] if flags else named[0]
        return f"{_flag_of(parameter)} {_word(value)}"


def _flag_of(parameter: click.Parameter) -> str:
    return parameter.opts[0] if isinstance(parameter, click.Option) else parameter.human_readable_name


def _word(value: str) -> str:
    """Convert a Python value to a shell word: `"skip"` to skip, `["a", "b"]` to a,b; others are unchanged."""
    try:
        plain = ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value
    return shlex.quote(",".join(map(str, plain)) if isinstance(plain, list) else str(plain))
