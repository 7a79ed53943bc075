"""The `Store` protocol: named objects below one root. And the choice of store for a location.

A store is one file with one class, and one line in `_STORES`. It is thread safe, connects lazily, and is never closed:
connections end with the last reference. Other processes get its location and options, never the object.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, runtime_checkable

import msgspec

from shardkit.errors import NotFoundError, UsageError, redacted
from shardkit.location import Location

if TYPE_CHECKING:
    from typing_extensions import Buffer

StorageOptions = Mapping[str, Any]
"""Credentials, endpoint, region and the like, by the names that the provider's library uses. Never written to a file,
logged or included in an error."""


class ObjectInfo(msgspec.Struct, frozen=True):
    """An object of a store. crc32c: of its content, as 8 hex digits, if the store knows it: some compute it, others
    keep what `put` was given (see each class). version: changes with the content
    (an ETag, or else the time of the last change), if the store has one."""

    name: str
    bytes: int
    crc32c: str | None = None
    version: str | None = None


class Readable(Protocol):
    """What a store is to those who only read. Errors as in `Store`."""

    @property
    def root(self) -> Location:
        """The folder, or bucket and prefix, that names are relative to."""
        ...

    def info(self, name: str) -> ObjectInfo:
        """The size and other facts about an object, without reading it."""
        ...

    def pieces(self, name: str, start: int = 0, end: int | None = None) -> Iterator[Buffer]:
        """The bytes start … end - 1 of an object, in order, in pieces of any size above 0; end None: to its end.

        The iterator ends after exactly those bytes, or raises: TransientError if the connection breaks before.
        """
        ...


class Store(Readable, Protocol):
    """Objects below one root. Names are relative to it, with `/` between their parts.

    Every method may raise TransientError (`Patient` retries), StorageError (retrying won't help), NotFoundError if the
    object does not exist. Errors name `root.child(name)`, and contain no credentials.
    """

    def put(self, name: str, data: BinaryIO, *, crc32c: str | None = None) -> None:
        """Write an object, replacing an existing one. It is absent or whole: a partial object is never visible.

        data: read from its current position to its end. crc32c: stored with the object if the store supports it.
        """
        ...

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """The objects whose names begin with `prefix`, at any depth, sorted by name (as UTF-8 bytes)."""
        ...

    def delete(self, name: str) -> None:
        """Remove an object; does nothing if it does not exist."""
        ...


@runtime_checkable
class HasFolders(Protocol):
    """A store that can list the folders in a folder without their content."""

    def folders(self, name: str = "") -> tuple[Sequence[str], Sequence[ObjectInfo]]:
        """(names of the folders, objects) directly in a folder."""
        ...


@runtime_checkable
class Conditional(Protocol):
    """A store that writes an object on a condition, so that of several writers one succeeds and the others know."""

    def put_if(self, name: str, data: bytes, *, version: str | None, crc32c: str | None = None) -> str | None:
        """Write a small object if there is none (`version` None), or if it still has this version. crc32c: as in `put`.

        Returns the version of what was written; None if the condition does not hold, and nothing was written. After a
        TransientError, it may have been written all the same.
        """
        ...


_STORES = {
    "": "local:LocalStore",
    "memory": "memory:MemoryStore",
    **dict.fromkeys(("s3", "s3a", "gs", "az", "abfs", "abfss"), "cloud:RemoteStore"),
    **dict.fromkeys(("http", "https"), "web:open_web"),
}
"""Scheme -> module and class in this folder. Any other scheme goes to fsspec."""

_AROUND = {"slow": "slow_and_faulty:open_slow", "faulty": "slow_and_faulty:open_faulty"}
"""Prefix before the `+` of a scheme, as in `slow+s3://…`, for tests and benchmarks."""


def open_store(folder: Location, options: StorageOptions | None = None) -> Store:
    """Open the store whose root is `folder`. Nothing is read or written yet.

    Raises UsageError for invalid options or an unknown scheme, MissingExtraError if a package is missing.
    """
    around, plus, _ = folder.scheme.partition("+")
    here = _AROUND if plus and around in _AROUND else _STORES
    module, _, name = here.get(around if here is _AROUND else folder.scheme, "fsspec:FsspecStore").partition(":")
    opener: Callable[[Location, StorageOptions], Store] = getattr(
        import_module(f"shardkit.storage.stores.{module}"), name
    )
    return opener(folder, dict(options or {}))


def read(store: Readable, name: str, start: int, end: int) -> Buffer:
    """The bytes start … end - 1 of an object in one buffer. A single piece is returned without a copy."""
    if start == end:
        return b""
    coming = iter(store.pieces(name, start, end))
    first = next(coming, b"")
    with memoryview(first) as whole:
        if whole.nbytes == end - start:
            return first
    data = bytearray(end - start)
    view, done = memoryview(data), 0
    for piece in itertools.chain((first,), coming):
        with memoryview(piece).cast("B") as part:
            view[done : done + len(part)] = part
            done += len(part)
    return data


def content_of(store: Readable, name: str) -> bytes | None:
    """A whole small object; None if there is none."""
    try:
        return b"".join(bytes(piece) for piece in store.pieces(name))
    except NotFoundError:
        return None


def put_if(store: Store, name: str, data: bytes, *, version: str | None, crc32c: str | None = None) -> str | None:
    """As `Conditional.put_if`. A store that has no conditions is asked first, so that two writers at the very same time
    may both succeed."""
    if isinstance(store, Conditional):
        return store.put_if(name, data, version=version, crc32c=crc32c)
    try:
        there = store.info(name).version or ""
    except NotFoundError:
        there = None
    if there != version:
        return None
    store.put(name, io.BytesIO(data), crc32c=crc32c)
    return store.info(name).version or ""


def has_conditions(store: Store) -> bool:
    """Whether `put_if` leaves the decision to the store itself, so that of several writers only one succeeds."""
    while (inner := getattr(store, "store", None)) is not None:  # of a store that wraps another
        store = inner
    return isinstance(store, Conditional)


def require_name(name: str) -> str:
    """Return the name if it stays below the root of a store. Raises UsageError if not."""
    parts = name.split("/")
    if not name or "\0" in name or any(part in ("", ".", "..") for part in parts):
        raise UsageError(name or "object", "this is not a name below the store's root", "give a relative name")
    return name


def harmless(exc: Exception) -> Exception:
    """`exc`, or if its text contains credentials, an exception of the same class without them: for the `from` of an
    error, which a traceback shows. obstore's texts contain the URL of the request, with Azure's signature in it."""
    if redacted(str(exc)) == str(exc):
        return exc
    try:
        return type(exc)(redacted(str(exc)))
    except Exception:  # a class with other parameters
        return Exception(f"{type(exc).__name__}: {redacted(str(exc))}")
