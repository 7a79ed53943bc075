"""Packs in a thread of this process while epochs are read: a whole dataset, or the shards of one rank.

The thread stays close ahead of the reader, so that each file is in the system's memory when the other one needs it.
Neither waits for the other: what is not written yet is read from the tree.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from shardkit.adapters.pack_to.plan import PackingPlan
from shardkit.adapters.pack_to.ranks import forget_other_division, merge_if_last
from shardkit.adapters.pack_to.written import WrittenSamples
from shardkit.errors import BusyError, DestinationError, SourceError, UsageError
from shardkit.events import Progress
from shardkit.packing.engine.engine import LocalEngine
from shardkit.packing.pack import Job
from shardkit.packing.parts.part import Part
from shardkit.packing.write.receipt import Receipt
from shardkit.packing.write.sink import Advance, Sink
from shardkit.packing.write.task import ShardTask
from shardkit.units import cores

log = logging.getLogger(__name__)

AHEAD_BYTES = 256 << 20
"""How many bytes of files the packing may be ahead of the reader: far less than a machine's memory."""

LATE_BYTES = 64 << 20
"""How far behind the reader the packing may be, in bytes of files, until it writes one more shard at a time."""

LEAST_WRITERS = 4
"""The shards that are written at a time at most where a machine has fewer cores: on slow file systems most threads
wait."""

LOOK_SECONDS = 0.2
"""How often a waiting packing looks whether the program has ended."""

_FATAL = (SourceError, UsageError, DestinationError)
"""Errors after which an epoch can't go on, as `pack` could not: bad files, and other shards in the way."""


class _Paused(BaseException):
    """Nobody reads any more."""


class _Engine(LocalEngine):
    """Writes one shard at a time in a thread of this process, while the disk flushes the one before; several at a time
    where one is too slow."""

    def __init__(self, packer: Packer) -> None:
        super().__init__(max(LEAST_WRITERS, cores()), threads=True)
        self.turns = threading.Semaphore(1)
        self._packer = packer
        self._room = threading.Condition()
        self._writers, self._begun = 1, 0

    def add_writer(self) -> None:
        """Let one more shard be written at the same time, as far as that is sensible."""
        with self._room:
            if self._writers < self.workers:
                self._writers += 1
                self.turns.release()
                self._room.notify_all()

    def wait_for_room(self) -> None:
        """Wait until one more shard may be begun."""
        with self._room:
            while self._begun > self._writers and not self._stop.is_set():
                self._room.wait(LOOK_SECONDS)
            self._begun += 1

    def written(self, task: ShardTask, advance: Advance) -> Receipt:
        try:
            return self.written_here(task, advance, partial(self._packer.sink, task))
        finally:
            with self._room:
                self._begun -= 1
                self._room.notify_all()


class Reading:
    """One iteration over the dataset that is packed."""

    def __init__(self, packer: Packer) -> None:
        self._packer = packer
        self._bytes = 0

    def passed(self, size: int) -> None:
        """Some files of this size in all are read next. Raises what stopped the packing, if it is about the files."""
        self._bytes += size
        self._packer.go_on(size)

    def complete(self) -> None:
        """The iteration is at its end: complete the packing, unless much more is left of it than was read."""
        self._packer.complete(self._bytes)


class Packer:
    """The packing of a plan, or of a part of it, on behalf of those who read it. Thread-safe."""

    def __init__(self, plan: PackingPlan, part: Part | None) -> None:
        self.plan, self.part = plan, part
        self.written = WrittenSamples(plan.content.plan, plan.content.source.sizes)
        self.finished = False
        """Whether this process has completed its shards."""
        self._state = threading.Condition()
        self._thread: threading.Thread | None = None
        self._engine: _Engine | None = None
        self._error: Exception | None = None
        self._readers = 0
        self._rushing = 0
        self._allowed = self._packed = self._left = 0
        self.process = os.getpid()
        self._numbers = {name: number for number, name in enumerate(plan.content.plan.names)}

    @contextmanager
    def reading(self) -> Iterator[Reading]:
        """An iteration; the packing runs during it, and for the rest of its shard. Raises as `pack` does at its
        beginning. If another process is packing here, nothing is packed."""
        with self._state:
            self._readers += 1
            self._allowed = max(self._allowed, self._packed + AHEAD_BYTES)
        try:
            self._start()
            yield Reading(self)
        finally:
            with self._state:
                self._readers -= 1
                self._state.notify_all()

    def go_on(self, size: int) -> None:
        """Allow the packing to write `size` bytes more. Raises its error."""
        with self._state:
            self._allowed += size
            if self._engine is not None and self._allowed - AHEAD_BYTES - self._packed > LATE_BYTES:
                self._engine.add_writer()
            self._state.notify_all()
            if isinstance(self._error, _FATAL):
                raise self._error

    def complete(self, size: int) -> None:
        """Wait for the packing to end, if it has about as much to do as the `size` bytes that were read, or less."""
        largest = int(self.plan.content.plan.shard_bytes.max(initial=0))
        with self._state:
            if self._thread is None or self._left > size + largest:
                return
            self._rushing += 1
            self._state.notify_all()
            try:
                while self._thread is not None:
                    if self._engine is not None:
                        self._engine.add_writer()
                    self._state.wait(LOOK_SECONDS)
            finally:
                self._rushing -= 1
            if isinstance(self._error, _FATAL):
                raise self._error

    def _start(self) -> None:
        """Start the thread, unless it runs, or there is nothing to do, or another process does it."""
        with self._state:
            if self._thread is not None or self.finished:
                return
            self._error = None
            stack = ExitStack()
            try:
                stack.enter_context(self.plan.destination.locked(self.part))
                job = self.plan.job(self.part)
                if job.find_finished() is not None:
                    stack.close()
                    return
                if self.part is not None:
                    forget_other_division(self.plan, self.part)
            except BusyError as exc:
                stack.close()
                log.warning("%s; this epoch reads the class tree, and packs nothing", exc)
                return
            except BaseException:
                stack.close()
                raise
            self._left = job.extent()[1]
            self.written.writing(True)
            self._thread = threading.Thread(target=self._run, args=(stack, job), name="shardkit-pack")
            self._thread.start()

    def _count(self, now: Progress) -> None:
        """Note how much is left, shards of earlier runs included."""
        if now.step == "pack":
            with self._state:
                self._left = now.bytes_total - now.bytes_done

    def _write(self, tasks: Iterable[ShardTask], advance: Advance) -> Iterator[Receipt]:
        """Write one shard after another: an engine of a packing."""
        paused: list[ShardTask] = []
        engine = _Engine(self)
        with engine:
            self._engine = engine
            try:
                yield from engine(self._tasks(tasks, engine, paused), partial(self._advanced, advance))
            finally:
                self._engine = None
        if paused:
            raise _Paused

    def _tasks(self, tasks: Iterable[ShardTask], engine: _Engine, paused: list[ShardTask]) -> Iterator[ShardTask]:
        """The tasks while somebody reads, and the first one in any case: so each start writes a shard at least. What is
        begun is ended. paused: gets a task that was not begun."""
        for number, task in enumerate(tasks):
            engine.wait_for_room()
            if number and not self._readers:
                paused.append(task)
                return
            yield task

    def sink(self, task: ShardTask, fd: int, place: bytes) -> Sink:
        """The sink for a shard."""
        return self.written.sink(self._numbers[task.name], fd, place)

    def _advanced(self, advance: Advance, files: int, size: int) -> None:
        """Wait while this is too far ahead of the readers."""
        advance(files, size)
        with self._state:
            self._packed += size
            while threading.main_thread().is_alive():
                if self._packed <= self._allowed or self._rushing or not self._readers:
                    return
                self._state.wait(LOOK_SECONDS)
        raise _Paused  # at once: the program is at its end

    def _run(self, stack: ExitStack, job: Job) -> None:
        error: Exception | None = None
        try:
            with stack:
                job.run(self._write, self._count)
            self.finished = True
            if self.part is not None:
                merge_if_last(self.plan, self.part)
        except _Paused:
            log.debug("%s: packing is paused", self.plan.location)
        except Exception as exc:
            error = exc
            if not isinstance(exc, _FATAL) or isinstance(exc, BusyError):
                log.warning("%s: not packed further: %s; the epoch goes on from the class tree, "
                            "and the next one packs on", self.plan.location, exc)  # fmt: skip
        self.written.writing(False)
        with self._state:
            self._error, self._thread = error, None
            self._state.notify_all()


_PACKERS: weakref.WeakValueDictionary[tuple[str, str, Part | None], Packer] = weakref.WeakValueDictionary()
"""The packers of this process, by destination, plan and part: all Datasets with the same packing share one."""

if hasattr(os, "register_at_fork"):  # their threads do not exist in the child
    os.register_at_fork(after_in_child=_PACKERS.clear)


def packer_of(plan: PackingPlan, part: Part | None) -> Packer:
    """The packer of a plan, or of a part of it, in this process."""
    return _PACKERS.setdefault((str(plan.destination), plan.digest, part), Packer(plan, part))
