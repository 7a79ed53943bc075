"""Trying again: exponential back-off with full jitter, a cap and an end; a read that broke goes on at its byte.

The wait before attempt n is uniform on [0, min(cap, first · 2ⁿ)], the "full jitter" of AWS's article "Exponential
Backoff And Jitter" (2015), so that a thousand ranks whose store hiccups do not come back in step.
"""

from __future__ import annotations

import itertools
import logging
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from shardkit.errors import StorageError
from shardkit.storage.store import Store, TransientError

if TYPE_CHECKING:
    from typing_extensions import Buffer

log = logging.getLogger(__name__)

T = TypeVar("T")


AFTER_SECONDS = 60.0
"""The longest that a server's Retry-After is waited for."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How long to go on: attempts in a row without any progress, waits, and the time limit of one operation."""

    attempts: int = 8
    first_seconds: float = 0.1
    cap_seconds: float = 10.0
    total_seconds: float = 300.0

    def wait_seconds(self, failures: int) -> float:
        """How long to wait after so many failures in a row (1 and up)."""
        return random.uniform(0.0, min(self.cap_seconds, self.first_seconds * 2.0 ** min(failures, 64)))


def retried(act: Callable[[], T], retry: Retry) -> T:
    """What `act` gives, called again after each TransientError. StorageError at the end of the patience.

    An iterator fails while it is read, not when it is made: `act` has to read it.
    """
    patience = _Patience(retry)
    while True:
        try:
            return act()
        except TransientError as exc:
            patience.wait(exc)


def read(store: Store, name: str, start: int, end: int, retry: Retry) -> Buffer:
    """The bytes start … end - 1 of an object; after a break it goes on at the byte where it broke.

    What comes as one piece is given as it is, without a copy.

    Raises what the store raises, but for TransientError, which becomes StorageError at the end of the patience; and
    StorageError where the store sends more than was asked for.
    """
    coming = pieces(store, name, start, end, retry)
    first = next(coming, b"")
    with memoryview(first) as whole:
        if whole.nbytes == end - start:
            return first
    data = bytearray(end - start)
    view, done = memoryview(data), 0
    for piece in itertools.chain((first,), coming):
        with memoryview(piece).cast("B") as part:
            view[done : done + len(part)] = part
            done += len(part)
    return data


def pieces(store: Store, name: str, start: int, end: int, retry: Retry) -> Iterator[Buffer]:
    """As `read`, in pieces as they come: exactly end - start bytes, in order."""
    done, patience = start, _Patience(retry)
    while done < end:
        try:
            for piece in store.pieces(name, done, end):
                with memoryview(piece) as part:
                    size = part.nbytes
                if size > end - done:
                    fact = f"the store sends more than the {end - start} bytes that were asked for"
                    raise StorageError(str(store.root.child(name)), fact, "use another server")
                yield piece
                done += size
                if size:
                    patience.progressed()
            if done < end:
                fact = f"the store sent {done - start} of the {end - start} bytes that were asked for"
                raise TransientError(str(store.root.child(name)), fact, "check the network and the store")
        except TransientError as exc:
            patience.wait(exc)


class _Patience:
    """Counts failures in a row, and the time."""

    def __init__(self, retry: Retry) -> None:
        self.retry = retry
        self.failures = 0
        self.ends = time.monotonic() + retry.total_seconds

    def progressed(self) -> None:
        self.failures = 0

    def wait(self, exc: TransientError) -> None:
        """Sleep before the next attempt. StorageError where there is to be none."""
        self.failures += 1
        pause = self.retry.wait_seconds(self.failures) + min(exc.after_seconds, AFTER_SECONDS)
        if self.failures >= self.retry.attempts or time.monotonic() + pause > self.ends:
            fact = f"{exc.fact} (given up after {self.failures} attempts in a row)"
            raise StorageError(exc.place, fact, exc.cure or "check the network and the store, then go on") from exc
        log.debug("%s: %s; again in %.2f s", exc.place, exc.fact, pause)
        time.sleep(pause)
