"""The engine "ray": each shard is one task of a Ray cluster, or of a Ray that is started for this run on this machine.

Source, destination and work folder are on storage that all nodes see under the same paths; bytes of samples do not go
through Ray. A task may be done twice, on any nodes, at the same time: it writes beside its target and renames, and both
write the same bytes. So it is done again when its worker or its node is lost. That is decided here, since Ray would try
for ever where memory runs out.

The run keeps its columns; the paths of a shard become a task when there is a CPU for it, and a few more wait.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from shardkit.config import cores
from shardkit.errors import MissingExtraError, ShardkitError, SourceError, WorkerError, printable
from shardkit.packing import ray_task, worker
from shardkit.packing.ray_address import demand_reachable
from shardkit.packing.shard import Advance, Receipt
from shardkit.packing.worker import AnyTask
from shardkit.sample import fs_text
from shardkit.storage.local import whole_file

log = logging.getLogger(__name__)

Ref = Any
"""Ray's reference to what a task gives back."""
RETRIES, MEMORY_RETRIES = 8, 3
"""How often a task is done again whose worker or node was lost, or that did not fit into its node's memory."""
MARK = b"ray.mark"

_WAITING = 4
"""Tasks that wait beside those that run: enough that no CPU is idle, and that an autoscaler sees more is wanted."""
_COUNT_SECONDS = 5.0
_END_SECONDS = 20.0
_STORE_BYTES = 256 << 20
"""The object store of a Ray on this machine: it holds tasks (60 bytes for a file), and no samples."""
_AGAIN = "run the same command again: finished shards are kept"


class RayEngine:
    """Ray, connected. workers: at most so many tasks at a time; None for as many as the cluster has CPUs.

    address: `HOST:PORT` or "auto" for a cluster that runs; None for RAY_ADDRESS, or else a Ray of this machine.
    """

    def __init__(self, workers: int | None, address: str | None) -> None:
        self.workers = workers
        self.ray, self.owned, self._level = _connected(workers, address)
        self._run = self.ray.remote(num_cpus=1, max_retries=0, scheduling_strategy="SPREAD")(_begin())
        self._room, self._counted = 0, -_COUNT_SECONDS

    def __enter__(self) -> RayEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the cluster, or end the Ray that was started."""
        if self.owned:
            self.ray.shutdown()
        logging.getLogger("ray").setLevel(self._level)

    def __call__(self, tasks: Iterable[AnyTask], advance: Advance) -> Iterator[Receipt]:
        """Write each task's shard. Raises the first error of a task, WorkerError for a node that can't do its part."""
        source, waiting = iter(tasks), dict[Ref, _Try]()
        mark: ray_task.Mark | None = None
        try:
            while True:
                while len(waiting) < self._wanted() and (task := next(source, None)) is not None:
                    mark = mark or _marked(task.folder)
                    self._submit(_Try(task, mark), waiting)
                if not waiting:
                    return
                for ref in self.ray.wait(list(waiting), num_returns=1, timeout=_COUNT_SECONDS)[0]:
                    done = waiting.pop(ref)
                    found = self._result(ref, done)
                    if isinstance(found, _Try):
                        self._submit(found, waiting)
                    else:
                        advance(*done.task.extent())
                        yield found
        finally:
            self._end(list(waiting))
            if mark is not None:
                with contextlib.suppress(OSError):
                    os.unlink(mark.path)

    def _submit(self, one: _Try, waiting: dict[Ref, _Try]) -> None:
        waiting[self._run.remote(msgspec.msgpack.encode(one.task), msgspec.msgpack.encode(one.mark))] = one

    def _wanted(self) -> int:
        """How many tasks may be under way or wait. A cluster may grow and shrink meanwhile."""
        if self.workers is not None:
            return self.workers
        if time.monotonic() - self._counted >= _COUNT_SECONDS:
            self._counted = time.monotonic()
            self._room = int(self.ray.cluster_resources().get("CPU", 0)) + _WAITING
        return self._room

    def _result(self, ref: Ref, one: _Try) -> Receipt | _Try:
        """What a task gave back; or its next try. Raises its error, or WorkerError where it is given up."""
        try:
            data = self.ray.get(ref)
        except self.ray.exceptions.RayError as exc:
            again = one.after(exc, self.ray.exceptions)
            if again is None:
                raise _given_up(exc, one, self.ray.exceptions) from exc
            log.warning("%s: its worker was lost (%s), and it is done again", one.task.name, type(exc).__name__)
            return again
        found = msgspec.msgpack.decode(data, type=ray_task.Answer)
        if isinstance(found, worker.Done):
            return found.receipt
        if isinstance(found, worker.Failed):
            raise worker.rebuilt(found)
        if isinstance(found, ray_task.Other):
            from shardkit import __version__

            fact = f"the node {found.node} has shardkit {found.version}, and this run {__version__}"
            raise WorkerError(one.task.name, fact, "install the same version on all nodes")
        if found.source and not os.path.lexists(found.path):  # it has vanished for all, and the task will say so
            return replace(one, mark=msgspec.structs.replace(one.mark, sources=False))
        raise _unseen(found)

    def _end(self, waiting: list[Ref]) -> None:
        """Cancel what is under way, and wait until it has ended: it must not write into the work folder any more."""
        if not waiting or not self.ray.is_initialized():
            return
        with contextlib.suppress(self.ray.exceptions.RayError):
            for ref in waiting:
                self.ray.cancel(ref, force=True)
            self.ray.wait(waiting, num_returns=len(waiting), timeout=_END_SECONDS)


@dataclass(frozen=True, slots=True)
class _Try:
    """A task under way, and how often it was lost before."""

    task: AnyTask
    mark: ray_task.Mark
    losses: int = 0
    memory_losses: int = 0

    def after(self, exc: Exception, kinds: Any) -> _Try | None:
        """The next try after this error of Ray; None where it is of no use."""
        if isinstance(exc, kinds.OutOfMemoryError):
            return replace(self, memory_losses=self.memory_losses + 1) if self.memory_losses < MEMORY_RETRIES else None
        lost = isinstance(exc, _lost(kinds))
        return replace(self, losses=self.losses + 1) if lost and self.losses < RETRIES else None


def _lost(kinds: Any) -> tuple[type[Exception], ...]:
    return kinds.WorkerCrashedError, kinds.NodeDiedError, kinds.LocalRayletDiedError, kinds.ObjectLostError


def _begin() -> Callable[[bytes, bytes], bytes]:
    """What a node runs: `ray_task.answer`, also where shardkit was found by a path that the node's Python does not try.

    A function inside a function, so that Ray sends it as a whole.
    """
    home = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

    def write_shard(task_data: bytes, mark_data: bytes) -> bytes:
        import sys

        if home not in sys.path:
            sys.path.append(home)
        from shardkit.packing.ray_task import answer

        return answer(task_data, mark_data)

    return write_shard


def _connected(workers: int | None, address: str | None) -> tuple[Any, bool, int]:
    """(Ray, whether it was started or joined here, the level that its log had)."""
    try:
        import ray
    except ImportError as exc:
        raise MissingExtraError("engine", "Ray is not installed", 'pip install "shardkit[ray]"') from exc
    level = logging.getLogger("ray").level
    if ray.is_initialized():
        log.debug("this process is part of a Ray cluster already, which is used")
        return ray, False, level
    given = address or os.environ.get("RAY_ADDRESS")
    quiet: dict[str, Any] = {"log_to_driver": False, "configure_logging": False, "include_dashboard": None}
    if given:
        demand_reachable(given)
    else:
        quiet |= {"num_cpus": workers or cores(), "include_dashboard": False, "object_store_memory": _STORE_BYTES}
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        ray.init(address=given or "local", **quiet)
    except (ConnectionError, TimeoutError, RuntimeError, ValueError, OSError, ray.exceptions.RayError) as exc:
        logging.getLogger("ray").setLevel(level)
        fact = f"Ray can't be {'reached' if given else 'started'} ({printable(str(exc).strip())})"
        cure = "check --address" if given else "use --engine local"
        raise WorkerError(given or "ray", fact, cure) from exc
    return ray, True, level


def _marked(folder: bytes) -> ray_task.Mark:
    """A new mark in the work folder, by which a node tells that it sees the same folder."""
    from shardkit import __version__

    mark = ray_task.Mark(os.path.join(folder, MARK), secrets.token_hex(16).encode(), __version__)
    with whole_file(mark.path) as file:
        file.write(mark.token)
    return mark


def _unseen(found: ray_task.Unseen) -> ShardkitError:
    path = fs_text(found.path if found.source else os.path.dirname(found.path))
    fact = f"the node {found.node} does not see {path}, which this machine does"
    if found.source:
        return SourceError(path, fact, "mount the source on all nodes, under the same path")
    cure = "mount the destination on all nodes, under the same path (for a bucket: the folder that --work names)"
    return WorkerError(path, fact, cure)


def _given_up(exc: Exception, one: _Try, kinds: Any) -> WorkerError:
    """The error for a task that could not begin, or was lost too often."""
    name, reason = one.task.name, printable(([*str(exc).strip().splitlines()] or [type(exc).__name__])[-1])
    if isinstance(exc, kinds.OutOfMemoryError):
        fact = f"the node that wrote it ran out of memory, {one.memory_losses + 1} times"
        cure = f"use fewer --workers, smaller shards, or nodes with more memory; then {_AGAIN}"
    elif one.losses:
        fact = f"the process that wrote it was lost {one.losses + 1} times ({type(exc).__name__})"
        cure = f"look at the cluster's log, then {_AGAIN}"
    elif isinstance(exc, kinds.RayTaskError):
        fact = f"a node could not begin the task ({reason})"
        cure = "install shardkit and what it needs, in the same versions, on all nodes"
    else:
        fact, cure = f"Ray gave the task up ({reason})", f"look at the cluster's log, then {_AGAIN}"
    return WorkerError(name, fact, cure)
