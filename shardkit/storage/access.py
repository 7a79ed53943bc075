"""Options for accessing a store: credentials, cache, time and memory limits."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from shardkit.errors import UsageError
from shardkit.storage.retry import Retry
from shardkit.units import parse_bytes

AHEAD_BYTES = 2 << 30
"""The default limit on prefetched bytes in memory: enough for 10,000 shuffled images of 200 kB."""


TIMEOUT_SECONDS = Retry().total_seconds


@dataclass(frozen=True, slots=True)
class Remote:
    """Options for reading the objects of a store; local files ignore them. A pickle contains the storage options.

    storage_options: credentials, endpoint and the like. cache: the folder for local copies, of at most cache_bytes
    (None: no limit). ahead_bytes: limit on the bytes of samples requested but not yet used. timeout_seconds: limit on
    one operation, retries included. shared: whether the processes of this machine share what they fetch, see `sharing`.
    Raises UsageError for invalid values.
    """

    storage_options: Mapping[str, Any] | None = field(default=None, repr=False)
    cache: str | None = None
    cache_bytes: int | None = None
    ahead_bytes: int = AHEAD_BYTES
    timeout_seconds: float = TIMEOUT_SECONDS
    shared: bool | str | None = None

    def __post_init__(self) -> None:
        options, seconds = self.storage_options, self.timeout_seconds
        if options is not None and not (isinstance(options, Mapping) and all(isinstance(key, str) for key in options)):
            fact = f"{type(options).__name__} is not a dict of options by name"
            raise UsageError("storage_options", fact, 'give a dict such as {"region": "eu-west-1"}')
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds < float("inf"):
            raise UsageError("timeout_seconds", f"{seconds!r} is not a number above 0", "give seconds")
        if self.cache_bytes is not None and self.cache is None:
            raise UsageError("cache_bytes", "it is given without cache", "give cache= too, the folder for the copies")


def remote_of(
    storage_options: Mapping[str, Any] | None,
    cache: str | os.PathLike[str] | None,
    cache_bytes: int | str | None,
    ahead_bytes: int | str | None,
    timeout_seconds: float | None,
    shared: bool | str | None = None,
) -> Remote:
    """Build a Remote from a user's options. Sizes may be text such as "200GB"; None means the default."""
    return Remote(
        storage_options,
        None if cache is None else os.path.abspath(os.path.expanduser(os.fspath(cache))),
        None if cache_bytes is None else parse_bytes(cache_bytes, place="cache_bytes"),
        AHEAD_BYTES if ahead_bytes is None else parse_bytes(ahead_bytes, place="ahead_bytes"),
        TIMEOUT_SECONDS if timeout_seconds is None else timeout_seconds,
        shared,
    )


def sharing(shared: bool | str | os.PathLike[str] | None) -> bool | str | None:
    """The option `shared`: True for the processes of this user on this machine, a folder (str) for all that can use it,
    None for the workers of one loader, False for none. UsageError for anything else."""
    if shared is None or isinstance(shared, bool):
        return shared
    if not isinstance(shared, (str, os.PathLike)) or not os.fspath(shared):
        fact = f"{shared!r} is neither True or False nor a folder"
        raise UsageError("shared", fact, "give True, or the path of a folder that all processes can use")
    return os.path.abspath(os.path.expanduser(os.fspath(shared)))
