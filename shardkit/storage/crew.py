"""Threads that move bytes, and end together: at the first error of one, or Ctrl-C, all stop at their next piece.

Ctrl-C waits no longer than that for a thread whose server does not answer. What it leaves is what a kill leaves.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from threading import Event, Lock
from typing import Any, TypeVar

from shardkit.storage.transfer import Stopped

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


LEAVE_SECONDS = 2.0
"""How long Ctrl-C waits for threads to come to their next piece."""


class Crew:
    """A pool of threads, for a `with` block. `stop` is what they look at between two pieces."""

    def __init__(self, threads: int) -> None:
        self.stop = Event()
        self.threads = threads
        self._failure: BaseException | None = None
        self._lock = Lock()
        self._open: set[Future[Any]] = set()
        self._pool = ThreadPoolExecutor(threads, "shardkit-transfer")

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.stop.set()
        self._pool.shutdown(wait=kind is not KeyboardInterrupt, cancel_futures=kind is not None)
        wait(list(self._open), LEAVE_SECONDS)

    def submit(self, function: Callable[..., _Result], *arguments: Any) -> Future[_Result]:
        """Have a thread call the function. Its error stops the others, and is the one that `result` raises."""
        future = self._pool.submit(self._guarded, function, *arguments)
        self._open.add(future)
        future.add_done_callback(self._open.discard)
        return future

    def _guarded(self, function: Callable[..., _Result], *arguments: Any) -> _Result:
        try:
            if self.stop.is_set():
                raise Stopped
            return function(*arguments)
        except BaseException as exc:
            with self._lock:
                if self._failure is None and not isinstance(exc, Stopped):
                    self._failure = exc
            self.stop.set()
            raise

    def demand_sound(self) -> None:
        """Raises the first error of a thread, if there was one."""
        if self._failure is not None:
            raise self._failure

    def result(self, future: Future[_Result]) -> _Result:
        """What the function gave. Raises the first error that any of them had."""
        try:
            return future.result()
        except (Stopped, CancelledError):
            self.demand_sound()
            raise

    def map(self, function: Callable[[_Task], _Result], tasks: Iterable[_Task]) -> Iterator[_Result]:
        """`function` of each task, in order; twice as many as there are threads are taken ahead."""
        waiting: deque[Future[_Result]] = deque()
        for task in tasks:
            waiting.append(self.submit(function, task))
            if len(waiting) >= 2 * self.threads:
                yield self.result(waiting.popleft())
        while waiting:
            yield self.result(waiting.popleft())
