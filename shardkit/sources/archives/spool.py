"""The members of an archive that can only be read from front to back, unpacked into one file: the spool.

A gzip, bzip2, xz or zstd stream has no way to a member but through all that is before it, and a solid 7z archive none
but through its block; a shuffled packing needs them in another order. So they are unpacked once, in one pass, into
one file of the work folder, which takes as many bytes as they have, is read at any byte by all workers, and is gone at
the end of the run, also of one that fails. No member is ever a file of its own.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from shardkit.errors import SourceError, StorageError
from shardkit.sample import fs_text
from shardkit.sources.archives import seven_zip, tar
from shardkit.sources.archives.members import Members
from shardkit.storage.files import translated
from shardkit.storage.parts import PART
from shardkit.units import format_bytes

_log = logging.getLogger(__name__)

NAME = f"members{PART}"
"""What it is called in the work folder; the end of a run removes all that ends so."""

_CHUNK = 1 << 20
Rows = NDArray[np.int64]


def spooled(path: str, kind: str, members: Members, rows: Rows, work: str) -> tuple[str, Rows]:
    """Unpack the members `rows` of an archive. Gives the spool's path, and the byte where each member begins there.

    Raises SourceError where the archive is not what it was at the scan, StorageError where the disk has no room.
    """
    chosen = np.unique(rows)
    starts = np.full(len(members.names), -1, np.int64)
    first, sources = np.unique(members.offsets[chosen], return_inverse=True)  # a hard link has no data of its own
    sizes = np.zeros(len(first), np.int64)
    sizes[sources] = members.sizes[chosen]
    places = np.concatenate([[0], np.cumsum(sizes)])
    starts[chosen] = places[sources]
    total = int(places[-1])
    spool = os.path.join(work, NAME)
    _require_room(work, total, path)
    what = (
        "has no random access: the files that are packed are unpacked first, into one file that is removed at the end"
    )
    _log.info("%s %s (%s)", fs_text(path), what, format_bytes(total))
    with translated(spool), open(spool, "wb", buffering=0) as file:
        fd = file.fileno()

        def write(at: int, data: bytes) -> None:
            with translated(spool):
                while data:
                    done = os.pwrite(fd, data, at)
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
    """Write the data that begin at these bytes of the unpacked tar, one after the other."""
    place, at = fs_text(path), 0
    wanted = zip(offsets.tolist(), sizes.tolist(), strict=True)
    offset, size = next(wanted, (-1, 0))
    with tar.opened(path, kind) as source:
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
        raise SourceError(place, "it was changed since the scan", "run again when nothing is changing it")


def _require_room(work: str, size: int, path: str) -> None:
    with translated(work):
        free = shutil.disk_usage(work).free
    if free < size:
        fact = f"{fs_text(path)} needs {format_bytes(size)} there while it is packed, and {format_bytes(free)} are free"
        raise StorageError(fs_text(work), fact, "free some space, or make a zip or a plain tar of the archive")
