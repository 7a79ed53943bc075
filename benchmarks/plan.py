"""The cost of planning a very large tree: ten million simulated small files, of which only the names exist.

    python benchmarks/plan.py [--files 10000000] [--folder 1000] [--split train=0.9,test=0.1] [--scratch-bytes BYTES]

The names go through the scan like those of a disk (columns, keys, labels), then through the plan as in `pack`: sizes in
a tar shard, permutation, cut, digest; and the first tasks. It measures seconds and the peak memory of the process,
which does nothing else: its own memory, and with it what is mapped from temporary files, which the kernel takes back
when it needs it. Columns larger than --scratch-bytes are in such files.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shardkit.packing.dest.disk import disk_destination
from shardkit.packing.options import make_options
from shardkit.packing.plan.datasets import plan_datasets
from shardkit.packing.settings import PackSettings
from shardkit.sources import scratch, source
from shardkit.sources.tree.walk import Folder, Walk, folder_of

TASKS = 20
"""The tasks that are made: from then on, each one takes what the one before it gave back."""


def made_up(files: int, folder: int) -> type[Walk]:
    """A walk over folders of `folder` files each, of 2 to 10 kB."""

    class MadeUp(Walk):
        def class_folders(self) -> list[str]:
            return [f"n{number:08d}" for number in range(-(-files // folder))]

        def _list(self, path: str) -> tuple[Folder, list[str]]:
            first = int(path[1:]) * folder
            numbers = range(first, min(first + folder, files))
            return folder_of(path, {f"{n:08d}.jpg": 2000 + n * 7919 % 8000 for n in numbers}), []

    return MadeUp


def measured(files: int, folder: int, split: str | None) -> dict[str, Any]:
    """Measure in this process."""
    options = make_options(PackSettings(workers=1, split=split))
    sampler = OwnMemory()
    source.Walk = made_up(files, folder)
    found: dict[str, Any] = {"files": files}
    before, own = peak(), sampler.now()

    def step(name: str, run: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        result = run()
        found[f"{name}_seconds"] = round(time.perf_counter() - began, 2)
        found[f"{name}_peak_mib"] = round(peak() / 2**20)
        return result

    with tempfile.TemporaryDirectory() as root:
        scanned = {"": step("scan", lambda: source.scan_tree(root))}
    names = [""] if options.split is None else options.split.names
    destinations = {name: disk_destination("shards", name or "train") for name in names}
    contents = step("plan", lambda: plan_datasets(scanned, destinations, options, {}, None))
    tasks = next(iter(contents.values())).tasks("work", options)
    step("tasks", lambda: [len(task.samples.keys) for task in itertools.islice(tasks, TASKS)])
    found["shards"] = sum(len(content.plan) for content in contents.values())
    found["bytes_per_file"] = round((peak() - before) / files, 1)
    found["own_peak_mib"] = round(sampler.peak() / 2**20)
    found["own_bytes_per_file"] = round((sampler.peak() - own) / files, 1)
    found["seconds"] = round(sum(value for name, value in found.items() if name.endswith("_seconds")), 2)
    return found


class OwnMemory:
    """The memory of this process without mapped files (RssAnon; elsewhere than on Linux, all of it), sampled."""

    def __init__(self) -> None:
        self._peak = self.now()
        threading.Thread(target=self._watch, daemon=True).start()

    def now(self) -> int:
        """Bytes now."""
        status = Path("/proc/self/status")
        found = re.search(r"RssAnon:\s+(\d+) kB", status.read_text()) if status.exists() else None
        return peak() if found is None else int(found[1]) * 1024

    def peak(self) -> int:
        """The most bytes so far."""
        self._peak = max(self._peak, self.now())
        return self._peak

    def _watch(self) -> None:
        while True:
            self.peak()
            time.sleep(0.005)


def peak() -> int:
    """The peak memory of this process, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=10_000_000)
    parser.add_argument("--folder", type=int, default=1000)
    parser.add_argument("--split")
    parser.add_argument("--scratch-bytes", type=int, default=scratch.SCRATCH_BYTES)
    options = parser.parse_args()
    scratch.SCRATCH_BYTES = options.scratch_bytes
    print(json.dumps(measured(options.files, options.folder, options.split), indent=1))


if __name__ == "__main__":
    main()
