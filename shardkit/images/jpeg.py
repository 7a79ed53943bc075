"""What must be known about a JPEG before it is decoded: its frame, stray bytes between segments, its end.

    FF D8, then segments `FF marker length(2, big-endian) …`: tables, APPn, COM; one start of frame:
    precision (1), height (2), width (2), components (1), for each of them name, sampling, table (3); scans; FF D9
                                                                                            ITU-T T.81, annex B
Markers are looked for as libjpeg does, so that its frame is ours: bytes between segments are skipped, and FF 00.

`turbo_pixels` is the only place that gives libjpeg-turbo memory to write to from Python. A lossless frame has no
scales: libjpeg-turbo gives all of its pixels whatever was asked for, and simplejpeg does not look.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from shardkit.errors import reason_of
from shardkit.native import load

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

BASELINE, EXTENDED, PROGRESSIVE, LOSSLESS = 0xC0, 0xC1, 0xC2, 0xC3  # frame markers; 8 more with arithmetic coding
PROGRESSIVE_ARITHMETIC = 0xCA
DCT_FRAMES = frozenset((BASELINE, EXTENDED, PROGRESSIVE, 0xC9, PROGRESSIVE_ARITHMETIC))
COMMON_SAMPLINGS = frozenset(b"\x11\x12\x21\x22\x41")  # of luma, with chroma of 11: all decoders know them
SAMPLE_BITS = 8
MAX_SCANS = 500
"""The maximum number of scans of a progressive JPEG. Encoders write about ten; each costs a pass over all pixels, but
only a few bytes."""

END = b"\xff\xd9"
FOUR_COLORS = 4  # components: CMYK, which simplejpeg would turn into RGB without the ink's inversion

_NOT_SOF = frozenset((0xC4, 0xC8, 0xCC))  # Huffman tables, reserved, arithmetic conditioning
_BARE = frozenset((0x01, *range(0xD0, 0xD8)))  # markers without a length: TEM, RST0-7
_UNKNOWN = frozenset((*range(0x02, 0xC0), 0xC8, 0xD8, 0xDE, 0xDF, *range(0xF0, 0xFE)))  # libjpeg stops at these
_DQT, _SOS = 0xDB, 0xDA
_MARKER = re.compile(rb"\xff+[^\x00\xff]")
_AFTER_SCAN = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")  # in a scan: stuffed bytes, restart markers, fill
_EXTRA = re.compile(r"(\d+) extraneous bytes before marker 0xd9")
_DAMAGE = ("remature end", "bad Huffman code", "instead of RST")  # the texts of libjpeg's jerror.h


class Frame(NamedTuple):
    """A frame header: the offset of its marker, and its content. sampling: a byte for each component."""

    at: int
    marker: int
    height: int
    width: int
    components: int
    sampling: bytes

    @property
    def is_common(self) -> bool:
        """Whether all decoders in use read it: not arithmetic, lossless, or with unusual sampling."""
        if self.marker not in (BASELINE, EXTENDED, PROGRESSIVE):
            return False
        luma, chroma = self.sampling[:1], self.sampling[1:]
        return not chroma or (luma[0] in COMMON_SAMPLINGS and set(chroma) == {0x11}) or set(self.sampling) == {0x11}


def can_be_scaled(data: bytes | memoryview) -> bool:
    """Whether it is a JPEG that libjpeg can decode at a smaller scale. A lossless one is always decoded whole, which
    may need more memory than available."""
    try:
        return data[:2] == b"\xff\xd8" and frame_of(data).marker in DCT_FRAMES
    except ValueError:
        return False


def _next_marker(data: bytes, at: int) -> int:
    found = _MARKER.search(data, at)
    if found is None:
        raise IndexError
    return found.end() - 2


def start_of_frame(data: bytes | memoryview) -> int:
    """The offset of a JPEG's frame header marker; the header's fixed part (10 bytes) is complete. Raises ValueError."""
    return _walk_to_frame(data)[0]


def is_progressive(data: bytes | memoryview) -> bool | None:
    """Whether a JPEG is progressive, by its header; None for what is none, or damaged."""
    if bytes(data[:2]) != b"\xff\xd8":
        return None
    try:
        return data[start_of_frame(data) + 1] == PROGRESSIVE
    except (ValueError, IndexError):
        return None


def count_progressive(data: Any, starts: Sequence[int], sizes: Sequence[int]) -> tuple[int, int]:
    """(JPEGs, progressive ones) of the images in the bytes of a shard that begin at `starts`, -1 for none; by their
    headers. Damaged ones are not counted. starts, sizes: native int64."""
    native = load("gather")[0]
    jpegs, progressive, left = (0, 0, range(len(starts))) if native is None else native.progressive(data, starts, sizes)
    view = memoryview(data)
    for number in left:
        start = starts[number]
        found = is_progressive(view[start : start + sizes[number]]) if start >= 0 else None
        jpegs += found is not None
        progressive += found is True
    return jpegs, progressive


def _walk_to_frame(data: bytes | memoryview) -> tuple[int, bool]:
    """(the offset of the frame's marker, whether a quantisation table comes before it)."""
    at, tables = 2, False
    try:
        while True:
            marker = data[at + 1]
            if data[at] != 0xFF or marker in (0x00, 0xFF):
                data = bytes(data)  # once: it has `search`
                at = _next_marker(data, at)
                continue
            if 0xC0 <= marker <= 0xCF and marker not in _NOT_SOF:
                if len(data) < at + 10:
                    break
                return at, tables
            if marker in _BARE:
                at += 2
                continue
            if marker == 0xD9 or marker == _SOS:
                raise ValueError("damaged JPEG: no frame header")
            tables = tables or marker == _DQT
            at = _segment_end(data, at)
    except IndexError:
        pass
    raise ValueError("JPEG truncated inside its header")


def _segment_end(data: bytes | memoryview, at: int) -> int:
    marker, length = data[at + 1], data[at + 2] << 8 | data[at + 3]
    if marker in _UNKNOWN:
        raise ValueError(f"damaged JPEG: an unknown marker (FF {marker:02X}) at byte {at}")
    if length < 2:
        raise ValueError(f"damaged JPEG: a segment of {length} bytes at byte {at}")
    return at + 2 + length


def frame_of(data: bytes | memoryview) -> Frame:
    """Parse the frame header. ValueError if it is damaged, or of a kind that no decoder here reads (with its name)."""
    at, tables = _walk_to_frame(data)
    marker, bits, components = data[at + 1], data[at + 4], data[at + 9]
    if marker not in DCT_FRAMES and marker != LOSSLESS:
        kind = "lossless JPEG with arithmetic coding" if marker == 0xCB else "hierarchical JPEG"
        raise ValueError(f"{kind} (frame FF {marker:02X}): not supported")
    if bits != SAMPLE_BITS:
        kind = f"lossless JPEG of {bits} bits" if marker == LOSSLESS else f"{bits}-bit JPEG"
        raise ValueError(f"{kind}: only {SAMPLE_BITS} bits per sample are supported")
    if components not in (1, 3, FOUR_COLORS):
        raise ValueError(f"JPEG of {components} components: only 1, 3 and 4 are supported")
    end = at + 10 + 3 * components
    if data[at + 2] << 8 | data[at + 3] != end - at - 2:
        raise ValueError("damaged JPEG: its frame header has the wrong length")
    if len(data) < end:
        raise ValueError("JPEG truncated inside its header")
    if not tables and marker != LOSSLESS and not _has_tables(bytes(data), end):
        raise ValueError("damaged JPEG: no quantisation table")
    sampling = bytes(data[at + 11 : end : 3])
    return Frame(at, marker, data[at + 5] << 8 | data[at + 6], data[at + 7] << 8 | data[at + 8], components, sampling)


def _has_tables(data: bytes, at: int) -> bool:
    return any(data[start + 1] == _DQT for start, _ in _segments(data, at))


def _segments(data: bytes, at: int = 2) -> list[tuple[int, int]]:
    """(start, end) of all segments up to and including the first scan's header. Raises ValueError."""
    found = []
    try:
        while True:
            at = _next_marker(data, at)
            if data[at + 1] in _BARE:
                at += 2
                continue
            if data[at + 1] == 0xD9:
                raise ValueError("damaged JPEG: no scan")
            end = _segment_end(data, at)
            found.append((at, end))
            if data[at + 1] == _SOS:
                return found
            at = end
    except IndexError:
        raise ValueError("JPEG truncated inside its header") from None


def has_end(data: bytes, frame: int) -> bool:
    """Whether there is an end mark after the frame header; one before it may belong to a thumbnail in the EXIF data."""
    return data[-2:] == END or data.rfind(END, frame) >= 0


def tidy(data: bytes) -> bytes:
    """The JPEG without stray bytes between its segments, and with an end mark; the same object if nothing changes.

    Decoders differ in how they treat such bytes; from the result they all read the same pixels. Raises ValueError.
    """
    parts = _segments(data)
    scan, coded = parts[-1]
    if has_end(data, scan):
        if sum(stop - start for start, stop in parts[:-1]) + 2 == scan:
            return data
        return b"".join((data[:2], *(data[start:stop] for start, stop in parts[:-1]), data[scan:]))
    marker = _AFTER_SCAN.search(data, coded)  # of data after the image, as in the files of some phones
    end = marker.start() if marker and is_single_scan(data) else len(data)
    return b"".join((data[:2], *(data[start:stop] for start, stop in parts[:-1]), data[scan:end], END))


def is_single_scan(data: bytes) -> bool:
    """Whether it is sequential, with all components in its first scan, so that nothing can be missing after it."""
    scan = _segments(data)[-1][0]
    frame = frame_of(data)
    return frame.marker in (BASELINE, EXTENDED) and len(data) > scan + 4 and data[scan + 4] == frame.components


def is_complete(data: bytes) -> bool:
    """Whether a JPEG without an end mark still has all of its pixels, as with some phones.

    Only decoding a single sequential scan can show it: in others the last scans may be missing.
    """
    try:
        return is_single_scan(data) and turbo_pixels(tidy(data), color_of(frame_of(data))) is not None
    except ValueError:
        return False


def color_of(frame: Frame) -> str:
    """simplejpeg's name for the native colour space of a frame."""
    return {1: "GRAY", 3: "RGB", FOUR_COLORS: "CMYK"}[frame.components]


def is_damage(exc: ValueError) -> bool:
    """Whether simplejpeg's error means that pixels are lost.

    If not, Pillow decides: it may be a coding that simplejpeg does not know, or a harmless warning such as extraneous
    bytes.
    """
    return any(words in str(exc) for words in _DAMAGE)


def check_scans(data: bytes | memoryview, frame: Frame) -> None:
    """ValueError for a progressive JPEG with more than `MAX_SCANS` scans."""
    if frame.marker in (PROGRESSIVE, PROGRESSIVE_ARITHMETIC) and bytes(data[frame.at :]).count(b"\xff\xda") > MAX_SCANS:
        raise ValueError(f"JPEG of more than {MAX_SCANS} scans: a decompression bomb")


def turbo_pixels(
    data: bytes | memoryview, color: str, *, least: tuple[int, int] = (0, 0), buffer: Any = None
) -> NDArray[np.uint8] | None:
    """Decode the pixels by simplejpeg, uint8 (height, width, channels); None if Pillow has to decide.

    least: (height, width); the image is decoded at the smallest scale with at least this size. buffer: the memory to
    write to. ValueError if pixels are lost, if `frame_of` refuses the image, and for too many scans.
    """
    frame = frame_of(data)
    check_scans(data, frame)
    if frame.marker not in DCT_FRAMES and (buffer is not None or least != (0, 0)):
        return None  # it would be written whole
    options = color, False, False, *least, 1, buffer
    try:
        return _decoded(data, options)
    except _ExtraBytesError as exc:
        try:
            return _decoded(exc.shorter, options)
        except _ExtraBytesError:
            return None


class _ExtraBytesError(Exception):
    """The decoder complained about bytes after the pixels; without them it may report something else."""

    def __init__(self, shorter: bytes) -> None:
        super().__init__()
        self.shorter = shorter


def _decoded(data: bytes | memoryview, options: tuple[Any, ...]) -> NDArray[np.uint8] | None:
    import simplejpeg

    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, *options)
    except ValueError as exc:
        if is_damage(exc):
            raise ValueError(f"damaged JPEG: {reason_of(exc)}") from exc
        if (shorter := _without_extra(data, str(exc))) is not None:
            raise _ExtraBytesError(shorter) from exc
        return None
    except KeyError:  # a sampling that simplejpeg has no name for, such as 4:4:1
        return None
    return pixels


def _without_extra(data: bytes | memoryview, text: str) -> bytes | None:
    """The JPEG without bytes between its pixels and its end mark, if simplejpeg complains about these.

    simplejpeg reports only the last warning: this one may hide that pixels are lost.
    """
    if (extra := _EXTRA.search(text)) is None:
        return None
    content = bytes(data)
    end = content.find(END, _segments(content)[-1][1])
    kept = end - int(extra[1])
    return content[:kept] + END if end > 0 and kept < end else None
