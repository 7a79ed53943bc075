"""Choose threads and batches ahead while reading. The decisions are a pure function of what was measured.

Every window of time, the controller looks at what the iteration was limited by, as `stats()` names it:

- the loop itself, the store, or the hand-over: nothing that it sets would help;
- too little made ahead: it takes four times as much;
- anything else, while cores are idle: it doubles `threads`, since the threads wait for something.

Each change is a trial. Unless the rate grew by GAIN, it is taken back, and that change is not tried again before the
limit has been another one for a while, or AGAIN times as long has passed in any case, since other programs may have
spoiled the trial. Both take twice as long each time: so it does not oscillate.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from shardkit.reading.stats.bottleneck import Bottleneck, Figures, bottleneck_of

WINDOW_SECONDS = 0.75
"""The least time between two decisions."""

WINDOW_BATCHES = 8
"""The fewest batches between two decisions."""

GAIN = 1.04
"""How many times as fast a change has to make it."""

TRIES = 2
"""Windows in which a change may show that it helps."""

QUIET = 0.03
"""The share of its time that the loop may wait without anything being changed."""

IDLE_CORES = 0.85
"""Threads are added while the process uses less than this share of its cores."""

MOST_THREADS = 32
MOST_AHEAD = 128

PATIENCE = 4
"""Windows in a row with another limit after which a change that did not help is tried again, at first."""

AGAIN = 2
"""How many times PATIENCE windows, whatever the limit, until it is tried again."""

Axis = Literal["threads", "ahead"]


@dataclass(frozen=True, slots=True)
class Point:
    """What is set."""

    threads: int
    ahead: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be set. threads, ahead: whether the controller sets them. most_ahead: batches that memory allows."""

    threads: bool
    ahead: bool
    cores: int
    most_ahead: int = MOST_AHEAD


@dataclass(frozen=True, slots=True)
class Trial:
    """A change under trial. before: what was set, and the rate with it. windows: how many are over."""

    axis: Axis
    before: Point
    rate: float
    windows: int = 0


@dataclass(frozen=True, slots=True)
class State:
    """What the controller knows. refused: changes that did not help, with the limit at that time. windows: how many are
    over since then; other: how many in a row had another limit; patience: how many of these it takes."""

    point: Point
    trial: Trial | None = None
    refused: tuple[tuple[Axis, Bottleneck], ...] = ()
    windows: int = 0
    other: int = 0
    patience: int = PATIENCE


def decided(state: State, figures: Figures, limits: Limits) -> State:
    """The state after a window with these figures."""
    point = within(state.point, limits)
    if point != state.point:
        return replace(state, point=point, trial=None)
    rate = figures.batches / figures.seconds if figures.seconds > 0 else 0.0
    limit = bottleneck_of(figures, quiet=QUIET)
    if state.trial is not None:
        return _tried(state, state.trial, rate, limit)
    state = _remembered(state, limit)
    axis = _axis(figures, limit, limits)
    if axis is None or (axis, limit) in state.refused:
        return state
    further = within(_more(point, axis, limits), limits)
    if further == point:
        return state
    return replace(state, point=further, trial=Trial(axis, point, rate))


def within(point: Point, limits: Limits) -> Point:
    """The point, or the next one that memory allows."""
    return replace(point, ahead=max(1, min(point.ahead, limits.most_ahead))) if limits.ahead else point


def _tried(state: State, trial: Trial, rate: float, limit: Bottleneck) -> State:
    """The end of a trial: its first window does not count, since it has batches from before, and one of TRIES others
    has to show the gain, since other programs may have slowed one of them."""
    if trial.windows and rate >= GAIN * trial.rate:
        return replace(state, trial=None, other=0)
    if trial.windows < TRIES:
        return replace(state, trial=replace(trial, windows=trial.windows + 1))
    refused = (*state.refused, *((trial.axis, name) for name in {limit, *_same(trial.axis)}))
    return replace(state, point=trial.before, trial=None, refused=refused, windows=0, other=0)


def _same(axis: Axis) -> tuple[Bottleneck, ...]:
    """The limits for which a change is tried."""
    return ("buffer",) if axis == "ahead" else ("disk", "decode", "transform")


def _remembered(state: State, limit: Bottleneck) -> State:
    """The refused changes are forgotten when the limit has been one for which none was refused, or any, for long
    enough."""
    if not state.refused:
        return replace(state, windows=0, other=0)
    same = limit in {name for _, name in state.refused} or limit == "none"
    state = replace(state, windows=state.windows + 1, other=0 if same else state.other + 1)
    if state.other < state.patience and state.windows < AGAIN * state.patience:
        return state
    return replace(state, refused=(), windows=0, other=0, patience=2 * state.patience)


def _axis(figures: Figures, limit: Bottleneck, limits: Limits) -> Axis | None:
    """What to change."""
    if limit == "buffer":
        return "ahead" if limits.ahead else None
    if limit in ("disk", "decode", "transform") and figures.cpu < IDLE_CORES * limits.cores * figures.seconds:
        return "threads" if limits.threads else None
    return None


def _more(point: Point, axis: Axis, limits: Limits) -> Point:
    if axis == "ahead":
        return replace(point, ahead=min(MOST_AHEAD, 4 * point.ahead))
    threads = min(MOST_THREADS, 2 * point.threads)
    return Point(threads, max(point.ahead, threads + 2) if limits.ahead else point.ahead)
