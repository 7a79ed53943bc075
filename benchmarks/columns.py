"""What further columns of a list cost: packing and reading with five of them against none, and where() on many rows.

    python benchmarks/columns.py --images TREE --scratch FOLDER [--count 20000] [--repeats 7] [--rows 1000000 10000000]

A and B alternate in one run, each in a process of its own; `where()` also with the statistics of the index, which rule
out shards, switched off. Seconds are of the clock and of the processors (user and
system, with child processes); ratios are medians over the repeats. Both lists have the same field `json`, so that the
shards are equal: the one without columns in the index is packed with `typed_tables` switched off.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

import shardkit
from shardkit.checksums import crc32c_of_file
from shardkit.reading import select
from shardkit.shards.index import ShardRows, write_index
from shardkit.shards.manifest import ClassEntry, IndexEntry, Manifest, ShardEntry, column_options, encode_manifest
from shardkit.sources.lists import rows as lists

COLUMNS = {"age": "int64", "score": "float64", "ok": "bool", "city": "string", "taken": "timestamp"}
INDEX_COLUMNS = {**COLUMNS, "number": "int64"}
"""Of the indexes for `where()`: also one that rises with the rows."""

PER_SHARD, SHARDS_OF_INDEX = 10_000, 1024


def table_of(rows: int, seed: int) -> pa.Table:
    """Five columns of drawn values."""
    rng = np.random.default_rng(seed)
    cities = np.array([f"city {n}" for n in range(200)])
    return pa.table({
        "age": rng.integers(0, 100, rows), "score": rng.random(rows), "ok": rng.random(rows) < 0.5,
        "city": cities[rng.integers(0, 200, rows)],
        "taken": pa.array(rng.integers(0, 1 << 50, rows), pa.timestamp("us")),
    })  # fmt: skip


def draw_list(images: Path, path: Path, count: int) -> None:
    """A CSV of some images of a tree, with five columns."""
    paths = sorted(map(str, images.rglob("*.jpg")))[:count]
    table = table_of(len(paths), 0)
    table = table.add_column(0, "label", pa.array([Path(each).parent.name for each in paths]))
    pyarrow.csv.write_csv(table.add_column(0, "path", pa.array(paths)), path)


def pack(folder: Path, way: str) -> None:
    """Pack the list, with its columns in the index or without."""
    if way == "without":
        lists.typed_tables = lambda found: dict.fromkeys(found)
    shutil.rmtree(folder / way, ignore_errors=True)
    shardkit.pack(folder / "list.csv", folder / way / "train", workers=1)


def read(folder: Path, way: str) -> None:
    """Two epochs of small shuffled batches, of shards that have no field `json`."""
    columns = None if way == "without" else list(COLUMNS)
    data = shardkit.dataset(folder / "plain" / "train", shuffle=10_000).decode(size=32, columns=columns).batch(128)
    for _ in range(2):
        for _batch in data:
            pass


def draw_index(prefix: Path, rows: int) -> None:
    """The manifest and index of a dataset with this many rows and five columns."""
    numbers = range(rows // PER_SHARD)
    shards, index = [], []
    for part, first in enumerate(numbers[::SHARDS_OF_INDEX]):
        own = numbers[first : first + SHARDS_OF_INDEX]
        path = prefix.with_name(f"{prefix.name}.{part:05}.parquet")
        with path.open("wb") as file:
            write_index(
                file, (drawn_rows(f"{prefix.name}-{number:06}.tar", number) for number in own), columns=INDEX_COLUMNS
            )
        size = path.stat().st_size
        with path.open("rb") as file:
            index.append(IndexEntry(path.name, len(own), size, f"{crc32c_of_file(file, size):08x}"))
        shards += [ShardEntry(f"{prefix.name}-{n:06}.tar", PER_SHARD, PER_SHARD * 4096, "00000000") for n in own]
    manifest = Manifest(
        samples=rows, bytes=rows * 4096, classes=(ClassEntry("a", rows),), fields=("cls", "jpg"), shards=tuple(shards),
        index=tuple(index), plan="0" * 32, options=column_options(INDEX_COLUMNS),
    )  # fmt: skip
    prefix.with_name(f"{prefix.name}.json").write_bytes(encode_manifest(manifest))


def drawn_rows(name: str, number: int) -> ShardRows:
    """The index rows of one shard."""
    each = np.arange(PER_SHARD)
    zeros = np.zeros(PER_SHARD, np.int64)
    keys = [f"{number:06}_{row:06}" for row in range(PER_SHARD)]
    numbers = {"label": zeros, "offset": each * 4096, "size": zeros + 4096, "image_offset": each * 4096 + 512,
               "image_size": zeros + 3000, "width": zeros + 64, "height": zeros + 64, "crc32c": each}  # fmt: skip
    columns = table_of(PER_SHARD, number).append_column("number", pa.array(number * PER_SHARD + each))
    return ShardRows(name, keys, [f"{key}.jpg" for key in keys], numbers, columns=columns)


EXPRESSIONS: dict[str, Callable[[], Any]] = {
    "width": lambda: pc.field("width") > 500,
    "age": lambda: pc.field("age") > 90,
    "age and score": lambda: (pc.field("age") > 90) & (pc.field("score") < 0.5),
    "city": lambda: pc.field("city") == "city 7",
    "taken": lambda: pc.field("taken") > pa.scalar(1 << 49, pa.timestamp("us")),
    "number, 1 % of sorted values": lambda: pc.field("number") < 100_000,
    "age, 1 % of unsorted values": lambda: pc.field("age") == 99,
}


def where(prefix: str, name: str, way: str) -> None:
    """One expression over all rows, which rules shards out or reads all."""
    if way == "all":
        select.excluding = lambda *_: lambda groups: [True] * len(groups)
    shardkit.dataset(prefix).where(EXPRESSIONS[name]()).rows()


def measured(*arguments: str) -> dict[str, float]:
    """What this script takes in a process of its own, without its start."""
    done = subprocess.run([sys.executable, __file__, "--one", *arguments], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def one(what: str, *arguments: str) -> None:
    """Run one measurement, and print it."""
    begin, before = time.perf_counter(), _cpu()
    if what == "where":
        where(*arguments)
    else:
        {"pack": pack, "read": read}[what](Path(arguments[0]), arguments[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"wall": time.perf_counter() - begin, "cpu": _cpu() - before, "peak_mb": peak}))


def _cpu() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def compare(what: str, folder: Path, repeats: int) -> None:
    """With columns against without, in turn."""
    pairs = [(measured(what, str(folder), "without"), measured(what, str(folder), "with")) for _ in range(repeats)]
    for kind in ("wall", "cpu"):
        ratio = statistics.median(b[kind] / a[kind] for a, b in pairs)
        a, b = (statistics.median(pair[place][kind] for pair in pairs) for place in (0, 1))
        print(f"{what}: {kind} {a:.2f} s without, {b:.2f} s with five columns; median of the ratios {ratio:.3f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=Path)
    parser.add_argument("--scratch", type=Path)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--rows", type=int, nargs="*", default=[1_000_000, 10_000_000])
    parser.add_argument("--one", nargs="+")
    asked = parser.parse_args()
    if asked.one:
        one(*asked.one)
        return
    asked.scratch.mkdir(parents=True, exist_ok=True)
    if asked.images:
        draw_list(asked.images, asked.scratch / "list.csv", asked.count)
        compare("pack", asked.scratch, asked.repeats)
        shardkit.convert(
            asked.scratch / "with" / "train", asked.scratch / "plain" / "train", drop=["json"], overwrite=True
        )
        compare("read", asked.scratch, asked.repeats)
    for rows in asked.rows:
        prefix = asked.scratch / f"rows-{rows}"
        draw_index(prefix, rows)
        for name in EXPRESSIONS:
            pairs = [[measured("where", str(prefix), name, way) for way in ("all", "ruled out")] for _ in range(3)]
            for way, found in zip(("all read", "by ranges"), zip(*pairs, strict=True), strict=True):
                shown = {kind: statistics.median(each[kind] for each in found) for kind in ("wall", "cpu", "peak_mb")}
                print(f"where({name}) of {rows:,} rows, {way}: {shown['cpu']:.2f} s cpu, {shown['wall']:.2f} s wall, "
                      f"{shown['peak_mb']:.0f} MB at the peak")  # fmt: skip


if __name__ == "__main__":
    main()
