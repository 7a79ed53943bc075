"""Run the steps of a Dataset over one epoch: blocks of samples, threads that decode them, batches in order.

Each item is accompanied by the number of the share's samples that were taken up to and including it, which is all that
resuming needs.
"""

from __future__ import annotations

import itertools
import logging
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from shardkit.errors import DamagedError, DatasetError, DecodeError, UsageError, printable
from shardkit.images.annotations.apply import move_boxes, move_masks
from shardkit.images.annotations.options import as_boxes, as_masks
from shardkit.images.decoder import DecodeOptions, ImageDecoder, OtherSizeError, SeekPoints
from shardkit.images.options import BucketOptions
from shardkit.images.views.decoder import ViewDecoder
from shardkit.reading.batches.batch import REPEAT, Batch, collate, stacked_labels
from shardkit.reading.batches.columns import ColumnReader, Further
from shardkit.reading.batches.encoded import Chances, EncodedBatch, encoded_block, encoded_samples
from shardkit.reading.batches.fields import FIELD_DECODERS, decode_fields, encode_labels
from shardkit.reading.batches.labels import FIELD, require_mode, target_of
from shardkit.reading.batches.memory import BufferPool, Memory
from shardkit.reading.batches.pool import Task, Threads
from shardkit.reading.batches.random_map import callers
from shardkit.reading.batches.shared import Arrays, SharedBatches, share
from shardkit.reading.blocks.block import Block, Placed
from shardkit.reading.blocks.source import BlockSource, Numbers
from shardkit.reading.ops import ALL, BatchUp, Decode, Filter, Map, Skip, Steps, Take, clip
from shardkit.reading.stats.auto import MOST_AHEAD
from shardkit.reading.stats.record import Recorder, Spent
from shardkit.reading.stats.tuner import Tuner
from shardkit.rng import stream_key
from shardkit.sample import IMAGE_FIELDS, AnySample
from shardkit.storage.node.client import Claim

log = logging.getLogger(__name__)

T = TypeVar("T")

Item = tuple[int, Any]
"""(samples of the share taken so far, the user's item)."""


Group = tuple[int, Iterable[Any]]
"""(samples of the share taken up to the first item, the user's items). Each item after the first takes one more."""


class _Lost:
    def __reduce__(self) -> str:
        return "LOST"


LOST = _Lost()
"""Placeholder for a batch none of whose images could be decoded; it counts as a batch."""

_SAID: set[str] = set()
"""Warnings already logged: each is logged once per process."""

STRAIGHT_BYTES = 1 << 30
"""The largest batch without a size whose memory is reserved by the size of its first image."""

_LABELS = "/labels"
"""Their name in a shared batch, if they are read with the images."""

PART_SAMPLES = 16
"""Fewest samples per thread task: smaller tasks cost too much overhead."""


@dataclass(frozen=True)
class Run:
    """One epoch of one reader."""

    source: BlockSource
    steps: Steps
    threads: int
    ahead: int
    decoders: Mapping[str, Callable[[bytes], Any]]
    memory: Memory | None = None
    """Where batches are decoded; by default in memory of this process."""
    shared: SharedBatches | None = None
    """What the processes of this machine share of them."""
    record: Recorder = field(default_factory=Recorder)
    """What it spends its time on."""
    tuner: Tuner | None = None
    """What chooses threads and batches ahead, if they are not fixed."""
    columns: ColumnReader | None = None
    """Reads the further columns of the samples."""

    def items(self, start: int = 0, over: int = 0) -> Iterator[Item]:
        """The user's items from sample `start` of the source on. over: batches of the epoch that came before it."""
        steps, high = self.steps, self.source.samples
        low, unit = 0, 1
        if steps.batch is not None and steps.whole:
            unit = steps.batch.size
            low, high = batch_limits(steps, ALL if high is None else high, over)
        blocks = self.source.blocks(low, high, unit, start)
        return self._run_threads(blocks) if steps.threaded else self._plain(blocks)

    def groups(self) -> Iterator[Group]:
        """The items of a Run without steps, which are its samples. The first one is ready."""
        groups = (
            (int(numbers[0]) + 1, mark_samples(block.samples(), repeats))
            for numbers, block, repeats in self._counted(self.source.blocks(0, self.source.samples, 1))
        )
        for taken, samples in itertools.islice(groups, 1):
            return itertools.chain([(taken, itertools.chain(list(itertools.islice(samples, 1)), samples))], groups)
        return groups

    def _counted(self, blocks: Iterator[Placed]) -> Iterator[Placed]:
        """The blocks, whose samples are delivered as they are."""
        for placed in blocks:
            self.record.taken(len(placed[1]), placed[1].nbytes)
            yield placed

    def _plain(self, blocks: Iterator[Placed]) -> Iterator[Item]:
        batch = self.steps.batch
        if batch is not None:
            return self._encode(blocks, batch) if batch.encoded else self._collate(blocks, batch)
        return itertools.chain.from_iterable(
            zip((numbers + 1).tolist(), mark_samples(block.samples(), repeats), strict=True)
            for numbers, block, repeats in self._counted(blocks)
        )

    def _encode(self, blocks: Iterator[Placed], batch: BatchUp) -> Iterator[Item]:
        worker = _Worker(self)
        for placed in blocks:
            for span in worker.spans(placed, batch.size):
                made = worker.encoded(span)
                self.record.taken(len(made), span.nbytes)
                yield span.taken, made

    def _collate(self, blocks: Iterator[Placed], batch: BatchUp) -> Iterator[Item]:
        for numbers, block, repeats in blocks:
            samples = mark_samples(block.samples(), repeats)
            further = None if self.columns is None else self.columns.of(block.rows)
            for begin in range(0, len(block), batch.size):
                chosen = list(itertools.islice(samples, batch.size))
                end = begin + len(chosen)
                if len(chosen) < batch.size and batch.drop_last:
                    return  # the last block of shards that were not counted
                self.record.taken(len(chosen), block.nbytes * len(chosen) / len(block))
                item = collate(chosen)
                if self.columns is not None and further is not None:
                    item |= self.columns.batch(further, slice(begin, end), block.keys[begin:end])
                yield int(numbers[end - 1]) + 1, item

    def _run_threads(self, blocks: Iterator[Placed]) -> Iterator[Item]:
        worker = _Worker(self)
        whole = self.steps.batch is not None and self.steps.whole
        tasks = (task for block in blocks for task in worker.tasks(block))
        threads = Threads(self.threads, self.record)
        ahead = self.ahead if self.tuner is None else partial(self.tuner.ahead, threads)
        stream: Iterator[Any] = threads.run_in_order(tasks, ahead)
        if self.steps.batch is None:
            stream = self.record.through(stream)
        try:
            if whole:
                yield from (item for item in stream if item is not None)
            else:
                single = itertools.chain.from_iterable(stream)
                yield from single if self.steps.batch is None else self._regroup(single, worker)
        finally:
            threads.close()

    def _regroup(self, items: Iterator[Item], worker: _Worker) -> Iterator[Item]:
        """Batches of the items that passed a filter."""
        assert self.steps.batch is not None
        size, drop = self.steps.batch.size, self.steps.batch.drop_last
        while chosen := list(itertools.islice(items, size)):
            if len(chosen) < size and drop:
                return
            counters, batch = zip(*(item for _, item in chosen), strict=True)
            yield chosen[-1][0], worker.apply_maps(worker.collated(batch, counters), counters[0])


def mark_samples(samples: Iterator[AnySample], repeats: NDArray[np.bool_] | None) -> Iterator[AnySample]:
    """The samples, with `__repeat__` added to repeats."""
    if repeats is None:
        return samples
    return (sample | {REPEAT: True} if again else sample for sample, again in zip(samples, repeats, strict=True))


def batch_limits(steps: Steps, samples: int, over: int = 0) -> tuple[int, int]:
    """The range of samples that the batches of a share with this many samples take. over: batches before it."""
    assert steps.batch is not None
    size = steps.batch.size
    if steps.batch.drop_last and steps.whole:
        samples -= samples % size
    low, high = clip(0, ALL, steps.batch_window)
    return max(0, low - over) * size, min(max(0, high - over) * size, samples)


def _nothing_to_decode(sample: AnySample, decoders: Mapping[str, Any]) -> bool:
    """Whether a sample without an image has nothing for decode() to do.

    That is: no field has a user-defined decoder, or it has an image under a name that decode() does not treat as the
    sample's own, such as left.jpg.
    """
    endings = {name.rpartition(".")[2] for name in sample if not name.startswith("__")}
    own = {name for name, decoder in decoders.items() if FIELD_DECODERS.get(name) is not decoder}
    return not endings.isdisjoint(IMAGE_FIELDS) or endings.isdisjoint(own)


def _no_image(sample: AnySample) -> DecodeError:
    """The error for a sample without a field that decode() treats as an image."""
    fields = ", ".join(printable(name) for name in sample if not name.startswith("__")) or "none"
    cure = (
        "name the image's feature of TFRecord shards with dataset(image_field=), or decode images "
        'of other names in map(), without decode(); on_error="skip" omits such samples'
    )
    return DecodeError(
        "", f"this sample has no image: none of its fields has the name of one; its fields: {fields}", cure
    )


class _Worker:
    """The work of the threads on a block."""

    def __init__(self, run: Run) -> None:
        self.run, self.record = run, run.record
        self.batch = run.steps.batch if run.steps.whole else None
        decode = run.steps.decode
        self.options = decode.options if decode else None
        self.decoder = decoder_of(decode.options) if decode else None
        self.key = stream_key("augment", run.source.seed, run.source.epoch)
        self.per_sample = [op for op in run.steps.samples if not isinstance(op, Decode)]
        maps = [
            op for op in itertools.takewhile(lambda op: isinstance(op, Map), run.steps.after) if isinstance(op, Map)
        ]
        calls = callers((*self.per_sample, *maps), run.source.seed, run.source.epoch)
        self.sample_calls = list(zip(self.per_sample, calls, strict=False))
        self.item_calls = calls[len(self.per_sample) :]
        encoded = run.steps.batch is not None and run.steps.batch.encoded
        self.counted = run.steps.random or encoded
        """Whether items depend on the counters of their samples."""
        self.untouched = encoded and not run.steps.samples
        self.classes = run.source.classes
        self.targets = run.source.targets if self.options else ""
        require_mode(self.targets, self.options.label if self.options else "int")
        names = self.decoder.shapes if isinstance(self.decoder, ViewDecoder) else [""]
        kept = run.ahead if run.tuner is None else MOST_AHEAD
        self.joined = BufferPool(kept)
        self.memory: dict[str, Memory] = {name: run.memory or BufferPool(kept) for name in names}
        self.skips = _Skips(self.options.skip_limit if self.options else 0, run.record)
        as_arrays = bool(self.batch and not self.batch.ragged and self.options and not self.options.annotated)
        self.straight = bool(run.source.plain and self.decoder and not self.per_sample and as_arrays)
        self._of_size: ImageDecoder | None = None
        self._of_bucket: dict[tuple[int, int], ImageDecoder] = {}

    def apply_maps(self, item: Any, counter: int) -> Any:
        """Apply the maps that follow batch(). counter: of the item's first sample."""
        for call in self.item_calls:
            item = call(item, counter)
        return item

    def tasks(self, placed: Placed) -> Iterator[Task[Any]]:
        """Split a block into tasks: one per batch, or per run of samples."""
        for span in self.spans(placed, self.batch.size if self.batch else PART_SAMPLES * 4):
            if self.straight:
                yield self._straight_task(span)
            else:
                yield self._encoded_task(span) if self.untouched else self._general_task(span)

    def spans(self, placed: Placed, size: int) -> Iterator[_Span]:
        """The parts of a block, of `size` samples each."""
        numbers, block, repeats = placed
        counters = self.run.source.random_counters(placed) if self.decoder or self.counted else None
        draws = self.decoder.draws(self.key, counters) if self.decoder and counters is not None else None
        each = block.nbytes / max(1, len(block))
        reader = self.run.columns
        further = None if reader is None else _Once(lambda: reader.of(block.rows))
        for begin in range(0, len(block), size):
            end = min(begin + size, len(block))
            if self.batch and self.batch.drop_last and end - begin < size:
                return  # the last block of shards that were not counted
            marks = None if repeats is None else repeats[begin:end]
            chances = counters if self.counted else None  # else no item asks for its own
            decoder, nbytes = self._decoder_of(numbers[begin]), each * (end - begin)
            yield _Span(block, begin, end, numbers[begin:end], draws, marks, chances, decoder, nbytes, further)

    def _decoder_of(self, number: int) -> ImageDecoder | ViewDecoder | None:
        """The decoder for the images of a batch, given the number of its first sample."""
        size = self.run.source.size(int(number)) if isinstance(self.options, BucketOptions) else None
        if size is None or not isinstance(self.options, BucketOptions):
            return self.decoder
        if size not in self._of_bucket:
            self._of_bucket[size] = ImageDecoder(self.options.of_size(size))
        return self._of_bucket[size]

    def columns(self, span: _Span, chosen: slice | NDArray[np.int64], keys: Sequence[str]) -> dict[str, Any]:
        """The further columns of a batch. chosen: its samples among those of the span; keys: theirs."""
        reader, further = self.run.columns, span.further
        if reader is None or further is None:
            return {}
        which = np.arange(span.begin, span.end)[chosen] if isinstance(chosen, np.ndarray) else span.places
        return reader.batch(further(), which, keys)

    def encoded(self, span: _Span) -> EncodedBatch:
        """A batch of images that are not decoded."""
        assert span.counters is not None
        repeats = span.repeats if span.repeats is not None and span.repeats.any() else None
        chances = Chances(self.key, span.counters[span.begin : span.end])
        plain = self.run.source.plain and not self.run.source.targets
        batch = encoded_block(
            span.block, span.begin, span.end, chances, plain=plain, repeats=repeats, empty=self.joined.empty
        )
        batch.columns = self.columns(span, slice(None), batch.keys)
        return batch

    def collated(self, items: Sequence[Any], counters: Sequence[int]) -> Any:
        """A batch of the results of single samples."""
        if self.run.steps.batch is not None and self.run.steps.batch.encoded:
            columns = {} if self.run.columns is None else self.run.columns.taken_from(items)
            chances = Chances(self.key, np.array(counters, np.int64))
            encoded = encoded_samples(items, chances, empty=self.joined.empty)
            encoded.columns = columns
            return encoded
        step, options = self.run.steps.batch, self.options
        batch = collate(items, ragged=step is not None and step.ragged, lists=_boxed(items, options))
        return batch if self.run.columns is None else self.run.columns.joined(batch)

    def _encoded_task(self, span: _Span) -> Task[Item]:
        made, spent = _Once(lambda: self.encoded(span)), Spent()

        def part() -> None:
            begun, before = perf_counter(), self.record.meter().waited
            made()
            spent.parts.append((self.record.meter().waited - before, 0.0, perf_counter() - begun))

        def finish() -> Item:
            return self._finished(span, made(), span.counter(0), spent, perf_counter())

        return Task([part], finish, span.end - span.begin, span.nbytes)

    def _finished(self, span: _Span, batch: Any, counter: int, spent: Spent, begun: float) -> Item:
        """The batch as an item, after the maps; and its record. begun: when its last part was done."""
        item, applied = batch, 0.0
        if self.item_calls:
            mapped = perf_counter()
            item = self.apply_maps(batch, counter)
            applied = perf_counter() - mapped
        spent.close(self.record.meter(), begun, applied)
        if self.run.tuner is not None:
            self.run.tuner.made(batch, item)
        return span.taken, item

    def _slots(self, span: _Span) -> _Slots | None:
        """Where a batch is decoded in place, and by what. Without a size: as if all images had that of the first; None
        if it is not known.
        """
        decoder, n = span.decoder, span.end - span.begin
        assert decoder is not None
        if isinstance(decoder, ViewDecoder):
            views = {
                name: self.memory[name].empty((n, *shape), decoder.dtype) for name, shape in decoder.shapes.items()
            }
            return _Slots(decoder, views)
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
        return _Slots(decoder, {"": self.memory[""].empty(shape, decoder.dtype)})

    def _taken(self, span: _Span) -> Arrays | Claim | None:
        """The arrays of a batch that another process decoded; a Claim if this one is to share it; else None."""
        if self.run.shared is None:
            return None
        rows, draws = span.block.rows[span.begin : span.end], span.draws
        found = self.run.shared.take(rows, None if draws is None else draws[span.begin : span.end])
        if not isinstance(found, dict):
            return found
        assert self.decoder is not None
        names = {*self.memory, _LABELS} if self.targets else {*self.memory}
        if found.keys() != names or any(len(array) != len(rows) for array in found.values()):
            return None
        for name in self.memory:
            if found[name].dtype.itemsize != self.decoder.dtype.itemsize:
                return None
            found[name] = found[name].view(self.decoder.dtype)  # NumPy has no name for bfloat16
        return found

    def _given(self, span: _Span, arrays: Arrays) -> Batch:
        """The batch with the arrays that another process decoded."""
        keys = [span.block.keys[number] for number in range(span.begin, span.end)]
        labels = arrays.pop(_LABELS, None)
        if not self.targets:
            labels = self._labels_of_batch(span.block.labels[span.begin : span.end], keys, span)
        images = arrays if isinstance(self.decoder, ViewDecoder) else arrays[""]
        return Batch(images, labels, keys=keys, repeats=span.repeats, fields=self.columns(span, slice(None), keys))

    def _parts(self, span: _Span) -> list[tuple[int, int]]:
        n = span.end - span.begin
        size = max(PART_SAMPLES, -(-n // (self.record.threads or self.run.threads)))
        return [(begin, min(begin + size, n)) for begin in range(0, n, size)]

    def _straight_task(self, span: _Span) -> Task[Item | None]:
        """A batch whose images are decoded in place."""
        block, n = span.block, span.end - span.begin
        spent = Spent()
        general_part, general_finish = self._general(span, spent)
        prepared = _Once(lambda: self._slots(span))  # in a thread: it may have to wait for the first image
        taken = _Once(lambda: self._taken(span))
        failed: list[tuple[int, Exception]] = []
        targets: list[Any] = [None] * n

        def part(begin: int, end: int) -> None:
            begun = perf_counter()
            if isinstance(taken(), dict):
                waited = perf_counter() - begun  # for the process that decoded it
                spent.parts.append((waited, 0.0, waited))
                return
            base, slots = span.begin, prepared()
            if slots is None:
                general_part(begin, end)
                return
            datas, damaged = block.images(base + begin, base + end)
            fetched = perf_counter() - begun
            failed.extend((begin + number, damage) for number, damage in damaged.items())
            rows = None if span.draws is None else span.draws[base + begin : base + end]
            points = block.seek_points(base + begin, base + end) if _seeks(slots.decoder) else None
            for number, error in slots.batch_into(datas, slice(begin, end), rows, points):
                if number not in damaged:
                    failed.append((begin + number, error))
            for number in range(begin, end) if self.targets else ():
                if number - begin in damaged:
                    continue
                try:
                    targets[number] = target_of(block.target(base + number), self.targets, self.classes)
                except DecodeError as exc:
                    failed.append((number, exc))
            spent.parts.append((fetched, 0.0, perf_counter() - begun))

        def finish() -> Item | None:
            begun, given = perf_counter(), taken()
            if isinstance(given, dict):
                return self._finished(span, self._given(span, given), span.counter(0), spent, begun)
            slots = prepared()
            if slots is None or any(isinstance(error, OtherSizeError) for _, error in failed):
                if slots is not None:
                    general_part(0, n)
                return general_finish()  # type: ignore[no-any-return]
            failed.sort(key=lambda one: one[0])
            for number, error in failed:
                self._handle_failure(span, number, error)
            good: slice | NDArray[np.int64] = slice(None)
            if failed:
                good = np.setdiff1d(np.arange(n), [number for number, _ in failed])
                if not len(good):
                    return self._nothing(span)
            numbers = range(n) if not failed else good.tolist()  # type: ignore[union-attr]
            keys = [block.keys[span.begin + number] for number in numbers]
            labels: NDArray[Any] | None
            if self.targets:
                labels = stacked_labels([targets[number] for number in numbers], keys)
            else:
                labels = self._labels_of_batch(block.labels[span.begin : span.end][good], keys, span)
            if given is not None and not failed:
                share(given, slots.arrays | ({_LABELS: np.asarray(labels)} if self.targets else {}))
            marks = None if span.repeats is None else span.repeats[good]
            fields = self.columns(span, good, keys)
            batch = Batch(slots.chosen(good), labels, keys=keys, repeats=marks, fields=fields)
            return self._finished(span, batch, span.counter(int(numbers[0])), spent, begun)

        parts = [lambda b=b, e=e: part(b, e) for b, e in self._parts(span)]
        return Task(parts, finish, n, span.nbytes)

    def _general_task(self, span: _Span) -> Task[Any]:
        """Samples decoded one by one; as a batch if nothing is filtered."""
        part, finish = self._general(span, Spent())
        parts = [partial(part, begin, end) for begin, end in self._parts(span)]
        return Task(parts, finish, span.end - span.begin, span.nbytes)

    def _general(self, span: _Span, spent: Spent) -> tuple[Callable[[int, int], None], Callable[[], Any]]:
        n = span.end - span.begin
        results: list[Any] = [_GONE] * n

        def part(begin: int, end: int) -> None:
            meter, marks = self.record.meter(), list[float]()
            begun, before = perf_counter(), meter.waited
            marked = begin + (span.begin + begin) // PART_SAMPLES % (end - begin)  # any of them, in turn
            for number in range(begin, end):
                results[number] = self._sample(span, number, marks if number == marked else None)
            spent.add(perf_counter() - begun, meter.waited - before, marks)

        def finish() -> Any:
            begun = perf_counter()
            if self.batch is None:
                spent.close(self.record.meter(), begun, 0.0)
                if self.run.tuner is not None:
                    self.run.tuner.made(results)
                ends = (span.numbers + 1).tolist()
                kept = [at for at in range(n) if results[at] is not _GONE]
                if self.run.steps.batch:  # batches are made from the results of several tasks
                    return [(ends[at], (span.counter(at), results[at])) for at in kept]
                return [(ends[at], results[at]) for at in kept]
            kept = [at for at in range(n) if results[at] is not _GONE]
            if not kept:
                return self._nothing(span)
            counters = [span.counter(at) for at in kept]
            batch = self.collated([results[at] for at in kept], counters)
            return self._finished(span, batch, counters[0], spent, begun)

        return part, finish

    def _nothing(self, span: _Span) -> Item | None:
        return (span.taken, LOST) if self.run.steps.counted else None

    def _net(self) -> float:
        """The time, without what this thread has waited for a store."""
        return perf_counter() - self.record.meter().waited

    def _sample(self, span: _Span, number: int, marks: list[float] | None) -> Any:
        """The item made from a sample; _GONE for none. marks: gets the times between which it was read, decoded, and
        given to functions."""
        at = span.begin + number
        if marks is not None:
            marks.append(self._net())
        try:
            sample: Any = span.block.sample(at, checked=self.decoder is not None)
        except DamagedError as exc:
            if self.options is None:
                raise
            self._handle_failure(span, number, exc)
            return _GONE
        if span.repeats is not None and span.repeats[number]:
            sample[REPEAT] = True
        if marks is not None:
            marks.append(self._net())
        if self.decoder is not None:
            decoded = self._decode(span, number, sample)
            if decoded is None:
                return _GONE
            sample = decoded
        if self.run.columns is not None and span.further is not None:
            sample |= self.run.columns.sample(span.further(), at, span.block.keys[at])
        if marks is None:
            return self._applied(sample, span.counter(number))
        marks.append(self._net())
        found = self._applied(sample, span.counter(number))
        marks.append(self._net())
        return found

    def _applied(self, sample: Any, counter: int) -> Any:
        """What maps and filters of single samples make of one; _GONE if it is dropped."""
        for op, call in self.sample_calls:
            result = call(sample, counter)
            if isinstance(op, Map):
                sample = result
            elif not result:
                return _GONE
        return sample

    def _decode(self, span: _Span, number: int, sample: AnySample) -> AnySample | None:
        assert self.decoder is not None
        at = span.begin + number
        name = span.block.fields[at]
        row = None if span.draws is None else span.draws[at]
        try:
            if not name and _nothing_to_decode(sample, self.run.decoders):
                raise _no_image(sample)
            image = self._array(span, at, sample[name], row) if name else None
            label = target_of(sample.get(FIELD), self.targets, self.classes) if self.targets else None
            others = decode_fields(
                {
                    field: value
                    for field, value in sample.items()
                    if field != name and (field != FIELD or label is None)
                },
                decoders=self.run.decoders,
            )
            if name and self.options is not None and self.options.annotated:
                others = self._annotated(span, sample[name], row, others)
        except DecodeError as exc:
            self._handle_failure(span, number, exc)
            return None
        if name:
            self._require_one_image(name, others)
        decoded = {
            field: image if field == name else others[field] for field in sample if field == name or field in others
        }
        if label is not None:
            decoded["cls"] = label
        if "cls" in decoded and isinstance(decoded["cls"], int) and self.options and self.options.label != "int":
            decoded["cls"] = self._labels(np.array([decoded["cls"]]), span)[0]
        return decoded

    def _array(self, span: _Span, at: int, data: Any, row: NDArray[np.float64] | None) -> Any:
        """The decoded image of a sample, or its views."""
        decoder = span.decoder
        if isinstance(decoder, ViewDecoder):
            return decoder.array(data, row)
        assert decoder is not None
        return decoder.array(data, row, span.block.seek_points(at, at + 1) if _seeks(decoder) else None)

    def _annotated(
        self, span: _Span, data: Any, row: NDArray[np.float64] | None, others: dict[str, Any]
    ) -> dict[str, Any]:
        """The other fields with boxes and masks moved as the image is."""
        options, decoder = self.options, span.decoder
        assert options is not None and isinstance(decoder, ImageDecoder)
        move = decoder.move(data, row)
        if options.boxes is not None:
            others = move_boxes(others, as_boxes(options.boxes), move)
        if options.masks is not None:
            others = others | move_masks(others, as_masks(options.masks), move, options.max_pixels)
        return others

    def _require_one_image(self, name: str, others: Mapping[str, Any]) -> None:
        """UsageError for a mask, or another image of the same sample, that is decoded but would not be transformed
        alike.
        """
        assert self.options is not None
        if not self.options.moves_pixels:
            return
        masks = () if self.options.masks is None else as_masks(self.options.masks)
        for other, value in others.items():
            if other not in masks and other.rpartition(".")[2] in IMAGE_FIELDS:
                fact = (
                    f"crop, flip and augment change {printable(name)!r} only, "
                    f"and {printable(other)!r} would no longer match it"
                )
                cure = (
                    f"decode {printable(other)!r} and transform both in map(), "
                    "after decode() without crop=, flip= and augment="
                )
                if not isinstance(value, (bytes, memoryview)):
                    raise UsageError("decode()", fact, f"omit it from decoders=, or {cure}")
                if fact not in _SAID:
                    _SAID.add(fact)
                    log.warning("decode(): %s; %s", fact, cure)

    def _labels_of_batch(self, labels: NDArray[np.int64], keys: list[str], span: _Span) -> NDArray[Any] | None:
        """The encoded labels; None if no sample has one, as from `collate`, and DatasetError if only some have."""
        assert self.options is not None
        if self.options.label == "int" and labels.min() < 0:
            given = [None if label < 0 else label for label in labels.tolist()]
            return None if labels.max() < 0 else stacked_labels(given, keys)
        return self._labels(labels, span)

    def _labels(self, labels: NDArray[np.int64], span: _Span) -> NDArray[Any]:
        assert self.options is not None
        try:
            return encode_labels(labels, self.options.label, self.classes)
        except DecodeError as exc:
            place, _, key = span.block.place(span.begin)
            raise DecodeError(place, exc.fact, exc.cure, None, key) from exc

    def _handle_failure(self, span: _Span, number: int, exc: Exception) -> None:
        """Raise the error with its place, or count the sample if it may be skipped."""
        assert self.options is not None
        error: DatasetError
        if isinstance(exc, DecodeError):
            place, offset, key = span.block.place(span.begin + number)
            error = DecodeError(place, exc.fact, exc.cure, offset, key)
        elif isinstance(exc, DamagedError):
            error = exc
        else:
            raise exc
        if self.options.on_error == "raise":
            raise error from exc
        self.skips.add(error)


@dataclass(frozen=True, slots=True)
class _Span:
    """Samples begin … end - 1 of a block, with their numbers in the share."""

    block: Block
    begin: int
    end: int
    numbers: Numbers
    draws: NDArray[np.float64] | None
    repeats: NDArray[np.bool_] | None
    counters: Numbers | None
    """Counters that determine the random numbers of the block's samples, if they are needed."""
    decoder: ImageDecoder | ViewDecoder | None
    """Of these images."""
    nbytes: float = 0.0
    """Of these samples as they are stored, on the average of the block."""
    further: Callable[[], Further] | None = None
    """The further columns of the whole block, if any are asked for."""

    @property
    def places(self) -> slice:
        """Where its samples are in the block."""
        return slice(self.begin, self.end)

    def counter(self, number: int) -> int:
        """The counter of one of these samples."""
        return 0 if self.counters is None else int(self.counters[self.begin + number])

    @property
    def taken(self) -> int:
        """The number of the share's samples up to the last of these."""
        return int(self.numbers[-1]) + 1


@dataclass(frozen=True, slots=True)
class _Slots:
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


def decoder_of(options: DecodeOptions) -> ImageDecoder | ViewDecoder:
    """What decodes the images of a dataset."""
    return ImageDecoder(options) if options.views is None else ViewDecoder(options)


def _boxed(items: Sequence[Any], options: DecodeOptions | None) -> frozenset[str]:
    """The fields that are boxes or their labels, of which there are more or fewer in each image."""
    if options is None or options.boxes is None or not isinstance(items[0], dict):
        return frozenset()
    boxes = as_boxes(options.boxes)
    field = boxes.path if boxes.path in items[0] else boxes.path.split("/")[0]
    return frozenset({field, *(boxes.label_names if field == boxes.path else ())})


def _seeks(decoder: ImageDecoder | ViewDecoder) -> bool:
    """Whether seek points are worth reading: the views of an image take nearly all of it together."""
    return isinstance(decoder, ImageDecoder) and decoder.seeks


class _Once(Generic[T]):
    """Calls a function once, in the first thread that asks for its result."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make, self._lock = make, threading.Lock()
        self._made: list[T] = []

    def __call__(self) -> T:
        with self._lock:
            if not self._made:
                self._made.append(self._make())
            return self._made[0]


_GONE = object()


class _Skips:
    """Counts samples omitted as undecodable, and raises when there are too many."""

    def __init__(self, limit: int, record: Recorder) -> None:
        self.limit, self.count, self._lock = limit, 0, threading.Lock()
        self.record = record

    def add(self, error: DatasetError) -> None:
        with self._lock:
            self.count += 1
            self.record.skipped += 1
            log.warning("skipped (%d of at most %d): %s", self.count, self.limit, error)
            if self.count > self.limit:
                fact = f"{self.count} samples could not be decoded, but skip_limit is {self.limit}; the last: {error}"
                raise DatasetError("decode()", fact, "fix the dataset, or raise skip_limit")


def apply_to_items(items: Iterator[Item], after: Sequence[Any], delivered: int, record: Recorder) -> Iterator[Item]:
    """Apply steps to single items as they are delivered, after the maps done by the threads.

    delivered: items that an earlier run of this epoch already delivered; takes and skips continue counting from there.
    """
    for op in itertools.dropwhile(lambda op: isinstance(op, Map), after):
        if isinstance(op, Map):
            items = _each(items, record.timed(op.fn))
        elif isinstance(op, Filter):
            items = _those(items, record.timed(op.fn))
        elif isinstance(op, Take):
            items = itertools.islice(items, max(0, op.count - delivered))
        elif isinstance(op, Skip) and not delivered:
            items = itertools.islice(items, op.count, None)
    return items


def _each(items: Iterator[Item], fn: Callable[[Any], Any]) -> Iterator[Item]:
    return ((taken, fn(item)) for taken, item in items)


def _those(items: Iterator[Item], fn: Callable[[Any], Any]) -> Iterator[Item]:
    return ((taken, item) for taken, item in items if fn(item))
