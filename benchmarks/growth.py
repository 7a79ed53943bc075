"""How views of a dataset grow with its rows: processor time, memory at the peak and memory that stays.

    python benchmarks/growth.py --scratch FOLDER [--rows 1000000 10000000] [--per-shard 10000]

Draws manifests and indexes as `shardkit pack` writes them, without any image, then measures each operation in a process
of its own. Memory is of that process, less what it needs to open the dataset; the reserves of Arrow and of the
allocator, about 60 MB, are part of it. The exponent of the growth from n₁ rows to n₂ is log(t₂ / t₁) / log(n₂ / n₁):
1 is linear.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

import shardkit
from shardkit.checksums import crc32c_of_file
from shardkit.errors import NotFoundError
from shardkit.shards.index import ShardRows, write_index
from shardkit.shards.manifest import ClassEntry, IndexEntry, Manifest, ShardEntry, encode_manifest

CLASSES = 1000
IMAGE_BYTES = 100_000
SHARDS_OF_INDEX = 1024
"""The shards that one index file covers, as in `pack`."""


def look_up(data: shardkit.Dataset) -> None:
    """Look up a key that does not exist: the longest search."""
    try:
        _ = data["nobody"]
    except NotFoundError:
        return
    raise AssertionError("the key exists")


OPERATIONS: dict[str, Callable[[shardkit.Dataset], Any]] = {
    "labels": lambda data: data.content.catalog.labels(),
    "class_counts of a view": lambda data: data.select(classes=[1, 2, 3]).class_counts,
    "where": lambda data: data.where(pc.field("width") > 500).rows(),
    "select": lambda data: data.select(classes=[1, 2, 3]).rows(),
    "split": lambda data: data.split({"train": 0.9, "val": 0.1})["train"].rows(),
    "balance": lambda data: data.shuffle(10_000).balance().epoch(0).order,
    "key": look_up,
}


def draw(prefix: Path, rows: int, per_shard: int) -> None:
    """Write the manifest and the index of a dataset with this many rows."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    shards, index, counts = [], [], np.zeros(CLASSES, np.int64)
    numbers = range(-(-rows // per_shard))
    for part, first in enumerate(numbers[::SHARDS_OF_INDEX]):
        own = numbers[first : first + SHARDS_OF_INDEX]
        path = prefix.with_name(f"{prefix.name}.{part:05}.parquet")
        with path.open("wb") as file:
            write_index(file, counted(prefix.name, own, per_shard, shards, counts))
        size = path.stat().st_size
        with path.open("rb") as file:
            index.append(IndexEntry(path.name, len(own), size, f"{crc32c_of_file(file, size):08x}"))
    classes = tuple(ClassEntry(f"n{label:05}", int(count)) for label, count in enumerate(counts))
    total = sum(shard.bytes for shard in shards)
    manifest = Manifest(
        samples=sum(shard.samples for shard in shards), bytes=total, classes=classes, fields=("cls", "jpg"),
        shards=tuple(shards), index=tuple(index), plan="0" * 32,
    )  # fmt: skip
    prefix.with_name(f"{prefix.name}.json").write_bytes(encode_manifest(manifest))


def counted(
    stem: str, numbers: Iterable[int], per_shard: int, shards: list[ShardEntry], counts: NDArray[np.int64]
) -> Iterator[ShardRows]:
    """The index rows of shards with these numbers. Adds their manifest entries to `shards`, and counts their labels."""
    for number in numbers:
        drawn = draw_shard(f"{stem}-{number:06}.tar", number, per_shard)
        counts += np.bincount(drawn.numbers["label"], minlength=CLASSES)
        shards.append(ShardEntry(drawn.shard, len(drawn), int(drawn.numbers["size"].sum()) + 1024, "00000000"))
        yield drawn


def draw_shard(name: str, number: int, rows: int) -> ShardRows:
    """The index rows of one shard."""
    rng = np.random.default_rng(number)
    labels = rng.integers(0, CLASSES, rows)
    sizes = rng.integers(IMAGE_BYTES // 2, IMAGE_BYTES * 3 // 2, rows)
    whole = 512 + (sizes + 511) // 512 * 512 + 1024
    offsets = np.cumsum(whole) - whole
    keys = [f"n{label:05}/{number:06}_{row:06}" for row, label in enumerate(labels.tolist())]
    columns = {
        "label": labels, "offset": offsets, "size": whole, "image_offset": offsets + 512, "image_size": sizes,
        "width": rng.integers(200, 800, rows), "height": rng.integers(200, 800, rows),
        "crc32c": rng.integers(0, 1 << 32, rows),
    }  # fmt: skip
    return ShardRows(name, keys, [f"{key}.jpg" for key in keys], columns)


def memory(what: str) -> int:
    """Bytes of memory of this process: "VmRSS" now, "VmHWM" at the peak. Linux only."""
    found = re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def measure(prefix: str, operation: str) -> dict[str, float]:
    """One operation: seconds of processor time, bytes per row at the peak, and bytes per row that stay."""
    data = shardkit.dataset(prefix)
    rows = data.epoch_samples
    before, begin = memory("VmRSS"), time.process_time()
    kept = OPERATIONS[operation](data)
    seconds = time.process_time() - begin
    peak, after = memory("VmHWM"), memory("VmRSS")
    del kept
    return {"seconds": seconds, "peak": (peak - before) / rows, "kept": (after - before) / rows}


def main() -> None:
    """Draw the datasets, measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--per-shard", type=int, default=10_000)
    parser.add_argument("--measure", nargs=2, metavar=("PREFIX", "OPERATION"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(*options.measure)))
        return
    prefixes = [options.scratch / f"{rows}" / "train" for rows in options.rows]
    for prefix, rows in zip(prefixes, options.rows, strict=True):
        if not prefix.with_name("train.json").exists():
            draw(prefix, rows, options.per_shard)
    print("| operation | rows | processor s | exponent | peak bytes/row | kept bytes/row |\n|---|---|---|---|---|---|")
    for operation in OPERATIONS:
        earlier = None
        for prefix, rows in zip(prefixes, options.rows, strict=True):
            command = [sys.executable, __file__, "--scratch", "-", "--measure", str(prefix), operation]
            with tempfile.TemporaryDirectory(dir=options.scratch) as empty:  # without what another process has shared
                environment = {**os.environ, "TMPDIR": empty}
                done = subprocess.run(command, check=True, capture_output=True, env=environment)
            found = json.loads(done.stdout)
            exponent = "" if earlier is None else f"{slope(earlier, (rows, found['seconds'])):.2f}"
            earlier = rows, found["seconds"]
            figures = f"{found['seconds']:.2f} | {exponent} | {found['peak']:.0f} | {found['kept']:.0f}"
            print(f"| {operation} | {rows:,} | {figures} |", flush=True)


def slope(first: tuple[int, float], second: tuple[int, float]) -> float:
    """The exponent of the growth from one (rows, seconds) to another."""
    return math.log(second[1] / first[1]) / math.log(second[0] / first[0])


if __name__ == "__main__":
    main()
