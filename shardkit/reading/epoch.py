"""One epoch of a Dataset as a value: its order over all ranks, this rank's share of it, and the items of both."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import dropwhile
from typing import TYPE_CHECKING

import numpy as np

from shardkit.errors import DatasetError, UsageError
from shardkit.reading.batches.columns import ColumnReader
from shardkit.reading.batches.memory import Memory
from shardkit.reading.batches.pipeline import Run, apply_to_items, batch_limits
from shardkit.reading.batches.shared import SharedBatches, shared_batches
from shardkit.reading.batches.tasks.work import Group, Item
from shardkit.reading.blocks.batches import BatchBlocks
from shardkit.reading.blocks.block import Rows
from shardkit.reading.blocks.fetch_ahead import StorePrefetch, is_narrow
from shardkit.reading.blocks.source import IndexedBlocks
from shardkit.reading.buckets.sorted import Sorted, sorted_into
from shardkit.reading.content import Concatenated, Content, Mixed, usual_order
from shardkit.reading.ops import ALL, Steps, clip
from shardkit.reading.options import DEFAULT_BUFFER, Reading
from shardkit.reading.order.batches import BatchOrder, BatchShare
from shardkit.reading.order.derived import EndlessOrder, SelectedOrder, line_of
from shardkit.reading.order.epoch_order import EpochOrder, Order
from shardkit.reading.order.layout import Layout, cost_of
from shardkit.reading.order.share import Share
from shardkit.reading.select import Weights
from shardkit.reading.stats.auto import Limits, Point
from shardkit.reading.stats.record import Recorder, Setting
from shardkit.reading.stats.tuner import Tuner
from shardkit.rng import stream_key
from shardkit.storage.node.client import open_node
from shardkit.threads import cached_property
from shardkit.units import cores

if TYPE_CHECKING:
    from shardkit.reading.blocks.stream import StreamBlocks

log = logging.getLogger(__name__)

AHEAD_SHARE = 4
"""With a store, the batches that ahead="auto" makes ahead take this part of ahead_bytes, and its bytes the others."""

_SAID: set[str] = set()
"""Warnings already logged: each is logged once per process."""


@dataclass(frozen=True, eq=False)
class Epoch:
    """An epoch as this rank reads it. Made by `Dataset.epoch`; derived values are computed on demand.

    number: of the epoch. content: what is read; rows: those of its catalog that occur, None for all. weights: how often
    they occur. reading: the reading options. steps: what is done to the samples. done: the finished samples of the
    epoch, over all ranks.
    """

    number: int
    content: Content
    rows: Rows | None
    weights: Weights | None
    reading: Reading
    steps: Steps
    done: int = 0

    @property
    def samples(self) -> int:
        """The number of samples that occur, over all ranks. DatasetError for shards without a manifest."""
        return self.content.samples(self.rows)

    @property
    def repeats(self) -> bool:
        """Whether a sample may occur several times."""
        return self.weights is not None or self.reading.epoch_size is not None or isinstance(self.content, Mixed)

    @cached_property
    def layout(self) -> Layout:
        """The layout of the order. UsageError for nodes that could not keep their samples."""
        layout = self.content.layout(self.reading)
        if not 0 < layout.node < layout.sections:
            return layout
        cure = "omit it, or what it can't be used with: weight(), balance(), mix() and epoch_size()"
        if self.weights is not None:
            fact = "each epoch draws other samples by their weights, which are not those of a node"
            raise UsageError("node_affinity", fact, cure)
        if self.reading.epoch_size is not None or isinstance(self.content, Mixed):
            fact = "the epochs begin within those of the shards, so that their samples come to other nodes"
            raise UsageError("node_affinity", fact, cure)
        return layout

    @cached_property
    def order(self) -> Order:
        """The order over all ranks."""
        if self.reading.epoch_size is not None:
            return EndlessOrder(lru_cache(maxsize=2)(self._order_of), self.samples)
        return self._order_of(self.number)

    @cached_property
    def sorted(self) -> Sorted:
        """The samples by bucket, if there are buckets. DatasetError for samples whose size is not known."""
        decode, buckets = self.steps.decode, self.steps.buckets
        assert buckets is not None
        turned = decode is not None and bool(decode.options.orientation)
        return sorted_into(self.content, self.rows, buckets, orientation=turned)

    def describe_batches(self) -> str:
        """What determines the batches, if there are buckets, besides the order of the samples."""
        batch, decode = self.steps.batch, self.steps.decode
        turned = decode is not None and bool(decode.options.orientation)
        size = None if batch is None else f"{batch.size}{' drop_last' * batch.drop_last}"
        return f"buckets {list(self.sorted.shapes)} {turned} {size}"

    def _order_of_batches(self) -> BatchOrder:
        reading, batch = self.reading, self.steps.batch
        self.steps.require_buckets_used()
        assert batch is not None
        orders = self.sorted.orders(
            self.content.catalog.counts, buffer=reading.buffer, seed=reading.seed, epoch=self.number, layout=self.layout
        )
        return BatchOrder(
            orders, batch.size, self.layout, reading.seed, self.number, shuffled=reading.buffer > 0,
            drop_last=batch.drop_last,
        )  # fmt: skip

    def _order_of(self, number: int) -> Order:
        reading, layout = self.reading, self.layout
        if self.steps.buckets is not None:
            return self._order_of_batches()
        own = self.content.order(reading, layout, number)
        if own is not None:
            return own
        catalog = self.content.catalog
        if self.weights is not None:
            line = line_of(EpochOrder(catalog.counts, reading.buffer, reading.seed, number, 1), self.rows)
            chosen = self.weights.drawn(line, self.rows, catalog, stream_key("weights", reading.seed, number))
            whole = np.array([len(chosen)])
            places = EpochOrder(whole, reading.buffer, reading.seed, number, layout.lanes, layout.sections)
            return SelectedOrder(places, chosen)
        return usual_order(catalog, self.rows, reading, layout, number)

    @cached_property
    def share(self) -> Share | BatchShare:
        """This rank's part of the order, after the finished samples."""
        reading, steps = self.reading, self.steps
        rank, world_size = reading.ranks
        order = self.order if steps.buckets is not None else None
        if isinstance(order, BatchOrder):
            batches = order.batches
            self._warn_of_few(batches, world_size)
            done = self.done // order.size
            return BatchShare(batches, order.size, rank, world_size, reading.order_remainder, done)
        unit = steps.batch.size if steps.batch is not None and steps.whole and steps.counted else 1
        if reading.buffer and world_size > 1:
            self._warn_of_layout(world_size, unit)
        low, high = 0, self.samples
        if reading.epoch_size is not None:
            batch_size = steps.batch.size if steps.batch is not None and steps.sized_batches else 1
            size = reading.epoch_size * (world_size * batch_size if steps.sized_batches else 1)
            low, high = self.number * size, (self.number + 1) * size
        low, high = clip(low, high, steps.window)
        return Share(low, high, rank, world_size, reading.order_remainder, self.done, unit, self.layout)

    def _warn_of_few(self, batches: int, world_size: int) -> None:
        if batches < world_size and self.reading.order_remainder == "drop":
            _warn_once(
                f"buckets() make {batches:,} batches for {world_size:,} ranks, so that none gets any: use fewer "
                "buckets, smaller batches, or batch() without drop_last=True"
            )

    def _warn_of_layout(self, world_size: int, unit: int) -> None:
        cost = cost_of(world_size, self.layout, in_runs=unit > 1)
        if cost is not None:
            _warn_once(cost)
        buffer = self.reading.buffer
        if buffer < unit:
            _warn_once(
                f"the shuffle buffer of a rank holds {buffer:,} samples, fewer than its batches of {unit:,}: "
                f"neighbours in a shard stay together; use shuffle={DEFAULT_BUFFER}"
            )

    @property
    def span(self) -> tuple[int, int]:
        """The range of the share's samples that the items take, ignoring filter()."""
        samples = len(self.share)
        return (0, samples) if self.steps.batch is None else batch_limits(self.steps, samples)

    @property
    def taken(self) -> int:
        """The number of samples that the items take, ignoring filter()."""
        low, high = self.span
        return high - low if self.steps.buckets is None else len(self.rows_in_order)

    @property
    def rows_in_order(self) -> Rows:
        """The rows of the catalog in the order of the items (int64)."""
        rows = self.share.rows(self.order, np.arange(*self.span))[0]
        return rows if self.steps.buckets is None else rows[rows >= 0]

    def item_count(self, delivered: int = 0) -> int:
        """The number of remaining items. delivered: items that were delivered before the remaining samples."""
        samples = len(self.share)
        if self.steps.batch is None:
            return samples
        low, high = batch_limits(self.steps, samples, self._batches_before(delivered))
        return max(0, -(-(high - low) // self.steps.batch.size))

    def _batches_before(self, delivered: int) -> int:
        """The batches of this rank, including those omitted by skip(), before the remaining samples."""
        steps = self.steps
        if not self.done or steps.batch is None:
            return 0
        if steps.counted:
            return clip(0, ALL, steps.batch_window)[0] + delivered
        return -(-self.done // (steps.batch.size * self.reading.ranks[1]))

    def items(
        self,
        record: Recorder,
        *,
        delivered: int = 0,
        start: int = 0,
        worker: int = 0,
        workers: int = 1,
        memory: Memory | None = None,
    ) -> Iterator[Item]:
        """The items, each with the number of this rank's samples taken so far: see `Dataset.run`."""
        if (self.done or start) and self.steps.needs_replay(start):
            items = self._replay(start, memory, record)
        else:
            run = self._run(record, worker, workers, memory)
            items = run.items(start, self._batches_before(delivered))
            items = apply_to_items(items, self.steps.after, delivered, record)
        return items if self.steps.batch is None else record.through(items)

    def groups(self, record: Recorder, *, delivered: int = 0) -> Iterator[Group]:
        """The items for a single reader, in groups, which are cheaper to deliver one by one."""
        if self.steps.none:
            return self._run(record, worker=0, workers=1, memory=None).groups()
        return ((taken, (item,)) for taken, item in self.items(record, delivered=delivered))

    def _replay(self, start: int, memory: Memory | None, record: Recorder) -> Iterator[Item]:
        """The items after `start` samples of this rank, found by reading from the beginning of the epoch."""
        over = self.done // self.reading.ranks[1]  # filtered: the state is this rank's own
        run = replace(self, done=0)._run(record, worker=0, workers=1, memory=memory)
        items = apply_to_items(run.items(), self.steps.after, 0, record)
        return ((taken - over, item) for taken, item in dropwhile(lambda item: item[0] <= over + start, items))

    def _run(self, record: Recorder, worker: int, workers: int, memory: Memory | None) -> Run:
        reading = self.reading
        source = self._streams(worker, workers) if self.content.streams else self._blocks(worker, workers)
        source = replace(source, record=record)
        self.steps.require_dealable(workers)
        self._warn_of_lost_shuffle()
        tuner = self._tuner(record, workers)
        threads = reading.decoding_threads if tuner is None else tuner.threads
        record.begin(self._setting(threads))
        return Run(
            source, self.steps, threads, reading.batches_ahead, reading.decoders, memory, self._shared(), record, tuner,
            column_reader(self.content, self.steps),
        )  # fmt: skip

    def _tuner(self, record: Recorder, workers: int) -> Tuner | None:
        """What chooses threads and batches ahead while reading; None if both are given, and if no threads decode."""
        reading, most = self.reading, self.content.remote.ahead_bytes
        limits = Limits(reading.threads == "auto", reading.ahead == "auto", max(1, cores() // workers))
        if not self.steps.threaded or not (limits.threads or limits.ahead):
            return None
        threads = limits.cores if limits.threads else reading.decoding_threads
        if limits.ahead and (self.content.streams or self.content.catalog.prefetch.strength == StorePrefetch.strength):
            most //= AHEAD_SHARE
            record.reserved = most
        start = Point(threads, threads + 2 if limits.ahead else reading.batches_ahead)
        return Tuner(record, start, limits, most)

    def _setting(self, threads: int) -> Setting:
        """How it reads, for its record."""
        rank, world_size = self.reading.ranks
        remote, threaded = self.content.remote, self.steps.threaded
        ahead = self.reading.batches_ahead if threaded else 0
        return Setting(
            rank, world_size, threads if threaded else 0, ahead, cores(), is_narrow(remote), remote.cache is not None
        )

    def _shared(self) -> SharedBatches | None:
        """The decoded batches that the processes of this machine share, if they were asked to."""
        decode, content, reading = self.steps.decode, self.content, self.reading
        if decode is None or not reading.shared or content.streams:
            return None
        shapes = () if self.steps.buckets is None else self.sorted.shapes
        node = open_node(reading.shared, content.remote.ahead_bytes)
        return shared_batches(node, content.catalog, decode.options, shapes)

    def _blocks(self, worker: int, workers: int) -> IndexedBlocks:
        """The blocks of a catalog."""
        catalog, reading, share = self.content.catalog, self.reading, self.share
        window = self.content.window(reading, self.layout)
        if self.steps.buckets is not None:
            return BatchBlocks(
                catalog, self.order, share, reading.seed, self.number, worker, workers, self.repeats,
                window // (share.world_size * workers), shapes=self.sorted.shapes,
            )  # fmt: skip
        return IndexedBlocks(
            catalog, self.order, share, reading.seed, self.number, worker, workers, self.repeats,
            window // (share.world_size * workers),
        )  # fmt: skip

    def _streams(self, worker: int, workers: int) -> StreamBlocks:
        """The blocks of shards without a manifest."""
        from shardkit.reading.blocks.stream import StreamBlocks

        content, reading, (rank, world_size) = self.content, self.reading, self.reading.ranks
        parts = world_size * workers
        if self.weights is not None or reading.epoch_size is not None or self.steps.buckets is not None:
            _ = content.catalog  # raises: these features need an index
        unequal = world_size > 1 and reading.remainder in ("drop", "pad")
        if unequal or (parts > 1 and self.steps.window):
            what = "distributed equally to ranks" if unequal else "counted by take() and skip() over ranks and workers"
            fact = f"shards without a manifest can't be {what}"
            first = str(content.streams[0])
            raise DatasetError(first, fact, f'count their samples with: shardkit index "{first}"')
        window = clip(0, ALL, self.steps.window)
        part = rank * workers + worker
        return StreamBlocks(
            content.streams, reading.buffer, reading.seed, self.number, part, parts, content.names, window,
            content.remote,
        )  # fmt: skip

    def _warn_of_lost_shuffle(self) -> None:
        content = self.content
        if isinstance(content, Mixed) or not isinstance(content, Concatenated) or self.reading.buffer:
            return
        if any(part.reading.buffer for part in content.parts):
            _warn_once("concat() reads its datasets in order, even shuffled ones: call shuffle() on the result")


def column_reader(content: Content, steps: Steps) -> ColumnReader | None:
    """What reads the further columns that the steps ask for; None if they ask for none. Raises UsageError as
    ColumnReader, DatasetError for shards without a manifest."""
    place, asked = steps.columns
    if not asked:
        return None
    views = None if steps.decode is None else steps.decode.options.views
    return ColumnReader(place, asked, content.catalog, tuple(views or ()))


def _warn_once(text: str) -> None:
    """Log a warning, once per process; repeated ones are debug messages."""
    log.log(logging.DEBUG if text in _SAID else logging.WARNING, "%s", text)
    _SAID.add(text)
