"""How `pack --append` grows with the dataset that it adds to: processor time, and memory at the peak.

    python benchmarks/append.py --scratch FOLDER [--rows 100000 1000000 10000000] [--new 1000] [--per-shard 10000]

Draws datasets as `growth.py` does (manifest and index; the shards are files without content) and adds the same few new
images to each, in a process of its own. Memory is of that process alone: without what is mapped from files.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np
from growth import draw, slope
from PIL import Image
from plan import OwnMemory

import shardkit
from shardkit.packing.options import make_options
from shardkit.packing.settings import PackSettings
from shardkit.shards.manifest import decode_manifest, encode_manifest


def draw_dataset(prefix: Path, rows: int, per_shard: int) -> None:
    """A dataset that `pack --append` adds to."""
    draw(prefix, rows, per_shard)
    path = prefix.with_name(f"{prefix.name}.json")
    manifest = decode_manifest(path.read_bytes(), place=str(path))
    manifest = msgspec.structs.replace(manifest, options=make_options(PackSettings()).recorded())
    path.write_bytes(encode_manifest(manifest))
    for shard in manifest.shards:
        with open(prefix.with_name(shard.name), "wb") as file:
            file.truncate(shard.bytes)


def draw_images(folder: Path, count: int) -> None:
    """A tree of new images."""
    folder = folder / "n00001"
    folder.mkdir(parents=True)
    drawn = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)).save(drawn, "JPEG")
    for number in range(count):
        (folder / f"new_{number:06}.jpg").write_bytes(drawn.getvalue())


def measure(prefix: str, tree: str) -> dict[str, float]:
    """Seconds of processor time and bytes of memory at the peak, of adding the images."""
    memory = OwnMemory()
    before, begin = memory.now(), time.process_time()
    packed = shardkit.pack(tree, prefix, append=True, workers=1)
    return {"seconds": time.process_time() - begin, "peak": memory.peak() - before, "samples": packed.manifest.samples}


def main() -> None:
    """Draw, add, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--new", type=int, default=1000)
    parser.add_argument("--per-shard", type=int, default=10_000)
    parser.add_argument("--measure", nargs=2, metavar=("PREFIX", "TREE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(*options.measure)))
        return
    tree = options.scratch / f"new-{options.new}"
    if not tree.exists():
        draw_images(tree, options.new)
    print("| rows | new | processor s | exponent | peak MB |\n|---|---|---|---|---|")
    earlier = None
    for rows in options.rows:
        drawn = options.scratch / f"append-{rows}" / "train"
        if not drawn.with_name("train.json").exists():
            draw_dataset(drawn, rows, options.per_shard)
        with tempfile.TemporaryDirectory(dir=options.scratch) as copy:
            shutil.copytree(drawn.parent, copy, copy_function=os.link, dirs_exist_ok=True)
            command = [sys.executable, __file__, "--scratch", "-", "--measure", f"{copy}/train", str(tree)]
            found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        exponent = "" if earlier is None else f"{slope(earlier, (rows, found['seconds'])):.2f}"
        earlier = rows, found["seconds"]
        print(
            f"| {rows:,} | {options.new:,} | {found['seconds']:.2f} | {exponent} | {found['peak'] / 1e6:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
