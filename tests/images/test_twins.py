"""The decoders in C and the plain way: the same pixels and errors for every option, of odd and damaged files too."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shardkit.images import fused
from shardkit.images.decoder import DecodeOptions, ImageDecoder

MODES = {
    "JPEG": ("RGB", "L", "CMYK"),
    "PNG": ("RGB", "L", "LA", "RGBA", "P", "1", "I;16"),
    "WEBP": ("RGB", "RGBA"),
}
SIZES = {"1 x 1": (1, 1), "wide": (16383, 1), "tall": (1, 16383), "usual": (50, 40)}
TURNED = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06" + bytes(6)
OPTIONS: list[dict[str, Any]] = [
    *({"interpolation": name} for name in ("nearest", "bilinear", "bicubic", "area", "hamming", "lanczos")),
    {"crop": "pad", "padding": 3, "fill": 9},
    {"flip": "both", "color": "gray"},
    {"size": (40, 50)},
    {"mean": "imagenet", "std": "imagenet", "layout": "chw", "dtype": "float16"},
    {"orientation": True},
]


def saved(size: tuple[int, int], mode: str, kind: str, **options: Any) -> bytes:
    noise = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    if mode == "I;16":
        image = Image.fromarray(noise[:, :, 0].astype(np.uint16) * 257)
    file = io.BytesIO()
    (image if mode == "I;16" else image.convert(mode)).save(file, kind, **options)
    return file.getvalue()


def files(kind: str) -> dict[str, bytes]:
    found = {mode: saved(SIZES["usual"], mode, kind) for mode in MODES[kind]}
    found |= {name: saved(size, "RGB", kind) for name, size in SIZES.items()}
    found["turned"] = saved(SIZES["usual"], "RGB", kind, exif=TURNED)
    if kind == "JPEG":
        found["progressive"] = saved(SIZES["usual"], "RGB", kind, progressive=True)
    if kind == "PNG":
        found["palette with transparency"] = saved(SIZES["usual"], "P", kind, transparency=3)
    whole, rng = dict(found), np.random.default_rng(2)
    for name, data in whole.items():
        found |= {f"{name}, cut at {at}": data[:at] for at in (3, len(data) // 2, len(data) - 2)}
        changed = bytearray(data)
        changed[int(rng.integers(len(data)))] ^= 16
        found[f"{name}, a bit changed"] = bytes(changed)
    return found


def result(options: dict[str, Any], data: bytes) -> str | bytes:
    """The pixels, or the error's words."""
    decoder = ImageDecoder(DecodeOptions(**{"size": 24, "exact": True, **options}))
    out = np.zeros((1, *(decoder.shape or ())), decoder.dtype)
    failures = decoder.batch_into([data], out, decoder.draws(5, np.arange(1)))
    return str(failures[0][1]) if failures else out.tobytes()


@pytest.mark.parametrize("options", OPTIONS, ids=repr)
@pytest.mark.parametrize("kind", MODES)
def test_c_and_the_plain_way_give_the_same_pixels_or_words(
    kind: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = files(kind)
    by_c = {name: result(options, data) for name, data in images.items()}
    monkeypatch.setattr(fused, "available", lambda part="": False)
    for name, data in images.items():
        assert by_c[name] == result(options, data), name
