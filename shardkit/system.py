"""What operating systems do differently: reading and writing at a place of an open file, whether a process lives,
how much memory there is, and where a user's caches are.

POSIX has `pread` and `pwrite`. Windows has neither; there the place of the file is moved, which one lock protects, and
files must be opened with O_BINARY, so that line ends stay what they are.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Buffer

BINARY = getattr(os, "O_BINARY", 0)
"""A flag for every `os.open` of data: Windows opens files as text without it."""

POSIX = hasattr(os, "fork")
"""Whether a file that is open may be renamed and removed, and descriptors be handed to another process."""

READ_ONLY = os.O_RDONLY | BINARY

_GROUPS = "/sys/fs/cgroup"

_moving = threading.Lock()


def process_times() -> tuple[float, int]:
    """(seconds of the processor that this process used, its page faults that waited for a disk); 0 of what the system
    does not count."""
    try:
        import resource
    except ImportError:  # Windows
        return sum(os.times()[:2]), 0
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime, usage.ru_majflt


def read_at(descriptor: int, count: int, start: int) -> bytes:
    """At most `count` bytes of an open file from `start` on; `b""` at its end. Raises OSError."""
    if hasattr(os, "pread"):
        return os.pread(descriptor, count, start)
    with _moving:
        os.lseek(descriptor, start, os.SEEK_SET)
        return os.read(descriptor, count)


def read_into(descriptor: int, view: memoryview, start: int) -> int:
    """Fill a view with the bytes of an open file from `start` on; returns how many there were. Raises OSError."""
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, [view], start)
    data = read_at(descriptor, len(view), start)
    view[: len(data)] = data
    return len(data)


def write_at(descriptor: int, data: Buffer, start: int) -> int:
    """Write bytes into an open file from `start` on; returns how many were written. Raises OSError."""
    if hasattr(os, "pwrite"):
        return os.pwrite(descriptor, data, start)
    with _moving:
        os.lseek(descriptor, start, os.SEEK_SET)
        return os.write(descriptor, data)


def is_running(process: int) -> bool:
    """Whether there is a process of this number, also one of another user."""
    if os.name == "nt":
        return _is_running_on_windows(process)
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it exists, and belongs to another user
        return True
    return True


@lru_cache(maxsize=1)
def process_space() -> str:
    """What processes have in common that see each other's numbers: on Linux a start of the kernel and a namespace, and
    not the machine's name, which containers may share. Empty if it is not known."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        if sys.platform == "linux":
            return ""
        import platform
        import uuid

        return f"{platform.node()} {uuid.getnode():012x}"


def _is_running_on_windows(process: int) -> bool:
    """There, `os.kill(process, 0)` would send Ctrl-C."""
    import ctypes

    limited_information, still_active, denied = 0x1000, 259, 5
    kernel = ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined, unused-ignore]
    handle = kernel.OpenProcess(limited_information, False, process)
    if not handle:
        return bool(ctypes.get_last_error() == denied)  # type: ignore[attr-defined, unused-ignore]
    code = ctypes.c_ulong()
    known = kernel.GetExitCodeProcess(handle, ctypes.byref(code))
    kernel.CloseHandle(handle)
    return not known or code.value == still_active


def memory_limit() -> int | None:
    """The bytes of memory that this process may use: those of the machine, or fewer if its control group or one above
    it has a limit (a container's, or a job's). None if that is not known."""
    found = []
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for path in _limit_files():
        with suppress(OSError, ValueError), open(path) as file:  # "max", or a group that a container does not see
            found.append(int(file.read()))
    return min((limit for limit in found if limit > 0), default=None)


def _limit_files() -> list[str]:
    """The files with the memory limits of this process's control group and of those above it, of both versions."""
    try:
        with open("/proc/self/cgroup") as file:
            groups = [line.rstrip("\n").split(":", 2) for line in file]
    except OSError:
        return []
    found = []
    for _, controllers, path in (group for group in groups if len(group) == 3):
        if controllers not in ("", "memory"):
            continue
        top, name = (_GROUPS, "memory.max") if controllers == "" else (f"{_GROUPS}/memory", "memory.limit_in_bytes")
        parts = [part for part in path.split("/") if part]
        found += ["/".join([top, *parts[:depth], name]) for depth in range(len(parts) + 1)]
    return found


def cache_home() -> str:
    """The user's cache folder: XDG_CACHE_HOME, or the equivalent on other systems."""
    if os.name == "nt":
        return os.environ.get("LOCALAPPDATA") or os.path.expanduser("~")
    if sys.platform == "darwin":
        return os.path.expanduser("~/Library/Caches")
    return os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
