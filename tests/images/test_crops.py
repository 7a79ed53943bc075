from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardkit.images.crops import RANDOM_DRAWS, RATIO, center_box, cover_box, dct_divisor, random_box

sides = st.integers(1, 3000)
numbers = st.lists(st.floats(0, 1, exclude_max=True), min_size=RANDOM_DRAWS, max_size=RANDOM_DRAWS)


def torchvision_box(height: int, width: int, draws: list[float]) -> tuple[int, int, int, int]:
    """torchvision 0.20, RandomResizedCrop.get_params, with the numbers given instead of drawn."""
    area = height * width
    log_ratio = [math.log(3 / 4), math.log(4 / 3)]
    for i in range(10):
        target_area = area * (0.08 + (1.0 - 0.08) * draws[2 + 2 * i])
        aspect_ratio = math.exp(log_ratio[0] + (log_ratio[1] - log_ratio[0]) * draws[3 + 2 * i])
        w = round(math.sqrt(target_area * aspect_ratio))
        h = round(math.sqrt(target_area / aspect_ratio))
        if 0 < w <= width and 0 < h <= height:
            return math.floor(draws[0] * (height - h + 1)), math.floor(draws[1] * (width - w + 1)), h, w
    in_ratio = float(width) / float(height)
    if in_ratio < 3 / 4:
        w, h = width, round(width / (3 / 4))
    elif in_ratio > 4 / 3:
        h, w = height, round(height * (4 / 3))
    else:
        w, h = width, height
    return (height - h) // 2, (width - w) // 2, h, w


@given(sides, sides, numbers)
def test_a_random_box_is_the_one_of_torchvision_s_formula(height: int, width: int, draws: list[float]) -> None:
    assert random_box(height, width, draws) == torchvision_box(height, width, draws)


@given(sides, sides, numbers)
def test_a_random_box_lies_inside_the_image(height: int, width: int, draws: list[float]) -> None:
    top, left, box_height, box_width = random_box(height, width, draws)
    assert 0 <= top <= top + box_height <= height
    assert 0 <= left <= left + box_width <= width
    assert box_height >= 1
    assert box_width >= 1


@pytest.mark.parametrize(("height", "width"), [(1000, 10), (10, 1000)])
def test_an_image_too_narrow_for_any_try_gives_its_middle_with_the_nearest_ratio(height: int, width: int) -> None:
    top, left, box_height, box_width = random_box(height, width, [0.9] * RANDOM_DRAWS)
    assert (top, left) == ((height - box_height) // 2, (width - box_width) // 2)
    assert min(box_height, box_width) == 10
    assert RATIO[0] - 0.03 <= box_width / box_height <= RATIO[1] + 0.03


def test_random_boxes_are_uniform_in_area_log_ratio_and_place() -> None:
    draws = np.random.default_rng(3).random((20_000, RANDOM_DRAWS))
    # so wide that every first try fits: no selection changes the distribution
    boxes = np.array([random_box(4000, 4000, row) for row in draws.tolist()], dtype=float)
    top, _, height, width = boxes.T
    first = 4000 * 4000 * (0.08 + 0.92 * draws[:, 2])
    fits = np.sqrt(first * 4 / 3) <= 4000
    share = (height * width)[fits] / 4000**2
    limit = 3 / 4  # areas up to here always fit
    below = share[share < limit]
    assert np.histogram(below, 4, (0.08, limit))[0] == pytest.approx(np.full(4, len(below) / 4), rel=0.06)
    logs = np.log(width / height)[fits]
    assert np.histogram(logs, 4)[0] == pytest.approx(np.full(4, len(logs) / 4), rel=0.06)
    room = 4000 - height
    place = top[room > 100] / room[room > 100]
    assert np.histogram(place, 4, (0, 1))[0] == pytest.approx(np.full(4, len(place) / 4), rel=0.06)


def test_a_center_box_is_224_of_256_parts_of_the_shorter_side() -> None:
    assert center_box(256, 512, (224, 224)) == (16, 144, 224, 224)
    assert center_box(512, 256, (64, 64)) == (144, 16, 224, 224)
    assert center_box(32, 32, (32, 32)) == (2, 2, 28, 28)


def test_a_center_box_has_the_proportions_of_the_size() -> None:
    assert center_box(400, 800, (100, 200)) == (25, 50, 350, 700)
    assert center_box(800, 400, (100, 200)) == (312, 25, 175, 350)


@given(sides, sides, st.tuples(st.integers(1, 500), st.integers(1, 500)))
def test_a_center_box_lies_inside_the_image_and_in_its_middle(height: int, width: int, size: tuple[int, int]) -> None:
    top, left, box_height, box_width = center_box(height, width, size)
    assert top >= 0
    assert left >= 0
    assert 0 <= height - (top + box_height) - top <= 1
    assert 0 <= width - (left + box_width) - left <= 1


def test_a_jpeg_is_only_shrunk_as_far_as_leaves_the_headroom_both_ways() -> None:
    assert dct_divisor((0, 0, 672, 672), (224, 224), headroom=1.5) == 2
    assert dct_divisor((0, 0, 671, 2000), (224, 224), headroom=1.5) == 1
    assert dct_divisor((0, 0, 1344, 1344), (224, 224), headroom=1.5) == 4
    assert dct_divisor((0, 0, 9999, 9999), (224, 224), headroom=1.5) == 8
    assert dct_divisor((0, 0, 9999, 9999), (224, 224), headroom=math.inf) == 1


@pytest.mark.parametrize("times", [1, 2, 4, 8])
def test_a_jpeg_is_shrunk_by_a_divisor_from_just_where_it_fits(times: int) -> None:
    for headroom in (1.0, 1.5):
        side = round(20 * headroom) * times
        assert dct_divisor((0, 0, side, 2 * side), (20, 20), headroom=headroom) == times
        assert dct_divisor((0, 0, 2 * side, side), (20, 20), headroom=headroom) == times
        assert dct_divisor((0, 0, side - 1, side), (20, 20), headroom=headroom) == max(1, times // 2)


@given(sides, sides, st.tuples(st.integers(1, 600), st.integers(1, 600)), numbers)
def test_a_covering_box_is_the_largest_one_with_the_proportions_of_the_size(
    height: int, width: int, size: tuple[int, int], draws: list[float]
) -> None:
    top, left, box_height, box_width = cover_box(height, width, size)
    assert box_height == height or box_width == width
    assert box_height <= height and box_width <= width
    whole = min(height / size[0], width / size[1])
    assert abs(box_height - whole * size[0]) <= 1 and abs(box_width - whole * size[1]) <= 1
    assert (top, left) == ((height - box_height) // 2, (width - box_width) // 2)
    moved = cover_box(height, width, size, draws)
    assert moved[2:] == (box_height, box_width)
    assert 0 <= moved[0] <= height - box_height and 0 <= moved[1] <= width - box_width
