"""Names of what killed runs leave."""

from __future__ import annotations

import os
import subprocess
import sys

from shardkit.storage.parts import part_of


def part_of_dead(path: str | os.PathLike[str]) -> str:
    """The temporary name that a process which has ended gave to a file to appear as `path`."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    mine = os.fsdecode(part_of(os.fspath(path)))
    return mine.replace(f"-{os.getpid()}.", f"-{process.pid}.")
