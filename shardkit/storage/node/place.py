"""Where the processes of a machine meet: a socket in a folder, and which of them serves there.

    NAME.lock     locked (flock) by the process that serves, for as long as it lives
    NAME.sock     its socket; one that a dead process left is replaced by the next server

A folder rather than an abstract socket: its permissions say who may take part, and containers can share it. Both files
are empty.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import stat
import struct
import tempfile
import time
from collections.abc import Iterator

import msgspec

from shardkit.storage.node.memory import HAS_SEALS
from shardkit.storage.node.message import PROTOCOL

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

BACKLOG = 1024
SWEPT_SECONDS = 3600.0
"""Files of loaders that nobody served for this long are removed."""

AVAILABLE = HAS_SEALS and hasattr(socket, "SOCK_SEQPACKET") and hasattr(socket, "SO_PEERCRED") and fcntl is not None
"""Whether the system has all that sharing needs: Linux."""

_LOADER = "loader-"
_PEER = struct.Struct("3i")


class Place(msgspec.Struct, frozen=True):
    """Where processes meet. folder: None for the user's own, which no other user can enter."""

    folder: str | None = None
    name: str = f"node-{PROTOCOL}"

    @property
    def of_loader(self) -> bool:
        """Whether the workers of one loader meet here."""
        return self.name.startswith(_LOADER)

    @property
    def path(self) -> str:
        """The folder, which exists. OSError if it can't be made, PermissionError for one that others may change."""
        if self.folder is not None:
            os.makedirs(self.folder, exist_ok=True)
            return self.folder
        return _own_folder()

    def served(self) -> tuple[socket.socket, int] | None:
        """(a listening socket, the descriptor of the lock), if nobody serves here. OSError."""
        folder = self.path
        found = os.stat(folder)
        mode = 0o600 if self.folder is None else stat.S_IMODE(found.st_mode) & 0o666
        lock = _open_lock(os.path.join(folder, f"{self.name}.lock"), mode)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.utime(lock)
            _allow(lock, found.st_gid, mode)
            sock = _listening(folder, f"{self.name}.sock", found.st_gid, mode)
            if self.folder is None:
                _sweep(folder)
            return sock, lock
        except BlockingIOError:
            os.close(lock)
            return None
        except BaseException:
            os.close(lock)
            raise

    def connected(self) -> socket.socket:
        """A connection to the process that serves here. OSError, such as ConnectionRefusedError if none does."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with _short(self.path, f"{self.name}.sock") as path:
                sock.connect(path)
            self.require_allowed(sock)
        except BaseException:
            sock.close()
            raise
        return sock

    def require_allowed(self, sock: socket.socket) -> None:
        """PermissionError for a peer of another user, unless a folder was named, whose permissions decide."""
        _, user, _ = _PEER.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        if self.folder is None and user != os.getuid():
            raise PermissionError(f"the process at the socket belongs to user {user}")

    def remove(self) -> None:
        """Remove the files. Who still uses them goes on."""
        for ending in ("sock", "lock") if AVAILABLE else ():
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self.folder or _own_path(), f"{self.name}.{ending}"))


def loader_place() -> Place:
    """A place of its own for the workers of a loader."""
    return Place(None, f"{_LOADER}{PROTOCOL}-{os.getpid()}-{secrets.token_hex(4)}")


def _sweep(folder: str) -> None:
    """Remove what loaders left whose processes were killed."""
    for name in os.listdir(folder):
        if not (name.startswith(_LOADER) and name.endswith(".lock")):
            continue
        with contextlib.suppress(OSError):
            path = os.path.join(folder, name)
            lock = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
            try:
                if time.time() - os.fstat(lock).st_mtime > SWEPT_SECONDS:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    for ending in (".sock", ".lock"):
                        with contextlib.suppress(FileNotFoundError):
                            os.unlink(path[: -len(".lock")] + ending)
            finally:
                os.close(lock)


def _own_folder() -> str:
    """This user's folder. PermissionError where it belongs to another one, or others may enter it."""
    path = _own_path()
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{path} is not a folder of this user alone")
    return path


def _own_path() -> str:
    base = os.environ.get("XDG_RUNTIME_DIR")
    if base and os.access(base, os.W_OK):
        return os.path.join(base, "shardkit")
    return os.path.join(tempfile.gettempdir(), f"shardkit-{os.getuid()}")


@contextlib.contextmanager
def _short(folder: str, name: str) -> Iterator[str]:
    """A path of the file that fits into the 108 bytes of a socket's address, however long the folder's is."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{name}"
    finally:
        os.close(descriptor)


def _open_lock(path: str, mode: int) -> int:
    flags = os.O_RDWR | os.O_NOFOLLOW
    with contextlib.suppress(FileNotFoundError):
        return os.open(path, flags)  # O_CREAT is refused for another user's file, in some folders (protected_regular)
    return os.open(path, flags | os.O_CREAT, mode)


def _allow(file: int | str, group: int, mode: int) -> None:
    """Give a file the group and the permissions of its folder, unless it is another user's, who did that."""
    with contextlib.suppress(PermissionError):
        os.chmod(file, mode)
    with contextlib.suppress(PermissionError):
        os.chown(file, -1, group)


def _listening(folder: str, name: str, group: int, mode: int) -> socket.socket:
    path = os.path.join(folder, name)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with _short(folder, name) as short:
            sock.bind(short)
        _allow(path, group, mode)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock
