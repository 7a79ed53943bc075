"""The option `pack_to` of `dataset()`: where to pack to, and how."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shardkit.errors import UsageError
from shardkit.location import locate
from shardkit.options.keywords import closest
from shardkit.packing.settings import PackSettings

OPTIONS = ("format", "max_bytes", "max_count", "seed", "classes", "classes_from", "ext", "check", "on_error", "work")
"""The options of `pack` that may be given. The others would change what the first epoch reads, or who packs."""


@dataclass(frozen=True)
class PackTo:
    """A packing: of the class tree `source`, to `dest`, as `pack` would do it with these settings."""

    source: str
    dest: str
    settings: PackSettings

    def command(self, **more: Any) -> str:
        """The call of `pack` that makes the same shards, for messages."""
        return f"shardkit.pack({self.source!r}, {self.dest!r}{''.join(f', {key}={more[key]!r}' for key in more)})"


def pack_to_of(source: object, given: object, storage_options: Mapping[str, Any] | None) -> PackTo:
    """What the user asks for. given: a destination, or a dict of `dest` and OPTIONS. UsageError."""
    if not isinstance(source, (str, os.PathLike)) or not locate(source).is_local:
        fact = "what is packed while it is read is one folder of class folders on this machine"
        raise UsageError("pack_to", fact, "give `source` as such a folder, or use `pack`")
    asked: dict[str, Any] = dict(given) if isinstance(given, Mapping) else {"dest": given}
    dest = asked.pop("dest", None)
    if not isinstance(dest, (str, os.PathLike)):
        cure = 'give a prefix such as "shards/train", or {"dest": "shards/train", "max_bytes": "64MB"}'
        raise UsageError("pack_to", f"{given!r} names no destination", cure)
    for name in asked:
        if name not in OPTIONS:
            meant = closest(str(name), OPTIONS)
            fact = f"{name!r} is not an option of a packing that goes on while the tree is read"
            cure = f"did you mean {meant!r}?" if meant else f"give dest and {', '.join(OPTIONS)} only, or use `pack`"
            raise UsageError("pack_to", fact, cure)
    options = None if locate(dest).is_local else storage_options
    settings = PackSettings(**asked, storage_options=options)
    return PackTo(os.fspath(source), os.fspath(dest), settings)
