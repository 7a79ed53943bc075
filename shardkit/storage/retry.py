"""Retries: exponential back-off with full jitter, a cap and an overall limit.

The wait before attempt n is uniform on [0, min(cap, first · 2ⁿ)], the "full jitter" of AWS's article "Exponential
Backoff And Jitter" (2015), so that a thousand ranks do not all retry at the same moment.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

import msgspec

from shardkit.errors import StorageError, TransientError

log = logging.getLogger(__name__)

T = TypeVar("T")


AFTER_SECONDS = 60.0
"""The longest wait for a server's Retry-After."""


class Retry(msgspec.Struct, frozen=True):
    """Retry limits: attempts in a row without any progress, waits, and the time limit of one operation."""

    attempts: int = 8
    first_seconds: float = 0.1
    cap_seconds: float = 10.0
    total_seconds: float = 300.0

    def wait_seconds(self, failures: int) -> float:
        """How long to wait after this many failures in a row (from 1)."""
        return random.uniform(0.0, min(self.cap_seconds, self.first_seconds * 2.0 ** min(failures, 64)))


def call_with_retries(act: Callable[[], T], retry: Retry) -> T:
    """The result of `act`, called again after each TransientError. StorageError when the retries are used up.

    An iterator fails while it is read, not when it is created: `act` must consume it.
    """
    patience = Patience(retry)
    while True:
        try:
            return act()
        except TransientError as exc:
            patience.wait(exc)


class Patience:
    """The retries left for one operation: counts failures in a row, and the time."""

    def __init__(self, retry: Retry) -> None:
        self.retry = retry
        self.failures = 0
        self.ends = time.monotonic() + retry.total_seconds

    def note_progress(self) -> None:
        """Note progress: the count of failures starts again at 0."""
        self.failures = 0

    def wait(self, exc: TransientError) -> None:
        """Sleep before the next attempt. StorageError if no attempt is left."""
        self.failures += 1
        pause = self.retry.wait_seconds(self.failures) + min(exc.after_seconds, AFTER_SECONDS)
        if self.failures >= self.retry.attempts or time.monotonic() + pause > self.ends:
            fact = f"{exc.fact} (gave up after {self.failures} attempts in a row)"
            raise StorageError(exc.place, fact, exc.cure or "check the network and the store, then try again") from exc
        log.debug("%s: %s; retrying in %.2f s", exc.place, exc.fact, pause)
        time.sleep(pause)
