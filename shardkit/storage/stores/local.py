"""The local file system as a store."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import BinaryIO

from shardkit.errors import NotFoundError, ShardkitError, StorageError, TransientError, UsageError
from shardkit.location import Location
from shardkit.storage.files import storage_error, sync_folder, translated, whole_file
from shardkit.storage.parts import is_part, part_of, remove_abandoned
from shardkit.storage.store import ObjectInfo, StorageOptions, require_name

PIECE_BYTES = 1 << 20


class LocalStore:
    """The files below the folder `root`. It takes no options.

    crc32c: never known, since a file system has none. version: size and time of the last change. Written files are
    flushed to the disk, with their names. Folders are created as needed, and stay when their last file is removed.
    `list` skips temporary files of running writers (`.part`).
    """

    def __init__(self, root: Location, options: StorageOptions) -> None:
        if options:
            names = ", ".join(sorted(options))
            raise UsageError(str(root), f"storage options ({names}) for a local path", "omit them")
        self.root = root
        self._cleared: set[str] = set()
        """Folders that were cleared of temporary files of killed runs."""

    def __repr__(self) -> str:
        return f"LocalStore({self.root})"

    def _path(self, name: str) -> str:
        return self.root.child(require_name(name)).path

    def info(self, name: str) -> ObjectInfo:
        """The size and other facts about a file."""
        path = self._path(name)
        with _found(path):
            status = os.stat(path)
            if not os.path.isfile(path):
                raise FileNotFoundError
        return _info(name, status)

    def pieces(self, name: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes start … end - 1."""
        path = self._path(name)
        with contextlib.ExitStack() as closing:
            with _found(path):
                file = closing.enter_context(open(path, "rb", buffering=0))
                size = os.fstat(file.fileno()).st_size
            stop = size if end is None else end
            if not 0 <= start <= stop <= size:
                fact = f"bytes {start} to {stop} were requested, and it has {size}"
                raise StorageError(path, fact, "check its entry in the manifest")
            file.seek(start)
            while start < stop:
                with translated(path):
                    piece = file.read(min(PIECE_BYTES, stop - start))
                if not piece:
                    raise TransientError(path, "it became shorter while it was read", "find out what writes to it")
                start += len(piece)
                yield piece

    def put(self, name: str, data: BinaryIO, *, crc32c: str | None = None) -> None:
        """Write a file."""
        import shutil

        path = self._path(name)
        folder = os.path.dirname(path)
        with translated(path):
            os.makedirs(folder, exist_ok=True)
        if folder not in self._cleared:
            self._cleared.add(folder)
            remove_abandoned(folder)
        with whole_file(path) as file:
            shutil.copyfileobj(data, file, PIECE_BYTES)
        with translated(folder):
            sync_folder(folder)

    def put_if(self, name: str, data: bytes, *, version: str | None, crc32c: str | None = None) -> str | None:
        """Write a file on a condition. If it exists, it is moved away first, which only one writer can do; it is then
        absent for a moment, between two calls of the system."""
        import secrets

        path = self._path(name)
        mine, aside = (os.fsdecode(part_of(f"{path}.{secrets.token_hex(4)}")) for _ in range(2))
        with translated(path):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            try:
                with open(mine, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                if version is not None and not self._set_aside(path, aside, version):
                    return None
                return _version(os.stat(mine)) if _link(mine, path, data) else None
            finally:
                for left in (mine, aside):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(left)

    def _set_aside(self, path: str, aside: str, version: str) -> bool:
        """Move a file away if it has this version."""
        try:
            if _version(os.stat(path)) != version:
                return False
            os.rename(path, aside)
        except FileNotFoundError:
            return False
        if _version(os.stat(aside)) == version:
            return True
        with open(aside, "rb") as file:  # another writer was faster: put back what it wrote
            _link(aside, path, file.read())
        return False

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """The files whose names begin with `prefix`, hidden ones too."""
        top = self._path(prefix.rpartition("/")[0]) if "/" in prefix else self.root.path
        found = []
        for folder, _, files in os.walk(top, followlinks=True):
            inner = os.path.relpath(folder, self.root.path).replace(os.sep, "/")
            names = [file if inner == "." else f"{inner}/{file}" for file in files if not is_part(file)]
            found += [name for name in names if name.startswith(prefix)]
        return _infos(self.root, sorted(found, key=os.fsencode))

    def delete(self, name: str) -> None:
        """Remove a file."""
        path = self._path(name)
        with translated(path), contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(path)


def _infos(root: Location, names: list[str]) -> Iterator[ObjectInfo]:
    for name in names:
        path = root.child(name).path
        try:
            status = os.stat(path)
        except FileNotFoundError:  # removed in the meantime
            continue
        except OSError as exc:
            raise storage_error(path, exc) from exc
        yield _info(name, status)


def _info(name: str, status: os.stat_result) -> ObjectInfo:
    return ObjectInfo(name, status.st_size, None, _version(status))


def _version(status: os.stat_result) -> str:
    return f"{status.st_size}-{status.st_mtime_ns}"


def _link(source: str, path: str, data: bytes) -> bool:
    """Give a complete file a second name; False if the name is taken. Where there are no such links, write it again."""
    try:
        os.link(source, path)
    except FileExistsError:
        return False
    except OSError:
        try:
            with open(path, "xb") as file:
                file.write(data)
        except FileExistsError:
            return False
        status = os.stat(source)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    return True


@contextlib.contextmanager
def _found(path: str) -> Iterator[None]:
    """Turn OSErrors in the block into shardkit errors: NotFoundError if the file does not exist."""
    try:
        yield
    except ShardkitError:
        raise
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as exc:
        raise NotFoundError(path, "there is no such file", "check the name") from exc
    except OSError as exc:
        raise storage_error(path, exc) from exc
