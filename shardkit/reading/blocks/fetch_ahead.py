"""Fetch samples of a store's shards ahead of use: few large requests, several at a time, in the order of need.

    known    blocks whose samples are looked up: as far ahead as those of one chunk are apart, 2 buffers and more
    started  the first of them, as many as 16 chunks: what they need is requested

When a block is started, each chunk of a shard (4 MiB) in which one of its samples begins is fetched, but only the known
samples in it, with gaps of up to GAP_BYTES. So in a dense order a chunk takes a single request, and a sparse selection
costs no more than its samples. The bytes that arrive are split into samples, each of which is released with its block.
Memory thus holds the waiting samples, about one shuffle buffer, and the requests in flight. If ahead_bytes is less than
that, fewer blocks are known; then requests are smaller, and gaps are fetched repeatedly.
"""

from __future__ import annotations

import itertools
import logging
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shardkit.reading.batches.memory import keep_freed_memory
from shardkit.reading.blocks.block import ALONE, Catalog, Placed, Readers
from shardkit.reading.stats.record import Recorder
from shardkit.shards.fetched import FetchedShards
from shardkit.storage.access import Remote
from shardkit.storage.fetchers import REQUESTS, Fetchers
from shardkit.units import format_bytes

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from shardkit.reading.blocks.fetched import FetchedBytes

log = logging.getLogger(__name__)

CHUNK_BYTES = 4 << 20
WIDE = 2
"""Consecutive chunks are joined into one request while the store is not slow: then the cost per request matters. Over
loopback 8 MiB are 6 % faster than 4, and 16 no faster."""

GAP_BYTES = 128 << 10
"""The largest gap between two samples to fetch along with them: it costs less than another request."""

DENSE_SHARE = 4
"""Processes that share fetch a whole chunk where together they need a quarter of it; of others only what each needs."""

AROUND_BYTES = 2048
"""What is around an image in a tar and need not be fetched with it: headers, padding, its label."""

KNOWN_SAMPLES = 16_384
"""The maximum number of samples to look up beyond that window."""

KEPT_SHARE = 4
"""Samples of a shuffle stay in the buffer in which they arrived if those it draws from are at most this part of
ahead_bytes."""


def chunk_bytes(how: Remote) -> int:
    """The size of a request: smaller if little may be in flight."""
    return min(CHUNK_BYTES, max(64 << 10, how.ahead_bytes // REQUESTS))


def is_narrow(how: Remote) -> bool:
    """Whether ahead_bytes allows fewer or smaller requests at a time than there would be without it."""
    return how.ahead_bytes < 2 * REQUESTS * CHUNK_BYTES


Waiting = tuple["FetchedBytes", NDArray[np.int64]]
"""(the bytes of a block, the numbers of some of its samples)."""


class Ahead:
    """The requests ahead of use, for one iteration."""

    def __init__(self, how: Remote, readers: int = 1, record: Recorder | None = None) -> None:
        """readers: processes of this machine between which the samples are dealt. record: of the iteration."""
        self._record = record or Recorder()
        keep_freed_memory()
        self._readers = readers
        self.keep = False
        """Whether samples stay in the buffer in which they arrived, for an order in which samples that arrive together
        leave together."""
        self.chunk = chunk_bytes(how)
        self.flight = max(1, min(REQUESTS * self.chunk, how.ahead_bytes // 2))
        self.fetchers = Fetchers(how.timeout_seconds)
        self.asked = 0
        """The total bytes of requested samples."""
        self._pending: dict[tuple[int, int], list[Waiting]] = {}

    def expect(self, block: FetchedBytes) -> None:
        """Announce that the samples of this block will be needed."""
        block.record = self._record
        for key, numbers in block.by_chunk(self.chunk):
            self._pending.setdefault((id(block.shards), key), []).append((block, numbers))

    def start(self, block: FetchedBytes) -> None:
        """Request the samples of an expected block, and those of later blocks that lie beside them."""
        shards, wide = block.shards, 1 if self.fetchers.slow else WIDE
        found, first, last = list[Waiting](), 0, 0
        for key in block.chunks:
            waiting = self._pending.pop((id(shards), key), None)
            if waiting is None:
                continue
            if found and (key != last + 1 or key - first >= wide):
                self._request(shards, last >> 32, found)
                found = []
            first, last = first if found else key, key
            found += waiting
        if found:
            self._request(shards, last >> 32, found)

    def end(self) -> None:
        """Make no more requests. Those already made are completed."""
        self.fetchers.end()

    def close(self) -> None:
        """End the threads."""
        self.fetchers.close()

    def _request(self, shards: FetchedShards, shard: int, waiting: list[Waiting]) -> None:
        firsts = np.concatenate([block.firsts[numbers] for block, numbers in waiting])
        stops = np.concatenate([block.stops[numbers] for block, numbers in waiting])
        numbers = np.concatenate([numbers for _, numbers in waiting])
        owners = list(itertools.chain.from_iterable(itertools.repeat(block, len(own)) for block, own in waiting))
        if (firsts[1:] < firsts[:-1]).any():
            order = np.argsort(firsts, kind="stable")
            firsts, stops, numbers = firsts[order], stops[order], numbers[order]
            owners = [owners[at] for at in order.tolist()]
        size = int((stops - firsts).sum())
        self.asked += size
        wanted = (size + AROUND_BYTES * len(firsts)) * self._readers
        whole = shards.shares and wanted * DENSE_SHARE >= self._chunks_of(shards, shard, firsts)
        apart = firsts[1:] - np.maximum.accumulate(stops)[:-1] > GAP_BYTES
        bounds = [0, *(() if whole else (np.flatnonzero(apart) + 1).tolist()), len(firsts)]
        for low, high in itertools.pairwise(bounds):
            spans = firsts[low:high].tolist(), stops[low:high].tolist()
            cuts = Cuts(*spans, owners[low:high], numbers[low:high].tolist())
            self._submit(shards, shard, cuts, {"chunk": self.chunk} if whole else {})

    def _chunks_of(self, shards: FetchedShards, shard: int, firsts: NDArray[np.int64]) -> int:
        """The bytes of the chunks in which these samples begin."""
        first, last = int(firsts[0]) // self.chunk, int(firsts[-1]) // self.chunk
        return min((last + 1) * self.chunk, shards.files[shard].bytes) - first * self.chunk

    def _submit(self, shards: FetchedShards, shard: int, cuts: Cuts, how: dict[str, int]) -> None:
        base, stop = cuts.starts[0], max(cuts.ends)

        def act() -> None:
            give = share_views if self.keep else copy_spans
            give(self._record.requested(shards.pieces(shard, base, stop, **how)), base, cuts)

        job = self.fetchers.submit(act, shards.files[shard].url, max(1, (stop - base) // self.chunk))
        for block, number in zip(cuts.owners, cuts.numbers, strict=True):
            block.jobs[number] = job


class Cuts(NamedTuple):
    """The samples of a request: their first byte and end in the shard, the block of each, and its number there. No
    object for each sample: Python's garbage collector would look at all of them."""

    starts: list[int]
    ends: list[int]
    owners: list[FetchedBytes]
    numbers: list[int]


def share_views(pieces: Iterable[Buffer], base: int, cuts: Cuts) -> None:
    """Give each sample a view of the bytes as they arrived; `base` is the position in the shard where the pieces
    begin."""
    came = list(pieces)
    view = memoryview(came[0] if len(came) == 1 else b"".join(came)).cast("B")
    for start, end, owner, number in zip(*cuts, strict=True):
        owner.data[number] = view[start - base : end - base]


def copy_spans(pieces: Iterable[Buffer], base: int, cuts: Cuts) -> None:
    """As `share_views`, but each sample is copied once, from the pieces as they arrive, so that these can be freed;
    repeats of a sample share its bytes."""
    starts, ends, owners, numbers = cuts
    at, next_, begun = base, 0, list[memoryview]()
    for piece in pieces:
        view = memoryview(piece).cast("B")
        stop = at + len(view)
        while next_ < len(starts) and starts[next_] < stop:
            part = view[max(starts[next_] - at, 0) : ends[next_] - at]
            if ends[next_] > stop:
                begun.append(part)
                break
            data = b"".join((*begun, part))
            begun = []
            span = starts[next_], ends[next_]
            while next_ < len(starts) and (starts[next_], ends[next_]) == span:
                owners[next_].data[numbers[next_]] = data
                next_ += 1
        at = stop
    for place in range(next_, len(starts)):  # samples without bytes, at the very end
        owners[place].data[numbers[place]] = b""


class StorePrefetch:
    """Requests to a store. how: its limits of bytes ahead and of time."""

    strength = 2

    def __init__(self, how: Remote) -> None:
        self._how = how

    def block_bytes(self, usual: int) -> int:
        """At most a sixteenth of the bytes that may wait."""
        return max(1, min(usual, self._how.ahead_bytes // 16))

    def through(
        self,
        catalog: Catalog,
        blocks: Iterator[Placed],
        window: int,
        readers: Readers = ALONE,
        record: Recorder | None = None,
    ) -> Iterator[Placed]:
        """The blocks, whose samples are requested ahead."""
        reserved = 0 if record is None else record.reserved
        how = replace(self._how, ahead_bytes=max(1, self._how.ahead_bytes - reserved))
        return request_ahead(blocks, how, window, readers.here, record)


def request_ahead(
    blocks: Iterator[Placed], how: Remote, window: int, readers: int = 1, record: Recorder | None = None
) -> Iterator[Placed]:
    """The blocks, whose samples are requested ahead. window: the maximum number of samples between the first and the
    last of a chunk; 0 for stored order. readers: those of this machine. record: of the iteration."""
    ahead = Ahead(how, readers, record)
    flow = _Flow(ahead, how, window)
    try:
        for placed in blocks:
            flow.add(placed)
            while flow.has_enough:
                yield flow.pop()
        while flow.held:
            yield flow.pop()
        ahead.end()  # consumers of the last blocks may still wait for them
    except BaseException:
        ahead.close()
        raise


class _Flow:
    """The known blocks, in order, and which of them are started."""

    def __init__(self, ahead: Ahead, how: Remote, window: int) -> None:
        self.ahead, self.how, self.window = ahead, how, window
        self.held: deque[Placed] = deque()
        self.started = 0
        """The number of started blocks in `held`."""
        self.samples = self.bytes = 0
        """Of the known blocks."""
        self.begun = self.flight = 0
        """Of the started ones: samples, bytes."""

    @property
    def has_enough(self) -> bool:
        """Whether enough blocks are known to yield the next one."""
        if len(self.held) < 2:
            return False
        if self.bytes >= self.how.ahead_bytes:
            _tell_of_small_requests(self.samples, self.window, self.how.ahead_bytes)
            return True
        return self._full or self.samples - self.window >= KNOWN_SAMPLES

    @property
    def _full(self) -> bool:
        """Whether the limit of bytes in flight is reached."""
        return self.started >= 2 and self.flight >= self.ahead.flight

    @property
    def _ready(self) -> bool:
        """Whether everything that shares a chunk with the first unstarted block is known."""
        if self.started == len(self.held):
            return False
        if self.window:
            return self.samples - self.begun >= self.window
        return self.bytes - self.flight - _bytes_of(self.held[self.started]) >= self.ahead.chunk

    def add(self, placed: Placed) -> None:
        """Add a block. Blocks that it makes ripe are started at once."""
        self.held.append(placed)
        for own in placed[1].arriving:
            self.ahead.expect(own)
        self.samples += len(placed[1])
        self.bytes += _bytes_of(placed)
        while not self._full and self._ready:
            self._start()

    def pop(self) -> Placed:
        """The next block, once enough of those after it are started."""
        while self.started < len(self.held) and not self._full:
            self._start()
        placed = self.held.popleft()
        self.started -= 1
        self.samples -= len(placed[1])
        self.begun -= len(placed[1])
        self.bytes -= _bytes_of(placed)
        self.flight -= _bytes_of(placed)
        return placed

    def _start(self) -> None:
        """Request what the first unstarted block needs."""
        # a chunk that is kept waits for its last sample, for up to a window
        self.ahead.keep = self.window * self.bytes <= self.how.ahead_bytes // KEPT_SHARE * self.samples
        placed = self.held[self.started]
        for own in placed[1].arriving:
            self.ahead.start(own)
        self.started += 1
        self.begun += len(placed[1])
        self.flight += _bytes_of(placed)


def _bytes_of(placed: Placed) -> int:
    return sum(own.wanted for own in placed[1].arriving)


_SAID: set[int] = set()


def _tell_of_small_requests(samples: int, window: int, ahead_bytes: int) -> None:
    if samples < window and ahead_bytes not in _SAID:
        _SAID.add(ahead_bytes)
        log.info(
            "ahead_bytes (%s) holds %d samples, but the shuffle draws from %d: requests get smaller",
            format_bytes(ahead_bytes), samples, window,
        )  # fmt: skip
