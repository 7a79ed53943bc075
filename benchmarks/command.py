"""`shardkit pack` as a whole command, from the start of its process to the sync of its files, against GNU tar and sync.

    python benchmarks/command.py data/cifar10/train --repeat 11
    python benchmarks/command.py data/cifar10/train --other ../before    (another checkout too, with its C parts built)

Both are run in turn, each into an empty folder after a sync of the disk. The table has medians of wall and processor
time, and of their ratios to tar's in the same round, and the largest memory of a process. On a busy machine only
processor time and memory mean something.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping

SILENT = (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)
SHARDKIT = [sys.executable, "-P", "-m", "shardkit"]

Measured = tuple[float, float, float]
"""Wall seconds, processor seconds, and the most MiB of memory of a process."""

Way = Callable[[str], Measured]
"""Writes to a folder, and says what that took."""


def timed(commands: list[list[str]], checkout: str = "") -> Measured:
    """(wall seconds, processor seconds, most MiB of memory) of some commands, one after the other.

    checkout: where shardkit is taken from, if not where it is installed.
    """
    environment = os.environ | ({"PYTHONPATH": os.path.abspath(checkout)} if checkout else {})
    os.sync()
    processor = memory = 0.0
    began = time.perf_counter()
    for command in commands:
        _, status, used = os.wait4(os.posix_spawnp(command[0], command, environment, file_actions=[SILENT]), 0)
        if status:
            raise SystemExit(f"{command[0]} failed")
        processor, memory = processor + used.ru_utime + used.ru_stime, max(memory, used.ru_maxrss / 1024)
    return time.perf_counter() - began, processor, memory


def in_turns(ways: Mapping[str, Way], repeat: int, scratch: str | None) -> dict[str, list[Measured]]:
    """What each way takes, in turns, each in an empty folder in `scratch`. A first round, which fills caches, is left
    out."""
    found: dict[str, list[Measured]] = {name: [] for name in ways}
    for number in range(repeat + 1):
        for name, way in ways.items():
            dest = tempfile.mkdtemp(dir=scratch)
            measured = way(dest)
            shutil.rmtree(dest)
            if number:
                found[name].append(measured)
    return found


def print_table(found: Mapping[str, list[Measured]], ratio: str, *, memory: bool) -> None:
    """Medians, with the ratios to the first way in the same round, under the heading `ratio`. memory: also the most,
    which is that of this process where it has more."""
    first, width = next(iter(found.values())), max(map(len, found))
    print(f"{'':{width}} {'wall':>8} {ratio:>6} {'CPU':>8} {ratio:>6}{'    memory' if memory else ''}")
    for name, rounds in found.items():
        columns = []
        for part in (0, 1):
            by = statistics.median(mine[part] / its[part] for mine, its in zip(rounds, first, strict=True))
            columns.append(f"{statistics.median(each[part] for each in rounds):7.3f}s {by:6.2f}")
        if memory:
            columns.append(f"{max(each[2] for each in rounds):5.0f} MiB")
        print(f"{name:{width}} {' '.join(columns)}")


def pack(source: str, checkout: str = "") -> Way:
    """Pack a source. checkout: as for `timed`."""
    return lambda dest: timed([[*SHARDKIT, "pack", source, os.path.join(dest, "x"), "-q"]], checkout)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tree")
    parser.add_argument("--repeat", type=int, default=11)
    parser.add_argument("--scratch", help="a folder on the disk to measure (default: that of temporary files)")
    parser.add_argument("--other", default="", help="another checkout of shardkit, measured in the same rounds")
    options = parser.parse_args()

    def tar(dest: str) -> Measured:
        path = os.path.join(dest, "x.tar")
        return timed([["tar", "cf", path, "-C", options.tree, "."], ["sync", path]])

    ways = {"tar + sync": tar, "shardkit pack": pack(options.tree)}
    if options.other:
        ways["the other"] = pack(options.tree, options.other)
    print_table(in_turns(ways, options.repeat, options.scratch), "x tar", memory=True)


if __name__ == "__main__":
    main()
