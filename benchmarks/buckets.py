"""What size buckets keep of the images, and what they cost.

    python benchmarks/buckets.py FOLDER [--rounds 9] [--size 224] [--batch 64] [--scratch FOLDER]

FOLDER is a class tree of photographs. First the mean part of an image that is cut off, by a square and by buckets: of
the photographs, and of generated sizes. Then the speed: epochs in buckets and in squares of as many pixels take turns
in each round, and the figures are medians of the ratios, within a round, of output pixels per second of processor time
and of wall time. "whole" squashes all of each image into the square, as much of it as buckets decode; "cover"
decodes the part that the square shows.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import shardkit
from shardkit.reading.blocks.block import index_table
from shardkit.reading.buckets.shapes import best_shapes, losses, nearest

Sizes = NDArray[np.int64]


def generated(count: int = 100_000) -> dict[str, Sizes]:
    """Sizes (height, width) of images as collections have them."""
    rng = np.random.default_rng(0)
    cameras = np.array(
        [(3024, 4032), (4032, 3024), (2000, 3000), (3000, 2000), (1080, 1920), (1920, 1080), (1080, 1080)]
    )
    pick = rng.choice(len(cameras), count, p=[0.3, 0.2, 0.2, 0.1, 0.08, 0.07, 0.05])
    cut = np.where(rng.random((count, 2)) < 0.2, rng.uniform(0.6, 1, (count, 2)), 1)
    scattered = np.exp(rng.normal(0, 0.35, count))
    tall = np.exp(rng.normal(-0.35, 0.25, count))  # drawings and portraits
    return {
        "cameras, some cropped": np.rint(cameras[pick] * cut).astype(np.int64),
        "scattered ratios": _of_ratios(scattered),
        "mostly portraits": _of_ratios(tall),
    }


def _of_ratios(ratios: NDArray[np.float64]) -> Sizes:
    return np.rint(np.stack([1000 / np.sqrt(ratios), 1000 * np.sqrt(ratios)], axis=1)).astype(np.int64)


def mean_loss(sizes: Sizes, shapes: list[tuple[int, int]]) -> float:
    """The mean part of the images that is cut off."""
    return float(losses(sizes, np.array(shapes)[nearest(sizes, shapes)]).mean())


def print_losses(name: str, sizes: Sizes, size: int) -> None:
    unique, counts = np.unique(sizes, axis=0, return_counts=True)
    square = mean_loss(sizes, [(size, size)])
    columns = []
    for number in (3, 5, 9):
        for multiple in (8, 16):
            loss = mean_loss(sizes, best_shapes(unique, counts, number, (size, size), multiple))
            columns.append(f"{number} of {multiple}: {loss:.3f} ({loss / square:.2f})")
    print(f"{name:24} square {square:.3f}; " + "; ".join(columns))


def timed(make: Callable[[], shardkit.Dataset[shardkit.Batch]]) -> tuple[float, float]:
    """Pixels per second of processor time, and of wall time, of an epoch."""
    data = make()
    wall, cpu, pixels = time.perf_counter(), time.process_time(), 0
    for images, _ in data:
        pixels += images.shape[0] * images.shape[1] * images.shape[2]
    return pixels / (time.process_time() - cpu), pixels / (time.perf_counter() - wall)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--scratch", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        prefix = (options.scratch or Path(made)) / "photographs"
        if not prefix.with_suffix(".json").exists():
            shardkit.pack(options.folder, prefix)
        data, size = shardkit.dataset(prefix, shuffle=True), options.size
        table = index_table(data.content.catalog, ["height", "width"])
        sizes = np.stack([table["height"].to_numpy(), table["width"].to_numpy()], axis=1).astype(np.int64)
        print("cut off on average (part of what the square cuts off), by number of buckets and multiple of their sides")
        for name, own in {"photographs": sizes, **generated()}.items():
            print_losses(name, own, size)
        buckets = data.buckets(5, size=size).decode(flip=True).batch(options.batch)
        print("buckets:", buckets.bucket_counts)
        ways = {
            "buckets": lambda: buckets,
            "whole": lambda: data.decode(size=size, flip=True).batch(options.batch),
            "cover": lambda: data.decode(size=size, crop="cover", flip=True).batch(options.batch),
        }
        rounds = [{name: timed(make) for name, make in ways.items()} for _ in range(options.rounds + 1)][1:]
        for name in ("whole", "cover"):
            cpu, wall = (statistics.median(each["buckets"][at] / each[name][at] for each in rounds) for at in (0, 1))
            print(f"buckets against squares ({name}), pixels/s: {cpu:.3f} by processor time, {wall:.3f} by wall time")


if __name__ == "__main__":
    main()
