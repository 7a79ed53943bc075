"""PNG without what its pixels do not need."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from shardkit.images.png import without_notes


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


def test_a_png_without_notes_is_given_back_as_it_is() -> None:
    sink = io.BytesIO()
    Image.new("RGB", (3, 2)).save(sink, "PNG")
    data = sink.getvalue()
    assert without_notes(data) is data
