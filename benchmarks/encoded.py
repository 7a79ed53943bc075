"""How fast images are handed over undecoded, on one core: `batch(n, encoded=True)` against copies of the same bytes.

    python benchmarks/encoded.py PREFIX [--batch 256] [--rounds 7]

Processor time, the contestants in turns, medians; the last column is the median of the ratios to `memcpy` within a
round. `data` and `views` check each image's CRC-32C, except in the rows without check (`verify=False`).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import shardkit


def contestants(prefix: str, size: int) -> tuple[dict[str, Callable[[], int]], int]:
    """Functions that go through all images once, and the bytes of these."""

    def batches(verify: bool | None) -> Any:
        return shardkit.dataset(prefix, shuffle=10_000, seed=0, verify=verify).batch(size, encoded=True)

    def through(data: Any, use: Callable[[Any], object]) -> Callable[[], int]:
        def run() -> int:
            images = 0
            for batch in data:
                use(batch)
                images += len(batch)
            return images

        return run

    checked, unchecked = batches(None), batches(False)
    views = [batch.views for batch in batches(False)]
    total = sum(len(view) for some in views for view in some)
    buffer = np.zeros(max(sum(map(len, some)) for some in views), np.uint8)

    def memcpy() -> int:
        for some in views:
            at = 0
            for view in some:
                buffer[at : at + len(view)] = view
                at += len(view)
        return sum(map(len, views))

    return {
        "memcpy": memcpy,
        "one buffer": through(checked, lambda batch: batch.data),
        "views": through(checked, lambda batch: batch.views),
        "one buffer, no check": through(unchecked, lambda batch: batch.data),
        "views, no check": through(unchecked, lambda batch: batch.views),
    }, total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prefix")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    found, total = contestants(options.prefix, options.batch)
    rates: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(options.rounds + 1):
        for name, run in found.items():
            began = time.process_time()
            images = run()
            rates[name].append(images / (time.process_time() - began))
    print(f"{'contestant':24}{'images/s of CPU':>16}{'GB/s':>8}{'x memcpy':>10}")
    for name, rate in rates.items():
        median = statistics.median(rate[1:])
        ratio = statistics.median(a / b for a, b in zip(rate[1:], rates["memcpy"][1:], strict=True))
        print(f"{name:24}{median:16.0f}{median * total / images / 1e9:8.2f}{ratio:10.2f}")


if __name__ == "__main__":
    main()
