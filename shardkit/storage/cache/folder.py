"""A folder of local copies of objects, shared by processes.

    CACHEDIR.TAG             marks the folder as ours, and tells backup tools to skip it (bford.info/cachedir)
    lock                     the number of bytes in use, as text; locked (flock) while files are created or removed
    NAME.whole               a whole object; its size and CRC-32C were checked before it got this name
    NAME.part, NAME.map      a partial object, in chunks of 4 MiB: the map's byte of a cached chunk is 1

NAME is a digest of the object's URL, size and CRC-32C, so that a replaced object gets another name. Only such names
are ever removed. A process that has a file open holds a shared flock on it, which ends with the process: a file in use
is not removed. A chunk that is being fetched is claimed by a lock on its byte of the map, and other processes wait for
it. The time of last use is the file's mtime. What a killed process leaves is valid, and the next one continues it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
import time
from collections.abc import Iterator
from hashlib import blake2b
from weakref import WeakValueDictionary

from shardkit.checksums import crc32c
from shardkit.errors import ShardkitError, UsageError
from shardkit.sample import fs_text
from shardkit.storage.cache.entry import Entry, chunks_of
from shardkit.storage.files import translated, whole_file
from shardkit.storage.parts import is_abandoned, is_part, part_named, remove_abandoned
from shardkit.system import BINARY, POSIX, READ_ONLY
from shardkit.units import format_bytes

try:
    import fcntl
except ImportError:  # Windows has no flock: there each process works on its own
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

TAG = "CACHEDIR.TAG"
SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55\n# This folder is a cache made by shardkit.\n"
OURS = re.compile(r"[0-9a-f]{32}\.(whole|part|map)")
STALE_SECONDS = 7 * 86400.0
"""Partial objects that were not continued for this long are removed when the cache is opened."""

_CACHES: dict[tuple[int, str], Cache] = {}
_LOCK = threading.Lock()


def open_cache(folder: str | None, limit: int | None) -> Cache | NoCache:
    """Open the cache in `folder`, of at most `limit` bytes; one object for each process. NoCache if `folder` is None.

    Raises UsageError if the folder has other content, DestinationError or StorageError if it can't be created.
    """
    if folder is None:
        return NoCache()
    key = (os.getpid(), os.path.abspath(folder))
    with _LOCK:
        cache = _CACHES.get(key)
        if cache is None:
            cache = _CACHES[key] = Cache(key[1], limit)
        cache.limit = limit
        return cache


class NoCache:
    """Takes the place of a cache where there is none: it has nothing and keeps nothing."""

    def entry(self, url: str, size: int, crc: int) -> None:
        """None: there is no room."""

    def load(self, url: str, size: int, crc: int) -> None:
        """None: it is not here."""

    def save(self, url: str, data: bytes, crc: int) -> None:
        """Nothing is kept."""


class Cache:
    """The cache in one folder. Thread safe; not shared between processes."""

    def __init__(self, folder: str, limit: int | None) -> None:
        self.folder, self.limit = folder, limit
        self.full = False
        """Whether a write failed: then existing objects are used, and nothing is added."""
        self._open: WeakValueDictionary[str, Entry] = WeakValueDictionary()
        self._lock = threading.RLock()
        with translated(folder):
            os.makedirs(folder, exist_ok=True)
            self._require_ours()
            with self.alone():
                self._clear()
                self._note_usage(sum(size for _, size, _ in self._files()))

    def path(self, name: str) -> str:
        """The path of a file in the folder."""
        return os.path.join(self.folder, name)

    def _require_ours(self) -> None:
        """Create the tag in an empty folder. UsageError for a folder with other content."""
        if os.path.exists(self.path(TAG)):
            with open(self.path(TAG), "rb") as file:
                if file.read(len(SIGNATURE)) == SIGNATURE:
                    return
        strangers = [n for n in os.listdir(self.folder) if not n.startswith((TAG + ".", "lost+found")) and n != "lock"]
        if os.path.exists(self.path(TAG)) or strangers:
            name = min(strangers or [TAG])
            fact = f"the folder has other content ({name}), and is not a cache of shardkit"
            raise UsageError(fs_text(self.folder), fact, "name an empty folder, or one that does not exist")
        with whole_file(self.path(TAG), sync=False) as file:
            file.write(SIGNATURE)

    # ---- objects

    def entry(self, url: str, size: int, crc: int) -> Entry | None:
        """The entry for an object by URL, size and CRC-32C (-1: not known), new or existing. None if there is no room.

        url: without credentials, as shown to users.
        """
        name = _name(url, size, crc)
        if not size:
            return None
        with self._lock:
            found = self._open.get(name)
            if found is not None and found.usable:
                return found
            try:
                found = self._open_entry(name, size, crc, url)
            except OSError as exc:
                self.give_up(exc)
                return None
            if found is not None:
                self._open[name] = found
            return found

    def load(self, url: str, size: int, crc: int) -> bytes | None:
        """The bytes of a small object, checked. None if it is not cached."""
        path = self.path(_name(url, size, crc) + ".whole")
        try:
            with open(path, "rb") as file:
                data = file.read()
            os.utime(path)
        except OSError:
            return None
        if len(data) == size and crc32c(data) == crc:
            return data
        log.warning("%s: the copy in the cache is damaged; fetching it again", url)
        self.remove(_name(url, size, crc), size)
        return None

    def save(self, url: str, data: bytes, crc: int) -> None:
        """Keep a small object, if there is room."""
        name = _name(url, len(data), crc)
        try:
            with self.alone():
                if not self.full and not os.path.exists(self.path(name + ".whole")) and self._reserve(len(data)):
                    with whole_file(self.path(name + ".whole"), sync=False) as file:
                        file.write(data)
        except (OSError, ShardkitError) as exc:
            self.give_up(exc)

    def give_up(self, exc: Exception) -> None:
        """Stop adding objects after a failed write, and log it once."""
        if not self.full:
            self.full = True
            text = getattr(exc, "strerror", None) or getattr(exc, "fact", None) or str(exc)
            log.warning("%s: the cache can't store more (%s): continuing without it", fs_text(self.folder), text)

    def _open_entry(self, name: str, size: int, crc: int, url: str) -> Entry | None:
        whole = self.path(name + ".whole")
        fd = self._hold(whole, READ_ONLY)
        if fd is not None:
            if os.fstat(fd).st_size == size:
                os.utime(whole)
                return Entry(self, name, size, crc, url, fd, None)
            os.close(fd)
            log.warning("%s: the copy in the cache is damaged; fetching it again", url)
            self.remove(name, size)
        if self.full:
            return None
        with self.alone():
            if os.path.exists(whole):  # created in the meantime
                fd = self._hold(whole, READ_ONLY)
                return None if fd is None else Entry(self, name, size, crc, url, fd, None)
            return self._begin(name, size, crc, url)

    def _begin(self, name: str, size: int, crc: int, url: str) -> Entry | None:
        """The entry of an object that may be partly cached. Requires the lock."""
        part, map_path, chunks = self.path(name + ".part"), self.path(name + ".map"), chunks_of(size)
        there = all(os.path.exists(path) for path in (part, map_path))
        if there and (os.path.getsize(part), os.path.getsize(map_path)) != (size, chunks):
            there = False
        if not there:
            self.unlink(name)
            if not self._reserve(size):
                return None
            with open(map_path, "wb") as file:
                file.write(bytes(chunks))
            with open(part, "wb") as file:
                os.ftruncate(file.fileno(), size)
        fd = self._hold(part, os.O_RDWR | BINARY)
        if fd is None:
            return None
        os.utime(part)
        return Entry(self, name, size, crc, url, fd, os.open(map_path, os.O_RDWR | BINARY))

    def _hold(self, path: str, flags: int) -> int | None:
        """A descriptor of a file with a shared lock on it; None if it does not exist or is being removed."""
        try:
            fd = os.open(path, flags)
        except FileNotFoundError:
            return None
        if not _flock(fd, shared=True) or not os.fstat(fd).st_nlink:
            os.close(fd)
            return None
        return fd

    # ---- room

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the lock: no other process or thread creates or removes files in the block."""
        with self._lock:
            fd = os.open(self.path("lock"), os.O_RDWR | os.O_CREAT, 0o644)
            try:
                if fcntl is not None:
                    with contextlib.suppress(OSError):  # a file system without locks
                        fcntl.flock(fd, fcntl.LOCK_EX)
                yield
            finally:
                os.close(fd)

    def _usage(self) -> int:
        try:
            with open(self.path("lock"), "rb") as file:
                return int(file.read(20))
        except ValueError:
            return sum(size for _, size, _ in self._files())

    def _note_usage(self, usage: int) -> None:
        with open(self.path("lock"), "r+b") as file:
            file.write(b"%-19d\n" % max(0, usage))

    def _files(self) -> list[tuple[float, int, str]]:
        """(time of last use, size, file name) of each cached object, whole or partial."""
        found = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if _is_ours(entry.name) and not entry.name.endswith(".map"):
                    with contextlib.suppress(FileNotFoundError):
                        facts = entry.stat(follow_symlinks=False)
                        found.append((facts.st_mtime, facts.st_size, entry.name))
        return found

    def _reserve(self, size: int) -> bool:
        """Make room for `size` bytes, and count them as used. False if there is no room. Requires the lock."""
        usage = self._usage()
        if self.limit is not None and usage + size > self.limit:
            usage = self._evict(self.limit - size)
            if usage + size > self.limit:
                log.debug("%s: no room for %s", fs_text(self.folder), format_bytes(size))
                self._note_usage(usage)
                return False
        self._note_usage(usage + size)
        return True

    def _evict(self, room: int) -> int:
        """Remove the least recently used objects until at most `room` bytes are used, and up to a twentieth of the
        limit more, so that not every new file evicts. Returns the bytes still used."""
        files = sorted(self._files())
        usage = sum(size for _, size, _ in files)
        aim = room - (self.limit or 0) // 20
        for _, size, file in files:
            if usage <= room and usage - size < aim:
                break
            if self._remove(file):
                usage -= size
        return usage

    def _remove(self, file: str) -> bool:
        """Remove a file that nobody has open or is writing. Returns whether it was removed."""
        if is_part(file) and not is_abandoned(self.path(file)):
            return False
        if fcntl is None:
            return self.unlink(file[:32], file[33:])
        fd = os.open(self.path(file), READ_ONLY)
        try:
            return _flock(fd, shared=False) and self.unlink(file[:32], file[33:])
        finally:
            os.close(fd)

    def unlink(self, name: str, kind: str = "part") -> bool:
        """Remove the files of an object, even if they are open. Requires the lock. False if Windows, which keeps open
        files, refuses."""
        for ending in ("part", "map") if kind == "part" else (kind,):
            try:
                os.unlink(self.path(f"{name}.{ending}"))
            except FileNotFoundError:
                continue
            except PermissionError:
                if POSIX:
                    raise
                return False
        return True

    def remove(self, name: str, size: int, kind: str = "whole", fd: int | None = None) -> None:
        """Remove a damaged object, if it is still the file that `fd` is open on."""
        path = self.path(f"{name}.{kind}")
        with self.alone(), contextlib.suppress(FileNotFoundError):
            if fd is None or os.path.samestat(os.stat(path), os.fstat(fd)):
                self.unlink(name, kind)
                self._note_usage(self._usage() - size)

    def _clear(self) -> None:
        """Remove what killed runs left and nobody continued."""
        names = set(os.listdir(self.folder))
        for file in names:
            match = OURS.fullmatch(file)
            kind = match[1] if match else ""
            if kind == "map" and file[:-3] + "part" not in names:
                self.unlink(file[:32], "map")
            elif kind == "part" and self._stale(file):
                self._remove(file)
        remove_abandoned(self.folder)

    def _stale(self, file: str) -> bool:
        old = time.time() - os.stat(self.path(file)).st_mtime > STALE_SECONDS
        return old or not os.path.exists(self.path(file[:32] + ".map"))


def _is_ours(file: str) -> bool:
    """Whether a file name belongs to the cache: an object, whole or partial, or its temporary file."""
    part = part_named(file)
    return OURS.fullmatch(file if part is None else part.name) is not None


def _name(url: str, size: int, crc: int) -> str:
    return blake2b(f"{url}\0{size}\0{crc:08x}".encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def _flock(fd: int, *, shared: bool) -> bool:
    """Lock an open file without waiting. Returns whether it succeeded; True if the file system has no locks."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
