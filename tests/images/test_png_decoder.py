"""The decoder of PNGs in C: Pillow's pixels to the bit, the same errors, and what it leaves to Pillow."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from images.jpegs import photo
from images.pngs import HEAD, chunk, header, noise
from PIL import Image

from shardkit.errors import DecodeError
from shardkit.images import fused
from shardkit.images.decoder import DecodeOptions, ImageDecoder
from shardkit.images.png import DEPTHS

pytestmark = pytest.mark.skipif(not fused.available("png"), reason="shardkit was built without its PNG decoder")

KINDS = [(color, depth) for color, depths in DEPTHS.items() for depth in depths]
SIDES = ((1, 1), (9, 2), (3, 7), (33, 65), (120, 301))


def left_out(data: bytes, **options: Any) -> list[tuple[int, str]]:
    """Why the decoder in C leaves it to Pillow; [] if it does not."""
    decoder = ImageDecoder(DecodeOptions(**{"size": (8, 8), **options}))
    assert decoder._fused is not None
    out = np.empty((1, *(decoder.shape or ())), decoder.dtype)
    return fused.decode_batch(decoder._fused, [data], out, decoder.draws(1, np.arange(1)))


def outcome(datas: list[bytes], *, plain: bool, **options: Any) -> list[Any]:
    """The pixels of each image, or its error."""
    decoder = ImageDecoder(DecodeOptions(**options))
    out = np.zeros((len(datas), *(decoder.shape or ())), decoder.dtype)
    with pytest.MonkeyPatch.context() as patch:
        if plain:
            patch.setattr(fused, "available", lambda part="": False)
        failed = {i: str(error) for i, error in decoder.batch_into(datas, out, decoder.draws(7, np.arange(len(datas))))}
    return [failed.get(i, image) for i, image in enumerate(out)]


def assert_same(datas: list[bytes], **options: Any) -> None:
    for found, expected in zip(
        outcome(datas, plain=False, **options), outcome(datas, plain=True, **options), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("interlaced", [False, True], ids=["rows", "interlaced"])
@pytest.mark.parametrize(("color", "depth"), KINDS)
def test_every_kind_of_pixel_is_decoded_as_pillow_does(color: int, depth: int, interlaced: bool) -> None:
    for height, width in SIDES:
        data = noise(height, width, color, depth, interlaced=interlaced, seed=height)
        for values in ("rgb", "gray"):
            for size in ((height, width), (20, 30)):
                assert left_out(data, size=size, color=values) == []
                assert_same([data], size=size, color=values)


@pytest.mark.parametrize("flip", [False, "horizontal", "vertical", "both"])
@pytest.mark.parametrize("crop", ["resize", "center", "cover", "random", "random-cover", "pad"])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "area", "hamming", "lanczos"])
def test_crops_flips_and_filters_give_the_pixels_of_the_plain_way(crop: str, flip: Any, interpolation: str) -> None:
    datas = [noise(90, 130, 2, 8, seed=seed, interlaced=seed == 3) for seed in range(8)]
    padding = {"padding": 5, "fill": 9} if crop == "pad" else {}
    assert left_out(datas[0], crop=crop, **padding) == []
    assert_same(datas, size=(40, 56), crop=crop, flip=flip, interpolation=interpolation, **padding)


@pytest.mark.parametrize("options", [{"layout": "chw"}, {"mean": "imagenet", "std": "imagenet"}, {"dtype": "float16"}])
def test_values_and_layout_are_those_of_the_plain_way(options: Any) -> None:
    assert_same([noise(40, 50), noise(32, 32, 6)], size=32, **options)


@pytest.mark.parametrize("level", [0, 1, 9])
@pytest.mark.parametrize("idat", [1, 7, 8192])
def test_pixels_in_any_number_of_pieces_and_blocks_are_decoded(level: int, idat: int) -> None:
    data = noise(60, 70, level=level, idat=idat)
    assert left_out(data, size=(60, 70)) == []
    assert_same([data], size=(60, 70))
    assert_same([data], size=(30, 30), crop="center")


def test_an_image_larger_than_the_window_of_deflate_is_decoded() -> None:
    rows = np.tile(np.random.default_rng(1).integers(0, 256, (1, 700, 3), np.uint8), (300, 1, 1))
    rows[100:200] = np.arange(100)[:, None, None]
    sink = io.BytesIO()
    Image.fromarray(rows).save(sink, "PNG", compress_level=9)
    assert left_out(sink.getvalue(), size=(300, 700)) == []
    assert_same([sink.getvalue()], size=(300, 700))
    assert_same([sink.getvalue()], size=(100, 100), crop="random")


@pytest.mark.parametrize("filter_number", range(5))
@pytest.mark.parametrize("color", DEPTHS)
def test_each_filter_is_undone(color: int, filter_number: int) -> None:
    assert_same([noise(20, 50, color, 8, filters=[filter_number], seed=seed) for seed in range(3)], size=(20, 50))


TRANSPARENT = [(0, 8, b"\0\7"), (0, 1, b"\0\1"), (0, 16, b"\1\7"), (2, 8, bytes(6)), (3, 8, b"\0\x80"), (3, 2, b"\0")]


@pytest.mark.parametrize(("color", "depth", "alpha"), TRANSPARENT)
def test_transparency_changes_no_pixel(color: int, depth: int, alpha: bytes) -> None:
    data = noise(20, 30, color, depth, extra=chunk(b"tRNS", alpha))
    assert left_out(data) == []
    assert_same([data], size=(20, 30))


LEFT_OUT = {
    "a value beyond the palette": noise(20, 20, 3, 8, entries=100),
    "a palette twice": noise(20, 20, 3, 8, extra=chunk(b"PLTE", bytes(3))),
    "no palette": noise(20, 20, 0, 8).replace(header(20, 20, 0, 8), header(20, 20, 3, 8)),
    "a critical chunk": noise(20, 20, extra=chunk(b"ABCD", b"x")),
    "an unknown filter": noise(20, 20, filters=[5]),
    "short transparency": noise(20, 20, extra=chunk(b"tRNS", b"x")),
    "fewer rows": noise(20, 20).replace(header(20, 20, 2, 8), header(21, 20, 2, 8)),
    "more rows": noise(20, 20).replace(header(20, 20, 2, 8), header(19, 20, 2, 8)),
    "no end": noise(20, 20)[:-12],
    "no pixels": HEAD + header(20, 20, 2, 8) + chunk(b"IEND", b""),
    "very tall": noise(500, 2),
}


@pytest.mark.parametrize("name", LEFT_OUT)
@pytest.mark.parametrize("color", ["rgb", "gray"])
def test_what_is_odd_is_left_to_pillow(name: str, color: str) -> None:
    assert len(left_out(LEFT_OUT[name], color=color)) == 1
    assert_same([LEFT_OUT[name]], size=(8, 8), color=color)


def test_damaged_images_give_the_pixels_or_the_error_of_the_plain_way() -> None:
    rng = np.random.default_rng(3)
    whole = [noise(24, 31, color, depth, interlaced=bool(color & 4)) for color, depth in KINDS]
    datas = []
    for _ in range(600):
        data = bytearray(whole[rng.integers(len(whole))])
        for _ in range(rng.integers(1, 4)):
            data[rng.integers(8, len(data))] ^= 1 << rng.integers(8)
        datas.append(bytes(data[: rng.integers(20, len(data))] if rng.integers(4) == 0 else data))
    assert_same(datas, size=(24, 31))
    assert_same(datas, size=(10, 10))


def test_a_wrong_checksum_of_the_pixels_is_the_error_that_pillow_gives() -> None:
    data = noise(8, 8, idat=1 << 20)
    at = data.index(b"IDAT")
    size = int.from_bytes(data[at - 4 : at], "big")
    broken = data[at + 4 : at + size] + bytes([data[at + 3 + size] ^ 1])
    wrong = data[: at - 4] + chunk(b"IDAT", broken) + chunk(b"IEND", b"")
    assert len(left_out(wrong)) == 1
    assert_same([wrong, data], size=(8, 8))


def test_an_image_with_too_many_pixels_is_refused_before_it_is_decoded() -> None:
    huge = HEAD + header(50_000, 50_000, 2, 8) + chunk(b"IDAT", b"x\x9c") + chunk(b"IEND", b"")
    assert len(left_out(huge)) == 1
    assert "decompression bomb" in outcome([huge], plain=False, size=(8, 8))[0]
    assert_same([noise(20, 20)], size=(8, 8), max_pixels=399)


def exif_of(orientation: int) -> bytes:
    return b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0" + bytes([orientation]) + bytes(6)


def test_images_are_turned_as_exif_says_only_on_request() -> None:
    datas = [noise(20, 30, extra=chunk(b"eXIf", exif_of(number))) for number in range(1, 9)]
    for orientation in (False, True):
        assert_same(datas, size=(16, 24), orientation=orientation)
    upright, turned = outcome([datas[0], datas[5]], plain=False, size=(24, 16), orientation=True)
    assert not np.array_equal(upright, turned)


def test_a_batch_may_mix_formats() -> None:
    bmp, jpeg = io.BytesIO(), photo(80, 120)
    Image.open(io.BytesIO(jpeg)).save(bmp, "BMP")
    datas = [noise(30, 30), jpeg, bmp.getvalue(), b"\x89PNG, but cut", jpeg[:200], noise(31, 31, 6)]
    for batch in (datas, datas[::-1], datas[1:], datas[2:]):
        assert_same(batch, size=(24, 24), exact=True)
        found = outcome(batch, plain=False, size=(24, 24))
        alone = [outcome([data], plain=False, size=(24, 24))[0] for data in batch]
        for one, expected in zip(found, alone, strict=True):
            np.testing.assert_array_equal(one, expected)


def test_views_of_settings_that_do_not_fit_are_an_error() -> None:
    settings = fused.FusedSettings((8, 8, 3), "resize", False, 1.5, 10**6)
    with pytest.raises(ValueError, match="do not fit"):
        fused.decode_batch(settings, [noise(8, 8)], np.empty((2, 8, 8, 3), np.uint8), None)


def test_a_single_image_is_decoded_as_in_a_batch() -> None:
    data = noise(20, 30, 3, 4)
    image = ImageDecoder(DecodeOptions()).array(data, None)
    np.testing.assert_array_equal(image, outcome([data], plain=True, size=(20, 30))[0])
    with pytest.raises(DecodeError):
        ImageDecoder(DecodeOptions()).array(data[:-20], None)


@pytest.mark.parametrize("options", [{}, {"color": "gray"}, {"orientation": True}, {"layout": "chw", "mean": 0.5}])
def test_whole_images_of_several_sizes_are_decoded_in_c_too(options: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    datas = [noise(20, 30), noise(31, 8, 3, 4), noise(9, 9, extra=chunk(b"eXIf", exif_of(1)))]
    decoder = ImageDecoder(DecodeOptions(**options))
    with monkeypatch.context() as patch:
        patch.setattr("shardkit.images.decoder.pillow_image", None)  # the other way is not used
        found = [decoder.array(data, None) for data in datas]
    monkeypatch.setattr(fused, "available", lambda part="": False)
    for data, image in zip(datas, found, strict=True):
        np.testing.assert_array_equal(image, decoder.array(data, None))
