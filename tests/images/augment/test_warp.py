"""The warp in C and its twin in NumPy: the same bits, any size, and coordinates that are no good."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardkit.images.augment import plain, warp
from shardkit.images.augment.plain import FILL_MODES, Warp
from shardkit.native import load

needs_c = pytest.mark.skipif(not warp.available(), reason="shardkit was built without its warp")

numbers = st.floats(-3, 3) | st.floats(allow_nan=True, allow_infinity=True)
offsets = st.floats(-60, 60) | st.floats(allow_nan=True, allow_infinity=True)
ways = st.builds(
    Warp,
    st.tuples(numbers, numbers, offsets, numbers, numbers, offsets),
    st.sampled_from(FILL_MODES),
    st.floats(-300, 300, width=32) | st.sampled_from([1e12, -1e12]),
    st.sampled_from([0, 1]),
    st.tuples(st.booleans(), st.booleans()),
)
shapes = st.tuples(st.integers(1, 12), st.integers(1, 12), st.sampled_from([1, 2, 3, 4]))


def picture(shape: tuple[int, int, int], kind: Any) -> np.ndarray:
    values = np.random.default_rng(sum(shape)).integers(0, 256, shape)
    return values.astype(kind)


@needs_c
@given(shapes, ways, st.sampled_from([np.uint8, np.float32]))
def test_the_twin_gives_the_bits_of_the_warp_in_c(shape: tuple[int, int, int], how: Warp, kind: Any) -> None:
    image, exact, near = picture(shape, kind), np.empty(shape, np.float32), np.empty(shape, np.float32)
    with np.errstate(all="ignore"):
        twin = plain.warp(image, how)
    warp.warp_into(image, how, exact, exact=True)
    np.testing.assert_array_equal(exact, twin)
    warp.warp_into(image, how, near)
    np.testing.assert_allclose(near, twin, atol=1e-3)


@needs_c
@given(shapes, ways, st.sampled_from([np.uint8, np.float32]))
def test_bytes_are_rounded_and_clipped(shape: tuple[int, int, int], how: Warp, kind: Any) -> None:
    image, floats, made = picture(shape, kind), np.empty(shape, np.float32), np.empty(shape, np.uint8)
    warp.warp_into(image, how, floats)
    warp.warp_into(image, how, made)
    assert np.abs(made - np.clip(floats, 0, 255)).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("native", [True, False])
def test_values_are_scaled_before_they_are_rounded(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not native:
        monkeypatch.setattr(warp, "available", lambda: False)
    still = Warp((1.0, 0.0, 0.0, 0.0, 1.0, 0.0), "nearest", 0.0, 1, (False, True))
    image, out = picture((5, 6, 3), np.uint8), np.empty((5, 6, 3), np.uint8)
    warp.warp_into(image, still, out, scale=0.5)
    np.testing.assert_array_equal(out, np.rint(image[:, ::-1] * 0.5))


@needs_c
def test_the_part_in_c_refuses_arrays_that_do_not_fit() -> None:
    call = load("augment")[0].warp
    image, still = np.zeros((4, 5, 3), np.uint8), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)

    def refused(**changed: Any) -> None:
        given = {"image": image, "out": np.empty_like(image), "matrix": still, "fill": 0, "order": 1} | changed
        with pytest.raises((ValueError, TypeError, BufferError)):
            call(given["image"], given["out"], given["matrix"], given["fill"], 0.0, given["order"], 0, 0, 0, 1.0)

    for out in (np.empty((4, 5, 4), np.uint8), np.empty((4, 5, 3)), np.empty((5, 3), np.uint8), bytes(60)):
        refused(out=out)
    refused(image=image[:, ::-1])
    refused(image=np.zeros((4, 5, 3), np.int8))
    refused(fill=4)
    refused(order=2)
    refused(matrix=still[:5])


def test_a_spline_without_scipy_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "scipy.ndimage", None)
    how = Warp((1.0, 0.1, 0.0, 0.0, 1.0, 0.0), "nearest", 0.0, 3, (False, False))
    with pytest.raises(warp.MissingExtraError, match="interpolation_order: 3 needs SciPy"):
        warp.warp_into(np.zeros((3, 3, 3), np.uint8), how, np.empty((3, 3, 3), np.float32))
