"""Memory of scan and plan, with a million made-up files in a process of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

MADE_UP = """
import json, sys
import numpy as np
from shardkit.sources import source
from shardkit.sources.tree import walk
from shardkit.packing.plan.plan import ShardNames, plan_shards

FOLDERS, FILES = 1000, 1000

class MadeUp(walk.Walk):
    def class_folders(self):
        return [f"n{number:08d}" for number in range(FOLDERS)]

    def _list(self, path):
        return walk.folder_of(path, {f"{path}_{number:06d}.JPEG": 100_000 + number for number in range(FILES)}), []

def memory(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field))

source.Walk = MadeUp
np.argsort(np.arange(10)), np.random  # what numpy loads late belongs to nobody's files
before = memory("VmRSS")
scanned = source.scan_tree(sys.argv[1])
after_scan = memory("VmHWM")
plan = plan_shards(scanned.sizes + 2048, ShardNames("t", ".tar"), overhead=1024,
                   max_bytes=256_000_000, max_count=None, shuffle=True, seed=0)
n = len(scanned)
print(json.dumps({
    "files": n, "path": int(scanned.paths.offsets[-1]) / n, "shards": len(plan), "last_key": scanned.key(n - 1),
    "kept": (scanned.nbytes + plan.order.nbytes) / n,
    "scan_peak": (after_scan - before) / n, "peak": (memory("VmHWM") - before) / n,
}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux'")
def test_scan_and_plan_take_less_than_120_bytes_for_a_file(tmp_path: Path) -> None:
    run = subprocess.run([sys.executable, "-c", MADE_UP, str(tmp_path)], capture_output=True, text=True, check=True)
    figures = json.loads(run.stdout)
    assert figures["files"] == 1_000_000
    assert figures["path"] == 31
    assert figures["last_key"] == "n00000999/n00000999_000999"
    assert figures["kept"] < 56
    assert figures["peak"] < 120, figures
