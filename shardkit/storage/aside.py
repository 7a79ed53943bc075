"""Calls that nothing can interrupt, made in a thread of their own, which can be left alone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Aside(Generic[T]):
    """`act`, begun in a thread. Who waits for it can be interrupted, or stop waiting; the thread then ends alone."""

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
        """Whether it ends within that time."""
        return self._done.wait(seconds)

    def result(self) -> T:
        """What `act` gives, or raises."""
        self._done.wait()
        if self._failed is not None:
            raise self._failed
        return self._found[0]
