"""Files that are cut: found by their headers alone, to the byte."""

from __future__ import annotations

import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from shardkit.images.header import image_header
from shardkit.images.whole import _end_of_tiff, cut_bmp, cut_gif

ROWS_PER_STRIP, STRIP_OFFSETS = 278, 273


def file_of(size: tuple[int, int], kind: str, **options: object) -> bytes:
    noise = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), np.uint8)
    image = Image.fromarray(noise)
    sink = io.BytesIO()
    (image.convert("P") if kind == "GIF" else image).save(sink, kind, **options)
    return sink.getvalue()


@pytest.mark.parametrize("kind", ["BMP", "PPM", "TIFF"])
@pytest.mark.parametrize("size", [(4, 1), (32, 21), (300, 300)])
def test_one_byte_less_than_the_pixels_take_is_a_cut_file(kind: str, size: tuple[int, int]) -> None:
    data = file_of(size, kind)
    assert image_header(data)[1:] == size
    with pytest.raises(ValueError, match=rf"{kind} truncated: {len(data) - 1} of {len(data)} bytes"):
        image_header(data[:-1])


def test_a_comment_of_a_gif_is_passed_over_whatever_is_in_it() -> None:
    for comment in (b",", b",;!" * 100, b"," + b"\xff" * 40):  # as an image's descriptor begins, and its colours
        assert cut_gif(file_of((4, 3), "GIF", comment=comment)) == ""


@pytest.mark.parametrize("size", [(1, 1), (40, 30)])
def test_a_gif_is_whole_when_the_last_block_of_its_first_image_is_there(size: tuple[int, int]) -> None:
    data = file_of(size, "GIF")
    whole = data.removesuffix(b"\x3b")  # the trailer is not needed
    assert cut_gif(whole) == ""
    assert cut_gif(whole[:-2]) == "GIF truncated inside its first image"
    with pytest.raises(ValueError, match="GIF truncated"):
        image_header(whole[:-2])


def test_a_bmp_with_bit_fields_is_measured_and_a_packed_one_is_not() -> None:
    data = bytearray(file_of((4, 5), "BMP"))
    for compression, told in ((0, True), (3, True), (1, False), (4, False)):
        data[30:34] = compression.to_bytes(4, "little")
        assert bool(cut_bmp(bytes(data[:-1]), 4, 5)) is told
        assert cut_bmp(bytes(data), 4, 5) == ""


def test_a_tiff_of_several_strips_needs_the_last_of_them() -> None:
    data = file_of((300, 300), "TIFF", tiffinfo={ROWS_PER_STRIP: 64})
    with Image.open(io.BytesIO(data)) as image:
        strips = image.tag_v2[STRIP_OFFSETS]  # type: ignore[attr-defined]
    assert len(strips) > 1
    with pytest.raises(ValueError, match="TIFF truncated"):
        image_header(data[: strips[-1]])


@pytest.mark.parametrize("bytes_told", [20, 1000])
def test_a_tiff_that_is_not_packed_ends_with_its_pixels_whatever_its_counts_say(bytes_told: int) -> None:
    tags = {ROWS_PER_STRIP: 2, STRIP_OFFSETS: (8, 28), 279: (bytes_told, bytes_told), 258: (8,), 277: 1, 259: 1}
    assert _end_of_tiff(SimpleNamespace(tag_v2=tags, width=10, height=4)) == 28 + 20
    assert _end_of_tiff(SimpleNamespace(tag_v2=tags, width=10, height=3)) == 28 + 10
    assert _end_of_tiff(SimpleNamespace(tag_v2={**tags, 279: (20, 15)}, width=10, height=4)) == 28 + 15


def test_a_gif_that_is_cut_tells_where() -> None:
    data = file_of((4, 3), "GIF")
    for size, message in ((12, "GIF truncated inside its header"), (13, "GIF truncated before its first image")):
        with pytest.raises(ValueError, match=message):
            image_header(data[:size])
