"""Windows: an object read with large parts left out, by few and small ranges."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardkit.storage.ranged import GAP_BYTES
from shardkit.storage.windows import FIRST_BYTES, MOST_BYTES, Windows

DATA = random.Random(0).randbytes(3_000_000)


class Counted:
    def __init__(self) -> None:
        self.ranges: list[tuple[int, int]] = []

    def __call__(self, start: int, end: int) -> bytes:
        assert 0 <= start < end <= len(DATA)
        self.ranges.append((start, end))
        return DATA[start:end]


@given(st.lists(st.tuples(st.integers(-2000, 200_000), st.integers(0, 50_000)), max_size=40))
def test_every_call_returns_the_bytes_of_the_object(steps: list[tuple[int, int]]) -> None:
    fetch, at = Windows(Counted(), len(DATA)), 0
    for step, count in steps:
        at = max(0, at + step)
        assert fetch(at, count) == DATA[at : at + count]
        at += count


def test_one_range_is_read_after_each_part_that_is_left_out() -> None:
    read = Counted()
    fetch = Windows(read, len(DATA))
    for at in range(0, len(DATA) - 100_000, 100_000):
        for part in range(3):
            fetch(at + 512 * part, 512)
    assert len(read.ranges) == (len(DATA) - 1) // 100_000
    assert {end - start for start, end in read.ranges[1:]} == {3 * 512}


def test_a_longer_run_than_those_before_is_read_on_and_remembered() -> None:
    read = Counted()
    fetch = Windows(read, len(DATA))
    for number, at in enumerate(range(0, 2_000_000, 100_000)):
        fetch(at, 512)
        if number >= 10:
            fetch(at + 512, 8000)
    sizes = [end - start for start, end in read.ranges]
    assert sizes[0] == FIRST_BYTES and sizes[1:10] == [512] * 9
    assert sizes[-5:] == [8512] * 5


@pytest.mark.parametrize("gap", [0, 1000, GAP_BYTES])
def test_small_gaps_are_read_through_in_growing_windows(gap: int) -> None:
    read = Counted()
    fetch = Windows(read, len(DATA))
    for at in range(0, len(DATA) - 512, 512 + gap):
        fetch(at, 512)
    sizes = [end - start for start, end in read.ranges]
    assert len(sizes) <= 12 and max(sizes) <= MOST_BYTES


def test_nothing_is_read_behind_the_end() -> None:
    read = Counted()
    fetch = Windows(read, len(DATA))
    assert fetch(len(DATA), 512) == b"" and fetch(len(DATA) + 5, 1) == b"" and read.ranges == []
    assert fetch(len(DATA) - 3, 512) == DATA[-3:]
