"""Batches whose images are decoded in place, or come from another process that decoded them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shardkit.errors import DecodeError
from shardkit.images.decoder import ImageDecoder, OtherSizeError, SeekPoints
from shardkit.images.views.decoder import ViewDecoder
from shardkit.reading.batches.batch import Batch, stacked_labels
from shardkit.reading.batches.pool import Task
from shardkit.reading.batches.shared import Arrays, share
from shardkit.reading.batches.tasks.span import Once, Span, seeks
from shardkit.reading.batches.tasks.work import Item
from shardkit.reading.batches.tasks.worker import Worker
from shardkit.reading.stats.record import Spent
from shardkit.storage.node.client import Claim

STRAIGHT_BYTES = 1 << 30
"""The largest batch without a size whose memory is reserved by the size of its first image."""

_LABELS = "/labels"
"""Their name in a shared batch, if they are read with the images."""


class InPlace:
    """Makes tasks whose images go straight into the arrays of their batch."""

    def __init__(self, worker: Worker) -> None:
        self.worker, self.labels = worker, worker.labels
        self._of_size: ImageDecoder | None = None

    def slots(self, span: Span) -> Slots | None:
        """Where a batch is decoded in place, and by what. Without a size: as if all images had that of the first; None
        if it is not known.
        """
        decoder, n = span.decoder, span.end - span.begin
        assert decoder is not None
        if isinstance(decoder, ViewDecoder):
            views = {
                name: self.worker.memory[name].empty((n, *shape), decoder.dtype)
                for name, shape in decoder.shapes.items()
            }
            return Slots(decoder, views)
        unsized = decoder.shape is None
        if unsized:
            datas, damaged = span.block.images(span.begin, span.begin + 1)
            size = None if damaged else decoder.stored_size(datas[0])
            if size is None:
                return None
            found = self._of_size
            if found is None or found.size != size:
                found = self._of_size = decoder.of_size(size)
            decoder = found
        shape = (n, *(decoder.shape or ()))
        if unsized and math.prod(shape) * decoder.dtype.itemsize > STRAIGHT_BYTES:
            return None
        return Slots(decoder, {"": self.worker.memory[""].empty(shape, decoder.dtype)})

    def taken(self, span: Span) -> Arrays | Claim | None:
        """The arrays of a batch that another process decoded; a Claim if this one is to share it; else None."""
        if self.worker.work.shared is None:
            return None
        rows, draws = span.block.rows[span.begin : span.end], span.draws
        found = self.worker.work.shared.take(rows, None if draws is None else draws[span.begin : span.end])
        if not isinstance(found, dict):
            return found
        assert self.worker.decoder is not None
        names = {*self.worker.memory, _LABELS} if self.labels.kind else {*self.worker.memory}
        if found.keys() != names or any(len(array) != len(rows) for array in found.values()):
            return None
        for name in self.worker.memory:
            if found[name].dtype.itemsize != self.worker.decoder.dtype.itemsize:
                return None
            found[name] = found[name].view(self.worker.decoder.dtype)  # NumPy has no name for bfloat16
        return found

    def given(self, span: Span, arrays: Arrays) -> Batch:
        """The batch with the arrays that another process decoded."""
        keys = [span.block.keys[number] for number in range(span.begin, span.end)]
        labels = arrays.pop(_LABELS, None)
        if not self.labels.kind:
            labels = self.labels.of_batch(span.block.labels[span.begin : span.end], keys, span)
        images = arrays if isinstance(self.worker.decoder, ViewDecoder) else arrays[""]
        return Batch(
            images, labels, keys=keys, repeats=span.repeats, fields=self.worker.columns(span, slice(None), keys)
        )

    def task(self, span: Span) -> Task[Item | None]:
        """A batch whose images are decoded in place."""
        batch = _InPlaceBatch(self, span)
        parts = [partial(batch.part, begin, end) for begin, end in self.worker.parts(span)]
        return Task(parts, batch.finish, span.end - span.begin, span.nbytes)


class _InPlaceBatch:
    """One batch: its parts are decoded in several threads, then one of them finishes it."""

    def __init__(self, maker: InPlace, span: Span) -> None:
        self.worker, self.labels, self.span, self.spent = maker.worker, maker.labels, span, Spent()
        self.slots = Once(lambda: maker.slots(span))  # in a thread: it may have to wait for the first image
        self.taken = Once(lambda: maker.taken(span))
        self.given = partial(maker.given, span)
        self.general_part, self.general_finish = self.worker.general(span, self.spent)
        self.failed: list[tuple[int, Exception]] = []
        self.targets: list[Any] = [None] * (span.end - span.begin)

    def part(self, begin: int, end: int) -> None:
        """Decode the samples begin … end - 1 of the span."""
        begun, span = perf_counter(), self.span
        if isinstance(self.taken(), dict):
            waited = perf_counter() - begun  # for the process that decoded it
            self.spent.parts.append((waited, 0.0, waited))
            return
        base, slots = span.begin, self.slots()
        if slots is None:
            self.general_part(begin, end)
            return
        datas, damaged = span.block.images(base + begin, base + end)
        fetched = perf_counter() - begun
        self.failed.extend((begin + number, damage) for number, damage in damaged.items())
        rows = None if span.draws is None else span.draws[base + begin : base + end]
        points = span.block.seek_points(base + begin, base + end) if seeks(slots.decoder) else None
        for number, error in slots.batch_into(datas, slice(begin, end), rows, points):
            if number not in damaged:
                self.failed.append((begin + number, error))
        if self.labels.kind:
            self._read_targets([number for number in range(begin, end) if number - begin not in damaged])
        self.spent.parts.append((fetched, 0.0, perf_counter() - begun))

    def _read_targets(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            try:
                self.targets[number] = self.labels.target(self.span.block.target(self.span.begin + number))
            except DecodeError as exc:
                self.failed.append((number, exc))

    def finish(self) -> Item | None:
        """The batch as an item, when all parts are done."""
        begun, given, span = perf_counter(), self.taken(), self.span
        if isinstance(given, dict):
            return self.worker.finished(span, self.given(given), span.counter(0), self.spent, begun)
        slots = self.slots()
        if slots is None:
            return self.general_finish()  # type: ignore[no-any-return]
        if any(isinstance(error, OtherSizeError) for _, error in self.failed):
            self.general_part(0, span.end - span.begin)
            return self.general_finish()  # type: ignore[no-any-return]
        good = self._good()
        if not len(good):
            return self.worker.nothing(span)
        batch = self._batch(slots, given, good)
        return self.worker.finished(span, batch, span.counter(int(good[0])), self.spent, begun)

    def _good(self) -> range | NDArray[np.int64]:
        """The samples that could be decoded, counted from the first of the span; failures are treated."""
        everything = range(self.span.end - self.span.begin)
        if not self.failed:
            return everything
        self.failed.sort(key=lambda one: one[0])
        for number, error in self.failed:
            self.worker.failures.handle(self.span, number, error)
        return np.setdiff1d(everything, [number for number, _ in self.failed])

    def _batch(self, slots: Slots, claim: Claim | None, good: range | NDArray[np.int64]) -> Batch:
        """The batch of the samples that could be decoded. It is shared if none failed and others wait for it."""
        span, chosen = self.span, slice(None) if isinstance(good, range) else good
        numbers = good if isinstance(good, range) else good.tolist()
        keys = [span.block.keys[span.begin + number] for number in numbers]
        labels: NDArray[Any] | None
        if self.labels.kind:
            labels = stacked_labels([self.targets[number] for number in numbers], keys)
        else:
            labels = self.labels.of_batch(span.block.labels[span.begin : span.end][chosen], keys, span)
        if claim is not None and not self.failed:
            share(claim, slots.arrays | ({_LABELS: np.asarray(labels)} if self.labels.kind else {}))
        marks = None if span.repeats is None or not span.repeats[chosen].any() else span.repeats[chosen]
        fields = self.worker.columns(span, chosen, keys)
        return Batch(slots.chosen(chosen), labels, keys=keys, repeats=marks, fields=fields)


@dataclass(frozen=True, slots=True)
class Slots:
    """The arrays that a batch is decoded into, and the decoder for them. arrays: by the names of the views; "" if there
    are none.
    """

    decoder: ImageDecoder | ViewDecoder
    arrays: dict[str, NDArray[Any]]

    def batch_into(
        self,
        datas: Sequence[bytes | memoryview],
        part: slice,
        rows: NDArray[np.float64] | None,
        points: SeekPoints | None,
    ) -> list[tuple[int, Exception]]:
        """Decode a part of the batch; returns (index in the part, error) for each image that failed."""
        if isinstance(self.decoder, ViewDecoder):
            return self.decoder.batch_into(datas, {name: array[part] for name, array in self.arrays.items()}, rows)
        return self.decoder.batch_into(datas, self.arrays[""][part], rows, points)

    def chosen(self, good: slice | NDArray[np.int64]) -> Any:
        """The images of a batch, or their views by name."""
        if isinstance(self.decoder, ViewDecoder):
            return {name: array[good] for name, array in self.arrays.items()}
        return self.arrays[""][good]
