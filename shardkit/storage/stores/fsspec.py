"""All other schemes through fsspec: hf://, hdfs://, sftp://, ftp://, webdav://, dbfs:// … each with its own package."""

from __future__ import annotations

import base64
import binascii
import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

from shardkit.errors import (
    MissingExtraError,
    NotFoundError,
    ShardkitError,
    StorageError,
    TransientError,
    UsageError,
    installs,
    redacted,
)
from shardkit.location import Location
from shardkit.storage.store import ObjectInfo, StorageOptions, harmless, require_name

PIECE_BYTES = 4 << 20
"""fsspec file systems read one range per call, and most send a request for each."""

_VERSIONS = ("etag", "ETag", "e_tag", "version_id", "generation", "sha256", "md5Hash", "blob_id")
_TIMES = ("mtime", "modified", "last_modified", "LastModified", "updated", "created")
_PASSING = (errno.ECONNRESET, errno.ECONNABORTED, errno.ETIMEDOUT, errno.EPIPE, errno.EBUSY, errno.EAGAIN, errno.EIO)


class FsspecStore:
    """The files below `root` in a file system of fsspec. Options are those of its class.

    crc32c: if its answers have one (gcsfs does); `put` stores none. version: an ETag or the like, or the time of the
    last change. `put` writes beside the target, as `NAME.PID-THREAD.part`, and renames; `list` skips such names. On a
    store without renaming that is a copy.
    """

    def __init__(self, root: Location, options: StorageOptions) -> None:
        self.root = root
        self._options = dict(options)
        self._process = 0
        self._open()

    def __repr__(self) -> str:
        return f"FsspecStore({self.root})"

    def __reduce__(self) -> str:
        raise TypeError("a store goes to another process as its location and options")

    def _open(self) -> None:
        """Open the file system for this process: those of fsspec do not work after a fork."""
        if self._process == os.getpid():
            return
        try:
            import fsspec
        except ImportError as exc:
            fact = f"{self.root.scheme}:// needs the package fsspec ({exc})"
            raise MissingExtraError(str(self.root), fact, installs("fsspec")) from exc
        try:
            self._fs, self._top = fsspec.core.url_to_fs(self.root.url, **self._options)
        except ImportError as exc:
            raise MissingExtraError(str(self.root), str(exc), "install the package that it names") from exc
        except (ValueError, TypeError) as exc:
            fact = redacted(" ".join(str(exc).split())[:300])
            cure = "check the URL's scheme and the storage options: they are those of fsspec's class for it"
            raise UsageError(str(self.root), fact, cure) from harmless(exc)
        except Exception as exc:
            raise translated_error(exc, str(self.root)) from harmless(exc)
        own = type(self._fs).mv is not fsspec.AbstractFileSystem.mv  # which copies, and treats names as patterns
        self._rename = self._fs.mv if own else getattr(self._fs, "mv_file", None)
        self._process = os.getpid()

    def _path(self, name: str) -> str:
        return f"{self._top.rstrip('/')}/{require_name(name)}"

    def _ask(self, name: str, act: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """The result of `act`, with the file system's errors translated."""
        try:
            return act(*arguments, **named)
        except Exception as exc:  # each fsspec file system has its own errors
            failure, cause = (
                translated_error(exc, str(self.root.child(name)) if name else str(self.root)),
                harmless(exc),
            )
        raise failure from cause  # outside the block, so that the unredacted text is not its context

    def info(self, name: str) -> ObjectInfo:
        """The size and other facts about a file."""
        self._open()
        facts = self._ask(name, self._fs.info, self._path(name))
        if facts.get("type") == "directory":
            raise NotFoundError(str(self.root.child(name)), "it is a folder", "check the name")
        return _info(name, facts)

    def pieces(self, name: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes start … end - 1."""
        size = self.info(name).bytes
        stop = size if end is None else end
        if not 0 <= start <= stop <= size:
            fact = f"bytes {start} to {stop} were requested, and it has {size}"
            raise StorageError(str(self.root.child(name)), fact, "check its entry in the manifest")
        while start < stop:
            upto = min(start + PIECE_BYTES, stop)
            piece: bytes = self._ask(name, self._fs.cat_file, self._path(name), start=start, end=upto)
            if len(piece) != upto - start:
                fact = f"the store sent {len(piece)} of the {upto - start} bytes requested"
                raise TransientError(str(self.root.child(name)), fact, "check the network and the store")
            start = upto
            yield piece

    def put(self, name: str, data: BinaryIO, *, crc32c: str | None = None) -> None:
        """Write a file."""
        self._open()
        path = self._path(name)
        part = f"{path}.{os.getpid()}-{threading.get_ident()}.part"
        try:
            self._ask(name, self._fs.makedirs, path.rpartition("/")[0], exist_ok=True)
            file = self._ask(name, self._fs.open, part, "wb")
            try:
                while piece := data.read(PIECE_BYTES):
                    self._ask(name, file.write, piece)
            finally:
                self._ask(name, file.close)
            self._ask(name, self._move_into_place, part, path)
        except BaseException:
            with contextlib.suppress(Exception):
                self._fs.rm_file(part)
            raise

    def _move_into_place(self, part: str, path: str) -> None:
        """Rename `part` to `path`. Some file systems refuse to replace a file; then it is absent for a moment."""
        if self._rename is None:
            self._fs.cp_file(part, path)
            self._fs.rm_file(part)
            return
        try:
            self._rename(part, path)
        except Exception:  # each fsspec file system has its own errors; `_ask` translates what is raised
            if not self._fs.exists(path):
                raise
            self._fs.rm_file(path)
            self._rename(part, path)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """The files whose names begin with `prefix`."""
        self._open()
        folder = prefix.rpartition("/")[0]
        top = f"{self._top.rstrip('/')}/{folder}".rstrip("/")
        self._fs.invalidate_cache()
        try:
            found: Mapping[str, Any] = self._ask(folder, self._fs.find, top, detail=True)
        except NotFoundError:
            return iter(())
        cut = len(self._top.strip("/")) + 1 if self._top.strip("/") else 0
        names = {path.lstrip("/")[cut:]: facts for path, facts in found.items() if not path.endswith(".part")}
        infos = [_info(name, facts) for name, facts in names.items() if name and name.startswith(prefix)]
        return iter(sorted(infos, key=lambda info: os.fsencode(info.name)))

    def delete(self, name: str) -> None:
        """Remove a file."""
        self._open()
        with contextlib.suppress(NotFoundError):
            self._ask(name, self._fs.rm_file, self._path(name))


def _info(name: str, facts: Mapping[str, Any]) -> ObjectInfo:
    version = next((str(facts[key]) for key in _VERSIONS if facts.get(key)), None)
    if version is None:
        version = next((f"{facts['size']}-{facts[key]}" for key in _TIMES if facts.get(key)), None)
    return ObjectInfo(name, int(facts["size"]), _crc32c(facts.get("crc32c")), version)


def _crc32c(text: Any) -> str | None:
    """The checksum as hex, from Google's base64 form."""
    try:
        raw = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except binascii.Error:
        return None
    return raw.hex() if len(raw) == 4 else None


def translated_error(exc: Exception, place: str) -> ShardkitError:
    """The shardkit error for an exception of an fsspec file system."""
    reason = redacted(" ".join(str(exc).split())[:300]) or type(exc).__name__
    if isinstance(exc, FileNotFoundError | NotADirectoryError | IsADirectoryError):
        return NotFoundError(place, "there is no such object", "check the name")
    if isinstance(exc, PermissionError):
        return StorageError(place, f"access is denied ({reason})", "check the credentials in the storage options")
    kinds = " ".join(kind.__name__ for kind in type(exc).__mro__)
    status = getattr(exc, "status", None) or getattr(getattr(exc, "response", None), "status_code", None)
    passing = isinstance(exc, OSError) and exc.errno in _PASSING
    if passing or "Timeout" in kinds or "Connection" in kinds or status in (408, 429, 500, 502, 503, 504):
        return TransientError(place, f"the store failed ({type(exc).__name__}: {reason})", "check the network")
    return StorageError(place, f"{type(exc).__name__}: {reason}", "check the store and the storage options")
