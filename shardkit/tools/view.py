"""Contact sheet: random samples of each class in one picture, with their keys and labels."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from shardkit.errors import UsageError, printable
from shardkit.events import Progress, ProgressFn, no_progress
from shardkit.images.thumbnails import thumbnail
from shardkit.options.fields import checked_by
from shardkit.options.old_keywords import Moved, accept_old_keywords, spell
from shardkit.reading.blocks.block import index_table
from shardkit.reading.dataset import Dataset, dataset
from shardkit.shards.find.shards import SourceLike
from shardkit.storage.files import whole_file
from shardkit.tools.pictures import ClassSamples, choose_samples, out_path, picture
from shardkit.tools.settings import MAX_CLASSES, Pictures, ViewSettings
from shardkit.units import short_repr

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

log = logging.getLogger(__name__)

_PAPER, _INK, _FAINT, _DAMAGE = (250, 250, 248), (28, 30, 33), (105, 108, 112), (172, 32, 32)
_GAP, _TEXT, _HEAD = 10, 12, 15  # pixels: gap between pictures; font sizes of keys and class headings
_LINE = _TEXT + 5


@dataclass(frozen=True, slots=True)
class ShownClass:
    """A row of the sheet: the class, its total number of samples, and the keys of those shown."""

    name: str
    label: int
    count: int
    keys: tuple[str, ...]

    __repr__ = short_repr


@dataclass(frozen=True, slots=True)
class ContactSheet:
    """Result. width, height: of the picture in pixels. left_out: classes that are not on it."""

    path: str
    width: int
    height: int
    classes: tuple[ShownClass, ...]
    left_out: int
    undecodable: tuple[str, ...]

    __repr__ = short_repr


@dataclass(frozen=True, slots=True, kw_only=True)
class _Decoded(Pictures):
    """Pictures with any options of `decode()`, as the old `augmented={…}` asked for."""

    options: Mapping[str, Any]


def _move_pictures(kwargs: dict[str, Any]) -> Moved | None:
    """Brings `side=…` and `augmented=…` into the new spelling."""
    given: dict[str, Any] = {name: kwargs.pop(name) for name in ("side", "augmented") if name in kwargs}
    if not given:
        return None
    if "pictures" in kwargs:
        name = next(iter(given))
        raise UsageError(name, "given together with `pictures`", "make it a part of `pictures`")
    old, options = spell(given), given.get("augmented")
    if isinstance(options, Mapping):
        given = {**given, "augmented": True} | ({"size": options["size"]} if "size" in options else {})
        kwargs["pictures"] = _Decoded(side=given.get("side", Pictures().side), augmented=True, options=options)
    else:
        kwargs["pictures"] = Pictures(**given)
    return Moved(old, f"pictures=shardkit.Pictures({spell(given)})")


@accept_old_keywords(_move_pictures)
@checked_by(ViewSettings)
def view(
    source: SourceLike,
    out: str | os.PathLike[str] = "view.png",
    *,
    classes: Sequence[str | int] | None = None,
    count: int = 8,
    seed: int = 0,
    pictures: Pictures | None = None,
    storage_options: Mapping[str, Any] | None = None,
    progress: ProgressFn = no_progress,
) -> ContactSheet:
    """Draw random samples of each class to the PNG file `out`, replacing it: one row per class.

    source: as for `dataset`. classes: names or labels (default: all, or MAX_CLASSES of them). count: samples per class.
    pictures: a `shardkit.Pictures`: their size on the sheet, and random crops and flips instead of whole images.
    storage_options: for a store, as in `dataset`. The same seed gives the same samples.

    An image that can't be decoded is replaced by the reason. Raises UsageError, and the errors of `dataset`.
    """
    path = out_path(out, (".png",))
    data = dataset(source, seed=seed, storage_options=storage_options)
    chosen = choose_samples(data, count=count, seed=seed, classes=classes, limit=None if classes else MAX_CLASSES)
    if not chosen:
        raise UsageError("classes", "there are no samples to show", "give classes that have samples")
    left_out = 0 if classes else sum(1 for number in data.class_counts.values() if number) - len(chosen)
    if left_out > 0:
        more = "1 more class is" if left_out == 1 else f"{left_out:,} more classes are"
        log.info("%s not shown; choose the ones to show with `classes`", more)
    asked = pictures or Pictures()
    sheet = _Sheet(data, augmented_data(data, asked), chosen, count, asked.side)
    image = sheet.draw(progress)
    with whole_file(path, sync=False) as file:
        image.save(file, "PNG")
    return ContactSheet(path, *image.size, tuple(sheet.shown), max(0, left_out), tuple(sheet.undecodable))


def augmented_data(data: Dataset, pictures: Pictures) -> Dataset:
    """The dataset with the requested decode(), or unchanged."""
    if isinstance(pictures, _Decoded):
        return data.decode(**{"size": usual_side(data), "crop": "random", "flip": True, **pictures.options})
    if not pictures.augmented and pictures.size is None:
        return data
    return data.decode(size=pictures.size or usual_side(data), crop="random", flip=True)


def usual_side(data: Dataset) -> int:
    """The median of the images' shorter sides, at most 224; 224 if the index does not have them."""
    catalog, sides = data.content.catalog, ["width", "height"]
    if not set(sides) <= set(catalog.index_schema().names):
        return 224
    table = index_table(catalog, sides)
    shorter = np.minimum(table["width"].to_numpy(), table["height"].to_numpy())
    known = shorter[shorter > 0]
    return min(224, int(np.median(known))) if len(known) else 224


class _Sheet:
    """The drawing: a heading for each class, pictures below it, a key below each."""

    def __init__(self, data: Dataset, pictures: Dataset, chosen: Sequence[ClassSamples], count: int, side: int) -> None:
        from PIL import ImageFont

        self.data, self.pictures, self.chosen, self.side = data, pictures, chosen, side
        self.columns = min(count, max(len(part.rows) for part in chosen))
        self.small: Any = ImageFont.load_default(_TEXT)
        self.large: Any = ImageFont.load_default(_HEAD)
        self.cell = side + _GAP, side + 2 * _LINE + _GAP
        self.shown: list[ShownClass] = []
        self.undecodable: list[str] = []

    def draw(self, progress: ProgressFn) -> Image.Image:
        """Draw the whole sheet, RGB."""
        from PIL import Image, ImageDraw

        head = _HEAD + _GAP
        width = max(2 * _GAP + self.columns * self.cell[0], 360)
        sheet = Image.new("RGB", (width, _GAP + len(self.chosen) * (head + self.cell[1] + _GAP)), _PAPER)
        draw = ImageDraw.Draw(sheet)
        total, done = sum(len(part.rows) for part in self.chosen), 0
        y = _GAP
        for part in self.chosen:
            title = printable(part.name) if part.label < 0 else f"{part.label}  {printable(part.name)}"
            count = f"   {part.count:,} sample{'' if part.count == 1 else 's'}"
            room = width - 2 * _GAP - draw.textlength(count, self.small)
            title = fitted(title, room, self.large)
            draw.text((_GAP, y), title, _INK, self.large)
            draw.text((_GAP + draw.textlength(title, self.large), y + 2), count, _FAINT, self.small)
            keys = tuple(self.data[row]["__key__"] for row in part.rows)
            for column, (row, key) in enumerate(zip(part.rows, keys, strict=True)):
                self._cell(sheet, draw, (_GAP + column * self.cell[0], y + head), row, key)
                done += 1
                progress(Progress("draw", done, total))
            self.shown.append(ShownClass(part.name, part.label, part.count, keys))
            y += head + self.cell[1] + _GAP
        return sheet

    def _cell(self, sheet: Image.Image, draw: ImageDraw.ImageDraw, at: tuple[int, int], row: int, key: str) -> None:
        x, y = at
        try:
            small = enlarged(thumbnail(picture(self.pictures, row), self.side), self.side)
            sheet.paste(small, (x, y + self.side - small.height))
        except ValueError as exc:
            self.undecodable.append(key)
            draw.rectangle((x, y, x + self.side - 1, y + self.side - 1), outline=_DAMAGE)
            for number, line in enumerate(
                _lines(f"can't be decoded: {exc}", self.side - 8, self.small)[: self.side // _LINE]
            ):
                draw.text((x + 4, y + 4 + number * _LINE), line, _DAMAGE, self.small)
        for number, line in enumerate(two_lines(printable(key), self.side, self.small)):
            draw.text((x, y + self.side + 2 + number * _LINE), line, _FAINT, self.small)


def enlarged(image: Image.Image, side: int) -> Image.Image:
    """Scale a small image by the largest whole factor that fits side x side, so that its pixels remain visible."""
    factor = side // max(image.size)
    return image if factor < 2 else image.resize((image.width * factor, image.height * factor), 0)


def fitted(text: str, width: float, font: ImageFont.FreeTypeFont) -> str:
    """Shorten `text` to `width` pixels by cutting its middle: the end of a key is the most informative part."""
    if font.getlength(text) <= width:
        return text
    for kept in range(len(text) - 1, 0, -1):
        head = kept // 3
        shorter = f"{text[:head]}…{text[len(text) - (kept - head) :]}"
        if font.getlength(shorter) <= width:
            return shorter
    return "…"


def two_lines(text: str, width: float, font: ImageFont.FreeTypeFont) -> list[str]:
    """`text` in one or two lines of `width` pixels, the second one shortened if needed."""
    kept = len(text)
    while kept > 1 and font.getlength(text[:kept]) > width:
        kept -= 1
    return [text[:kept], fitted(text[kept:], width, font)] if kept < len(text) else [text]


def _lines(text: str, width: float, font: Any) -> list[str]:
    lines = [""]
    for word in printable(text).split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(fitted(word, width, font))
        else:
            lines[-1] = longer if font.getlength(longer) <= width else fitted(longer, width, font)
    return lines
