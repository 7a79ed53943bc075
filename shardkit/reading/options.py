"""How a dataset is read: the options that `dataset()` takes, checked once."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from shardkit.config import parse_bytes
from shardkit.errors import UsageError
from shardkit.reading.fields import FIELD_DECODERS
from shardkit.reading.ranks import find_rank
from shardkit.reading.share import Remainder
from shardkit.storage.retry import Retry

DEFAULT_BUFFER = 10_000
"""The shuffle buffer for shuffle=True, in samples."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How a dataset is read. Raises UsageError for values that make no sense. None: found out when it is read."""

    buffer: int = 0
    seed: int = 0
    lanes: int | None = None
    rank: int | None = None
    world_size: int | None = None
    remainder: Remainder | None = None
    threads: int | None = None
    ahead: int | None = None
    decoders: Mapping[str, Callable[[bytes], Any]] = field(default_factory=lambda: FIELD_DECODERS)
    turns: int | None = 1
    """Epochs in one iteration; None for no end."""
    epoch_size: int | None = None
    """Items of an epoch that goes on where the last one stopped; None for the dataset's own epochs."""

    def __post_init__(self) -> None:
        at_least("shuffle", self.buffer, 0)
        at_least("seed", self.seed, 0)
        for name in ("lanes", "threads", "ahead", "turns", "epoch_size"):
            if getattr(self, name) is not None:
                at_least(name, getattr(self, name), 1)
        if self.rank is not None or self.world_size is not None:
            find_rank(self.rank, self.world_size)
        if self.remainder not in (None, "drop", "pad", "uneven"):
            raise UsageError("remainder", f"{self.remainder!r} is not one of drop, pad, uneven", "choose one of these")


AHEAD_BYTES = 2 << 30
"""What may wait in memory of a store's bytes, if nothing else is said: 10,000 shuffled images of 200 kB."""
TIMEOUT_SECONDS = Retry().total_seconds


@dataclass(frozen=True, slots=True)
class Remote:
    """How objects of a store are read; for local files none of it counts. Pickled, it holds the storage options.

    storage_options: credentials, endpoint and the like. cache: the folder for local copies, of at most cache_bytes
    (None: no limit). ahead_bytes: samples that were asked for and not yet used, in bytes. timeout_seconds: how long one
    operation may go on, with all its attempts. Raises UsageError for values that make no sense.
    """

    storage_options: Mapping[str, Any] | None = field(default=None, repr=False)
    cache: str | None = None
    cache_bytes: int | None = None
    ahead_bytes: int = AHEAD_BYTES
    timeout_seconds: float = TIMEOUT_SECONDS

    def __post_init__(self) -> None:
        options, seconds = self.storage_options, self.timeout_seconds
        if options is not None and not (isinstance(options, Mapping) and all(isinstance(key, str) for key in options)):
            fact = f"{type(options).__name__} is not a dict of options by name"
            raise UsageError("storage_options", fact, 'give a dict such as {"region": "eu-west-1"}')
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds < float("inf"):
            raise UsageError("timeout_seconds", f"{seconds!r} is no number above 0", "give seconds")
        if self.cache_bytes is not None and self.cache is None:
            raise UsageError("cache_bytes", "it is given without cache", "give cache= too, the folder of the copies")

    @property
    def retry(self) -> Retry:
        """When to try again, and for how long."""
        return Retry(total_seconds=self.timeout_seconds)


def remote_of(
    storage_options: Mapping[str, Any] | None,
    cache: str | os.PathLike[str] | None,
    cache_bytes: int | str | None,
    ahead_bytes: int | str | None,
    timeout_seconds: float | None,
) -> Remote:
    """The Remote that a user's options mean. Sizes may be text such as "200GB"; None is the default."""
    return Remote(
        storage_options,
        None if cache is None else os.path.abspath(os.path.expanduser(os.fspath(cache))),
        None if cache_bytes is None else parse_bytes(cache_bytes, place="cache_bytes"),
        AHEAD_BYTES if ahead_bytes is None else parse_bytes(ahead_bytes, place="ahead_bytes"),
        TIMEOUT_SECONDS if timeout_seconds is None else timeout_seconds,
    )


def at_least(name: str, value: object, least: int) -> int:
    """`value` as an int. Raises UsageError for what is not a whole number from `least` on."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise UsageError(name, f"{value!r} is not a whole number from {least} on", "give such a number")
    return int(value)


def callable_of(name: str, fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`fn`. Raises UsageError for what can't be called."""
    if not callable(fn):
        raise UsageError(name, f"{fn!r} can't be called", "give a function of one item")
    return fn


def buffer_size(shuffle: bool | int) -> int:
    """The samples of the shuffle buffer that a user means."""
    if isinstance(shuffle, bool):
        return DEFAULT_BUFFER if shuffle else 0
    return at_least("shuffle", shuffle, 0)
