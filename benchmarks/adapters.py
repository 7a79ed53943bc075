"""What the hand-over to TensorFlow, Keras and torch costs, and how `model.fit` compares with Keras' own loaders.

    python benchmarks/adapters.py SHARDS TREE [--rounds 5] [--batches 30]

Rounds of all contestants in turn, so that a noisy machine is noisy for all of them; medians of images per second, and
of the ratios within a round.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
SIZE, BATCH = 224, 64


def passes(shards: str, **options: Any) -> dict[str, Callable[[], Iterable[Any]]]:
    """Ways to iterate over the same batches."""
    import shardkit

    def batches() -> Any:
        return shardkit.dataset(shards, shuffle=2000).decode(size=SIZE, **options).batch(BATCH, drop_last=True)

    def by_number(made: Any) -> Iterator[Any]:
        return (made[number] for number in range(len(made)))

    return {
        "Dataset": batches,
        "to_tf": lambda: batches().to_tf(),
        "to_keras": lambda: by_number(batches().to_keras()),
        "to_keras as fit reads it": lambda: keras_batches(batches().to_keras()),
        "to_torch": lambda: batches().to_torch(),
        "to_torch, loader of 2 workers": lambda: batches().to_torch().loader(num_workers=2),
    }


def keras_batches(made: Any) -> Iterable[Any]:
    """What Keras' TensorFlow trainer makes of a PyDataset."""
    from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter

    return PyDatasetAdapter(made).get_tf_dataset()


def fits(shards: str, tree: str) -> dict[str, Callable[[], int]]:
    """An epoch of `model.fit` on a model that is too small to matter; each gives the number of its batches."""
    import keras
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    import shardkit
    from shardkit.adapters.keras import flow_from_shards, image_dataset_from_shards

    model = keras.Sequential(
        [keras.Input((SIZE, SIZE, 3)), keras.layers.AveragePooling2D(56), keras.layers.Flatten(), keras.layers.Dense(6)]
    )
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    size = (SIZE, SIZE)

    def fit(data: Any) -> int:
        model.fit(data, verbose=0)
        return len(data)

    def uint8() -> Any:
        return shardkit.dataset(shards, shuffle=2000).decode(size=SIZE).batch(BATCH)

    return {
        "image_dataset_from_directory": lambda: fit(
            keras.utils.image_dataset_from_directory(tree, image_size=size, batch_size=BATCH, verbose=False)
        ),
        "flow_from_directory": lambda: fit(
            ImageDataGenerator().flow_from_directory(tree, size, batch_size=BATCH, class_mode="sparse")
        ),
        "to_tf": lambda: fit(uint8().to_tf()),
        "to_keras": lambda: fit(uint8().to_keras()),
        "image_dataset_from_shards": lambda: fit(
            image_dataset_from_shards(shards, image_size=size, batch_size=BATCH, verbose=False)
        ),
        "flow_from_shards, bilinear": lambda: fit(
            flow_from_shards(
                shards, target_size=size, batch_size=BATCH, class_mode="sparse", interpolation="bilinear", verbose=False
            )
        ),
        "flow_from_shards": lambda: fit(
            flow_from_shards(shards, target_size=size, batch_size=BATCH, class_mode="sparse", verbose=False)
        ),
    }


def timed(run: Callable[[], int]) -> tuple[float, float]:
    """(images a second, milliseconds of this process's cores for an image; those of worker processes not counted)."""
    begin, cpu = time.perf_counter(), time.process_time()
    images = run() * BATCH
    return images / (time.perf_counter() - begin), 1000 * (time.process_time() - cpu) / images


def report(title: str, contestants: dict[str, Callable[[], int]], rounds: int, bases: list[str]) -> None:
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, run in contestants.items():
            speed = timed(run)
            if number:  # the first round warms up
                found[name].append(speed)
    print(f"\n{title}: images/s, core ms/image" + "".join(f", x {base}" for base in bases))
    for name, speeds in found.items():
        rate, cpu = (statistics.median(column) for column in zip(*speeds, strict=True))
        ratios = [statistics.median(a[0] / b[0] for a, b in zip(speeds, found[base], strict=True)) for base in bases]
        print(f"{name:32}{rate:8.0f}{cpu:8.2f}" + "".join(f"{ratio:8.2f}" for ratio in ratios), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("shards")
    parser.add_argument("tree")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=30)
    chosen = parser.parse_args()

    def counted(make: Callable[[], Iterable[Any]]) -> Callable[[], int]:
        return lambda: sum(1 for _ in islice(make(), chosen.batches))

    for title, options in (("uint8", {}), ("float32", {"dtype": "float32"})):
        ways = {name: counted(make) for name, make in passes(chosen.shards, **options).items()}
        report(f"Batches of {BATCH} x {SIZE}², {title}", ways, chosen.rounds, ["Dataset"])
    bases = ["image_dataset_from_directory", "flow_from_directory"]
    report("model.fit", fits(chosen.shards, chosen.tree), chosen.rounds, bases)


if __name__ == "__main__":
    main()
