"""A torch DataLoader of whole batches that knows what it has delivered."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from multiprocessing.context import BaseContext
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from torch.utils.data._utils.pin_memory import pin_memory

from shardkit.adapters.torch import accelerate
from shardkit.adapters.torch.exchange import Exchange, open_exchange
from shardkit.adapters.torch.readers import loaded_by_lightning, require_readable
from shardkit.adapters.torch.tensors import CURE_OF_WORKERS
from shardkit.errors import ShardkitError, StateError, UsageError, WorkerError
from shardkit.reading.batches.tasks.work import LOST
from shardkit.reading.fingerprint import require_same
from shardkit.reading.state import Cursor
from shardkit.reading.stats.record import TELL_SECONDS, Counts, Recorder, Setting
from shardkit.units import cores

if TYPE_CHECKING:
    from shardkit.adapters.torch.iterable import TorchDataset


class LoaderOptions(TypedDict, total=False):
    """The options of torch's DataLoader that make sense for whole batches. All may be omitted."""

    batch_size: None
    num_workers: int
    collate_fn: Callable[[Any], Any]
    pin_memory: bool
    timeout: float
    worker_init_fn: Callable[[int], None] | None
    multiprocessing_context: str | BaseContext | None
    generator: torch.Generator | None
    prefetch_factor: int | None
    persistent_workers: bool
    pin_memory_device: str
    in_order: bool


@dataclass(frozen=True)
class _Passed:
    """What a worker of a TorchLoader passes on: item number `made`; at the end, the number of items; or an error."""

    worker: int
    made: int
    epoch: int = 0
    taken: int = 0
    item: Any = None
    over: bool = False
    error: ShardkitError | None = None
    counts: Counts | None = None
    """What was counted in the worker so far, now and then."""

    def pin_memory(self, *device: Any) -> _Passed:
        """The same, pinned. torch calls it for pin_memory=True."""
        return replace(self, item=pin_memory(self.item, *device))


class _Counted(IterableDataset[Any]):  # type: ignore[misc]  # as above
    """The items with what they took, for the workers of a TorchLoader."""

    def __init__(self, source: TorchDataset, exchange: Exchange | None) -> None:
        self.source, self.exchange = source, exchange

    def __iter__(self) -> Iterator[_Passed]:
        worker, made = get_worker_info().id, 0
        reading = self.source.dataset.reading
        sender = None if self.exchange is None else self.exchange.sender(worker, reading.batches_ahead)
        watch, due = self.source.dataset.watch, 0.0
        try:
            for made, (epoch, taken, item) in enumerate(self.source.counted(sender), 1):
                counts, now = None, perf_counter()
                if now >= due:
                    counts, due = watch.counts(), now + TELL_SECONDS
                yield _Passed(worker, made, epoch, taken, item, counts=counts)
        except ShardkitError as exc:
            yield _Passed(worker, made, error=exc)
        yield _Passed(worker, made, over=True, counts=watch.counts())


class TorchLoader(DataLoader[Any]):  # type: ignore[misc]  # as above
    """A DataLoader of whole batches that can be resumed at the next batch, with any number of workers or ranks.

    `dataset` is the TorchDataset, so that what takes a loader apart to build one of its own (Lightning, Accelerate)
    gets batches. Each worker numbers its batches: one that does not arrive is a WorkerError, never a shorter epoch.
    Accelerate's `prepare` returns the loader itself, which then moves its batches to the device of the process.
    """

    end_of_dataloader = False
    remainder = -1

    def __init__(self, dataset: TorchDataset, **options: Unpack[LoaderOptions]) -> None:
        if options.setdefault("batch_size", None) is not None:
            raise UsageError("batch_size", "the dataset already yields batches", "call batch() on the Dataset")
        options.setdefault("collate_fn", _same)
        super().__init__(dataset, **options)
        self._options = options
        self._persistent: tuple[DataLoader[Any], Exchange | None] | None = None
        dataset.dataset.steps.require_dealable(self.num_workers)
        self._prepared = False
        self._delivered: Cursor | None = None

    @property
    def _is_accelerate_prepared(self) -> bool:
        """What Accelerate asks a loader before it replaces it; no other code does."""
        self._prepared = accelerate.keeps_its_part(self.source.dataset)
        return self._prepared

    @_is_accelerate_prepared.setter
    def _is_accelerate_prepared(self, prepared: bool) -> None:
        self._prepared = prepared

    @property
    def source(self) -> TorchDataset:
        """The dataset being loaded."""
        found: TorchDataset = self.dataset
        return found

    def __iter__(self) -> Iterator[Any]:
        return accelerate.watched(self, self._looking_ahead()) if self._prepared else self._items()

    def _looking_ahead(self) -> Iterator[tuple[Any, bool]]:
        """The items, each with whether it is the last; the state is that of the item, not of the next one."""
        items = self._items()
        try:
            following = list(islice(items, 1))
            while following:
                item = following[0]
                self._delivered = replace(self.source.dataset.position.where())
                following = list(islice(items, 1))
                yield item, not following
        finally:
            self._delivered = None

    def _items(self) -> Iterator[Any]:
        if not self.num_workers:
            yield from super().__iter__()
            return
        require_readable(self.source.dataset)
        require_same(self.source.dataset)
        position = self.source.dataset.position
        cursor = position.begin()
        self.source.begin_at(cursor)
        record = self._record()
        try:
            with closing(self._passed(record)) as arriving:
                for passed in arriving:
                    while cursor.epoch < passed.epoch:
                        cursor = position.next_epoch(cursor)
                    cursor.taken = passed.taken
                    cursor.delivered += 1
                    if passed.item is not LOST:
                        record.deliver()
                        yield passed.item
                        record.resume()
        finally:
            record.over()
        position.end(cursor)

    def _record(self) -> Recorder:
        """The record of a new iteration: what the loop waits for here, and what the workers tell of theirs."""
        reading = self.source.dataset.reading
        record = self.source.dataset.watch.begin(reading.on_stats, reading.progress)
        threads, ahead = self.num_workers * reading.decoding_threads, self.num_workers * reading.batches_ahead
        record.begin(Setting(*reading.ranks, threads, ahead, cores()))
        return record

    def _passed(self, record: Recorder) -> Generator[_Passed]:
        """What the workers of an iteration pass on. Persistent ones keep their memory for the next iteration."""
        workers, exchange = self._persistent or self._start()
        if self.persistent_workers:
            self._persistent = workers, exchange
        try:
            yield from _complete(_counted(workers, record), self.num_workers)
        finally:
            if exchange is not None and not self.persistent_workers:
                exchange.close()

    def _start(self) -> tuple[DataLoader[Any], Exchange | None]:
        exchange = open_exchange(self.num_workers, self.prefetch_factor)
        return DataLoader(_Counted(self.source, exchange), **self._options), exchange

    def set_epoch(self, epoch: int) -> None:
        """Set the number of the next iteration's epoch."""
        self.source.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """The position of the loader: what it has delivered, not what its workers have made ahead. Plain JSON.

        StateError with filter() and several workers, which are then at different positions.
        """
        if self.num_workers > 1 and not self.source.dataset.steps.counted:
            fact = f"with filter() the {self.num_workers} workers are at different positions"
            raise StateError("state_dict()", fact, "use num_workers=0: threads decode all the same")
        data = self.source.dataset
        state, at = data.state_dict(), self._delivered
        if at is None:
            return state
        return data.position.state_dict(
            at, order=data.order_identity, ranks=data.reading.ranks, placement=data.placement, steps=data.steps,
            versions=data.content.versions,
        )  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Make the next iteration resume at the next batch. StateError for another dataset or order.

        After the last batch of an epoch, the next iteration is empty, unless Lightning loads the state: it counts
        such an epoch as finished, and begins the next one.
        """
        self.source.dataset.load_state_dict(state)
        if loaded_by_lightning(1):
            self._leave_finished_epoch()

    def _leave_finished_epoch(self) -> None:
        data, at = self.source.dataset, self.source.dataset.position.where()
        last = data.reading.turns is not None and at.turn + 1 >= data.reading.turns
        if last and at.done and data.countable and not data.epoch(at.epoch, done=at.done).item_count(at.delivered):
            data.position.set_epoch(at.epoch + 1)


def _counted(passed: Iterable[_Passed], record: Recorder) -> Iterator[_Passed]:
    """What the workers pass on. The record gets what they counted, and the waits for them."""
    arriving = iter(passed)
    while True:
        begun = perf_counter()
        one = next(arriving, None)
        record.blocked(perf_counter() - begun, 0)
        if one is None:
            return
        if one.counts is not None:
            record.others[one.worker] = one.counts
        yield one


def _complete(passed: Iterable[_Passed], workers: int) -> Iterator[_Passed]:
    """The items from the workers, without the end markers. WorkerError if any did not arrive."""
    made, ended = [0] * workers, set[int]()
    for one in passed:
        if one.error is not None:
            raise one.error
        if one.over:
            ended.add(one.worker)
        else:
            made[one.worker] += 1
        if one.made != made[one.worker]:
            raise _lost(one.worker, one.made - made[one.worker] + (not one.over))
        if not one.over:
            yield one
    for worker in range(workers):
        if worker not in ended:
            raise _lost(worker, 1)


def _lost(worker: int, count: int) -> WorkerError:
    fact = f"{max(1, count)} or more of its batches did not arrive, see the worker's own message on stderr"
    return WorkerError(f"DataLoader worker {worker}", fact, CURE_OF_WORKERS)


def _same(item: Any) -> Any:
    return item
