"""The options of commands whose work may run on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

_F = TypeVar("_F", bound=Callable[..., Any])


def with_engine(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with `engine` as functions take it: what --engine and --address say together."""
    from shardkit.packing.engine.engine import engine_of

    others = {name: value for name, value in options.items() if name != "address"}
    return others | {"engine": engine_of(options["engine"], options["address"])}


def engine_options(function: _F) -> _F:
    """Add --engine and --address to a command."""
    kinds = click.Choice(["local", "ray"])
    text = "Run local processes, or tasks of a Ray cluster."
    where = "Address of the Ray cluster; otherwise Ray runs locally."
    function = click.option("--address", metavar="HOST:PORT", help=where)(function)
    return click.option("--engine", type=kinds, default="local", show_default=True, help=text)(function)
