"""What corrections cost: relabelling, adding fields, reading through an overlay, and comparing versions.

    python benchmarks/corrections.py relabel [--samples 1000000]     seconds and bytes written for 1 % of the samples
    python benchmarks/corrections.py fields [--samples 1000000]      the same for fields of 1 % and of all samples, and
                                                                     seconds of `where()` with them
    python benchmarks/corrections.py diff [--samples 10000000]       seconds for two versions, each with 1 % corrected
    python benchmarks/corrections.py read [--data DIR] [--rounds 15] reading speed with an overlay, as a share of that
                                                                     without, by CPU time, in turns

The datasets of the first three have a manifest and an index, and shards without content: nothing of theirs is read.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import shardkit
from shardkit.checksums import crc32c
from shardkit.shards.index import ShardRows, index_writer
from shardkit.shards.manifest import ClassEntry, IndexEntry, Manifest, ShardEntry, encode_manifest

SHARD = 1000
CLASSES = 1000
SHARE = 100


def made(folder: Path, samples: int) -> str:
    """A dataset of empty promises: an index and a manifest of shards with 1,000 samples each."""
    base = folder / "train"
    count = samples // SHARD
    names = [f"train-{number:06}.tar" for number in range(count)]
    labels = np.random.default_rng(0).integers(0, CLASSES, samples)
    ones = np.arange(SHARD, dtype=np.int64)
    with open(f"{base}.parquet", "wb") as file, index_writer(file) as write:
        for number, name in enumerate(names):
            first = number * SHARD
            keys = [f"class{label:04}/{row:08}" for row, label in enumerate(labels[first : first + SHARD], first)]
            numbers = {
                "label": labels[first : first + SHARD], "offset": ones * 2048, "size": ones * 0 + 2048,
                "image_offset": ones * 2048 + 512, "image_size": ones * 0 + 500, "width": ones * 0 + 32,
                "height": ones * 0 + 32, "crc32c": ones * 0 + 1,
            }  # fmt: skip
            write(ShardRows(name, keys, [f"{key}.jpg" for key in keys], numbers))
    data = Path(f"{base}.parquet").read_bytes()
    counts = np.bincount(labels, minlength=CLASSES).tolist()
    shards = tuple(ShardEntry(name, SHARD, SHARD * 2048 + 1024, "00000000") for name in names)
    manifest = Manifest(
        samples=samples, bytes=sum(shard.bytes for shard in shards),
        classes=tuple(ClassEntry(f"class{label:04}", n) for label, n in enumerate(counts)), fields=("cls", "jpg"),
        shards=shards, index=(IndexEntry("train.parquet", count, len(data), f"{crc32c(data):08x}"),), plan="00",
    )  # fmt: skip
    Path(f"{base}.json").write_bytes(encode_manifest(manifest))
    return str(base)


def corrections(samples: int, seed: int) -> dict[str, list[object]]:
    """A list of 1 % of the samples, each with another label."""
    labels = np.random.default_rng(0).integers(0, CLASSES, samples)
    rows = np.random.default_rng(seed).choice(samples, samples // SHARE, replace=False)
    keys: list[object] = [f"class{labels[row]:04}/{row:08}" for row in rows.tolist()]
    return {"key": keys, "label": [f"class{(labels[row] + 1) % CLASSES:04}" for row in rows.tolist()]}


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """(wall seconds, CPU seconds) of a call."""
    begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    work()
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - begun, cpu


def relabel(folder: Path, samples: int) -> None:
    """Relabel 1 % of the samples, from a CSV file."""
    run("relabel", folder, made(folder, samples), corrections(samples, 1), samples)


def add_fields(folder: Path, samples: int) -> None:
    """Give 1 % of the samples a value, then all of them one of another field, and select by it."""
    import pyarrow.compute as pc

    base = made(folder, samples)
    labels, chance = np.random.default_rng(0).integers(0, CLASSES, samples), np.random.default_rng(1)
    for name, count in (("age", samples // SHARE), ("score", samples)):
        chosen = np.sort(chance.choice(samples, count, replace=False)).tolist()
        keys: list[object] = [f"class{labels[row]:04}/{row:08}" for row in chosen]
        values = chance.integers(0, 100, count) if name == "age" else chance.random(count).round(4)
        run("add-fields", folder, base, {"key": keys, name: values.tolist()}, samples)
    for name, above in (("age", 50), ("score", 0.5)):
        found = list[int]()
        seconds, cpu = timed(lambda: found.append(len(shardkit.dataset(base).where(pc.field(name) > above))))  # noqa: B023
        print(f"where({name} > {above}): {found[0]:,} samples in {seconds:.2f} s, {cpu:.2f} s of CPU")


def run(name: str, folder: Path, base: str, wanted: dict[str, list[object]], samples: int) -> None:
    """Run a command with a CSV file in a fresh process."""
    import csv
    import json
    import subprocess

    with open(folder / "list.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(wanted)
        rows.writerows(zip(*wanted.values(), strict=True))
    before = set(os.listdir(folder))
    command = [sys.executable, "-m", "shardkit", name, base, str(folder / "list.csv"), "--json"]
    begun, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    said = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    print(f"{name} {said['changed']:,} of {samples:,}: {time.perf_counter() - begun:.2f} s, {cpu:.2f} s of CPU, ")
    sizes = {name: os.path.getsize(folder / name) for name in sorted({*os.listdir(folder)} - before)}
    print(f"{said['bytes']:,} bytes written; new files: {sizes}")


def compare(folder: Path, samples: int) -> None:
    """Compare version 1 with one in which 1 % are corrected, and that with another one."""
    base = made(folder, samples)
    shardkit.relabel(base, corrections(samples, 1))
    shardkit.relabel(base, corrections(samples, 2))
    for one, other in (("1", "2"), ("2", "3"), ("1", "3")):
        compare_two(f"{base}@{one}", f"{base}@{other}")


def compare_two(one: str, other: str) -> None:
    """Compare two versions: the counts, then the table of the samples."""
    found: list[shardkit.Difference] = []
    seconds, cpu = timed(lambda: found.append(shardkit.diff(one, other)))
    table, more = timed(lambda: found[0].table)
    print(f"diff of versions {found[0].before} and {found[0].after}: {found[0].relabelled:,} relabelled; counts in "
          f"{seconds:.2f} s ({cpu:.2f} s of CPU), then the table in {table:.2f} s ({more:.2f} s of CPU)")  # fmt: skip


def read(folder: Path, data: str, rounds: int) -> None:
    """Read a packed dataset without and with an overlay that corrects 1 % of the samples, in turns."""
    packed, base = shardkit.pack(data, folder / "train", workers=2), str(folder / "train")
    del packed
    keys = np.random.default_rng(0).permutation(shardkit.dataset(base).keys)
    some = keys[: max(2, len(keys) // SHARE)].tolist()
    shardkit.relabel(base, dict.fromkeys(some[1:], 0))
    shardkit.delete(base, some[:1])
    ways: dict[str, Callable[[str], object]] = {
        "encoded images": lambda name: sum(1 for _ in shardkit.dataset(name, shuffle=10_000)),
        "batches": lambda name: sum(
            len(labels) for _, labels in shardkit.dataset(name, shuffle=10_000).decode(size=32).batch(64)
        ),
    }
    for what, work in ways.items():
        ratios: list[float] = []
        for turn in range(rounds):
            spent = {}
            for name in (f"{base}@1", base) if turn % 2 else (base, f"{base}@1"):
                spent[name] = timed(lambda name=name, work=work: work(name))[1]  # type: ignore[misc]
            ratios.append(spent[f"{base}@1"] / spent[base])
        low, middle, high = np.percentile(ratios, [25, 50, 75])
        print(f"{what}: speed with an overlay {middle:.3f} of that without (quartiles {low:.3f} to {high:.3f}, "
              f"{rounds} rounds; CPU time of {spent[base]:.2f} s)")  # fmt: skip
        assert statistics.median(ratios) > 0


def main() -> None:
    """Run one of the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["relabel", "fields", "diff", "read"])
    parser.add_argument("--samples", type=int)
    parser.add_argument("--data", default="/tmp/data-cache/cifar10/train")
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="corrections-"))
    try:
        if given.what == "relabel":
            relabel(folder, given.samples or 1_000_000)
        elif given.what == "fields":
            add_fields(folder, given.samples or 1_000_000)
        elif given.what == "diff":
            compare(folder, given.samples or 10_000_000)
        else:
            read(folder, given.data, given.rounds)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
