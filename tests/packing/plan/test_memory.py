"""Memory of scan, splits and plan for each of many files, of which only the names are there."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parent.parent.parent.parent / "benchmarks" / "plan.py"


@pytest.mark.skipif(importlib.util.find_spec("resource") is None, reason="the system does not tell a process's memory")
@pytest.mark.parametrize("split", [[], ["--split", "train=0.9,test=0.1"]], ids=["whole", "split"])
def test_a_plan_takes_less_than_200_bytes_for_a_file(
    split: list[str], run_python: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """Ten million files then take less than 2 GB."""
    found = json.loads(run_python(str(BENCHMARK), "--files", "200000", *split, cwd=tmp_path).stdout)
    assert found["files"] == 200_000
    assert found["shards"] >= 6
    assert found["bytes_per_file"] < 200, found


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux'")
def test_columns_in_files_take_less_than_16_bytes_of_memory_for_each_further_file(
    run_python: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """A billion files then take less than 16 GB, besides what is mapped from files, which the kernel takes back."""

    def own_memory(files: int) -> int:
        given = ("--files", str(files), "--scratch-bytes", "1000000")
        found = json.loads(run_python(str(BENCHMARK), *given, cwd=tmp_path, TMPDIR=str(tmp_path)).stdout)
        assert found["files"] == files
        return int(found["own_peak_mib"]) << 20

    few, many = 1_000_000, 3_000_000
    assert own_memory(many) - own_memory(few) < 16 * (many - few)
