"""What kind of image some bytes are, and how large: from the header, and from a full decode.

    JPEG   FF D8, then segments `FF marker length(2, big-endian) …` up to a start of frame (C0-C3, C5-C7, C9-CB, CD-CF):
           precision (1), height (2), width (2); ends with FF D9                                      ITU-T T.81, B.2
    PNG    89 "PNG" 0D 0A 1A 0A, length (4), "IHDR", width (4), height (4), big-endian; ends with IEND   ISO 15948
    GIF    "GIF87a" or "GIF89a", width (2), height (2), little-endian                                 GIF89a, 18
    WEBP   "RIFF" size (4) "WEBP", then a chunk "VP8 ", "VP8L" or "VP8X"                                RFC 9649
    BMP    "BM", at byte 14 the header's size (4): 12 has 2-byte sizes, all others 4-byte ones, height < 0 = top down

These are read here, since Pillow takes 20 to 100 times as long for a header; every other format is left to Pillow.
"""

from __future__ import annotations

from struct import Struct

from shardkit.formats.pillow import MAX_PIXELS, bad_size, opened, reason_of
from shardkit.formats.png import HEAD as PNG_HEAD
from shardkit.formats.png import damage_in_header

PROGRESSIVE = 0xC2  # the frame marker of a progressive JPEG
_PROGRESSIVE_ARITHMETIC = 0xCA
MAX_SCANS = 500
"""Most scans of a progressive JPEG. Encoders write about ten; each costs a pass over all pixels, and few bytes."""

_be2x2 = Struct(">HH").unpack_from
_be2x4 = Struct(">II").unpack_from
_le2x2 = Struct("<HH").unpack_from
_le1x4 = Struct("<I").unpack_from
_le2x4s = Struct("<ii").unpack_from

_NOT_SOF = frozenset((0xC4, 0xC8, 0xCC))  # Huffman tables, reserved, arithmetic conditioning
_BARE = frozenset((0x01, *range(0xD0, 0xD9)))  # markers without a length: TEM, RST0-7, SOI
_DAMAGE = ("remature end", "bad Huffman code", "instead of RST")  # the texts of libjpeg's jerror.h
FOUR_COLORS = ("CMYK", "YCCK")  # simplejpeg's names for what it would turn into RGB without the ink's inversion


def image_header(data: bytes, *, max_pixels: int = MAX_PIXELS) -> tuple[str, int, int]:
    """(Pillow's name of the format, width, height as stored): from the header alone, plus the format's end mark.

    ValueError with a short reason for what is no image, is cut, or has no pixels or more than `max_pixels`.
    """
    head = data[:2]
    if head == b"\xff\xd8":
        name = "JPEG"
        width, height = _jpeg_size(data)
    elif head in _PARSERS:
        name, width, height = _PARSERS[head](data, max_pixels)
    else:
        name, width, height = _other_header(data, max_pixels)
    if not 0 < width * height <= max_pixels:
        raise ValueError(bad_size(name, width, height, max_pixels))
    return name, width, height


def check_image(data: bytes) -> tuple[str, int, int]:
    """As `image_header`, and all pixels of the image (of the first, in an animated one) are decoded as well.

    Stricter than Pillow: a JPEG whose coded data is damaged is an error, even where Pillow would give gray pixels.
    """
    header = image_header(data)
    if header[0] == "JPEG":
        import simplejpeg

        check_scans(data)
        try:
            color = simplejpeg.decode_jpeg_header(data)[2]
            simplejpeg.decode_jpeg(data, "CMYK" if color in FOUR_COLORS else "RGB")
        except ValueError as exc:
            if is_damage(exc):
                raise ValueError(f"damaged JPEG: {reason_of(exc)}") from exc
        else:
            return header
    with opened(data) as image:
        image.load()
    return header


def is_damage(exc: ValueError) -> bool:
    """Whether simplejpeg's error means that pixels are lost.

    If not, Pillow decides: a coding that simplejpeg does not know, or a harmless warning such as extraneous bytes.
    """
    return any(words in str(exc) for words in _DAMAGE)


def check_scans(data: bytes | memoryview) -> None:
    """ValueError for a progressive JPEG with more than `MAX_SCANS` scans."""
    try:
        frame = start_of_frame(data)
    except ValueError:
        return  # what is wrong is found by who decodes it
    if data[frame + 1] in (PROGRESSIVE, _PROGRESSIVE_ARITHMETIC) and bytes(data[frame:]).count(b"\xff\xda") > MAX_SCANS:
        raise ValueError(f"JPEG of more than {MAX_SCANS} scans: a decompression bomb")


def _jpeg_size(data: bytes) -> tuple[int, int]:
    at = start_of_frame(data)
    # `rfind` from the frame on: a thumbnail in the EXIF data has an end mark of its own
    if data[-2:] != b"\xff\xd9" and data.rfind(b"\xff\xd9", at) < 0:
        raise ValueError("JPEG cut: no end-of-image marker")
    height, width = _be2x2(data, at + 5)
    return width, height


def start_of_frame(data: bytes | memoryview) -> int:
    """Where in a JPEG its frame header's marker is; all of that header's fixed part (10 bytes) is there. ValueError."""
    at = 2
    try:
        while True:
            if data[at] != 0xFF:
                raise ValueError(f"damaged JPEG: no marker at byte {at}")
            marker = data[at + 1]
            if 0xC0 <= marker <= 0xCF and marker not in _NOT_SOF:
                if len(data) < at + 10:
                    break
                return at
            if marker == 0xFF:  # a fill byte
                at += 1
            elif marker in _BARE:
                at += 2
            elif marker == 0xD9 or marker == 0xDA:
                raise ValueError("damaged JPEG: no frame header")
            else:
                length = data[at + 2] << 8 | data[at + 3]
                if length < 2:
                    raise ValueError(f"damaged JPEG: a segment of {length} bytes at byte {at}")
                at += 2 + length
    except IndexError:
        pass
    raise ValueError("JPEG cut inside its header")


def _png_header(data: bytes, max_pixels: int) -> tuple[str, int, int]:
    if data[:8] != PNG_HEAD:
        return _other_header(data, max_pixels)
    if len(data) < 33:
        raise ValueError("PNG cut inside its header")
    if data[12:16] != b"IHDR":
        if data[12:16] == b"CgBI":
            raise ValueError("PNG in Apple's own form (CgBI), which is not decoded; convert it to PNG")
        raise ValueError("damaged PNG: the first chunk is not IHDR")
    width, height = _be2x4(data, 16)
    if 0 < width * height <= max_pixels:  # a bomb is the worse news
        if damage := damage_in_header(data):
            raise ValueError(f"damaged PNG: {damage}")
        if data.rfind(b"IEND", 33) < 0:
            raise ValueError("PNG cut: no end chunk (IEND)")
    return "PNG", width, height


def _gif_header(data: bytes, max_pixels: int) -> tuple[str, int, int]:
    if data[:6] not in (b"GIF87a", b"GIF89a"):
        return _other_header(data, max_pixels)
    if len(data) < 13:
        raise ValueError("GIF cut inside its header")
    width, height = _le2x2(data, 6)
    return "GIF", width, height


def _webp_header(data: bytes, max_pixels: int) -> tuple[str, int, int]:
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return _other_header(data, max_pixels)
    if len(data) < 30:
        raise ValueError("WEBP cut inside its header")
    if len(data) < 8 + _le1x4(data, 4)[0]:
        raise ValueError(f"WEBP cut: {len(data)} of {8 + _le1x4(data, 4)[0]} bytes")
    chunk = data[12:16]
    if chunk == b"VP8X":
        width, height = 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    elif chunk == b"VP8L":
        packed = _le1x4(data, 21)[0]
        width, height = 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
    elif chunk == b"VP8 ":
        width, height = (side & 0x3FFF for side in _le2x2(data, 26))
    else:
        raise ValueError(f"damaged WEBP: the first chunk is {chunk!r}")
    return "WEBP", width, height


def _bmp_header(data: bytes, max_pixels: int) -> tuple[str, int, int]:
    if len(data) < 26:
        raise ValueError("BMP cut inside its header")
    header_bytes = _le1x4(data, 14)[0]
    if not 12 <= header_bytes <= 124:
        return _other_header(data, max_pixels)
    width, height = _le2x2(data, 18) if header_bytes == 12 else _le2x4s(data, 18)
    return "BMP", width, abs(height)


_PARSERS = {b"\x89P": _png_header, b"GI": _gif_header, b"RI": _webp_header, b"BM": _bmp_header}


def _other_header(data: bytes, max_pixels: int) -> tuple[str, int, int]:
    with opened(data, max_pixels=max_pixels) as image:
        return image.format or "unknown", image.width, image.height
