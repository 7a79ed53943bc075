"""Identify bytes that are not an image by how they start, for error messages."""

from __future__ import annotations

from typing import Any

_HTML = (b"<!doctype html", b"<html", b"<head", b"<body", b"<script", b"<!--", b"<!doctype")

_STARTS = (
    (b"version https://git-lfs", "a git-lfs pointer, not the image; run 'git lfs pull'"),
    (b"%!PS", "EPS or PostScript: a program, which is never run"),
    (b"\xc5\xd0\xd3\xc6", "EPS or PostScript: a program, which is never run"),
    (b"%PDF-", "PDF, not an image"),
    (b"PK\x03\x04", "a ZIP archive, not an image"),
    (b"\x1f\x8b", "gzip data, not an image"),
    (b"Rar!\x1a\x07", "a RAR archive, not an image"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive, not an image"),
    (b"\0\x05\x16\x07", "an AppleDouble file (macOS's ._ files), not an image"),
    (b"\x93NUMPY", "a NumPy array, not an image"),
    (b"\x89HDF\r\n\x1a\n", "HDF5, not an image"),
    (b"\x1aE\xdf\xa3", "a Matroska or WebM video, not an image"),
    (b"\xd7\xcd\xc6\x9a", "WMF, which can't be decoded"),
)

_PLUGIN = "which Pillow can't decode without a plugin (pillow-heif)"
_BRANDS = {  # ISO 14496-12, 4.3; ISO 23008-12
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"), f"HEIC, {_PLUGIN}"),
    **dict.fromkeys((b"mif1", b"msf1"), f"HEIF, {_PLUGIN}"),
    **dict.fromkeys((b"avif", b"avis"), "AVIF that can't be decoded: it is damaged, or this Pillow has no AVIF"),
    b"crx ": "a Canon raw image (CR3), which can't be decoded",
}


def other_kind(data: bytes) -> str:
    """What the data is instead of an image, as a reason for an error; "" if its first bytes do not show it."""
    if not data:
        return "empty file"
    for start, kind in _STARTS:
        if data.startswith(start):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        return "an AVI video, not an image"
    text = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(_HTML):
        return "HTML, not an image"
    if text.startswith((b"<?xml", b"<svg")):
        return "SVG, which has no pixels" if b"<svg" in text else "XML, not an image"
    return "JSON, not an image" if text.startswith((b'{"', b"[{")) else ""


def undecoded_kind(data: bytes) -> str:
    """The kind of an image that nothing here decodes; "" if its first bytes do not show it."""
    if data.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL ")):
        return "JPEG XL, which Pillow can't decode without a plugin (pillow-jxl-plugin)"
    return _BRANDS.get(data[8:12], "an MP4 or QuickTime video, not an image") if data[4:8] == b"ftyp" else ""


def tiff_tag(tiff: bytes, number: int) -> tuple[int, int, int, Any] | None:
    """(offset of the value, its type, its bytes, byte order) of a tag in a TIFF block's first directory.

    None if there is no such tag. If there are several, the last one counts, as in Pillow. TIFF 6.0, section 2.
    """
    order: Any = {b"II": "little", b"MM": "big"}.get(tiff[:2])
    if order is None or tiff[2:4] not in (b"*\0", b"\0*"):
        return None
    directory = int.from_bytes(tiff[4:8], order)
    entries = int.from_bytes(tiff[directory : directory + 2], order)
    found = None
    for at in range(directory + 2, min(directory + 2 + 12 * entries, len(tiff) - 11), 12):
        if int.from_bytes(tiff[at : at + 2], order) == number:
            kind = int.from_bytes(tiff[at + 2 : at + 4], order)
            size = _TYPE_BYTES.get(kind, 1)
            apart = size * int.from_bytes(tiff[at + 4 : at + 8], order) > 4
            found = (int.from_bytes(tiff[at + 8 : at + 12], order) if apart else at + 8, kind, size, order)
    return found


_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
WHOLE_NUMBERS = {3: False, 4: False, 8: True, 9: True}
"""TIFF's integer types (SHORT, LONG, SSHORT, SLONG) -> whether they are signed."""


def tiff_number(tiff: bytes, number: int) -> int | None:
    """The (first) value of an integer tag; 0 if its type is not an integer, None if there is no such tag."""
    found = tiff_tag(tiff, number)
    if found is None:
        return None
    at, kind, size, order = found
    if kind not in WHOLE_NUMBERS or at + size > len(tiff):
        return 0
    return int.from_bytes(tiff[at : at + size], order, signed=WHOLE_NUMBERS[kind])


def band_count(tiff: bytes) -> int:
    """The number of bands of a TIFF by its SamplesPerPixel tag (277); 0 if it can't be found."""
    return tiff_number(tiff, 277) or 0
