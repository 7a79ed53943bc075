"""The names of temporary files, and whether their writers are still alive: the only place with this rule.

    NAME.MACHINE-PID.part   will be renamed to NAME; MACHINE is a checksum of the host name, in hex

A killed run leaves such files behind. The next run that writes to the same folder removes them.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
import zlib

import msgspec

from shardkit.system import is_running

PART = ".part"
ABANDONED_SECONDS = 86400.0
"""A file from another machine, whose processes can't be checked, is kept until it was not written for this long."""

_MACHINE = f"{zlib.crc32(os.uname().nodename.encode() if hasattr(os, 'uname') else b''):08x}"
_NAME = re.compile(r"(?P<name>.+)\.(?P<machine>[0-9a-f]{8})-(?P<process>\d{1,10})" + re.escape(PART), re.DOTALL)


class Part(msgspec.Struct, frozen=True):
    """The parsed name of a temporary file: its final name, and the machine and process that write it."""

    name: str
    machine: str
    process: int


def part_of(path: str | bytes) -> bytes:
    """The temporary name that this process uses for a file that will appear as `path`.

    It includes the machine, since machines that share a disk may have processes with the same number.
    """
    return os.fsencode(path) + os.fsencode(f".{_MACHINE}-{os.getpid()}{PART}")


def part_named(name: str) -> Part | None:
    """Parse the name of a temporary file. None for any other name."""
    found = _NAME.fullmatch(name)
    return None if found is None else Part(found["name"], found["machine"], int(found["process"]))


def is_part(name: str) -> bool:
    """Whether this is the name of a temporary file, of a running or a killed writer."""
    return part_named(name) is not None


def is_abandoned(path: str) -> bool:
    """Whether `path` is the temporary file of a process that is no longer alive."""
    part = part_named(os.path.basename(path))
    if part is None:
        return False
    if part.machine == _MACHINE:
        return not is_running(part.process)
    try:
        return time.time() - os.lstat(path).st_mtime > ABANDONED_SECONDS
    except FileNotFoundError:
        return False


def remove_abandoned(folder: str) -> None:
    """Remove the temporary files that killed runs left in `folder`. Files that can't be removed stay."""
    for path in _abandoned(folder):
        with contextlib.suppress(OSError):
            os.unlink(path)


def remove_abandoned_trees(folder: str, name: str) -> None:
    """Remove the temporary folders for `name` that killed runs left in `folder`."""
    import shutil

    for path in _abandoned(folder):
        if os.path.basename(path).startswith(name + ".") and os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path, ignore_errors=True)


def _abandoned(folder: str) -> list[str]:
    with contextlib.suppress(OSError):
        return [path for name in os.listdir(folder) if is_abandoned(path := os.path.join(folder, name))]
    return []
