"""Run tasks in threads and return results in order: a bounded number of tasks ahead, each with one or more parts."""

from __future__ import annotations

import atexit
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from time import perf_counter
from typing import Any, Generic, TypeVar
from weakref import WeakSet

from shardkit.reading.stats.record import Recorder

log = logging.getLogger(__name__)

T = TypeVar("T")

CLOSE_SECONDS = 5.0
"""How long the end of an iteration, or of the interpreter, waits for running parts."""

_LIVE: WeakSet[Threads] = WeakSet()


class Task(Generic[T]):
    """Parts that may run at the same time, then `finish`, once, in the thread that completes the last part."""

    __slots__ = ("_done", "_error", "_finish", "_left", "_lock", "_value", "nbytes", "parts", "samples")

    def __init__(
        self, parts: Sequence[Callable[[], object]], finish: Callable[[], T], samples: int = 0, nbytes: float = 0.0
    ) -> None:
        """samples, nbytes: how much it is, for the record."""
        self.parts = parts
        self.samples, self.nbytes = samples, nbytes
        self._finish = finish
        self._left = len(parts)
        self._error: BaseException | None = None
        self._value: Any = None
        self._lock = threading.Lock()
        self._done = threading.Lock()
        self._done.acquire()

    def run(self, part: Callable[[], object]) -> None:
        """Run one part; an error is stored for `result`."""
        try:
            if self._error is None:
                part()
        except BaseException as exc:  # raised again by `result`, in the thread that calls it
            self._error = exc
        with self._lock:
            self._left -= 1
            last = self._left == 0
        if not last:
            return
        try:
            if self._error is None:
                self._value = self._finish()
        except BaseException as exc:  # raised by `result`, too
            self._error = exc
        finally:
            self._done.release()

    @property
    def done(self) -> bool:
        """Whether `result` need not wait."""
        return not self._done.locked()

    def result(self) -> T:
        """Wait for the last part and return the result; raise the task's error if it had one."""
        self._done.acquire()
        if self._error is not None:
            raise self._error
        value: T = self._value
        return value


Part = tuple["Task[Any]", Callable[[], object]]


def _not_begun() -> None:
    raise RuntimeError("the threads were closed before this task was finished")


class Threads:
    """Threads for the tasks of one iteration. `close` ends each after its current part."""

    def __init__(self, count: int, record: Recorder | None = None) -> None:
        _LIVE.add(self)
        self._record = record or Recorder(count)
        self._parts: queue.SimpleQueue[Part | None] = queue.SimpleQueue()
        self._closed = False
        self._threads: list[threading.Thread] = []
        self.count = 0
        self.resize(count)

    def resize(self, count: int) -> None:
        """Make it this number of threads. Those that are too many end after the parts that wait now."""
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        for _ in range(count - self.count):
            thread = threading.Thread(target=self._serve, name="shardkit-decode", daemon=True)
            self._threads.append(thread)
            thread.start()
        for _ in range(self.count - count):
            self._parts.put(None)
        self.count = count

    def _serve(self) -> None:
        meter = self._record.meter()
        while (item := self._parts.get()) is not None:
            begun = perf_counter()
            item[0].run(_not_begun if self._closed else item[1])
            meter.busy += perf_counter() - begun

    def close(self) -> None:
        """End the threads and wait for them, at most `CLOSE_SECONDS`: a function of map() may block forever.

        Parts that have not started are dropped; a thread that does not end in time ends after its current part, or with
        the process.
        """
        if self._closed:
            return
        self._closed = True
        for _ in self._threads:
            self._parts.put(None)
        until = time.monotonic() + CLOSE_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        if any(thread.is_alive() for thread in self._threads):
            log.warning(
                "a function of map() or filter() did not end within %g seconds: its thread is abandoned", CLOSE_SECONDS
            )

    def run_in_order(self, tasks: Iterable[Task[T]], ahead: int | Callable[[], int]) -> Iterator[T]:
        """The results of the tasks in order; at most `ahead` tasks are started and not yet delivered. A function is
        asked again for each."""
        most = ahead if callable(ahead) else lambda: ahead
        waiting: deque[Task[T]] = deque()
        for task in tasks:
            for part in task.parts:
                self._parts.put((task, part))
            waiting.append(task)
            while waiting and len(waiting) >= most():
                yield self._next(waiting)
        while waiting:
            yield self._next(waiting)

    def _next(self, waiting: deque[Task[T]]) -> T:
        ready = 0
        for task in waiting:
            if not task.done:
                break
            ready += 1
        first = waiting.popleft()
        if ready:
            value = first.result()
            self._record.blocked(0.0, ready)
        else:
            begun = perf_counter()
            value = first.result()
            self._record.blocked(perf_counter() - begun, 0)
        self._record.taken(first.samples, first.nbytes)
        return value


@atexit.register
def _close_all() -> None:
    """End the threads of running iterations: the interpreter must not exit while one of them is inside a C library."""
    for threads in list(_LIVE):
        threads.close()
