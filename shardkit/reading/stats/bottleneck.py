"""Name the bottleneck: one rule for a running iteration and for `shardkit bench`. Pure functions of numbers.

A loop waits for its batches, or it does not: then it is the limit itself. If it waits, the loader is, in one of three
ways. Its own thread is busy handing batches over; or the decoding threads are idle although the loop waits, so that too
few batches are made ahead; or they are busy, and what they spend most of their time on is the limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Bottleneck = Literal["none", "step", "store", "disk", "decode", "transform", "buffer", "hand-over"]

QUIET = 0.08
"""The share of its time that a loop may wait for batches and be the limit itself."""

IDLE = 0.7
"""Where stages that run at the same time need less than this share of the whole time, the time is lost between them."""

ENOUGH = 8
"""Batches from which on there is something to tell."""

SHORT = 1e-3
"""Seconds of work in threads for a batch below which the loop waits for threads to wake up, not for their work."""

LATENT = 0.6
"""The share of a request's time until its first byte above which more requests at a time would bring more bytes."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Inputs of the rule; times in seconds.

    seconds: of the iteration, which are `wait`, `hand_over` and `step` of the loop's own thread. available: of all
    decoding threads, in which they were `busy`. fetch, decode, transform: of these. requests: to a store; latency: the
    share of their time until the first byte, `narrow` whether ahead_bytes limits them. cpu: of all threads of the
    process. faults: reads of a disk that a thread had to wait for.
    """

    batches: int
    seconds: float
    wait: float
    hand_over: float
    step: float
    available: float = 0.0
    busy: float = 0.0
    fetch: float = 0.0
    decode: float = 0.0
    transform: float = 0.0
    requests: int = 0
    latency: float = 0.0
    narrow: bool = False
    cpu: float = 0.0
    faults: int = 0


def limit_of(needed: Mapping[str, float], whole: float) -> str | None:
    """The stage that needs the most time, of stages that run at the same time; None if all of them together leave the
    time unexplained: it is lost between them. whole: the time that it takes."""
    slowest = max(needed, key=lambda name: needed[name])
    return slowest if needed[slowest] >= IDLE * whole else None


def bottleneck_of(figures: Figures, *, quiet: float = QUIET) -> Bottleneck:
    """The bottleneck; "none" while there are too few batches to tell. quiet: the share of its time that the loop may
    wait and be the limit itself."""
    if figures.batches < ENOUGH or figures.seconds <= 0:
        return "none"
    lost = figures.wait + figures.hand_over
    if lost < quiet * figures.seconds:
        return "step"
    if figures.hand_over >= figures.wait:
        return "hand-over"
    if not figures.available:
        return "store" if figures.requests else "disk"
    if limit_of({"threads": figures.busy}, figures.available) is None:
        return "hand-over" if figures.busy < SHORT * figures.batches else "buffer"
    return _slowest_stage(figures)


def _slowest_stage(figures: Figures) -> Bottleneck:
    """What busy threads spend most of their time on."""
    fetch, decode = figures.fetch, figures.decode
    paused = min(decode, max(0.0, figures.busy - figures.cpu - fetch - figures.transform))
    if figures.faults >= figures.batches and not figures.requests:  # mapped files are read where they are decoded
        fetch, decode = fetch + paused, decode - paused
    stages = {"fetch": fetch, "decode": decode, "transform": figures.transform}
    slowest = max(stages, key=lambda name: stages[name])
    if slowest == "transform":
        return "transform"
    if slowest == "decode":
        return "decode"
    if not figures.requests:
        return "disk"
    return "buffer" if figures.narrow and figures.latency >= LATENT else "store"
