"""The work of the threads on a block."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shardkit.images.annotations.options import as_boxes
from shardkit.images.decoder import DecodeOptions, ImageDecoder
from shardkit.images.options import BucketOptions
from shardkit.images.views.decoder import ViewDecoder
from shardkit.reading.batches.batch import collate
from shardkit.reading.batches.encoded import Chances, EncodedBatch, encoded_block, encoded_samples
from shardkit.reading.batches.memory import BufferPool, Memory
from shardkit.reading.batches.pool import Task
from shardkit.reading.batches.random_map import callers
from shardkit.reading.batches.tasks.failures import Failures
from shardkit.reading.batches.tasks.labels import Labels
from shardkit.reading.batches.tasks.samples import GONE, Samples
from shardkit.reading.batches.tasks.span import Once, Span
from shardkit.reading.batches.tasks.work import LOST, Item, Work, decoder_of
from shardkit.reading.blocks.block import Placed
from shardkit.reading.ops import Decode, Map
from shardkit.reading.stats.auto import MOST_AHEAD
from shardkit.reading.stats.record import Spent
from shardkit.rng import stream_key

PART_SAMPLES = 16
"""Fewest samples per thread task: smaller tasks cost too much overhead."""


class Worker:
    """Splits blocks into spans, and makes batches of them or items of their samples."""

    def __init__(self, work: Work) -> None:
        self.work, self.record = work, work.record
        self.batch = work.steps.batch if work.steps.whole else None
        decode = work.steps.decode
        self.options = decode.options if decode else None
        self.decoder = decoder_of(decode.options) if decode else None
        self.key = stream_key("augment", work.source.seed, work.source.epoch)
        per_sample = [op for op in work.steps.samples if not isinstance(op, Decode)]
        maps = [
            op for op in itertools.takewhile(lambda op: isinstance(op, Map), work.steps.after) if isinstance(op, Map)
        ]
        calls = callers((*per_sample, *maps), work.source.seed, work.source.epoch)
        self.item_calls = calls[len(per_sample) :]
        encoded = work.steps.batch is not None and work.steps.batch.encoded
        self.counted = work.steps.random or encoded
        """Whether items depend on the counters of their samples."""
        self.untouched = encoded and not work.steps.samples
        self.labels = Labels(self.options, work.source.targets, work.source.classes)
        self.failures = Failures(self.options, work.record)
        applied = list(zip(per_sample, calls, strict=False))
        self.samples = Samples(work, self.options, self.decoder, applied, self.labels, self.failures)
        names = self.decoder.shapes if isinstance(self.decoder, ViewDecoder) else [""]
        kept = work.ahead if work.tuner is None else MOST_AHEAD
        self.joined = BufferPool(kept)
        self.memory: dict[str, Memory] = {name: work.memory or BufferPool(kept) for name in names}
        as_arrays = bool(self.batch and not self.batch.ragged and self.options and not self.options.annotated)
        self.straight = bool(work.source.plain and self.decoder and not per_sample and as_arrays)
        self._of_bucket: dict[tuple[int, int], ImageDecoder] = {}

    def apply_maps(self, item: Any, counter: int) -> Any:
        """Apply the maps that follow batch(). counter: of the item's first sample."""
        for call in self.item_calls:
            item = call(item, counter)
        return item

    def spans(self, placed: Placed, size: int) -> Iterator[Span]:
        """The parts of a block, of `size` samples each."""
        numbers, block, repeats = placed
        counters = self.work.source.random_counters(placed) if self.decoder or self.counted else None
        draws = self.decoder.draws(self.key, counters) if self.decoder and counters is not None else None
        each = block.nbytes / max(1, len(block))
        reader = self.work.columns
        further = None if reader is None else Once(lambda: reader.of(block.rows))
        for begin in range(0, len(block), size):
            end = min(begin + size, len(block))
            if self.batch and self.batch.drop_last and end - begin < size:
                return  # the last block of shards that were not counted
            marks = None if repeats is None or not repeats[begin:end].any() else repeats[begin:end]
            chances = counters if self.counted else None  # else no item asks for its own
            decoder, nbytes = self._decoder_of(numbers[begin]), each * (end - begin)
            yield Span(block, begin, end, numbers[begin:end], draws, marks, chances, decoder, nbytes, further)

    def _decoder_of(self, number: int) -> ImageDecoder | ViewDecoder | None:
        """The decoder for the images of a batch, given the number of its first sample."""
        size = self.work.source.size(int(number)) if isinstance(self.options, BucketOptions) else None
        if size is None or not isinstance(self.options, BucketOptions):
            return self.decoder
        if size not in self._of_bucket:
            self._of_bucket[size] = ImageDecoder(self.options.of_size(size))
        return self._of_bucket[size]

    def columns(self, span: Span, chosen: slice | NDArray[np.int64], keys: Sequence[str]) -> dict[str, Any]:
        """The further columns of a batch. chosen: its samples among those of the span; keys: theirs."""
        reader, further = self.work.columns, span.further
        if reader is None or further is None:
            return {}
        which = np.arange(span.begin, span.end)[chosen] if isinstance(chosen, np.ndarray) else span.places
        return reader.batch(further(), which, keys)

    def encoded(self, span: Span) -> EncodedBatch:
        """A batch of images that are not decoded."""
        assert span.counters is not None
        chances = Chances(self.key, span.counters[span.begin : span.end])
        plain = self.work.source.plain and not self.work.source.targets
        batch = encoded_block(
            span.block, span.begin, span.end, chances, plain=plain, repeats=span.repeats, empty=self.joined.empty
        )
        batch.columns = self.columns(span, slice(None), batch.keys)
        return batch

    def collated(self, items: Sequence[Any], counters: Sequence[int]) -> Any:
        """A batch of the results of single samples."""
        if self.work.steps.batch is not None and self.work.steps.batch.encoded:
            columns = {} if self.work.columns is None else self.work.columns.taken_from(items)
            chances = Chances(self.key, np.array(counters, np.int64))
            encoded = encoded_samples(items, chances, empty=self.joined.empty)
            encoded.columns = columns
            return encoded
        step, options = self.work.steps.batch, self.options
        batch = collate(items, ragged=step is not None and step.ragged, lists=boxed_fields(items, options))
        return batch if self.work.columns is None else self.work.columns.joined(batch)

    def encoded_task(self, span: Span) -> Task[Item]:
        """A batch of images that are not decoded."""
        made, spent = Once(lambda: self.encoded(span)), Spent()

        def part() -> None:
            begun, before = perf_counter(), self.record.meter().waited
            made()
            spent.parts.append((self.record.meter().waited - before, 0.0, perf_counter() - begun))

        def finish() -> Item:
            return self.finished(span, made(), span.counter(0), spent, perf_counter())

        return Task([part], finish, span.end - span.begin, span.nbytes)

    def finished(self, span: Span, batch: Any, counter: int, spent: Spent, begun: float) -> Item:
        """The batch as an item, after the maps; and its record. begun: when its last part was done."""
        item, applied = batch, 0.0
        if self.item_calls:
            mapped = perf_counter()
            item = self.apply_maps(batch, counter)
            applied = perf_counter() - mapped
        spent.close(self.record.meter(), begun, applied)
        if self.work.tuner is not None:
            self.work.tuner.made(batch, item)
        return span.taken, item

    def parts(self, span: Span) -> list[tuple[int, int]]:
        """The samples (begin, end) of each part of a task, counted from its first."""
        n = span.end - span.begin
        size = max(PART_SAMPLES, -(-n // (self.record.threads or self.work.threads)))
        return [(begin, min(begin + size, n)) for begin in range(0, n, size)]

    def general_task(self, span: Span) -> Task[Any]:
        """Samples decoded one by one; as a batch if nothing is filtered."""
        part, finish = self.general(span, Spent())
        parts = [partial(part, begin, end) for begin, end in self.parts(span)]
        return Task(parts, finish, span.end - span.begin, span.nbytes)

    def general(self, span: Span, spent: Spent) -> tuple[Callable[[int, int], None], Callable[[], Any]]:
        """How to make a part of the samples, given (begin, end), and how to finish when all are made."""
        n = span.end - span.begin
        results: list[Any] = [GONE] * n

        def part(begin: int, end: int) -> None:
            meter, marks = self.record.meter(), list[float]()
            begun, before = perf_counter(), meter.waited
            marked = begin + (span.begin + begin) // PART_SAMPLES % (end - begin)  # any of them, in turn
            for number in range(begin, end):
                results[number] = self.samples.item(span, number, marks if number == marked else None)
            spent.add(perf_counter() - begun, meter.waited - before, marks)

        def finish() -> Any:
            begun = perf_counter()
            if self.batch is None:
                spent.close(self.record.meter(), begun, 0.0)
                if self.work.tuner is not None:
                    self.work.tuner.made(results)
                ends = (span.numbers + 1).tolist()
                kept = [at for at in range(n) if results[at] is not GONE]
                if self.work.steps.batch:  # batches are made from the results of several tasks
                    return [(ends[at], (span.counter(at), results[at])) for at in kept]
                return [(ends[at], results[at]) for at in kept]
            kept = [at for at in range(n) if results[at] is not GONE]
            if not kept:
                return self.nothing(span)
            counters = [span.counter(at) for at in kept]
            batch = self.collated([results[at] for at in kept], counters)
            return self.finished(span, batch, counters[0], spent, begun)

        return part, finish

    def nothing(self, span: Span) -> Item | None:
        """In place of a batch none of whose samples is left."""
        return (span.taken, LOST) if self.work.steps.counted else None


def boxed_fields(items: Sequence[Any], options: DecodeOptions | None) -> frozenset[str]:
    """The fields that are boxes or their labels, of which there are more or fewer in each image."""
    if options is None or options.boxes is None or not isinstance(items[0], dict):
        return frozenset()
    boxes = as_boxes(options.boxes)
    field = boxes.path if boxes.path in items[0] else boxes.path.split("/")[0]
    return frozenset({field, *(boxes.label_names if field == boxes.path else ())})
