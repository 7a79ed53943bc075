from __future__ import annotations

import io
import struct
import threading
import warnings
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from shardkit.images.header import check_image, image_header
from shardkit.images.jpeg import MAX_SCANS
from shardkit.images.pillow import MAX_PIXELS, open_image, quiet_pillow


def picture(mode: str = "RGB", size: tuple[int, int] = (40, 30)) -> Image.Image:
    gradient = Image.linear_gradient("L").resize(size)
    return Image.merge("RGB", (gradient, gradient.rotate(90), gradient.rotate(180))).convert(mode)


def encoded(image: Image.Image, name: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, name, **options)
    return stream.getvalue()


def png_claiming(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("check", [image_header, check_image])
@pytest.mark.parametrize(
    ("name", "mode", "options"),
    [
        ("JPEG", "RGB", {}),
        ("JPEG", "RGB", {"progressive": True}),
        ("JPEG", "L", {}),
        ("JPEG", "CMYK", {}),
        ("JPEG", "RGB", {"comment": b"\xff\xd9 \xff\xc0"}),
        ("PNG", "RGB", {}),
        ("PNG", "P", {}),
        ("PNG", "RGBA", {}),
        ("GIF", "P", {}),
        ("GIF", "P", {"save_all": True, "append_images": [Image.new("P", (40, 30))]}),
        ("BMP", "RGB", {}),
        ("TIFF", "RGB", {}),
        ("PPM", "RGB", {}),
        ("TGA", "RGB", {}),
        ("ICO", "RGBA", {"sizes": [(40, 30)]}),
        ("WEBP", "RGB", {}),
        ("WEBP", "RGB", {"lossless": True}),
        ("WEBP", "RGBA", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"}),
    ],
)
def test_each_format_is_known_by_its_name_and_size(check: Any, name: str, mode: str, options: dict[str, Any]) -> None:
    data = encoded(picture(mode), name, **options)
    assert check(data) == (name, 40, 30)


def test_a_bmp_with_the_oldest_header_or_top_down_is_read() -> None:
    old = b"BM" + struct.pack("<IHHI", 38, 0, 0, 26) + struct.pack("<IHHHH", 12, 2, 2, 1, 24) + bytes(16)
    assert image_header(old) == ("BMP", 2, 2)
    down = bytearray(encoded(picture(), "BMP"))
    down[22:26] = struct.pack("<i", -30)
    assert check_image(bytes(down)) == ("BMP", 40, 30)


def test_a_png_is_a_png_whatever_it_is_called_and_garbage_after_the_end_is_allowed() -> None:
    assert image_header(encoded(picture(), "PNG") + b"garbage") == ("PNG", 40, 30)
    assert image_header(encoded(picture(), "JPEG") + b"garbage") == ("JPEG", 40, 30)


@pytest.mark.parametrize("check", [image_header, check_image])
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"<!DOCTYPE html><html>", "HTML, not an image"),
        (b"\xef\xbb\xbf\n  <html lang=de>", "HTML, not an image"),
        (b"hello there", "not an image (starts with b'hello th')"),
        (bytes(100), "not an image (zero bytes only)"),
        (b"\xff\xd8", "JPEG truncated inside its header"),
        (b"\xff\xd8\xff\xd9", "damaged JPEG: no frame header"),
        (b"\xff\xd8\0\0\0\0", "JPEG truncated inside its header"),
        (b"\xff\xd8\xff\xe0\0\0", "damaged JPEG: a segment of 0 bytes at byte 2"),
        (encoded(picture(), "JPEG")[:-20], "JPEG truncated: no end-of-image marker"),
        (encoded(picture(), "JPEG")[:100], "JPEG truncated inside its header"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\x0d", "PNG truncated inside its header"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "damaged PNG: the first chunk is not IHDR"),
        (encoded(picture(), "PNG")[:-12], "PNG truncated: no end chunk (IEND)"),
        (b"GIF89a\1\0", "GIF truncated inside its header"),
        (b"BM\0\0\0\0", "BMP truncated inside its header"),
        (encoded(picture(), "WEBP")[:28], "WEBP truncated inside its header"),
        (b"RIFF\x20\0\0\0WEBPJUNK" + bytes(40), "damaged WEBP: the first chunk is b'JUNK'"),
        (png_claiming(0, 12), "PNG of 0 x 12 pixels"),
        (
            png_claiming(50_000, 50_000),
            "PNG of 50000 x 50000 pixels, more than 178,956,970: a decompression bomb",
        ),
    ],
)
def test_what_is_no_whole_image_is_refused_with_the_reason(check: Any, data: bytes, reason: str) -> None:
    with pytest.raises(ValueError) as caught:
        check(data)
    assert str(caught.value) == reason


def test_a_jpeg_without_pixels_is_refused() -> None:
    data = encoded(picture(), "JPEG")
    at = data.index(b"\xff\xc0")
    with pytest.raises(ValueError, match="JPEG of 40 x 0 pixels"):
        image_header(data[: at + 5] + b"\0\0" + data[at + 7 :])


def test_the_end_mark_of_a_thumbnail_does_not_stand_for_the_image_s() -> None:
    exif = b"Exif\0\0" + encoded(picture(), "JPEG")
    data = encoded(picture(), "JPEG", exif=exif)
    assert image_header(data) == ("JPEG", 40, 30)
    with pytest.raises(ValueError, match="no end-of-image marker"):
        image_header(data[:-20])


def test_a_webp_that_is_shorter_than_it_says_is_refused() -> None:
    data = encoded(picture(), "WEBP")
    with pytest.raises(ValueError, match=f"WEBP truncated: {len(data) - 9} of {len(data)} bytes"):
        image_header(data[:-9])


def test_fewer_pixels_can_be_asked_for() -> None:
    with pytest.raises(ValueError, match="more than 100: a decompression bomb"):
        image_header(encoded(picture(), "TIFF"), max_pixels=100)


def test_a_size_that_pillow_only_warns_about_passes_silently() -> None:
    with open_image(b"P6 10000 10000 255\n") as image:
        assert image.size == (10_000, 10_000)
    assert MAX_PIXELS > 10_000 * 10_000


def test_a_bomb_in_a_format_that_pillow_reads_is_refused() -> None:
    with pytest.raises(ValueError, match="decompression bomb"):
        image_header(b"P6 50000 50000 255\n")


@pytest.mark.parametrize(("name", "end_bytes"), [("JPEG", 2), ("PNG", 12)])
def test_the_full_check_finds_an_image_whose_pixels_are_cut(name: str, end_bytes: int) -> None:
    data = encoded(Image.effect_noise((64, 64), 90), name)
    damaged = data[: len(data) * 2 // 3] + data[-end_bytes:]
    assert image_header(damaged) == (name, 64, 64)
    with pytest.raises(ValueError, match=f"damaged {name}"):
        check_image(damaged)


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("GIF", {}, "GIF truncated inside its first image"),
        ("BMP", {}, "BMP truncated: "),
        ("PPM", {}, "PPM truncated: "),
        ("TIFF", {}, "TIFF truncated: "),
        ("TIFF", {"compression": "tiff_lzw"}, "TIFF that can't be decoded"),
    ],
)
def test_a_format_that_tells_where_its_pixels_end_is_found_cut_by_its_header(
    name: str, options: dict[str, Any], reason: str
) -> None:
    data = encoded(Image.effect_noise((40, 30), 90).convert("RGB"), name, **options)
    with pytest.raises(ValueError) as caught:
        image_header(data[: len(data) * 2 // 3])
    assert str(caught.value).startswith(reason)


def test_a_harmless_extra_byte_between_a_jpeg_s_segments_is_no_damage() -> None:
    data = encoded(picture(), "JPEG")
    at = data.index(b"\xff\xda")
    assert check_image(data[:at] + b"\xff" + data[at:]) == ("JPEG", 40, 30)


WHOLE = [encoded(picture(), name) for name in ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(WHOLE), st.data())
def test_damage_gives_a_size_or_a_value_error_and_nothing_else(whole: bytes, data: st.DataObject) -> None:
    damaged = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for _ in range(data.draw(st.integers(0, 3)) if damaged else 0):
        damaged[data.draw(st.integers(0, min(len(damaged), 400) - 1))] = data.draw(st.integers(0, 255))
    for check in (image_header, check_image):
        try:
            _, width, height = check(bytes(damaged))
        except ValueError:
            continue
        assert 0 < width * height <= MAX_PIXELS


@given(st.binary(max_size=64))
def test_any_bytes_give_a_size_or_a_value_error(data: bytes) -> None:
    for start in (b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\0\0\0\0WEBP", b"BM"):
        try:
            name, width, height = image_header(start + data)
        except ValueError as exc:
            assert str(exc)
        else:
            assert name
            assert width * height > 0


def warn_as_pillow(message: str) -> None:
    warnings.warn_explicit(message, UserWarning, "Image.py", 1, module="PIL.Image")


def test_quiet_pillow_silences_pillow_alone_and_only_inside() -> None:
    before = list(warnings.filters)
    with quiet_pillow():
        with quiet_pillow():
            warn_as_pillow("ignored")
        warn_as_pillow("ignored still")
        with pytest.raises(UserWarning, match="another"):
            warnings.warn("another", UserWarning, stacklevel=1)
    assert list(warnings.filters) == before
    with pytest.raises(UserWarning, match="heard"):
        warn_as_pillow("heard")


def test_quiet_pillow_works_in_threads_that_overlap() -> None:
    before = list(warnings.filters)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(200):
                with quiet_pillow():
                    warn_as_pillow("ignored")
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert list(warnings.filters) == before


@pytest.mark.parametrize("frame", [0xC2, 0xCA])  # Huffman and arithmetic coding
def test_a_progressive_jpeg_of_very_many_scans_is_refused_before_it_is_decoded(frame: int) -> None:
    sink = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(sink, "JPEG", progressive=True)
    data = sink.getvalue()
    scan = data.index(b"\xff\xda")
    one = data[scan : data.index(b"\xff\xc4", scan)]
    many = (data[:scan] + one * MAX_SCANS + data[scan:]).replace(b"\xff\xc2", bytes((0xFF, frame)), 1)
    for check in (image_header, check_image):
        with pytest.raises(ValueError, match=f"JPEG of more than {MAX_SCANS} scans: a decompression bomb"):
            check(many)
    assert check_image(data) == ("JPEG", 16, 16)
