"""Threads that wait for a store, and do what they are given in order."""

from __future__ import annotations

import atexit
import contextlib
import queue
import threading
import time
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from shardkit.storage.patient import GRACE_SECONDS, timed_out

REQUESTS = 16
"""Requests under way at a time: 64 MiB, which is 1 GB/s at 60 ms for each. 32 are no faster at 30 ms, and on two cores
slower."""
FIRST_REQUESTS = 4
SLOW_SECONDS = 0.04
"""A chunk that takes longer waits for its store more than for this machine: then more requests at a time help."""

_LIVE: WeakSet[Fetchers] = WeakSet()


class Job:
    """Something that a thread does, once. `act` gives the value."""

    __slots__ = ("_error", "_pool", "_value", "act", "chunks", "done", "place")

    def __init__(self, pool: Fetchers, act: Callable[[], Any], place: str, chunks: int) -> None:
        self.act: Callable[[], Any] | None = act
        self.place = place
        self.chunks = chunks
        self.done = threading.Event()
        self._pool = pool
        self._value: Any = None
        self._error: BaseException | None = None

    @property
    def failed(self) -> bool:
        """Whether it is done, and `value` raises."""
        return self._error is not None

    def run(self) -> None:
        """Do it; an error is kept for `value`."""
        try:
            if self.act is not None:
                self._value = self.act()
        except BaseException as exc:
            self._error = exc
        self.act = None  # and with it what only it refers to
        self.done.set()

    def value(self) -> Any:
        """Wait for it. Its error is raised; StorageError where nothing moves within the time limit."""
        if not self.done.is_set():
            self._pool.wait(self)
        if self._error is not None:
            raise self._error
        return self._value


class Fetchers:
    """Threads that wait for a store: a few at first, so that the first samples need not share the line with those of
    later, and one more with each answer that was slow. `close` leaves them alone: those that a store keeps waiting end
    when it lets them go."""

    def __init__(self, seconds: float, count: int = REQUESTS) -> None:
        _LIVE.add(self)
        self._seconds, self._count = seconds, count
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._moved = time.monotonic()
        self._ending = self._closed = False
        self.slow = False
        """Whether the store was slow the last time."""

    def submit(self, act: Callable[[], Any], place: str, chunks: int = 1) -> Job:
        """Have it done, in the order of the calls. chunks: how much it is, of which the time that it takes depends."""
        job = Job(self, act, place, chunks)
        self._jobs.put(job)
        if len(self._threads) < FIRST_REQUESTS:
            self._one_more()
        return job

    def _one_more(self) -> None:
        with self._lock:
            if len(self._threads) < self._count and not self._ending:
                thread = threading.Thread(target=self._serve, name="shardkit-fetch", daemon=True)
                self._threads.append(thread)
                thread.start()

    def wait(self, job: Job) -> None:
        """Wait for a job. StorageError where none was done within the time limit."""
        begun = time.monotonic()
        while not job.done.wait(min(1.0, self._seconds)):
            if time.monotonic() - max(begun, self._moved) > self._seconds + GRACE_SECONDS:
                raise timed_out(job.place, self._seconds)

    def end(self) -> None:
        """Do what was submitted, and nothing more."""
        with self._lock:
            if not self._ending:
                self._ending = True
                for _ in self._threads:
                    self._jobs.put(None)

    def close(self) -> None:
        """Begin nothing more. What was not begun is forgotten, with all that it would have been for."""
        self._closed = True
        with contextlib.suppress(queue.Empty):
            while (job := self._jobs.get_nowait()) is not None:
                job.act = None
            self._jobs.put(None)  # a thread's sign to end
        self.end()

    def join(self, seconds: float) -> None:
        """Wait for the threads to end, but not long."""
        ends = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, ends - time.monotonic()))

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None and not self._closed:
            begun = time.monotonic()
            job.run()
            self._moved = now = time.monotonic()
            self.slow = now - begun > SLOW_SECONDS * job.chunks
            if self.slow and not self._jobs.empty():
                self._one_more()
            del job  # what it fetched is not to wait for the next one


@atexit.register
def _close_all() -> None:
    """End what is still under way: the interpreter must not go while a thread is inside a store's library."""
    live = list(_LIVE)
    for pool in live:
        pool.close()
    for pool in live:
        pool.join(5.0)
