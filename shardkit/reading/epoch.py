"""One epoch of a Dataset: its order over all ranks, this rank's share of it, and the run that delivers it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import chain, dropwhile, islice
from math import isqrt
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shardkit.errors import DatasetError, NotFoundError, ReplacedError, SampleIndexError, UsageError
from shardkit.location import Location
from shardkit.reading.batches.pipeline import Item, Run, streamed
from shardkit.reading.blocks.source import BlockSource, IndexedBlocks, OneBlock
from shardkit.reading.content import Concatenated, Mixed, usual_order
from shardkit.reading.ops import ALL, Filter, Skip, Steps, Take, cut
from shardkit.reading.order.derived import EndlessOrder, SelectedOrder
from shardkit.reading.order.epoch_order import EpochOrder, Order
from shardkit.reading.order.share import Share, lost_by
from shardkit.rng import stream_key
from shardkit.shards.find import TRIES
from shardkit.units import cores

if TYPE_CHECKING:
    from shardkit.reading.dataset import Dataset

log = logging.getLogger(__name__)

Rows = NDArray[np.int64]

_SAID: set[str] = set()
"""Warnings that were given, so that each comes once a process."""

LOADERS = ("torch.utils.data.", "torchdata.")
"""Modules that read by number what is given to a DataLoader."""


def order_of(data: Dataset, epoch: int) -> Order:
    """The order of an epoch over all ranks."""
    if data.reading.epoch_size is not None:
        return EndlessOrder(lru_cache(maxsize=2)(lambda number: _own_order(data, number)), data.epoch_samples)
    return _own_order(data, epoch)


def _own_order(data: Dataset, epoch: int) -> Order:
    reading, lanes = data.reading, data.lanes
    own = data.content.order(reading, lanes, epoch)
    if own is not None:
        return own
    catalog, rows = data.content.catalog, data.rows()
    if data.weights is not None:
        line = EpochOrder(catalog.counts, reading.buffer, reading.seed, epoch, 1).line(rows)
        chosen = data.weights.drawn(line, rows, catalog, stream_key("weights", reading.seed, epoch))
        return SelectedOrder(EpochOrder(np.array([len(chosen)]), reading.buffer, reading.seed, epoch, lanes), chosen)
    return usual_order(catalog, rows, reading, lanes, epoch)


def share_of(data: Dataset, epoch: int, done: int) -> Share:
    """This rank's part of an epoch, of which `done` samples of all ranks are over."""
    reading, steps = data.reading, data.steps
    rank, world_size = data.rank
    lost = lost_by(world_size, data.lanes)
    if lost is not None and reading.buffer:
        log.log(logging.DEBUG if lost in _SAID else logging.WARNING, "%s", lost)
        _SAID.add(lost)
    low, high = 0, data.epoch_samples
    if reading.epoch_size is not None:
        size = reading.epoch_size * (world_size * (data.batch_size or 1) if steps.sized_batches else 1)
        low, high = epoch * size, (epoch + 1) * size
    low, high = cut(low, high, steps.window)
    return Share(low, high, rank, world_size, data.remainder, done)


def run_of(data: Dataset, epoch: int, *, done: int, worker: int, workers: int) -> Run:
    """What delivers an epoch: see `Dataset.run`."""
    reading, streams = data.reading, data.content.streams
    if streams:
        source: BlockSource = _streamed(data, streams, epoch, worker, workers)
    else:
        share = share_of(data, epoch, done)
        repeats = data.weights is not None or reading.epoch_size is not None or isinstance(data.content, Mixed)
        remote = data.content.catalog.remote is not None
        window = window_of(data) // (share.world_size * workers) if remote else 0
        source = IndexedBlocks(
            data.content.catalog, order_of(data, epoch), share, reading.seed, epoch, worker, workers, repeats, window
        )
    demand_dealable(data, workers)
    _tell_of_lost_shuffle(data)
    threads = reading.threads or cores()
    return Run(source, data.steps, threads, reading.ahead or threads + 2, reading.decoders)


def demands_replay(steps: Steps, start: int) -> bool:
    """Whether a place in an epoch can be gone on from only by reading the epoch again up to it: a take() that another
    filter() follows has let more through than was delivered. start: a number of samples that came with no number of
    items."""
    after = steps.after
    first = next((place for place, op in enumerate(after) if isinstance(op, Take)), len(after))
    counts = any(isinstance(op, Take | Skip) for op in after)
    return any(isinstance(op, Filter) for op in after[first:]) or (start > 0 and counts)


def replayed(data: Dataset, epoch: int, done: int, start: int) -> Iterator[Item]:
    """The items of an epoch after `done` samples of all ranks and `start` of this rank's, read from its beginning."""
    over = done // data.rank[1]  # filtered: the state is this rank's own
    run = run_of(data, epoch, done=0, worker=0, workers=1)
    items = dropwhile(lambda item: item[0] <= over + start, streamed(run.items(), data.steps.after, 0))
    return ((taken - over, item) for taken, item in items)


def begun(data: Dataset, begin: Callable[[], Iterator[Item]]) -> Iterator[Item]:
    """What `begin` gives, for a Dataset of which nothing was told yet: where the dataset was replaced before its first
    item came, it is looked up again, so that a new reader gets the old one or the new one."""
    for _ in range(TRIES - 1):
        with suppress(ReplacedError):
            items = begin()
            return chain(list(islice(items, 1)), items)
        data.forget()
    return begin()


def _tell_of_lost_shuffle(data: Dataset) -> None:
    content = data.content
    if isinstance(content, Mixed) or not isinstance(content, Concatenated) or data.reading.buffer:
        return
    if any(part.reading.buffer for part in content.parts):
        said = "concat() reads its datasets in order, also those that are shuffled: call shuffle() on the result"
        log.log(logging.DEBUG if said in _SAID else logging.WARNING, "%s", said)
        _SAID.add(said)


def window_of(data: Dataset) -> int:
    """The samples that come up between the first and the last of one chunk of a store's shard, over all ranks: twice
    the shuffle's buffer, and those of a chunk in each lane. Of a mix, what its most spread part has."""
    if isinstance(data.content, Mixed):
        parts, quotas = data.content.parts, data.content.quotas
        total = sum(quotas)
        return max(window_of(part) * total // quota for part, quota in zip(parts, quotas, strict=True) if quota)
    if not data.reading.buffer and data.lanes == 1:
        return 0
    from shardkit.reading.blocks.fetch_ahead import CHUNK_BYTES

    buffer, chunk = data.reading.buffer // data.lanes, CHUNK_BYTES // data.content.catalog.mean_bytes
    return data.lanes * (2 * buffer + chunk + 8 * isqrt(buffer + chunk) + 2)  # that root is the order's spread


def demand_dealable(data: Dataset, workers: int) -> None:
    """Raises UsageError for what several workers can't do side by side."""
    if workers > 1 and any(isinstance(op, Take | Skip) for op in data.steps.after):
        fact = "after filter() they count what each worker makes, and not what comes of all of them"
        raise UsageError("take(), skip()", fact, "call them before filter(), or use num_workers=0: threads decode")


def batches_before(data: Dataset, done: int, delivered: int) -> int:
    """The batches of this rank, with those that skip() left out, that came before `done` samples of all ranks."""
    steps = data.steps
    if not done or steps.batch is None:
        return 0
    if steps.counted:
        return cut(0, ALL, steps.batch_window)[0] + delivered
    return -(-done // (steps.batch.size * data.rank[1]))


def _streamed(data: Dataset, streams: Sequence[Location], epoch: int, worker: int, workers: int) -> BlockSource:
    from shardkit.reading.blocks.stream import StreamBlocks

    reading, (rank, world_size) = data.reading, data.rank
    parts = world_size * workers
    if data.selection or data.weights is not None or reading.epoch_size is not None:
        _ = data.content.catalog  # raises: these need an index
    unequal = world_size > 1 and reading.remainder in ("drop", "pad")
    if unequal or (parts > 1 and data.steps.window):
        what = "dealt to ranks equally" if unequal else "counted by take() and skip() over ranks and workers"
        fact = f"shards without a manifest can't be {what}"
        raise DatasetError(str(streams[0]), fact, f'count their samples with: shardkit index "{streams[0]}"')
    window = cut(0, ALL, data.steps.window)
    part = rank * workers + worker
    names, remote = data.content.names, data.content.remote
    return StreamBlocks(streams, reading.buffer, reading.seed, epoch, part, parts, names, window, remote)


def read_by_loader(depth: int) -> bool:
    """Whether torch's data loading has called the function that is `depth` callers up: 1 is the one that asks."""
    module: str = sys._getframe(depth + 1).f_globals.get("__name__", "")
    return module.startswith(LOADERS)


def demand_numbered(data: Dataset) -> None:
    """Raises UsageError for a Dataset that a DataLoader would read by number as something else than it says: numbers
    know no shuffling, no ranks, no batches, and no epoch for random crops."""
    decode, world_size = data.steps.decode, data.rank[1]
    cure = "give the DataLoader dataset.to_torch() with batch_size=None, or to_torch(map_style=True) with shuffle=True"
    if data.steps.batch is not None:
        fact, cure = "batches have no number", "iterate over batches.to_torch().loader(num_workers=…)"
    elif data.reading.buffer:
        fact = "it asks for samples by number, which come in the order of the shards, and this dataset is shuffled"
    elif world_size > 1:
        fact = f"it asks for samples by number, which count over all {world_size} ranks, and this is the part of one"
        cure = "give the DataLoader to_torch(map_style=True) with a DistributedSampler, or dataset.to_torch()"
    elif decode is not None and (decode.options.crop == "random" or decode.options.flip):
        fact = "it asks for samples by number, and their random crops and flips would be the same in each epoch"
    else:
        return
    raise UsageError("DataLoader(dataset)", fact, cure)


def one_of(data: Dataset, item: Any) -> Any:
    """A sample by its number or key, as `Dataset.__getitem__` gives it."""
    if data.steps.batch is not None:
        raise UsageError("dataset[…]", "batches have no number", "take samples, before batch()")
    source = OneBlock(data.content.catalog, _row_of(data, item), data.reading.seed)
    found = next(Run(source, data.steps, 1, 1, data.reading.decoders).items(), None)
    if found is None:
        raise NotFoundError(repr(data.content), f"filter() drops sample {item!r}", "ask the unfiltered dataset")
    return found[1]


def _row_of(data: Dataset, item: Any) -> int:
    rows = data.members()
    if isinstance(item, str):
        for row in data.content.catalog.rows_of(item):
            if rows is None or row in rows:
                return row
        raise NotFoundError(repr(data.content), f"there is no sample {item!r}", "check the key")
    total = data.epoch_samples
    if not -total <= item < total:
        fact = f"there is no sample {item} among {total}"
        raise SampleIndexError(repr(data.content), fact, "samples count from 0")
    return int(item) % total if rows is None else int(rows[item])
