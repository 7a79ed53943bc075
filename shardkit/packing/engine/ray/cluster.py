"""Call functions on the nodes of a Ray cluster, or on a Ray that is started on this machine for this run.

A call whose worker or node was lost is repeated, so it must be safe to repeat. That is decided here and not by Ray,
which would retry forever when memory runs out. Arguments and results are bytes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import Any

import msgspec
from msgspec.structs import replace

from shardkit import errors
from shardkit.errors import MissingExtraError, WorkerError, installs, printable
from shardkit.packing.engine.ray.address import require_reachable
from shardkit.units import cores

log = logging.getLogger(__name__)

RETRIES, MEMORY_RETRIES = 8, 3
"""How often to repeat a call whose worker or node was lost, or that did not fit into its node's memory."""

_WAITING = 4
"""Calls that wait besides those that run: enough to keep every CPU busy, and to make an autoscaler add nodes."""
_COUNT_SECONDS = 5.0
_END_SECONDS = 20.0
_STORE_BYTES = 256 << 20
"""The object store of a Ray on this machine: it holds tasks (60 bytes per file), not samples."""
_AGAIN = "run the same command again: finished shards are kept"


class Call(msgspec.Struct, frozen=True):
    """A call of `function` ("module:name"). name: for messages. about: for the caller."""

    name: str
    function: str
    args: tuple[bytes, ...]
    about: Any
    losses: int = 0
    memory_losses: int = 0

    def after(self, exc: Exception, kinds: Any) -> Call | None:
        """The next attempt after this error of Ray; None if another attempt is useless."""
        if isinstance(exc, kinds.OutOfMemoryError):
            return replace(self, memory_losses=self.memory_losses + 1) if self.memory_losses < MEMORY_RETRIES else None
        lost = (kinds.WorkerCrashedError, kinds.NodeDiedError, kinds.LocalRayletDiedError, kinds.ObjectLostError)
        return replace(self, losses=self.losses + 1) if isinstance(exc, lost) and self.losses < RETRIES else None


class Cluster:
    """A connection to Ray. workers: the limit of concurrent calls; None for as many as the cluster has CPUs.

    address: `HOST:PORT` or "auto" for a running cluster; None for RAY_ADDRESS, or else a Ray on this machine. Raises
    MissingExtraError, UsageError, WorkerError.
    """

    def __init__(self, workers: int | None, address: str | None) -> None:
        self.workers = workers
        self.ray, self.owned, self._level = _connected(workers, address)
        self._call = self.ray.remote(num_cpus=1, max_retries=0, scheduling_strategy="SPREAD")(_caller())
        self._room, self._counted = 0, -_COUNT_SECONDS

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Disconnect from the cluster, or end the Ray that was started."""
        if self.owned:
            self.ray.shutdown()
        logging.getLogger("ray").setLevel(self._level)

    def results(self, calls: Iterator[Call], again: deque[Call]) -> Generator[tuple[Call, bytes], None, None]:
        """Each call with its result, in the order in which they finish; a few calls are queued ahead.

        again: calls that the caller adds to it are made before all others. WorkerError for a call that is given up.
        """
        waiting: dict[Any, Call] = {}
        try:
            while True:
                while len(waiting) < self._wanted() and (call := again.popleft() if again else next(calls, None)):
                    waiting[self._call.remote(call.function, *call.args)] = call
                if not waiting:
                    return
                for ref in self.ray.wait(list(waiting), num_returns=1, timeout=_COUNT_SECONDS)[0]:
                    call = waiting.pop(ref)
                    try:
                        result: bytes = self.ray.get(ref)
                    except self.ray.exceptions.RayError as exc:
                        again.append(self._next_try(call, exc))
                    else:
                        yield call, result
        finally:
            self._end(list(waiting))

    def _next_try(self, call: Call, exc: Exception) -> Call:
        following = call.after(exc, self.ray.exceptions)
        if following is None:
            raise _given_up(exc, call, self.ray.exceptions) from exc
        log.warning("%s: its worker was lost (%s); running it again", call.name, type(exc).__name__)
        return following

    def _wanted(self) -> int:
        """The number of calls that may run or wait. A cluster may grow and shrink meanwhile."""
        if self.workers is not None:
            return self.workers
        if time.monotonic() - self._counted >= _COUNT_SECONDS:
            self._counted = time.monotonic()
            self._room = int(self.ray.cluster_resources().get("CPU", 0)) + _WAITING
        return self._room

    def _end(self, waiting: list[Any]) -> None:
        """Cancel running calls and wait until they have ended, so that they write nothing more."""
        if not waiting or not self.ray.is_initialized():
            return
        with contextlib.suppress(self.ray.exceptions.RayError):
            for ref in waiting:
                self.ray.cancel(ref, force=True)
            self.ray.wait(waiting, num_returns=len(waiting), timeout=_END_SECONDS)


def _caller() -> Callable[..., bytes]:
    """The function that a node runs: it calls the named one, even if shardkit is not on the path of the node's Python.

    A nested function, so that Ray sends it by value.
    """
    home = os.path.dirname(os.path.dirname(os.path.abspath(errors.__file__)))

    def shardkit_task(function: str, *args: bytes) -> bytes:
        import importlib
        import sys

        if home not in sys.path:
            sys.path.append(home)
        module, _, name = function.partition(":")
        result: bytes = getattr(importlib.import_module(module), name)(*args)
        return result

    return shardkit_task


def _connected(workers: int | None, address: str | None) -> tuple[Any, bool, int]:
    """(Ray, whether it was started or joined here, the previous level of its log)."""
    try:
        import ray
    except ImportError as exc:
        raise MissingExtraError("engine", "Ray is not installed", installs("ray")) from exc
    level = logging.getLogger("ray").level
    if ray.is_initialized():
        log.debug("this process is already part of a Ray cluster, which is used")
        return ray, False, level
    given = address or os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
    if given:
        require_reachable(given)
    else:
        options |= {"num_cpus": workers or cores(), "include_dashboard": False, "object_store_memory": _STORE_BYTES}
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        ray.init(address=given or "local", **options)
    except (ConnectionError, TimeoutError, RuntimeError, ValueError, OSError, ray.exceptions.RayError) as exc:
        logging.getLogger("ray").setLevel(level)
        fact = f"Ray can't be {'reached' if given else 'started'} ({printable(str(exc).strip())})"
        raise WorkerError(given or "ray", fact, "check `address`" if given else 'use `engine="local"`') from exc
    return ray, True, level


def _given_up(exc: Exception, call: Call, kinds: Any) -> WorkerError:
    """The error for a call that could not start, or was lost too often."""
    reason = printable(([*str(exc).strip().splitlines()] or [type(exc).__name__])[-1])
    if isinstance(exc, kinds.OutOfMemoryError):
        fact = f"the node that ran it ran out of memory, {call.memory_losses + 1} times"
        cure = f"use fewer `workers`, smaller shards, or nodes with more memory; then {_AGAIN}"
    elif call.losses:
        fact = f"the process that ran it was lost {call.losses + 1} times ({type(exc).__name__})"
        cure = f"look at the cluster's log, then {_AGAIN}"
    elif isinstance(exc, kinds.RayTaskError):
        fact = f"a node could not start the task ({reason})"
        cure = "install shardkit and what it needs, in the same versions, on all nodes"
    else:
        fact, cure = f"Ray gave up the task ({reason})", f"look at the cluster's log, then {_AGAIN}"
    return WorkerError(call.name, fact, cure)
