"""What operating systems tell of this machine."""

from __future__ import annotations

import builtins
import io
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from shardkit import system
from shardkit.storage.node import client

GIB = 1 << 30


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets the control groups of this process: what /proc/self/cgroup says, and the files of limits."""

    def set_groups(text: str, limits: dict[str, str]) -> None:
        for name, limit in limits.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(limit)
        real = builtins.open

        def opened(path: Any, *rest: Any, **options: Any) -> Any:
            return io.StringIO(text) if path == "/proc/self/cgroup" else real(path, *rest, **options)

        monkeypatch.setattr(builtins, "open", opened)
        monkeypatch.setattr(system, "_GROUPS", str(tmp_path))
        monkeypatch.setattr(os, "sysconf", lambda name: {"SC_PHYS_PAGES": 16 * GIB // 4096, "SC_PAGE_SIZE": 4096}[name])

    return set_groups


@pytest.mark.skipif(sys.platform != "linux", reason="control groups are Linux'")
@pytest.mark.parametrize(
    ("text", "limits", "expected"),
    [
        ("0::/\n", {"memory.max": f"{4 * GIB}\n"}, 4 * GIB),
        (
            "0::/job/step\n",
            {"memory.max": "max", "job/memory.max": f"{2 * GIB}\n", "job/step/memory.max": "max\n"},
            2 * GIB,
        ),
        ("9:cpu:/x\n4:memory:/docker/1\n0::/\n", {"memory/memory.limit_in_bytes": f"{3 * GIB}"}, 3 * GIB),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712"}, 16 * GIB),
        ("0::/none\n", {}, 16 * GIB),
        ("damaged\n", {"memory.max": "1"}, 16 * GIB),
    ],
    ids=["container", "job", "version 1", "no limit in version 1", "no group", "unknown form"],
)
def test_the_memory_limit_is_the_lowest_of_the_groups_and_the_machine(
    text: str, limits: dict[str, str], expected: int, groups: Any
) -> None:
    groups(text, limits)
    assert system.memory_limit() == expected


@pytest.mark.skipif(sys.platform != "linux", reason="control groups are Linux'")
def test_what_processes_share_is_a_part_of_the_memory_limit(groups: Any) -> None:
    groups("0::/\n", {"memory.max": str(2 * GIB)})
    assert client.most_memory() == 2 * GIB // client.MEMORY_PARTS
    groups("0::/\n", {"memory.max": str(16 * GIB)})
    assert client.most_memory() == client.MEMORY_BYTES


def test_a_system_that_tells_nothing_has_no_known_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "_limit_files", list)
    monkeypatch.delattr(os, "sysconf", raising=False)
    assert system.memory_limit() is None
    assert client.most_memory() == client.MEMORY_BYTES
