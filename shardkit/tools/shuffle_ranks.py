"""Measure an order over many ranks: what they read, and how often samples meet again in a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from shardkit.reading.blocks.fetch_ahead import GAP_BYTES
from shardkit.reading.dataset import Dataset
from shardkit.reading.order.batches import BatchShare
from shardkit.reading.order.epoch_order import Order
from shardkit.reading.order.share import Share

Rows = NDArray[np.int64]

MOST_BATCHES = 4_000
"""The batches whose pairs are counted, evenly from all ranks and steps."""


@dataclass(frozen=True, slots=True)
class OverRanks:
    """How one order suits many ranks; two epochs are compared.

    buffer: of each rank, in samples. affinity: whether nodes keep their part of the shards. met: the share of the pairs
    of samples in a rank's batch that are in one batch again in the next epoch; chance: the same for a full permutation.
    read: what a rank fetches from a store, as a multiple of its own samples; gaps of up to 128 KiB are fetched along.
    touched: the shards of which a node reads a part, as a multiple of its own samples: what a cache of whole shards
    takes. kept: the share of a node's samples that it also had in the epoch before.
    """

    buffer: int
    ranks: int
    ranks_per_node: int
    affinity: bool
    met: float
    chance: float
    read: float
    touched: float
    kept: float


def over_ranks(data: Dataset, ranks: int, ranks_per_node: int, batch: int, *, affinity: bool = False) -> OverRanks:
    """Measure the order of a shuffled dataset for `ranks` ranks that read batches of `batch` samples.

    Takes about 2 microseconds per sample and 50 bytes of memory per sample. Raises UsageError for impossible options.
    """
    reading = replace(data.reading, rank=0, world_size=ranks, node_affinity=ranks_per_node if affinity else False)
    laid_out = replace(data, reading=reading).batch(batch, drop_last=True)
    epochs = [laid_out.epoch(number) for number in range(2)]
    shares: list[Share | BatchShare] = [replace(epochs[0].share, rank=rank) for rank in range(ranks)]
    first, second = ([_rows(epoch.order, share) for share in shares] for epoch in epochs)
    catalog = data.content.catalog
    samples, size = data.epoch_samples, batch
    return OverRanks(
        reading.buffer, ranks, ranks_per_node, affinity,
        met=met_again(first, second, samples, size),
        chance=(size - 1) / max(1, samples - 1),
        read=fetched(first, catalog.counts, max(1, GAP_BYTES // catalog.mean_bytes)),
        touched=touched(_of_nodes(first, ranks_per_node), catalog.counts),
        kept=kept(_of_nodes(first, ranks_per_node), _of_nodes(second, ranks_per_node), samples),
    )  # fmt: skip


def _rows(order: Order, share: Share | BatchShare) -> Rows:
    return share.rows(order, np.arange(len(share)))[0]


def _of_nodes(ranks: Sequence[Rows], ranks_per_node: int) -> list[Rows]:
    return [np.concatenate(ranks[low : low + ranks_per_node]) for low in range(0, len(ranks), ranks_per_node)]


def met_again(first: Sequence[Rows], second: Sequence[Rows], samples: int, batch: int) -> float:
    """The share of the pairs in a rank's batch of the first epoch that are in one batch in the second."""
    steps = max(len(rows) // batch for rows in second) + 1
    owner = np.full(samples, -1, np.int64)
    for rank, rows in enumerate(second):
        owner[rows] = rank * steps + np.arange(len(rows)) // batch
    batches = [rows[: len(rows) // batch * batch].reshape(-1, batch) for rows in first]
    every = np.concatenate(batches) if batches else np.zeros((0, batch), np.int64)
    chosen = every[:: max(1, len(every) // MOST_BATCHES)]
    if not len(chosen) or batch < 2:
        return 0.0
    found = np.sort(owner[chosen], axis=1)
    pairs = 0
    for distance in range(1, batch):  # of a run of c equal ones, c (c - 1) / 2 pairs
        same = (found[:, distance:] == found[:, :-distance]) & (found[:, distance:] >= 0)
        if not same.any():
            break
        pairs += int(same.sum())
    return pairs / (len(chosen) * batch * (batch - 1) / 2)


def fetched(ranks: Sequence[Rows], counts: Rows, gap: int) -> float:
    """What ranks fetch, as a multiple of their samples. gap: the most samples between two to fetch along."""
    starts = np.cumsum(counts) - counts
    total = along = 0
    for rows in ranks:
        ordered = np.sort(rows)
        between = np.diff(ordered) - 1
        shards = np.searchsorted(starts, ordered, side="right")
        near = (between > 0) & (between <= gap) & (np.diff(shards) == 0)
        total, along = total + len(rows), along + int(between[near].sum())
    return (total + along) / total if total else 1.0


def touched(nodes: Sequence[Rows], counts: Rows) -> float:
    """The samples of all shards of which a node reads some, as a multiple of those it reads."""
    starts = np.cumsum(counts) - counts
    total = sum(len(rows) for rows in nodes)
    whole = sum(int(counts[np.unique(np.searchsorted(starts, rows, side="right") - 1)].sum()) for rows in nodes)
    return whole / total if total else 1.0


def kept(first: Sequence[Rows], second: Sequence[Rows], samples: int) -> float:
    """The share of the samples of nodes in the second epoch that the same node had in the first."""
    before = np.full(samples, -1, np.int64)
    for node, rows in enumerate(first):
        before[rows] = node
    total = sum(len(rows) for rows in second)
    return sum(int((before[rows] == node).sum()) for node, rows in enumerate(second)) / total if total else 0.0
