from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest

from shardkit.reading.stats.auto import AGAIN, MOST_THREADS, PATIENCE, TRIES, Limits, Point, State, decided, within
from shardkit.reading.stats.bottleneck import Figures

CORES = 4
BOTH = Limits(threads=True, ahead=True, cores=CORES)


@dataclass(frozen=True)
class Training:
    """A loop and its loader, simulated: seconds for a batch.

    cpu: of a core. pause: of a thread that waits, of which `lanes` may wait at a time. step: of the loop; every
    `burst`-th takes as long as `burst` of them and the others none. noise: of what is measured.
    """

    cpu: float = 0.01
    pause: float = 0.0
    lanes: int = 1000
    step: float = 0.001
    burst: int = 1
    noise: float = 0.0
    stage: str = "transform"

    def figures(self, point: Point, rng: np.random.Generator) -> Figures:
        """What is measured in a second with these threads and batches ahead."""
        threads = min(point.threads, point.ahead)
        made = max((self.cpu + self.pause) / threads, self.cpu / CORES, self.pause / self.lanes)
        ready = min(1.0, (point.ahead - 1) / self.burst)  # of a burst
        whole = max(made, self.step) * ready + (made + self.step) * (1 - ready)
        rate = (1 + self.noise * rng.standard_normal()) / whole
        wait = max(0.0, 1 - self.step * rate)
        busy = min(1.0, made * rate)
        spent = {"decode": 0.1, self.stage: 0.9} if self.pause else {"decode": 1.0}
        return Figures(
            batches=round(rate * 10), seconds=10.0, wait=10 * wait, hand_over=0.0, step=10 * (1 - wait),
            available=10.0 * point.threads, busy=busy * 10 * point.threads,
            cpu=10 * min(CORES, self.cpu * rate),
            **{name: share * busy * point.threads for name, share in spent.items()},
        )  # fmt: skip

    def rate(self, point: Point) -> float:
        """Batches a second."""
        figures = replace(self, noise=0.0).figures(point, np.random.default_rng(0))
        return figures.batches / figures.seconds


TRAININGS = {
    "one that only decodes": Training(cpu=0.04),
    "functions that wait": Training(cpu=0.002, pause=0.2, step=0.002),
    "functions that wait and work": Training(cpu=0.01, pause=0.08),
    "a disk that serves four at a time": Training(cpu=0.002, pause=0.06, lanes=4, stage="fetch"),
    "a slow loop": Training(cpu=0.01, step=0.2),
    "a loop in bursts": Training(cpu=0.02, step=0.006, burst=16),
    "a loop in long bursts": Training(cpu=0.02, step=0.0055, burst=40),
    "a loop in bursts and functions that wait": Training(cpu=0.002, pause=0.1, step=0.012, burst=8),
}


def course(training: Training, state: State, windows: int, *, limits: Limits = BOTH, seed: int = 0) -> list[Point]:
    rng, points = np.random.default_rng(seed), [state.point]
    for _ in range(windows):
        state = decided(state, training.figures(state.point, rng), limits)
        points.append(state.point)
    return points


WINDOWS = 26
"""Of 0.75 s, in 20 s."""


@pytest.mark.parametrize("name", TRAININGS)
@pytest.mark.parametrize("start", [Point(CORES, CORES + 2), Point(1, 1)], ids=["usual", "least"])
def test_it_comes_to_the_best_of_a_full_grid_in_twenty_seconds(name: str, start: Point) -> None:
    training = TRAININGS[name]
    grid = [Point(threads, ahead) for threads in range(1, MOST_THREADS + 1) for ahead in range(1, 129)]
    best = max(training.rate(point) for point in grid)
    assert training.rate(course(training, State(start), WINDOWS)[-1]) >= 0.95 * best


@pytest.mark.parametrize("name", TRAININGS)
def test_it_does_not_oscillate(name: str) -> None:
    for seed in range(5):
        training = replace(TRAININGS[name], noise=0.03)
        points = course(training, State(Point(CORES, CORES + 2)), 1000, seed=seed)
        changes = sum(one != other for one, other in pairwise(points[100:]))
        assert changes <= 12


@pytest.mark.parametrize("most", [1, 3, 10])
def test_no_more_is_ahead_than_memory_allows(most: int) -> None:
    limits = replace(BOTH, most_ahead=most)
    for training in TRAININGS.values():
        points = course(training, State(within(Point(CORES, CORES + 2), limits)), 100, limits=limits)
        assert max(point.ahead for point in points) <= most


def test_memory_that_shrinks_takes_effect_at_once() -> None:
    state = decided(State(Point(4, 60)), TRAININGS["a slow loop"].figures(Point(4, 60), np.random.default_rng(0)),
                    replace(BOTH, most_ahead=7))  # fmt: skip
    assert state.point == Point(4, 7)


@pytest.mark.parametrize(
    ("limits", "fixed"),
    [
        (Limits(threads=False, ahead=True, cores=CORES), lambda point: point.threads),
        (Limits(threads=True, ahead=False, cores=CORES), lambda point: point.ahead),
        (Limits(threads=False, ahead=False, cores=CORES), lambda point: point),
    ],
    ids=["threads", "ahead", "both"],
)
def test_what_the_user_gave_is_never_changed(limits: Limits, fixed: Callable[[Point], object]) -> None:
    for training in TRAININGS.values():
        points = course(training, State(Point(3, 5)), 60, limits=limits)
        assert {fixed(point) for point in points} == {fixed(Point(3, 5))}


def test_a_training_that_changes_is_followed() -> None:
    state, rng = State(Point(CORES, CORES + 2)), np.random.default_rng(0)
    for training in (TRAININGS["one that only decodes"], TRAININGS["functions that wait"]) * 2:
        for _ in range(60):
            state = decided(state, training.figures(state.point, rng), BOTH)
        assert training.rate(state.point) >= 0.95 * max(
            training.rate(Point(threads, threads + 2)) for threads in range(1, MOST_THREADS + 1)
        )


def test_a_trial_that_another_program_spoiled_is_made_again() -> None:
    training, state, rng = TRAININGS["functions that wait"], State(Point(CORES, CORES + 2)), np.random.default_rng(0)
    for window in range(WINDOWS + PATIENCE * AGAIN):
        figures = training.figures(state.point, rng)
        spoiled = 1 <= window <= 1 + TRIES
        state = decided(state, replace(figures, batches=figures.batches // 4) if spoiled else figures, BOTH)
        if window == 1 + TRIES:
            assert state.refused
    assert training.rate(state.point) >= 0.95 * training.rate(Point(MOST_THREADS, MOST_THREADS + 2))


def test_a_window_without_batches_changes_nothing() -> None:
    state = State(Point(2, 4))
    assert decided(state, Figures(0, 0.0, 0.0, 0.0, 0.0), BOTH) == state
