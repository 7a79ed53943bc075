"""Where the work of a command runs, as functions take it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def with_engine(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with `engine` as functions expect it, from --engine and --address."""
    from shardkit.packing.engine.options import engine_of

    others = {name: value for name, value in options.items() if name != "address"}
    return others | {"engine": engine_of(options["engine"], options["address"])}
