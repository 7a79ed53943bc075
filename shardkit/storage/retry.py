"""When to try again: exponential back-off with full jitter, a cap and an end.

The wait before attempt n is uniform on [0, min(cap, first · 2ⁿ)], the "full jitter" of AWS's article "Exponential
Backoff And Jitter" (2015), so that a thousand ranks whose store hiccups do not come back in step.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from shardkit.errors import StorageError, TransientError

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
    patience = Patience(retry)
    while True:
        try:
            return act()
        except TransientError as exc:
            patience.wait(exc)


class Patience:
    """How much of it is left for one operation: counts failures in a row, and the time."""

    def __init__(self, retry: Retry) -> None:
        self.retry = retry
        self.failures = 0
        self.ends = time.monotonic() + retry.total_seconds

    def progressed(self) -> None:
        """Something came: failures are counted from here."""
        self.failures = 0

    def wait(self, exc: TransientError) -> None:
        """Sleep before the next attempt. StorageError where there is to be none."""
        self.failures += 1
        pause = self.retry.wait_seconds(self.failures) + min(exc.after_seconds, AFTER_SECONDS)
        if self.failures >= self.retry.attempts or time.monotonic() + pause > self.ends:
            fact = f"{exc.fact} (given up after {self.failures} attempts in a row)"
            raise StorageError(exc.place, fact, exc.cure or "check the network and the store, then try again") from exc
        log.debug("%s: %s; again in %.2f s", exc.place, exc.fact, pause)
        time.sleep(pause)
