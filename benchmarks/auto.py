"""Do threads="auto" and ahead="auto" come to the best point of a grid within 20 seconds?

    python benchmarks/auto.py [--setups 12] [--seconds 20] [--point 1]

Twelve set-ups with different limits. For each, the best point of a grid of threads and batches ahead, and the point to
which `auto` came in its 20 seconds; then these two in turns, three times each, so that other programs slow both alike.
The share is the median of the ratios. There is also how often `auto` changed anything in the last quarter of its time,
and the most that was ahead.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from itertools import cycle, islice, pairwise, product
from pathlib import Path
from typing import Any
from unittest import mock

from bottlenecks import SetUp, drawn, slowed, work

import shardkit
from shardkit.reading.blocks.mapped import MappedBytes
from shardkit.storage.stores.slow_and_faulty import _Bandwidth

THREADS = (1, 2, 4, 8, 16)
AHEAD = (1, 4, 16, 64)

SMALL = {"ahead_bytes": "16MB"}
"""Requests of a megabyte: larger ones would arrive too seldom for a rate."""

SETUPS = {
    "decoding": SetUp(large=True, size=224, batch=16),
    "decoding, slow loop": SetUp(large=True, size=64, batch=8, steps=[0.2]),
    "decoding, bursts": SetUp(large=True, size=64, batch=8, steps=[0.0] * 15 + [0.6]),
    "function that sleeps": SetUp(batch_seconds=0.1),
    "function that sleeps, loop": SetUp(batch_seconds=0.1, steps=[0.02]),
    "function of samples that sleeps": SetUp(sample_seconds=0.005, batch=16),
    "function that sleeps, bursts": SetUp(batch_seconds=0.1, steps=[0.0] * 7 + [0.2]),
    "function that sleeps long": SetUp(batch_seconds=0.3, batch=8),
    "function that works": SetUp(work=100, batch=16),
    "slow disk": SetUp(disk=4e6),
    "slow store": SetUp(far=True, options={"shuffle": False, "storage_options": {"bytes_per_second": 8e6}, **SMALL}),
    "late store, function that sleeps": SetUp(
        far=True, batch_seconds=0.05, options={"shuffle": False, "storage_options": {"latency_seconds": 0.05}, **SMALL}
    ),
}


def opened(made: SetUp, near: dict[bool, str], **chosen: Any) -> Any:
    """The batches of a set-up."""
    source = f"slow+file://{near[made.large]}" if made.far else near[made.large]
    data: Any = shardkit.dataset(source, **{"shuffle": True, **made.options, **chosen})
    data = data.decode(size=made.size)
    if made.sample_seconds or made.work:
        data = data.map(lambda sample: work(sample, made))
    data = data.batch(made.batch, drop_last=True)
    if made.batch_seconds:
        data = data.map(lambda batch: (time.sleep(made.batch_seconds), batch)[1])
    return data.repeat()


def times_of(data: Any, made: SetUp, seconds: float) -> Iterator[tuple[float, tuple[int, int]]]:
    """When the loop asked for each batch after the first, and what was set then."""
    begun = None
    for _, step in zip(data, cycle(made.steps), strict=False):
        now = time.perf_counter()
        begun = begun or now
        setting = data.watch.latest.setting
        yield now - begun, (setting.threads, setting.ahead)
        if now - begun > seconds:
            return
        time.sleep(step)


def rate_of(times: list[float], after: float) -> float:
    """Batches a second after that time."""
    kept = [each for each in times if each >= after]
    return (len(kept) - 1) / (kept[-1] - kept[0]) if len(kept) > 1 else 0.0


def rate_at(point: tuple[int, int], made: SetUp, near: dict[bool, str], seconds: float) -> float:
    """Batches a second with these threads and batches ahead."""
    data = opened(made, near, threads=point[0], ahead=point[1])
    return rate_of([at for at, _ in times_of(data, made, seconds)], seconds / 4)


def compared(made: SetUp, near: dict[bool, str], seconds: float, point_seconds: float) -> tuple[Any, ...]:
    """(best point, its rate, that of the point of auto, the share, this point, its late changes, the most ahead)."""
    points = list(product(THREADS, AHEAD))
    random.Random(0).shuffle(points)
    rates = {point: rate_at(point, made, near, point_seconds) for point in points}
    best = max(rates, key=lambda point: rates[point])
    told = list(times_of(opened(made, near, threads="auto", ahead="auto"), made, seconds))
    late = [point for at, point in told if at >= 0.75 * seconds]
    changes = sum(one != other for one, other in pairwise(late))
    pairs = [[rate_at(point, made, near, seconds / 5) for point in (best, late[-1])] for _ in range(3)]
    rate, own = (statistics.median(column) for column in zip(*pairs, strict=True))
    share = statistics.median(mine / max(other, 1e-9) for other, mine in pairs)
    return best, rate, own, share, late[-1], changes, max(point[1] for _, point in told)


def main() -> None:
    """Print a line for each set-up."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--setups", type=int, default=len(SETUPS))
    asked.add_argument("--seconds", type=float, default=20.0)
    asked.add_argument("--point", type=float, default=1.0)
    options = asked.parse_args()
    shares = []
    with tempfile.TemporaryDirectory() as folder:
        near = {False: drawn(Path(folder), "small", 3_000, 64), True: drawn(Path(folder), "large", 600, 512)}
        for name, made in islice(SETUPS.items(), options.setups):
            views = slowed(_Bandwidth(made.disk)) if made.disk else MappedBytes.views
            with mock.patch.object(MappedBytes, "views", views):
                best, rate, own, share, point, changes, most = compared(made, near, options.seconds, options.point)
            shares.append(share)
            print(
                f"{name:34} best {best} {rate:7.1f} batches/s, auto {point} {own:7.1f}: {share:.2f}, "
                f"{changes} changes at the end, {most} ahead at most", flush=True,
            )  # fmt: skip
    print(f"{sum(share >= 0.95 for share in shares)} of {len(shares)} reach 0.95")


if __name__ == "__main__":
    main()
