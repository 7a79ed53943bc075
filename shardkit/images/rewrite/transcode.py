"""Transcoding while packing: the options (`Transcoding`), and the conversion of an image (`transcode`).

An image that already matches the options is copied byte for byte. If only data around the pixels has to change, the
file is rewritten without loss; otherwise it is decoded and encoded again. The choice depends only on the image's own
bytes, so that it is the same on any machine. Encoded bytes may change with another version of Pillow, simplejpeg or
their libraries; losslessly rewritten ones with another libjpeg.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import msgspec

from shardkit.errors import UsageError
from shardkit.images.header import image_header
from shardkit.images.jpeg import start_of_frame
from shardkit.images.pillow import turn
from shardkit.images.rewrite import lossless
from shardkit.images.rewrite.metadata import DQT, DRI, SOS, STRIPS, is_incomplete, is_lossless_webp, segments
from shardkit.images.rewrite.recode import Kind, decode, encode, orientation_of_file, prepare, resize_image, shrunk_size
from shardkit.options.keywords import cure_of_choice

VERSION = 2
"""Increased when the same options produce different images, so that no result of an older shardkit is kept."""

QUALITY = 90
"""The quality for images that must be encoded again, if none is given."""

To = Literal["keep", "jpeg", "webp", "png"]
How = Literal["copied", "rewritten", "re-encoded"]

_SUBSAMPLINGS = {(1, 1): 444, (2, 1): 422, (2, 2): 420}
_KINDS: dict[str, Kind] = {"jpeg": "JPEG", "webp": "WEBP", "png": "PNG"}
_FIELDS = {"JPEG": "jpg", "WEBP": "webp", "PNG": "png"}
_BARE = ("BMP", "DIB", "PPM")  # formats without metadata
_SEQUENTIAL = (0xC0, 0xC1)


class Transcoding(msgspec.Struct, frozen=True, kw_only=True):
    """What the packed images are to be like; None and False ask for nothing.

    resize: pixels of the shorter side at most; max_side: of the longer one. to: the format. quality: 1 to 100, of JPEG
    and WebP. baseline: no progressive JPEG. strip: no metadata. orient: turned as their EXIF data says. subsampling:
    of JPEG's colours, 444, 422 or 420. restart_rows: rows of blocks between a JPEG's restart markers.

    Raises UsageError for what makes no sense.
    """

    resize: int | None = None
    max_side: int | None = None
    to: To = "keep"
    quality: int | None = None
    baseline: bool = False
    strip: bool = False
    orient: bool = False
    subsampling: int | None = None
    restart_rows: int | None = None

    def __post_init__(self) -> None:
        for name, least, most in (
            ("resize", 1, 65_535), ("max_side", 1, 65_535), ("quality", 1, 100), ("restart_rows", 1, 8192)
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and not (type(value) is int and least <= value <= most):
                raise UsageError(name, f"{value!r} is not a whole number from {least} to {most:,}", "give one")
        if self.to not in get_args(To):
            cure = cure_of_choice("to", self.to, get_args(To))
            raise UsageError("to", f"{self.to!r} is not one of {', '.join(get_args(To))}", cure)
        if self.subsampling not in (None, *_SUBSAMPLINGS.values()):
            raise UsageError("subsampling", f"{self.subsampling!r} is not one of 444, 422, 420", "choose one of these")
        if self.resize is not None and self.max_side is not None and self.max_side < self.resize:
            fact = f"sides of at most {self.max_side} pixels make resize={self.resize} useless"
            raise UsageError("max_side", fact, "omit one of the two")
        self._require_uses()

    def _require_uses(self) -> None:
        """UsageError for an option that does not apply to the target format, or is not available in this build."""
        if self.to == "png" and self.quality is not None:
            raise UsageError("quality", "makes no sense with to=png: PNG has none", "omit one of the two")
        for name in ("baseline", "subsampling", "restart_rows"):
            if self.to in ("png", "webp") and getattr(self, name):
                fact = f"makes no sense with to={self.to}: it concerns JPEG only"
                raise UsageError(name, fact, "omit one of the two")
        for name in ("baseline", "restart_rows"):
            if getattr(self, name):
                lossless.require_available(name)

    def recorded(self) -> dict[str, Any]:
        """The options that change something, by name."""
        asked = {name: getattr(self, name) for name in self.__struct_fields__}
        return {name: value for name, value in asked.items() if value not in (None, False, "keep")}

    @property
    def moves_pixels(self) -> bool:
        """Whether a mask or box for an image would no longer match it."""
        return self.resize is not None or self.max_side is not None or self.orient


def is_transcoded(options: Mapping[str, Any]) -> bool:
    """Whether the options recorded in a manifest include transcoding."""
    return any(name in options for name in Transcoding.__struct_fields__)


def transcoding(**asked: Any) -> Transcoding | None:
    """Build a Transcoding, or None if no option changes anything. UsageError as there."""
    found = Transcoding(**asked)
    return found if found.recorded() else None


class Transcoded(msgspec.Struct, frozen=True):
    """A transcoded image. field: its new field name, None if unchanged. first_of: the file's other images are lost.

    incomplete: a JPEG that lacks scans, and therefore was not rewritten as baseline or with restart markers.
    """

    data: bytes
    field: str | None
    how: How
    first_of: bool = False
    incomplete: bool = False


def transcode(data: bytes, wish: Transcoding) -> Transcoded:
    """Transcode an image. ValueError with a short reason if it is not an image, is damaged, or can't be transcoded.

    Takes memory for two copies of the decoded image, and for the result.
    """
    kind, width, height = image_header(data)
    target = kind if wish.to == "keep" else _KINDS[wish.to]
    frame = _Frame(data) if kind == "JPEG" else None
    size = shrunk_size((width, height), wish.resize, wish.max_side)
    try:
        if kind == target and size == (width, height) and not _needs_pixels(data, kind, frame, wish):
            return _rewritten(data, kind, frame, wish)
        return _recoded(data, kind, target, frame, wish)
    except MemoryError as exc:
        raise ValueError(f"{kind} of {width} x {height} pixels: more memory is needed than is available") from exc


def _needs_pixels(data: bytes, kind: str, frame: _Frame | None, wish: Transcoding) -> bool:
    """Whether an image of the right size and format must be encoded again."""
    if frame is None:
        if wish.strip and kind not in STRIPS and kind not in _BARE:
            return True
        return wish.orient and orientation_of_file(data) != 1
    if wish.orient and orientation_of_file(data) != 1:
        return True
    if wish.quality is not None and frame.coarseness < coarseness(wish.quality):
        return True
    return wish.subsampling is not None and len(frame.factors) == 3 and frame.subsampling != wish.subsampling


def _rewritten(data: bytes, kind: str, frame: _Frame | None, wish: Transcoding) -> Transcoded:
    new = STRIPS[kind](data) if wish.strip and kind in STRIPS else data
    incomplete = False
    if frame is not None and frame.to_be_rewritten(wish):
        if incomplete := is_incomplete(new):
            lossless.rewrite(new)  # only to check that it is not also damaged
        else:
            new = lossless.rewrite(new, restart_rows=wish.restart_rows or 0)
    if new == data:
        return Transcoded(data, None, "copied", incomplete=incomplete)
    return Transcoded(new, None, "rewritten", incomplete=incomplete)


def _recoded(data: bytes, kind: str, target: str, frame: _Frame | None, wish: Transcoding) -> Transcoded:
    new: Kind = _KINDS.get(target.lower(), "PNG")  # formats that are not written here become PNG
    picture = decode(data, kind, wish.resize, wish.max_side)
    stored = (frame.width, frame.height) if frame is not None else picture.image.size
    image = resize_image(prepare(picture.image, new), shrunk_size(stored, wish.resize, wish.max_side))
    orientation = picture.orientation
    if wish.orient:
        image, orientation = turn(image, orientation), 1
    notes = picture.notes.kept(strip=wish.strip, orientation=orientation)
    same = frame.subsampling if frame is not None else None
    written = encode(
        image, new, notes, quality=wish.quality or QUALITY, subsampling=wish.subsampling or same or 420,
        lossless=wish.quality is None and kind == new == "WEBP" and is_lossless_webp(data),
    )  # fmt: skip
    if wish.restart_rows is not None:
        written = lossless.rewrite(written, restart_rows=wish.restart_rows)
    return Transcoded(written, _FIELDS[new], "re-encoded", picture.first_of)


# JPEG


class _Frame:
    """The coding of a JPEG by its headers. ValueError for damage."""

    def __init__(self, data: bytes) -> None:
        at = start_of_frame(data)
        self.marker, self.height, self.width = data[at + 1], *_two(data, at + 5)
        parts = [data[at + 10 + 3 * n : at + 13 + 3 * n] for n in range(data[at + 9])]
        if not parts or len(parts[-1]) < 3:
            raise ValueError("JPEG truncated inside its header")
        self.factors = [(part[1] >> 4, part[1] & 15) for part in parts]
        self.interval = self.scan_parts = self.coarseness = 0
        for marker, start, end in segments(data):
            if marker == DRI:
                self.interval = _two(data, start + 4)[0]
            elif marker == SOS:
                self.scan_parts = data[start + 4]
            elif marker == DQT:
                self.coarseness = _table_sum(data[start + 4 : end], parts[0][2]) or self.coarseness

    @property
    def subsampling(self) -> int | None:
        """444, 422 or 420; None for any other subsampling, and for gray."""
        first, *others = self.factors
        return _SUBSAMPLINGS.get(first) if others == [(1, 1)] * 2 else None

    def to_be_rewritten(self, wish: Transcoding) -> bool:
        """Whether its scans or restart markers differ from `wish`."""
        if wish.baseline and (self.marker not in _SEQUENTIAL or self.scan_parts < len(self.factors)):
            return True
        if wish.restart_rows is None:
            return False
        columns = 8 * max(h for h, _ in self.factors) if len(self.factors) > 1 else 8
        return self.interval != min(wish.restart_rows * -(-self.width // columns), 0xFFFF)


def _two(data: bytes, at: int) -> tuple[int, int]:
    return int.from_bytes(data[at : at + 2], "big"), int.from_bytes(data[at + 2 : at + 4], "big")


def _table_sum(body: bytes, wanted: int) -> int:
    """The sum of the 64 steps of quantisation table `wanted`; 0 if the segment does not have it. T.81, B.2.4.1."""
    at = 0
    while at < len(body):
        wide, number = body[at] >> 4, body[at] & 15
        table = body[at + 1 : at + 65 * (1 + wide) - wide]
        if number == wanted:
            return sum(table) if not wide else sum(table[::2]) * 256 + sum(table[1::2])
        at += 1 + 64 * (1 + wide)
    return 0


_LUMINANCE = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51,
    87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101,
    72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
"""T.81, table K.1."""


def coarseness(quality: int) -> int:
    """The sum of the luminance steps for a libjpeg quality (jpeg_quality_scaling, with force_baseline)."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return sum(min(max((step * scale + 50) // 100, 1), 255) for step in _LUMINANCE)
