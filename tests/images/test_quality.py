"""The perceptual hash and the like: equal from C and Pillow, steady under small changes, an error for damage."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shardkit.images import fused
from shardkit.images.quality import quality as module
from shardkit.images.quality.quality import GRID, HASH_BITS, grid_of, plain_quality, quality, quality_of, small_gray

needs_fused = pytest.mark.skipif(not fused.available(), reason="shardkit was built without its JPEG decoder")

SIZES = [(1, 1), (2, 3), (7, 300), (31, 33), (63, 64), (64, 64), (129, 200), (255, 256), (257, 259), (300, 513)]
ORIENTATION = 0x0112
NEAR = 6
"""Bits in which an image and its resized, recompressed or gray copy differ at most, of those below."""


def photo(height: int, width: int, seed: int = 0) -> Image.Image:
    """A picture with structure at all scales."""
    rng = np.random.default_rng(seed)
    found = np.zeros((height, width, 3))
    for side in (3, 6, 12, 24, 48):
        layer = Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))
        found += np.asarray(layer.resize((width, height), Image.Resampling.BICUBIC), float) / side
    low, high = found.min(), found.max()
    return Image.fromarray(((found - low) * 255 / max(1.0, high - low)).astype(np.uint8))


def encoded(image: Image.Image, format: str = "JPEG", **options: Any) -> bytes:
    sink = io.BytesIO()
    image.save(sink, format, **({"quality": 90} if format == "JPEG" else {}) | options)
    return sink.getvalue()


def distance(first: int, second: int) -> int:
    return (first ^ second).bit_count()


@needs_fused
@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize(
    "options",
    [{}, {"subsampling": 0}, {"subsampling": 1}, {"progressive": True}, {"restart_marker_blocks": 2}, {"quality": 20}],
    ids=["420", "444", "422", "progressive", "restarts", "quality 20"],
)
def test_c_and_pillow_give_the_same_bits(height: int, width: int, options: dict[str, int]) -> None:
    for image in (photo(height, width), photo(height, width).convert("L")):
        data = encoded(image, **options)
        found = fused_quality(data)
        assert found == tuple(plain_quality(data))
        assert quality(data) == plain_quality(data)


def fused_quality(data: bytes, orientation: int = 1) -> tuple[Any, ...] | str:
    from shardkit.native import load

    found: tuple[Any, ...] | str = load("jpeg")[0].quality(
        data, orientation, float(module.MAX_PIXELS), module.MAX_SCANS, False
    )
    return found


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_image_has_the_hash_of_the_upright_one(orientation: int) -> None:
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    upright = photo(320, 400)
    stored = upright.transpose(turns[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encoded(stored, exif=exif)
    assert distance(quality(data).phash, quality(encoded(upright)).phash) <= 2
    assert quality(data) == plain_quality(data)
    picture, scale, size, told = small_gray(data)
    assert told == orientation
    assert quality_of(picture, scale, size, told) == plain_quality(data)


@pytest.mark.parametrize("seed", range(8))
def test_small_changes_of_an_image_change_few_bits(seed: int) -> None:
    image = photo(480, 640, seed)
    before = quality(encoded(image))
    changed = {
        "half": encoded(image.resize((320, 240))), "square": encoded(image.resize((256, 256))),
        "quality 20": encoded(image, quality=20), "gray": encoded(image.convert("L")), "PNG": encoded(image, "PNG"),
    }  # fmt: skip
    for name, data in changed.items():
        after = quality(data)
        assert distance(before.phash, after.phash) <= NEAR, name
        assert after.brightness == pytest.approx(before.brightness, abs=0.02), name
    other = quality(encoded(photo(480, 640, seed + 100)))
    assert distance(before.phash, other.phash) > 2 * NEAR


def test_the_hashes_of_many_images_use_all_bits() -> None:
    found = [quality(encoded(photo(96, 96, seed))).phash for seed in range(40)]
    ones = [sum(hash_ >> bit & 1 for hash_ in found) for bit in range(HASH_BITS)]
    assert all(0 < count < len(found) for count in ones)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("value", [0, 128, 255])
def test_an_image_of_one_color_has_the_hash_0_and_no_entropy(format: str, value: int) -> None:
    found = quality(encoded(Image.new("RGB", (300, 280), (value,) * 3), format))
    assert found.phash == found.sharpness == found.entropy == 0
    assert found.brightness == pytest.approx(value / 255, abs=0.005)


def test_the_grid_is_the_same_from_c_and_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    for data in (encoded(photo(300, 400)), encoded(photo(50, 70), exif=exif), encoded(photo(20, 20), "PNG")):
        found = grid_of(data)
        assert (found.shape, found.dtype) == ((GRID, GRID), np.uint16)
        with monkeypatch.context() as patch:
            patch.setattr(module, "load", lambda _: (None, "no compiler"))
            assert np.array_equal(grid_of(data), found)
        assert module.hash_of(found.astype(np.int64)) == quality(data).phash


def test_sharpness_is_0_for_a_ramp_and_1_for_noise() -> None:
    ramp = np.tile(np.arange(256, dtype=np.uint8), (64, 1))
    noise = np.random.default_rng(0).integers(0, 256, (256, 256), dtype=np.uint8)
    assert quality_of(ramp, 8, (512, 2048)).sharpness == 0
    assert quality_of(noise, 8, (2048, 2048)).sharpness == pytest.approx(1, abs=0.02)
    assert quality_of(noise, 8, (2048, 2048)).entropy == pytest.approx(8, abs=0.01)
    assert quality_of(noise // 4, 8, (2048, 2048)).sharpness == pytest.approx(1, abs=0.05)  # without contrast
    board = np.indices((64, 64)).sum(0) % 2 * 255
    assert quality_of(board, 8, (512, 512)).sharpness == 1


def test_a_blurred_image_is_less_sharp() -> None:
    from PIL import ImageFilter

    image = photo(480, 640)
    levels = [quality(encoded(image.filter(ImageFilter.GaussianBlur(radius)))).sharpness for radius in (0, 4, 16)]
    assert levels == sorted(levels, reverse=True)


def test_entropy_is_that_of_the_distribution_of_values() -> None:
    halves = np.zeros((GRID, GRID), np.uint8)
    halves[: GRID // 2] = 200
    assert quality_of(halves, 1, (GRID, GRID)).entropy == 1
    quarters = np.repeat(np.arange(4, dtype=np.uint8), GRID * GRID // 4).reshape(GRID, GRID)
    assert quality_of(quarters, 1, (GRID, GRID)).entropy == 2
    assert quality_of(halves, 1, (GRID, GRID)).brightness == np.float32(100 / 255)


@pytest.mark.parametrize("format", ["PNG", "WEBP", "GIF"])
def test_transparent_and_palette_images_are_looked_at_as_rgb(format: str) -> None:
    image = photo(100, 120).convert("RGBA" if format != "GIF" else "P")
    assert quality(encoded(image, format)).phash == quality(encoded(image.convert("RGB"), "PNG")).phash


def test_16_bit_gray_counts_by_its_high_byte() -> None:
    gray = np.asarray(photo(90, 80).convert("L"))
    deep = Image.fromarray(gray.astype(np.uint16) * 257)
    assert quality(encoded(deep, "PNG")) == quality(encoded(Image.fromarray(gray), "PNG"))


@pytest.mark.parametrize(
    "data",
    [b"", b"no image", encoded(photo(300, 300))[:100], encoded(photo(300, 300), "PNG")[:300], b"\xff\xd8\xff\xd9"],
    ids=["empty", "text", "cut JPEG", "cut PNG", "JPEG without pixels"],
)
def test_what_can_not_be_decoded_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        quality(data)


def test_a_memoryview_will_do() -> None:
    data = encoded(photo(300, 300))
    assert quality(memoryview(data)) == quality(data)
    png = encoded(photo(300, 300), "PNG")
    assert quality(memoryview(png)) == quality(png)


def test_without_the_c_extension_pillow_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(photo(480, 640))
    before = quality(data)
    monkeypatch.setattr(module, "load", lambda _: (None, "no compiler"))
    assert quality(data) == before
    assert not math.isnan(before.entropy)


@needs_fused
def test_damaged_jpegs_are_left_to_pillow() -> None:
    data = bytearray(encoded(photo(480, 640)))
    data[len(data) // 2 : len(data) // 2 + 40] = b"\xff\xd5" * 20
    assert isinstance(fused_quality(bytes(data)), str)


SEEDS = sorted((Path(__file__).parents[1] / "fuzz" / "seeds").glob("*.jpg"))


def outcome(look: Any, data: bytes) -> Any:
    try:
        return look(data)
    except ValueError:
        return "not decoded"


@pytest.mark.parametrize("path", SEEDS, ids=lambda path: path.name)
def test_odd_jpegs_have_the_same_quality_from_both(path: Path) -> None:
    data = path.read_bytes()
    assert outcome(quality, data) == outcome(plain_quality, data)
