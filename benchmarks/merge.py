"""The cost of committing a very large packing: receipts and index rows of shards that are made up, without any image.

    python benchmarks/merge.py [--rows 1000000 10000000] [--per-shard 10000] [--classes 1000] [--parts 16]

Writes, for each number of rows, what the parts of a packing leave (receipts summed as `pack --part` does, index rows,
records), then merges it in a process of its own. Reports processor seconds, the exponent of their growth, the peak
memory of that process beyond what importing takes, and the size of the records.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np

from shardkit.checksums import crc32c
from shardkit.formats.columns import Strings
from shardkit.location import locate
from shardkit.packing.commit import Planned
from shardkit.packing.dest.disk import disk_destination
from shardkit.packing.parts import names
from shardkit.packing.parts.merge import merge_parts
from shardkit.packing.parts.part import Part
from shardkit.packing.parts.record import PartRecord, encoded_plan, plan_mark, write_record
from shardkit.packing.totals import Totals
from shardkit.packing.write.receipt import COLUMNS, Receipt, Rows
from shardkit.shards.manifest import ShardEntry
from shardkit.version import __version__

IMAGE_BYTES = 100_000


def draw(folder: Path, rows: int, per_shard: int, classes: int, parts: int) -> None:
    """What the parts of a packing leave, without the shards."""
    shared = disk_destination(str(folder), "train").shared
    work = folder / ".train.packing"
    work.mkdir(parents=True)
    shards = [f"train-{number:06}.tar" for number in range(-(-rows // per_shard))]
    what = Planned(
        version=__version__, digest="0" * 32, base="train", shards=shards, shard_format="tar", options={},
        classes=[f"n{label:05}" for label in range(classes)], counts=[1] * classes, label_kind="class",
        label_fields=["cls"], incomplete=[], root="made up", seek_points=False,
    )  # fmt: skip
    (work / names.PLAN).write_bytes(encoded_plan(what))
    for number in range(1, parts + 1):
        totals = Totals()
        for shard in Part(number, parts).share(len(shards)):
            totals.add(draw_shard(work, shards[shard], shard, per_shard, classes))
        write_record(shared, PartRecord(number, parts, plan_mark(encoded_plan(what)), totals))


def draw_shard(work: Path, name: str, number: int, rows: int, classes: int) -> Receipt:
    """The index rows and the receipt of one shard, which itself is a file of its size without content."""
    rng = np.random.default_rng(number)
    labels = rng.integers(0, classes, rows)
    sizes = rng.integers(IMAGE_BYTES // 2, IMAGE_BYTES * 3 // 2, rows)
    whole = 512 + (sizes + 511) // 512 * 512 + 1024
    offsets = np.cumsum(whole) - whole
    sides, crcs = rng.integers(200, 800, (2, rows)), rng.integers(0, 1 << 32, rows)
    columns = (labels, offsets, whole, offsets + 512, sizes, *sides, crcs)
    keys = [f"n{label:05}/{number:06}_{row:06}" for row, label in enumerate(labels.tolist())]
    numbers = {key: column.astype(np.int64).tobytes() for key, column in zip(COLUMNS, columns, strict=True)}
    data = msgspec.msgpack.encode(
        Rows(Strings.of_texts(keys), Strings.of_texts([f"{key}.jpg" for key in keys]), numbers)
    )
    (work / f"{name}.rows").write_bytes(data)
    size = int(whole.sum()) + 1024
    with (work / name).open("wb") as file:
        file.truncate(size)
    counts = dict(enumerate(np.bincount(labels, minlength=classes).tolist()))
    entry = ShardEntry(name, rows, size, "00000000")
    return Receipt("", "header", entry, counts, ["cls", "jpg"], [], {"JPEG jpg": rows}, 0, crc32c(data))


def memory(what: str) -> int:
    """Bytes of memory of this process: "VmRSS" now, "VmHWM" at the peak. Linux only."""
    found = re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def measure(folder: str) -> dict[str, float]:
    """Merge the parts in a folder: seconds of processor time, and bytes of memory."""
    import pyarrow.parquet  # noqa: F401

    before, begin = memory("VmRSS"), time.process_time()
    merge_parts(locate(f"{folder}/train"))
    return {"seconds": time.process_time() - begin, "peak": memory("VmHWM") - before}


def main() -> None:
    """Draw, measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--per-shard", type=int, default=10_000)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--parts", type=int, default=16)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure)))
        return
    print(
        "| rows | shards | processor s | exponent | peak MB | bytes/row | records MB |\n|---|---|---|---|---|---|---|"
    )
    earlier: tuple[int, float] | None = None
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            draw(Path(folder), rows, options.per_shard, options.classes, options.parts)
            size = sum(path.stat().st_size for path in Path(folder, ".train.packing").glob("*.json"))
            command = [sys.executable, __file__, "--measure", folder]
            found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        seconds = found["seconds"]
        slope = "" if earlier is None else f"{math.log(seconds / earlier[1]) / math.log(rows / earlier[0]):.2f}"
        earlier = rows, seconds
        peak = f"{found['peak'] / 1e6:.0f} | {found['peak'] / rows:.1f}"
        print(
            f"| {rows:,} | {-(-rows // options.per_shard):,} | {seconds:.2f} | {slope} | {peak} | {size / 1e6:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
