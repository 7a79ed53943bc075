"""Engines write the shards of a job: in this process, in worker processes, or on a cluster. An engine is a function of
this form:

    run(tasks, advance) -> an iterator of receipts, in the order in which they are finished

It raises the first error of a task and then starts no more; finished shards stay. Tasks are made one at a time and need
memory, so an engine takes only as many as it can run, and a few more.

A new engine is a file beside this one, a line in ENGINES, and its name in options.py.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import IO, TYPE_CHECKING, Protocol

import msgspec

from shardkit import errors
from shardkit.errors import WorkerError
from shardkit.packing.engine import worker
from shardkit.packing.engine.options import EngineName, EngineOptions
from shardkit.packing.write.plain import is_native
from shardkit.packing.write.receipt import Receipt
from shardkit.packing.write.shard import write_shard
from shardkit.packing.write.sink import Advance, Sink
from shardkit.packing.write.task import ShardTask
from shardkit.system import POSIX
from shardkit.units import cores

if TYPE_CHECKING:
    import subprocess


class Engine(Protocol):
    """Runs the tasks of a job."""

    def __call__(self, tasks: Iterable[ShardTask], advance: Advance) -> Iterator[Receipt]:
        """Write the shard of each task; `advance(files, bytes)` may be called from any thread."""
        ...


def run_here(tasks: Iterable[ShardTask], advance: Advance) -> Iterator[Receipt]:
    """Write one shard after another in this process."""
    for task in tasks:
        yield write_shard(task, advance)


def open_engine(options: EngineOptions, lock_fds: Sequence[int] = ()) -> AbstractContextManager[Engine]:
    """The engine, ready to run; its workers may still be loading. lock_fds: descriptors of locks that local workers
    hold too."""
    return ENGINES[options.name](options, lock_fds)


def _open_local(options: EngineOptions, lock_fds: Sequence[int]) -> AbstractContextManager[Engine]:
    count = cores() if options.workers is None else options.workers
    return LocalEngine(count, lock_fds, threads=options.threads) if count > 1 else nullcontext(run_here)


def _open_ray(options: EngineOptions, lock_fds: Sequence[int]) -> AbstractContextManager[Engine]:
    from shardkit.packing.engine.ray.engine import RayEngine

    return RayEngine(options.workers, options.address)


ENGINES: Mapping[EngineName, Callable[[EngineOptions, Sequence[int]], AbstractContextManager[Engine]]] = {
    "local": _open_local,
    "ray": _open_ray,
}


STOPPING_SECONDS = 10.0
"""How long the end of a run waits for its threads; each is done with some samples in a moment."""


class LocalEngine:
    """Worker processes on this machine, each fed by a thread here. They inherit `lock_fds`, and so hold those locks.

    Start it early (`with LocalEngine(2) as engine`): the workers load while the source is scanned.

    threads: write in threads of this process what the C extension writes without the GIL. Worker processes are then
    started for the first other task.
    """

    def __init__(self, workers: int, lock_fds: Sequence[int] = (), *, threads: bool = False) -> None:
        self.workers, self.lock_fds, self.threads = workers, tuple(lock_fds), threads
        self.processes: list[subprocess.Popen[bytes]] = []
        self.turns = threading.Semaphore(workers)
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        self._starting = threading.Lock()
        self._here = threading.Condition()
        self._writing = 0
        self._stop = threading.Event()
        if not threads:
            self._start_all()

    def _start_all(self) -> None:
        """Start the worker processes, once."""
        with self._starting:
            if self.processes:
                return
            try:
                for _ in range(self.workers):
                    self.processes.append(self._start())
            except OSError as exc:
                self._kill()
                fact = f"a worker process can't be started ({exc.strerror or exc})"
                raise WorkerError(_interpreter(), fact, "use `workers=1`, which needs none") from exc
            except BaseException:
                self._kill()
                raise
            for process in self.processes:
                self._idle.put(process)

    def _start(self) -> subprocess.Popen[bytes]:
        import subprocess  # loads more than a packing in threads needs

        # A session of its own: Ctrl-C reaches only the parent, which then ends its workers.
        return subprocess.Popen(
            _command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=self.lock_fds if POSIX else (),
            start_new_session=True,
            bufsize=1 << 16,
        )

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers at once. Threads that write a shard stop at the next samples, and are waited for."""
        self._stop.set()
        with self._starting:
            self._kill()
        with self._here:  # a file system that no longer answers must not keep the program from its end
            self._here.wait_for(lambda: not self._writing, STOPPING_SECONDS)

    def _kill(self) -> None:
        """End the processes. This comes first: a thread that waits for a worker holds its pipes until it is gone."""
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):  # data still buffered for it
                    _pipe(pipe).close()

    def __call__(self, tasks: Iterable[ShardTask], advance: Advance) -> Iterator[Receipt]:
        """Write the shard of each task. Raises the first error of a task, WorkerError if a worker dies."""
        results: queue.SimpleQueue[Receipt | BaseException | None] = queue.SimpleQueue()
        stop = threading.Event()
        source = iter(tasks)
        taking = threading.Lock()

        def take() -> ShardTask | None:
            with taking:
                return None if stop.is_set() else next(source, None)

        def go_on(files: int, size: int) -> None:
            if stop.is_set() or self._stop.is_set():
                raise _StoppedError
            try:
                advance(files, size)
            except BaseException as exc:
                results.put(exc)
                raise _StoppedError from exc

        def feed() -> None:
            try:
                while (task := take()) is not None:
                    results.put(self.written(task, go_on))
            except _StoppedError:
                pass
            except BaseException as exc:
                results.put(exc)
            finally:
                results.put(None)

        # those beyond the workers wait for the disk, or for their turn
        count = 2 * self.workers if self.threads else self.workers
        threads = [threading.Thread(target=feed, daemon=True) for _ in range(count)]
        for thread in threads:
            thread.start()
        running = len(threads)
        try:
            while running:
                result = results.get()
                if result is None:
                    running -= 1
                elif isinstance(result, BaseException):
                    raise result
                else:
                    yield result
        finally:
            stop.set()

    def written(self, task: ShardTask, advance: Advance) -> Receipt:
        """Write a shard in this thread, or in the next worker that is free."""
        if self.threads and is_native(task):
            return self.written_here(task, advance)
        with self.turns:
            self._start_all()
            process = self._idle.get()
            try:
                return _ask(process, task, advance)
            finally:
                self._idle.put(process)

    def written_here(self, task: ShardTask, advance: Advance, sink_for: Callable[[int, bytes], Sink] = Sink) -> Receipt:
        """Write a shard in this thread, with the errors of a worker. sink_for: as for `write_shard`."""
        with self._here:
            if self._stop.is_set():
                raise _StoppedError
            self._writing += 1
        try:
            return write_shard(task, advance, self.turns, sink_for)
        except errors.ShardkitError:
            raise
        except OSError as exc:  # of the disk, which no part of shardkit expected
            raise worker.rebuilt(worker.failed_disk(task.name, exc)) from exc
        finally:
            with self._here:
                self._writing -= 1
                self._here.notify_all()


class _StoppedError(Exception):
    """Nobody waits any more for what a thread writes."""


def _interpreter() -> str:
    """The running Python interpreter; "python" if a program that embeds it does not tell."""
    return sys.executable or "python"


def _command() -> list[str]:
    """The command of a worker. It finds modules where this process does, even if `sys.path` was changed here."""
    home = os.path.dirname(os.path.dirname(os.path.abspath(errors.__file__)))
    paths = [path for path in sys.path if isinstance(path, str)]
    program = f"import sys; sys.path[:] = sys.argv[1:]; from {worker.__name__} import main; main()"
    utf8 = ["-X", "utf8"] if sys.flags.utf8_mode else []
    return [_interpreter(), *utf8, "-P", "-c", program, *paths, *([] if home in paths else [home])]


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


def _ask(process: subprocess.Popen[bytes], task: ShardTask, advance: Advance) -> Receipt:
    try:
        worker.send(_pipe(process.stdin), task)  # type: ignore[arg-type]
    except OSError as exc:
        raise _died(process, task) from exc
    while True:
        try:
            data = worker.receive(_pipe(process.stdout))  # type: ignore[arg-type]
        except OSError as exc:
            raise _died(process, task) from exc
        if data is None:
            raise _died(process, task)
        message = msgspec.msgpack.decode(data, type=worker.Message)
        if isinstance(message, worker.Done):
            return message.receipt
        if isinstance(message, worker.Failed):
            raise worker.rebuilt(message)
        advance(message.files, message.bytes)


def _died(process: subprocess.Popen[bytes], task: ShardTask) -> WorkerError:
    import subprocess

    try:
        code = process.wait(timeout=5)
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    except subprocess.TimeoutExpired:  # it closed its pipes but keeps running
        how = "no longer answers"
    cure = "if memory ran out, use fewer `workers`; then run the same command again: finished shards are kept"
    return WorkerError(task.name, f"the worker process that wrote it {how}", cure)
