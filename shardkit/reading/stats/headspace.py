"""How much a perfect loader would bring in a training: its own loop with the real batches, and with one again and
again."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import repeat
from time import perf_counter
from typing import Any, TypeVar

from shardkit.errors import UsageError
from shardkit.options.keywords import named_options
from shardkit.reading.options import at_least

T = TypeVar("T")

WARM_UP = 16
"""Batches before those that are timed, each time: those that were made ahead meanwhile are used up by then."""


@dataclass(frozen=True, slots=True)
class Headspace:
    """How much a perfect loader would bring. seconds: of a step with the real loader, the median of the rounds;
    perfect_seconds: of a step that gets its batch at once. gain: how many times as fast the training would be; low and
    high: the smallest and the largest gain of a round. steps: that were timed, of each kind."""

    seconds: float
    perfect_seconds: float
    gain: float
    low: float
    high: float
    steps: int

    def __str__(self) -> str:
        return (
            f"A perfect loader would make this training {self.gain:.2f} times as fast "
            f"({self.low:.2f} to {self.high:.2f}): {self.perfect_seconds * 1e3:.1f} ms a step in place of "
            f"{self.seconds * 1e3:.1f} ms."
        )


@named_options
def headspace(
    loop: Callable[[Iterable[T]], object],
    batches: Iterable[T],
    *,
    steps: int = 50,
    rounds: int = 3,
    warm_up: int = WARM_UP,
) -> Headspace:
    """Measure how much a perfect loader would bring in a training.

    loop: a function that trains on the batches that it is given: it is called `rounds` times with real ones, and as
    often with a single batch again and again, for which nothing has to be read or decoded. batches: a Dataset, or the
    loader made from it; epochs follow one another. steps: batches of each call that are timed, after `warm_up` that
    are not: those that were made ahead meanwhile have to be used up by then.

    The loop trains the model; save its weights before, if that matters. It must not change the arrays of a batch. Work
    of torch on a GPU is waited for. Raises UsageError for no batches, and for a loop that does not take all that it is
    given.
    """
    if not callable(loop):
        raise UsageError(
            "headspace(loop)", f"{type(loop).__name__} is not a function", "give the loop, then the batches"
        )
    steps, rounds, warm_up = at_least("steps", steps, 1), at_least("rounds", rounds, 1), at_least("warm_up", warm_up, 0)
    source = _endless(batches)
    times: list[tuple[float, float]] = []
    try:
        for _ in range(rounds):
            kept: list[T] = []
            real = _timed(loop, source, (warm_up, steps), kept)
            times.append((real, _timed(loop, repeat(kept[0]), (warm_up, steps), kept)))
    finally:
        source.close()
    gains = [real / perfect for real, perfect in times]
    seconds, perfect = (statistics.median(column) for column in zip(*times, strict=True))
    return Headspace(seconds, perfect, statistics.median(gains), min(gains), max(gains), rounds * steps)


def _timed(loop: Callable[[Iterable[T]], object], source: Iterator[T], counts: tuple[int, int], kept: list[T]) -> float:
    """Seconds of a step of the loop with batches of a source. counts: those before the timed ones, and the timed ones.
    kept: gets the last batch."""
    warm_up, steps = counts
    begun, taken = 0.0, 0

    def batches() -> Iterator[T]:
        nonlocal begun, taken
        for number in range(warm_up + steps):
            if number == warm_up:
                _finish_work()
                begun = perf_counter()
            kept[:] = [next(source)]
            yield kept[0]
            taken += 1

    loop(batches())
    _finish_work()
    if taken < warm_up + steps:
        fact = f"the loop took {taken} of {warm_up + steps} batches"
        raise UsageError("headspace(loop)", fact, "give a function that trains on all batches of an iterable")
    return max(perf_counter() - begun, 1e-9) / steps


def _endless(batches: Iterable[T]) -> Generator[T]:
    """The batches of epoch after epoch."""
    while True:
        empty = True
        for batch in batches:
            empty = False
            yield batch
        if empty:
            raise UsageError(
                "headspace(batches)", "there are no batches", "give a Dataset after batch(), or its loader"
            )


def _finish_work() -> None:
    """Wait for the work that torch has given to a GPU, if it has."""
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
