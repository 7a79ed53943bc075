"""Accuracy of a small model that is trained on images made smaller while packing, and tested on the untouched ones.

    python benchmarks/transcode_accuracy.py FOLDER [--count 1600] [--seeds 3] [--scratch DIR]

The model is that of Coates, Ng and Lee (An Analysis of Single-Layer Networks in Unsupervised Feature Learning, AISTATS
2011) in small: 128 whitened random patches of 6 x 6 pixels as filters with stride 4 over 224 x 224 (the middle of each
image), a soft threshold, means over a grid of 3 x 3, and a ridge regression to the classes. It looks at fine detail on
purpose. A seed decides the patches (of the untouched images) and which fifth of each class is for testing; printed are
the mean over the seeds and their spread (standard deviation). NumPy only; some ten minutes on one core.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import shardkit

Floats = NDArray[np.float32]

VARIANTS: dict[str, Mapping[str, Any]] = {
    "as they are": {},
    "quality 85": {"quality": 85},
    "384, quality 90": {"resize": 384, "quality": 90},
    "256, quality 95": {"resize": 256, "quality": 95},
    "256, quality 85": {"resize": 256, "quality": 85},
    "256, quality 75": {"resize": 256, "quality": 75},
    "256, quality 50": {"resize": 256, "quality": 50},
    "160, quality 90": {"resize": 160, "quality": 90},
    "96, quality 90": {"resize": 96, "quality": 90},
}

FILTERS, PATCH, STRIDE, GRID, RIDGE = 128, 6, 4, 3, 300.0


def pixels(dest: Path) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    """Batches in the order of the shards, which is the same for every variant when they are not shuffled."""
    yield from shardkit.dataset(dest).decode(size=224, crop="center").batch(64)


def windows(images: NDArray[np.uint8]) -> Floats:
    """Patches (images, rows, columns, PATCH * PATCH * 3), each with mean 0 and about the same contrast."""
    found = np.lib.stride_tricks.sliding_window_view(images, (PATCH, PATCH), axis=(1, 2))[:, ::STRIDE, ::STRIDE]
    flat = found.reshape(*found.shape[:3], -1).astype(np.float32)
    flat -= flat.mean(axis=-1, keepdims=True)
    flat /= np.sqrt(flat.var(axis=-1, keepdims=True) + 10)
    return flat


def learned_filters(dest: Path, seed: int) -> Floats:
    """(PATCH * PATCH * 3, FILTERS): ZCA-whitened patches of some images."""
    rng = np.random.default_rng(seed)
    patches = np.concatenate(
        [
            part[rng.integers(0, len(part), 400)]
            for n, (images, _) in enumerate(pixels(dest))
            if n % 3 == 0
            for part in [windows(images).reshape(-1, PATCH * PATCH * 3)]
        ]
    )
    values, vectors = np.linalg.eigh(np.cov(patches.T))
    white = (vectors / np.sqrt(values + 0.1)) @ vectors.T
    lively = patches[np.linalg.norm(patches, axis=1) > 5]  # not the sky: it would be a filter of zeros
    chosen = lively[rng.choice(len(lively), FILTERS, replace=False)] @ white
    chosen /= np.linalg.norm(chosen, axis=1, keepdims=True)
    return (white @ chosen.T).astype(np.float32)


def features(dest: Path, filters: list[Floats]) -> tuple[list[Floats], NDArray[np.int64]]:
    """For each set of filters (images, GRID * GRID * 2 * FILTERS); and the labels."""
    found: list[list[Floats]] = [[] for _ in filters]
    labels = []
    for images, numbers in pixels(dest):
        labels.append(numbers)
        for start in range(0, len(images), 16):
            flat = windows(images[start : start + 16])
            for one, held in zip(filters, found, strict=True):
                answers = flat @ one
                both = np.concatenate([np.maximum(answers - 0.5, 0), np.maximum(-answers - 0.5, 0)], axis=-1)
                rows = [part.mean(axis=1) for part in np.array_split(both, GRID, axis=1)]
                cells = [cell.mean(axis=1) for row in rows for cell in np.array_split(row, GRID, axis=1)]
                held.append(np.concatenate(cells, axis=-1))
    return [np.concatenate(held) for held in found], np.concatenate(labels)


def split(labels: NDArray[np.int64], seed: int) -> NDArray[np.bool_]:
    """True for a fifth of each class."""
    rng = np.random.default_rng(1000 + seed)
    test = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        test[rows[: max(1, len(rows) // 5)]] = True
    return test


def trained(train: Floats, labels: NDArray[np.int64]) -> tuple[Floats, Floats, Floats]:
    """Mean, scale and weights of a ridge regression to the classes."""
    mean, scale = train.mean(axis=0), train.std(axis=0) + 1e-3
    inputs = np.c_[(train - mean) / scale, np.ones(len(train), np.float32)]
    targets = np.eye(labels.max() + 1, dtype=np.float32)[labels] * 2 - 1
    left = inputs.T @ inputs + RIDGE * np.eye(inputs.shape[1], dtype=np.float32)
    return mean, scale, np.linalg.solve(left, inputs.T @ targets)


def accuracy(model: tuple[Floats, Floats, Floats], inputs: Floats, labels: NDArray[np.int64]) -> float:
    mean, scale, weights = model
    answers = np.c_[(inputs - mean) / scale, np.ones(len(inputs), np.float32)] @ weights
    return float((answers.argmax(axis=1) == labels).mean())


def packed(tree: Path, scratch: Path) -> dict[str, Path]:
    """Each variant, in the order of the tree."""
    dests = {}
    for number, (name, options) in enumerate(VARIANTS.items()):
        dests[name] = scratch / f"v{number}" / "x"
        shardkit.pack(tree, dests[name], shuffle=False, **options)
    return dests


def bytes_each(dest: Path) -> float:
    import pyarrow.parquet as pq

    return float(pq.read_table(f"{dest}.parquet", columns=["image_size"])["image_size"].to_numpy().mean())


def compare(tree: Path, scratch: Path, seeds: int) -> None:
    dests = packed(tree, scratch)
    plain = next(iter(dests.values()))
    filters = [learned_filters(plain, seed) for seed in range(seeds)]
    untouched, labels = features(plain, filters)
    parts = [split(labels, seed) for seed in range(seeds)]
    most = np.bincount(labels).max() / len(labels)
    print(f"{len(labels)} images, {labels.max() + 1} classes; the largest class has {most:.1%}")
    print("| trained on | bytes each | tested on the untouched | tested on the same |\n|---|---|---|---|")
    for name, dest in dests.items():
        changed, _ = features(dest, filters)
        models = [trained(own[~test], labels[~test]) for own, test in zip(changed, parts, strict=True)]
        scores = []
        for inputs in (untouched, changed):
            one = [
                accuracy(model, each[test], labels[test])
                for model, each, test in zip(models, inputs, parts, strict=True)
            ]
            scores.append(f"{np.mean(one):.1%} ± {np.std(one, ddof=1):.1%}")
        print(f"| {name} | {bytes_each(dest):,.0f} | {scores[0]} | {scores[1]} |", flush=True)


def subset(folder: Path, count: int, root: Path) -> Path:
    """A class tree of `count` of the images, chosen with a fixed seed."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    random.Random(0).shuffle(paths)
    for path in paths[:count]:
        (root / path.parent.name).mkdir(parents=True, exist_ok=True)
        (root / path.parent.name / path.name).write_bytes(path.read_bytes())
    return root


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=1600)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scratch", type=Path, help="where the shards go (default: a temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        tree = subset(options.folder, options.count, Path(folder) / "tree")
        compare(tree, Path(folder), options.seeds)


if __name__ == "__main__":
    main()
