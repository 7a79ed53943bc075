"""Object stores through obstore: S3 and compatible stores, Google Cloud Storage, Azure, and plain web servers."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from threading import current_thread, main_thread
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from shardkit.errors import NotFoundError, ShardkitError, StorageError, TransientError, UsageError, printable, redacted
from shardkit.location import Location
from shardkit.storage.etag import PART_BYTES
from shardkit.storage.store import ObjectInfo, StorageOptions, harmless, require_name
from shardkit.storage.stores.cloud_errors import BEYOND, storage_error
from shardkit.storage.stores.cloud_options import family_of, open_root
from shardkit.storage.stores.obstore_after_fork import obstore
from shardkit.threads import BackgroundCall

if TYPE_CHECKING:
    from typing_extensions import Buffer

T = TypeVar("T")

PIECE_BYTES = 512 << 10
"""The minimum size of a piece. Measured over loopback on 2 cores: 256 KiB to 1 MiB is best, 16 MiB is half as fast,
since each piece is newly allocated memory."""

WHOLE_BYTES = 16 << 20
"""A range up to this size is one piece, in obstore's own memory: obstore writes each smaller piece twice, first zeros
and then its bytes, while it holds the GIL."""
SHAKY_READS = 256
"""After a failure, this many ranges are read in small pieces, so that none is lost if a connection breaks again."""

PARTS_AT_ONCE = 4

_CHECKSUM = "crc32c"
"""The metadata field of an object that holds the checksum of its content."""


class RemoteStore:
    """The objects below `root` in a bucket, container or web folder.

    crc32c of an object: `put` writes it into the object's metadata (`x-amz-meta-crc32c` and the like), and `info`
    returns it; it was computed by the writer, not by the store. Checksums that S3 and GCS compute themselves are not
    in obstore's answers. In `list` it is None. A web server has none. version is the ETag, or else
    the time of the last change.

    `list` requests the names from the prefix on, and stops after the last match.

    Uploads are checked in transit: by TLS, and S3 compares each part with the SHA-256 that its signature covers.

    A range is one piece as long as connections hold. Once one breaks, this range and the following ones are read in
    small pieces, so that a caller can resume at the byte where the next one breaks.

    A web server is read-only and can't be listed.
    """

    def __init__(self, root: Location, options: StorageOptions) -> None:
        self.root = root
        self._family = family_of(root.scheme)
        self._options = dict(options)
        self._sorted = not root.path.partition("/")[0].endswith("--x-s3")  # directory buckets list in any order
        self._process = 0
        self._shaky = 0
        self._open()

    def __repr__(self) -> str:
        return f"RemoteStore({self.root})"

    def __reduce__(self) -> str:
        raise TypeError("a store goes to another process as its location and options")

    def _open(self) -> None:
        """Open obstore's stores for this process: new ones after a fork (see obstore_after_fork.py)."""
        if self._process != os.getpid():
            self._reading, self._prefix = open_root(self.root, self._options, writing=False)
            self._writing = open_root(self.root, self._options, writing=True)[0] if self._family != "http" else None
            self._process = os.getpid()

    def _path(self, name: str) -> str:
        return f"{self._prefix}/{require_name(name)}" if self._prefix else require_name(name)

    def _place(self, name: str) -> str:
        return str(self.root.child(name)) if name else str(self.root)

    def _ask(self, name: str, act: Callable[[], T]) -> T:
        """The result of `act`, with obstore's errors translated. Ctrl-C does not wait for it: obstore ignores signals
        while it waits for a server, up to 30 seconds."""
        try:
            return BackgroundCall(act).result() if current_thread() is main_thread() else act()
        except ShardkitError:
            raise
        except (obstore().exceptions.BaseError, OSError, ValueError) as exc:
            failure, cause = storage_error(exc, self._place(name), self._family), harmless(exc)
        except BaseException as exc:
            if type(exc).__name__ != "PanicException":  # of pyo3: not an Exception, and can't be imported
                raise
            fact = f"the package obstore panicked ({printable(str(exc))})"
            failure = StorageError(self._place(name), fact, "check the URL and the storage options")
            cause = Exception(redacted(str(exc)))
        raise failure from cause  # outside the block, so that the unredacted text is not its context

    def info(self, name: str) -> ObjectInfo:
        """The size and other facts about an object: one HEAD request."""
        self._open()
        path = self._path(name)
        found = self._ask(name, lambda: obstore().get(self._reading, path, options={"head": True}))
        crc = found.attributes.get(_CHECKSUM)
        return ObjectInfo(name, found.meta["size"], crc, _version(found.meta))

    def pieces(self, name: str, start: int = 0, end: int | None = None) -> Iterator[Buffer]:
        """The bytes start … end - 1, by one GET request."""
        self._open()
        path = self._path(name)
        if not 0 <= start <= (start if end is None else end):
            raise UsageError(self._place(name), f"{start} to {end} is not a range", "give 0 <= start <= end")
        if start == end:
            return self._nothing(name, start)
        if end is not None and end - start <= WHOLE_BYTES:
            if self._shaky <= 0:
                return self._whole(name, start, end)
            self._shaky -= 1
        if start == 0 and end is None:  # without a range: works with servers that do not support ranges
            options: dict[str, Any] = {}
        else:
            options = {"range": {"offset": start} if end is None else (start, end)}
        try:
            found = self._ask(name, lambda: obstore().get(self._reading, path, options=options))
        except StorageError as exc:
            if end is None and exc.fact.startswith(BEYOND):
                return self._nothing(name, start)
            raise
        first, stop = found.range
        if first != start or (end is not None and stop != end):
            raise beyond_end(self._place(name), start, end, found.meta["size"])
        return self._stream(name, found, stop - start)

    def _whole(self, name: str, start: int, end: int) -> Iterator[Buffer]:
        """The bytes start … end - 1 as one piece."""
        path = self._path(name)
        try:
            data = self._ask(name, lambda: obstore().get_range(self._reading, path, start=start, end=end))
        except TransientError:
            self._shaky = SHAKY_READS
            raise
        return iter((data,)) if len(data) >= end - start else self._short(name, data, start, end)

    def _short(self, name: str, data: Buffer, start: int, end: int) -> Iterator[Buffer]:
        """A range that came short: yield what arrived, then raise why the rest did not."""
        self._shaky = SHAKY_READS
        size = self.info(name).bytes
        if end > size:
            raise beyond_end(self._place(name), start, end, size)
        with memoryview(data) as view:
            done = view.nbytes
        yield data
        raise self._end_error(name, done, end - start)

    def _nothing(self, name: str, start: int) -> Iterator[bytes]:
        """An empty iterator, after checking that the object has at least `start` bytes."""
        size = self.info(name).bytes
        if start > size:
            raise beyond_end(self._place(name), start, start, size)
        return iter(())

    def _stream(self, name: str, found: Any, count: int) -> Iterator[bytes]:
        stream, done = found.stream(min_chunk_size=PIECE_BYTES), 0
        while piece := self._ask(name, lambda: next(stream, b"")):
            done += len(piece)
            yield piece
        if done < count:
            raise self._end_error(name, done, count)

    def _end_error(self, name: str, done: int, count: int) -> TransientError:
        fact = f"the store sent {done} of the {count} bytes requested"
        return TransientError(self._place(name), fact, "check the network and the store")

    def put(self, name: str, data: BinaryIO, *, crc32c: str | None = None) -> None:
        """Write an object: less than 16 MiB in one request, more in parallel parts."""
        self._require_writable()
        self._open()
        path, attributes = self._path(name), {_CHECKSUM: crc32c} if crc32c else None
        first = _fill(data)
        parts = _Parts(first, data) if len(first) == PART_BYTES else None
        more = {"attributes": attributes, "chunk_size": PART_BYTES, "max_concurrency": PARTS_AT_ONCE}
        try:
            self._ask(name, lambda: obstore().put(self._writing, path, parts or first, **more))
        except Exception as exc:
            if parts is not None and parts.failure is not None:
                raise parts.failure from exc
            raise

    def put_if(self, name: str, data: bytes, *, version: str | None, crc32c: str | None = None) -> str | None:
        """Write an object on a condition: one PUT with If-None-Match or If-Match."""
        self._require_writable()
        self._open()
        path = self._path(name)
        return self._ask(name, lambda: self._put_if(path, data, version, crc32c))

    def _put_if(self, path: str, data: bytes, version: str | None, crc32c: str | None) -> str | None:
        fails = obstore().exceptions
        try:
            mode: Any = "create"
            if version is not None:
                found = obstore().head(self._reading, path)  # GCS compares generations, which are not its ETags
                if _version(found) != version:
                    return None
                mode = {key: found[key] for key in ("e_tag", "version") if found.get(key)}
            more: dict[str, Any] = {"attributes": {_CHECKSUM: crc32c}} if crc32c else {}
            return _version(obstore().put(self._writing, path, data, mode=mode, use_multipart=False, **more)) or ""
        except (FileNotFoundError, fails.NotFoundError, fails.AlreadyExistsError, fails.PreconditionError):
            return None

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """The objects whose names begin with `prefix`."""
        if self._family == "http":
            raise StorageError(str(self.root), "a web server can't be listed", "name the manifest or the shards")
        self._open()
        return iter(self._ask("", lambda: self._list(prefix)))

    def _list(self, prefix: str) -> Sequence[ObjectInfo]:
        cut = len(self._prefix) + 1 if self._prefix else 0
        wanted = f"{self._prefix}/{prefix}" if self._prefix else prefix
        folder, _, start = wanted.rpartition("/")
        offset = None if start[:-1] in ("", ".", "..") else wanted[:-1]  # only names after it are listed
        found = []
        for metas in obstore().list(self._reading, folder or None, offset=offset, chunk_size=1000):
            found += [_listed_info(meta, cut) for meta in metas if meta["path"].startswith(wanted)]
            if self._sorted and metas and _is_behind(metas[-1]["path"], wanted):
                break
        return sorted(found, key=lambda info: info.name.encode())

    def folders(self, name: str = "") -> tuple[Sequence[str], Sequence[ObjectInfo]]:
        """(names of the folders, objects) directly in a folder: allows listing in parallel."""
        if self._family == "http":
            raise StorageError(str(self.root), "a web server can't be listed", "name the manifest or the shards")
        self._open()
        folder = "/".join(part for part in (self._prefix, name) if part)
        found = self._ask(name, lambda: obstore().list_with_delimiter(self._reading, folder or None))
        cut = len(self._prefix) + 1 if self._prefix else 0
        return [path[cut:] for path in found["common_prefixes"]], [_listed_info(meta, cut) for meta in found["objects"]]

    def delete(self, name: str) -> None:
        """Remove an object."""
        self._require_writable()
        self._open()
        path = self._path(name)
        with contextlib.suppress(NotFoundError):
            self._ask(name, lambda: obstore().delete(self._writing, path))

    def _require_writable(self) -> None:
        if self._family == "http":
            raise StorageError(str(self.root), "a web server is read-only", "write to its folder, or to a bucket")


class _Parts:
    """The parts of an upload, of equal size except the last. `failure`: the exception raised while reading them."""

    def __init__(self, first: bytes, data: BinaryIO) -> None:
        self._first = first
        self._data = data
        self.failure: BaseException | None = None

    def __iter__(self) -> Iterator[bytes]:
        part = self._first
        self._first = b""
        try:
            while part:
                yield part
                part = _fill(self._data)
        except Exception as exc:
            self.failure = exc
            raise


def _fill(data: BinaryIO) -> bytes:
    """The next part of a file: shorter only at its end, although a raw file may return less at once."""
    part = data.read(PART_BYTES)
    if len(part) in (0, PART_BYTES):
        return part
    pieces = [part]
    while (missing := PART_BYTES - sum(map(len, pieces))) and (piece := data.read(missing)):
        pieces.append(piece)
    return b"".join(pieces)


def _listed_info(meta: Any, cut: int) -> ObjectInfo:
    return ObjectInfo(meta["path"][cut:], meta["size"], None, _version(meta))


def _is_behind(path: str, prefix: str) -> bool:
    """Whether a sorted listing has passed all names that begin with `prefix`."""
    return path.encode() > prefix.encode() and not path.startswith(prefix)


def _version(meta: Any) -> str | None:
    version: str | None = meta.get("e_tag") or meta.get("version")
    return version or version_of_time(meta["last_modified"])


def version_of_time(modified: datetime | None) -> str | None:
    """A version for what a server only says when it was written: in seconds since 1970. None if it does not say that
    either, for which obstore gives the beginning of 1970."""
    seconds = 0 if modified is None else int(modified.timestamp())
    return f"modified {seconds}" if seconds > 0 else None


def beyond_end(place: str, start: int, end: int | None, size: int) -> StorageError:
    """The error for bytes start … end - 1 (None: to its end) of an object that has fewer."""
    fact = f"bytes {start} to {size if end is None else end} were requested, and it has {size}"
    return StorageError(place, fact, "check its entry in the manifest")
