"""Does `stats()` name the bottleneck? Random set-ups, each with one thing made slow, and what was named for each.

    python benchmarks/bottlenecks.py [--setups 100] [--seed 0] [--seconds 2]

Slow are: the store (`slow+file://` with a bandwidth), the disk (a sleep for the bytes of each read of a mapped shard),
the processor (this process may use one core), a function of map() (a sleep, or work), the loop (a sleep), or too little
is made ahead (ahead=1 or steps that vary, or few small requests to a store that answers late).
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image

import shardkit
from shardkit.reading.blocks.mapped import MappedBytes
from shardkit.storage.stores.slow_and_faulty import _Bandwidth

KINDS = ("store", "disk", "decode", "transform", "step", "buffer")
LEAST_BATCHES = 12


@dataclass
class SetUp:
    """What is read, how, and what the loop does."""

    options: dict[str, Any] = field(default_factory=dict)
    large: bool = False
    far: bool = False
    disk: float = 0.0
    one_core: bool = False
    sample_seconds: float = 0.0
    batch_seconds: float = 0.0
    work: int = 0
    steps: list[float] = field(default_factory=lambda: [0.0])
    batch: int = 32
    size: int = 32


def set_up(kind: str, rng: np.random.Generator) -> SetUp:
    """A random one in which `kind` is the bottleneck."""
    made = SetUp(batch=int(rng.choice([16, 32, 64])), steps=[float(rng.uniform(0, 0.002))])
    made.options = {"shuffle": bool(rng.integers(2)), "threads": int(rng.integers(1, 5))}
    share = float(rng.uniform(0.4, 2.0))
    if kind == "store":
        made.far = True
        rate = float(rng.uniform(1e6, 3e6))
        made.options |= {"storage_options": {"bytes_per_second": rate, "latency_seconds": float(rng.uniform(0, 0.01))}}
        made.options |= {"ahead_bytes": "8MB"} if rng.integers(2) else {}
    elif kind == "disk":
        made.disk = float(rng.uniform(1e6, 4e6))
    elif kind == "decode":
        made.large, made.one_core, made.size, made.batch = True, True, 224, 16
        made.options |= {"threads": int(rng.integers(1, 3))}
    elif kind == "transform":
        how = int(rng.integers(3))
        made.sample_seconds = float(rng.uniform(0.003, 0.01)) * (how == 0)
        made.batch_seconds = float(rng.uniform(0.1, 0.3)) * (how == 1)
        made.work = int(rng.integers(200, 500)) * (how == 2)
    elif kind == "step":
        made.steps = [float(rng.uniform(0.15, 0.3))]
        made.options |= {"threads": 4}
    elif rng.integers(3) == 0:
        made.far = True
        late = float(rng.uniform(0.15, 0.3))
        made.options |= {
            "storage_options": {"latency_seconds": late},
            "ahead_bytes": int(rng.choice([200, 400, 800])) * 1000,
        }
    else:
        made.batch_seconds = float(rng.uniform(0.08, 0.15))
        made.steps = [share * made.batch_seconds]
        made.options |= {"threads": 1 if rng.integers(2) else 2, "ahead": 1}
        if made.options["threads"] == 2:
            made.steps = [0.0] * 7 + [share * 8 * made.batch_seconds]
    return made


def named(made: SetUp, near: dict[bool, str], seconds: float) -> shardkit.Stats:
    """The statistics of some batches."""
    source = f"slow+file://{near[made.large]}" if made.far else near[made.large]
    with ExitStack() as stack:
        if made.disk:
            stack.enter_context(mock.patch.object(MappedBytes, "views", slowed(_Bandwidth(made.disk))))
        if made.one_core:
            before = os.sched_getaffinity(0)
            os.sched_setaffinity(0, {min(before)})
            stack.callback(os.sched_setaffinity, 0, before)
        data: Any = shardkit.dataset(source, **made.options).decode(size=made.size, crop="random")
        if made.sample_seconds or made.work:
            data = data.map(lambda sample: work(sample, made))
        data = data.batch(made.batch)
        if made.batch_seconds:
            data = data.map(lambda batch: (time.sleep(made.batch_seconds), batch)[1])
        data = data.repeat()
        ends = None
        for count, (_, step) in enumerate(zip(data, cycle(made.steps), strict=False)):
            ends = ends or time.monotonic() + seconds
            time.sleep(step)
            if time.monotonic() > ends and count >= LEAST_BATCHES:
                break
        return data.stats()


def work(sample: Any, made: SetUp) -> Any:
    """A function of a sample that takes long."""
    time.sleep(made.sample_seconds)
    for _ in range(made.work):
        np.sort(sample["jpg"], axis=None)
    return sample


def slowed(bandwidth: _Bandwidth) -> Callable[..., Any]:
    """`MappedBytes.views` of a disk with this bandwidth."""
    views = MappedBytes.views

    def slow(self: MappedBytes, begin: int, end: int) -> list[memoryview]:
        found = views(self, begin, end)
        bandwidth.take(sum(map(len, found)))
        return found

    return slow


def drawn(root: Path, name: str, count: int, side: int) -> str:
    """A dataset of noisy images."""
    rng = np.random.default_rng(0)
    small = [jpeg(rng.integers(0, 256, (side, side, 3), np.uint8)) for _ in range(50)]
    shardkit.write(
        ({"__key__": f"{n:06}", "jpg": small[n % 50], "cls": n % 10} for n in range(count)),
        root / name,
        max_bytes="8MB",
    )
    return str(root / name)


def jpeg(pixels: Any) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "JPEG", quality=90)
    return sink.getvalue()


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--setups", type=int, default=100)
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--seconds", type=float, default=2.0)
    options = asked.parse_args()
    rng = np.random.default_rng(options.seed)
    table: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        near = {False: drawn(Path(folder), "small", 3_000, 64), True: drawn(Path(folder), "large", 600, 512)}
        for number in range(options.setups):
            kind = KINDS[number % len(KINDS)]
            made = set_up(kind, rng)
            stats = named(made, near, options.seconds)
            table[kind, stats.bottleneck] += 1
            if kind != stats.bottleneck:
                print(f"{kind}: {made}\n{stats}\n", flush=True)
    names = [*KINDS, *sorted({name for _, name in table} - {*KINDS})]
    print("".join(f"{name:>11}" for name in ("", *names)))
    for kind in KINDS:
        print(f"{kind:>11}" + "".join(f"{table[kind, name]:>11}" for name in names))
    print(f"{sum(table[kind, kind] for kind in KINDS)} of {options.setups} are named right")


if __name__ == "__main__":
    main()
