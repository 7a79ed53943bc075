"""A zoo of small images through everything that looks at one: what the check takes is decoded, fast and exact agree,
and packing does not change the pixels that decode() gives."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import shardkit
from shardkit.errors import DecodeError
from shardkit.images.decoder import DecodeOptions, ImageDecoder
from shardkit.images.header import check_image, image_header
from shardkit.images.png import HEAD, TEXT_BYTES
from shardkit.images.rewrite import lossless as jpegtran
from shardkit.images.rewrite.metadata import is_incomplete
from shardkit.images.rewrite.transcode import Transcoded, Transcoding, transcode
from shardkit.images.thumbnails import open_picture

WIDTH, HEIGHT = 48, 40
SHAPE = (HEIGHT, WIDTH, 3)
in_c = pytest.mark.skipif(not jpegtran.available(), reason="the extension that rewrites JPEGs is not built")


def picture(mode: str = "RGB", *, seed: int = 0) -> Image.Image:
    """Smooth colours, with an alpha that is 0 in a part of the image and colours below it."""
    noise = np.random.default_rng(seed).integers(0, 256, (4, 5, 4), np.uint8)
    image = Image.fromarray(noise).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    pixels = np.array(image)
    pixels[: HEIGHT // 2, :, 3] = 0
    pixels[HEIGHT // 2 :, WIDTH // 2 :, 3] = 255
    whole = Image.fromarray(pixels)
    if mode.startswith("I"):
        ramp = np.linspace(0, 65535, WIDTH * HEIGHT).astype(np.uint16).reshape(HEIGHT, WIDTH)
        return Image.fromarray(ramp).convert(mode) if mode != "I;16" else Image.fromarray(ramp)
    if mode in ("RGBa", "La"):
        return whole.convert("RGBA" if mode == "RGBa" else "LA").convert(mode)
    return whole.convert(mode)


def file_of(image: Image.Image, name: str, **options: Any) -> bytes:
    sink = io.BytesIO()
    image.save(sink, name, **options)
    return sink.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_of(color: int, depth: int, *, before: bytes = b"", behind: bytes = b"") -> bytes:
    """A PNG in any colour type and depth."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    row = -(-WIDTH * channels * depth // 8)
    body = (np.linspace(0, 200, row) + np.arange(HEIGHT)[:, None]).astype(np.uint8)
    rows = b"".join(b"\0" + line.tobytes() for line in body)
    palette = chunk(b"PLTE", bytes(range(256)) * 3) if color == 3 and depth == 8 else b""
    if color == 3 and depth < 8:
        palette = chunk(b"PLTE", bytes(range(3 << depth)))
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, depth, color, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(rows))
    return HEAD + chunk(b"IHDR", header) + before + palette + pixels + behind + chunk(b"IEND", b"")


def zoo() -> Iterator[tuple[str, bytes]]:
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        yield f"PNG {mode}", file_of(picture(mode), "PNG")
    for color, depths in {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}.items():
        for depth in depths:
            yield f"PNG type {color} depth {depth}", png_of(color, depth)
    yield "PNG P with transparency", file_of(picture("P"), "PNG", transparency=bytes(range(256)))
    yield "PNG P with a transparent colour", file_of(picture("P"), "PNG", transparency=3)
    yield "PNG L with a transparent value", file_of(picture("L"), "PNG", transparency=100)
    yield "PNG RGB with a transparent colour", file_of(picture("RGB"), "PNG", transparency=picture().getpixel((9, 9)))
    yield "PNG 1 with a transparent value", file_of(picture("1"), "PNG", transparency=0)
    yield "APNG", file_of(picture(), "PNG", save_all=True, append_images=[picture(seed=1)])
    yield (
        "APNG with an image beside",
        file_of(picture(), "PNG", save_all=True, append_images=[picture(seed=1), picture(seed=2)], default_image=True),
    )
    yield "PNG with a long text", png_of(2, 8, before=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(5 << 20))))
    yield "PNG with a long text behind", png_of(2, 8, behind=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(5 << 20))))
    yield "PNG with many texts", png_of(2, 8, before=chunk(b"tEXt", b"a\0" + b"x" * 900_000) * 80)
    yield "PNG with a long profile", png_of(2, 8, before=chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(5 << 20))))
    yield "PNG with a profile of another packing", png_of(2, 8, before=chunk(b"iCCP", b"a\0\1abc"))
    yield (
        "PNG with a bomb of a text",
        png_of(2, 8, before=chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(bytes(TEXT_BYTES + 1)))),
    )
    yield "PNG with a short gAMA", png_of(2, 8, before=chunk(b"gAMA", b"\0"))
    yield "PNG with a wrong checksum beside its pixels", png_of(2, 8, before=chunk(b"tEXt", b"a\0b")[:-1] + b"\0")
    for mode in ("L", "RGB", "CMYK"):
        for progressive in (False, True):
            yield f"JPEG {mode} {progressive}", file_of(picture(mode), "JPEG", progressive=progressive)
    yield "JPEG YCCK", ycck()
    yield "JPEG of RGB", file_of(picture(), "JPEG", keep_rgb=True)
    yield "MPO", file_of(picture(), "MPO", save_all=True, append_images=[picture(seed=1)])
    for mode in ("RGB", "RGBA", "L"):
        yield f"WEBP {mode}", file_of(picture(mode), "WEBP", exact=True)
        yield f"WEBP {mode} without loss", file_of(picture(mode), "WEBP", lossless=True, exact=True)
    yield "WEBP animated", file_of(picture(), "WEBP", save_all=True, append_images=[picture(seed=1)])
    yield (
        "WEBP animated with alpha",
        file_of(
            picture("RGBA"), "WEBP", save_all=True, append_images=[picture("RGBA", seed=1)], lossless=True, exact=True
        ),
    )
    for mode in ("1", "L", "P", "RGB"):
        yield f"GIF {mode}", file_of(picture(mode), "GIF")
    yield "GIF with transparency", file_of(picture("P"), "GIF", transparency=3)
    yield "GIF animated", file_of(picture(), "GIF", save_all=True, append_images=[picture(seed=1)])
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I", "I;16", "F"):
        yield f"TIFF {mode}", file_of(picture(mode), "TIFF")
    for packing in ("tiff_lzw", "jpeg", "packbits", "tiff_adobe_deflate"):
        yield f"TIFF {packing}", file_of(picture(), "TIFF", compression=packing)
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        yield f"BMP {mode}", file_of(picture(mode), "BMP")
    for name, mode in (("PPM", "RGB"), ("PPM", "1"), ("PPM", "I"), ("TGA", "RGBA"), ("ICO", "RGBA"), ("PCX", "P")):
        yield f"{name} {mode}", file_of(picture(mode), name, **({"sizes": [(WIDTH, HEIGHT)]} if name == "ICO" else {}))


def ycck() -> bytes:
    """A JPEG of four colours whose Adobe segment says YCCK."""
    data = file_of(picture("CMYK"), "JPEG")
    at = data.index(b"Adobe")
    return data[: at + 11] + b"\2" + data[at + 12 :]


ZOO = dict(zoo())


ENDS_TOLD = frozenset(("PNG", "APNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"))
"""Formats of which the header check knows where they end."""


def decoded(data: bytes, **options: Any) -> Any:
    return ImageDecoder(DecodeOptions(**options)).array(data, None).astype(int)


def made(data: bytes, **asked: Any) -> Transcoded:
    return transcode(data, Transcoding(**asked))


@pytest.mark.parametrize("name", ZOO)
def test_what_the_check_takes_is_decoded_and_fast_and_exact_agree(name: str) -> None:
    data = ZOO[name]
    assert image_header(data) == check_image(data)
    assert image_header(data)[1:] == (WIDTH, HEIGHT)
    whole = decoded(data, exact=True)
    assert whole.shape == SHAPE
    assert np.array_equal(decoded(data), whole)
    assert np.array_equal(decoded(data, orientation=True), whole)
    assert np.abs(decoded(data, size=(HEIGHT // 2, WIDTH // 2)) - decoded(data, size=(20, 24), exact=True)).mean() < 6
    assert np.array_equal(np.asarray(open_picture(data), int), whole)


@pytest.mark.parametrize("name", ZOO)
def test_packing_does_not_change_what_decode_gives(name: str) -> None:
    data = ZOO[name]
    whole = decoded(data)
    for asked in ({"strip": True}, {"orient": True}, {"strip": True, "orient": True}):
        assert np.array_equal(decoded(made(data, **asked).data), whole), asked
    lossless = made(data, to="png")
    assert np.array_equal(decoded(lossless.data), whole)
    for to in ("webp", "jpeg"):
        assert np.abs(decoded(made(data, to=to, quality=100).data) - whole).mean() < 16
    small = made(data, to="png", resize=HEIGHT // 2)
    assert (
        np.abs(decoded(small.data) - decoded(lossless.data, size=(20, 24), interpolation="lanczos", exact=True)).mean()
        < 4
    )


@pytest.mark.parametrize("name", ZOO)
def test_a_cut_image_is_an_error_for_fast_and_exact_alike_or_for_none(name: str) -> None:
    data = ZOO[name]
    for part in (0.1, 0.5, 0.9, 1.0):
        cut = data[: int(len(data) * part) - 1]
        told = []
        for options in ({}, {"size": 16}, {"exact": True}, {"size": 16, "exact": True}):
            try:
                decoded(cut, **options)
                told.append("")
            except DecodeError as exc:
                told.append(exc.fact)
        assert len({bool(text) for text in told}) == 1, told
        if name.split()[0] in ENDS_TOLD and name != "TIFF jpeg":  # whose tables lie behind its pixels
            try:
                image_header(cut)
            except ValueError:
                continue
            assert told[0] == "", f"the header check takes the first {len(cut):,} of {len(data):,} bytes"


@pytest.mark.parametrize(
    ("frames", "name"), [(True, "APNG"), (True, "GIF animated"), (True, "WEBP animated"), (False, "PNG RGB")]
)
def test_other_images_that_are_lost_are_told(frames: bool, name: str) -> None:
    assert made(ZOO[name], to="jpeg").first_of is frames


@pytest.mark.parametrize("lossless", [False, True])
def test_colours_below_alpha_stay_in_webp(lossless: bool) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = file_of(picture("RGBA"), "WEBP", lossless=lossless, exact=True, exif=exif)
    new = made(data, orient=True)
    assert new.how == "re-encoded"
    difference = np.abs(decoded(new.data) - decoded(data, orientation=True))
    assert difference.mean() < (0.01 if lossless else 8)
    assert np.abs(decoded(made(data, resize=20).data).mean() - decoded(data).mean()) < 5


def incomplete() -> bytes:
    """A progressive JPEG of which only the first scans are there, closed by an end mark."""
    data = file_of(picture(), "JPEG", progressive=True, quality=95)
    third = -1
    for _ in range(4):
        third = data.index(b"\xff\xda", third + 1)
    tables = data.rindex(b"\xff\xc4", 0, third)
    return data[:tables] + b"\xff\xd9"


@in_c
@pytest.mark.parametrize("asked", [{"baseline": True}, {"restart_rows": 1}, {"baseline": True, "strip": True}])
def test_a_jpeg_that_lacks_scans_is_left_as_it_is(asked: dict[str, Any]) -> None:
    data = incomplete()
    result = made(data, **asked)
    assert result.incomplete
    assert np.array_equal(decoded(result.data), decoded(data))
    assert b"\xff\xc2" in result.data


@in_c
@pytest.mark.parametrize("options", [{"progressive": True}, {"progressive": True, "subsampling": 0}, {}])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_whole_jpeg_lacks_no_scans(mode: str, options: dict[str, Any]) -> None:
    data = file_of(picture(mode), "JPEG", **options)
    assert not is_incomplete(data)
    result = made(data, baseline=True)
    assert not result.incomplete
    assert np.array_equal(decoded(result.data), decoded(data))


def test_the_whole_zoo_is_packed_and_read(tmp_path: Path) -> None:
    endings = {"JPEG": "jpg", "MPO": "jpg", "TIFF": "tif"}
    (tmp_path / "tree/a").mkdir(parents=True)
    for number, data in enumerate(ZOO.values()):
        kind = image_header(data)[0]
        (tmp_path / f"tree/a/{number:03}.{endings.get(kind, kind.lower())}").write_bytes(data)
    for check in ("header", "full"):
        manifest = shardkit.pack(tmp_path / "tree", tmp_path / check, check=check, workers=1)
        assert manifest.samples == len(ZOO)
        for exact in (False, True):
            data = shardkit.dataset(tmp_path / check).decode(size=16, exact=exact).batch(8)
            assert sum(len(images) for images, _ in data) == len(ZOO)
