"""The orientation of an image: the one rule, for training, packing and all tools.

1. The tag 0x0112 of the EXIF block (Exif 2.32, 4.6.4) counts if present, as an integer of any width (SHORT in the
   standard, LONG from some cameras). EXIF is in a JPEG's first APP1 segment "Exif\\0\\0" anywhere before the first
   scan; in a PNG's eXIf chunk or, without one, in ImageMagick's text "Raw profile type exif", before or after the
   pixels; in a WebP's EXIF chunk.
2. Otherwise XMP's `tiff:Orientation` counts: in a JPEG's APP1, a PNG's iTXt "XML:com.adobe.xmp", a WebP's "XMP " chunk.
3. Values other than 1 … 8, and unreadable EXIF data, mean 1: unchanged.
4. Pillow turns a TIFF when it decodes it, whatever the caller requests. For other formats, Pillow's value is used.

This is what `ImageOps.exif_transpose` of Pillow 11 and later does, except that broken EXIF is not an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from shardkit.images import png
from shardkit.images.kinds import tiff_number, tiff_tag
from shardkit.images.pillow import open_image

if TYPE_CHECKING:
    from PIL import Image

Buffer = bytes | memoryview

EXIF, XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
TAG = 0x0112
PNG_XMP, PNG_RAW_EXIF = b"XML:com.adobe.xmp", b"Raw profile type exif"
_IN_XMP = re.compile(rb'(tiff:Orientation(?:="|>))([0-9])')
_SOS, _EOI, _APP1 = 0xDA, 0xD9, 0xE1
_SMALL = 4096  # bytes that are searched for an APP1 faster than their segments are walked over


def orientation_of(exif: bytes, xmp: bytes = b"") -> int:
    """The orientation given by a TIFF block and an XMP packet together, 1 … 8."""
    value = tiff_number(exif, TAG)
    if value is None:
        found = _IN_XMP.search(xmp) if xmp else None
        value = int(found[2]) if found else 1
    return value if 1 <= value <= 8 else 1


def orientation_in(data: Buffer) -> int | None:
    """The orientation of a JPEG, PNG or WebP file, 1 … 8; None for other formats, which Pillow has to open."""
    if data[:2] == b"\xff\xd8":
        return orientation_of(*_notes_in_jpeg(data))
    if data[:8] == png.HEAD:
        return orientation_of(*notes_in_png(bytes(data)))
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return orientation_of(*notes_in_webp(bytes(data)))
    return None


def orientation_by_pillow(image: Image.Image) -> int:
    """The orientation of an image that Pillow has loaded, of a format that `orientation_in` does not know."""
    try:
        value = image.getexif().get(TAG, 1)
    except Exception:  # broken EXIF
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def is_turned_on_its_side(data: Buffer) -> bool:
    """Whether width and height change places when the image is turned upright. ValueError for what is no image."""
    told = orientation_in(data)
    if told is None:
        with open_image(bytes(data)) as image:
            told = (
                1 if image.format == "TIFF" else orientation_by_pillow(image)
            )  # rule 4: its size is of the turned one
    return told >= 5


def _notes_in_jpeg(data: Buffer) -> tuple[bytes, bytes]:
    """(TIFF block, XMP packet) of a JPEG, without copying the rest: this runs for every image that is turned."""
    exif = xmp = b""
    if len(data) <= _SMALL and b"\xff\xe1" not in bytes(data):
        return exif, xmp
    at, last = 2, len(data) - 4
    while at <= last:
        marker = data[at + 1] if data[at] == 0xFF else 0
        if marker <= 0x01 or marker == 0xFF or 0xD0 <= marker <= 0xD8:  # stray bytes, fill, markers without a length
            at += 2 if marker not in (0x00, 0xFF) else 1
            continue
        length = data[at + 2] << 8 | data[at + 3]
        if marker in (_SOS, _EOI) or length < 2:
            break
        if marker == _APP1:
            body = bytes(data[at + 4 : at + 2 + length])
            if not exif and body.startswith(EXIF):
                exif = without_prefix(body)
                if tiff_tag(exif, TAG) is not None:  # it takes precedence
                    break
            elif not xmp and body.startswith(XMP):
                xmp = body[len(XMP) :]
        at += 2 + length
    return exif, xmp


def without_prefix(exif: bytes) -> bytes:
    """A TIFF block without the name "Exif\\0\\0" before it, which some programs write twice."""
    return exif.removeprefix(EXIF).removeprefix(EXIF)


def notes_in_png(data: bytes) -> tuple[bytes, bytes]:
    """(TIFF block, XMP packet) of a PNG."""
    exif = raw = xmp = b""
    for name, start, end in png.chunks(data):
        if name == b"eXIf":
            exif = without_prefix(data[start + 8 : end - 4])
    for keyword, text in png.texts(data):
        if keyword == PNG_RAW_EXIF:
            raw = without_prefix(_raw_profile(text))
        elif keyword == PNG_XMP:
            xmp = text
    return exif or raw, xmp


def _raw_profile(text: bytes) -> bytes:
    """The bytes of ImageMagick's text: a line break, the name, the length, and lines of hexadecimal digits."""
    try:
        return bytes.fromhex("".join(text.decode("latin-1").split("\n")[3:]))
    except ValueError:
        return b""


def webp_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(name, start, end) of a WebP's chunks. ValueError for one that is cut."""
    total, at = min(8 + int.from_bytes(data[4:8], "little"), len(data)), 12
    while at + 8 <= total:
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        end = at + 8 + size + (size & 1)
        if at + 8 + size > total:
            raise ValueError("WEBP truncated inside a chunk")
        yield data[at : at + 4], at, end
        at = end


def notes_in_webp(data: bytes) -> tuple[bytes, bytes]:
    """(TIFF block, XMP packet) of a WebP, ignoring everything from a cut chunk on."""
    exif = xmp = b""
    try:
        for name, start, _ in webp_chunks(data):
            body = data[start + 8 : start + 8 + int.from_bytes(data[start + 4 : start + 8], "little")]
            if name == b"EXIF" and not exif:
                exif = without_prefix(body)
            elif name == b"XMP " and not xmp:
                xmp = body
    except ValueError:
        return exif, xmp
    return exif, xmp


# Writing


def turned_exif(orientation: int) -> bytes:
    """A TIFF block with only the orientation."""
    return b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01" + orientation.to_bytes(2, "big") + bytes(6)


def is_readable_exif(exif: bytes) -> bool:
    """Whether a TIFF block's first directory is complete."""
    order: Any = {b"II*\0": "little", b"MM\0*": "big"}.get(exif[:4])
    if order is None:
        return False
    directory = int.from_bytes(exif[4:8], order)
    entries = int.from_bytes(exif[directory : directory + 2], order)
    return directory >= 8 and entries > 0 and directory + 2 + 12 * entries <= len(exif)


def with_orientation(exif: bytes, xmp: bytes, orientation: int) -> tuple[bytes, bytes]:
    """A TIFF block and an XMP packet with this orientation: changed where they have one, added if neither does.

    An unreadable TIFF block is dropped, since other readers fail on it.
    """
    exif = exif if is_readable_exif(exif) else b""
    if (tag := tiff_tag(exif, TAG)) is not None:
        at, _, size, order = tag
        if tiff_number(exif, TAG):
            exif = exif[:at] + orientation.to_bytes(size, order) + exif[at + size :]
    xmp = _IN_XMP.sub(rb"\g<1>%d" % orientation, xmp)
    return (exif, xmp) if orientation_of(exif, xmp) == orientation else (turned_exif(orientation), xmp)
