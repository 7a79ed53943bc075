"""Where the shards of a job are written: here, or in worker processes. An engine is a function of this form:

    run(tasks, advance) -> an iterator of receipts, in whatever order they are finished

It raises the first error of a task and then starts no further one; what is finished stays finished.
"""

from __future__ import annotations

import contextlib
import queue
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Protocol

import msgspec

from shardkit.errors import ShardkitError, WorkerError
from shardkit.packing import worker
from shardkit.packing.shard import Advance, Receipt, ShardTask, write_shard


class Engine(Protocol):
    """What runs the tasks of a job."""

    def __call__(self, tasks: Iterable[ShardTask], advance: Advance) -> Iterator[Receipt]:
        """Write each task's shard; `advance(files, bytes)` may be called from any thread."""
        ...


def run_here(tasks: Iterable[ShardTask], advance: Advance) -> Iterator[Receipt]:
    """One shard after the other in this process."""
    for task in tasks:
        yield write_shard(task, advance)


class LocalEngine:
    """Worker processes on this machine, each fed by a thread here. They inherit `lock_fds`, and so hold those locks.

    Start it early (`with LocalEngine(2) as engine`): the workers load while the source is scanned.
    """

    def __init__(self, workers: int, lock_fds: Sequence[int] = ()) -> None:
        self.lock_fds = tuple(lock_fds)
        self.processes: list[subprocess.Popen[bytes]] = [self._start() for _ in range(workers)]

    def _start(self) -> subprocess.Popen[bytes]:
        # A session of its own: Ctrl-C reaches the parent alone, which then ends its workers.
        return subprocess.Popen(
            [sys.executable, "-m", worker.__name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=self.lock_fds,
            start_new_session=True,
            bufsize=1 << 16,
        )

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers: an idle one by the end of its input, a busy one by force."""
        for process in self.processes:
            with contextlib.suppress(OSError):
                _pipe(process.stdin).close()
        for process in self.processes:
            process.kill()
            process.wait()
            _pipe(process.stdout).close()

    def __call__(self, tasks: Iterable[ShardTask], advance: Advance) -> Iterator[Receipt]:
        """Write each task's shard. Raises the first error of a task, WorkerError where a worker dies."""
        results: queue.SimpleQueue[Receipt | BaseException | None] = queue.SimpleQueue()
        stop = threading.Event()
        source = iter(tasks)
        taking = threading.Lock()

        def take() -> ShardTask | None:
            with taking:
                return None if stop.is_set() else next(source, None)

        def feed(process: subprocess.Popen[bytes]) -> None:
            try:
                while (task := take()) is not None:
                    results.put(_ask(process, task, advance))
            except BaseException as exc:
                results.put(exc)
            finally:
                results.put(None)

        threads = [threading.Thread(target=feed, args=(process,), daemon=True) for process in self.processes]
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


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


def _ask(process: subprocess.Popen[bytes], task: ShardTask, advance: Advance) -> Receipt:
    try:
        worker.send(_pipe(process.stdin), task)  # type: ignore[arg-type]
        while (data := worker.receive(_pipe(process.stdout))) is not None:  # type: ignore[arg-type]
            message = msgspec.msgpack.decode(data, type=worker.Message)
            if isinstance(message, worker.Advance):
                advance(message.files, message.bytes)
            elif isinstance(message, worker.Done):
                return message.receipt
            else:
                raise worker.rebuilt(message)
    except ShardkitError:
        raise
    except (OSError, ValueError, msgspec.MsgspecError) as exc:
        raise _died(process, task) from exc
    raise _died(process, task)


def _died(process: subprocess.Popen[bytes], task: ShardTask) -> WorkerError:
    code = process.wait()
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    cure = "if memory ran out, use fewer --workers; then run the same command again: finished shards are kept"
    return WorkerError(task.name, f"the worker process that wrote it {how}", cure)
