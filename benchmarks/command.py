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

SILENT = (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)
SHARDKIT = [sys.executable, "-P", "-m", "shardkit"]


def timed(commands: list[list[str]], checkout: str = "") -> tuple[float, float, float]:
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


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tree")
    parser.add_argument("--repeat", type=int, default=11)
    parser.add_argument("--scratch", help="a folder on the disk to measure (default: that of temporary files)")
    parser.add_argument("--other", default="", help="another checkout of shardkit, measured in the same rounds")
    options = parser.parse_args()
    rounds: dict[str, list[tuple[float, float, float]]] = {"tar + sync": [], "shardkit pack": []}
    if options.other:
        rounds["the other"] = []
    for number in range(options.repeat + 1):  # the first round fills caches
        for name, found in rounds.items():
            dest = tempfile.mkdtemp(dir=options.scratch)
            tar = os.path.join(dest, "x.tar")
            commands = [["tar", "cf", tar, "-C", options.tree, "."], ["sync", tar]]
            if name != "tar + sync":
                commands = [[*SHARDKIT, "pack", options.tree, os.path.join(dest, "x"), "-q"]]
            measured = timed(commands, options.other if name == "the other" else "")
            shutil.rmtree(dest)
            if number:
                found.append(measured)
    of_tar = rounds["tar + sync"]
    print(f"{'':14} {'wall':>8} {'x tar':>6} {'CPU':>8} {'x tar':>6} {'memory':>9}")
    for name, found in rounds.items():
        columns = []
        for part in (0, 1):
            ratio = statistics.median(mine[part] / his[part] for mine, his in zip(found, of_tar, strict=True))
            columns.append(f"{statistics.median(each[part] for each in found):7.3f}s {ratio:6.2f}")
        print(f"{name:14} {' '.join(columns)} {max(each[2] for each in found):5.0f} MiB")


if __name__ == "__main__":
    main()
