"""The names of what is being written, and whether its writer still lives: everything that looks for one asks here.

    NAME.MACHINE-PID.part   what is to appear as NAME; MACHINE is a checksum of the host's name, in hex

A run that is killed leaves them. They are removed by the next run that writes to the same folder.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
import zlib
from dataclasses import dataclass

PART = ".part"
ABANDONED_SECONDS = 86400.0
"""The file of another machine, which can't be asked, is left alone until nothing was written to it for so long."""

_MACHINE = f"{zlib.crc32(os.uname().nodename.encode() if hasattr(os, 'uname') else b''):08x}"
_NAME = re.compile(r"(?P<name>.+)\.(?P<machine>[0-9a-f]{8})-(?P<process>\d{1,10})" + re.escape(PART), re.DOTALL)


@dataclass(frozen=True, slots=True)
class Part:
    """What the name of a temporary file tells: the name that it is to get, and who writes it."""

    name: str
    machine: str
    process: int


def part_of(path: str | bytes) -> bytes:
    """The temporary name of this process for a file that is to appear as `path`.

    Machines may share a disk, and have processes of the same number.
    """
    return os.fsencode(path) + os.fsencode(f".{_MACHINE}-{os.getpid()}{PART}")


def part_named(name: str) -> Part | None:
    """What `name`, of a file that is being written, tells. None for any other name."""
    found = _NAME.fullmatch(name)
    return None if found is None else Part(found["name"], found["machine"], int(found["process"]))


def is_part(name: str) -> bool:
    """Whether a file of this name is being written, or was when its writer was killed."""
    return part_named(name) is not None


def is_abandoned(path: str) -> bool:
    """Whether `path` is the temporary file of a process that no longer lives."""
    part = part_named(os.path.basename(path))
    if part is None:
        return False
    if part.machine == _MACHINE:
        return not _lives(part.process)
    try:
        return time.time() - os.lstat(path).st_mtime > ABANDONED_SECONDS
    except FileNotFoundError:
        return False


def remove_abandoned(folder: str) -> None:
    """Remove the temporary files that killed runs left in `folder`. What can't be removed stays."""
    for path in _abandoned(folder):
        with contextlib.suppress(OSError):
            os.unlink(path)


def remove_abandoned_trees(folder: str, name: str) -> None:
    """Remove the temporary folders in `folder` that killed runs were to give this name."""
    for path in _abandoned(folder):
        if os.path.basename(path).startswith(name + ".") and os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path, ignore_errors=True)


def _abandoned(folder: str) -> list[str]:
    with contextlib.suppress(OSError):
        return [path for name in os.listdir(folder) if is_abandoned(path := os.path.join(folder, name))]
    return []


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it is there, and another user's
        return True
    return True
