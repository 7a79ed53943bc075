"""Samples of shards in a store, as `shardkit convert` reads them: in spans, several requests ahead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from shardkit.location import locate
from shardkit.storage.patient import open_patient
from shardkit.storage.ranged import GAP_BYTES, REQUESTS
from shardkit.storage.store import read
from shardkit.threads import in_threads

SPAN_BYTES = 4 << 20
"""Samples that lie together are fetched together, up to so many bytes."""


class _Span(NamedTuple):
    """Bytes of a source, and how many successive samples are in them."""

    source: int
    start: int
    end: int
    samples: int


def buffers_of_spans(
    urls: Sequence[str], which: Sequence[int], offsets: Sequence[int], sizes: Sequence[int], options: Mapping[str, Any]
) -> Iterator[tuple[str, bytes, int]]:
    """For each sample (its shard, bytes of that, where they begin in it). which: the shard of each among `urls`.

    Raises NotFoundError, StorageError.
    """
    places = [locate(url) for url in urls]
    stores = {place.parent: open_patient(place.parent, options) for place in places}

    def fetched(span: _Span) -> tuple[_Span, bytes]:
        place = places[span.source]
        return span, bytes(read(stores[place.parent], place.name, span.start, span.end))

    for span, data in in_threads(fetched, _spans(which, offsets, sizes), REQUESTS, ahead=REQUESTS):
        for _ in range(span.samples):
            yield str(places[span.source]), data, span.start


def _spans(which: Sequence[int], offsets: Sequence[int], sizes: Sequence[int]) -> Iterator[_Span]:
    """The bytes to fetch, in the order of the samples."""
    span: _Span | None = None
    for source, at, size in zip(which, offsets, sizes, strict=True):
        if (
            span is not None
            and source == span.source
            and 0 <= at - span.end <= GAP_BYTES
            and at + size - span.start <= SPAN_BYTES
        ):
            span = span._replace(end=at + size, samples=span.samples + 1)
            continue
        if span is not None:
            yield span
        span = _Span(source, at, at + size, 1)
    if span is not None:
        yield span


def whole_object(url: str, options: Mapping[str, Any]) -> bytes:
    """All bytes of an object. Raises NotFoundError, StorageError."""
    place = locate(url)
    store = open_patient(place.parent, options)
    return bytes(read(store, place.name, 0, store.info(place.name).bytes))
