"""The cost and benefit of transcoding while packing: bytes, packing, and decoding afterwards; and ways to shrink.

    python benchmarks/transcode.py FOLDER [--count 600] [--rounds 3] [sizes] [coding] [shrinking] [workers]

`sizes` packs the same images at several sizes and qualities, `coding` with other JPEG codings of the same pixels,
`shrinking` compares ways to make a JPEG smaller, and `workers` packs with one worker process and with two. The variants
take turns in each round; the output has medians, as images per second of processor time (of one core), so that other
load on the machine matters little (for `workers`: of the clock), and bytes per image. Decoding is
`dataset(…).decode(size=224, crop="random", flip=True).batch(64)`, over the whole dataset. FOLDER is a class tree of
photographs.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import shardkit
from shardkit.images.header import image_header
from shardkit.images.rewrite import recode

Options = Mapping[str, Any]

SIZES: dict[str, Options] = {"as they are": {}} | {
    f"{f'shorter side {size}' if size else 'every size'}, quality {quality}": (
        {"quality": quality} | ({"resize": size} if size else {})
    )
    for size in (0, 512, 384, 256)
    for quality in (95, 85, 75)
}

CODINGS: dict[str, Options] = {
    "progressive, as they are": {},
    "--baseline": {"baseline": True},
    "--baseline --restart-rows 1": {"baseline": True, "restart_rows": 1},
    "--quality 90 --subsampling 444": {"quality": 90, "subsampling": 444, "resize": 4096},
    "--quality 90 --subsampling 420": {"quality": 90, "subsampling": 420, "resize": 4096},
}


def picked(folder: Path, count: int) -> list[Path]:
    """`count` JPEGs of the tree, chosen with a fixed seed, without gray and CMYK ones."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    random.Random(0).shuffle(paths)
    return paths[:count]


def copied(paths: list[Path], root: Path, *, change: Callable[[bytes], bytes] = bytes) -> Path:
    """A class tree of these files."""
    for path in paths:
        target = root / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(change(path.read_bytes()))
    return root


def progressive(data: bytes) -> bytes:
    """Convert to a progressive JPEG with the same quantisation and subsampling."""
    from PIL import Image

    sink = io.BytesIO()
    with Image.open(io.BytesIO(data)) as image:
        if image.mode == "CMYK":
            return data
        image.save(sink, "JPEG", quality="keep", progressive=True)
    return sink.getvalue()


def packing(tree: Path, dest: Path, options: Options) -> float:
    """Seconds of processor time, without the scan and the plan's estimate, which tries 256 images."""
    shutil.rmtree(dest.parent, ignore_errors=True)
    began = time.process_time()
    shardkit.plan_pack(tree, dest, workers=1, images=shardkit.Images(**options))
    planned = time.process_time()
    shardkit.pack(tree, dest, workers=1, images=shardkit.Images(**options))
    return (time.process_time() - planned) - (planned - began)


def decoding(dest: Path) -> float:
    """Seconds of processor time for one epoch of random crops."""
    batches = shardkit.dataset(dest, shuffle=1000, seed=0).decode(size=224, crop="random", flip=True).batch(64)
    began = time.process_time()
    for _ in batches:
        pass
    return time.process_time() - began


def table(tree: Path, scratch: Path, variants: Mapping[str, Options], rounds: int) -> None:
    packed: dict[str, list[float]] = {name: [] for name in variants}
    decoded: dict[str, list[float]] = {name: [] for name in variants}
    dests = {name: scratch / f"v{number}" / "x" for number, name in enumerate(variants)}
    for _ in range(rounds):
        for name, options in variants.items():
            packed[name].append(packing(tree, dests[name], options))
    for _ in range(rounds + 1):
        for name, dest in dests.items():
            decoded[name].append(decoding(dest))
    print("| images | bytes each | of the source | packed, 1/s | decoded, 1/s |")
    print("|---|---|---|---|---|")
    whole = 0.0
    for name, dest in dests.items():
        count = len(shardkit.dataset(dest))
        size = image_bytes(dest) / count
        whole = whole or size
        rates = (count / statistics.median(packed[name]), count / statistics.median(decoded[name][1:]))
        print(f"| {name} | {size:,.0f} | {size / whole:.0%} | {rates[0]:,.0f} | {rates[1]:,.0f} |", flush=True)


def image_bytes(dest: Path) -> int:
    import pyarrow.parquet as pq

    return int(pq.read_table(f"{dest}.parquet", columns=["image_size"])["image_size"].to_numpy().sum())


Shrink = Callable[[bytes, tuple[int, int]], Any]


def shrinks() -> dict[str, Shrink]:
    """Ways from a JPEG to smaller pixels; the others are compared with the first."""
    import cv2
    import simplejpeg
    from PIL import Image

    cv2.setNumThreads(1)
    lanczos = Image.Resampling.LANCZOS

    def pillow(data: bytes, size: tuple[int, int]) -> Any:
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB").resize(size, lanczos))

    def thumbnail(data: bytes, size: tuple[int, int]) -> Any:
        image = Image.open(io.BytesIO(data))
        image.draft("RGB", (2 * size[0], 2 * size[1]))
        return np.asarray(image.convert("RGB").resize(size, lanczos, reducing_gap=2.0))

    def ours(data: bytes, size: tuple[int, int]) -> Any:
        return np.asarray(recode.resize_image(recode.decode(data, "JPEG", min(size), None).image, size))

    def by(kind: Any) -> Shrink:
        def shrink(data: bytes, size: tuple[int, int]) -> Any:
            pixels = simplejpeg.decode_jpeg(data, "RGB")
            if isinstance(kind, Image.Resampling):
                return np.asarray(Image.fromarray(pixels).resize(size, kind))
            return cv2.resize(pixels, size, interpolation=kind)

        return shrink

    def eighths(data: bytes, size: tuple[int, int]) -> Any:
        pixels = simplejpeg.decode_jpeg(data, "RGB", False, False, int(1.5 * size[1]), int(1.5 * size[0]), 1)
        return np.asarray(Image.fromarray(pixels).resize(size, lanczos))

    return {
        "Pillow, whole, Lanczos": pillow,
        "Pillow, draft and reducing gap 2, Lanczos": thumbnail,
        "simplejpeg, halved where 2 times remain, Lanczos (ours)": ours,
        "simplejpeg, in eighths where 1.5 times remain, Lanczos": eighths,
        "simplejpeg, whole, bicubic": by(Image.Resampling.BICUBIC),
        "simplejpeg, whole, box": by(Image.Resampling.BOX),
        "simplejpeg, whole, OpenCV area": by(cv2.INTER_AREA),
    }


def shrinking(datas: list[bytes], rounds: int) -> None:
    from PIL import Image

    for side in (256, 128):
        chosen = []
        for data in datas:
            size = image_header(data)[1:]
            goal = recode.shrunk_size(size, side, None)
            if goal != size and Image.open(io.BytesIO(data)).mode == "RGB":
                chosen.append((data, goal))
        ways = shrinks()
        exact = [next(iter(ways.values()))(data, goal) for data, goal in chosen]
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        errors: dict[str, float] = {}
        for _ in range(rounds):
            for name, way in ways.items():
                began = time.process_time()
                found = [way(data, goal) for data, goal in chosen]
                seconds[name].append(time.process_time() - began)
                pairs = zip(found, exact, strict=True)
                errors[name] = float(np.mean([np.abs(a.astype(int) - b).mean() for a, b in pairs]))
        print(f"| to a shorter side of {side} ({len(chosen)} images) | mean difference | ms each |\n|---|---|---|")
        for name, times in seconds.items():
            each = statistics.median(times) / len(chosen) * 1e3
            print(f"| {name} | {errors[name]:.2f} | {each:.1f} |", flush=True)


def workers(tree: Path, scratch: Path, rounds: int) -> None:
    """Measure wall-clock time: needs a machine with two idle cores, and reports how busy it was."""
    rates: dict[int, list[float]] = {1: [], 2: []}
    ratios = []
    for _ in range(rounds):
        for count in rates:
            shutil.rmtree(scratch, ignore_errors=True)
            began = time.perf_counter()
            manifest = shardkit.pack(
                tree, scratch / "x", workers=count, images=shardkit.Images(resize=256), max_bytes="4MB"
            )
            rates[count].append(manifest.samples / (time.perf_counter() - began))
        ratios.append(rates[2][-1] / rates[1][-1])
    spread = ", ".join(f"{ratio:.2f}" for ratio in sorted(ratios))
    one, two = (statistics.median(each) for each in rates.values())
    print(f"one worker {one:,.0f}/s, two {two:,.0f}/s: {statistics.median(ratios):.2f} times ({spread})")
    print("load of the machine:", ", ".join(f"{load:.1f}" for load in os.getloadavg()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("modes", nargs="*", default=["sizes", "coding", "shrinking"])
    parser.add_argument("--count", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    paths = picked(options.folder, options.count)
    if not paths:
        parser.error(f"{options.folder}: no JPEGs below it")
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        if "sizes" in options.modes:
            table(copied(paths, scratch / "plain"), scratch / "sizes", SIZES, options.rounds)
        if "coding" in options.modes:
            tree = copied(paths, scratch / "progressive", change=progressive)
            table(tree, scratch / "coding", CODINGS, options.rounds)
        if "workers" in options.modes:
            workers(copied(paths, scratch / "plain"), scratch / "workers", options.rounds)
        if "shrinking" in options.modes:
            shrinking([path.read_bytes() for path in paths[:150]], options.rounds)


if __name__ == "__main__":
    main()
