"""Measure how well a dataset is mixed, as packed and with shuffle buffers and lanes, relative to a full permutation.

Only the index is read. It measures the order that a training run with the same options gets, not a model.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shardkit.errors import UsageError
from shardkit.options.fields import checked_by
from shardkit.reading.dataset import Dataset, dataset
from shardkit.rng import permutation, stream_key
from shardkit.shards.find.shards import SourceLike
from shardkit.storage.files import translated
from shardkit.tools.pictures import PLOT_SUFFIXES, out_path, require_matplotlib
from shardkit.tools.settings import ShuffleQualitySettings
from shardkit.tools.shuffle_ranks import OverRanks, over_ranks

TOLERANCE = 0.05
"""A buffer is enough if class entropy and carry-over of batches are within this of a full permutation's (and within
what chance does to so many batches), and its runs of a class are at most RUNS times as long."""

RUNS = 1.5

MOST_CHANCE = 1.0
"""With a larger effect of chance, as of 3 batches, neither entropy nor carry-over can tell a way of reading from
another."""


@dataclass(frozen=True, slots=True)
class Mixing:
    """How well one way of reading mixes.

    run_length: average number of consecutive samples of one class. batch_entropy: average class entropy of a batch, in
    bits. displacement: average distance of a sample from its packed position, as a fraction of the dataset (about 1/3
    for a full permutation). epoch_change: the same between two epochs. mixed: batch_entropy divided by the full
    permutation's. carry_over: the correlation of a batch's class counts with the next batch's. 0 for a full
    permutation; near 1 if consecutive batches have the same classes, as with runs of classes, or lanes that deal out
    such runs.
    """

    name: str
    buffer: int
    run_length: float
    batch_entropy: float
    displacement: float
    epoch_change: float
    mixed: float
    carry_over: float


@dataclass(frozen=True, slots=True)
class ShuffleQuality:
    """The ways of reading that were compared, the full permutation last. `enough`: the smallest sufficient buffer.

    packed: whether these are shards, and not a class directory. chance: how far chance may move the figures of so many
    batches; above MOST_CHANCE, they tell nothing. over_ranks: the shuffled ways over several ranks, if asked for.
    """

    samples: int
    classes: int
    shards: int
    lanes: int
    batch: int
    ways: tuple[Mixing, ...]
    enough: int | None
    packed: bool = True
    chance: float = 0.0
    over_ranks: tuple[OverRanks, ...] = ()


@checked_by(ShuffleQualitySettings)
def shuffle_quality(
    source: SourceLike,
    *,
    buffers: Sequence[int] = (0, 100, 1_000, 10_000, 100_000),
    lanes: int | None = None,
    batch: int = 64,
    seed: int = 0,
    ranks: int | None = None,
    ranks_per_node: int = 8,
    storage_options: Mapping[str, Any] | None = None,
) -> ShuffleQuality:
    """Compare shuffle buffers on a dataset. buffers: in samples; 0 is the order as packed. batch: samples per batch.

    ranks: also measure the orders over so many ranks, `ranks_per_node` of them on each node, without and with
    `node_affinity`.

    Takes about 1 microsecond per sample and buffer, and 40 bytes of memory per sample. Raises UsageError for impossible
    options or a dataset without labels; reading errors as in `dataset`.
    """
    if not buffers:
        raise UsageError("buffers", "it is empty", "give at least one size")
    opened = partial(dataset, source, storage_options=storage_options)
    catalog = opened().content.catalog
    labels = catalog.labels()
    if not len(labels) or labels.min() < 0:
        raise UsageError("source", "mixing can't be measured without labels", "pack them with classes")
    chosen = [opened(shuffle=size, seed=seed, lanes=lanes, rank=0, world_size=1) for size in sorted(set(buffers))]
    whole = [permutation(len(labels), stream_key("full", seed, epoch)) for epoch in range(2)]
    best = _entropy(labels[whole[0]], batch)
    ways = [
        _mixing(str(part.reading.buffer), part.reading.buffer, _orders(part), labels, batch, best) for part in chosen
    ]
    ways.append(_mixing("full permutation", len(labels), whole, labels, batch, best))
    chance = 4 / np.sqrt(max(1, len(labels) // batch) * max(1, len(catalog.classes) - 1))
    allowed = max(TOLERANCE, float(chance))
    runs = RUNS * ways[-1].run_length
    sufficient = (w for w in ways[:-1] if max(abs(w.mixed - 1), w.carry_over) <= allowed and w.run_length <= runs)
    enough = next((w.buffer for w in sufficient), None)
    shuffled = next((part.reading.order_lanes for part in chosen if part.reading.buffer), 1)
    return ShuffleQuality(
        len(labels), len(catalog.classes), len(catalog.counts), shuffled, batch, tuple(ways), enough,
        packed=catalog.manifest is not None or bool(catalog.files()), chance=float(chance),
        over_ranks=tuple(
            over_ranks(part, ranks, ranks_per_node, batch, affinity=affinity)
            for part in chosen if ranks and part.reading.buffer for affinity in (False, True)
        ),
    )  # fmt: skip


def _orders(data: Dataset) -> list[NDArray[np.int64]]:
    places = np.arange(data.epoch_samples)
    return [data.epoch(epoch).order.rows_at(places) for epoch in range(2)]


def _mixing(
    name: str, buffer: int, orders: Sequence[NDArray[np.int64]], labels: NDArray[np.int64], batch: int, best: float
) -> Mixing:
    first, second = orders
    n = len(first)
    where = np.empty(n, np.int64)
    where[second] = np.arange(n)
    entropy = _entropy(labels[first], batch)
    return Mixing(
        name=name,
        buffer=buffer,
        run_length=n / (1 + int((np.diff(labels[first]) != 0).sum())),
        batch_entropy=entropy,
        displacement=float(np.abs(first - np.arange(n)).mean() / n),
        epoch_change=float(np.abs(where[first] - np.arange(n)).mean() / n),
        mixed=entropy / best if best else 1.0,
        carry_over=_carry_over(labels[first], batch),
    )


def _entropy(labels: NDArray[np.int64], batch: int) -> float:
    """Average class entropy of the full batches, in bits."""
    batches = max(1, len(labels) // batch)
    kept = labels[: batches * batch]
    size = min(batch, len(kept))
    classes = int(labels.max()) + 1
    pairs, counts = np.unique(np.arange(len(kept)) // size * classes + kept, return_counts=True)
    share = counts / size
    return float(-(share * np.log2(share)).sum() / (int(pairs[-1]) // classes + 1))


def _carry_over(labels: NDArray[np.int64], batch: int) -> float:
    """The correlation of the class counts of a batch with those of the next one, both minus their expectation."""
    batches, classes = len(labels) // batch, int(labels.max()) + 1
    if batches < 2:
        return 0.0
    cells = np.repeat(np.arange(batches), batch) * classes + labels[: batches * batch]
    places, counts = np.unique(cells, return_counts=True)
    expected = batch * np.bincount(labels, minlength=classes) / len(labels)
    # Sums over cells, of which only the non-empty ones are at hand: (c - e)(c' - e) = cc' - ec - ec' + ee.
    square, constant = float(expected @ expected), batches - 1
    of_class, after = places % classes, np.searchsorted(places, places + classes)
    found = (after < len(places)) & (places[np.minimum(after, len(places) - 1)] == places + classes)
    product = float((counts[found] * counts[after[found]]).sum())
    weighted = counts * expected[of_class]
    number = places // classes
    product -= float(weighted[number < batches - 1].sum() + weighted[number > 0].sum()) - constant * square
    total = float((counts**2).sum() - 2 * weighted.sum() + batches * square)
    return float(product / total) if total else 0.0


def plot(quality: ShuffleQuality, path: str | os.PathLike[str]) -> None:
    """Plot batch entropy and moves against the buffer size, to a PNG or SVG file.

    Raises MissingExtraError without matplotlib, UsageError.
    """
    file = out_path(path, PLOT_SUFFIXES)
    require_matplotlib("plot")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ways = quality.ways
    names = [f"{way.buffer:,}" if way.name.isdigit() else "full" for way in ways]
    figure = Figure(figsize=(13, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 3)
    chance = min(1.0, quality.chance) * 100
    mixed, carried = [way.mixed * 100 for way in ways], [way.carry_over * 100 for way in ways]
    _bars(panels[0], names, mixed, "class entropy of a batch\n% of a full permutation's; more is better", 100)
    _bars(panels[1], names, carried, "classes carried over to the next batch\n% (shaded: chance); less is better", 100)
    panels[1].axhspan(0, chance, color="#888888", alpha=0.25, lw=0)
    changed = [way.epoch_change * 100 for way in ways]
    _bars(panels[2], names, changed, "moved between two epochs\n% of the dataset; a full permutation: 33", 40)
    panels[2].axhline(100 / 3, color="#888888", linestyle="--", linewidth=1)
    where = tables_of(quality)
    figure.suptitle(f"{quality.samples:,} samples, {quality.classes} classes, {where}")
    with translated(file):
        figure.savefig(file, dpi=120)


def tables_of(quality: ShuffleQuality) -> str:
    """What holds the samples, in words."""
    return f"{quality.shards:,} shard{'' if quality.shards == 1 else 's'}" if quality.packed else "a class directory"


def _bars(axes: Any, names: Sequence[str], values: Sequence[float], title: str, most: float) -> None:
    """Bars on a scale from 0 to `most`, the same for all datasets: on one of their own, noise fills the height."""
    bars = axes.bar(names, [max(0.0, value) for value in values], color="#3b6ea5")
    axes.bar_label(bars, [f"{value:.0f}" for value in values])
    axes.set_ylim(0, most * 1.1)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("shuffle buffer, samples")
    axes.spines[["top", "right"]].set_visible(False)
