"""PNG without what its pixels do not need."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from shardkit.images.png import damage_in_header, has_frames, without_notes


def test_what_follows_the_end_of_a_png_with_texts_is_omitted() -> None:
    sink = io.BytesIO()
    texts = PngInfo()
    texts.add_text("Comment", "x" * 100)
    image = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))
    image.save(sink, "PNG", pnginfo=texts)
    kept = without_notes(sink.getvalue() + b"trailing bytes")
    assert b"tEXt" not in kept
    assert kept.endswith(b"IEND\xae\x42\x60\x82")
    with Image.open(io.BytesIO(kept)) as again:
        assert np.array_equal(np.asarray(again), np.asarray(image))


@pytest.mark.parametrize(
    ("at", "value"), [(0, 3), (1, 1), (1, 5), (2, 1), (3, 1), (4, 2)], ids=lambda number: str(number)
)
def test_each_impossible_number_of_a_header_alone_is_damage(at: int, value: int) -> None:
    sink = io.BytesIO()
    Image.new("RGB", (3, 2)).save(sink, "PNG")
    data = bytearray(sink.getvalue())
    assert damage_in_header(bytes(data)) == ""
    data[24 + at] = value
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    assert damage_in_header(bytes(data)).startswith("impossible header")


def test_a_png_without_notes_is_given_back_as_it_is() -> None:
    sink = io.BytesIO()
    Image.new("RGB", (3, 2)).save(sink, "PNG")
    data = sink.getvalue()
    assert without_notes(data) is data


@pytest.mark.parametrize(("frames", "several"), [(0, False), (1, False), (2, True), (300, True)])
def test_a_png_of_one_frame_is_one_image(frames: int, several: bool) -> None:
    sink = io.BytesIO()
    Image.new("RGB", (3, 2)).save(sink, "PNG")
    data = sink.getvalue()
    control = b"acTL" + frames.to_bytes(4, "big") + bytes(4)
    chunk = len(control[4:]).to_bytes(4, "big") + control + zlib.crc32(control).to_bytes(4, "big")
    assert has_frames(data[:33] + chunk + data[33:]) is several
    assert not has_frames(data)
