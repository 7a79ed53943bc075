"""Run the steps of a Dataset over one epoch: blocks of samples, threads that decode them, batches in order.

Each item is accompanied by the number of the share's samples that were taken up to and including it, which is all that
resuming needs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shardkit.reading.batches.batch import REPEAT, collate
from shardkit.reading.batches.pool import Task, Threads
from shardkit.reading.batches.tasks.in_place import InPlace
from shardkit.reading.batches.tasks.work import Group, Item, Work
from shardkit.reading.batches.tasks.worker import PART_SAMPLES, Worker
from shardkit.reading.blocks.block import Placed
from shardkit.reading.ops import ALL, BatchUp, Filter, Map, Skip, Steps, Take, clip
from shardkit.reading.stats.record import Recorder
from shardkit.sample import AnySample


@dataclass(frozen=True)
class Run(Work):
    """One epoch of one reader, which can be iterated."""

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
        worker = Worker(self)
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
        worker = Worker(self)
        whole = self.steps.batch is not None and self.steps.whole
        tasks = self._tasks(worker, blocks)
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
            if self.tuner is not None:
                self.tuner.close()

    def _regroup(self, items: Iterator[Item], worker: Worker) -> Iterator[Item]:
        """Batches of the items that passed a filter."""
        assert self.steps.batch is not None
        size, drop = self.steps.batch.size, self.steps.batch.drop_last
        while chosen := list(itertools.islice(items, size)):
            if len(chosen) < size and drop:
                return
            counters, batch = zip(*(item for _, item in chosen), strict=True)
            yield chosen[-1][0], worker.apply_maps(worker.collated(batch, counters), counters[0])

    def _tasks(self, worker: Worker, blocks: Iterator[Placed]) -> Iterator[Task[Any]]:
        """One for each batch, or run of samples."""
        in_place, size = InPlace(worker), worker.batch.size if worker.batch else PART_SAMPLES * 4
        for placed in blocks:
            for span in worker.spans(placed, size):
                if worker.straight:
                    yield in_place.task(span)
                else:
                    yield worker.encoded_task(span) if worker.untouched else worker.general_task(span)


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
