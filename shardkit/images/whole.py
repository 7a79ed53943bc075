"""Detect cut images by their headers, without decoding: a cut image would stop training.

JPEG, PNG and WebP have an end mark or a size (header.py). GIF's blocks are walked up to the end of the first image;
BMP, PPM and TIFF say where their pixels are and how many bytes they take. Each function returns "" or the reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

_BITS = {"1;I": 1, "L": 8, "I;16B": 16, "RGB": 24}  # of a pixel in a PPM, by Pillow's name of the raw mode


def cut_gif(data: bytes) -> str:
    """Check a GIF with a complete header (13 bytes). GIF89a, 18 to 27; unknown bytes between blocks are skipped."""
    at = 13 + color_table(data[10])
    try:
        while (kind := data[at]) != 0x3B:
            if kind not in (0x2C, 0x21):
                at += 1
                continue
            at += 11 + color_table(data[at + 9]) if kind == 0x2C else 2
            while at < len(data) and (size := data[at]):
                at += 1 + size
            if kind == 0x2C:
                return "GIF truncated inside its first image" if at > len(data) else ""
            at += 1
    except IndexError:
        return "GIF truncated before its first image"
    return "GIF without an image"


def color_table(flags: int) -> int:
    """The size of a GIF's colour table in bytes, by its flags."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def cut_bmp(data: bytes, width: int, height: int) -> str:
    """Check a BMP of at least 26 bytes; compressed ones can't be checked."""
    old = int.from_bytes(data[14:18], "little") == 12
    start, bits = int.from_bytes(data[10:14], "little"), int.from_bytes(data[24:26] if old else data[28:30], "little")
    if start < 26 or (not old and int.from_bytes(data[30:34], "little") not in (0, 3)):
        return ""
    row = -(-width * bits // 8)
    return _fewer("BMP", len(data), start + (row + 3) // 4 * 4 * (height - 1) + row)


def cut_by_pillow(image: Image.Image, size: int) -> str:
    """Check a TIFF or PPM of `size` bytes that Pillow has opened; other formats can't be checked."""
    if image.format == "TIFF":
        return _fewer("TIFF", size, _end_of_tiff(image))
    tiles: Any = getattr(image, "tile", [])
    if image.format == "PPM" and len(tiles) == 1 and tiles[0][0] == "raw":
        mode = tiles[0][3] if isinstance(tiles[0][3], str) else tiles[0][3][0]
        if mode in _BITS:
            return _fewer("PPM", size, tiles[0][2] + -(-image.width * _BITS[mode] // 8) * image.height)
    return ""


def _end_of_tiff(image: Any) -> int:
    """The end of the last strip or tile; for uncompressed pixels, by their own size if the byte count is larger."""
    tags = image.tag_v2
    offsets, counts = tags.get(273) or tags.get(324) or (), tags.get(279) or tags.get(325) or ()
    if len(offsets) != len(counts):
        return 0
    if tags.get(259, 1) == 1:
        if 273 not in tags or tags.get(284, 1) != 1:
            return 0
        row = -(-image.width * int(tags.get(258, (1,))[0]) * int(tags.get(277, 1)) // 8)
        strip = min(int(tags.get(278, image.height)), image.height)
        rows = [min(strip, image.height - number * strip) for number in range(len(offsets))]
        counts = [min(count, row * have) for count, have in zip(counts, rows, strict=True)]
    return max((int(start) + int(count) for start, count in zip(offsets, counts, strict=True)), default=0)


def _fewer(name: str, size: int, wanted: int) -> str:
    return f"{name} truncated: {size} of {wanted} bytes" if size < wanted else ""
