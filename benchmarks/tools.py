"""Compare verify with `cat` and unpack with `tar x`: `python benchmarks/tools.py PREFIX … [--repeat 7] [--cold]`.

The contestants take turns, A B C A B C …; the output has medians, minimum times and ratios of the medians. verify and
unpack run in this process after their imports (pyarrow among them), cat and tar as separate processes.
"""

from __future__ import annotations

import argparse
import glob
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from statistics import median

import pyarrow.parquet  # noqa: F401  not part of what is measured

from shardkit import unpack, verify


def drop_pages(paths: list[str]) -> None:
    """Evict the files from the page cache, so that they are read from the disk again."""
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)


def cat(shards: list[str]) -> None:
    with open(os.devnull, "wb") as nowhere:
        subprocess.run(["cat", *shards], stdout=nowhere, check=True)


def tar_x(shards: list[str], out: str) -> None:
    os.mkdir(out)
    for shard in shards:
        subprocess.run(["tar", "xf", shard, "-C", out], check=True)


def sound(prefix: str, *, workers: int | None, decode: bool = False) -> None:
    findings = verify(prefix, workers=workers, decode=decode).findings
    if findings:
        sys.exit(f"{prefix} is not sound: {findings[0]}")


def contest(runs: dict[str, Callable[[], object]], before: Callable[[], None], repeat: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeat):
        for name, run in runs.items():
            before()
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return times


def show(title: str, times: dict[str, list[float]], against: str, size: int) -> None:
    print(f"\n{title}")
    base = median(times[against])
    for name, seconds in times.items():
        middle = median(seconds)
        rate = f"{size / middle / 1e9:6.2f} GB/s"
        print(f"  {name:24} {middle:8.3f} s (least {min(seconds):.3f})  {rate}  {base / middle:5.2f} of {against}")


def compare(prefix: str, options: argparse.Namespace) -> None:
    shards = sorted(glob.glob(glob.escape(prefix) + "-*.tar"))
    size = sum(map(os.path.getsize, shards))
    scratch = tempfile.mkdtemp(dir=options.scratch)
    out = os.path.join(scratch, "out")

    def fresh() -> None:
        shutil.rmtree(out, ignore_errors=True)
        if options.cold:
            drop_pages([*shards, f"{prefix}.parquet"])

    checks: dict[str, Callable[[], object]] = {
        "cat": lambda: cat(shards),
        "verify, 1 thread": lambda: sound(prefix, workers=1),
        "verify": lambda: sound(prefix, workers=None),
    }
    if options.decode:
        checks["verify --decode"] = lambda: sound(prefix, workers=None, decode=True)
    trees: dict[str, Callable[[], object]] = {
        "tar x": lambda: tar_x(shards, out),
        "unpack, 1 thread": lambda: unpack(prefix, out, workers=1),
        "unpack": lambda: unpack(prefix, out),
    }
    how = "cold" if options.cold else "warm"
    try:
        cat(shards)
        if "verify" in options.what:
            show(f"{prefix}, {size / 1e6:.0f} MB, {how}", contest(checks, fresh, options.repeat), "cat", size)
        if "unpack" in options.what:
            show(f"{prefix}, {size / 1e6:.0f} MB, {how}", contest(trees, fresh, options.repeat), "tar x", size)
    finally:
        shutil.rmtree(scratch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prefix", nargs="+", help="packed datasets, as shards/train")
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--cold", action="store_true", help="take the shards out of the page cache before each run")
    parser.add_argument("--decode", action="store_true", help="measure verify --decode too")
    parser.add_argument("--what", nargs="+", choices=["verify", "unpack"], default=["verify", "unpack"])
    parser.add_argument("--scratch", help="the folder to unpack in")
    options = parser.parse_args()
    for prefix in options.prefix:
        compare(prefix, options)


if __name__ == "__main__":
    main()
