#!/usr/bin/env python3
"""What the quality columns cost: images a second of one core, by the C decoder and by Pillow.

python benchmarks/quality.py DIR [ROUNDS]     DIR: a folder of images, at any depth; 320 of them are read

Both ways look at the same images in turn, and their results are compared.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

from shardkit.images.quality.quality import plain_quality, quality

IMAGES, CHUNK = 320, 16


def main(folder: str, rounds: int) -> None:
    """Measure, and print."""
    paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    step = max(1, len(paths) // IMAGES)
    datas = [path.read_bytes() for path in paths[::step][:IMAGES]]
    spent: dict[str, list[float]] = {"quality": [], "plain_quality": []}
    for _ in range(rounds):
        totals = dict.fromkeys(spent, 0.0)
        for first in range(0, len(datas), CHUNK):
            found = []
            for way in (quality, plain_quality):
                start = time.thread_time()
                found.append([way(data) for data in datas[first : first + CHUNK]])
                totals[way.__name__] += time.thread_time() - start
            assert found[0] == found[1]
        for name, total in totals.items():
            spent[name].append(total)
    size = sum(map(len, datas)) / len(datas) / 1e3
    print(f"{len(datas)} images of {size:.0f} kB, seconds of processor time, median of {rounds} rounds")
    for name, seconds in spent.items():
        print(f"{name}: {len(datas) / statistics.median(seconds):,.0f} images/s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("rounds", nargs="?", type=int, default=5)
    main(**vars(parser.parse_args()))
