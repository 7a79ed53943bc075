"""The spool: one file with the unpacked members of an archive that can only be read from front to back.

In a gzip, bzip2, xz or zstd stream a member can be reached only through everything before it, and in a solid 7z
archive only through its block; shuffled packing needs members in another order. So they are unpacked once, in one
pass, into one file in the work folder. It takes as many bytes as the members have, all workers read it at random, and
it is removed at the end of the run, even if the run fails. No member ever becomes a file of its own.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from shardkit.errors import SourceError, StorageError
from shardkit.sample import fs_text
from shardkit.sources.archives import seven_zip, tar
from shardkit.sources.archives.members import Members
from shardkit.storage.files import translated
from shardkit.storage.parts import PART
from shardkit.system import write_at
from shardkit.units import format_bytes

_log = logging.getLogger(__name__)

NAME = f"members{PART}"
"""The spool's name in the work folder; at the end of a run, all files with this suffix are removed."""

_CHUNK = 1 << 20
Rows = NDArray[np.int64]


def spool_members(path: str, kind: str, members: Members, rows: Rows, work: str) -> tuple[str, Rows]:
    """Unpack the members `rows` of an archive. Returns the spool's path, and the byte where each member begins in it.

    Raises SourceError if the archive has changed since the scan, StorageError if the disk is too full.
    """
    chosen = np.unique(rows)
    starts = np.full(len(members.names), -1, np.int64)
    first, sources = np.unique(members.offsets[chosen], return_inverse=True)  # a hard link shares its target's data
    sizes = np.zeros(len(first), np.int64)
    sizes[sources] = members.sizes[chosen]
    places = np.concatenate([[0], np.cumsum(sizes)])
    starts[chosen] = places[sources]
    total = int(places[-1])
    spool = os.path.join(work, NAME)
    _require_room(work, total, path)
    what = "has no random access: its files are first unpacked into one temporary file, which is removed at the end"
    _log.info("%s %s (%s)", fs_text(path), what, format_bytes(total))
    with translated(spool), open(spool, "wb", buffering=0) as file:
        fd = file.fileno()

        def write(at: int, data: bytes) -> None:
            with translated(spool):
                while data:
                    done = write_at(fd, data, at)
                    at, data = at + done, data[done:]

        os.truncate(fd, total)
        if kind == "7z":
            names = members.names.take(chosen)
            wanted = {
                os.fsdecode(name): (int(start), int(size))
                for name, start, size in zip(names, starts[chosen], members.sizes[chosen], strict=True)
            }
            seven_zip.unpack_seven(path, wanted, write)
        else:
            _unpack_tar(path, kind, first, sizes, write)
    return spool, starts


def _unpack_tar(path: str, kind: str, offsets: Rows, sizes: Rows, write: Callable[[int, bytes], None]) -> None:
    """Write the data that begins at each of `offsets` in the unpacked tar, one after the other."""
    place, at = fs_text(path), 0
    wanted = zip(offsets.tolist(), sizes.tolist(), strict=True)
    offset, size = next(wanted, (-1, 0))
    with tar.open_tar(path, kind) as source:
        for entry in tar.entries(source, place):
            if entry.data != offset or entry.size != size or entry.type != b"0":
                continue
            left = size
            while left and (data := source.take(min(left, _CHUNK))):
                write(at, data)
                at, left = at + len(data), left - len(data)
            offset, size = next(wanted, (-1, 0))
            if offset < 0:
                return
    if offset >= 0:
        raise SourceError(place, "it has changed since the scan", "run again when nothing is changing it")


def _require_room(work: str, size: int, path: str) -> None:
    import shutil

    with translated(work):
        free = shutil.disk_usage(work).free
    if free < size:
        fact = f"packing {fs_text(path)} needs {format_bytes(size)} here, and {format_bytes(free)} are free"
        raise StorageError(fs_text(work), fact, "free some space, or convert the archive to a zip or a plain tar")
