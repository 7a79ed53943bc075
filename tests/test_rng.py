"""Random numbers as functions of key and counter: pinned, uniform, independent of NumPy's own streams."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from shardkit.rng import bits, permutation, stream_key, uniform


def test_the_numbers_of_a_key_are_pinned() -> None:
    assert [hex(value) for value in bits(0, np.arange(3)).tolist()] == [
        "0xe220a8397b1dcdaf",
        "0x6e789e6aa1b965f4",
        "0x6c45d188009454f",
    ]  # SplitMix64 from seed 0, as published with the algorithm


def test_a_stream_key_is_pinned_and_tells_its_parts_apart() -> None:
    assert stream_key("lane", 0, 1, 2) == stream_key("lane", "0", 1, 2)
    assert (
        len({stream_key("a", 1), stream_key("a", 2), stream_key("b", 1), stream_key("a1"), stream_key("a", "1", "")})
        == 5
    )


def test_uniform_numbers_lie_in_their_range_and_have_the_moments_of_one() -> None:
    values = uniform(stream_key("test"), np.arange(100_000))
    assert values.min() >= 0
    assert values.max() < 1
    assert abs(values.mean() - 0.5) < 0.005
    assert abs(values.var() - 1 / 12) < 0.002
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.01


@given(st.integers(0, 2000), st.integers(0, 2**64 - 1))
def test_a_permutation_has_each_number_once(n: int, key: int) -> None:
    assert sorted(permutation(n, key).tolist()) == list(range(n))


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**62))
def test_any_counter_gives_the_same_alone_as_in_a_row(key: int, counter: int) -> None:
    row = bits(key, np.arange(counter, counter + 5))
    assert row[3] == bits(key, np.array([counter + 3]))[0]
