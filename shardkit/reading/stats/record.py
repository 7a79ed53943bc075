"""Record one iteration: each thread adds to numbers of its own, without a lock, and `counts` sums them up.

All clocks are monotonic. Times are taken for a batch or a part of one, never for each sample.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

from shardkit.reading.stats.auto import State
from shardkit.reading.stats.times import Times
from shardkit.system import process_times

if TYPE_CHECKING:
    from typing_extensions import Buffer

T = TypeVar("T")

STAGES = ("wait", "hand_over", "step", "fetch", "decode", "transform", "request")


TELL_SECONDS = 1.0
"""The time between two reports on an iteration."""


class Meter:
    """The numbers of one thread.

    waited: seconds for bytes of a store. transformed: seconds in functions of map() and filter(), in the thread of the
    loop. busy: seconds in tasks. latency: those of `request` until the first byte.
    """

    __slots__ = ("busy", "bytes", "decode", "fetch", "latency", "request", "transform", "transformed", "waited")

    def __init__(self) -> None:
        self.fetch, self.decode, self.transform, self.request = Times(), Times(), Times(), Times()
        self.waited = self.transformed = self.busy = self.latency = 0.0
        self.bytes = 0


class _Local(threading.local):
    meter: Meter | None = None


@dataclass
class Counts:
    """All numbers of an iteration, or of a part of it; plain, so that they can be pickled and added."""

    seconds: float = 0.0
    first: float = 0.0
    batches: int = 0
    samples: int = 0
    bytes: float = 0.0
    skipped: int = 0
    ready: int = 0
    """The batches that were ready, added up over all deliveries."""
    busy: float = 0.0
    available: float = 0.0
    """Seconds of all decoding threads."""
    latency: float = 0.0
    fetched: int = 0
    cpu: float = 0.0
    faults: int = 0
    stages: dict[str, Times] = field(default_factory=lambda: {name: Times() for name in STAGES})

    def plus(self, other: Counts, sign: int = 1) -> Counts:
        """The sum of both; with sign -1 what was added since `other`."""
        names = [each.name for each in fields(self) if each.name != "stages"]
        found = Counts(**{name: getattr(self, name) + sign * getattr(other, name) for name in names})
        found.stages = {name: times.plus(other.stages[name], sign) for name, times in self.stages.items()}
        return found

    def of_threads(self) -> Counts:
        """What the threads of a worker counted, without the times of the loop that takes its batches."""
        found = self.plus(Counts())
        found.seconds = found.first = 0.0
        found.batches = found.ready = 0
        for name in ("wait", "hand_over", "step"):
            found.stages[name] = Times()
        return found


@dataclass(frozen=True, slots=True)
class Setting:
    """How an iteration reads.

    threads: that decode; 0 if none does. ahead: batches made ahead. cores: that this process may use. narrow: whether
    ahead_bytes keeps the requests to a store fewer or smaller than they would be. cached: whether it has a cache.
    """

    rank: int = 0
    world_size: int = 1
    threads: int = 0
    ahead: int = 0
    cores: int = 1
    narrow: bool = False
    cached: bool = False


class Kept:
    """What was found out in earlier epochs of a Dataset, for the next one: the state of auto.py, the bytes of a batch,
    and what was counted since the last decision."""

    def __init__(self) -> None:
        self.state: State | None = None
        self.batch_bytes = 0
        self.window = Counts()


class Recorder:
    """The record of one iteration. The thread of the loop calls `deliver`, `resume`, `blocked` and `taken`."""

    def __init__(self, threads: int = 0) -> None:
        self.threads = threads
        self.setting = Setting()
        self.skipped = 0
        self.batches = self.samples = self.ready = 0
        self.bytes = 0.0
        self.wait, self.hand_over, self.step = Times(), Times(), Times()
        self.begun = self._at = perf_counter()
        self.first = self.seconds = self._available = self._waited = 0.0
        self._local = _Local()
        self._meters: list[Meter] = []
        self._early: Counts | None = None
        self.tell: Callable[..., None] | None = None
        """Reports on the iteration: see live.py."""
        self._due = self.begun + TELL_SECONDS
        self.kept = Kept()
        self.others: dict[int, Counts] = {}
        """What each worker of a loader counted."""
        self.reserved = 0
        """The part of ahead_bytes that is for batches, and not for bytes of a store."""

    def begin(self, setting: Setting) -> None:
        """Note how the next part of the iteration reads."""
        self.setting, self.threads = setting, setting.threads

    def meter(self) -> Meter:
        """The numbers of this thread."""
        found = self._local.meter
        if found is None:
            found = self._local.meter = Meter()
            self._meters.append(found)
        return found

    # What the loop's thread tells

    def blocked(self, seconds: float, ready: int) -> None:
        """Count a wait of the loop for its next batch. ready: how many there were."""
        self._waited += seconds
        self.ready += ready

    def taken(self, samples: int, nbytes: float) -> None:
        """Count what the loop gets."""
        self.samples += samples
        self.bytes += nbytes

    def deliver(self) -> None:
        """Note that a batch goes to the loop now: the time since `resume` was the loader's."""
        now, meter = perf_counter(), self.meter()
        waited, self._waited = self._waited + meter.waited, 0.0
        transformed, meter.waited, meter.transformed = meter.transformed, 0.0, 0.0
        self.batches += 1
        if self._early is None:
            self.first = now - self.begun
            self._early = self.counts()
        else:
            self.wait.add(waited)
            self.hand_over.add(max(0.0, now - self._at - waited - transformed))
            if transformed:
                meter.transform.add(transformed)
            self._spend(now)
        self._at = now

    def resume(self) -> None:
        """Note that the loop asks for its next batch: the time since `deliver` was its own."""
        now = perf_counter()
        if self.tell is not None and now >= self._due:
            self._due = now + TELL_SECONDS
            self.tell()
            now = perf_counter()
        self.step.add(now - self._at)
        self._spend(now)
        self._at = now

    def _spend(self, now: float) -> None:
        self.seconds += now - self._at
        self._available += (now - self._at) * self.threads

    def through(self, items: Iterable[T]) -> Generator[T]:
        """The items, which are batches, timed."""
        try:
            for item in items:
                self.deliver()
                yield item
                self.resume()
        finally:
            self.over()

    def over(self) -> None:
        """Note the end of an epoch."""
        if self.tell is not None:
            self.tell(last=True)

    def timed(self, function: Callable[[Any], T]) -> Callable[[Any], T]:
        """The function of one item, which the loop's own thread calls, timed."""

        def call(item: Any) -> T:
            begun = perf_counter()
            try:
                return function(item)
            finally:
                self.meter().transformed += perf_counter() - begun

        return call

    # What any thread tells

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """A wait of this thread for a store."""
        begun = perf_counter()
        try:
            yield
        finally:
            self.meter().waited += perf_counter() - begun

    def requested(self, pieces: Iterable[Buffer]) -> Iterator[Buffer]:
        """The pieces that answer a request to a store, timed until each is used."""
        begun, first, nbytes = perf_counter(), 0.0, 0
        for piece in pieces:
            first = first or perf_counter() - begun
            nbytes += memoryview(piece).nbytes
            yield piece
        self.request(perf_counter() - begun, first, nbytes)

    def request(self, seconds: float, latency: float, nbytes: int) -> None:
        """Count a request to a store. latency: the seconds until its first byte; 0.0 where that is not known."""
        meter = self.meter()
        meter.request.add(seconds)
        meter.latency += latency
        meter.bytes += nbytes

    # What was told

    def counts(self) -> Counts:
        """What was counted so far."""
        cpu, faults = process_times()
        found = Counts(
            seconds=self.seconds, first=self.first, batches=self.batches, samples=self.samples, bytes=self.bytes,
            skipped=self.skipped, ready=self.ready, available=self._available, cpu=cpu, faults=faults,
        )  # fmt: skip
        for name in ("wait", "hand_over", "step"):
            found.stages[name] = found.stages[name].plus(getattr(self, name))
        for meter in list(self._meters):
            found.busy += meter.busy
            found.latency += meter.latency
            found.fetched += meter.bytes
            for name in ("fetch", "decode", "transform", "request"):
                found.stages[name] = found.stages[name].plus(getattr(meter, name))
        for other in list(self.others.values()):
            found = found.plus(other.of_threads())
        return found

    def early(self) -> Counts:
        """What was counted before the first batch was delivered."""
        return self._early or Counts()


class Spent:
    """What threads spend on one batch, part by part: (fetch, transform, all) in seconds."""

    __slots__ = ("parts",)

    def __init__(self) -> None:
        self.parts: list[tuple[float, float, float]] = []

    def add(self, whole: float, waited: float, marks: Sequence[float]) -> None:
        """Count a part that took `whole` seconds, of which `waited` for a store. marks: of one of its samples: when it
        was begun, read, decoded, and done; the part is taken to be divided as that one, without the waits."""
        read = applied = 0.0
        if len(marks) == 4 and marks[3] > marks[0]:
            rest = max(0.0, whole - waited) / (marks[3] - marks[0])
            read, applied = rest * (marks[1] - marks[0]), rest * (marks[3] - marks[2])
        self.parts.append((waited + read, applied, whole))

    def close(self, meter: Meter, begun: float, transform: float) -> None:
        """Count the batch, whose last step began then and included `transform` seconds of functions."""
        fetch, whole = 0.0, perf_counter() - begun
        for own, applied, total in self.parts:
            fetch += own
            transform += applied
            whole += total
        meter.fetch.add(fetch)
        if transform:
            meter.transform.add(transform)
        meter.decode.add(max(0.0, whole - fetch - transform))
