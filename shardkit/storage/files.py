"""Local files: a file that appears under its final name is complete and flushed to the disk."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import io
import logging
import os
import stat
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

from shardkit.errors import BusyError, DestinationError, ShardkitError, StorageError
from shardkit.location import without_directory
from shardkit.sample import fs_text
from shardkit.storage.parts import part_of
from shardkit.system import BINARY, is_running

if TYPE_CHECKING:
    from typing_extensions import Buffer

try:
    import fcntl
except ImportError:  # Windows has no flock
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

ORPHAN_SECONDS = 30.0
"""How long a lock waits for the workers of a killed run; they exit within a moment, or after one fsync."""

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


def storage_error(path: str | bytes, exc: OSError) -> ShardkitError:
    """The shardkit error for an OSError at `path`, with the cure for common cases."""
    place, fact = fs_text(path), exc.strerror or str(exc)
    if isinstance(exc, FileNotFoundError) and (gone := without_directory(path)) is not None:
        return gone
    if exc.errno in _NO_SPACE:
        return StorageError(place, fact, "free some space and run the same command again: finished work is kept")
    if exc.errno == errno.EFBIG:
        return StorageError(place, fact, "raise the file size limit (ulimit -f), or make smaller shards")
    if exc.errno in _NOT_WRITABLE:
        return DestinationError(
            place, f"not writable ({fact})", "choose another destination, or change its permissions"
        )
    if exc.errno in (errno.ENOTDIR, errno.EEXIST):
        return DestinationError(place, f"a file already exists at this path ({fact})", "choose another destination")
    if exc.errno in (errno.EISDIR, errno.ENOTEMPTY):
        return DestinationError(place, f"a folder already exists at this path ({fact})", "choose another destination")
    if exc.errno == errno.ENAMETOOLONG:
        return DestinationError(place, "the name is too long for this file system", "choose a shorter one")
    return StorageError(place, fact, "check the disk and its permissions, then run the same command again")


@contextlib.contextmanager
def translated(path: str | bytes) -> Iterator[None]:
    """Turn an OSError in the block into the shardkit error for `path`."""
    try:
        yield
    except ShardkitError:  # some are OSErrors too
        raise
    except OSError as exc:
        raise storage_error(path, exc) from exc


def size_of(path: str | bytes) -> int | None:
    """The size of a regular file in bytes; None if there is none. StorageError if the disk can't be read."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        raise StorageError(fs_text(path), exc.strerror or str(exc), "check the disk and its permissions") from exc
    return status.st_size if stat.S_ISREG(status.st_mode) else None


class _Part(io.FileIO):
    """A file under a temporary name. A write is never partial, and its errors name the final path."""

    def __init__(self, part: str | bytes, path: str | bytes) -> None:
        super().__init__(part, "wb")
        self.path = path

    def write(self, data: Buffer) -> int:
        """Write all of `data`."""
        with memoryview(data) as view, view.cast("B") as rest, translated(self.path):
            done = 0
            while done < len(rest):
                done += super().write(rest[done:])
            return done


@contextlib.contextmanager
def whole_file(path: str | bytes, *, sync: bool = True) -> Iterator[BinaryIO]:
    """Open a new file for writing that appears as `path` only on a clean exit of the block, flushed to the disk.

    The file is unbuffered. Any exception, Ctrl-C included, leaves the previous file at `path` untouched. Without `sync`
    the content may be lost if the machine (not the process) crashes: use it for files that are checked when read.

    Raises DestinationError or StorageError if the file can't be created or written; other exceptions of the block pass
    unchanged.
    """
    part = part_of(path)
    try:
        with translated(path):
            file = _Part(part, path)
        with file:
            yield file
            with translated(path):
                if sync:
                    os.fsync(file.fileno())
                file.close()
        with translated(path):
            os.replace(part, os.fsencode(path))
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise


def sync_folder(path: str) -> None:
    """Flush the folder's entries to the disk, so that renames in it survive a crash."""
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


def sync_tree(folder: str) -> None:
    """Flush all files and folders below `folder` to the disk.

    Linux flushes the whole file system in one call, which is many times faster than one call for each file.
    """
    if not _sync_file_system(folder):
        for path, _, files in os.walk(folder):
            for name in files:
                _sync_file(os.path.join(path, name))
            sync_folder(path)


def _sync_file_system(folder: str) -> bool:
    """Flush the whole file system; False if the platform has no call for it. Raises OSError if writing failed."""
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None) if sys.platform == "linux" else None
    if syncfs is None:
        return False
    fd = os.open(folder, os.O_RDONLY)
    try:
        if syncfs(fd):
            code = ctypes.get_errno()
            if code == errno.ENOSYS:
                return False
            raise OSError(code, os.strerror(code))
    finally:
        os.close(fd)
    return True


def _sync_file(path: str) -> None:
    fd = os.open(path, os.O_RDWR | BINARY)  # Windows can only flush writable files
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class FolderLock:
    """A lock on a folder, held by an open file; the system releases it when the last holder dies. It is exclusive, or
    shared with other runs that ask for that.

    `fd` may be passed to worker processes, which then hold it too, so that a new run waits for orphans to exit.
    """

    def __init__(self, folder: str, *, shared: bool = False) -> None:
        """Create the folder if needed, and take the lock.

        Raises BusyError if another run has it; waits up to ORPHAN_SECONDS for the workers of a dead run.
        """
        self.folder, self.shared = folder, shared
        self.path = os.path.join(folder, "lock")
        self.by_system = True
        """Whether the file system has locks."""
        begun = time.monotonic()
        while (fd := self._take()) is None:
            holder = self._holder()
            if time.monotonic() - begun >= _patience_seconds(holder):
                which = "" if holder is None else f" (process {holder})"
                fact = f"another run{which} is writing to this destination"
                raise BusyError(fs_text(folder), fact, "wait until it ends, or choose another destination")
            log.debug("%s: waiting for the workers of process %s", fs_text(folder), holder)
            time.sleep(0.05)
        self.fd = fd

    def _take(self) -> int | None:
        """The descriptor of the lock that we now hold; None if another process has it or just removed the folder."""
        with translated(self.folder):
            os.makedirs(self.folder, exist_ok=True)
        with translated(self.path), contextlib.ExitStack() as undo:
            try:
                fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            except FileNotFoundError:
                return None
            undo.callback(os.close, fd)
            if not self._flock(fd) or not os.fstat(fd).st_nlink:
                return None
            os.ftruncate(fd, 0)
            os.write(fd, b"%d\n" % os.getpid())
            undo.pop_all()
            return fd

    def _flock(self, fd: int, *, shared: bool | None = None) -> bool:
        if fcntl is None:
            return True
        kind = fcntl.LOCK_SH if (self.shared if shared is None else shared) else fcntl.LOCK_EX
        try:
            fcntl.flock(fd, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as exc:
            if exc.errno not in _NO_LOCKS:
                raise
            self.by_system = False
        return True

    def alone(self) -> bool:
        """Whether no other run shares the lock; it is exclusive from now on."""
        return self._flock(self.fd, shared=False)

    def _holder(self) -> int | None:
        """The process that took the lock; None if unknown."""
        try:
            with open(self.path, "rb") as file:
                return int(file.read(9))
        except (OSError, ValueError):
            return None

    def release(self) -> None:
        """Release the lock, even if another process still has the descriptor."""
        if fcntl is not None:
            with contextlib.suppress(OSError):  # closing does it as well
                fcntl.flock(self.fd, fcntl.LOCK_UN)
        os.close(self.fd)


def _patience_seconds(holder: int | None) -> float:
    """How long to wait for the lock of a process: not at all if it is alive."""
    if holder is None:  # it has just started, or just ended
        return 1.0
    return 0.0 if is_running(holder) else ORPHAN_SECONDS
