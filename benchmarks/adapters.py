"""The cost of handing batches to TensorFlow, Keras and torch, and `model.fit` compared with Keras' own loaders.

    python benchmarks/adapters.py SHARDS TREE [--tfrecord SHARDS] [--what passes] [--rounds 5] [--batches 50]

All contestants take turns in each round, so that a noisy machine affects all of them; medians of images per second, of
core time per image, and of the ratios within a round. A pass is an epoch of that many batches, from start to end, over
an existing dataset: starting it counts, creating it does not.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
SIZE, BATCH = 224, 64


def passes(shards: str, tfrecord: str | None, batches: int, **options: Any) -> dict[str, Callable[[], Iterable[Any]]]:
    """Ways to iterate over the same batches."""
    import shardkit

    def made(source: str = shards) -> Any:
        data = shardkit.dataset(source, shuffle=1000).decode(size=SIZE, **options)
        return data.batch(BATCH, drop_last=True).take(batches)

    plain, by_tf, by_number, loader = made(), made().to_tf(), made().to_keras(), made().to_torch()
    ways: dict[str, Callable[[], Iterable[Any]]] = {
        "Dataset": lambda: plain,
        "to_tf": lambda: by_tf,
        "to_keras": lambda: (by_number[number] for number in range(len(by_number))),
        "to_keras as fit reads it": keras_batches(made().to_keras()),
        "to_torch": lambda: loader,
        "to_torch, loader of 2 workers": lambda: made().to_torch().loader(num_workers=2),
    }
    if tfrecord is not None:
        handed, graph = made(tfrecord).to_tf(), made(tfrecord).to_tf(graph=True)
        ways |= {"to_tf, TFRecord": lambda: handed, "to_tf(graph=True), TFRecord": lambda: graph}
    return ways


def keras_batches(made: Any) -> Callable[[], Iterator[Any]]:
    """Iterate over a PyDataset like Keras' TensorFlow trainer, one epoch after another."""
    from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter

    found = PyDatasetAdapter(made).get_tf_dataset()

    def epoch() -> Iterator[Any]:
        made.on_epoch_begin()
        yield from found
        made.on_epoch_end()

    return epoch


def fits(shards: str, tree: str, tfrecord: str | None) -> dict[str, Callable[[], int]]:
    """One epoch of `model.fit` with a negligible model; each function returns the number of batches."""
    import keras
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    import shardkit
    from shardkit.adapters.keras import flow_from_shards, image_dataset_from_shards

    model = keras.Sequential(
        [keras.Input((SIZE, SIZE, 3)), keras.layers.AveragePooling2D(56), keras.layers.Flatten(), keras.layers.Dense(6)]
    )
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    size = (SIZE, SIZE)

    def uint8(source: str = shards) -> Any:
        return shardkit.dataset(source, shuffle=1000).decode(size=SIZE).batch(BATCH)

    flow = {"target_size": size, "batch_size": BATCH, "class_mode": "sparse", "verbose": False}
    data = {
        "image_dataset_from_directory": keras.utils.image_dataset_from_directory(
            tree, image_size=size, batch_size=BATCH, verbose=False
        ),
        "flow_from_directory": ImageDataGenerator().flow_from_directory(
            tree, size, batch_size=BATCH, class_mode="sparse"
        ),
        "to_tf": uint8().to_tf(),
        "to_keras": uint8().to_keras(),
        "image_dataset_from_shards": image_dataset_from_shards(
            shards, image_size=size, batch_size=BATCH, verbose=False
        ),
        "flow_from_shards, bilinear": flow_from_shards(shards, interpolation="bilinear", **flow),
        "flow_from_shards": flow_from_shards(shards, **flow),
    }
    if tfrecord is not None:
        data["to_tf(graph=True), TFRecord"] = uint8(tfrecord).to_tf(graph=True)

    def fit(one: Any) -> Callable[[], int]:
        def run() -> int:
            model.fit(one, verbose=0)
            return len(one)

        return run

    return {name: fit(one) for name, one in data.items()}


def timed(run: Callable[[], int]) -> tuple[float, float]:
    """(images per second, milliseconds of this process's core time per image, excluding worker processes)."""
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
    parser.add_argument("--tfrecord", help="the same samples as TFRecord shards")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=50)
    parser.add_argument("--what", choices=("passes", "fit", "both"), default="both")
    parser.add_argument("--only", default="", help="contestants whose name holds this, and those they are measured by")
    chosen = parser.parse_args()

    def counted(make: Callable[[], Iterable[Any]]) -> Callable[[], int]:
        return lambda: sum(1 for _ in make())

    def wanted(ways: dict[str, Any], bases: list[str]) -> dict[str, Any]:
        return {name: way for name, way in ways.items() if name in bases or chosen.only in name}

    for title, options in (("uint8", {}), ("float32", {"dtype": "float32"})) if chosen.what != "fit" else ():
        made = wanted(passes(chosen.shards, chosen.tfrecord, chosen.batches, **options), ["Dataset"])
        ways = {name: counted(make) for name, make in made.items()}
        report(f"Batches of {BATCH} x {SIZE}², {title}", ways, chosen.rounds, ["Dataset"])
    if chosen.what == "passes":
        return
    bases = ["image_dataset_from_directory", "flow_from_directory"]
    runs = wanted(fits(chosen.shards, chosen.tree, chosen.tfrecord), bases)
    report("model.fit", runs, chosen.rounds, bases)


if __name__ == "__main__":
    main()
