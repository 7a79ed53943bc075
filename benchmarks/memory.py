"""Private memory (USS) of a process and its children, from /proc, measured from outside.

USS is the sum of Private_Clean and Private_Dirty. Mapped data files are excluded: their pages belong to the page cache,
and only look private while no other process maps them.
"""

from __future__ import annotations

import re
from pathlib import Path

AREA = re.compile(r"^[0-9a-f]+-[0-9a-f]+ \S+ [0-9a-f]+ \S+ \d+ *(.*)$")


def private_bytes(pid: int, data: tuple[str, ...]) -> int:
    """USS of a process without mappings of files in the folders `data`; 0 if it has ended."""
    total, counted = 0, True
    try:
        with open(f"/proc/{pid}/smaps", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.startswith("Private_"):
                    total += int(line.split()[1]) * 1024 if counted else 0
                elif match := AREA.match(line):
                    counted = not match[1].startswith(data)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0
    return total


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += map(int, task.read_text().split())
            except OSError:
                continue
    return found


def look(pid: int, data: tuple[str, ...]) -> list[int]:
    """USS in bytes of a process and each of its descendants."""
    return [private_bytes(member, data) for member in family(pid)]
