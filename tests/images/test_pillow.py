"""What Pillow is given to decode, and what it is not; what is said about the rest."""

from __future__ import annotations

import ast
import io
import os
import stat
import struct
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import shardkit
from shardkit.errors import DecodeError
from shardkit.images import pillow as pillow_module
from shardkit.images.decoder import DecodeOptions, ImageDecoder
from shardkit.images.header import check_image, image_header
from shardkit.images.pillow import FORMATS, MAX_PIXELS, open_image, quiet_pillow
from shardkit.images.pixels import resize_into
from shardkit.images.rewrite.transcode import Transcoding, transcode
from shardkit.images.thumbnails import open_picture

PACKAGE = Path(shardkit.__file__).parent
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\n(x) show\nshowpage\n"


def iptc(content: bytes) -> bytes:
    """An IPTC file around another one, which Pillow's plugin opens whatever it is."""

    def field(record: int, number: int, value: bytes) -> bytes:
        return struct.pack(">BBBH", 0x1C, record, number, len(value)) + value

    sizes = field(3, 20, struct.pack(">I", 100)) + field(3, 30, struct.pack(">I", 100))
    return field(3, 60, b"\1\0") + sizes + field(3, 120, struct.pack(">I", 5)) + field(8, 10, content)


def decode_with(**options: Any) -> Callable[[bytes], Any]:
    return lambda data: ImageDecoder(DecodeOptions(**options)).array(data, None)


DOORS: dict[str, Callable[[bytes], Any]] = {
    "header": image_header,
    "full check": check_image,
    "fast": decode_with(size=16),
    "whole": decode_with(),
    "exact": decode_with(size=16, exact=True),
    "shrunk": lambda data: transcode(data, Transcoding(resize=8)),
    "stripped": lambda data: transcode(data, Transcoding(strip=True)),
    "turned": lambda data: transcode(data, Transcoding(orient=True)),
    "shown": open_picture,
}


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Ghostscript and its like that leave a file when they are started."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("gs", "gswin64c", "djpeg"):
        program = folder / name
        program.write_text(f'#!/bin/sh\ntouch "{tmp_path}/was-run"\nexit 1\n')
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return tmp_path / "was-run"


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("content", [EPS, b"\xc5\xd0\xd3\xc6" + bytes(28) + EPS, iptc(EPS)], ids=["eps", "dos", "iptc"])
def test_no_file_starts_another_program(programs: Path, content: bytes, door: str) -> None:
    with pytest.raises((ValueError, DecodeError)):
        DOORS[door](content)
    assert not programs.exists()


def test_pillow_is_opened_by_one_function_or_for_named_formats() -> None:
    doors = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("Image", "PIL.Image"):
                if node.attr == "OPEN":
                    doors.append(path.relative_to(PACKAGE).as_posix())
                assert node.attr != "open" or path.name == "demo.py", f"{path}:{node.lineno}: use images/pillow.py"
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Image.open"):
                assert ast.unparse(next(key.value for key in node.keywords if key.arg == "formats")) == "['JPEG']"
            if isinstance(node, ast.ImportFrom) and node.module == "PIL.Image":
                assert "open" not in [alias.name for alias in node.names], f"{path}:{node.lineno}"
    assert set(doors) == {"images/pillow.py"}


def test_only_formats_that_are_decoded_in_process_are_opened() -> None:
    Image.init()
    assert set(Image.OPEN) - set(FORMATS) <= {"BUFR", "EPS", "FPX", "GRIB", "HDF5", "IPTC", "MIC", "MPEG", "WMF"}
    assert set(FORMATS) - set(Image.OPEN) <= {"AVIF", "HEIF", "JXL", "QOI"}  # plugins, and newer Pillows


def tiff_of(bands: int) -> bytes:
    """A TIFF of 2 x 2 pixels and so many bands of 8 bits."""
    pixels = bytes(4 * bands)
    tags = [(256, 3, 2), (257, 3, 2), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, bands)]
    tags += [(278, 3, 2), (279, 4, len(pixels))]
    entries = b"".join(struct.pack("<HHII", number, kind, 1, value) for number, kind, value in tags)
    at = 8 + len(pixels)
    return b"II*\0" + struct.pack("<I", at) + pixels + struct.pack("<H", len(tags)) + entries + bytes(4)


def box(brand: bytes) -> bytes:
    return struct.pack(">I", 24) + b"ftyp" + brand + bytes(4) + brand + b"mif1" + bytes(100)


def file_of(image: Image.Image, name: str, **options: Any) -> bytes:
    sink = io.BytesIO()
    image.save(sink, name, **options)
    return sink.getvalue()


def png_with_depth(depth: int) -> bytes:
    header = PNG[12:24] + bytes([depth]) + PNG[25:29]
    return PNG[:12] + header + struct.pack(">I", zlib.crc32(header)) + PNG[33:]


PNG = file_of(Image.linear_gradient("L"), "PNG")
LAB = file_of(Image.new("LAB", (4, 4)), "TIFF")


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n", "a git-lfs pointer, not the image"),
        (EPS, "EPS or PostScript: a program"),
        (b"%PDF-1.7\n", "PDF, not an image"),
        (b"<!DOCTYPE html><title>Not found</title>", "HTML, not an image"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "XML, not an image"),
        (b'<?xml version="1.0"?><svg width="1"/>', "SVG, which has no pixels"),
        (b'{"error": 404}', "JSON, not an image"),
        (b"PK\x03\x04" + bytes(40), "a ZIP archive, not an image"),
        (b"\x1f\x8b" + bytes(40), "gzip data, not an image"),
        (b"\0\x05\x16\x07" + bytes(40), "an AppleDouble file"),
        (box(b"heic"), "HEIC, which Pillow can't decode without a plugin (pillow-heif)"),
        (box(b"avif"), "AVIF that can't be decoded"),
        (box(b"mp42"), "an MP4 or QuickTime video, not an image"),
        (b"\xff\x0a" + bytes(40), "JPEG XL, which Pillow can't decode without a plugin"),
        (tiff_of(5), "TIFF of 5 bands, of a kind that can't be decoded (unknown pixel mode)"),
        (LAB, "TIFF in LAB colours, which can't be converted to RGB"),
        (PNG[:23] + b"\1" + PNG[24:], "damaged PNG: bad checksum (CRC) of the chunk 'IHDR' at byte 8"),
        (png_with_depth(3), "damaged PNG: impossible header (depth 3, colour type 0)"),
        (PNG[:33] + PNG[-12:], "damaged PNG: no pixels (IDAT)"),
        (PNG[:12] + b"CgBI" + PNG[16:], "PNG in Apple's own variant (CgBI)"),
        (b"hello there", "not an image (starts with b'hello th')"),
        (bytes(1000), "not an image (zero bytes only)"),
    ],
)
def test_what_is_no_image_is_named_alike_everywhere(data: bytes, reason: str, door: str) -> None:
    with pytest.raises((ValueError, DecodeError)) as caught:
        DOORS[door](data)
    assert getattr(caught.value, "fact", str(caught.value)).startswith(reason)


@pytest.mark.parametrize("door", [name for name in DOORS if name not in ("header", "stripped", "turned")])
def test_a_bad_checksum_of_the_pixels_is_named(door: str) -> None:
    at = PNG.index(b"IDAT")
    damaged = PNG[: at + 20] + bytes([PNG[at + 20] ^ 1]) + PNG[at + 21 :]
    with pytest.raises((ValueError, DecodeError)) as caught:
        DOORS[door](damaged)
    told = getattr(caught.value, "fact", str(caught.value))
    assert told == f"damaged PNG: bad checksum (CRC) of the chunk 'IDAT' at byte {at - 4}"


LZW = {"compression": "tiff_lzw"}


@pytest.mark.parametrize(
    ("name", "options"),
    [("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", LZW), ("GIF", {}), ("BMP", {}), ("PPM", {})],
)
@pytest.mark.parametrize("exact", [False, True])
def test_the_limit_of_pixels_is_the_caller_s_for_every_format(
    name: str, options: dict[str, Any], exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow's own refuses from 201 on
    data = file_of(Image.new("RGB", (40, 30)), name, **options)
    decoder = ImageDecoder(DecodeOptions(size=8, exact=exact, max_pixels=MAX_PIXELS + 1))
    assert decoder.array(data, None).shape == (8, 8, 3)
    assert Image.MAX_IMAGE_PIXELS == 100
    with pytest.raises(DecodeError, match="1,199: a decompression bomb"):
        ImageDecoder(DecodeOptions(size=8, exact=exact, max_pixels=1199)).array(data, None)


def test_pillow_s_own_limit_is_raised_only_while_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    inside, leave = threading.Event(), threading.Event()

    def work() -> None:
        with quiet_pillow(MAX_PIXELS + 2):
            inside.set()
            leave.wait()

    thread = threading.Thread(target=work)
    thread.start()
    inside.wait()
    with quiet_pillow(MAX_PIXELS):
        assert Image.MAX_IMAGE_PIXELS is not None
        assert 2 * Image.MAX_IMAGE_PIXELS >= MAX_PIXELS + 2
    leave.set()
    thread.join()
    assert Image.MAX_IMAGE_PIXELS == 100


def test_very_strong_shrinking_is_near_to_pillow_s() -> None:
    side = 512
    noise = np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8)
    data = file_of(Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC), "PNG")
    for crop in ("resize", "center"):
        fast = ImageDecoder(DecodeOptions(size=8, crop=crop)).array(data, None).astype(int)
        exact = ImageDecoder(DecodeOptions(size=8, crop=crop, exact=True)).array(data, None)
        assert np.abs(fast - exact).mean() < 2.5


def test_an_image_is_closed_and_an_error_inside_is_its_damage() -> None:
    with pytest.raises(ValueError, match="damaged PNG: told so"), open_image(PNG) as image:
        assert image.size == (256, 256)
        raise OSError("told so")


def test_pillow_s_own_limit_is_raised_only_where_it_would_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    monkeypatch.setattr(pillow_module, "MAX_PIXELS", 0)
    for most, limit in ((199, 100), (200, 100), (201, 101), (250, 125)):
        with quiet_pillow(most):
            assert limit == Image.MAX_IMAGE_PIXELS
        assert Image.MAX_IMAGE_PIXELS == 100


def test_an_area_that_is_enlarged_is_pillow_s_box(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    for shape in ((12, 9, 3), (6, 16, 3), (12, 4, 3)):
        out = np.zeros(shape, np.uint8)
        resize_into(pixels, (0, 0, 6, 8), out, "area")
        boxed = Image.fromarray(pixels).resize((shape[1], shape[0]), Image.Resampling.BOX)
        assert np.array_equal(out, np.asarray(boxed))
