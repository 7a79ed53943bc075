from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest

import shardkit
from shardkit.reading.stats import headspace as module


class Clock:
    """A clock that loaders and loops move."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "perf_counter", made)
    return made


class Loader:
    """Seven batches an epoch, each of which takes some seconds."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self.clock, self.seconds, self.made = clock, seconds, 0

    def __iter__(self) -> Iterator[int]:
        for number in range(7):
            self.clock.now += self.seconds
            self.made += 1
            yield number


def test_the_gain_is_that_of_a_loader_that_takes_no_time(clock: Clock) -> None:
    loader = Loader(clock, 1.0)

    def loop(batches: Iterable[int]) -> None:
        for _ in batches:
            clock.now += 2.0

    found = shardkit.headspace(loop, loader, steps=10, rounds=2, warm_up=5)
    assert (found.seconds, found.perfect_seconds, found.steps) == (3.0, 2.0, 20)
    assert (found.gain, found.low, found.high) == (1.5, 1.5, 1.5)
    assert loader.made == 2 * 15
    assert "1.50 times as fast" in str(found)


def test_the_loop_gets_real_batches_and_then_the_last_of_them_again(clock: Clock) -> None:
    given: list[list[int]] = []

    def loop(batches: Iterable[int]) -> None:
        given.append([])
        for batch in batches:
            clock.now += 1.0
            given[-1].append(batch)

    shardkit.headspace(loop, Loader(clock, 1.0), steps=4, rounds=1, warm_up=0)
    shardkit.headspace(loop, Loader(clock, 1.0), steps=6, rounds=2, warm_up=2)
    assert given == [
        [0, 1, 2, 3], [3] * 4,
        [0, 1, 2, 3, 4, 5, 6, 0], [0] * 8, [1, 2, 3, 4, 5, 6, 0, 1], [1] * 8,
    ]  # fmt: skip


def test_a_dataset_is_measured(tmp_path: Any, draw_tree: Any) -> None:
    batches = shardkit.dataset(draw_tree(tmp_path / "tree", {"a": 20, "b": 20})).decode(size=16).batch(8)

    def loop(some: Iterable[shardkit.Batch]) -> None:
        for images, labels in some:
            assert images.shape == (8, 16, 16, 3) and len(labels) == 8

    found = shardkit.headspace(loop, batches, steps=3, rounds=1)
    assert found.seconds > 0 and found.perfect_seconds > 0


def test_a_loop_that_stops_early_is_told(clock: Clock) -> None:
    def loop(batches: Iterable[int]) -> None:
        for batch in batches:
            if batch == 3:
                break

    with pytest.raises(shardkit.UsageError, match="the loop took 3 of 26 batches"):
        shardkit.headspace(loop, Loader(clock, 1.0), steps=10)


def test_no_batches_and_wrong_numbers_are_told() -> None:
    with pytest.raises(shardkit.UsageError, match="there are no batches"):
        shardkit.headspace(list, [], steps=10)
    for options in ({"steps": 0}, {"rounds": 0}, {"warm_up": -1}, {"steps": 1.5}):
        with pytest.raises(shardkit.UsageError, match=next(iter(options))):
            shardkit.headspace(list, [1, 2], **options)  # type: ignore[arg-type]


def test_an_error_of_the_loop_comes_out_and_the_loader_is_closed() -> None:
    closed: list[bool] = []

    def loader() -> Iterator[int]:
        try:
            yield from range(100)
        finally:
            closed.append(True)

    def loop(batches: Iterable[int]) -> None:
        for _ in batches:
            raise ValueError("a mistake")

    with pytest.raises(ValueError, match="a mistake"):
        shardkit.headspace(loop, loader(), steps=10)
    assert closed == [True]


def test_a_loop_and_batches_in_the_wrong_order_are_told() -> None:
    wrong: Any = [1, 2, 3]
    with pytest.raises(shardkit.UsageError, match=r"headspace\(loop\): list is not a function"):
        shardkit.headspace(wrong, print)  # type: ignore[arg-type]
