"""How far the fast decoder is from the exact one: mean absolute difference, in steps of 1/255, over a folder of images.

    python benchmarks/decode_accuracy.py FOLDER [--size 224] [--count 300]

The exact decoder is Pillow's, with its antialiased resize. Images are compared one at a time; the output is the mean
over the images, the mean of the worst hundredth, the mean of the signed difference (brightness), and the time per
image.
"""

from __future__ import annotations

import argparse
import itertools
import random
import time
from pathlib import Path

import numpy as np

from shardkit.errors import DecodeError
from shardkit.images.decoder import DecodeOptions, ImageDecoder
from shardkit.sample import IMAGE_FIELDS, field_of

CROPS = ("resize", "center", "random")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "area", "lanczos")


def read_images(folder: Path, count: int) -> list[bytes]:
    """Read `count` images in the folder, chosen with a fixed seed."""
    paths = sorted(path for path in folder.rglob("*") if field_of(path.suffix[1:]) in IMAGE_FIELDS and path.is_file())
    random.Random(0).shuffle(paths)
    return [path.read_bytes() for path in paths[:count]]


def decode_all(datas: list[bytes], options: DecodeOptions) -> tuple[list[np.ndarray | None], float]:
    """Each image (None if it does not decode) and the seconds per image."""
    decoder = ImageDecoder(options)
    draws = decoder.draws(1, np.arange(len(datas)))
    found: list[np.ndarray | None] = []
    began = time.perf_counter()
    for i, data in enumerate(datas):
        try:
            found.append(decoder.array(data, None if draws is None else draws[i]))
        except DecodeError:
            found.append(None)
    return found, (time.perf_counter() - began) / len(datas)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--count", type=int, default=300)
    options = parser.parse_args()
    datas = read_images(options.folder, options.count)
    if not datas:
        parser.error(f"{options.folder}: no images below it")
    print(f"{len(datas)} images to {options.size} x {options.size}")
    print(f"{'crop':8}{'interpolation':15}{'MAE':>7}{'worst 1%':>10}{'bias':>8}{'fast us':>10}{'exact us':>10}")
    for crop, interpolation in itertools.product(CROPS, INTERPOLATIONS):
        asked = {"size": options.size, "crop": crop, "interpolation": interpolation}
        fast, fast_seconds = decode_all(datas, DecodeOptions(**asked))
        exact, exact_seconds = decode_all(datas, DecodeOptions(**asked, exact=True))
        pairs = [
            (a.astype(int), b.astype(int)) for a, b in zip(fast, exact, strict=True) if a is not None and b is not None
        ]
        errors = sorted(float(np.abs(a - b).mean()) for a, b in pairs)
        bias = np.mean([(a - b).mean() for a, b in pairs])
        worst = np.mean(errors[-max(1, len(errors) // 100) :])
        print(
            f"{crop:8}{interpolation:15}{np.mean(errors):7.2f}{worst:10.2f}{bias:8.2f}"
            f"{fast_seconds * 1e6:10.0f}{exact_seconds * 1e6:10.0f}"
        )


if __name__ == "__main__":
    main()
