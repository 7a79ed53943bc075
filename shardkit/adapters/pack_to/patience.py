"""How long a reader waits for a packing that is a little behind it."""

from __future__ import annotations

import time

LEAST_SECONDS = 0.1

MOST_MISSED = 64


class Patience:
    """To wait pays where the packing is the faster one: each file is then read once. Where it is slower (a file system
    on which the reader's threads open many files at a time, a slow destination), the reader has to go on alone.

    So a reader waits about twice as long as it usually takes for a block; if that was in vain, it does not wait for the
    next block, then for the next 2, 4 … MOST_MISSED.
    """

    def __init__(self) -> None:
        self._usual = 0.0
        self._since: float | None = None
        self._missed = self._skips = 0

    def seconds(self) -> float:
        """How long to wait now."""
        if self._skips:
            self._skips -= 1
            return 0.0
        return max(LEAST_SECONDS, 2 * self._usual)

    def asked(self, waited: float, *, served: bool) -> None:
        """Note that a block was asked for, after how long a wait at most, and whether it was there."""
        now = time.monotonic()
        if self._since is not None and not waited:
            self._usual = (3 * self._usual + now - self._since) / 4
        self._since = now
        if served:
            self._missed = self._skips = 0
        elif waited:
            self._missed = min(MOST_MISSED, 2 * self._missed or 1)
            self._skips = self._missed
