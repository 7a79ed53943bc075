"""The decoder of WebPs in C: Pillow's pixels to the bit, the same errors, and what it leaves to Pillow."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from images.jpegs import photo
from images.test_png_decoder import assert_same, exif_of, left_out
from PIL import Image

from shardkit.images import fused

pytestmark = pytest.mark.skipif(not fused.available("webp"), reason="shardkit was built without its WebP decoder")


def webp(height: int, width: int, *, mode: str = "RGB", seed: int = 0, **options: Any) -> bytes:
    image = Image.open(io.BytesIO(photo(height, width, seed=seed)))
    if mode == "RGBA":
        image.putalpha(Image.open(io.BytesIO(photo(height, width, seed=seed + 1))).convert("L"))
    sink = io.BytesIO()
    image.save(sink, "WEBP", **{"method": 2, **options})
    return sink.getvalue()


KINDS: dict[str, dict[str, Any]] = {
    "lossy": {"quality": 80},
    "lossless": {"lossless": True},
    "lossy with alpha": {"quality": 60, "mode": "RGBA"},
    "lossless with alpha": {"lossless": True, "mode": "RGBA", "exact": True},
    "strongly filtered": {"quality": 3},
    "with notes": {"exif": exif_of(6), "xmp": b"<x/>", "icc_profile": b"x" * 128},
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_is_decoded_as_pillow_does(name: str) -> None:
    for height, width in ((1, 1), (2, 17), (16, 16), (33, 65), (120, 301)):
        data = webp(height, width, **KINDS[name])
        for color in ("rgb", "gray"):
            for size in ((height, width), (20, 30)):
                assert left_out(data, size=size, color=color) == []
                assert_same([data], size=size, color=color)


@pytest.mark.parametrize("flip", [False, "horizontal", "vertical"])
@pytest.mark.parametrize("crop", ["resize", "center", "cover", "random", "random-cover", "pad"])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "lanczos"])
def test_crops_flips_and_filters_give_the_pixels_of_the_plain_way(crop: str, flip: Any, interpolation: str) -> None:
    datas = [webp(190, 230, seed=seed, lossless=seed % 3 == 2, quality=20 + 10 * seed) for seed in range(9)]
    padding = {"padding": 5} if crop == "pad" else {}
    assert left_out(datas[0], crop=crop, **padding) == []
    assert_same(datas, size=(40, 56), crop=crop, flip=flip, interpolation=interpolation, **padding)


def test_the_smallest_random_crops_have_the_pixels_of_the_whole_image() -> None:
    datas = [webp(97, 131, seed=seed, quality=5 * seed) for seed in range(16)] * 8
    assert_same(datas, size=(9, 9), crop="random", scale=(0.001, 0.02), ratio=(0.2, 5))


def animated() -> bytes:
    frames = [Image.open(io.BytesIO(photo(20, 30, seed=seed))) for seed in range(3)]
    sink = io.BytesIO()
    frames[0].save(sink, "WEBP", save_all=True, append_images=frames[1:])
    return sink.getvalue()


def changed(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


LEFT_OUT = {
    "an animation": animated(),
    "cut": webp(20, 20)[:-10],
    "an unknown chunk": changed(webp(20, 20, exif=exif_of(1)), webp(20, 20, exif=exif_of(1)).index(b"EXIF"), b"ABCD"),
    "two images": changed(webp(20, 20, exif=exif_of(1)), webp(20, 20, exif=exif_of(1)).index(b"EXIF"), b"VP8 "),
    "very tall": webp(500, 2),
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_is_odd_is_left_to_pillow(name: str) -> None:
    assert len(left_out(LEFT_OUT[name])) == 1
    assert_same([LEFT_OUT[name]], size=(8, 8))


def test_damaged_images_give_the_pixels_or_the_error_of_the_plain_way() -> None:
    rng = np.random.default_rng(3)
    whole = [webp(24, 31, **options) for options in KINDS.values()]
    datas = []
    for _ in range(600):
        data = bytearray(whole[rng.integers(len(whole))])
        for _ in range(rng.integers(1, 4)):
            data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        datas.append(bytes(data[: rng.integers(20, len(data))] if rng.integers(4) == 0 else data))
    assert_same(datas, size=(24, 31))
    assert_same(datas, size=(10, 10))


def test_an_image_with_too_many_pixels_is_refused() -> None:
    assert len(left_out(webp(20, 20), max_pixels=399)) == 1
    assert_same([webp(20, 20)], size=(8, 8), max_pixels=399)


def test_images_are_turned_as_exif_says_only_on_request() -> None:
    datas = [webp(20, 30, exif=exif_of(number)) for number in range(1, 9)]
    for orientation in (False, True):
        assert_same(datas, size=(16, 24), orientation=orientation)
