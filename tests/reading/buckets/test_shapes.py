from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardkit.reading.buckets.shapes import MOST_RATIO, Shape, best_shapes, candidates, losses, nearest

sides = st.integers(1, 4000)
sizes_of_images = st.lists(st.tuples(sides, sides), min_size=1, max_size=60)


def lost(sizes: list[Shape], shapes: list[Shape]) -> float:
    """What is lost of images by the shape that loses least of each."""
    images, chosen = np.array(sizes), np.array(shapes)
    return float(np.min([losses(images, np.broadcast_to(shape, images.shape)) for shape in chosen], axis=0).sum())


@given(st.tuples(st.integers(8, 700), st.integers(8, 700)), st.sampled_from([1, 8, 16, 64]))
def test_candidates_are_the_largest_shapes_of_multiples_with_no_more_pixels(size: Shape, multiple: int) -> None:
    found = candidates(size, multiple)
    ratios = [width / height for height, width in found]
    assert ratios == sorted(ratios)
    for height, width in found:
        assert height % multiple == 0 and width % multiple == 0
        assert height * width <= size[0] * size[1]
        assert max(height, width) <= MOST_RATIO * min(height, width)
    for one, other in itertools.permutations(found[:40], 2):
        assert one[0] > other[0] or one[1] > other[1]
    if size[0] % multiple == 0 and size[1] == size[0]:
        assert size in found or multiple == 1


@settings(max_examples=60)
@given(sizes_of_images, st.integers(1, 4), st.sampled_from([(96, 96), (64, 128), (80, 80)]))
def test_no_other_choice_of_as_many_shapes_loses_less(images: list[Shape], number: int, size: Shape) -> None:
    unique, counts = np.unique(np.array(images), axis=0, return_counts=True)
    found = best_shapes(unique, counts, number, size, 16)
    others = itertools.combinations(candidates(size, 16), min(number, len(candidates(size, 16))))
    assert 1 <= len(found) <= number
    assert lost(images, found) <= min(lost(images, list(other)) for other in others) + 1e-6 * len(images)


def test_more_shapes_than_images_need_are_not_chosen() -> None:
    assert best_shapes(np.array([[300, 300]]), np.array([5]), 7, (64, 64), 8) == [(64, 64)]


@given(sizes_of_images)
def test_of_shapes_with_equal_area_the_ratio_decides(images: list[Shape]) -> None:
    shapes, sizes = [(32, 128), (64, 64), (128, 32)], np.array(images)
    found = nearest(sizes, shapes)
    least = np.min([losses(sizes, np.broadcast_to(shape, sizes.shape)) for shape in shapes], axis=0)
    np.testing.assert_allclose(losses(sizes, np.array(shapes)[found]), least, atol=1e-7)


@pytest.mark.parametrize(
    ("size", "right"),
    [((600, 600), (512, 512)), ((1100, 1000), (1024, 1024)), ((90, 100), (256, 256)), ((800, 820), (512, 512))],
)
def test_of_several_areas_an_image_gets_the_largest_that_it_fills(size: Shape, right: Shape) -> None:
    shapes = [(1024, 1024), (256, 256), (512, 512)]
    assert shapes[int(nearest(np.array([size]), shapes)[0])] == right


def test_the_loss_is_the_part_that_protrudes() -> None:
    sizes = np.array([[100, 200], [100, 100], [300, 100]])
    np.testing.assert_allclose(losses(sizes, np.array([[64, 64], [64, 64], [10, 20]])), [1 / 2, 0, 5 / 6])


def test_five_shapes_lose_at_most_a_third_of_what_the_square_loses() -> None:
    rng = np.random.default_rng(0)
    ratios = np.exp(rng.normal(0.1, 0.4, 3000))  # from narrow portraits to panoramas
    sizes = np.stack([np.rint(500 / np.sqrt(ratios)), np.rint(500 * np.sqrt(ratios))], axis=1).astype(np.int64)
    unique, counts = np.unique(sizes, axis=0, return_counts=True)
    square = losses(sizes, np.broadcast_to((224, 224), sizes.shape)).mean()
    for multiple in (8, 16):
        shapes = best_shapes(unique, counts, 5, (224, 224), multiple)
        assert losses(sizes, np.array(shapes)[nearest(sizes, shapes)]).mean() <= square / 3
