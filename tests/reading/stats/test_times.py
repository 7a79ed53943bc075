from __future__ import annotations

import pickle

import pytest

from shardkit.reading.stats.times import CLASSES, LEAST, PARTS, Times, class_of


@pytest.mark.parametrize("seconds", [3e-6, 1e-4, 0.02, 0.5, 3.0, 900.0])
def test_percentiles_are_exact_to_a_class(seconds: float) -> None:
    times = Times()
    for _ in range(99):
        times.add(seconds)
    times.add(seconds * 4)
    for percent in (1, 50, 99):
        assert abs(times.percentile(percent) / seconds - 1) < 2 ** (1 / PARTS) - 1
    assert times.percentile(100) > 3 * seconds
    assert times.number == 100


def test_any_duration_has_a_class() -> None:
    assert [class_of(seconds) for seconds in (-1.0, 0.0, LEAST)] == [0, 0, 0]
    assert class_of(1e300) == CLASSES - 1
    classes = [class_of(LEAST * 1.02 * 2 ** (n / PARTS)) for n in range(CLASSES)]
    assert classes == list(range(CLASSES))


def test_no_durations_have_no_percentiles() -> None:
    assert [Times().percentile(percent) for percent in (0, 50, 100)] == [0.0, 0.0, 0.0]


def test_durations_are_added_and_taken_off_and_survive_a_pickle() -> None:
    one, other = Times(), Times()
    for number in range(10):
        one.add(0.01 * number)
        other.add(2.0)
    both = one.plus(other)
    assert (both.number, both.seconds) == (20, pytest.approx(20.45))
    back = pickle.loads(pickle.dumps(both)).plus(other, -1)
    assert (back.counts, back.seconds) == (one.counts, pytest.approx(one.seconds))
