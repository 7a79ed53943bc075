from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from shardkit.errors import UsageError
from shardkit.images import fused
from shardkit.images.annotations.move import Move
from shardkit.images.annotations.options import Boxes, as_boxes, as_masks
from shardkit.images.decoder import DecodeOptions, ImageDecoder
from shardkit.images.orientation import TAG

CROPS = ("resize", "center", "cover", "random", "random-cover", "pad")


@pytest.fixture(params=["fused", "plain"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "plain":
        monkeypatch.setattr(fused, "available", lambda part="": False)


def png(pixels: np.ndarray, orientation: int = 1) -> bytes:
    sink, exif = io.BytesIO(), Image.Exif()
    exif[TAG] = orientation
    Image.fromarray(pixels).save(sink, "PNG", exif=exif)
    return sink.getvalue()


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("flip", [False, "both"])
@pytest.mark.parametrize("crop", CROPS)
def test_a_mask_is_moved_as_the_pixels_of_its_image(crop: Any, flip: Any) -> None:
    rng = np.random.default_rng(0)
    for number in range(6):
        height, width = rng.integers(20, 90, 2).tolist()
        pixels = rng.integers(1, 256, (height, width, 3), dtype=np.uint8)
        options = DecodeOptions(
            size=(33, 47),
            crop=crop,
            flip=flip,
            interpolation="nearest",
            exact=True,
            padding=5 if crop == "pad" else None,
        )
        decoder = ImageDecoder(options)
        row = decoder.draws(3, np.array([number]))
        own = None if row is None else row[0]
        image = decoder.array(png(pixels), own)
        np.testing.assert_array_equal(decoder.move(png(pixels), own).pixels(pixels), image)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_mask_of_the_image_turned_upright_is_moved_with_it(orientation: int) -> None:
    pixels = np.random.default_rng(orientation).integers(0, 256, (20, 31, 3), dtype=np.uint8)
    decoder = ImageDecoder(DecodeOptions(orientation=True, flip=True))
    data, row = png(pixels, orientation), np.zeros(1)
    upright = ImageDecoder(DecodeOptions(orientation=True)).array(data, None)
    np.testing.assert_array_equal(decoder.move(data, row).pixels(upright), decoder.array(data, row))


numbers = st.integers(0, 60)


@given(
    st.lists(st.tuples(numbers, numbers, st.integers(1, 40), st.integers(1, 40)), max_size=6),
    st.sampled_from(CROPS), st.booleans(), st.integers(0, 99),
)  # fmt: skip
def test_a_box_is_where_what_it_holds_is(given_boxes: list[Any], crop: Any, flip: bool, seed: int) -> None:
    height, width = 70, 90
    options = DecodeOptions(
        size=(50, 40), crop=crop, flip="both" if flip else False, padding=4 if crop == "pad" else None
    )
    decoder = ImageDecoder(options)
    row = decoder.draws(seed, np.array([seed]))
    move = decoder.move(png(np.zeros((height, width), np.uint8)), None if row is None else row[0])
    values = np.array([(x, y, x + w, y + h) for x, y, w, h in given_boxes], np.float64).reshape(-1, 4)
    found, kept = move.boxes(values, Boxes("b", least=2))
    for number, (x, y, right, bottom) in enumerate(values.astype(int).tolist()):
        mask = np.zeros((height, width), np.uint8)
        mask[y:bottom, x:right] = 1
        there = np.argwhere(move.pixels(mask))
        if number not in kept:
            assert not len(there) or np.min(np.ptp(there, axis=0)) < 3
            continue
        top, left, low, far = (*there.min(axis=0), *(there.max(axis=0) + 1))
        np.testing.assert_allclose(found[kept.tolist().index(number)], [left, top, far, low], atol=1.01)


@given(st.sampled_from(CROPS), st.booleans(), st.integers(0, 50))
def test_every_format_says_the_same(crop: Any, normalized: bool, seed: int) -> None:
    rng, size = np.random.default_rng(seed), np.array([80, 60] * 2 if normalized else [1] * 4, np.float64)
    begin, sides = rng.uniform(0, 50, (9, 2)), rng.uniform(1, 30, (9, 2))
    written = {
        "xyxy": np.concatenate([begin, begin + sides], axis=1),
        "xywh": np.concatenate([begin, sides], axis=1),
        "cxcywh": np.concatenate([begin + sides / 2, sides], axis=1),
    }
    decoder = ImageDecoder(DecodeOptions(size=48, crop=crop, flip="both", padding=4 if crop == "pad" else None))
    row = decoder.draws(seed, np.array([seed]))
    assert row is not None
    move = decoder.move(png(np.zeros((60, 80), np.uint8)), row[0])
    plain, kept = move.boxes(written["xyxy"], Boxes("b"))
    for name, values in written.items():
        found, own = move.boxes(values / size, Boxes("b", format=name, normalized=normalized))  # type: ignore[arg-type]
        assert own.tolist() == kept.tolist()
        found = found * 48 if normalized else found
        if name != "xyxy":
            center = found[:, :2] + (found[:, 2:] / 2 if name == "xywh" else 0)
            found = np.concatenate([center - found[:, 2:] / 2, center + found[:, 2:] / 2], axis=1)
        np.testing.assert_allclose(found, plain, atol=1e-3)


def test_a_box_is_left_out_if_too_little_of_it_is_in_the_image() -> None:
    move = Move((100, 100), (0, 0, 50, 50), (50, 50))
    values = np.array(
        [[0, 0, 10, 10], [40, 40, 60, 60], [49.5, 0, 60, 10], [60, 60, 70, 70], [5, 5, 5, 9], [9, 9, 3, 3]], float
    )

    def kept(**options: Any) -> list[int]:
        return move.boxes(values, Boxes("b", **options))[1].tolist()

    assert kept() == [0, 1]
    assert kept(least=0) == [0, 1, 2]
    assert kept(visible=0.25) == [0, 1] and kept(visible=0.26) == [0] == kept(visible=1)
    np.testing.assert_array_equal(move.boxes(values, Boxes("b"))[0], [[0, 0, 10, 10], [40, 40, 50, 50]])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"path": ""}, "not the name of a field"), ({"path": "a//b"}, "not the name of a field"),
        ({"path": "a", "format": "yxyx"}, "not one of 'xyxy', 'xywh', 'cxcywh'"),
        ({"path": "a", "normalized": "yes"}, "normalized"), ({"path": "a", "labels": [""]}, "are not names"),
        ({"path": "a", "least": -1}, "number of pixels"), ({"path": "a", "visible": 2}, "share of the area"),
        ({"path": "a", "visible": float("nan")}, "share of the area"),
        ({"path": "a", "least": True}, "number of pixels"),
    ],
)  # fmt: skip
def test_boxes_that_make_no_sense_are_refused(options: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Boxes(**options)


def test_other_values_of_boxes_and_masks_are_refused() -> None:
    for check, value in (
        (as_boxes, 3),
        (as_boxes, ["json"]),
        (as_masks, []),
        (as_masks, 3),
        (as_masks, ["a", "a"]),
        (as_masks, [""]),
    ):
        with pytest.raises(UsageError):
            check(value)
