"""Wrapper stores: one that retries, and one with a time limit. Callers see a `Store`, and no retries.

open_patient    retries for as long as `Retry` allows: for transfers and scans, which have no time limit
open_timed      adds a time limit for each call: for readers, which prefer an error to a long wait
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from shardkit.errors import StorageError, TransientError
from shardkit.location import Location
from shardkit.storage.access import Remote
from shardkit.storage.retry import Patience, Retry, call_with_retries
from shardkit.storage.store import HasFolders, ObjectInfo, StorageOptions, Store, content_of, open_store, put_if
from shardkit.threads import BackgroundCall

if TYPE_CHECKING:
    from typing_extensions import Buffer

T = TypeVar("T")

GRACE_SECONDS = 1.0
"""Added to the time limit, so that a store's own error comes first if there is one."""

BATCH_NAMES = 10_000
"""Names of a listing that share a time limit."""


class Patient:
    """A store that retries after each TransientError, and raises StorageError when the retries are used up."""

    def __init__(self, store: Store, retry: Retry | None = None) -> None:
        self.store, self.retry = store, retry or Retry()
        self.root = store.root

    def __repr__(self) -> str:
        return f"Patient({self.store!r})"

    def info(self, name: str) -> ObjectInfo:
        """What is known of an object."""
        return call_with_retries(lambda: self.store.info(name), self.retry)

    def pieces(self, name: str, start: int = 0, end: int | None = None) -> Iterator[Buffer]:
        """The bytes start … end - 1; after a broken connection, reading resumes at the byte where it broke.

        Without an end, neither the length is known nor whether the object is still the same after a break: then it is
        read completely before the first piece is yielded. StorageError if the store sends more than requested.
        """
        if end is None or end <= start:
            return iter(call_with_retries(lambda: list(self.store.pieces(name, start, end)), self.retry))
        return self._continue(name, start, end)

    def _continue(self, name: str, start: int, end: int) -> Iterator[Buffer]:
        done, patience, place = start, Patience(self.retry), str(self.root.child(name))
        while done < end:
            try:
                for piece in self.store.pieces(name, done, end):
                    with memoryview(piece) as part:
                        size = part.nbytes
                    if size > end - done:
                        fact = f"the store sent more than the {end - start} bytes requested"
                        raise StorageError(place, fact, "use another server")
                    yield piece
                    done += size
                    if size:
                        patience.note_progress()
                if done < end:
                    fact = f"the store sent {done - start} of the {end - start} bytes requested"
                    raise TransientError(place, fact, "check the network and the store")
            except TransientError as exc:
                patience.wait(exc)

    def put(self, name: str, data: BinaryIO, *, crc32c: str | None = None) -> None:
        """Write an object. A retry reads `data` again from its current position; without seek there is no retry."""
        if not data.seekable():
            self.store.put(name, data, crc32c=crc32c)
            return
        start = data.tell()

        def act() -> None:
            data.seek(start)
            self.store.put(name, data, crc32c=crc32c)

        call_with_retries(act, self.retry)

    def put_if(self, name: str, data: bytes, *, version: str | None, crc32c: str | None = None) -> str | None:
        """Write an object on a condition, as `put_if` does. A retry finds what the first attempt wrote, and returns its
        version."""
        retried = False

        def act() -> str | None:
            nonlocal retried
            again, retried = retried, True
            written = put_if(self.store, name, data, version=version, crc32c=crc32c)
            if written is None and again and content_of(self.store, name) == data:
                return self.store.info(name).version or ""
            return written

        return call_with_retries(act, self.retry)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """The objects whose names begin with `prefix`; after a break the listing resumes after the last one."""
        last, patience, came = b"", Patience(self.retry), False
        while True:
            try:
                for found in self.store.list(prefix):
                    name = found.name.encode("utf-8", "surrogateescape")
                    if name > last:
                        last, came = name, True
                        yield found
                return
            except TransientError as exc:
                if came:  # the caller may have spent a long time on the names
                    patience, came = Patience(self.retry), False
                patience.wait(exc)

    def delete(self, name: str) -> None:
        """Remove an object."""
        call_with_retries(lambda: self.store.delete(name), self.retry)

    def folders(self, name: str = "") -> tuple[Sequence[str], Sequence[ObjectInfo]] | None:
        """As `HasFolders.folders`; None if the store does not support it."""
        store = self.store
        return call_with_retries(lambda: store.folders(name), self.retry) if isinstance(store, HasFolders) else None


class Timed:
    """A store with a time limit: StorageError if a call takes longer than `seconds`.

    Each call runs in its own thread, which is abandoned after the limit, since no store can be relied on to end a call.
    Callers can be interrupted while they wait. `put` has no limit.
    """

    def __init__(self, store: Store, seconds: float) -> None:
        self.store, self.seconds = store, seconds
        self.root = store.root

    def __repr__(self) -> str:
        return f"Timed({self.store!r}, {self.seconds:g})"

    def info(self, name: str) -> ObjectInfo:
        """What is known of an object."""
        return self._in_time(name, lambda: self.store.info(name))

    def pieces(self, name: str, start: int = 0, end: int | None = None) -> Iterator[Buffer]:
        """The bytes start … end - 1, returned when all of them have arrived."""
        return iter(self._in_time(name, lambda: list(self.store.pieces(name, start, end))))

    def put(self, name: str, data: BinaryIO, *, crc32c: str | None = None) -> None:
        """Write an object."""
        self.store.put(name, data, crc32c=crc32c)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """The objects whose names begin with `prefix`."""
        coming = self._in_time(prefix, lambda: iter(self.store.list(prefix)))
        while batch := self._in_time(prefix, lambda: list(itertools.islice(coming, BATCH_NAMES))):
            yield from batch

    def delete(self, name: str) -> None:
        """Remove an object."""
        self._in_time(name, lambda: self.store.delete(name))

    def folders(self, name: str = "") -> tuple[Sequence[str], Sequence[ObjectInfo]] | None:
        """As `HasFolders.folders`; None where the store has none."""
        store = self.store
        return self._in_time(name, lambda: store.folders(name)) if isinstance(store, HasFolders) else None

    def _in_time(self, name: str, act: Callable[[], T]) -> T:
        call = BackgroundCall(act)
        if not call.wait(self.seconds + GRACE_SECONDS):
            raise timed_out(str(self.root.child(name) if name else self.root), self.seconds)
        return call.result()


def timed_out(place: str, seconds: float) -> StorageError:
    """The error for a store that does not answer."""
    fact = f"the store did not answer within {seconds:g} seconds"
    return StorageError(place, fact, "check the network and the store, or raise timeout_seconds")


def open_patient(folder: Location, options: StorageOptions | None = None, retry: Retry | None = None) -> Patient:
    """Open the store whose root is `folder` as `open_store` does, with retries."""
    return Patient(open_store(folder, options), retry)


def open_timed(folder: Location, how: Remote) -> Timed:
    """Open the store whose root is `folder`, with retries and a time limit."""
    return Timed(
        open_patient(folder, how.storage_options, Retry(total_seconds=how.timeout_seconds)), how.timeout_seconds
    )
