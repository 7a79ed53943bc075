"""What a rank needs at internet size, simulated: 10^9 samples in 10^5 shards, 10^3 ranks.

    python benchmarks/scale.py [--samples 1000000000] [--shards 100000] [--ranks 1000]

Measures, each in a fresh process: the time and memory to compute the epoch's order and find the first batch; to resume
in the middle; and to merge the lanes, per sample. No file is read: a rank reads from the index one row group per shard
in use, which run.py measures.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time

import numpy as np

from shardkit.reading.order.epoch_order import EpochOrder
from shardkit.reading.order.share import Share

MEASURES = ("start", "resume", "merge")


def measure(what: str, samples: int, shards: int, ranks: int) -> str:
    """One line of the table."""
    counts = np.full(shards, samples // shards, np.int64)
    begin = time.perf_counter()
    order = EpochOrder(counts, buffer=1_000_000, seed=0, epoch=1, lanes=ranks)
    share = Share(0, order.samples, rank=ranks // 3, world_size=ranks, remainder="drop")
    numbers = np.arange(256) + (len(share) // 2 if what != "start" else 0)
    share.rows(order, numbers)
    if what == "merge":
        begin = time.perf_counter()
        turns = 200
        for turn in range(turns):
            share.rows(order, numbers + (turn + 1) * 256)
        nanoseconds = (time.perf_counter() - begin) / (turns * 256) * 1e9
        return f"order of one sample, in sequence: {nanoseconds:,.0f} ns"
    seconds = time.perf_counter() - begin
    mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return f"{what}: first 256 samples known after {seconds * 1e3:,.1f} ms, peak memory of the process {mib:,.0f} MiB"


def main() -> None:
    """Run each measurement in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=1_000_000_000)
    parser.add_argument("--shards", type=int, default=100_000)
    parser.add_argument("--ranks", type=int, default=1_000)
    parser.add_argument("--measure", choices=MEASURES)
    options = parser.parse_args()
    if options.measure:
        print(measure(options.measure, options.samples, options.shards, options.ranks))
        return
    size = [f"--{name}={getattr(options, name)}" for name in ("samples", "shards", "ranks")]
    for name in MEASURES:
        subprocess.run([sys.executable, __file__, "--measure", name, *size], check=True)


if __name__ == "__main__":
    main()
