"""Accuracy of a small model that is trained on images shrunk while packing, and tested on the original ones.

    python benchmarks/transcode_accuracy.py PHOTOS [--sizes 512 384 256 160 96] [--seeds 10]
    python benchmarks/transcode_accuracy.py CIFAR --input 32 --stride 2 --count 12000 --sizes 24 16 12

The model is a small version of the one by Coates, Ng and Lee (An Analysis of Single-Layer Networks in Unsupervised
Feature Learning, AISTATS 2011): 128 whitened random patches of 6 x 6 pixels (of the original images) as filters over
224 x 224 (the centre of each image, or with a small --input the whole image; enlarged if it is smaller), a soft
threshold, means over a grid of 3 x 3, and a ridge regression to the classes. It looks at fine detail on purpose. A seed
decides which fifth of each class is for testing; the output has the mean accuracy over the seeds with its standard
deviation, and the mean difference from the first line with its standard error (in truth somewhat larger, since the
seeds share their images). Files with equal bytes are used once. NumPy only; a few minutes on one core.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import shardkit

Floats = NDArray[np.float32]

FILTERS, PATCH, GRID, RIDGE = 128, 6, 3, 300.0
QUALITIES = (95, 85, 75, 50)


def variants(sizes: list[int]) -> dict[str, Mapping[str, Any]]:
    """Unchanged; several qualities at the median size; quality 90 at the other sizes."""
    middle = sizes[len(sizes) // 2]
    found: dict[str, Mapping[str, Any]] = {"as they are": {}}
    found |= {f"every size, quality {quality}": {"quality": quality} for quality in QUALITIES}
    for size in sizes:
        for quality in QUALITIES if size == middle else (90,):
            found[f"{size}, quality {quality}"] = {"resize": size, "quality": quality}
    return found


@dataclass(frozen=True)
class Look:
    """The model's view: the side of its square input, and the step between its patches."""

    input: int
    stride: int

    def pixels(self, dest: Path) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
        """Batches in the order of the shards, which is the same for every variant when they are not shuffled."""
        crop = {"crop": "center"} if self.input > 64 else {}
        yield from shardkit.dataset(dest).decode(size=self.input, **crop).batch(64)

    def windows(self, images: NDArray[np.uint8]) -> Floats:
        """Patches (images, rows, columns, PATCH * PATCH * 3), each with mean 0 and about the same contrast."""
        step = self.stride
        found = np.lib.stride_tricks.sliding_window_view(images, (PATCH, PATCH), axis=(1, 2))[:, ::step, ::step]
        flat = found.reshape(*found.shape[:3], -1).astype(np.float32)
        flat -= flat.mean(axis=-1, keepdims=True)
        flat /= np.sqrt(flat.var(axis=-1, keepdims=True) + 10)
        return flat


def learned_filters(dest: Path, look: Look) -> Floats:
    """(PATCH * PATCH * 3, FILTERS): ZCA-whitened patches of some images."""
    rng = np.random.default_rng(0)
    found = []
    for n, (images, _) in enumerate(look.pixels(dest)):
        if n % 3 == 0:
            part = look.windows(images).reshape(-1, PATCH * PATCH * 3)
            found.append(part[rng.integers(0, len(part), 400)])
    patches = np.concatenate(found)
    values, vectors = np.linalg.eigh(np.cov(patches.T))
    white = (vectors / np.sqrt(values + 0.1)) @ vectors.T
    lively = patches[np.linalg.norm(patches, axis=1) > 5]  # not the sky: it would be a filter of zeros
    chosen = lively[rng.choice(len(lively), FILTERS, replace=False)] @ white
    chosen /= np.linalg.norm(chosen, axis=1, keepdims=True)
    return (white @ chosen.T).astype(np.float32)


def features(dest: Path, look: Look, filters: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """(images, GRID * GRID * 2 * FILTERS), and the labels."""
    found, labels = [], []
    for images, numbers in look.pixels(dest):
        labels.append(numbers)
        for start in range(0, len(images), 16):
            answers = look.windows(images[start : start + 16]) @ filters
            both = np.concatenate([np.maximum(answers - 0.5, 0), np.maximum(-answers - 0.5, 0)], axis=-1)
            rows = [part.mean(axis=1) for part in np.array_split(both, GRID, axis=1)]
            cells = [cell.mean(axis=1) for row in rows for cell in np.array_split(row, GRID, axis=1)]
            found.append(np.concatenate(cells, axis=-1))
    return np.concatenate(found), np.concatenate(labels)


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


def bytes_each(dest: Path) -> float:
    import pyarrow.parquet as pq

    return float(pq.read_table(f"{dest}.parquet", columns=["image_size"])["image_size"].to_numpy().mean())


def compare(tree: Path, scratch: Path, look: Look, sizes: list[int], seeds: int) -> None:
    plain = scratch / "plain" / "x"
    shardkit.pack(tree, plain, shuffle=False)
    filters = learned_filters(plain, look)
    untouched, labels = features(plain, look, filters)
    parts = [split(labels, seed) for seed in range(seeds)]
    most = np.bincount(labels).max() / len(labels)
    print(f"{len(labels)} images, {labels.max() + 1} classes; the largest class has {most:.1%}; {seeds} seeds")
    print("| trained on | bytes each | tested on the untouched | difference | tested on the same | difference |")
    print("|---|---|---|---|---|---|", flush=True)
    first: list[NDArray[np.float64]] = []
    for number, (name, options) in enumerate(variants(sizes).items()):
        dest = scratch / f"v{number}" / "x"
        shardkit.pack(tree, dest, shuffle=False, images=shardkit.Images(**options))
        changed, _ = features(dest, look, filters)
        models = [trained(changed[~test], labels[~test]) for test in parts]
        scores = [
            np.array([accuracy(model, each[test], labels[test]) for model, test in zip(models, parts, strict=True)])
            for each in (untouched, changed)
        ]
        first = first or scores
        cells = [f"{name}", f"{bytes_each(dest):,.0f}"]
        for one, base in zip(scores, first, strict=True):
            apart = one - base
            cells.append(f"{one.mean():.1%} ± {one.std(ddof=1):.1%}")
            cells.append(f"{apart.mean() * 100:+.1f} ± {apart.std(ddof=1) / seeds**0.5 * 100:.1f}")
        print(f"| {' | '.join(cells)} |", flush=True)


def subset(folder: Path, count: int, root: Path) -> Path:
    """A class tree of `count` of the images, chosen with a fixed seed; one of each group of equal files."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    random.Random(0).shuffle(paths)
    seen = set[bytes]()
    for path in paths:
        data = path.read_bytes()
        digest = hashlib.blake2b(data).digest()
        if digest in seen or len(seen) == count:
            continue
        seen.add(digest)
        (root / path.parent.name).mkdir(parents=True, exist_ok=True)
        (root / path.parent.name / path.name).write_bytes(data)
    return root


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--input", type=int, default=224)
    parser.add_argument("--stride", type=int, default=4)
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 384, 256, 160, 96])
    parser.add_argument("--count", type=int, default=3200)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--scratch", type=Path, help="where the shards go (default: a temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        tree = subset(options.folder, options.count, Path(folder) / "tree")
        compare(tree, Path(folder), Look(options.input, options.stride), options.sizes, options.seeds)


if __name__ == "__main__":
    main()
