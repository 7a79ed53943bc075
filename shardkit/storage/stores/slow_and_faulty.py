"""Wrapper stores that are slow or fail, for tests and benchmarks.

They can also be opened by URL, so that anything that takes a URL can be tested with them, in any process:
`slow+s3://…` and `faulty+memory://…`, with the fields of `Slowness` or `Faults` as storage options
(`latency_seconds=0.03`) beside those of the inner store; `slow+file:///path` for a local folder.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast

import msgspec
from msgspec.structs import fields

from shardkit.errors import TransientError, UsageError
from shardkit.location import Location, locate
from shardkit.rng import stream_key
from shardkit.storage.store import ObjectInfo, StorageOptions, Store, open_store, put_if

if TYPE_CHECKING:
    from typing_extensions import Buffer

V = TypeVar("V", "Slowness", "Faults")

SLICES_PER_SECOND = 100
"""Bytes pass the bandwidth limit in slices of 1/100 second, so that parallel streams share it evenly."""

BURST_SECONDS = 0.05
"""How much lost time a stream may make up for: sleep() overruns, which would lower the actual limit."""


class Slowness(msgspec.Struct, frozen=True):
    """latency_seconds: before the first byte of each request. bytes_per_second: for all streams; 0: no limit."""

    latency_seconds: float = 0.0
    bytes_per_second: float = 0.0

    def __post_init__(self) -> None:
        if self.latency_seconds < 0 or self.bytes_per_second < 0:
            raise UsageError("Slowness", "a number is below 0", "give 0 or more")


class SlowStore:
    """A store with a latency, and a bandwidth that all requests of the process to it share."""

    def __init__(self, store: Store, slowness: Slowness, *, root: Location | None = None) -> None:
        self.store = store
        self.slowness = slowness
        self.root = root or store.root
        self._bandwidth = _bandwidth(str(self.root), slowness.bytes_per_second)

    def __repr__(self) -> str:
        return f"SlowStore({self.root})"

    def info(self, name: str) -> ObjectInfo:
        """The facts about an object, after the latency."""
        time.sleep(self.slowness.latency_seconds)
        return self.store.info(name)

    def pieces(self, name: str, start: int = 0, end: int | None = None) -> Iterator[Buffer]:
        """The bytes start … end - 1, after the latency and at the limited bandwidth."""
        time.sleep(self.slowness.latency_seconds)
        for piece in self.store.pieces(name, start, end):
            yield from self._bandwidth.passed(piece)

    def put(self, name: str, data: BinaryIO, *, crc32c: str | None = None) -> None:
        """Write an object, after the latency and at the limited bandwidth."""
        time.sleep(self.slowness.latency_seconds)
        self.store.put(name, cast(BinaryIO, _Counted(data, self._bandwidth.take)), crc32c=crc32c)

    def put_if(self, name: str, data: bytes, *, version: str | None, crc32c: str | None = None) -> str | None:
        """Write an object on a condition, after the latency."""
        time.sleep(self.slowness.latency_seconds)
        return put_if(self.store, name, data, version=version, crc32c=crc32c)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """The objects whose names begin with `prefix`, after the latency."""
        time.sleep(self.slowness.latency_seconds)
        return self.store.list(prefix)

    def delete(self, name: str) -> None:
        """Remove an object, after the latency."""
        time.sleep(self.slowness.latency_seconds)
        self.store.delete(name)


class _Bandwidth:
    """A limit on bytes per second. Unused time is saved up for BURST_SECONDS at most."""

    def __init__(self, bytes_per_second: float) -> None:
        self.bytes_per_second = bytes_per_second
        self._lock = threading.Lock()
        self._free = 0.0

    def passed(self, piece: Buffer) -> Iterator[Buffer]:
        """Yield the piece in slices, each when the limit allows it."""
        if not self.bytes_per_second:
            yield piece
            return
        view = memoryview(piece).cast("B")
        step = max(1, int(self.bytes_per_second / SLICES_PER_SECOND))
        for at in range(0, len(view), step):
            part = view[at : at + step]
            self.take(len(part))
            yield part

    def take(self, count: int) -> None:
        """Sleep until the limit allows `count` more bytes."""
        if not self.bytes_per_second:
            return
        with self._lock:
            self._free = max(self._free, time.monotonic() - BURST_SECONDS) + count / self.bytes_per_second
            pause = self._free - time.monotonic()
        if pause > 0:
            time.sleep(pause)


_BANDWIDTHS: dict[tuple[str, float], _Bandwidth] = {}
_LOCK = threading.Lock()


def _bandwidth(place: str, bytes_per_second: float) -> _Bandwidth:
    """The limit shared by all stores of this process at a place, since a store may be opened more than once."""
    with _LOCK:
        return _BANDWIDTHS.setdefault((place, bytes_per_second), _Bandwidth(bytes_per_second))


class Faults(msgspec.Struct, frozen=True):
    """The share of requests (0 … 1) that fail in each way; the rest succeed.

    refused: a 503 before any byte. reset: the connection breaks at a random byte. short: the body ends early, without
    an error. corrupt: one byte of the body is wrong. hang: nothing happens for `hang_seconds`, then a time-out. lost: a
    put or delete succeeds, but its answer is lost. seed: for everything random.
    """

    refused: float = 0.0
    reset: float = 0.0
    short: float = 0.0
    corrupt: float = 0.0
    hang: float = 0.0
    lost: float = 0.0
    hang_seconds: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        shares = (self.refused, self.reset, self.short, self.corrupt, self.hang, self.lost)
        if min(shares) < 0 or sum(shares) > 1:
            raise UsageError("Faults", f"the shares are {shares}", "give numbers from 0 to 1 whose sum is at most 1")


_BODY_ONLY = ("short", "corrupt")
_CHANGE_ONLY = ("lost",)


class FaultyStore:
    """A store that fails as configured by `faults`.

    The outcome of the n-th request for the same bytes of the same object depends on the seed alone, not on other
    threads. `counts`: how often each fault occurred, and "fine".
    """

    def __init__(self, store: Store, faults: Faults, *, root: Location | None = None) -> None:
        self.store = store
        self.faults = faults
        self.root = root or store.root
        self.counts: Counter[str] = Counter()
        self._asked: Counter[tuple[Any, ...]] = Counter()
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"FaultyStore({self.root})"

    def info(self, name: str) -> ObjectInfo:
        """The facts about an object, or a fault."""
        self._before("info", name)
        return self.store.info(name)

    def pieces(self, name: str, start: int = 0, end: int | None = None) -> Iterator[Buffer]:
        """The bytes start … end - 1, or a fault at any point."""
        fault, random_ = self._before("pieces", name, start, end)
        if fault == "fine":
            yield from self.store.pieces(name, start, end)
            return
        stop = self.store.info(name).bytes if end is None else end
        at = random_.randrange(start, stop) if start < stop else start
        done = start
        for piece in self.store.pieces(name, start, end):
            with memoryview(piece).cast("B") as view:
                part = bytearray(view)
            if done <= at < done + len(part):
                if fault == "corrupt":
                    part[at - done] ^= random_.randrange(1, 256)
                else:
                    if at > done:
                        yield memoryview(part)[: at - done]
                    self._end(fault, name)
                    return
            done += len(part)
            yield part

    def _end(self, fault: str, name: str) -> None:
        """End a body early: with an error, except for the fault `short`."""
        if fault == "hang":
            time.sleep(self.faults.hang_seconds)
            raise self._failure(name, "the store stopped answering (time-out)")
        if fault == "reset":
            raise self._failure(name, "the connection broke")

    def put(self, name: str, data: BinaryIO, *, crc32c: str | None = None) -> None:
        """Write an object, or a fault: before anything is written, or after it."""
        fault, random_ = self._before("put", name)
        if fault == "reset":
            data.read(random_.randrange(1 << 20))
            raise self._failure(name, "the connection broke")
        self.store.put(name, data, crc32c=crc32c)
        if fault == "lost":
            raise self._failure(name, "the connection broke before the answer came")

    def put_if(self, name: str, data: bytes, *, version: str | None, crc32c: str | None = None) -> str | None:
        """Write an object on a condition, or a fault: before it is written, or after it."""
        fault, _ = self._before("put", name)
        if fault == "reset":
            raise self._failure(name, "the connection broke")
        written = put_if(self.store, name, data, version=version, crc32c=crc32c)
        if fault == "lost":
            raise self._failure(name, "the connection broke before the answer came")
        return written

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """The objects whose names begin with `prefix`, or a fault."""
        self._before("list", prefix)
        return self.store.list(prefix)

    def delete(self, name: str) -> None:
        """Remove an object, or a fault."""
        fault, _ = self._before("delete", name)
        self.store.delete(name)
        if fault == "lost":
            raise self._failure(name, "the connection broke before the answer came")

    def _before(self, *request: Any) -> tuple[str, random.Random]:
        """(the fault of this request, its random generator). A fault that needs no body is raised here."""
        with self._lock:
            self._asked[request] += 1
            nth = self._asked[request]
        random_ = random.Random(stream_key(self.faults.seed, *map(str, request), nth))
        fault = self._drawn(random_.random(), request[0])
        with self._lock:
            self.counts[fault] += 1
        name = request[1]
        if fault == "refused":
            raise self._failure(name, "the store is not ready (503 Slow Down)")
        if fault == "hang" and request[0] != "pieces":
            self._end(fault, name)
        if fault == "reset" and request[0] not in ("pieces", "put"):
            raise self._failure(name, "the connection broke")
        return fault, random_

    def _drawn(self, point: float, act: str) -> str:
        """The fault for `point` in [0, 1), if it applies to such a request; otherwise "fine"."""
        for fault in ("refused", "reset", "short", "corrupt", "hang", "lost"):
            point -= getattr(self.faults, fault)
            if point < 0:
                wrong = (fault in _BODY_ONLY and act != "pieces") or (
                    fault in _CHANGE_ONLY and act not in ("put", "delete")
                )
                return "fine" if wrong else fault
        return "fine"

    def _failure(self, name: str, fact: str) -> TransientError:
        return TransientError(str(self.root.child(name) if name else self.root), fact, "try again")


class _Counted:
    """A file that reports how much is read from it."""

    def __init__(self, data: BinaryIO, took: Callable[[int], None]) -> None:
        self._data = data
        self._took = took

    def read(self, count: int = -1) -> bytes:
        piece = self._data.read(count)
        self._took(len(piece))
        return piece


def open_slow(folder: Location, options: StorageOptions) -> SlowStore:
    """Open the store of a `slow+…` URL."""
    slowness, rest = _taken(Slowness, options)
    return SlowStore(open_store(_inside(folder), rest), slowness, root=folder)


def open_faulty(folder: Location, options: StorageOptions) -> FaultyStore:
    """Open the store of a `faulty+…` URL."""
    faults, rest = _taken(Faults, options)
    return FaultyStore(open_store(_inside(folder), rest), faults, root=folder)


def _inside(folder: Location) -> Location:
    return locate(folder.url.partition("+")[2])


def _taken(kind: type[V], options: StorageOptions) -> tuple[V, dict[str, Any]]:
    """(a `kind` built from the options that are its fields, the other options)."""
    rest = dict(options)
    own: dict[str, Any] = {field.name: rest.pop(field.name) for field in fields(kind) if field.name in rest}
    try:
        own = {name: int(value) if name == "seed" else float(value) for name, value in own.items()}
    except ValueError as exc:
        raise UsageError("storage options", f"{kind.__name__} needs numbers ({exc})", "give numbers") from exc
    return kind(**own), rest
