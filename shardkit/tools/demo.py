"""A demonstration: draw a small tree of cars, pack it, and compare streaming with a loop over the files."""

from __future__ import annotations

import os
import random
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shardkit.errors import DestinationError
from shardkit.packing.pack import pack
from shardkit.reading.dataset import dataset
from shardkit.shards.manifest import Manifest
from shardkit.storage.files import translated
from shardkit.units import cores

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

SPLITS = {"train": 100, "validation": 20, "test": 20}
"""Images of each class in each split."""

SIZE = 96
BATCH = 32
EPOCHS = 5
_LARGER = 2  # drawn this many times larger than the image, then scaled down for smooth edges
_WIDTH, _HEIGHT = 160, 120


@dataclass(frozen=True, slots=True)
class DemoResult:
    """Results of the demo. Rates are images per second, the median of EPOCHS passes over the train split.

    batches: in one pass; batch_shape: of the first one's images. threads: number that shardkit decodes with.
    """

    tree: Path
    manifests: dict[str, Manifest]
    draw_seconds: float
    pack_seconds: float
    batches: int
    batch_shape: tuple[int, ...]
    files_rate: float
    shards_rate: float
    threads: int

    @property
    def images(self) -> int:
        """Number of images in all splits."""
        return sum(manifest.samples for manifest in self.manifests.values())


def demo(folder: str | os.PathLike[str], *, seed: int = 0) -> DemoResult:
    """Draw a class tree in `folder`, pack it into a temporary folder, and stream the shards.

    `folder` is created if needed, and keeps the tree. Raises DestinationError if it is not empty.
    """
    tree = Path(folder)
    _claim(tree)
    begun = time.perf_counter()
    draw_cars(tree, seed=seed)
    drawn = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="shardkit-demo-") as scratch:
        manifests = pack(tree, scratch, seed=seed).manifests
        packed = time.perf_counter()
        stream = dataset(Path(scratch, "train"), shuffle=True, seed=seed).decode(size=SIZE).batch(BATCH)
        rates: list[tuple[float, float]] = []
        for _ in range(EPOCHS):  # in turns, so that a busy machine slows both
            shards_rate, shapes = _pass(stream)
            rates.append((shards_rate, _pass(loop_over_files(tree / "train", seed=seed))[0]))
    return DemoResult(
        tree=tree,
        manifests=manifests,
        draw_seconds=drawn - begun,
        pack_seconds=packed - drawn,
        batches=len(shapes),
        batch_shape=shapes[0],
        files_rate=statistics.median(files for _, files in rates),
        shards_rate=statistics.median(shards for shards, _ in rates),
        threads=cores(),
    )


def _claim(root: Path) -> None:
    with translated(str(root)):
        root.mkdir(parents=True, exist_ok=True)
        if any(root.iterdir()):
            raise DestinationError(
                str(root), "the folder is not empty", "give a new one, or none to use a temporary one"
            )


def _pass(batches: Iterable[Any]) -> tuple[float, list[tuple[int, ...]]]:
    """Images per second in one pass, and the shape of each batch."""
    begun = time.perf_counter()
    shapes = [images.shape for images, _ in batches]
    return sum(shape[0] for shape in shapes) / (time.perf_counter() - begun), shapes


def loop_over_files(tree: Path, *, seed: int) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    """The usual loop without shardkit: open each file with Pillow, in random order. Yields batches like shardkit's."""
    from PIL import Image

    classes = sorted(path.name for path in tree.iterdir())
    files = sorted(tree.glob("*/*.jpg"))
    random.Random(seed).shuffle(files)
    for start in range(0, len(files), BATCH):
        chosen = files[start : start + BATCH]
        images = []
        for file in chosen:
            with Image.open(file, formats=["JPEG"]) as image:
                images.append(np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)))
        yield np.stack(images), np.array([classes.index(file.parent.name) for file in chosen])


def draw_cars(tree: Path, *, seed: int = 0) -> None:
    """Draw a tree of splits, each with the classes blue and red: JPEGs of 160 x 120 pixels, determined by the seed."""
    for split, count in SPLITS.items():
        for colour in ("blue", "red"):
            folder = tree / split / colour
            folder.mkdir(parents=True)
            for n in range(count):
                rng = random.Random(f"{seed} {split} {colour} {n}")
                draw_car(rng, colour).save(folder / f"{n:04}.jpg", quality=88)


def draw_car(rng: random.Random, colour: str) -> Image.Image:
    """Draw one car on a road, from its side, 160 x 120 pixels."""
    from PIL import Image, ImageDraw, ImageOps

    width, height = _WIDTH * _LARGER, _HEIGHT * _LARGER
    image = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(image)
    ground = round(height * rng.uniform(0.55, 0.75))
    _scene(draw, rng, width, height, ground)
    length = width * rng.uniform(0.45, 0.7)
    left = rng.uniform(0.04, 0.96) * (width - length)
    _car(draw, rng, left, ground + height * rng.uniform(0.1, 0.18), length, _paint(rng, colour))
    image = image.reduce(_LARGER)
    return ImageOps.mirror(image) if rng.random() < 0.5 else image


def _paint(rng: random.Random, colour: str) -> tuple[int, int, int]:
    strong, weak = rng.randint(150, 235), rng.randint(15, 60)
    middle = rng.randint(20, 80)
    return (strong, weak, middle) if colour == "red" else (weak, middle, strong)


def _scene(draw: ImageDraw.ImageDraw, rng: random.Random, width: int, height: int, ground: int) -> None:
    """Draw sky, hills, trees and the road."""
    top, low = (_shade(rng, (120, 170, 225), 40), _shade(rng, (215, 225, 235), 20))
    for y in range(ground):
        part = y / ground
        draw.line((0, y, width, y), fill=tuple(round(a + (b - a) * part) for a, b in zip(top, low, strict=True)))
    sun = rng.randint(0, width), rng.randint(0, ground // 2)
    draw.ellipse(_around(*sun, rng.randint(8, 18)), fill=(255, 240, 190))
    for _ in range(3):
        x, r = rng.randint(0, width), rng.randint(width // 6, width // 3)
        draw.ellipse((x - r, ground - r // 2, x + r, ground + r), fill=_shade(rng, (110, 145, 90), 25))
    for _ in range(rng.randint(0, 4)):
        x, tall = rng.randint(0, width), rng.randint(height // 8, height // 4)
        draw.rectangle((x - 2, ground - tall, x + 2, ground), fill=(95, 70, 50))
        draw.ellipse(_around(x, ground - tall, tall // 2), fill=_shade(rng, (60, 120, 60), 25))
    draw.rectangle((0, ground, width, height), fill=_shade(rng, (95, 95, 100), 18))
    line = (ground + height) // 2 + rng.randint(4, 12)
    for x in range(-rng.randint(0, 40), width, 44):
        draw.rectangle((x, line, x + 24, line + 3), fill=(225, 225, 215))


def _car(
    draw: ImageDraw.ImageDraw, rng: random.Random, left: float, floor: float, length: float, paint: tuple[int, ...]
) -> None:
    """Draw the car; `floor` is the height of the ground below its wheels."""
    wheel = length * rng.uniform(0.085, 0.105)
    sill, body = floor - wheel * 0.8, length * rng.uniform(0.15, 0.19)
    roof = sill - body - length * rng.uniform(0.13, 0.18)
    belt = sill - body
    cabin = [left + length * part for part in (rng.uniform(0.14, 0.22), 0.34, rng.uniform(0.62, 0.7), 0.82)]
    draw.ellipse((left, floor - 5, left + length, floor + 6), fill=(60, 60, 65))
    draw.polygon([(cabin[0], belt), (cabin[1], roof), (cabin[2], roof), (cabin[3], belt)], fill=paint)
    draw.rounded_rectangle((left, belt - 1, left + length, sill), radius=body * 0.4, fill=paint)
    glass, frame = _shade(rng, (190, 215, 230), 15), length * 0.02
    middle = (cabin[1] + cabin[2]) / 2
    for a, b, c, d in ((cabin[0], cabin[1], middle, middle), (middle, middle, cabin[2], cabin[3])):
        corners = [(a + 2 * frame, belt), (b + frame, roof + frame), (c - frame, roof + frame), (d - 2 * frame, belt)]
        draw.polygon(corners, fill=glass)
    draw.line((middle, belt, middle, sill - 3), fill=tuple(c * 2 // 3 for c in paint), width=2)
    draw.ellipse(_around(left + length * 0.97, belt + body * 0.35, body * 0.16), fill=(255, 245, 190))
    draw.rectangle((left, belt + body * 0.3, left + length * 0.02, belt + body * 0.55), fill=(235, 120, 60))
    for part in (0.2, 0.79):
        for radius, fill in ((wheel, (25, 25, 28)), (wheel * 0.55, (190, 190, 195)), (wheel * 0.2, (90, 90, 95))):
            draw.ellipse(_around(left + length * part, floor - wheel, radius), fill=fill)


def _around(x: float, y: float, radius: float) -> tuple[float, float, float, float]:
    return x - radius, y - radius, x + radius, y + radius


def _shade(rng: random.Random, colour: Sequence[int], spread: int) -> tuple[int, ...]:
    move = rng.randint(-spread, spread)
    return tuple(max(0, min(255, part + move + rng.randint(-6, 6))) for part in colour)
