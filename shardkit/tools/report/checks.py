"""Checks of a report: equal images, images in two splits, images that look wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shardkit.errors import NotFoundError, StorageError
from shardkit.events import Progress, ProgressFn
from shardkit.images.decoder import DecodeOptions, ImageDecoder
from shardkit.shards.quality import BRIGHTNESS, ENTROPY, SHARPNESS
from shardkit.threads import in_threads, thread_count
from shardkit.tools.report.facts import CHUNK, Facts, Numbers

TINY_PIXELS = 16
TINY_SHARE = 8
"""An image is tiny if its shorter side is below TINY_PIXELS, or below 1/TINY_SHARE of the dataset's median."""

EXTREME_ASPECT = 4.0
"""Ratio of the longer to the shorter side from which an image's shape is extreme."""

_SINGLE_SIDE, _SINGLE_RANGE = 32, 6  # all values of each channel are this close, in the image at 32 x 32
_HEAD_BYTES, _BYTES_PER_PIXEL = 4096, 0.08
"""A file of one colour has at most so many bytes: 14 bits for a JPEG's 8 x 8 block (T.81, empty blocks), doubled twice,
and room for headers. Larger files are not decoded, except in formats without compression."""

MOST_DECODED = 200_000


DARK, BRIGHT = 0.05, 0.95
"""An image is dark or bright whose mean is below or above."""

BLURRED, BLURRED_SIDE = 0.1, 64
"""An image is blurred whose sharpness is below. Of smaller ones it is that of all pixels, and means something else."""

FLAT = 1.0
"""An image is flat that has less entropy, in bits, and more than one colour."""


@dataclass(frozen=True, slots=True)
class Looks:
    """Rows of images that look odd by the quality columns, the oddest first."""

    dark: tuple[int, ...]
    bright: tuple[int, ...]
    blurred: tuple[int, ...]
    flat: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Doubles:
    """Equal images (CRC-32C and size) in a dataset. groups: their rows, largest group first.

    surplus: images beyond the first of each group. mislabelled: groups whose images have different labels.
    """

    groups: tuple[tuple[int, ...], ...]
    surplus: int
    mislabelled: int


@dataclass(frozen=True, slots=True)
class Leak:
    """Images that are in two datasets. images: number of images of the first that are also in the second. pairs: (row,
    other row).
    """

    name: str
    other: str
    images: int
    relabelled: int
    pairs: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Suspects:
    """Rows of images that look wrong. decoded: number of images decoded to check for the last two."""

    tiny: tuple[int, ...]
    extreme: tuple[int, ...]
    single: tuple[int, ...]
    undecodable: tuple[tuple[int, str], ...]
    decoded: int
    candidates: int

    @property
    def images(self) -> int:
        """Number of images that look wrong for at least one reason."""
        return len({*self.tiny, *self.extreme, *self.single, *(row for row, _ in self.undecodable)})


def find_doubles(facts: Facts) -> Doubles:
    """Find images whose bytes have the same CRC-32C and size."""
    prints = facts.prints()
    order = np.argsort(prints, kind="stable")
    ordered = prints[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    ends = np.append(starts[1:], len(ordered))
    several = (ends - starts > 1) & (ordered[starts] != 0)
    groups = [tuple(order[low:high].tolist()) for low, high in zip(starts[several], ends[several], strict=True)]
    groups.sort(key=lambda rows: (-len(rows), rows))
    mislabelled = sum(1 for rows in groups if len({int(facts.labels[row]) for row in rows}) > 1)
    return Doubles(tuple(groups), sum(map(len, groups)) - len(groups), mislabelled)


def find_leak(facts: Facts, other: Facts) -> Leak:
    """Find images of `facts` that are also in `other`. Classes are compared by name."""
    ours, theirs = facts.prints(), other.prints()
    order = np.argsort(theirs, kind="stable")
    at = np.searchsorted(theirs[order], ours).clip(max=len(theirs) - 1)
    both = (theirs[order][at] == ours) & (ours != 0)
    rows = np.flatnonzero(both)
    pairs = tuple(zip(rows.tolist(), order[at[rows]].tolist(), strict=True))
    relabelled = sum(1 for row, twin in pairs if facts.class_of(row) != other.class_of(twin))
    return Leak(facts.name, other.name, len(pairs), relabelled, pairs)


def find_suspects(facts: Facts, progress: ProgressFn) -> Suspects:
    """Find images that are tiny, far from square, of a single colour, or can't be decoded.

    Only files that are small for their number of pixels are decoded, smallest first, at most MOST_DECODED.
    """
    known = facts.known
    shorter, longer = np.minimum(facts.widths, facts.heights), np.maximum(facts.widths, facts.heights)
    middle = float(np.median(shorter[known])) if known.any() else 0.0
    tiny = np.flatnonzero(known & ((shorter < TINY_PIXELS) | (shorter < middle / TINY_SHARE)))
    extreme = np.flatnonzero(known & (longer >= EXTREME_ASPECT * shorter))
    candidates = _candidates(facts)
    single, undecodable = _looked_at(facts, np.sort(candidates[:MOST_DECODED]), progress)
    return Suspects(
        tuple(tiny.tolist()), tuple(extreme.tolist()), tuple(single), tuple(undecodable),
        min(len(candidates), MOST_DECODED), len(candidates),
    )  # fmt: skip


def find_looks(facts: Facts) -> Looks | None:
    """Images that are dark, bright, blurred or flat; None without quality columns."""
    if facts.quality is None:
        return None
    brightness, sharpness, entropy = (facts.quality[name] for name in (BRIGHTNESS, SHARPNESS, ENTROPY))
    large = np.minimum(facts.widths, facts.heights) >= BLURRED_SIDE

    def ranked(which: Numbers, values: Numbers) -> tuple[int, ...]:  # NaN is neither below nor above
        rows = np.flatnonzero(which)
        found: list[int] = rows[np.argsort(values[rows], kind="stable")].tolist()
        return tuple(found)

    return Looks(
        ranked(brightness < DARK, brightness), ranked(brightness > BRIGHT, -brightness),
        ranked((sharpness < BLURRED) & (entropy >= FLAT) & large, sharpness),
        ranked((entropy < FLAT) & (entropy > 0), entropy),
    )  # fmt: skip


def _candidates(facts: Facts) -> Numbers:
    """Rows of images that may be of one colour, most likely first."""
    pixels = facts.widths.astype(np.int64) * facts.heights
    small = facts.sizes <= _HEAD_BYTES + _BYTES_PER_PIXEL * pixels
    plain = facts.sizes >= pixels  # one byte per pixel or more: not compressed, or hardly
    if set(facts.data.fields) <= {"jpg", "png", "webp", "avif", "gif", "cls", "json", "txt"}:
        plain[:] = False
    rows = np.flatnonzero((facts.sizes >= 0) & (small | plain | ~facts.known))
    return rows[np.argsort(facts.sizes[rows] / np.maximum(pixels[rows], 1), kind="stable")]


def _looked_at(facts: Facts, rows: Numbers, progress: ProgressFn) -> tuple[list[int], list[tuple[int, str]]]:
    """The rows whose image has one colour, and those (with the reason) that can't be decoded."""
    decoder = ImageDecoder(DecodeOptions(size=_SINGLE_SIDE))
    catalog = facts.data.content.catalog

    def look(begin: int) -> tuple[int, list[int], list[tuple[int, str]]]:
        part = rows[begin : begin + CHUNK]
        block = catalog.block(part)
        pixels = np.zeros((len(part), *(decoder.shape or ())), np.uint8)
        missing, contents = [], []
        for number in range(len(part)):
            try:
                contents.append(block.image(number))
            except (NotFoundError, StorageError) as exc:
                missing.append((int(part[number]), exc.fact))
                contents.append(b"")
        failed = dict(decoder.batch_into(contents, pixels, None))
        even = spread(pixels) <= _SINGLE_RANGE
        single = [int(row) for number, row in enumerate(part) if even[number] and number not in failed]
        gone = {row for row, _ in missing}
        bad = [(int(part[n]), getattr(exc, "fact", str(exc))) for n, exc in failed.items() if int(part[n]) not in gone]
        return begin + len(part), single, sorted(missing + bad)

    singles: list[int] = []
    undecodable: list[tuple[int, str]] = []
    for done, single, bad in in_threads(look, range(0, len(rows), CHUNK), thread_count(None)):
        singles += single
        undecodable += bad
        progress(Progress("decode", done, len(rows)))
    return singles, undecodable


def spread(pixels: Numbers) -> Numbers:
    """Maximum minus minimum of each image (n, 32, 32, 3), in the channel where that is largest: uint8, shape (n,)."""
    wide = pixels.reshape(len(pixels), -1, 3 * _SINGLE_SIDE)  # long rows: NumPy is slow along an axis of 3
    high = wide.max(1).reshape(len(pixels), -1, 3).max(1)
    low = wide.min(1).reshape(len(pixels), -1, 3).min(1)
    most: Numbers = (high - low).max(1)
    return most


def class_maps_differ(parts: Sequence[Facts]) -> str:
    """Describe how the class maps of two datasets differ; empty if they are the same."""
    first, second = parts[0].classes, parts[1].classes
    if first == second:
        return ""
    if set(first) == set(second):
        return "The classes are the same, but their labels are not: a label means one class here and another there."
    only = [sorted(set(a) - set(b)) for a, b in ((first, second), (second, first))]
    texts = [f"only in {part.name}: {_listed(names)}" for part, names in zip(parts, only, strict=True) if names]
    moved = sum(1 for name in set(first) & set(second) if first.index(name) != second.index(name))
    extra = f" {moved} of the shared ones have another label." if moved else ""
    return f"The class maps differ ({'; '.join(texts)}).{extra}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6:,} more" if len(names) > 6 else "")
