"""`shardkit pack` as a whole command, from the start of its process to the sync of its files, against GNU tar and sync.

    python benchmarks/command.py data/cifar10/train --repeat 11

Both are run in turn, each into an empty folder after a sync of the disk. The table has medians of wall and processor
time, and of their ratios to tar's in the same round. On a busy machine only processor time means something.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time


def timed(commands: list[list[str]]) -> tuple[float, float]:
    """(wall seconds, processor seconds) of some commands, one after the other."""
    os.sync()
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    for command in commands:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tree")
    parser.add_argument("--repeat", type=int, default=11)
    parser.add_argument("--scratch", help="a folder on the disk to measure (default: that of temporary files)")
    options = parser.parse_args()
    rounds: dict[str, list[tuple[float, float]]] = {"tar + sync": [], "shardkit pack": []}
    for number in range(options.repeat + 1):  # the first round fills caches
        for name, found in rounds.items():
            dest = tempfile.mkdtemp(dir=options.scratch)
            tar = os.path.join(dest, "x.tar")
            commands = [["tar", "cf", tar, "-C", options.tree, "."], ["sync", tar]]
            if name == "shardkit pack":
                commands = [[sys.executable, "-m", "shardkit", "pack", options.tree, os.path.join(dest, "x"), "-q"]]
            measured = timed(commands)
            shutil.rmtree(dest)
            if number:
                found.append(measured)
    of_tar = rounds["tar + sync"]
    print(f"{'':14} {'wall':>8} {'x tar':>6} {'CPU':>8} {'x tar':>6}")
    for name, found in rounds.items():
        columns = []
        for part in (0, 1):
            ratio = statistics.median(mine[part] / his[part] for mine, his in zip(found, of_tar, strict=True))
            columns.append(f"{statistics.median(each[part] for each in found):7.3f}s {ratio:6.2f}")
        print(f"{name:14} {' '.join(columns)}")


if __name__ == "__main__":
    main()
