"""Near hashes and alike grids: the same pairs from C and NumPy, every near pair, and copies told from other images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from shardkit.images.quality import near as module
from shardkit.images.quality.near import (
    ALIKE,
    BY_CHANCE,
    CHUNKS,
    FLIPS,
    MOST_BITS,
    candidate_bits,
    likeness,
    near_pairs,
    plain_search,
)
from shardkit.images.quality.quality import GRID, HASH_BITS
from shardkit.native import load

SURE = CHUNKS * (FLIPS + 1) - 1
needs_near = pytest.mark.skipif(load("near")[0] is None, reason="shardkit was built without its C extensions")


def hashes(count: int, seed: int = 0) -> Any:
    """Random ones, half of them copies of others with up to MOST_BITS changed bits."""
    rng = np.random.default_rng(seed)
    found = rng.integers(0, 1 << 64, count, dtype=np.uint64)
    for row in range(count // 2, count):
        flips = rng.choice(HASH_BITS, rng.integers(0, MOST_BITS + 1), replace=False)
        found[row] = found[row - count // 2] ^ np.bitwise_or.reduce(
            np.uint64(1) << flips.astype(np.uint64), initial=np.uint64(0)
        )
    return found


def brute(first: Any, second: Any, bits: int) -> set[tuple[int, int]]:
    apart = [[(int(a) ^ int(b)).bit_count() for b in second] for a in first]
    return {(i, j) for i, row in enumerate(apart) for j, count in enumerate(row) if count <= bits}


@needs_near
@pytest.mark.parametrize("bits", [0, 3, SURE, MOST_BITS])
def test_c_and_numpy_find_the_same_pairs(bits: int) -> None:
    first, second = np.unique(hashes(400)), np.unique(hashes(300, seed=1) ^ np.uint64(5))
    second[:50] = first[:50] ^ np.uint64(0x8001)
    native = load("near")[0]
    for other in (None, second):
        found = np.frombuffer(native.pairs(first, other, bits, 1 << 20), np.int32).reshape(-1, 2)
        assert sorted(map(tuple, found.tolist())) == sorted(map(tuple, plain_search(first, other, bits).tolist()))


@pytest.mark.parametrize("plain", [False, True], ids=["C", "NumPy"])
def test_every_pair_that_differs_in_up_to_11_bits_is_found(plain: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if plain:
        monkeypatch.setattr(module, "load", lambda _: (None, "no compiler"))
    first, second = np.unique(hashes(300)), np.unique(hashes(300, seed=2))
    within = {(i, j) for i, j in brute(first, first, SURE) if i < j}
    assert within
    assert set(map(tuple, near_pairs(first, bits=SURE).tolist())) == within
    second[:100] = first[:100] ^ np.uint64((1 << SURE) - 1)
    assert set(map(tuple, near_pairs(first, second, bits=SURE).tolist())) == brute(first, second, SURE)


def test_the_first_of_equal_hashes_stands_for_all() -> None:
    first = np.array([7, 9, 7, 7 | 1 << 40, 9, 1 << 63], np.uint64)
    assert near_pairs(first, bits=1).tolist() == [[0, 2], [0, 3], [1, 4]]
    second = np.array([1 << 63, 9, 9, 6], np.uint64)
    assert near_pairs(first, second, bits=1).tolist() == [[0, 3], [1, 1], [2, 3], [4, 1], [5, 0]]


def test_nothing_is_near_nothing() -> None:
    none = np.zeros(0, np.uint64)
    assert near_pairs(none, bits=3).shape == (0, 2)
    assert near_pairs(none, hashes(4), bits=3).shape == (0, 2)
    assert near_pairs(hashes(4), none, bits=64).shape == (0, 2)


@pytest.mark.parametrize("plain", [False, True], ids=["C", "NumPy"])
def test_too_many_pairs_are_an_error(plain: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if plain:
        monkeypatch.setattr(module, "load", lambda _: (None, "no compiler"))
    monkeypatch.setattr(module, "MOST_PAIRS", 100)
    with pytest.raises(ValueError, match="more than 100 pairs"):
        near_pairs(np.arange(64, dtype=np.uint64), bits=2)


def test_the_more_images_the_nearer_are_candidates() -> None:
    found = [candidate_bits(10**power) for power in range(1, 8)]
    assert found == sorted(found, reverse=True)
    assert (found[0], candidate_bits(1000, 1000)) == (MOST_BITS, MOST_BITS)
    from math import comb

    bits = candidate_bits(10**6, 10**6)
    assert 10**12 * sum(comb(HASH_BITS, some) for some in range(bits + 1)) <= BY_CHANCE << HASH_BITS


def grids(count: int) -> Any:
    rng = np.random.default_rng(3)
    spectrum = rng.normal(size=(count, 96, 96)) + 1j * rng.normal(size=(count, 96, 96))
    steps = np.hypot(*np.meshgrid(np.fft.fftfreq(96), np.fft.fftfreq(96)))
    found = np.fft.ifft2(spectrum / np.maximum(steps, 1 / 96) ** 1.2).real
    return (found - found.min()) * 4080 / np.ptp(found)


def cells(pictures: Any) -> Any:
    """GRID x GRID means of pictures whose sides need not be multiples."""
    found = np.repeat(np.repeat(pictures, GRID, 1), GRID, 2)
    return found.reshape(len(found), GRID, pictures.shape[1], GRID, pictures.shape[2]).mean((2, 4))


def test_a_cropped_darker_or_noisy_copy_is_alike_and_another_image_is_not() -> None:
    pictures = grids(30)
    whole = cells(pictures)
    assert likeness(whole, whole) == pytest.approx(1)
    assert likeness(whole, whole / 2 + 100) == pytest.approx(1)
    for crop in (np.s_[:, 2:94, 2:94], np.s_[:, 5:, 5:], np.s_[:, :, :-5], np.s_[:, :-4, 2:]):
        assert (likeness(whole, cells(pictures[crop])) >= ALIKE).mean() >= 0.9
        assert (likeness(cells(pictures[crop]), whole) >= ALIKE).mean() >= 0.9
    assert (likeness(whole, np.roll(whole, 1, axis=0)) < ALIKE).all()
    assert (likeness(whole, whole[:, ::-1]) < ALIKE).all()


def test_flat_grids_are_not_alike() -> None:
    flat = np.full((2, GRID, GRID), 77)
    assert (likeness(flat, flat) == 0).all()
    assert (likeness(flat, cells(grids(2))) == 0).all()
    assert likeness(flat[:0], flat[:0]).shape == (0,)
