"""A large shard of a store, whose samples are found from several places at a time.

Only its first byte is known to begin a member or a record. So readers begin at other places too, each where one seems
to begin, and what they find counts from the first sample on that the reader before arrives at by itself: from there on,
both find the same. A reader that began inside a file that is itself a shard is never met, and what it found is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from threading import Event

import msgspec

from shardkit.errors import DamagedError
from shardkit.formats.protocol import Fetch, Format, Skimmed, SkimState
from shardkit.storage.windows import Windows
from shardkit.threads import Stopped

PART_BYTES = 64 << 20
"""The least bytes for which a further reader begins: it reads up to its first sample for nothing."""

SEARCH_BYTES, SEARCH_MOST = 32 << 10, 16 << 20
"""The bytes that are read at a time, and at most, to find where a sample begins."""

ALIGN_BYTES = 512


class _Part(msgspec.Struct):
    """What a reader found: samples by their offset, and where the first sample begins that it does not give."""

    samples: dict[int, Skimmed] = {}
    following: int | None = None
    state: SkimState = msgspec.field(default_factory=SkimState)


def parts_of(size: int, most: int) -> int:
    """How many readers a shard of `size` bytes gets, at most `most`."""
    return max(1, min(most, size // PART_BYTES))


def skimmed_in_parts(
    form: Format, fetch: Fetch, span: Callable[[int, int], bytes], size: int, *, place: str, parts: int
) -> Iterator[Skimmed]:
    """The samples of a shard, as from `Format.skim`, found by as many readers. fetch: of the first. span: gives the
    bytes start … end - 1 of the shard."""
    if parts == 1:
        yield from form.skim(fetch, size, place=place)
        return
    cuts = [size * number // parts // ALIGN_BYTES * ALIGN_BYTES for number in range(1, parts)]
    pool, stop = ThreadPoolExecutor(parts - 1, "shardkit-parts"), Event()

    def wanted(start: int, end: int) -> bytes:
        if stop.is_set():  # nobody needs it any more
            raise Stopped
        return span(start, end)

    try:
        ahead = [
            (cut, pool.submit(_found_from, form, wanted, cut, end, size, place))
            for cut, end in pairwise([*cuts, size + 1])
        ]
        yield from _joined(form, fetch, size, place, ahead)
    finally:
        stop.set()
        pool.shutdown(wait=False, cancel_futures=True)


def _joined(
    form: Format, fetch: Fetch, size: int, place: str, ahead: list[tuple[int, Future[_Part]]]
) -> Iterator[Skimmed]:
    state = SkimState()
    at: int | None = 0
    while at is not None:
        state.at, met = at, None
        for sample in form.skim(fetch, size, place=place, state=state):
            yield sample
            met = _met(sample, state, ahead)
            if met is not None:
                break
        if met is None:
            return
        at = None
        for offset, found in met.samples.items():
            if offset <= sample.description.offset:
                continue
            if found.description.key in state.keys:  # an error, which is found again from there
                at = offset
                break
            state.keys.add(found.description.key)
            yield found
        else:
            at = met.following


def _met(sample: Skimmed, state: SkimState, ahead: list[tuple[int, Future[_Part]]]) -> _Part | None:
    """What a reader found that begins with this sample; None if there is none. Readers that were passed are dropped."""
    offset = sample.description.offset
    while ahead and offset >= ahead[0][0]:
        part = ahead[0][1].result()
        last = max(part.samples, default=-1)
        if offset in part.samples and not state.records and not part.state.records:
            del ahead[0]
            return part
        if offset < last:
            return None
        del ahead[0]
    return None


def _found_from(form: Format, span: Callable[[int, int], bytes], cut: int, end: int, size: int, place: str) -> _Part:
    """The samples that begin from a place on, up to `end`."""
    part = _Part()
    start = _search(form, span, cut, min(end, size), size)
    if start is None:
        return part
    part.state.at = start
    try:
        for sample in form.skim(Windows(span, size), size, place=place, state=part.state):
            offset = sample.description.offset
            if offset >= end:
                part.following = offset
                break
            part.samples[offset] = sample
    except DamagedError:  # if it is one: whoever comes there finds it again
        part.following = part.samples.popitem()[0] if part.samples else None
    if part.samples:  # the first may be the rest of one
        del part.samples[next(iter(part.samples))]
    return part if part.samples else _Part()


def _search(form: Format, span: Callable[[int, int], bytes], cut: int, end: int, size: int) -> int | None:
    """Where a sample or a member seems to begin."""
    data = b""
    while cut + len(data) < end and len(data) < SEARCH_MOST:
        at = cut + len(data)
        data += span(at, min(at + SEARCH_BYTES, size))
        found = form.find_start(data, size - cut)
        if found is not None:
            return cut + found
    return None
