#!/usr/bin/env python3
"""Near-duplicates: how many of the changed copies of images are found, how many others, and how long the search takes.

python benchmarks/near_duplicates.py found DIR [IMAGES]   DIR: photographs, of which IMAGES (default: 320) are taken
python benchmarks/near_duplicates.py search [COUNT]       COUNT random hashes (default: a million) against others

Copies: half as large, squeezed to 256 x 256, JPEG quality 50 and 20, gray, and cropped by 5 % of each side's length, in
the middle and at a random place. Files that are equal byte for byte are taken once.
"""

from __future__ import annotations

import argparse
import io
import resource
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
from PIL import Image

from shardkit.images.quality.near import ALIKE, bits_of, candidate_bits, likeness, near_pairs
from shardkit.images.quality.quality import grid_of, quality

CROP = 0.05


def encoded(image: Image.Image, quality: int = 90) -> bytes:
    sink = io.BytesIO()
    image.save(sink, "JPEG", quality=quality)
    return sink.getvalue()


def cropped(image: Image.Image, across: float, down: float) -> Image.Image:
    """Without CROP of width and height, of which these shares are cut at the left and at the top."""
    left, top = round(image.width * CROP * across), round(image.height * CROP * down)
    return image.crop((left, top, left + round(image.width * (1 - CROP)), top + round(image.height * (1 - CROP))))


def copies(image: Image.Image, rng: np.random.Generator) -> dict[str, bytes]:
    across, down = rng.random(2)
    half = (max(1, image.width // 2), max(1, image.height // 2))
    return {
        "half size": encoded(image.resize(half, Image.Resampling.LANCZOS)),
        "256 x 256": encoded(image.resize((256, 256), Image.Resampling.BICUBIC)),
        "quality 50": encoded(image, 50),
        "quality 20": encoded(image, 20),
        "gray": encoded(image.convert("L")),
        "cropped in the middle": encoded(cropped(image, 0.5, 0.5)),
        "cropped at random": encoded(cropped(image, across, down)),
    }


def found(folder: str, images: int) -> None:
    rng, seen = np.random.default_rng(0), set[bytes]()
    datas: list[bytes] = []
    kinds: list[str] = []
    for path in sorted(path for path in Path(folder).rglob("*") if path.is_file()):
        data = path.read_bytes()
        if len(seen) == images or (digest := sha256(data).digest()) in seen:
            continue
        seen.add(digest)
        changed = copies(Image.open(io.BytesIO(data)).convert("RGB"), rng)
        datas += [data, *changed.values()]
        kinds = ["original", *changed]
    each = len(kinds)
    hashes = np.array([quality(data).phash for data in datas], np.uint64)
    grids = np.array([grid_of(data) for data in datas])
    count, bits = len(datas) // each, candidate_bits(len(datas))
    pairs = near_pairs(hashes, bits=bits)
    kept = pairs[likeness(grids[pairs[:, 0]], grids[pairs[:, 1]]) >= ALIKE]
    true = kept[:, 0] // each == kept[:, 1] // each
    print(f"{count} images with {each - 1} copies each; candidates differ in up to {bits} bits")
    print(f"all together: {len(pairs):,} candidates, {len(kept):,} kept, of the same image: {true.mean():.4f}")
    print("originals in one split, copies in another:")
    for number, kind in enumerate(kinds[1:], 1):
        pairs = near_pairs(hashes[::each], hashes[number::each], bits=bits)
        alike = likeness(grids[::each][pairs[:, 0]], grids[number::each][pairs[:, 1]]) >= ALIKE
        true = pairs[alike, 0] == pairs[alike, 1]
        apart = bits_of(hashes[::each] ^ hashes[number::each])
        told = f"bits apart: median {np.median(apart):.0f}, most {apart.max()}"
        print(f"  {kind}: recall {true.sum() / count:.3f}, precision {true.mean():.4f}; {told}")


def search(count: int) -> None:
    rng = np.random.default_rng(0)
    first, second = (rng.integers(0, 1 << 64, count, dtype=np.uint64) for _ in range(2))
    ways: dict[str, Callable[[], object]] = {
        "against as many others": lambda: near_pairs(first, second, bits=candidate_bits(count, count)),
        "among themselves": lambda: near_pairs(first, bits=candidate_bits(count)),
    }
    for name, way in ways.items():
        wall, cpu = time.perf_counter(), time.process_time()
        pairs = way()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(f"{count:,} hashes {name}: {len(pairs):,} pairs, {cpu:.1f} s of processor time, {wall:.1f} s")  # type: ignore[arg-type]
    print(f"peak memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ways = parser.add_subparsers(required=True)
    way = ways.add_parser("found")
    way.add_argument("folder")
    way.add_argument("images", nargs="?", type=int, default=320)
    way.set_defaults(run=found)
    way = ways.add_parser("search")
    way.add_argument("count", nargs="?", type=int, default=1_000_000)
    way.set_defaults(run=search)
    options = vars(parser.parse_args())
    options.pop("run")(**options)
