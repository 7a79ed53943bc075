"""Thread helpers, except the decoder's: ordered jobs, transfers that stop together, a single background call, values
that are computed once.

Threads, not processes: the page cache delivers bytes faster than they are checksummed, and reading, writing, decoding
and unpacking release the GIL. A worker process takes longer to start than a small dataset takes to read.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from threading import Event, Lock
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from shardkit.errors import UsageError
from shardkit.units import cores

if TYPE_CHECKING:
    from functools import cached_property as cached_property
else:

    class cached_property:  # noqa: N801
        """`functools.cached_property` without a lock, as it is from Python 3.12 on.

        The one of Python 3.11 has one lock for all objects of a class. Held by another thread during a fork, it is
        never released in the child. Here, threads that ask for the first time at once may all compute the value, and
        all get the one that was first.
        """

        def __init__(self, func):
            self.func = func
            self.__doc__ = func.__doc__

        def __set_name__(self, owner, name):
            self.name = name

        def __get__(self, instance, owner=None):
            if instance is None:
                return self
            return vars(instance).setdefault(self.name, self.func(instance))


class Stopped(Exception):  # noqa: N818
    """The whole transfer is stopping because of an error elsewhere or Ctrl-C."""


_Task = TypeVar("_Task")


_Result = TypeVar("_Result")


LEAVE_SECONDS = 2.0
"""How long Ctrl-C waits for threads to reach their next piece."""


class TransferPool:
    """A pool of threads, for a `with` block. The threads check `stop` between two pieces."""

    def __init__(self, threads: int) -> None:
        self.stop = Event()
        self.threads = threads
        self._failure: BaseException | None = None
        self._lock = Lock()
        self._open: set[Future[Any]] = set()
        self._pool = ThreadPoolExecutor(threads, "shardkit-transfer")

    def __enter__(self) -> TransferPool:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.stop.set()
        self._pool.shutdown(wait=kind is not KeyboardInterrupt, cancel_futures=kind is not None)
        wait(list(self._open), LEAVE_SECONDS)

    def submit(self, function: Callable[..., _Result], *arguments: Any) -> Future[_Result]:
        """Call the function in a thread. Its error stops the other calls, and is the one that `result` raises."""
        future = self._pool.submit(self._guard, function, *arguments)
        self._open.add(future)
        future.add_done_callback(self._open.discard)
        return future

    def _guard(self, function: Callable[..., _Result], *arguments: Any) -> _Result:
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

    def require_sound(self) -> None:
        """Raise the first error of any thread, if there was one."""
        if self._failure is not None:
            raise self._failure

    def result(self, future: Future[_Result]) -> _Result:
        """The function's result. Raises the first error of any call."""
        try:
            return future.result()
        except (Stopped, CancelledError):
            self.require_sound()
            raise

    def map(self, function: Callable[[_Task], _Result], tasks: Iterable[_Task]) -> Iterator[_Result]:
        """Yield `function(task)` for each task, in order; two tasks per thread are submitted ahead."""
        waiting: deque[Future[_Result]] = deque()
        for task in tasks:
            waiting.append(self.submit(function, task))
            if len(waiting) >= 2 * self.threads:
                yield self.result(waiting.popleft())
        while waiting:
            yield self.result(waiting.popleft())


T = TypeVar("T")


class BackgroundCall(Generic[T]):
    """`act`, running in a thread. The caller's wait can be interrupted or abandoned; the thread then ends by itself."""

    def __init__(self, act: Callable[[], T]) -> None:
        self._act = act
        self._done = threading.Event()
        self._found: list[T] = []
        self._failed: BaseException | None = None
        threading.Thread(target=self._run, name="shardkit-store", daemon=True).start()

    def _run(self) -> None:
        try:
            self._found.append(self._act())
        except BaseException as exc:
            self._failed = exc
        self._done.set()

    def wait(self, seconds: float | None = None) -> bool:
        """Whether the call ends within that time."""
        return self._done.wait(seconds)

    def result(self) -> T:
        """Wait for `act`, and return its result or raise its exception."""
        self._done.wait()
        if self._failed is not None:
            raise self._failed
        return self._found[0]


def thread_count(workers: int | None) -> int:
    """The number of threads to use: `workers`, or the cores of this process if None. UsageError for less than one."""
    if workers is None:
        return cores()
    if workers < 1:
        raise UsageError("workers", f"{workers} is too small", "give at least 1")
    return workers


def in_threads(
    function: Callable[[_Task], _Result],
    tasks: Iterable[_Task],
    workers: int,
    *,
    ahead: int | None = None,
    name: str = "shardkit",
) -> Iterator[_Result]:
    """Yield `function(task)` for each task, in order, computed by `workers` threads.

    ahead: results in progress or not yet consumed (default: 2 for each thread). Raises the first error in task order.
    Tasks that have not started by then are dropped, as they are when the iterator is closed; Ctrl-C does not wait for
    the others.
    """
    if workers == 1:
        yield from map(function, tasks)
        return
    limit = 2 * workers if ahead is None else max(1, ahead)
    waiting: deque[Future[_Result]] = deque()
    pool, wait_for_all = ThreadPoolExecutor(workers, name), True
    try:
        for task in tasks:
            waiting.append(pool.submit(function, task))
            if len(waiting) >= limit:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except KeyboardInterrupt:  # a thread may wait for a server that does not answer
        wait_for_all = False
        raise
    finally:
        pool.shutdown(wait_for_all, cancel_futures=True)
