#!/usr/bin/env python3
"""Draws the pictures of the documentation: `python scripts/docs_pictures.py` writes docs/images/NAME-{light,dark}.svg.

Each picture is drawn twice with the same shapes and other colours. The orders in them are those of the code.
`tests/test_docs_site.py` compares the files with what is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from shardkit.reading.order.epoch_order import EpochOrder
from shardkit.rng import permutation, stream_key

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "images"
FONT = "system-ui, -apple-system, 'Segoe UI', sans-serif"


@dataclass(frozen=True, slots=True)
class Theme:
    """The colours of a picture. classes: one for each class; marks: for what is pointed out."""

    text: str
    faint: str
    line: str
    fill: str
    accent: str
    classes: tuple[str, ...]


THEMES = {
    "light": Theme("#263238", "#5f6f77", "#90a4ae", "#f3f6f7", "#00796b", ("#1976d2", "#d84315", "#7b9e10")),
    "dark": Theme("#eceff1", "#a7b4bb", "#62727b", "#2b3138", "#4db6ac", ("#64b5f6", "#ff8a65", "#cddc39")),
}


@dataclass(slots=True)
class Drawing:
    """An SVG picture that grows by shapes."""

    width: int
    height: int
    theme: Theme
    title: str
    shapes: list[str] = field(default_factory=list)

    def text(self, x: float, y: float, words: str, *, size: int = 14, anchor: str = "start", color: str = "") -> None:
        """Words with their base line at y."""
        color = color or self.theme.text
        self.shapes.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{anchor}" fill="{color}">{words}</text>'
        )

    def box(self, x: float, y: float, width: float, height: float, *, fill: str = "", line: str = "") -> None:
        """A rectangle with round corners."""
        self.shapes.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="3" '
            f'fill="{fill or self.theme.fill}" stroke="{line or self.theme.line}"/>'
        )

    def cell(self, x: float, y: float, side: float, fill: str) -> None:
        """A sample."""
        self.shapes.append(f'<rect x="{x:g}" y="{y:g}" width="{side:g}" height="{side:g}" rx="1.5" fill="{fill}"/>')

    def dot(self, x: float, y: float, fill: str) -> None:
        """A point of a plot."""
        self.shapes.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="1.6" fill="{fill}"/>')

    def arrow(self, x: float, y: float, length: float, words: str = "") -> None:
        """An arrow to the right with words above it."""
        tip = x + length
        self.shapes.append(
            f'<path d="M{x:g} {y:g}H{tip:g}m-7 -5l7 5l-7 5" fill="none" stroke="{self.theme.accent}" stroke-width="2"/>'
        )
        if words:
            self.text(x + length / 2, y - 10, words, size=13, anchor="middle", color=self.theme.accent)

    def svg(self) -> str:
        """The file."""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" width="{self.width}" '
            f'height="{self.height}" font-family="{FONT}" role="img" aria-label="{self.title}">'
        )
        return "\n".join([head, f"<title>{self.title}</title>", *self.shapes, "</svg>"]) + "\n"


def overview(theme: Theme) -> Drawing:
    """Tree, shards and batches."""
    draw = Drawing(760, 230, theme, "A class tree is packed into shards, which are read as batches")
    draw.text(20, 28, "data/train", size=15)
    for row, (name, color) in enumerate(zip(("bird", "cat", "dog"), theme.classes, strict=True)):
        y = 58 + row * 52
        draw.text(34, y, f"{name}/", color=theme.faint)
        for column in range(7):
            draw.cell(34 + column * 17, y + 10, 14, color)
    draw.arrow(180, 118, 84, "pack")
    mixed = permutation(21, stream_key(1, "picture")) % 3
    draw.text(288, 28, "shards", size=15)
    for shard in range(3):
        y = 44 + shard * 44
        draw.box(288, y, 148, 32)
        for column in range(7):
            draw.cell(296 + column * 19, y + 9, 14, theme.classes[int(mixed[shard * 7 + column])])
    draw.box(288, 178, 68, 28)
    draw.text(322, 197, "index", size=13, anchor="middle", color=theme.faint)
    draw.box(368, 178, 68, 28)
    draw.text(402, 197, "manifest", size=13, anchor="middle", color=theme.faint)
    draw.arrow(452, 118, 84, "dataset")
    order = mixed[permutation(21, stream_key(2, "picture"))]
    draw.text(560, 28, "batches, shuffled again", size=15)
    for batch in range(3):
        y = 44 + batch * 52
        for column in range(7):
            draw.box(560 + column * 25, y, 22, 36, fill=theme.classes[int(order[batch * 7 + column])])
    return draw


def packing_order(theme: Theme) -> Drawing:
    """Samples before and after packing."""
    draw = Drawing(760, 190, theme, "The samples of three classes in the tree, and mixed over four shards")
    count = 60
    before = np.repeat(np.arange(3), count // 3)
    after = before[permutation(count, stream_key(0, "picture"))]
    draw.text(20, 28, "in the tree, class by class")
    for place, label in enumerate(before):
        draw.cell(20 + place * 12, 42, 10, theme.classes[int(label)])
    draw.text(20, 98, "after packing, in four shards")
    for shard in range(4):
        x = 20 + shard * 183
        draw.box(x, 110, 174, 56)
        draw.text(x + 8, 156, f"train-00000{shard}.tar", size=12, color=theme.faint)
        for place, label in enumerate(after[shard * 15 : shard * 15 + 15]):
            draw.cell(x + 6 + place * 11, 120, 9, theme.classes[int(label)])
    return draw


def buffers(theme: Theme) -> Drawing:
    """Where each sample of one lane goes, with buffers of several sizes."""
    samples, side = 400, 200
    draw = Drawing(760, 280, theme, "The place in the epoch against the place in the shards, for three buffers")
    for number, buffer in enumerate((0, 40, samples)):
        x, y = 50 + number * 240, 40
        draw.text(x, 26, f"buffer of {buffer} of {samples} samples" if buffer else "no buffer")
        draw.box(x, y, side, side)
        order = EpochOrder(np.array([samples]), buffer, seed=0, epoch=0, lanes=1).rows_at(np.arange(samples))
        for place, row in enumerate(order):
            draw.dot(x + 4 + row / samples * (side - 8), y + side - 4 - place / samples * (side - 8), theme.accent)
        draw.text(x + side / 2, y + side + 22, "place in the shards", size=12, anchor="middle", color=theme.faint)
    draw.shapes.append(
        f'<text transform="translate(36 {40 + side / 2}) rotate(-90)" font-size="12" text-anchor="middle" '
        f'fill="{theme.faint}">place in the epoch</text>'
    )
    return draw


def lanes(theme: Theme) -> Drawing:
    """Four shards, permuted, cut into three lanes, and merged into the epoch's order."""
    shards, each, count = 4, 6, 3
    draw = Drawing(760, 330, theme, "Shards are permuted, cut into lanes, mixed in each lane, and the lanes take turns")
    order = EpochOrder(np.array([each] * shards), buffer=6, seed=0, epoch=0, lanes=count)
    line, epoch = order.line(), order.rows_at(np.arange(shards * each))
    shades, ink = (*theme.classes, theme.accent), "#ffffff" if theme is THEMES["light"] else "#101418"

    def samples(rows: Iterable[int], y: float, places: Iterable[float]) -> None:
        for row, place in zip(rows, places, strict=True):
            shade = shades[row // each]
            draw.box(24 + place * 29.5, y, 26, 24, fill=shade, line=shade)
            draw.text(37 + place * 29.5, y + 17, str(row), size=12, anchor="middle", color=ink)

    draw.text(24, 26, "shards as packed")
    samples(range(shards * each), 36, range(shards * each))
    draw.text(24, 96, f"permuted, and cut into {count} lanes")
    samples(line.tolist(), 106, range(shards * each))
    for lane in range(count):
        start, length = order.lane_range(lane)
        draw.text(24 + start * 29.5, 148, f"lane {lane}", size=12, color=theme.faint)
        if lane:
            x = 24 + start * 29.5 - 2
            draw.shapes.append(f'<path d="M{x:g} 100V152" stroke="{theme.text}" stroke-width="2"/>')
    draw.text(24, 186, "mixed within each lane")
    for lane in range(count):
        start, length = order.lane_range(lane)
        samples(epoch[lane::count].tolist(), 196, range(start, start + length))
    draw.text(24, 256, "the epoch: the lanes take turns")
    samples(epoch.tolist(), 266, range(shards * each))
    draw.text(24, 314, "numbers: samples in the order of the shards; colours: shards", size=12, color=theme.faint)
    return draw


def ranks(theme: Theme) -> Drawing:
    """An epoch dealt to ranks."""
    draw = Drawing(760, 250, theme, "The same twelve samples dealt to one, two and four ranks")
    shades, ink = (*theme.classes, theme.accent), "#ffffff" if theme is THEMES["light"] else "#101418"
    y = 34
    for world in (1, 2, 4):
        draw.text(20, y, f"{world} rank" + "s" * (world > 1))
        for rank in range(world):
            for step, sample in enumerate(range(rank, 12, world)):
                draw.box(150 + step * 44, y - 16, 38, 22, fill=shades[rank], line=shades[rank])
                draw.text(169 + step * 44, y, str(sample), size=13, anchor="middle", color=ink)
            y += 28
        y += 12
    return draw


PICTURES: dict[str, Callable[[Theme], Drawing]] = {
    "overview": overview,
    "packing-order": packing_order,
    "buffer": buffers,
    "lanes": lanes,
    "ranks": ranks,
}


def drawn() -> dict[str, str]:
    """File name -> content of every picture."""
    return {
        f"{name}-{mode}.svg": draw(theme).svg() for name, draw in PICTURES.items() for mode, theme in THEMES.items()
    }


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, content in drawn().items():
        (FOLDER / name).write_text(content, "utf-8")
