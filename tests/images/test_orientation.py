"""How an image is turned: the one rule, wherever the turn is told and whoever asks."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from shardkit.images.decoder import DecodeOptions, ImageDecoder
from shardkit.images.orientation import (
    EXIF,
    XMP,
    is_readable_exif,
    orientation_in,
    orientation_of,
    turned_exif,
    with_orientation,
)
from shardkit.images.rewrite.transcode import Transcoding, transcode

WIDTH, HEIGHT = 48, 32


def picture() -> Image.Image:
    noise = np.random.default_rng(3).integers(0, 256, (4, 6, 3), np.uint8)
    return Image.fromarray(noise).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)


def file_of(name: str, **options: Any) -> bytes:
    sink = io.BytesIO()
    picture().save(sink, name, **options)
    return sink.getvalue()


def tiff_block(value: int, *, order: str = ">", kind: int = 3) -> bytes:
    """A directory with the orientation as SHORT (3), LONG (4) …"""
    packed = struct.pack(
        order + {3: "HH", 4: "I", 8: "hH", 9: "i"}[kind], *((value, 0) if kind in (3, 8) else (value,))
    )
    head = b"MM\0*" if order == ">" else b"II*\0"
    return head + struct.pack(order + "IHHHI", 8, 1, 0x0112, kind, 1) + packed + bytes(4)


def packet(value: int, form: str = "attribute") -> bytes:
    told = f'tiff:Orientation="{value}"' if form == "attribute" else f"><tiff:Orientation>{value}</tiff:Orientation"
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description {told}/></x:xmpmeta>'.encode()


def segment(marker: int, body: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body


def jpeg_with(part: bytes, *, at: bytes = b"") -> bytes:
    data = file_of("JPEG", quality=95)
    where = data.index(at) if at else 2
    return data[:where] + part + data[where:]


def png_text(keyword: str, text: str, *, packed: bool = False, behind: bool = False) -> bytes:
    info = PngInfo()
    info.add_text(keyword, text, zip=packed)
    data = file_of("PNG", pnginfo=info)
    if not behind:
        return data
    name = b"zTXt" if packed else b"tEXt"
    at = data.index(name) - 4
    end = at + 12 + int.from_bytes(data[at : at + 4], "big")
    return data[:at] + data[end:-12] + data[at:end] + data[-12:]


def raw_profile(value: int) -> str:
    block = EXIF + tiff_block(value)
    return f"\nexif\n{len(block):8}\n{block.hex()}\n"


def xmp_text(value: int) -> bytes:
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", packet(value).decode(), zip=True)
    return file_of("PNG", pnginfo=info)


PLACES: dict[str, Callable[[int], bytes]] = {
    "JPEG, SHORT": lambda n: jpeg_with(segment(0xE1, EXIF + tiff_block(n))),
    "JPEG, SHORT, little-endian": lambda n: jpeg_with(segment(0xE1, EXIF + tiff_block(n, order="<"))),
    "JPEG, LONG": lambda n: jpeg_with(segment(0xE1, EXIF + tiff_block(n, kind=4))),
    "JPEG, LONG, little-endian": lambda n: jpeg_with(segment(0xE1, EXIF + tiff_block(n, order="<", kind=4))),
    "JPEG, SLONG": lambda n: jpeg_with(segment(0xE1, EXIF + tiff_block(n, kind=9))),
    "JPEG, twice named": lambda n: jpeg_with(segment(0xE1, EXIF + EXIF + tiff_block(n))),
    "JPEG, behind the tables": lambda n: jpeg_with(segment(0xE1, EXIF + tiff_block(n)), at=b"\xff\xc0"),
    "JPEG, before the scan": lambda n: jpeg_with(segment(0xE1, EXIF + tiff_block(n)), at=b"\xff\xda"),
    "JPEG, XMP": lambda n: jpeg_with(segment(0xE1, XMP + packet(n))),
    "JPEG, XMP's element": lambda n: jpeg_with(segment(0xE1, XMP + packet(n, "element"))),
    "JPEG, EXIF before XMP": lambda n: jpeg_with(
        segment(0xE1, XMP + packet(9 - n)) + segment(0xE1, EXIF + tiff_block(n))
    ),
    "PNG, eXIf": lambda n: file_of("PNG", exif=tiff_block(n)),
    "PNG, LONG": lambda n: file_of("PNG", exif=tiff_block(n, kind=4)),
    "PNG, raw profile": lambda n: png_text("Raw profile type exif", raw_profile(n)),
    "PNG, packed raw profile": lambda n: png_text("Raw profile type exif", raw_profile(n), packed=True),
    "PNG, raw profile behind": lambda n: png_text("Raw profile type exif", raw_profile(n), behind=True),
    "PNG, XMP": xmp_text,
    "WEBP, EXIF": lambda n: file_of("WEBP", lossless=True, exif=tiff_block(n)),
    "WEBP, LONG": lambda n: file_of("WEBP", lossless=True, exif=tiff_block(n, kind=4)),
    "WEBP, XMP": lambda n: file_of("WEBP", lossless=True, xmp=packet(n)),
}


def decoded(data: bytes, **options: Any) -> Any:
    return ImageDecoder(DecodeOptions(orientation=True, **options)).array(data, None).astype(int)


def shown(data: bytes) -> Image.Image:
    """As Pillow, and what is built on it, shows the file."""
    return ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("place", PLACES)
def test_fast_and_exact_turn_as_pillow_does_wherever_the_turn_is_told(place: str, orientation: int) -> None:
    data = PLACES[place](orientation)
    upright = shown(data)
    assert upright.size == ((WIDTH, HEIGHT) if orientation < 5 else (HEIGHT, WIDTH))
    assert orientation_in(data) == orientation_in(memoryview(data)) == orientation
    assert np.array_equal(decoded(data), np.asarray(upright))
    assert np.array_equal(decoded(data, exact=True), np.asarray(upright))
    side = upright.size[::-1]
    assert np.array_equal(decoded(data, size=side, exact=True), np.asarray(upright))
    assert np.abs(decoded(data, size=side) - np.asarray(upright)).mean() < 2.5


@pytest.mark.parametrize("asked", [{"strip": True}, {"to": "png"}, {"to": "jpeg", "quality": 95}, {"to": "webp"}])
@pytest.mark.parametrize("place", PLACES)
def test_what_is_packed_is_shown_as_the_original_is(place: str, asked: dict[str, Any]) -> None:
    data = PLACES[place](6)
    for more in ({}, {"orient": True}, {"strip": True}, {"orient": True, "strip": True}):
        new = transcode(data, Transcoding(**{**asked, **more})).data
        assert orientation_in(new) == (1 if "orient" in more else 6)
        for upright in (decoded(new), decoded(new, exact=True), np.asarray(shown(new), int)):
            assert np.abs(upright - np.asarray(shown(data))).mean() < 6


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_tiff_is_upright_in_either_case(orientation: int) -> None:
    tags = Image.Exif()
    tags[0x0112] = orientation
    data = file_of("TIFF", exif=tags)
    for exact in (False, True):
        assert np.array_equal(decoded(data, exact=exact), np.asarray(shown(data)))
        plain = ImageDecoder(DecodeOptions(exact=exact)).array(data, None)
        assert np.array_equal(plain, np.asarray(shown(data)))
    for asked in ({"orient": True}, {"strip": True}, {"to": "png"}):
        new = transcode(data, Transcoding(**asked)).data
        assert np.array_equal(decoded(new), np.asarray(shown(data)))


BROKEN = [b"", EXIF[:4], b"MM\0*\0\0\xff\xff", b"II*\0\x08\0\0\0\xff\xff", b"no TIFF at all", tiff_block(6)[:16]]


@pytest.mark.parametrize("block", BROKEN)
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP"])
def test_broken_exif_turns_nothing_and_is_not_carried_over(name: str, block: bytes) -> None:
    data = jpeg_with(segment(0xE1, EXIF + block)) if name == "JPEG" else file_of(name, exif=block or b"\0")
    assert not is_readable_exif(block)
    for exact in (False, True):
        assert decoded(data, exact=exact).shape == (HEIGHT, WIDTH, 3)
    for to in ("png", "webp", "jpeg"):
        new = transcode(data, Transcoding(to=to, resize=16)).data
        image = Image.open(io.BytesIO(new))
        assert not image.info.get("exif")
        assert ImageOps.exif_transpose(image).size == (24, 16)


def test_an_empty_segment_before_the_one_that_tells_it_is_passed_over() -> None:
    turn = segment(0xE1, EXIF + tiff_block(6))
    assert orientation_in(jpeg_with(segment(0xFE, b"") + turn)) == 6
    assert orientation_in(jpeg_with(b"\xff\xfe\0\1" + turn)) == 1  # no segment is so short


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP"])
def test_an_entry_that_is_cut_is_not_completed_by_what_stands_behind_the_block(name: str) -> None:
    whole = tiff_block(6)[:-4]  # to the end of the entry
    for block, told in ((whole, 6), (whole[:-1], 1)):
        data = jpeg_with(segment(0xE1, EXIF + block)) if name == "JPEG" else file_of(name, exif=block)
        assert orientation_in(data) == orientation_in(memoryview(data)) == told


@pytest.mark.parametrize("value", [0, 9, 255])
def test_values_that_mean_nothing_are_no_turn(value: int) -> None:
    assert orientation_of(tiff_block(value)) == 1
    assert orientation_of(tiff_block(value, kind=4), packet(6)) == 1  # the tag is there, so XMP is not asked
    assert orientation_of(b"", packet(0)) == 1


def test_changing_it_changes_every_place_that_tells_it() -> None:
    for kind in (3, 4, 8, 9):
        for order in "<>":
            block, xmp = with_orientation(tiff_block(6, order=order, kind=kind), packet(8), 1)
            assert orientation_of(block) == orientation_of(b"", xmp) == 1
            assert len(block) == len(tiff_block(6))
    assert with_orientation(b"", packet(6), 3) == (b"", packet(3))
    assert with_orientation(b"", b"", 3) == (turned_exif(3), b"")
    assert with_orientation(b"", b"", 1)[1] == b""


def test_exif_too_long_for_a_jpeg_s_segment_is_left_out_and_the_turn_stays() -> None:
    data = file_of("PNG", exif=tiff_block(6) + bytes(70_000))
    new = transcode(data, Transcoding(to="jpeg")).data
    assert orientation_in(new) == 6


def test_a_block_is_readable_to_the_last_byte_of_its_directory() -> None:
    block = turned_exif(6)
    directory = int.from_bytes(block[4:8], "big") + 2 + 12  # of one entry
    assert is_readable_exif(block[:directory])
    for end in range(directory):
        assert not is_readable_exif(block[:end])
