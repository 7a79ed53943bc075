#!/usr/bin/env python3
"""What seek points save: processor time for each image with and without them, and what they take.

python benchmarks/seek.py DIR [ROUNDS]     DIR: a folder of JPEGs, at any depth; 320 of them are read

Both ways decode the same 16 images with the same crops in turn, and their pixels are compared.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np

from shardkit.checksums import crc32c
from shardkit.images.decoder import DecodeOptions, ImageDecoder
from shardkit.images.options import Crop
from shardkit.shards.seek import seek_points

IMAGES, CHUNK, SIZE = 320, 16, 224


def compare(datas: list[bytes], points: list[bytes | None], crop: Crop, rounds: int) -> str:
    decoder = ImageDecoder(DecodeOptions(size=SIZE, crop=crop, flip=True))
    outs = [np.empty((CHUNK, SIZE, SIZE, 3), np.uint8) for _ in range(2)]
    totals, ratios = np.zeros(2), []
    for number in range(rounds):
        draws, spent = decoder.draws(number, np.arange(len(datas))), np.zeros(2)
        assert draws is not None
        for first in range(0, len(datas), CHUNK):
            part, rows = datas[first : first + CHUNK], np.ascontiguousarray(draws[first : first + CHUNK])
            for way in (0, 1) if (number + first // CHUNK) % 2 else (1, 0):
                start = time.thread_time()
                failed = decoder.batch_into(
                    part, outs[way][: len(part)], rows, points[first : first + CHUNK] if way else None
                )
                spent[way] += time.thread_time() - start
                assert not failed, failed
            assert np.array_equal(outs[0][: len(part)], outs[1][: len(part)])
        totals += spent
        ratios.append(float(spent[0] / spent[1]))
    without, having = totals / rounds / len(datas) * 1e3
    spread = f"{min(ratios):.2f}-{max(ratios):.2f}"
    return f"{crop}: {without:.3f} ms without, {having:.3f} ms with points: {statistics.median(ratios):.2f} ({spread})"


def main(folder: str, rounds: int) -> None:
    """Measure, and print."""
    paths = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    step = max(1, len(paths) // IMAGES)
    datas = [path.read_bytes() for path in paths[::step][:IMAGES]]
    start = time.thread_time()
    points = [seek_points(data, crc32c(data)) or None for data in datas]
    spent = (time.thread_time() - start) / len(datas) * 1e3
    share = sum(len(each or b"") for each in points) / sum(map(len, datas))
    print(f"{len(datas)} images, {points.count(None)} without points; {share:.2%} of the bytes; {spent:.2f} ms to find")
    for crop in ("random", "center"):
        print(compare(datas, points, crop, rounds))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("rounds", nargs="?", type=int, default=7)
    main(**vars(parser.parse_args()))
