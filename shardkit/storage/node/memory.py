"""Memory without a name that can't change any more: a sealed file in memory (memfd_create(2), F_ADD_SEALS).

The kernel frees it with the last process that has it open or mapped, however that ends. Sealed, it can be neither
written nor cut, so that a process that maps what another one sent needs no trust in it: a file that is cut while it is
mapped would kill the reader.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from shardkit.storage.mapping import Mapping, map_file

if TYPE_CHECKING:
    from typing_extensions import Buffer

try:
    import fcntl

    SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
except (ImportError, AttributeError):  # Windows, macOS
    fcntl = None  # type: ignore[assignment]
    SEALS = 0

SPARE_FILES = 8
"""Twice so many where a process both serves and made what it serves."""

HAS_SEALS = SEALS != 0 and hasattr(os, "memfd_create")
"""Whether the system has such memory."""


class Memory(msgspec.Struct, frozen=True):
    """Sealed memory that is open here as a descriptor, which `close` closes."""

    descriptor: int
    bytes: int

    @classmethod
    def of(cls, parts: Iterable[Buffer]) -> Memory:
        """Memory with these bytes. Raises OSError where there is not enough, and what `parts` raises."""
        descriptor, size = os.memfd_create("shardkit", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), 0
        try:
            for part in parts:
                with memoryview(part) as whole, whole.cast("B") as view:
                    size += _write(descriptor, view)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, SEALS)
        except BaseException:
            os.close(descriptor)
            raise
        return cls(descriptor, size)

    @classmethod
    def received(cls, descriptor: int, size: int) -> Memory | None:
        """The memory of a descriptor from elsewhere; None if it is not sealed, or not of this size."""
        try:
            sealed = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & SEALS == SEALS
            return cls(descriptor, size) if sealed and os.fstat(descriptor).st_size == size else None
        except OSError:  # not a file in memory
            return None

    def mapped(self, *, writable: bool = False) -> Mapping:
        """Its bytes; the descriptor may be closed. writable: what is written stays in this process. Raises OSError."""
        return map_file(self.descriptor, self.bytes, writable=writable)

    def again(self) -> Memory:
        """The same memory, open once more. Raises OSError."""
        return Memory(os.dup(self.descriptor), self.bytes)

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.descriptor)


def most_files() -> int:
    """How many descriptors a process keeps for others at most: one in SPARE_FILES of those that it may have open."""
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (1 << 20 if soft == resource.RLIM_INFINITY else soft) // SPARE_FILES


def _write(descriptor: int, view: memoryview) -> int:
    """Write, never through a mapping: there, a lack of memory would kill the process."""
    done = 0
    while done < len(view):
        done += os.write(descriptor, view[done:])
    return done
