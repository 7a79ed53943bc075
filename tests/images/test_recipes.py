"""Filters, crops, flips and values of the decoder in C, and without it, against Pillow and torchvision."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
import pytest
from images.test_fused import jpeg, needs_fused, picture, way
from PIL import Image

from shardkit.errors import UsageError
from shardkit.images import fused
from shardkit.images.crops import RANDOM_DRAWS, BoxRange, random_box
from shardkit.images.decoder import DecodeOptions, ImageDecoder, Interpolation, OtherSizeError
from shardkit.images.options import STATISTICS
from shardkit.images.pixels import pillow_filter
from shardkit.native import load

__all__ = ["way"]  # the fixture: each test with it runs with the decoder in C, and without

FILTERS = get_args(Interpolation)
N = 5
PHOTOS = [jpeg(picture(150 + 60 * i, 420 - 50 * i, seed=i, detail=9), quality=92) for i in range(N)]
GRAY = jpeg(picture(140, 90).convert("L"))
SMALL = [jpeg(picture(32, 32, seed=i)) for i in range(N)]


def batch(datas: list[bytes], position: int = 0, **options: Any) -> np.ndarray:
    decoder = ImageDecoder(DecodeOptions(**options))
    draws = decoder.draws(3, position + np.arange(len(datas)))
    out = np.empty((len(datas), *(decoder.shape or ())), decoder.dtype)
    assert decoder.batch_into(datas, out, draws) == []
    return out


def by_c_and_without(monkeypatch: pytest.MonkeyPatch, datas: list[bytes], **options: Any) -> tuple[np.ndarray, ...]:
    first = batch(datas, **options)
    monkeypatch.setattr(fused, "available", lambda part="": False)
    return first, batch(datas, **options)


def taken(datas: list[bytes], **options: Any) -> bool:
    """Whether the decoder in C takes all of the images."""
    decoder = ImageDecoder(DecodeOptions(**options))
    assert decoder._fused is not None
    out = np.empty((len(datas), *(decoder.shape or ())), decoder.dtype)
    return fused.decode_batch(decoder._fused, datas, out, decoder.draws(3, np.arange(len(datas)))) == []


# filters


@needs_fused
@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("color", ["rgb", "gray"])
def test_every_filter_is_in_the_fast_path(interpolation: str, exact: bool, color: str) -> None:
    options = {"size": 40, "crop": "random", "interpolation": interpolation, "exact": exact, "color": color}
    assert taken([*PHOTOS, GRAY], **options)


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("color", ["rgb", "gray"])
@pytest.mark.parametrize("crop", ["resize", "center", "cover", "random", "random-cover"])
@pytest.mark.parametrize("size", [(1, 1), (7, 300), (64, 64), (90, 41), (500, 480)])
def test_exact_is_pillow_s_resize_to_the_bit(
    way: str, interpolation: str, color: str, crop: str, size: tuple[int, int]
) -> None:
    options = {"size": size, "crop": crop, "interpolation": interpolation, "color": color}
    decoder = ImageDecoder(DecodeOptions(**options, exact=True))
    draws = decoder.draws(3, np.arange(N + 1))
    found = batch([*PHOTOS, GRAY], **options, exact=True)
    for i, data in enumerate([*PHOTOS, GRAY]):
        image = Image.open(io.BytesIO(data)).convert("L" if color == "gray" else "RGB")
        top, left, height, width = decoder._box(image.height, image.width, None if draws is None else draws[i])
        box = left, top, left + width, top + height
        expected = image.resize(size[::-1], pillow_filter(interpolation), box=box)
        np.testing.assert_array_equal(found[i], np.asarray(expected).reshape(found[i].shape))


@needs_fused
@pytest.mark.parametrize("seed", range(40))
def test_exact_is_pillow_s_for_any_size_and_filter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(1, 300, 2))
    size = tuple(int(side) for side in rng.integers(1, 300, 2))
    noise = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
    data = jpeg(noise, quality=95, subsampling=int(rng.integers(0, 3)))
    whole = Image.open(io.BytesIO(data)).convert("RGB")
    for interpolation in FILTERS:
        found = batch([data], size=size, interpolation=interpolation, exact=True)[0]
        np.testing.assert_array_equal(found, np.asarray(whole.resize(size[::-1], pillow_filter(interpolation))))
        assert taken([data], size=size, interpolation=interpolation, exact=True)


SAVED = {"jpeg": {"quality": 90, "subsampling": 0}, "png": {}, "webp": {"lossless": True}}


@pytest.fixture(params=[0, 1, 2], ids=["short vectors", "AVX2", "VNNI"])
def vectors(request: pytest.FixtureRequest) -> Iterator[None]:
    """The longest vectors that the decoders in C may use, in turn."""
    parts = [module for name in SAVED if (module := load(name)[0]) is not None]
    for part in parts:
        part.allow_vectors(request.param)
    yield
    for part in parts:
        part.allow_vectors(2)


@pytest.mark.parametrize("part", SAVED)
@pytest.mark.parametrize("color", ["rgb", "gray"])
@pytest.mark.parametrize("interpolation", FILTERS)
def test_exact_is_pillow_s_in_every_format_with_any_vectors(
    vectors: None, part: str, color: Any, interpolation: Any
) -> None:
    if not fused.available(part):
        pytest.skip(f"shardkit was built without its decoder of {part}")
    rng = np.random.default_rng(len(interpolation))
    for _ in range(12):
        height, width, *size = (int(side) for side in rng.integers(1, 120, 4))
        file = io.BytesIO()
        noise = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        noise.save(file, part, **SAVED[part])
        whole = Image.open(io.BytesIO(file.getvalue())).convert("RGB").convert("L" if color == "gray" else "RGB")
        options = {"size": tuple(size), "interpolation": interpolation, "color": color, "exact": True}
        expected = np.asarray(whole.resize(size[::-1], pillow_filter(interpolation)))
        found = batch([file.getvalue()], **options)[0]
        np.testing.assert_array_equal(found, expected.reshape(found.shape))
        assert taken([file.getvalue()], **options)


@needs_fused
@pytest.mark.parametrize("interpolation", sorted(set(FILTERS) - {"bilinear"}))
@pytest.mark.parametrize("color", ["rgb", "gray"])
@pytest.mark.parametrize("crop", ["resize", "random"])
@pytest.mark.parametrize("size", [(20, 24), (64, 64), (300, 200)])
def test_a_filter_without_exact_is_within_two_of_the_other_way(
    interpolation: str, color: str, crop: str, size: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"size": size, "crop": crop, "interpolation": interpolation, "color": color}
    found, expected = by_c_and_without(monkeypatch, [*PHOTOS, GRAY], **options, flip="both")
    difference = np.abs(found.astype(int) - expected)
    assert difference.max() <= (0 if interpolation == "nearest" else 2)
    assert difference.mean() < 0.4


@pytest.mark.parametrize("interpolation", ["bicubic", "lanczos"])
@pytest.mark.parametrize("size", [3, 60, 700])
def test_white_stays_white_and_black_black(way: str, interpolation: str, size: int) -> None:
    for value in (0, 255):
        data = jpeg(Image.new("RGB", (300, 290), (value,) * 3))
        assert set(np.unique(batch([data], size=size, interpolation=interpolation))) == {value}


# crops


LIMITS = {"scale": (0.3, 0.4), "ratio": (1.5, 1.6)}


def test_scale_and_ratio_are_those_of_the_random_boxes(way: str) -> None:
    options = {"size": 50, "crop": "random", "interpolation": "nearest", **LIMITS}
    draws = ImageDecoder(DecodeOptions(**options)).draws(3, np.arange(N))
    assert draws is not None
    found = batch(PHOTOS, **options)
    for data, row, image in zip(PHOTOS, draws, found, strict=True):
        whole = Image.open(io.BytesIO(data))
        limits = BoxRange(**LIMITS)
        top, left, height, width = random_box(whole.height, whole.width, row[1 : 1 + RANDOM_DRAWS].tolist(), limits)
        assert 1.5 - 0.05 < width / height < 1.6 + 0.05
        expected = whole.resize((50, 50), Image.Resampling.NEAREST, box=(left, top, left + width, top + height))
        np.testing.assert_array_equal(image, np.asarray(expected))


def test_the_defaults_of_scale_and_ratio_are_torchvision_s() -> None:
    options = {"size": 50, "crop": "random"}
    given = batch(PHOTOS, **options, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3))
    np.testing.assert_array_equal(given, batch(PHOTOS, **options))


@pytest.mark.parametrize("padding", [0, 4, 40])
@pytest.mark.parametrize("fill", [0, (255, 128, 1)])
def test_a_padded_crop_is_a_window_of_the_padded_image(way: str, padding: int, fill: Any) -> None:
    options = {"size": 32, "crop": "pad", "padding": padding, "fill": fill, "flip": True}
    draws = ImageDecoder(DecodeOptions(**options)).draws(3, np.arange(N))
    assert draws is not None
    found, whole = batch(SMALL, **options), batch(SMALL, size=32)
    for row, image, pixels in zip(draws, found, whole, strict=True):
        padded = np.empty((32 + 2 * padding, 32 + 2 * padding, 3), np.uint8)
        padded[:] = fill
        padded[padding : padding + 32, padding : padding + 32] = pixels
        top, left = (int(number * (2 * padding + 1)) for number in row[1:3])
        window = padded[top : top + 32, left : left + 32]
        np.testing.assert_array_equal(image, window[:, ::-1] if row[0] < 0.5 else window)


def test_a_padded_crop_has_every_place_equally_often() -> None:
    decoder = ImageDecoder(DecodeOptions(size=32, crop="pad", padding=4))
    draws = decoder.draws(3, np.arange(20_000))
    assert draws is not None
    for column in (1, 2):
        counts = np.bincount((draws[:, column] * 9).astype(int), minlength=9)
        assert counts == pytest.approx(np.full(9, 20_000 / 9), rel=0.06)


@pytest.mark.parametrize("options", [{"size": 40}, {"size": 32}, {"size": 40, "crop": "random"}, {}])
@pytest.mark.parametrize("flip", ["vertical", "both"])
def test_a_flip_turns_each_image_as_its_numbers_say(way: str, options: Any, flip: Any) -> None:
    decoder = ImageDecoder(DecodeOptions(**options, flip=flip))
    plain = ImageDecoder(DecodeOptions(**options))
    draws, plain_draws = (d.draws(8, np.arange(40)) for d in (decoder, plain))
    assert draws is not None
    seen = set()
    for i in range(40):
        image = decoder.array(SMALL[i % N], draws[i])
        unflipped = plain.array(SMALL[i % N], None if plain_draws is None else plain_draws[i])
        upside_down = bool(draws[i, -1] < 0.5)
        mirrored = flip == "both" and bool(draws[i, 0] < 0.5)
        expected = unflipped[::-1] if upside_down else unflipped
        np.testing.assert_array_equal(image, expected[:, ::-1] if mirrored else expected)
        seen.add((upside_down, mirrored))
    assert len(seen) == (4 if flip == "both" else 2)


@pytest.mark.parametrize("options", [{"crop": "random"}, {"crop": "pad", "padding": 4}, {}])
def test_more_flips_leave_the_other_random_numbers_as_they_are(options: Any) -> None:
    less = ImageDecoder(DecodeOptions(size=32, flip=True, **options)).draws(3, np.arange(50))
    more = ImageDecoder(DecodeOptions(size=32, flip="both", **options)).draws(3, np.arange(50))
    assert less is not None
    assert more is not None
    np.testing.assert_array_equal(more[:, :-1], less)


# values


def test_imagenet_s_mean_and_deviation_give_torchvision_s_values(way: str) -> None:
    torch = pytest.importorskip("torch")
    options = {"size": 48, "crop": "center"}
    pixels = torch.from_numpy(batch(PHOTOS, **options)).permute(0, 3, 1, 2)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in STATISTICS["imagenet"])
    expected = (pixels.float().div(255) - mean) / std  # ToTensor, Normalize
    found = batch(PHOTOS, **options, mean="imagenet", std="imagenet", layout="chw")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected.numpy())


VALUES: list[dict[str, Any]] = [
    {"mean": 0.5},
    {"std": (0.2, 0.3, 0.4)},
    {"mean": "clip", "std": "clip"},
    {"mean": [127.5], "std": np.float32(127.5), "rescale": 1},
    {"rescale": 2.0},
    {},
]


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("layout", ["hwc", "chw"])
def test_values_are_computed_in_float32_for_every_dtype_and_layout(
    way: str, values: Any, dtype: Any, layout: Any
) -> None:
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")
    options = {"size": (40, 32), "crop": "random", "flip": True}
    png = io.BytesIO()
    picture(50, 60).save(png, "PNG")
    datas = [*PHOTOS, png.getvalue()]
    pixels = batch(datas, **options).astype(np.float32)
    options_of = DecodeOptions(**options, **values, dtype=dtype, layout=layout)
    found = batch(datas, **options, **values, dtype=dtype, layout=layout)

    def numbers(name: str, which: int, default: float) -> np.ndarray:
        given = values.get(name, default)
        return np.asarray(STATISTICS[given][which] if isinstance(given, str) else given, np.float32)

    factor = np.float32(values.get("rescale", 1))
    scaled = pixels * factor if "rescale" in values else pixels / np.float32(255 if values else 1)
    expected = (scaled - numbers("mean", 0, 0.0)) / numbers("std", 1, 1.0)
    assert found.dtype == options_of.value_type
    assert found.dtype.name == dtype
    np.testing.assert_array_equal(
        (found if layout == "hwc" else found.transpose(0, 2, 3, 1)).astype(np.float32),
        expected.astype(found.dtype).astype(np.float32),
    )


@pytest.mark.parametrize("color", ["rgb", "gray"])
def test_planes_of_bytes_hold_the_same_image(way: str, color: str) -> None:
    options = {"size": (31, 17), "color": color, "crop": "pad", "padding": 3, "fill": 9}
    planes = batch(PHOTOS, **options, layout="chw")
    np.testing.assert_array_equal(planes.transpose(0, 2, 3, 1), batch(PHOTOS, **options))


# without a size


def test_images_of_a_known_size_are_decoded_as_without_one(way: str) -> None:
    whole = ImageDecoder(DecodeOptions(mean="imagenet", layout="chw"))
    size = whole.stored_size(SMALL[0])
    assert size == (32, 32)
    decoder = whole.of_size(size)
    out = np.empty((N + 1, *(decoder.shape or ())), decoder.dtype)
    ((number, error),) = decoder.batch_into([*SMALL, PHOTOS[0]], out, None)
    assert number == N
    assert isinstance(error, OtherSizeError)
    for data, image in zip(SMALL, out, strict=False):
        np.testing.assert_array_equal(image, whole.array(data, None))


def test_the_size_of_what_is_no_image_is_not_known() -> None:
    whole = ImageDecoder(DecodeOptions(orientation=True))
    exif = Image.Exif()
    exif[0x0112] = 6
    assert whole.stored_size(b"no image") is None
    assert whole.stored_size(jpeg(picture(30, 20), exif=exif)) is None
    assert whole.stored_size(jpeg(picture(30, 20))) == (30, 20)


# options


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"scale": (0.1, 1)}, "scale: a crop of 'resize' does not use it"),
        ({"crop": "random", "scale": (0, 1)}, r"scale: \(0, 1\) is not .*0 < low <= high <= 1"),
        ({"crop": "random", "scale": (0.5, 1.5)}, "scale: .* is not"),
        ({"crop": "random", "scale": 0.5}, "scale: 0.5 is not"),
        ({"crop": "random", "ratio": (2, 1)}, r"ratio: \(2, 1\) is not"),
        ({"crop": "random", "ratio": (1, float("inf"))}, "ratio: .* is not"),
        ({"crop": "random", "ratio": ("a", "b")}, "ratio: .* is not"),
        ({"crop": "pad"}, "padding: None is not a number of pixels"),
        ({"crop": "pad", "padding": -1}, "padding: -1 is not a number of pixels"),
        ({"crop": "pad", "padding": 1.5}, "padding: 1.5 is not a number of pixels"),
        ({"padding": 4}, "padding: a crop of 'resize' does not use it"),
        ({"fill": 4}, "fill: a crop of 'resize' does not use it"),
        ({"crop": "pad", "padding": 4, "fill": 256}, "fill: 256 is neither"),
        ({"crop": "pad", "padding": 4, "fill": (1, 2)}, "fill: .* is neither"),
        ({"crop": "pad", "padding": 4, "fill": (1, 2, 3), "color": "gray"}, "fill: .* is neither"),
        ({"flip": "diagonal"}, "flip: 'diagonal' is not True or False, 'horizontal', 'vertical' or 'both'"),
        ({"mean": "cifar"}, "mean: 'cifar' is not one of 'imagenet', 'clip', or numbers"),
        ({"mean": "imagenet", "color": "gray"}, "mean: 'imagenet' has a value for each of red, green and blue"),
        ({"mean": (1, 2)}, r"mean: \(1, 2\) is neither a number nor one for each of 3 channels"),
        ({"mean": True}, "mean: True is neither"),
        ({"mean": float("nan")}, "mean: nan has values"),
        ({"std": 0}, "std: 0 has values"),
        ({"std": (1, 1, -1)}, "std: .* has values"),
        ({"mean": 0.5, "dtype": "uint8"}, "mean: dtype=.uint8. has no room"),
    ],
)
def test_an_impossible_recipe_is_refused_with_what_is_allowed(options: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        DecodeOptions(size=32, **options)


def test_bfloat16_without_its_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ml_dtypes", None)
    with pytest.raises(UsageError, match=r"dtype: .* needs the package ml_dtypes"):
        DecodeOptions(dtype="bfloat16")


@needs_fused
@pytest.mark.parametrize(
    "change",
    [
        {"fill": b"\0"},
        {"table": np.zeros((3, 255), np.float32)},
        {"table": np.zeros((1, 256), np.float32)},
        {"padding": -1},
        {"padding": 1, "crop": "pad"},
    ],
)
def test_settings_that_do_not_fit_are_refused_by_c(change: dict[str, Any]) -> None:
    asked: dict[str, Any] = {"size": (8, 8, 3), "crop": "resize", "flip": False, "headroom": 1.5, "max_pixels": 10**6}
    out = np.empty((1, 8, 8, 3), change["table"].dtype if "table" in change else np.uint8)
    with pytest.raises(ValueError, match=r"fit the images|impossible settings"):
        fused.decode_batch(fused.FusedSettings(**{**asked, **change}), [SMALL[0]], out, None)
