"""Work in threads, results in order: a bounded number of tasks ahead of use, each in one or more parts."""

from __future__ import annotations

import atexit
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar
from weakref import WeakSet

log = logging.getLogger(__name__)

T = TypeVar("T")

CLOSE_SECONDS = 5.0
"""How long the end of an iteration, or of the interpreter, waits for what runs in threads."""

_LIVE: WeakSet[Threads] = WeakSet()


class Task(Generic[T]):
    """Parts that may run at the same time, and then `finish` once, in whichever thread ends the last part."""

    __slots__ = ("_done", "_error", "_finish", "_left", "_lock", "_value", "parts")

    def __init__(self, parts: Sequence[Callable[[], object]], finish: Callable[[], T]) -> None:
        self.parts = parts
        self._finish = finish
        self._left = len(parts)
        self._error: BaseException | None = None
        self._value: Any = None
        self._lock = threading.Lock()
        self._done = threading.Lock()
        self._done.acquire()

    def run(self, part: Callable[[], object]) -> None:
        """Run one part; an error is kept for `result`."""
        try:
            if self._error is None:
                part()
        except BaseException as exc:  # raised by `result`, in the thread that asks for it
            self._error = exc
        with self._lock:
            self._left -= 1
            last = self._left == 0
        if not last:
            return
        try:
            if self._error is None:
                self._value = self._finish()
        except BaseException as exc:  # as above
            self._error = exc
        finally:
            self._done.release()

    def result(self) -> T:
        """Wait for the last part; raise the error of the task if it had one."""
        self._done.acquire()
        if self._error is not None:
            raise self._error
        value: T = self._value
        return value


Part = tuple["Task[Any]", Callable[[], object]]


def _not_begun() -> None:
    raise RuntimeError("the threads were closed before this was done")


class Threads:
    """A number of threads for the tasks of one iteration. `close` ends them after the part that each is in."""

    def __init__(self, count: int) -> None:
        _LIVE.add(self)
        self._parts: queue.SimpleQueue[Part | None] = queue.SimpleQueue()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._serve, name="shardkit-decode", daemon=True) for _ in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def _serve(self) -> None:
        while (item := self._parts.get()) is not None:
            item[0].run(_not_begun if self._closed else item[1])

    def close(self) -> None:
        """End the threads and wait for them, `CLOSE_SECONDS` at most: a function of map() may wait for ever. What was
        not begun is dropped, and a thread that is left over ends after the part that it is in, or with the process."""
        if self._closed:
            return
        self._closed = True
        for _ in self._threads:
            self._parts.put(None)
        until = time.monotonic() + CLOSE_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        if any(thread.is_alive() for thread in self._threads):
            log.warning("a function of map() or filter() did not end within %g seconds: left behind", CLOSE_SECONDS)

    def ordered(self, tasks: Iterable[Task[T]], ahead: int) -> Iterator[T]:
        """The results of the tasks in their order; at most `ahead` tasks are begun and not yet given out."""
        waiting: deque[Task[T]] = deque()
        for task in tasks:
            for part in task.parts:
                self._parts.put((task, part))
            waiting.append(task)
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@atexit.register
def _close_all() -> None:
    """End the threads of iterations that are still under way: the interpreter must not go while one is in OpenCV."""
    for threads in list(_LIVE):
        threads.close()
