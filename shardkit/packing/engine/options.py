"""A user's choice of the engine that writes the shards. This module loads no engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from shardkit.errors import UsageError
from shardkit.options.keywords import cure_of_choice, named_fields
from shardkit.options.old_keywords import Moved, spell

EngineName = Literal["local", "ray"]
ENGINE_NAMES: tuple[EngineName, ...] = get_args(EngineName)


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """A user's choice of an engine. Raises UsageError for invalid values.

    workers: concurrent tasks; None for as many as there are cores. address: of a cluster. threads: of this process
    write what needs no Python; see `LocalEngine`.
    """

    name: EngineName = "local"
    workers: int | None = None
    address: str | None = None
    threads: bool = False

    def __post_init__(self) -> None:
        if self.name not in ENGINE_NAMES:
            cure = cure_of_choice("engine", self.name, ENGINE_NAMES)
            raise UsageError("engine", f"{self.name!r} is not one of {', '.join(ENGINE_NAMES)}", cure)
        if self.workers is not None and self.workers < 1:
            raise UsageError("workers", f"{self.workers} is too small", "give at least 1")
        if self.address is not None and self.name == "local":
            raise UsageError("address", "only a cluster has an address, and the engine is local", 'add `engine="ray"`')


@named_fields
@dataclass(frozen=True, slots=True)
class Ray:
    """A Ray cluster, for `engine=`. address: "HOST:PORT" or "auto".

    None: the address in RAY_ADDRESS; if that is not set, Ray is started on this machine for the run.
    """

    address: str | None = None


EngineLike = Literal["local"] | Ray


def engine_options(engine: EngineLike, workers: int | None = None) -> EngineOptions:
    """The options for what a user gave as `engine`. Raises UsageError."""
    if isinstance(engine, Ray):
        return EngineOptions("ray", workers, engine.address)
    return EngineOptions(engine, workers)


def engine_of(name: EngineName, address: str | None) -> EngineLike:
    """The engine for a name and an address, as given on a command line. Raises UsageError."""
    options = EngineOptions(name, None, address)
    return Ray(options.address) if options.name == "ray" else "local"


def move_engine(kwargs: dict[str, Any]) -> Moved | None:
    """Convert the old keyword arguments `engine="ray", address=…` to `engine=shardkit.Ray(…)`."""
    if kwargs.get("engine") != "ray" and "address" not in kwargs:
        return None
    given: dict[str, Any] = {name: kwargs.pop(name) for name in ("engine", "address") if name in kwargs}
    if isinstance(given.get("engine"), Ray):
        raise UsageError("address", "given together with engine=shardkit.Ray(…)", "pass it to Ray")
    engine = kwargs["engine"] = engine_of(given.get("engine", "local"), given.get("address"))
    address = repr(engine.address) if isinstance(engine, Ray) and engine.address is not None else ""
    return Moved(spell(given), f"engine=shardkit.Ray({address})" if isinstance(engine, Ray) else 'engine="local"')
