"""What augmentation costs: the arguments of Keras' tutorials, by Keras' own generator and by shardkit.

    python benchmarks/augmentation.py SHARDS TREE [--rounds 5] [--batches 10] [--size 150]

SHARDS hold the same images as TREE. All contestants take turns in each round, so that a noisy machine is noisy for all
of them. What is compared is processor time of this process and its threads: medians of milliseconds for an image, and
of the ratios within a round.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import statistics
import time
import warnings
from collections.abc import Callable
from itertools import islice
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
warnings.filterwarnings("ignore", message=".*scipy.ndimage", category=DeprecationWarning)  # Keras' own

BATCH = 32
TUTORIAL: dict[str, Any] = {
    "rotation_range": 20, "width_shift_range": 0.2, "height_shift_range": 0.2, "shear_range": 0.2, "zoom_range": 0.2,
    "horizontal_flip": True, "fill_mode": "nearest", "rescale": 1 / 255,
}  # fmt: skip
BASES = ("Keras' own generator", "Keras' own, bilinear", "crop and flip")


def contestants(shards: str, tree: str, size: int, batches: int) -> dict[str, Callable[[], int]]:
    """Ways to read so many batches; each gives the number of its images. Ours are whole epochs of a part, so that
    nothing that was read ahead is left over for the next contestant."""
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    import shardkit

    def part_of(source: str) -> Any:
        data = shardkit.dataset(source)
        chosen = range(0, data.epoch_samples, max(1, data.epoch_samples // (batches * BATCH)))
        return data[list(chosen)[: batches * BATCH]]

    def decoded(**options: Any) -> Any:
        return part_of(shards).shuffle().decode(size=size, **options).batch(BATCH)

    flow = {"target_size": (size, size), "batch_size": BATCH}
    ours, augment = shardkit.keras.ImageDataGenerator(**TUTORIAL), shardkit.Augment(**TUTORIAL)
    with contextlib.redirect_stdout(io.StringIO()):
        made = {
            "Keras' own generator": ImageDataGenerator(**TUTORIAL).flow_from_directory(tree, **flow),
            "Keras' own, bilinear": ImageDataGenerator(**TUTORIAL).flow_from_directory(
                tree, interpolation="bilinear", **flow
            ),
            "flow_from_shards": ours.flow_from_shards(part_of(shards), **flow),
            "flow_from_shards, bilinear": ours.flow_from_shards(part_of(shards), interpolation="bilinear", **flow),
            "flow_from_directory": ours.flow_from_shards(part_of(tree), **flow),
        }
    plain = {
        "decode(augment=)": decoded(augment=augment),
        "crop and flip": decoded(crop="random", flip=True, rescale=1 / 255),
        "whole images": decoded(rescale=1 / 255),
    }
    ways: dict[str, Callable[[], int]] = {
        name: lambda one=one: sum(len(x) for x, _ in islice(one, batches))  # type: ignore[misc]
        for name, one in (made | plain).items()
    }
    return ways


def milliseconds(run: Callable[[], int]) -> float:
    """Processor time for an image."""
    begin = time.process_time()
    images = run()
    return 1000 * (time.process_time() - begin) / images


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("shards")
    parser.add_argument("tree")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=10)
    parser.add_argument("--size", type=int, default=150)
    chosen = parser.parse_args()
    ways = contestants(chosen.shards, chosen.tree, chosen.size, chosen.batches)
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(chosen.rounds + 1):
        for name, run in ways.items():
            spent = milliseconds(run)
            if number:  # the first round warms up
                found[name].append(spent)
    print(f"{'core ms/image':32}{'':8}" + "".join(f"  x {base}" for base in BASES))
    for name, spent in found.items():
        ratios = [statistics.median(b / a for a, b in zip(spent, found[base], strict=True)) for base in BASES]
        print(
            f"{name:32}{statistics.median(spent):8.2f}"
            + "".join(f"{r:{len(b) + 4}.2f}" for r, b in zip(ratios, BASES, strict=True))
        )


if __name__ == "__main__":
    main()
