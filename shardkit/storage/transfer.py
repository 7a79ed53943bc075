"""Copy whole objects between stores, checking both what is sent and what arrives.

The CRC-32C is computed while the bytes pass. The last bytes are released only if it is correct, so that a file that is
damaged, or changes meanwhile, never becomes an object: a store's `put` is whole or absent.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Generator
from contextlib import suppress
from threading import Event
from typing import TYPE_CHECKING, BinaryIO, Literal, cast

from msgspec.structs import replace

from shardkit.checksums import crc32c
from shardkit.errors import DamagedError, NotFoundError, StorageError
from shardkit.location import Location
from shardkit.storage.etag import SCHEMES, Etag
from shardkit.storage.store import ObjectInfo, Store, read
from shardkit.threads import Stopped, in_threads

if TYPE_CHECKING:
    from typing_extensions import Buffer

log = logging.getLogger(__name__)

TransferCheck = Literal["store", "read", "none"]
"""How an object is checked after it was sent. store: by the store's own checksum (an ETag) if it has one, otherwise by
reading it back. read: by reading it back. none: not at all."""

PIECE_BYTES = 4 << 20
RANGE_BYTES = 8 << 20
"""The size of one request: at 1 GB/s and 10 ms to the first byte, about half of the time is spent on data."""
AHEAD = 4
"""Ranges of one object that are requested at once."""
SENDINGS = 3
"""How often an object is sent if it arrives damaged."""

Pieces = Callable[[], Generator["Buffer", None, None]]
"""The bytes of an object, from its start at each call."""
OnProgress = Callable[[int], None]
"""Called with the number of bytes transferred; negative if bytes must be sent again."""


def file_pieces(place: Location) -> Pieces:
    """The bytes of a local file."""

    def pieces() -> Generator[bytes, None, None]:
        try:
            with open(place.path, "rb", buffering=0) as file:
                while piece := file.read(PIECE_BYTES):
                    yield piece
        except FileNotFoundError as exc:
            raise NotFoundError(str(place), "the file is missing", "restore it") from exc
        except OSError as exc:
            raise StorageError(str(place), exc.strerror or str(exc), "check the disk and its permissions") from exc

    return pieces


def object_pieces(store: Store, name: str, size: int, stop: Event) -> Pieces:
    """The bytes of an object, in ranges that are requested ahead of use."""

    def one(start: int) -> Buffer:
        if stop.is_set():
            raise Stopped
        return read(store, name, start, min(start + RANGE_BYTES, size))

    def pieces() -> Generator[Buffer, None, None]:
        if size <= RANGE_BYTES:
            yield one(0)
            return
        yield from in_threads(one, range(0, size, RANGE_BYTES), AHEAD, ahead=AHEAD + 1, name="shardkit-read")

    return pieces


class Outgoing(io.RawIOBase):
    """The bytes of `wanted` as a file for `Store.put`, checked before the last of them are returned.

    failure: the error that a read raised; the library below `put` may have turned it into another one.
    """

    def __init__(
        self, pieces: Pieces, wanted: ObjectInfo, place: Location, on_progress: OnProgress, stop: Event, *, etag: bool
    ) -> None:
        self.wanted, self.place = wanted, place
        self._with_etag = etag
        self.failure: BaseException | None = None
        self._pieces, self._on_progress, self._stop = pieces, on_progress, stop
        self._at = 0
        self._restart()

    def _restart(self) -> None:
        self._source = self._pieces()
        self._rest = memoryview(b"")
        self._crc = self._done = self._taken = 0
        self.etag = Etag() if self._with_etag else None

    def readable(self) -> bool:
        """Always True."""
        return True

    def seekable(self) -> bool:
        """Always True: it can seek to its start and end, to find its length or read it again."""
        return True

    def tell(self) -> int:
        """The position of the next byte."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Seek to the start, the end, or the position read so far. After a failed read, raises that failure again."""
        if self.failure is not None:
            raise self.failure
        place = offset + (0, self._at, self.wanted.bytes)[whence]
        if place not in (0, self._taken, self.wanted.bytes):
            raise io.UnsupportedOperation("it can only be read from front to back")
        self._at = place
        return place

    def readinto(self, buffer: Buffer) -> int:
        """Read bytes into `buffer`, and return how many; 0 at the end."""
        with memoryview(buffer) as view, view.cast("B") as target:
            data = self.read(len(target))
            target[: len(data)] = data
            return len(data)

    def readall(self) -> bytes:
        """All remaining bytes."""
        return self.read()

    def read(self, size: int | None = -1, /) -> bytes:
        """The next `size` bytes; fewer only at the end."""
        left = self.wanted.bytes - self._at
        size = left if size is None or size < 0 else min(size, left)
        try:
            if self._at == 0 and self._taken:
                self._on_progress(-self._done)
                self._source.close()
                self._restart()
            return self._read(size)
        except BaseException as exc:
            self.failure = exc
            raise

    def _read(self, size: int) -> bytes:
        parts = []
        while size:
            if not self._rest:
                self._rest = self._next()
            part = self._rest[:size]
            self._rest = self._rest[len(part) :]
            parts.append(part)
            size -= len(part)
            self._taken += len(part)
        self._at = self._taken
        return parts[0].tobytes() if len(parts) == 1 else b"".join(parts)

    def _next(self) -> memoryview:
        """The next piece; the last one only if the whole object is as expected."""
        if self._stop.is_set():
            raise Stopped
        piece = memoryview(next(self._source, b"")).cast("B")
        self._crc = crc32c(piece, self._crc)
        if self.etag is not None:
            self.etag.update(piece)
        self._done += len(piece)
        self._on_progress(len(piece))
        if not piece or self._done >= self.wanted.bytes:
            self._require_whole(ended=not piece)
        return piece

    def _require_whole(self, *, ended: bool) -> None:
        size = self._done if ended or self._done > self.wanted.bytes else self._done + _length(next(self._source, b""))
        if size != self.wanted.bytes:
            more = "more" if size > self.wanted.bytes else f"{size}"
            fact = f"it has {more} bytes; {self.wanted.bytes} are expected"
        elif f"{self._crc:08x}" != self.wanted.crc32c:
            fact = f"its CRC-32C is {self._crc:08x}; {self.wanted.crc32c} is expected"
        else:
            return
        cure = "it is damaged or has changed: check it with 'shardkit verify', and pack or download it again"
        raise DamagedError(str(self.place), fact, cure)

    def end(self, *, sent: bool) -> None:
        """Close the source. If the object was not `sent`, its bytes are taken back from the progress."""
        self._source.close()
        if not sent:
            self._on_progress(-self._done)


def _length(piece: Buffer) -> int:
    with memoryview(piece) as view:
        return view.nbytes


def send(
    pieces: Pieces,
    place: Location,
    target: Store,
    wanted: ObjectInfo,
    *,
    check: TransferCheck,
    stop: Event,
    on_progress: OnProgress,
) -> None:
    """Write the object `wanted` (name, bytes, CRC-32C) to `target`, from the `pieces` of `place`, and check it there.

    Raises DamagedError if `place` has other content, StorageError if the object does not arrive, Stopped.
    """

    def put() -> Etag | None:
        body = Outgoing(
            pieces, wanted, place, on_progress, stop, etag=check == "store" and target.root.scheme in SCHEMES
        )
        sent = False
        try:
            target.put(wanted.name, cast(BinaryIO, body), crc32c=wanted.crc32c)
            sent = True
        except BaseException as exc:
            if body.failure is not None and body.failure is not exc:
                raise body.failure from exc
            raise
        finally:
            body.end(sent=sent)
        return body.etag

    fact = ""
    for again in range(1, SENDINGS + 1):
        if stop.is_set():
            raise Stopped
        try:
            etag = put()
        except DamagedError as exc:
            if place.is_local or again == SENDINGS:
                raise
            log.warning("%s: %s; fetching it again", place, exc.fact)
            continue
        found = _check_arrival(target, wanted, etag, check=check, stop=stop)
        if found is None:
            return
        fact = found
        log.warning("%s: %s; sending it again", target.root.child(wanted.name), fact)
        on_progress(-wanted.bytes)
    with suppress(StorageError):
        target.delete(wanted.name)
    cure = "check the network and the store, then run the same command again"
    raise StorageError(str(target.root.child(wanted.name)), f"it arrived damaged {SENDINGS} times: {fact}", cure)


def _check_arrival(
    store: Store, wanted: ObjectInfo, etag: Etag | None, *, check: TransferCheck, stop: Event
) -> str | None:
    """What is wrong with an object that was just sent; None if nothing is."""
    if check == "none":
        return None
    try:
        known = store.info(wanted.name)
        if known.bytes == wanted.bytes and etag is not None and etag.fits(known.version):
            return None
        return difference(store, wanted, known=replace(known, crc32c=None), stop=stop)
    except NotFoundError:
        return "it is missing"


def difference(store: Store, wanted: ObjectInfo, *, known: ObjectInfo, stop: Event) -> str | None:
    """How an object differs from `wanted`; None if it does not. If its CRC-32C is not `known`, it is read."""
    if known.bytes != wanted.bytes:
        return f"it has {known.bytes} bytes; {wanted.bytes} are expected"
    crc = known.crc32c or crc_of(object_pieces(store, wanted.name, wanted.bytes, stop))
    return None if crc == wanted.crc32c else f"its CRC-32C is {crc}; {wanted.crc32c} is expected"


def crc_of(pieces: Pieces) -> str:
    """The CRC-32C of all pieces, as 8 hex digits."""
    crc = 0
    for piece in pieces():
        crc = crc32c(piece, crc)
    return f"{crc:08x}"
