"""The metadata of an image file: find it, carry it over, and strip it without touching the pixels.

    JPEG   segments `FF marker length(2, big-endian) …`: APP1 "Exif\\0\\0" and a TIFF block; APP1 with the name of XMP;
           APP2 "ICC_PROFILE\\0" number count and a part of the profile; COM, and any other APPn     ITU-T T.81, B.1.1
    PNG    chunks `length(4, big-endian) name(4) … CRC(4)`: eXIf, iCCP, tEXt, zTXt, iTXt, tIME             ISO 15948, 11
    WEBP   chunks `name(4) length(4, little-endian) …`, padded to even: EXIF, "XMP ", ICCP, and their flags in VP8X
           (0x08, 0x04, 0x20)                                                                                RFC 9649
    GIF    extensions `21 label`, then blocks `size …` up to one of size 0: FE comments, FF applications    GIF89a, 23

The orientation (images/orientation.py) is always kept. A colour profile is kept, since without it the pixels mean
other colours; only an sRGB profile can go, since readers assume sRGB for a file without a profile.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from shardkit.images import png
from shardkit.images.jpeg import start_of_frame, tidy
from shardkit.images.orientation import (
    EXIF,
    XMP,
    notes_in_png,
    notes_in_webp,
    orientation_in,
    orientation_of,
    turned_exif,
    webp_chunks,
    with_orientation,
    without_prefix,
)
from shardkit.images.whole import color_table

ICC = b"ICC_PROFILE\0"
SOS, EOI, COM, DQT, DRI = 0xDA, 0xD9, 0xFE, 0xDB, 0xDD
_APP0, _APP1, _APP2, _APP14, _APP15 = 0xE0, 0xE1, 0xE2, 0xEE, 0xEF
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # within a scan: no stuffed byte, restart or fill
_SEGMENT_BYTES = 0xFFFF - 2

_PNG_KEPT = frozenset(b"tRNS gAMA cHRM sRGB cICP sBIT bKGD pHYs acTL fcTL fdAT".split())
_WEBP_KEPT = frozenset((b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF"))
_GIF_KEPT = (b"NETSCAPE2.0", b"ANIMEXTS1.0")  # how often an animation is repeated
_WEBP_FLAGS = {b"EXIF": 0x08, b"XMP ": 0x04, b"ICCP": 0x20}


class Notes(msgspec.Struct, frozen=True):
    """A TIFF block, an XMP packet and a colour profile; b"" if there is none."""

    exif: bytes = b""
    xmp: bytes = b""
    icc: bytes = b""

    def kept(self, *, strip: bool, orientation: int) -> Notes:
        """The metadata to keep when the pixels are encoded again. strip: only the profile, unless it is sRGB.

        orientation: that of the new pixels; it is recorded in either case, unless it is 1.
        """
        told = b"" if orientation == 1 else turned_exif(orientation)
        if strip:
            return Notes(told, b"", b"" if is_srgb(self.icc) else self.icc)
        return Notes(*with_orientation(self.exif, self.xmp, orientation), self.icc)


def segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield (marker, start, end) of the segments of a JPEG up to and including its first scan's header. ValueError for
    damage.

    Bytes between segments are skipped, as libjpeg does.
    """
    at = 2
    while 0 <= (at := data.find(b"\xff", at)) <= len(data) - 4:
        marker = data[at + 1]
        if marker in (0x00, 0x01, 0xFF) or 0xD0 <= marker <= 0xD8:  # stray, fill, markers without a length
            at += 1 if marker == 0xFF else 2
            continue
        end = at + 2 + (data[at + 2] << 8 | data[at + 3])
        if marker == EOI or end < at + 4 or end > len(data):
            break
        yield marker, at, end
        if marker == SOS:
            return
        at = end
    raise ValueError("JPEG truncated inside its header")


def notes_of_jpeg(data: bytes) -> Notes:
    """The metadata of a JPEG."""
    exif = xmp = b""
    profile: dict[int, bytes] = {}
    for marker, start, end in segments(data):
        body = data[start + 4 : end]
        if marker == _APP1 and body.startswith(EXIF) and not exif:
            exif = without_prefix(body)
        elif marker == _APP1 and body.startswith(XMP) and not xmp:
            xmp = body[len(XMP) :]
        elif marker == _APP2 and body.startswith(ICC):
            profile[body[len(ICC)] if len(body) > len(ICC) else 0] = body[len(ICC) + 2 :]
    return Notes(exif, xmp, b"".join(profile[number] for number in sorted(profile)))


def notes_of(data: bytes, kind: str, image: Any) -> Notes:
    """The metadata of a file that Pillow has opened as `image`; for rarer formats, what Pillow's plugin finds."""
    if kind == "JPEG":
        return notes_of_jpeg(data)
    if kind == "PNG":
        profiles = (data[start + 8 : end - 4] for name, start, end in png.chunks(data) if name == b"iCCP")
        return Notes(*notes_in_png(data), _profile(next(profiles, b"")))
    info = image.info
    if kind == "WEBP":
        return Notes(*notes_in_webp(data), info.get("icc_profile") or b"")
    xmp = info.get("xmp") or info.get("XML:com.adobe.xmp") or b""
    exif = info.get("exif") or b""
    return Notes(
        without_prefix(exif) if isinstance(exif, bytes) else b"",
        xmp.encode() if isinstance(xmp, str) else bytes(xmp),
        info.get("icc_profile") or b"",
    )


def jpeg_with(data: bytes, notes: Notes) -> bytes:
    """A newly encoded JPEG, with the metadata inserted after its JFIF segment.

    An EXIF block or XMP packet that is too long for a segment is dropped, except for the orientation.
    """
    added = []
    exif = notes.exif if len(EXIF + notes.exif) <= _SEGMENT_BYTES else b""
    xmp = notes.xmp if len(XMP + notes.xmp) <= _SEGMENT_BYTES else b""
    orientation = orientation_of(notes.exif, notes.xmp)
    if orientation_of(exif, xmp) != orientation:
        exif = turned_exif(orientation)
    if exif:
        added.append(_segment(_APP1, EXIF + exif))
    if xmp:
        added.append(_segment(_APP1, XMP + xmp))
    room = _SEGMENT_BYTES - len(ICC) - 2
    parts = [notes.icc[at : at + room] for at in range(0, len(notes.icc), room)]
    if len(parts) < 256:
        head = ICC + b"%c%c"
        added += [_segment(_APP2, head % (n, len(parts)) + part) for n, part in enumerate(parts, 1)]
    at = next((end for marker, _, end in segments(data) if marker == _APP0), 2)
    return b"".join([data[:at], *added, data[at:]]) if added else data


def _segment(marker: int, body: bytes) -> bytes:
    return b"\xff%c" % marker + (len(body) + 2).to_bytes(2, "big") + body


def is_srgb(profile: bytes) -> bool:
    """Whether the description of a colour profile says sRGB ('desc', ICC.1:2010, 7.3 and 9.2.41)."""
    count = int.from_bytes(profile[128:132], "big")
    for at in range(132, min(132 + 12 * count, len(profile) - 11), 12):
        if profile[at : at + 4] == b"desc":
            start, size = (
                int.from_bytes(profile[at + 4 : at + 8], "big"),
                int.from_bytes(profile[at + 8 : at + 12], "big"),
            )
            text = profile[start : start + size]
            return b"sRGB" in text or "sRGB".encode("utf-16-be") in text
    return False


# Stripping


def strip_jpeg(data: bytes) -> bytes:
    """The JPEG without EXIF, XMP, comments, thumbnails, and bytes after its end."""
    data = tidy(data)
    pieces = [data[:2]]
    body = b""
    scan = 0
    for marker, start, end in segments(data):
        if marker == _APP0 and data[start + 4 : start + 9] == b"JFIF\0":
            pieces.append(_segment(_APP0, data[start + 4 : start + 16] + b"\0\0"))  # its thumbnail has 0 x 0 pixels
        elif marker == _APP2 and data.startswith(ICC, start + 4):
            body += data[start:end]
        elif (not _APP0 <= marker <= _APP15 and marker != COM) or marker == _APP14:
            pieces.append(data[start:end])
            scan = end
    notes = notes_of_jpeg(data)
    told = orientation_of(notes.exif, notes.xmp)
    extra = [] if told == 1 else [_segment(_APP1, EXIF + turned_exif(told))]
    if notes.icc and not is_srgb(notes.icc):
        extra.append(body)
    first = 2 if len(pieces) > 1 and pieces[1][1] == _APP0 else 1
    return b"".join([*pieces[:first], *extra, *pieces[first:], *_scans(data, scan)])


def _scans(data: bytes, at: int) -> Iterator[bytes]:
    """Yield the coded data after the first scan's header, the tables and headers between scans, and the end mark."""
    while (found := _MARKER.search(data, at)) is not None:
        mark = found.start()
        yield data[at:mark]
        marker = data[mark + 1]
        if marker == EOI:
            yield data[mark : mark + 2]
            return
        at = mark + 2 + max(2, data[mark + 2] << 8 | data[mark + 3]) if mark + 4 <= len(data) else len(data)
        if not _APP0 <= marker <= _APP15 and marker != COM:
            yield data[mark:at]
    raise ValueError("JPEG truncated: no end-of-image marker")


def is_incomplete(data: bytes) -> bool:
    """Whether a JPEG lacks scans: some coefficients of a component are missing, or lack their last bits.

    Decoders guess them from the surrounding blocks, which is lost if the file is rewritten. T.81, B.2.3 and G.1.1.1.
    """
    frame = start_of_frame(data)
    progressive = data[frame + 1] in (0xC2, 0xCA)
    parts = [data[frame + 10 + 3 * number] for number in range(data[frame + 9])]
    missing = {part: set(range(64 if progressive else 1)) for part in parts}
    for header in _scan_headers(data):
        tables = 1 + 2 * header[0] if header else 0
        if len(header) < tables + 3:
            return True
        first, last, bits = header[tables : tables + 3]
        for part in header[1:tables:2]:
            if not progressive:
                missing.pop(part, None)
            elif bits & 15 == 0:
                missing.get(part, set()).difference_update(range(first, last + 1))
    return any(missing.values())


def _scan_headers(data: bytes) -> Iterator[bytes]:
    """Yield the headers of all scans, from their number of components on; a cut one as far as it goes."""
    at = 0
    for marker, start, end in segments(data):
        if marker == SOS:
            yield data[start + 4 : end]
            at = end
    while (found := _MARKER.search(data, at)) is not None:
        start, marker = found.start(), data[found.start() + 1]
        if marker == EOI:
            return
        at = start + 2 + max(2, int.from_bytes(data[start + 2 : start + 4], "big"))
        if marker == SOS:
            yield data[start + 4 : at]


def strip_png(data: bytes) -> bytes:
    """The PNG without text, times, EXIF, private chunks, and bytes after its end."""
    pieces = [png.HEAD]
    told = orientation_in(data) or 1
    for name, start, end in png.chunks(data):
        is_profile = name == b"iCCP" and not is_srgb(_profile(data[start + 8 : end - 4]))
        if name[0] & 0x20 == 0 or name in _PNG_KEPT or is_profile:
            if name == b"IDAT" and told != 1:
                pieces.append(_png_chunk(b"eXIf", turned_exif(told)))
                told = 1
            pieces.append(data[start:end])
        if name == b"IEND":
            return b"".join(pieces)
    raise ValueError("PNG truncated: no end chunk (IEND)")


def _png_chunk(name: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")


def _profile(body: bytes) -> bytes:
    """The profile of an iCCP chunk; b"" if it can't be unpacked."""
    return png.unpack(body.partition(b"\0")[2][1:])


def strip_webp(data: bytes) -> bytes:
    """The WebP without EXIF, XMP, unknown chunks, and bytes after its end."""
    pieces: list[bytes] = []
    flags, told = 0, orientation_in(data) or 1
    for name, start, end in webp_chunks(data):
        body = data[start + 8 : start + 8 + int.from_bytes(data[start + 4 : start + 8], "little")]
        if name in _WEBP_KEPT or (name == b"ICCP" and not is_srgb(body)):
            flags |= _WEBP_FLAGS.get(name, 0)
            pieces.append(data[start:end])
    if told != 1:
        exif = turned_exif(told)
        pieces.append(b"EXIF" + len(exif).to_bytes(4, "little") + exif)
        flags |= _WEBP_FLAGS[b"EXIF"]
    if pieces and pieces[0][:4] == b"VP8X":
        old = pieces[0][8] & ~sum(_WEBP_FLAGS.values())
        pieces[0] = pieces[0][:8] + bytes([old | flags]) + pieces[0][9:]
    joined = b"WEBP" + b"".join(pieces)
    return b"RIFF" + len(joined).to_bytes(4, "little") + joined


def is_lossless_webp(data: bytes) -> bool:
    """Whether a WebP with one image is lossless."""
    return any(name == b"VP8L" for name, _, _ in webp_chunks(data))


def strip_gif(data: bytes) -> bytes:
    """The GIF without comments, unknown extensions, and bytes after its end."""
    try:
        at = 13 + color_table(data[10])
        pieces = [data[:at]]
        while (kind := data[at]) in (0x2C, 0x21):  # an image, an extension
            start, label = at, data[at + 1]
            at += 11 + color_table(data[at + 9]) if kind == 0x2C else 2
            while size := data[at]:
                at += 1 + size
            at += 1
            if kind == 0x2C or label == 0xF9 or (label == 0xFF and data[start + 3 : start + 14] in _GIF_KEPT):
                pieces.append(data[start:at])
    except IndexError:
        raise ValueError("GIF truncated: no end mark") from None
    if kind != 0x3B:
        raise ValueError(f"damaged GIF: a block of type {kind} at byte {at}")
    return b"".join([*pieces, b";"])


STRIPS: dict[str, Callable[[bytes], bytes]] = {
    "JPEG": strip_jpeg, "PNG": strip_png, "WEBP": strip_webp, "GIF": strip_gif
}  # fmt: skip
"""Format -> a function that strips the metadata and keeps the coded pixels. ValueError for damage."""
