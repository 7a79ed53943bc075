"""Views of one decode: the decoder in C and the plain one, against single crops and Pillow."""

from __future__ import annotations

import io
import pickle
from typing import Any, get_args

import numpy as np
import pytest
from images.test_fused import jpeg, needs_fused, picture, way
from PIL import Image

import shardkit
from shardkit.errors import DecodeError, UsageError
from shardkit.images import fused
from shardkit.images import pixels as images
from shardkit.images.crops import dct_divisor, random_box
from shardkit.images.decoder import DecodeOptions, ImageDecoder, Interpolation
from shardkit.images.views.boxes import headroom_of
from shardkit.images.views.decoder import ViewDecoder
from shardkit.rng import stream_key

__all__ = ["way"]  # the fixture: each test with it runs with the decoder in C, and without

KEY = 3
PHOTOS = [jpeg(picture(150 + 60 * i, 420 - 50 * i, seed=i, detail=9), quality=92) for i in range(5)]
LARGE = jpeg(picture(1200, 900, seed=9, detail=9), subsampling=2)
VIEWS = {"global": shardkit.View(2, (40, 56), scale=(0.4, 1)), "local": shardkit.View(3, 24, scale=(0.05, 0.4))}
TOTAL = 5


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def decoded(datas: list[bytes], views: Any = None, **options: Any) -> dict[str, np.ndarray]:
    decoder = ViewDecoder(DecodeOptions(views=views or VIEWS, **options))
    outs = {name: np.empty((len(datas), *shape), decoder.dtype) for name, shape in decoder.shapes.items()}
    assert decoder.batch_into(datas, outs, decoder.draws(KEY, np.arange(len(datas)))) == []
    return outs


def key_of(number: int) -> int:
    return stream_key("view", number, KEY) if number else KEY


def alone(datas: list[bytes], name: str, number: int, **options: Any) -> np.ndarray:
    """One of the views, decoded without the others. number: of all views."""
    decoder = ImageDecoder(DecodeOptions(views=VIEWS, **options).of_view(VIEWS[name]))
    out = np.empty((len(datas), *(decoder.shape or ())), decoder.dtype)
    assert decoder.batch_into(datas, out, decoder.draws(key_of(number), np.arange(len(datas)))) == []
    return out


NUMBERS = [("global", 0, 0), ("global", 1, 1), ("local", 0, 2), ("local", 1, 3), ("local", 2, 4)]


@pytest.mark.parametrize(
    "options",
    [
        {"exact": True},
        {"exact": True, "color": "gray", "interpolation": "bicubic"},
        {"interpolation": "nearest"},
        {"exact": True, "flip": "both", "mean": "imagenet", "std": "imagenet", "layout": "chw"},
        {"exact": True, "dtype": "float16", "rescale": 1 / 255, "flip": True},
        {"exact": True, "layout": "chw"},
    ],
    ids=["exact", "gray", "nearest", "normalized", "float16", "chw"],
)
def test_without_scaling_a_view_is_what_a_single_crop_with_its_numbers_is(way: str, options: dict[str, Any]) -> None:
    datas = [*PHOTOS, png(picture(70, 90))]
    found = decoded(datas, **options)
    for name, place, number in NUMBERS:
        np.testing.assert_array_equal(found[name][:, place], alone(datas, name, number, **options))


@needs_fused
@pytest.mark.parametrize("interpolation", get_args(Interpolation))
@pytest.mark.parametrize("color", ["rgb", "gray"])
def test_c_and_the_plain_way_give_the_same_views(
    monkeypatch: pytest.MonkeyPatch, interpolation: Any, color: Any
) -> None:
    options = {"interpolation": interpolation, "color": color, "flip": True}
    by_c = decoded([*PHOTOS, LARGE], **options)
    monkeypatch.setattr(fused, "available", lambda: False)
    plain = decoded([*PHOTOS, LARGE], **options)
    for name in VIEWS:
        assert np.abs(by_c[name].astype(int) - plain[name]).max() <= 1


@pytest.mark.parametrize("interpolation", ["bilinear", "lanczos"])
def test_all_views_come_from_the_scale_that_the_most_detailed_one_needs(way: str, interpolation: str) -> None:
    draws = ViewDecoder(DecodeOptions(views=VIEWS)).draws(KEY, np.arange(1)).reshape(TOTAL, -1)
    with Image.open(io.BytesIO(LARGE)) as image:
        width, height = image.size
    limits = {name: DecodeOptions(views=VIEWS).of_view(view).box_range for name, view in VIEWS.items()}
    boxes = [random_box(height, width, draws[number, 1:].tolist(), limits[name]) for name, _, number in NUMBERS]
    sizes = [DecodeOptions(views=VIEWS).of_view(VIEWS[name]).height_width for name, _, _ in NUMBERS]
    divisors = [
        dct_divisor(box, size, headroom=headroom_of(interpolation))  # type: ignore[arg-type]
        for box, size in zip(boxes, sizes, strict=True)
    ]
    least = min(divisors)
    assert len(set(divisors)) > 1 and least > 1  # else this would show nothing
    pixels = images.decode_jpeg(LARGE, (height, width), gray=False, divisor=least)
    assert pixels is not None
    found = decoded([LARGE], interpolation=interpolation)
    for (name, place, _), box, size in zip(NUMBERS, boxes, sizes, strict=True):
        expected = np.empty((*(size or ()), 3), np.uint8)
        scaled = (box[0] / least, box[1] / least, box[2] / least, box[3] / least)
        images.resize_into(pixels, scaled, expected, interpolation)
        assert np.abs(found[name][0, place].astype(int) - expected).max() <= 1


def test_each_view_has_a_crop_and_a_flip_of_its_own(way: str) -> None:
    draws = ViewDecoder(DecodeOptions(views=VIEWS, flip=True)).draws(KEY, np.arange(1000)).reshape(1000, TOTAL, -1)
    assert len(np.unique(draws)) == draws.size
    np.testing.assert_allclose((draws[:, :, 0] < 0.5).mean(0), 0.5, atol=0.05)
    assert abs(np.corrcoef(draws[:, :, 0].T) - np.eye(TOTAL)).max() < 0.15


def test_the_first_view_is_the_crop_of_a_decode_without_views() -> None:
    views = ViewDecoder(DecodeOptions(views={"a": (2, 24)}, flip=True)).draws(KEY, np.arange(7))
    single = ImageDecoder(DecodeOptions(size=24, crop="random", flip=True)).draws(KEY, np.arange(7))
    assert single is not None
    np.testing.assert_array_equal(views[:, : single.shape[1]], single)


def test_more_views_do_not_change_the_first_ones(way: str) -> None:
    few = decoded(PHOTOS, {"a": (1, 24), "b": (2, 16)}, exact=True)
    more = decoded(PHOTOS, {"a": (1, 24), "b": (4, 16)}, exact=True)
    np.testing.assert_array_equal(few["a"], more["a"])
    np.testing.assert_array_equal(few["b"], more["b"][:, :2])


def test_images_that_are_turned_give_turned_views(way: str) -> None:
    image = picture(90, 130, detail=9)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = jpeg(image, exif=exif.tobytes())
    upright = png(Image.fromarray(np.asarray(Image.open(io.BytesIO(turned)))).transpose(Image.Transpose.ROTATE_270))
    found = decoded([turned], orientation=True, exact=True)
    expected = decoded([upright], exact=True)
    for name in VIEWS:
        np.testing.assert_array_equal(found[name], expected[name])


def test_an_image_that_can_t_be_decoded_is_reported_by_its_index(way: str) -> None:
    decoder = ViewDecoder(DecodeOptions(views=VIEWS))
    datas = [PHOTOS[0], PHOTOS[1][:500], b"no image", PHOTOS[2]]
    outs = {name: np.empty((4, *shape), decoder.dtype) for name, shape in decoder.shapes.items()}
    failures = decoder.batch_into(datas, outs, decoder.draws(KEY, np.arange(4)))
    assert [i for i, _ in failures] == [1, 2]
    assert all(isinstance(error, DecodeError) for _, error in failures)
    for name, array in decoded(datas[:1]).items():
        np.testing.assert_array_equal(outs[name][0], array[0])


def test_views_without_their_draws_are_refused() -> None:
    with pytest.raises(UsageError, match="random crops need their draws"):
        ViewDecoder(DecodeOptions(views=VIEWS)).array(PHOTOS[0], None)


def test_each_view_is_augmented_for_itself(way: str) -> None:
    augment = shardkit.Augment(brightness_range=(0.2, 1.8))
    white = jpeg(Image.new("RGB", (90, 90), (100, 100, 100)))
    found = decoded([white], {"a": (6, 8)}, augment=augment)["a"]
    assert len({int(image.mean()) for image in found[0]}) > 3
    plain = ViewDecoder(DecodeOptions(views={"a": (6, 8)}, augment=augment))
    first = ImageDecoder(DecodeOptions(size=8, crop="random", augment=augment))
    row = plain.draws(KEY, np.arange(1))[0]
    own = first.draws(KEY, np.arange(1))
    assert own is not None
    np.testing.assert_array_equal(plain.array(white, row)["a"][0], first.array(white, own[0]))


def test_a_view_decoder_can_be_pickled() -> None:
    decoder = pickle.loads(pickle.dumps(ViewDecoder(DecodeOptions(views=VIEWS, flip=True))))
    row = decoder.draws(KEY, np.arange(1))[0]
    for name, array in decoded([PHOTOS[0]], flip=True).items():
        np.testing.assert_array_equal(decoder.array(PHOTOS[0], row)[name], array[0])


@needs_fused
def test_arguments_that_do_not_fit_the_views_are_refused() -> None:
    settings = fused.FusedSettings((8, 8, 3), "random", True, 1.5, 1000000)
    view, data = fused.FusedView(2, (8, 8), settings.limits), PHOTOS[0]
    fits, draws = np.empty((1, 2, 8, 8, 3), np.uint8), np.zeros((1, 46))
    assert fused.decode_views(settings, [view], [data], [fits], draws) == []
    for views, outs, rows in (
        ([view], [fits[:, :1].copy()], draws),
        ([view], [fits], draws[:, :23].copy()),
        ([view, view], [fits, fits], draws),
        ([view], [fits], None),
    ):
        with pytest.raises(ValueError, match="do not fit"):
            fused.decode_views(settings, views, [data], outs, rows)
    with pytest.raises(ValueError, match="impossible settings"):
        fused.decode_views(settings, [fused.FusedView(0, (8, 8), settings.limits)], [data], [fits], draws)
