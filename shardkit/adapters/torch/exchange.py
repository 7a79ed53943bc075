"""Shared memory in which workers hand their batches to the training process, used again and again.

Each worker has a file in memory without a name (memfd_create(2)): nothing is left behind in /dev/shm by a process that
is killed, and its size does not matter. Both processes map it. It holds arenas:

| bytes of an arena | content |
|---|---|
| 0 … 4095 | a byte for each slot: 1 from when it is sent until the last tensor on it is gone in the training process |
| 4096 + number · size … | slot `number` |

The worker decodes into a slot that neither process uses, so arrays that somebody keeps are never overwritten. A batch
larger than the slots begins a new arena behind the last one, whose memory is returned when all its slots are free.
"""

from __future__ import annotations

import itertools
import math
import mmap
import os
import threading
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.reduction import DupFd
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from shardkit.reading.batches.memory import BufferPool

PAGE = mmap.ALLOCATIONGRANULARITY

KEPT = 16
"""At least so many batches of a worker may be kept in its slots; further ones are copied out of them."""

GROWTH = 1.5
"""How much larger the slots of a new arena are at least: batches of images without a size differ in theirs."""


class Place(NamedTuple):
    """Where an arena is: in the file of which worker, from which byte on, and how many slots of how many bytes."""

    worker: int
    first: int
    size: int
    slots: int


class Arena:
    """Slots of one size in the file of a worker, mapped by one of the two processes. OSError if it can't be."""

    def __init__(self, file: int, place: Place) -> None:
        self.place = place
        self.size, self.count = place.size, place.slots
        self.map = mmap.mmap(file, PAGE + self.size * self.count, offset=place.first)
        self.bytes = np.frombuffer(self.map, np.uint8)
        self.sent = self.bytes[: self.count]
        self.address = self.bytes.ctypes.data + PAGE
        self.held: set[int] = set()
        """The slots that arrays of the training process are on."""
        self.closed = False

    def slot(self, number: int) -> NDArray[np.uint8]:
        """The bytes of a slot."""
        begin = PAGE + number * self.size
        return self.bytes[begin : begin + self.size]

    def slot_at(self, address: int) -> int | None:
        """The slot in which this address is; None if it is elsewhere."""
        number = (address - self.address) // self.size
        return number if 0 <= number < self.count else None

    def drop(self, number: int) -> None:
        """Return the memory of a slot to the system."""
        with suppress(OSError):
            self.map.madvise(mmap.MADV_REMOVE, PAGE + number * self.size, self.size)


class _Lent:
    """Owns a slot for all arrays on it in this process. A forked process has a copy, which owns nothing."""

    def __init__(self, arena: Arena, number: int) -> None:
        self.arena, self.number, self._process = arena, number, os.getpid()

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return self.arena.slot(self.number).__array_interface__

    def __del__(self) -> None:
        if self._process == os.getpid():
            self.free()

    def free(self) -> None:
        """Called when the last array is gone."""
        raise NotImplementedError


class _Received(_Lent):
    """A slot whose batch has arrived in the training process."""

    def __init__(self, arena: Arena, number: int) -> None:
        super().__init__(arena, number)
        arena.held.add(number)

    def free(self) -> None:
        self.arena.held.discard(self.number)
        self.arena.sent[self.number] = 0
        if self.arena.closed:
            self.arena.drop(self.number)


class _Filled(_Lent):
    """A slot that the worker fills."""

    def __init__(self, arena: Arena, number: int, idle: deque[int]) -> None:
        super().__init__(arena, number)
        self._idle = idle

    def free(self) -> None:
        self._idle.append(self.number)


class Sender:
    """The worker's side: lends slots to decode into, like a BufferPool, and marks those that are sent. Thread safe."""

    def __init__(self, file: int, worker: int, token: int, ahead: int) -> None:
        self.token = token
        self._file, self._worker = file, worker
        self._count = min(2 * (KEPT + ahead), PAGE)
        self._spare = BufferPool(ahead)
        self._lock = threading.Lock()
        self._arena: Arena | None = None
        self._idle: deque[int] = deque()
        self._allocated: dict[int, int] = {}
        self._old: list[tuple[Arena, deque[int]]] = []

    @property
    def arenas(self) -> list[Arena]:
        """The arenas with slots in use."""
        return [] if self._arena is None else [self._arena, *(arena for arena, _ in self._old)]

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Like `numpy.empty`, in a slot. If none is free, in memory of this process only."""
        kind = np.dtype(dtype)
        nbytes = math.prod(shape) * kind.itemsize
        lent = self._lend(nbytes)
        if lent is None:
            return self._spare.empty(shape, kind)
        return np.asarray(lent)[:nbytes].view(kind).reshape(shape)

    def _lend(self, nbytes: int) -> _Filled | None:
        with self._lock:
            self._return_old()
            try:
                if self._arena is None or self._arena.size < nbytes:
                    self._begin(nbytes)
                number = self._free_slot(nbytes)
            except OSError:  # no memory, or a limit of the process
                return None
            assert self._arena is not None
            return None if number is None else _Filled(self._arena, number, self._idle)

    def _begin(self, nbytes: int) -> None:
        before = self._arena
        if before is not None:
            nbytes = max(nbytes, int(before.size * GROWTH))
        size = -(-max(nbytes, 1) // PAGE) * PAGE
        first = os.fstat(self._file).st_size
        os.ftruncate(self._file, first + PAGE + size * self._count)
        arena = Arena(self._file, Place(self._worker, first, size, self._count))
        if before is not None:
            self._old.append((before, self._idle))
        self._arena, self._idle, self._allocated = arena, deque(range(self._count)), {}

    def _free_slot(self, nbytes: int) -> int | None:
        """A slot that nobody uses, with memory for its first bytes: the one used last, if possible. OSError."""
        arena, waiting = self._arena, []
        assert arena is not None
        found = None
        while self._idle:
            number = self._idle.pop()
            if not arena.sent[number]:
                found = number
                break
            waiting.append(number)
        self._idle.extend(reversed(waiting))  # used before those without memory, once they are free
        if found is not None and self._allocated.get(found, 0) < nbytes:
            try:  # without this, a lack of memory would end the process at its first write
                os.posix_fallocate(self._file, arena.place.first + PAGE + found * arena.size, nbytes)
            except OSError:
                self._idle.appendleft(found)
                raise
            self._allocated[found] = nbytes
        return found

    def _return_old(self) -> None:
        for arena, idle in list(self._old):
            if len(idle) == arena.count and not arena.sent.any():
                arena.map.madvise(mmap.MADV_REMOVE)
                self._old.remove((arena, idle))


class Exchange:
    """The files of all workers, made by the training process, which receives their slots. One for each iteration."""

    _all: ClassVar[weakref.WeakValueDictionary[int, Exchange]] = weakref.WeakValueDictionary()
    _tokens: ClassVar[Iterator[int]] = itertools.count()

    def __init__(self, workers: int, prefetched: int) -> None:
        self.token = next(self._tokens)
        self.prefetched = prefetched
        self.files = [_MemoryFile() for _ in range(workers)]
        self._arenas: dict[Place, Arena] = {}
        self._sender: Sender | None = None
        self._all[self.token] = self

    @classmethod
    def of(cls, token: int) -> Exchange:
        """The exchange of this process with this token."""
        return cls._all[token]

    def sender(self, worker: int, ahead: int) -> Sender:
        """The side of this worker. ahead: batches that it makes ahead."""
        if self._sender is None:
            self._sender = Sender(self.files[worker].number, worker, self.token, ahead + self.prefetched)
        return self._sender

    def received(self, slots: Sequence[tuple[Place, int]]) -> tuple[list[NDArray[np.uint8]], bool]:
        """The slots of a batch, which are free again when all arrays on them are gone; and whether to copy them now,
        since too many are kept.
        """
        found, too_many = [], False
        for place, number in slots:
            arena = self._arenas.get(place) or self._mapped(place)
            too_many = too_many or int(arena.sent.sum()) > arena.count // 2
            found.append(np.asarray(_Received(arena, number)))
        return found, too_many

    def _mapped(self, place: Place) -> Arena:
        self._arenas = {
            old: arena for old, arena in self._arenas.items() if old.worker != place.worker or arena.held
        }  # a new arena: others of this worker may be gone
        self._arenas[place] = Arena(self.files[place.worker].number, place)
        return self._arenas[place]

    def close(self) -> None:
        """Return all memory but that of the slots in use, which follows when they are not. The workers have ended."""
        for arena in self._arenas.values():
            arena.closed = True
            for number in set(range(arena.count)) - arena.held:
                arena.drop(number)
        self._arenas.clear()


class _MemoryFile:
    """A file in memory without a name. A process that is started with it gets it, too."""

    def __init__(self, number: int | None = None) -> None:
        self.number = os.memfd_create("shardkit-batches") if number is None else number
        weakref.finalize(self, os.close, self.number)

    def __reduce__(self) -> tuple[Any, ...]:
        return _inherited, (DupFd(self.number),)


def _inherited(handle: Any) -> _MemoryFile:
    return _MemoryFile(handle.detach())


def open_exchange(workers: int, prefetched: int) -> Exchange | None:
    """An exchange; None where the system has no files in memory. prefetched: batches of each worker that may wait."""
    if not hasattr(os, "memfd_create"):
        return None
    try:
        return Exchange(workers, prefetched)
    except OSError:
        return None
