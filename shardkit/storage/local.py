"""The local file system: what appears under a final name is whole and on the disk."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from typing import BinaryIO

from shardkit.errors import BusyError, DestinationError, ShardkitError, StorageError
from shardkit.sample import fs_text

try:
    import fcntl
except ImportError:  # Windows has no flock
    fcntl = None  # type: ignore[assignment]


def storage_error(path: str | bytes, exc: OSError) -> ShardkitError:
    """The error of shardkit for an OSError at `path`, with the cure for the usual ones."""
    place, fact = fs_text(path), exc.strerror or str(exc)
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(place, fact, "free some space and run the same command again: what is finished is kept")
    if exc.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return DestinationError(place, f"not writable ({fact})", "choose another destination, or change its rights")
    if exc.errno in (errno.ENOTDIR, errno.EEXIST):
        return DestinationError(place, f"a file is in the way ({fact})", "choose another destination")
    return StorageError(place, fact, "check the disk and its rights, then run the same command again")


@contextlib.contextmanager
def translated(path: str | bytes) -> Iterator[None]:
    """Turns an OSError of the block into the error of shardkit for `path`."""
    try:
        yield
    except OSError as exc:
        raise storage_error(path, exc) from exc


@contextlib.contextmanager
def whole_file(path: str) -> Iterator[BinaryIO]:
    """A new file for writing that appears as `path` only on a clean exit of the block, flushed to the disk.

    Any exception, Ctrl-C included, leaves what was at `path` before. Raises DestinationError or StorageError.
    """
    part = f"{path}.{os.getpid()}.part"
    try:
        with translated(path), open(part, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        with translated(path):
            os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise


def sync_folder(path: str) -> None:
    """Flush the folder's entries to the disk, so that renames in it outlast a crash."""
    if os.name == "nt":
        return  # a folder can't be opened there; NTFS journals its entries
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError as exc:
        if exc.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems can't
            raise
    finally:
        os.close(fd)


class FolderLock:
    """An exclusive lock on a folder, held by an open file; the system lets go of it when the last holder dies.

    `fd` may be passed to worker processes, which then hold it too, so that a new run waits for orphans to end.
    """

    def __init__(self, folder: str) -> None:
        """Takes the lock. Raises BusyError where another process has it."""
        self.path = os.path.join(folder, "lock")
        with translated(self.path):
            self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        if fcntl is None:
            return
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(self.fd).st_nlink == 0:  # the holder before us has just removed the folder
                raise BlockingIOError
        except OSError as exc:
            os.close(self.fd)
            fact = "another run is writing to this destination"
            raise BusyError(fs_text(folder), fact, "wait until it ends, or choose another destination") from exc

    def release(self) -> None:
        """Let go of the lock."""
        os.close(self.fd)
