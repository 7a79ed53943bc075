"""The format and size of an image: from the header, or checked by a full decode.

    JPEG   see jpeg.py
    PNG    89 "PNG" 0D 0A 1A 0A, length (4), "IHDR", width (4), height (4), big-endian; ends with IEND   ISO 15948
    GIF    "GIF87a" or "GIF89a", width (2), height (2), little-endian                                 GIF89a, 18
    WEBP   "RIFF" size (4) "WEBP", then a chunk "VP8 ", "VP8L" or "VP8X"                                RFC 9649
    BMP    "BM", at byte 14 the header's size (4): 12 has 2-byte sizes, all others 4-byte ones, height < 0 = top down

These are read here, since Pillow takes 20 to 100 times as long for a header; all other formats are left to Pillow.
"""

from __future__ import annotations

from struct import Struct
from struct import error as struct_error

from shardkit.images import jpeg
from shardkit.images.pillow import MAX_PIXELS, bad_size, open_image
from shardkit.images.png import HEAD as PNG_HEAD
from shardkit.images.png import damage_in_header
from shardkit.images.whole import cut_bmp, cut_by_pillow, cut_gif

_be2x4 = Struct(">II").unpack_from
_le2x2 = Struct("<HH").unpack_from
_le1x4 = Struct("<I").unpack_from
_le2x4s = Struct("<ii").unpack_from


def image_header(data: bytes, *, max_pixels: int = MAX_PIXELS, decode_rare: bool = True) -> tuple[str, int, int]:
    """(Pillow's name of the format, width, height as stored), from the header alone, plus the format's end mark.

    ValueError with a short reason if it is not an image, is cut, or has no pixels or more than `max_pixels`.
    decode_rare: decode JPEGs of rare kinds, whose header does not show whether they can be decoded.
    """
    head = data[:2]
    frame = None
    if head == b"\xff\xd8":
        frame = jpeg.frame_of(data)
        name, width, height = "JPEG", frame.width, frame.height
    elif head in _PARSERS:
        name, width, height = _PARSERS[head](data, max_pixels)
    else:
        name, width, height = _other_header(data, max_pixels)
    if not 0 < width * height <= max_pixels:
        raise ValueError(bad_size(name, width, height, max_pixels))
    if frame is not None:
        if not jpeg.has_end(data, frame.at) and not jpeg.is_complete(data):
            raise ValueError("JPEG truncated: no end-of-image marker")
        jpeg.check_scans(data, frame)
        if decode_rare and not frame.is_common:
            _decode_jpeg(data, frame)
    return name, width, height


def image_extent(head: bytes) -> tuple[int, int]:
    """(width, height) as stored, by the first bytes of an image; (0, 0) where these don't tell. Nothing is checked."""
    try:
        width, height = _extent(head)
    except (ValueError, IndexError, struct_error):  # the header is longer than these bytes
        return 0, 0
    return (width, height) if 0 < width * height <= MAX_PIXELS else (0, 0)


def _extent(head: bytes) -> tuple[int, int]:
    if head[:2] == b"\xff\xd8":
        frame = jpeg.frame_of(head)
        return frame.width, frame.height
    if head[:8] == PNG_HEAD and head[12:16] == b"IHDR":
        return _two(_be2x4(head, 16))
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return _two(_le2x2(head, 6))
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return _webp_extent(head)
    if head[:2] == b"BM":
        return _bmp_extent(head)
    return 0, 0


def _two(sides: tuple[int, ...]) -> tuple[int, int]:
    width, height = sides
    return width, height


def check_image(data: bytes) -> tuple[str, int, int]:
    """As `image_header`, but also decode all pixels of the image (of the first, if it is animated).

    Stricter than Pillow: a JPEG whose coded data is damaged is an error, even if Pillow would return gray pixels.
    """
    header = image_header(data, decode_rare=False)
    if header[0] == "JPEG":
        _decode_jpeg(data, jpeg.frame_of(data))
    else:
        _load_with_pillow(data)
    return header


def _decode_jpeg(data: bytes, frame: jpeg.Frame) -> None:
    content = jpeg.tidy(data)
    if jpeg.turbo_pixels(content, jpeg.color_of(frame)) is None:
        _load_with_pillow(content)


def _load_with_pillow(data: bytes) -> None:
    with open_image(data) as image:
        image.load()


def _png_header(data: bytes, max_pixels: int) -> tuple[str, int, int]:
    if data[:8] != PNG_HEAD:
        return _other_header(data, max_pixels)
    if len(data) < 33:
        raise ValueError("PNG truncated inside its header")
    if data[12:16] != b"IHDR":
        if data[12:16] == b"CgBI":
            raise ValueError("PNG in Apple's own variant (CgBI), which can't be decoded; convert it to PNG")
        raise ValueError("damaged PNG: the first chunk is not IHDR")
    width, height = _be2x4(data, 16)
    if 0 < width * height <= max_pixels:  # otherwise the size itself is reported
        if damage := damage_in_header(data):
            raise ValueError(f"damaged PNG: {damage}")
        if data.rfind(b"IEND", 33) < 0:
            raise ValueError("PNG truncated: no end chunk (IEND)")
    return "PNG", width, height


def _gif_header(data: bytes, max_pixels: int) -> tuple[str, int, int]:
    if data[:6] not in (b"GIF87a", b"GIF89a"):
        return _other_header(data, max_pixels)
    if len(data) < 13:
        raise ValueError("GIF truncated inside its header")
    width, height = _le2x2(data, 6)
    if 0 < width * height <= max_pixels and (cut := cut_gif(data)):
        raise ValueError(cut)
    return "GIF", width, height


def _webp_header(data: bytes, max_pixels: int) -> tuple[str, int, int]:
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return _other_header(data, max_pixels)
    if len(data) < 30:
        raise ValueError("WEBP truncated inside its header")
    if len(data) < 8 + _le1x4(data, 4)[0]:
        raise ValueError(f"WEBP truncated: {len(data)} of {8 + _le1x4(data, 4)[0]} bytes")
    return ("WEBP", *_webp_extent(data))


def _webp_extent(data: bytes) -> tuple[int, int]:
    chunk = data[12:16]
    if chunk == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if chunk == b"VP8L":
        packed = _le1x4(data, 21)[0]
        return 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
    if chunk == b"VP8 ":
        width, height = _le2x2(data, 26)
        return width & 0x3FFF, height & 0x3FFF
    raise ValueError(f"damaged WEBP: the first chunk is {chunk!r}")


def _bmp_header(data: bytes, max_pixels: int) -> tuple[str, int, int]:
    if len(data) < 26:
        raise ValueError("BMP truncated inside its header")
    if not 12 <= _le1x4(data, 14)[0] <= 124:
        return _other_header(data, max_pixels)
    width, height = _bmp_extent(data)
    if 0 < width * height <= max_pixels and (cut := cut_bmp(data, width, height)):
        raise ValueError(cut)
    return "BMP", width, height


def _bmp_extent(data: bytes) -> tuple[int, int]:
    header_bytes = _le1x4(data, 14)[0]
    if not 12 <= header_bytes <= 124:
        return 0, 0
    width, height = _le2x2(data, 18) if header_bytes == 12 else _le2x4s(data, 18)
    return width, abs(height)


_PARSERS = {b"\x89P": _png_header, b"GI": _gif_header, b"RI": _webp_header, b"BM": _bmp_header}


def _other_header(data: bytes, max_pixels: int) -> tuple[str, int, int]:
    with open_image(data, max_pixels=max_pixels) as image:
        found = image.format or "unknown", image.width, image.height
        cut = cut_by_pillow(image, len(data))
    if cut:
        raise ValueError(cut)
    return found
