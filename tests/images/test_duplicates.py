"""The rule of near-duplicates: the same answer in whatever order images are given, and how far it looks."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from images.photos import copies, jpeg, photo

from shardkit.checksums import crc32c
from shardkit.images.quality import near
from shardkit.images.quality.duplicates import (
    BRIGHTNESS_APART,
    MOST_CONFIRMED,
    Looks,
    candidates_between,
    candidates_within,
    joined,
    look_alike,
)
from shardkit.images.quality.quality import grid_of, quality

Images = list[bytes]


@pytest.fixture(scope="module")
def images() -> Images:
    """Six pictures, each with its changed copies."""
    return [each for seed in range(6) for each in (jpeg(photo(seed)), *copies(photo(seed)).values())]


def looks_of(images: Images) -> Looks:
    found = [quality(each) for each in images]
    prints = np.array([len(each) << 32 | crc32c(each) for each in images], np.uint64)
    columns = [np.array([getattr(one, name) for one in found]) for name in ("phash", "brightness", "entropy")]
    return Looks(prints, columns[0].astype(np.uint64), *columns[1:])


def grids_of(images: Images) -> Any:
    return lambda rows: np.array([grid_of(images[row]) for row in rows])


def alike(images: Images, others: Images | None = None) -> set[frozenset[bytes]]:
    """The pairs that look alike, as their files."""
    ours = (looks_of(images), grids_of(images))
    theirs = ours if others is None else (looks_of(others), grids_of(others))
    second = images if others is None else others
    found = candidates_within(ours[0]) if others is None else candidates_between(ours[0], theirs[0])
    kept = found.pairs[look_alike(found.pairs, ours, theirs)]
    return {frozenset((images[row], second[twin])) for row, twin in kept.tolist()}


def test_changed_copies_look_like_their_picture_and_like_no_other(images: Images) -> None:
    pairs = np.array([[images.index(each) for each in pair] for pair in alike(images)])
    assert joined(pairs) == [tuple(range(n, n + 5)) for n in range(0, len(images), 5)]


def test_the_order_of_the_images_does_not_matter(images: Images) -> None:
    found = alike(images)
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(len(images))
        assert alike([images[n] for n in order]) == found


def test_the_order_of_the_images_of_two_sets_does_not_matter(images: Images) -> None:
    first, second = images[::2], images[1::2]
    found = alike(first, second)
    assert {image for pair in found for image in pair if image in first} == set(first)  # each has a copy there
    assert alike(first[::-1], second[::-1]) == found
    assert {image for pair in alike(second, first) for image in pair if image in second} == set(second)
    assert all(len(pair & set(first)) == 1 for pair in found)


def test_equal_files_are_there_once_and_in_two_sets_not_at_all(images: Images) -> None:
    assert alike(images + images) == alike(images)
    assert alike(images, images) == set()


def test_what_shows_nothing_looks_like_nothing() -> None:
    plain = [jpeg(photo(1).point(lambda _, value=value: value)) for value in (10, 11)]  # type: ignore[misc]
    looks = looks_of(plain)
    assert len(looks.compared()) == 0
    assert len(candidates_within(looks).pairs) == 0


def test_candidates_have_about_the_same_brightness_and_the_nearest_come_first() -> None:
    rows = 60
    brightness = np.where(np.arange(rows) % 2, 0.5, 0.5 + 2 * BRIGHTNESS_APART)
    hashes = np.array([(1 << n % 4) - 1 for n in range(rows)], np.uint64)
    looks = Looks(np.arange(1, rows + 1).astype(np.uint64), hashes, brightness, np.full(rows, 7.0))
    found = candidates_within(looks)
    assert len(found.near) > found.count == len(found.pairs) <= MOST_CONFIRMED
    assert (brightness[found.pairs[:, 0]] == brightness[found.pairs[:, 1]]).all()
    apart = [(int(a) ^ int(b)).bit_count() for a, b in hashes[found.pairs].tolist()]
    assert apart == sorted(apart)


def test_very_many_near_hashes_are_searched_less_far(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(near, "MOST_PAIRS", 100)
    rng = np.random.default_rng(0)
    hashes = np.unique(rng.integers(0, 1 << 10, 200).astype(np.uint64))
    looks = Looks(hashes + np.uint64(1), hashes, np.full(len(hashes), 0.5), np.full(len(hashes), 7.0))
    with caplog.at_level(logging.WARNING):
        found = candidates_within(looks)
    assert "compared are those up to" in caplog.text
    assert len(found.pairs) <= 100


def test_pairs_are_joined_to_groups() -> None:
    pairs = np.array([[5, 3], [1, 2], [3, 9], [2, 4], [9, 5]])
    assert sorted(joined(pairs)) == [(1, 2, 4), (3, 5, 9)]
    assert joined(np.zeros((0, 2), np.int64)) == []
