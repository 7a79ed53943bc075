"""Seek points: found once, and never more than a shortcut to the same pixels."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from images.test_fused import jpeg, needs_fused, picture
from PIL import Image

from shardkit.checksums import crc32c
from shardkit.errors import UsageError
from shardkit.images import fused
from shardkit.images.decoder import DecodeOptions, ImageDecoder
from shardkit.shards import seek
from shardkit.shards.seek import CHECKSUM, MOST_BYTES, SHARE, belongs, seek_points, seek_points_of

DETAILED = picture(333, 500, detail=3)
KINDS: dict[str, bytes] = {
    "444": jpeg(DETAILED, subsampling=0),
    "422": jpeg(DETAILED, subsampling=1),
    "420": jpeg(DETAILED, subsampling=2),
    "gray": jpeg(DETAILED.convert("L")),
    "rgb": jpeg(DETAILED, keep_rgb=True),
    "optimised": jpeg(DETAILED, optimize=True, quality=100),
    "a restart for each MCU": jpeg(DETAILED, restart_marker_blocks=1),
    "restarts within rows": jpeg(DETAILED, restart_marker_blocks=7, subsampling=2),
    "restarts between rows": jpeg(DETAILED, restart_marker_rows=1),
    "few bytes": jpeg(DETAILED, quality=20),
    "wide": jpeg(picture(40, 2000, detail=3)),
    "tall": jpeg(picture(2000, 40, detail=3)),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "random": {"crop": "random", "flip": True},
    "center": {"crop": "center"},
    "small": {"crop": "random", "size": 20},
    "gray": {"crop": "random", "color": "gray"},
    "exact": {"crop": "random", "exact": True},
    "nearest": {"crop": "random", "interpolation": "nearest"},
    "planes": {"crop": "random", "layout": "chw", "dtype": "float32"},
    "whole": {"crop": "resize"},
}
SEEDS = 12


def points_of(data: bytes) -> bytes:
    return seek_points(data, crc32c(data))


def decoded(data: bytes, points: bytes | None, seed: int, **options: Any) -> np.ndarray:
    """The image by the decoder in C, which has to take it."""
    decoder = ImageDecoder(DecodeOptions(**{"size": 64, **options}))
    out = np.zeros((1, *(decoder.shape or ())), decoder.dtype)
    settings = decoder._fused
    assert settings is not None
    assert fused.decode_batch(settings, [data], out, decoder.draws(seed, np.arange(1)), [points]) == []
    return out[0]


@needs_fused
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_pixels_are_the_same_with_and_without_points(kind: str, options: str) -> None:
    data = KINDS[kind]
    points = points_of(data)
    assert points
    for seed in range(SEEDS):
        plain = decoded(data, None, seed, **OPTIONS[options])
        np.testing.assert_array_equal(decoded(data, points, seed, **OPTIONS[options]), plain)


@needs_fused
@pytest.mark.parametrize("kind", KINDS)
def test_points_take_their_share_of_the_bytes_at_most_and_are_always_the_same(kind: str) -> None:
    data = KINDS[kind]
    points = points_of(data)
    assert CHECKSUM < len(points) <= len(data) // SHARE
    assert points_of(data) == points
    assert belongs(points, crc32c(data))
    assert not belongs(points, crc32c(data) ^ 1)


@needs_fused
def test_points_of_a_huge_image_stay_below_the_limit_that_readers_have() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (3000, 4000), dtype=np.uint8)
    data = jpeg(Image.fromarray(noise), quality=95)
    assert len(data) // SHARE > MOST_BYTES
    assert 0 < len(points_of(data)) <= MOST_BYTES


def png() -> bytes:
    file = io.BytesIO()
    DETAILED.save(file, "PNG")
    return file.getvalue()


NONE: dict[str, bytes] = {
    "progressive": jpeg(DETAILED, progressive=True),
    "four colours": jpeg(DETAILED.convert("CMYK"), quality=10),
    "another format": png(),
    "tiny": jpeg(picture(32, 32)),
    "nothing": b"",
    "a cut": KINDS["420"][: len(KINDS["420"]) // 2],
}


@needs_fused
@pytest.mark.parametrize("kind", NONE)
def test_other_images_have_no_points(kind: str) -> None:
    assert points_of(NONE[kind]) == b""


@needs_fused
def test_points_of_a_shard_are_those_of_its_images() -> None:
    datas = [KINDS["444"], NONE["progressive"], KINDS["gray"]]
    shard, images = b"", []
    for data in datas:
        images.append((len(shard), len(data), crc32c(data)))
        shard += data
    images.append((-1, -1, 0))
    assert seek_points_of(shard, images) == [*map(points_of, datas), b""]


@needs_fused
@pytest.mark.parametrize("kind", ["420", "gray", "restarts within rows"])
def test_bytes_that_are_no_points_are_not_used(kind: str) -> None:
    data = KINDS[kind]
    points, rng = points_of(data), np.random.default_rng(0)
    wrong = [b"", points[:CHECKSUM], points[: len(points) // 2], bytes(len(points)), b"\xff" * 99, b"\0\0\0\0\1"]
    wrong += [bytes(CHECKSUM) + rng.bytes(int(rng.integers(1, 300))) for _ in range(20)]
    for seed in range(SEEDS):
        plain = decoded(data, None, seed, crop="random")
        for each in wrong[:6]:
            np.testing.assert_array_equal(decoded(data, each, seed, crop="random"), plain)
        for each in wrong[6:]:  # any pixels, but there are some
            assert decoded(data, each, seed, crop="random").shape == plain.shape


@needs_fused
def test_points_that_contradict_what_is_decoded_are_not_used() -> None:
    data, other = KINDS["444"], jpeg(picture(333, 500, seed=1, detail=3), subsampling=0)
    points, same = points_of(other), 0
    for seed in range(SEEDS):
        plain = decoded(data, None, seed, crop="random")
        same += int(np.array_equal(decoded(data, points, seed, crop="random"), plain))
    assert same == SEEDS


@needs_fused
def test_an_image_damaged_where_a_crop_does_not_look_is_refused_without_points() -> None:
    data = bytearray(KINDS["420"])
    assert points_of(bytes(data))
    at = len(data) // 3
    data[at : at + 64] = b"\xff\xd9" * 32
    assert points_of(bytes(data)) == b""


def test_without_the_c_decoder_there_are_no_points_and_asking_for_them_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(seek, "load", lambda name: (None, "no compiler"))
    assert not seek.available()
    with pytest.raises(UsageError, match=r"seek_points: .* not available \(no compiler\)"):
        seek.require_available()


def test_a_batch_with_the_wrong_number_of_points_is_an_error() -> None:
    if not fused.available():
        pytest.skip("shardkit was built without its JPEG decoder")
    settings = fused.FusedSettings((8, 8, 3), "resize", False, 1.5, 10**6)
    with pytest.raises(ValueError, match="points do not fit"):
        fused.decode_batch(settings, [KINDS["420"]], np.zeros((1, 8, 8, 3), np.uint8), None, [])


def test_crops_ask_for_points_and_whole_images_do_not() -> None:
    seeks = {crop: ImageDecoder(DecodeOptions(size=8, crop=crop)).seeks for crop in ("random", "center", "resize")}  # type: ignore[arg-type]
    assert seeks == {"random": fused.available(), "center": fused.available(), "resize": False}
    assert not ImageDecoder(DecodeOptions()).seeks
