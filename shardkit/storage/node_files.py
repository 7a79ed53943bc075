"""Files derived from datasets, which the processes of a user on one machine share.

    TMPDIR/shardkit-UID/NAME     the content, then its CRC-32C (4 bytes, little-endian)

A name contains a digest of what the content was made from, so that it never changes. The processes map the file: its
pages are in memory once. Where that is not possible (a full or read-only disk, a folder of another user, Windows), each
process has a copy of its own. Files that nobody opened for KEPT_SECONDS are removed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shardkit.checksums import crc32c
from shardkit.errors import ShardkitError
from shardkit.storage.files import whole_file
from shardkit.storage.mapping import map_file, view_of
from shardkit.storage.parts import remove_abandoned
from shardkit.system import POSIX, READ_ONLY

if TYPE_CHECKING:
    from typing_extensions import Buffer

try:
    import fcntl
except ImportError:  # Windows has no flock
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

KEPT_SECONDS = 7 * 86400.0

WAIT_SECONDS = 600.0
"""How long a process waits for another one that makes the same content, before it makes its own."""

PAUSE_SECONDS = 0.05

OURS = re.compile(r"(labels|keys|manifest)-[\w-]+(\.json)?")
"""The names of such files: others in the folder stay."""

_SUM_BYTES = 4


def shared_array(name: str, dtype: np.dtype[Any], make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
    """The array (n,) that `make` returns: mapped from a file if that is possible, made by one of the processes that ask
    for it at the same time. Read-only then."""
    folder = _folder()
    if folder is None:
        return make()
    with _alone(folder, name):
        found = load(name)
        if found is None:
            made = np.ascontiguousarray(make(), dtype)
            if not save(name, made.data.cast("B")):
                return made
            found = load(name)
            if found is None:
                return made
    return np.frombuffer(found, dtype)


def load(name: str) -> memoryview | None:
    """The content of a file, mapped and checked. None if there is none, or it is damaged."""
    folder = _folder()
    if folder is None:
        return None
    path = os.path.join(folder, name)
    try:
        descriptor = os.open(path, READ_ONLY)
        try:
            size = os.fstat(descriptor).st_size
            data = view_of(map_file(descriptor, size))
        finally:
            os.close(descriptor)
        os.utime(path)
    except OSError:
        return None
    content = data[: max(0, size - _SUM_BYTES)]
    if size < _SUM_BYTES or crc32c(content).to_bytes(_SUM_BYTES, "little") != bytes(data[-_SUM_BYTES:]):
        log.warning("%s: the file is damaged, and is made again", path)
        return None
    return content


def save(name: str, content: Buffer) -> bool:
    """Write a file. Returns False if that is not possible."""
    folder = _folder()
    if folder is None:
        return False
    try:
        _remove_old(folder)
        with whole_file(os.path.join(folder, name), sync=False) as file:
            file.write(content)
            file.write(crc32c(content).to_bytes(_SUM_BYTES, "little"))
    except (OSError, ShardkitError) as exc:
        log.info("%s: can't be written (%s): each process keeps its own copy", os.path.join(folder, name), exc)
        return False
    return True


def _folder() -> str | None:
    """The user's folder; None if there can be none."""
    if not POSIX:
        return None
    path = os.path.join(tempfile.gettempdir(), f"shardkit-{os.getuid()}")
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
        found = os.lstat(path)
    except OSError:
        return None
    own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022
    return path if own else None


@contextlib.contextmanager
def _alone(folder: str, name: str) -> Iterator[None]:
    """A context in which no other process makes the same content; after WAIT_SECONDS, one may."""
    path = os.path.join(folder, f"{name}.lock")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:  # a read-only disk
        yield
        return
    try:
        until = time.monotonic() + WAIT_SECONDS
        while fcntl is not None and time.monotonic() < until:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(PAUSE_SECONDS)
            except OSError:  # a file system without locks
                break
        yield
    finally:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            os.unlink(path)


def _remove_old(folder: str) -> None:
    remove_abandoned(folder)
    before = time.time() - KEPT_SECONDS
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if OURS.fullmatch(entry.name) and entry.stat(follow_symlinks=False).st_mtime < before:
                    os.unlink(entry.path)
