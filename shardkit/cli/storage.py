"""The option of all commands that reach a bucket: `--storage-option key=value`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import click

from shardkit.errors import UsageError, printable

_F = TypeVar("_F", bound=Callable[..., Any])


def storage_options(function: _F) -> _F:
    """Add `--storage-option` to a command, which gives it `storage_options`: a dict, or None."""
    option = click.option(
        "--storage-option",
        "storage_options",
        multiple=True,
        callback=lambda _, param, value: parsed(value, place=param.opts[0]),
        metavar="KEY=VALUE",
        help="Option of the bucket: endpoint, region, credentials; repeatable.",
    )
    return option(function)


def parsed(pairs: Iterable[str], *, place: str) -> dict[str, str] | None:
    """The options of `key=value` texts; None for none. UsageError without their values, which may be secret."""
    found: dict[str, str] = {}
    for number, text in enumerate(pairs, 1):
        key, equals, value = text.partition("=")
        key = key.strip()
        if not key or not equals:
            raise UsageError(place, f"number {number} of them is not KEY=VALUE", "write it as region=eu-west-1")
        if key in found:
            raise UsageError(place, f"{printable(key)} is given twice", "leave one of them out")
        found[key] = value.strip()
    return found or None
