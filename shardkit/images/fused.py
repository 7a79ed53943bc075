"""The optional decoders in C: a run of images straight into their slots, decoding only what they need.

JPEGs are decoded where a C compiler and libjpeg-turbo's headers were when shardkit was installed (native/jpeg.c), WebPs
where libwebp's were (native/webp.c), PNGs where a compiler was (native/png.c). What they do not take (other formats and
colour spaces, damaged images, anything odd) goes the way of `images.py`, so that the errors are the same. So are the
pixels of PNGs and WebPs. Those of JPEGs are nearer to Pillow's antialiased bilinear resize than that way's
(benchmarks/fused.py).
One difference is left: damage below the last row that a crop needs is not seen.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shardkit.images.crops import DEFAULT_RANGE, BoxRange, draws_of
from shardkit.images.jpeg import MAX_SCANS
from shardkit.images.pixels import Buffer, Pixels, pillow_has_turbo
from shardkit.native import load

log = logging.getLogger(__name__)

CROPS = {"resize": 0, "center": 1, "random": 2, "cover": 3, "random-cover": 4, "pad": 0}
"""Their numbers in C, where padding comes after a resize."""

FILTERS = ("bilinear", "bicubic", "lanczos", "area", "hamming", "nearest")
"""In the order of their numbers in C."""

Failures = list[tuple[int, str]]


@dataclass(frozen=True, slots=True)
class FusedSettings:
    """What the C side has to know. size: (height, width, channels). crop, flip, interpolation and so on: as in
    `DecodeOptions`. same: leave out images of another size. tall: resize columns first in tall images, as some
    versions of Pillow do (`images.resizes_tall_first`). table: (channels, 256) values for the bytes, of out's type.
    """

    size: tuple[int, int, int]
    crop: str
    flip: bool | str
    headroom: float
    max_pixels: int
    interpolation: str = "bilinear"
    exact: bool = False
    same: bool = False
    tall: bool = False
    limits: BoxRange = DEFAULT_RANGE
    padding: int = 0
    fill: bytes | None = None
    planar: bool = False
    table: NDArray[Any] | None = None


PARTS = {b"\xff\xd8": "jpeg", b"\x89P": "png", b"RI": "webp"}
"""How the files of a format start -> the part in C that decodes it."""


def available(part: str = "") -> bool:
    """Whether this decoder in C was built, and loads; without a name, any of them."""
    return any(load(name)[0] is not None for name in PARTS.values() if part in ("", name))


def build_info() -> dict[str, str]:
    """Which decoders are in use, and what is to be known about them.

    "jpeg decoder": "fused" or "simplejpeg". With "fused" also "libjpeg-turbo", the version built against; with
    "simplejpeg" also "reason", why the other one did not load. "png decoder" and "webp decoder":
    "fused" or "Pillow"; with "fused" also "libwebp", the version in use.
    """
    module, reason = load("jpeg")
    others = {f"{part} decoder": "fused" if available(part) else "Pillow" for part in ("png", "webp")}
    if available("webp"):
        others["libwebp"] = load("webp")[0].libwebp
    if module is None:
        return {"jpeg decoder": "simplejpeg", "reason": reason, **others}
    return {"jpeg decoder": "fused", "libjpeg-turbo": module.libjpeg_turbo, **others}


@dataclass(frozen=True, slots=True)
class FusedView:
    """Views of one kind: each image gets `count` of them, of size (height, width), from boxes within limits."""

    count: int
    size: tuple[int, int]
    limits: BoxRange


def decode_batch(
    settings: FusedSettings,
    datas: Sequence[Buffer | None],
    out: NDArray[Any],
    draws: NDArray[np.float64] | None,
    points: Sequence[bytes | None] | None = None,
) -> Failures:
    """Each image into its slot of out, contiguous (n, height, width, channels), or planes of it; uint8 without a table.
    Several threads may call this.

    draws: a contiguous row for each image, as `ImageDecoder.draws` gives them. Gives (index, reason) of the images that
    were not decoded, None among datas too; what their slots hold is undefined. Call only where `available`.

    points: the seek points of the images (shards/seek.py), or None for those that have none.
    """
    view = FusedView(1, settings.size[:2], settings.limits)
    return decode_views(settings, [view], datas, [out], draws, points)


def whole(data: Buffer, size: tuple[int, int, int], max_pixels: int) -> Pixels | None:
    """The whole image of this size, uint8 (height, width, channels); None if the decoders in C leave it to another."""
    out = np.empty((1, *size), np.uint8)
    settings = FusedSettings(size, "resize", False, math.inf, max_pixels, same=True)
    return None if decode_batch(settings, [data], out, None) else out[0]


def part_of(data: Buffer | None) -> str:
    """The part that decodes such data; "" if none does."""
    return "" if data is None else PARTS.get(bytes(data[:2]), "")


def decode_views(
    settings: FusedSettings,
    views: Sequence[FusedView],
    datas: Sequence[Buffer | None],
    outs: Sequence[NDArray[Any]],
    draws: NDArray[np.float64] | None,
    points: Sequence[bytes | None] | None = None,
) -> Failures:
    """As `decode_batch`, with several views of each image, which is decoded once.

    outs: one for each of views, (n, count, height, width, channels). draws: (n, rows of all views, side by side).
    """
    parts = [part for part in PARTS.values() if load(part)[0] is not None]
    if settings.exact and not pillow_has_turbo() and "jpeg" in parts:
        parts.remove("jpeg")
    first = part_of(datas[0]) if datas else ""
    if first in parts[1:]:
        parts = [first, *(part for part in parts if part != first)]
    failed: dict[int, str] | None = None  # by the parts until now
    for part in parts:
        if failed is None:
            failed = dict(_decode(part, settings, views, datas, outs, draws, points))
        elif mine := {i for i in failed if part_of(datas[i]) == part}:
            taken = [data if i in mine else None for i, data in enumerate(datas)]
            own = dict(_decode(part, settings, views, taken, outs, draws, points))
            failed = {i: own[i] if i in mine else why for i, why in failed.items() if i in own}
        if not failed:
            return []
    return [(i, "no decoder in C") for i in range(len(datas))] if failed is None else list(failed.items())


def _decode(
    part: str,
    settings: FusedSettings,
    views: Sequence[FusedView],
    datas: Sequence[Buffer | None],
    outs: Sequence[NDArray[Any]],
    draws: NDArray[np.float64] | None,
    points: Sequence[bytes | None] | None,
) -> Failures:
    """`decode_views` by one of the decoders. All but that of JPEGs give Pillow's pixels in any case."""
    decode: Callable[..., Failures] = load(part)[0].decode_batch
    exact = settings.exact or part != "jpeg"
    asked = [
        (_memory(out), view.count, *view.size, box_numbers(view.limits)) for view, out in zip(views, outs, strict=True)
    ]
    how = (
        settings.size[2], CROPS[settings.crop], FILTERS.index(settings.interpolation), exact, settings.same,
        settings.tall,
    )  # fmt: skip
    fill = settings.fill or bytes(settings.size[2])
    finish = outs[0].itemsize, settings.planar, _memory(settings.table), settings.padding, fill
    columns = draws_of(settings.crop, settings.flip)[1:]
    limits = settings.headroom, float(settings.max_pixels), MAX_SCANS
    return decode(datas, asked, how, finish, draws, columns, limits, points)


def box_numbers(limits: BoxRange) -> tuple[float, ...]:
    """What C draws random boxes from."""
    return *limits.scale, *limits.ratio, *limits.log_ratio


def _memory(values: NDArray[Any] | None) -> NDArray[Any] | None:
    """The values as a type that every buffer can have: bfloat16 can't."""
    return None if values is None else values.view(f"u{values.itemsize}")
