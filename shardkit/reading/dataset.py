"""`dataset()` and the Dataset it gives: immutable values that say what to read, and iterate over it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shardkit.errors import DatasetError, NotFoundError, UsageError
from shardkit.location import Location
from shardkit.reading.blocks import BlockSource, IndexedBlocks, OneBlock
from shardkit.reading.content import Concatenated, Content, Mixed, Named, usual_order
from shardkit.reading.decode import DecodeOptions
from shardkit.reading.fields import FIELD_DECODERS
from shardkit.reading.ops import BatchUp, Decode, EpochSize, Filter, Map, Op, Skip, Steps, Take, cut, steps_of
from shardkit.reading.order import EpochOrder, Order, default_lanes
from shardkit.reading.orders import EndlessOrder, SelectedOrder, split_rows
from shardkit.reading.pipeline import Item, Run, batch_limits, streamed
from shardkit.reading.progress import Progress, make_state, read_state
from shardkit.reading.ranks import find_rank
from shardkit.reading.resolve import SourceLike
from shardkit.reading.select import AtNumbers, OfClasses, PartOf, Selection, Weights, Where, numbers_of
from shardkit.reading.share import Remainder, Share, lost_by
from shardkit.rng import stream_key

if TYPE_CHECKING:
    import pyarrow.compute as pc
    import tensorflow as tf

    from shardkit.adapters.torch import TorchDataset

log = logging.getLogger(__name__)

Rows = NDArray[np.int64]

DEFAULT_BUFFER = 10_000
"""The shuffle buffer for shuffle=True, in samples."""


class SampleIndexError(NotFoundError, IndexError):
    """No sample of this number; an IndexError too, so that Python's old protocol of iteration ends."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How a dataset is read. Raises UsageError for values that make no sense. None: found out when it is read."""

    buffer: int = 0
    seed: int = 0
    lanes: int | None = None
    rank: int | None = None
    world_size: int | None = None
    remainder: Remainder | None = None
    threads: int | None = None
    ahead: int | None = None
    decoders: Mapping[str, Callable[[bytes], Any]] = field(default_factory=lambda: FIELD_DECODERS)
    turns: int | None = 1
    """Epochs in one iteration; None for no end."""
    epoch_size: int | None = None
    """Items of an epoch that goes on where the last one stopped; None for the dataset's own epochs."""

    def __post_init__(self) -> None:
        at_least("shuffle", self.buffer, 0)
        at_least("seed", self.seed, 0)
        for name in ("lanes", "threads", "ahead", "turns", "epoch_size"):
            if getattr(self, name) is not None:
                at_least(name, getattr(self, name), 1)
        if self.rank is not None or self.world_size is not None:
            find_rank(self.rank, self.world_size)
        if self.remainder not in (None, "drop", "pad", "uneven"):
            raise UsageError("remainder", f"{self.remainder!r} is not one of drop, pad, uneven", "choose one of these")


def at_least(name: str, value: object, least: int) -> None:
    """Raises UsageError for what is not a whole number from `least` on."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(name, f"{value!r} is not a whole number from {least} on", "give such a number")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples, or what was made of them, to iterate over as often as wanted. Made by `dataset()`.

    A value: each method gives a new Dataset and leaves this one as it was; only `set_epoch` and `load_state_dict`
    change it. Nothing is opened before it is iterated or asked for its content. Each new iteration is the next epoch,
    and may run in a thread or process of its own.
    """

    content: Content
    reading: Reading
    ops: tuple[Op, ...] = ()
    selection: tuple[Selection, ...] = ()
    weights: Weights | None = None
    progress: Progress = field(default_factory=Progress)

    # What is in it

    @property
    def classes(self) -> list[str]:
        """The names of the classes in label order. DatasetError for shards without a manifest."""
        return [entry.name for entry in self.content.catalog.classes]

    @property
    def class_counts(self) -> dict[str, int]:
        """The samples of each class. DatasetError for shards without a manifest."""
        catalog, rows = self.content.catalog, self.rows()
        if rows is None:
            return {entry.name: entry.count for entry in catalog.classes}
        labels = catalog.labels()[rows]
        counts = np.bincount(labels[labels >= 0], minlength=len(catalog.classes))
        return {entry.name: int(count) for entry, count in zip(catalog.classes, counts, strict=True)}

    def class_weight(self) -> dict[int, float]:
        """A weight for each label so that all classes count alike: samples / (classes x count), as in scikit-learn's
        "balanced"; 0.0 for a class without samples. For Keras' `fit(class_weight=)`."""
        counts = list(self.class_counts.values())
        filled, total = sum(1 for count in counts if count), sum(counts)
        return {label: total / (filled * count) if count else 0.0 for label, count in enumerate(counts)}

    @property
    def fields(self) -> list[str]:
        """The names of the fields that samples have. DatasetError for shards without a manifest."""
        return list(self.content.catalog.fields)

    @property
    def batch_size(self) -> int | None:
        """The n of `batch(n)`; None for single samples."""
        batch = self.steps.batch
        return None if batch is None else batch.size

    @cached_property
    def steps(self) -> Steps:
        """What the chain of methods amounts to."""
        return steps_of(self.ops)

    @property
    def epoch_samples(self) -> int:
        """The samples of one epoch of all ranks, before take() and skip(). DatasetError without a manifest."""
        rows = self.rows()
        if isinstance(self.content, Mixed):
            return sum(part.epoch_samples for part in self.content.parts)
        return int(self.content.catalog.counts.sum()) if rows is None else len(rows)

    def rows(self) -> Rows | None:
        """The rows of the catalog that this view has, in its order (int64); None for all of them."""
        return self._rows

    @cached_property
    def _rows(self) -> Rows | None:
        rows = self.content.rows()
        if not self.selection:
            return rows
        catalog = self.content.catalog
        found = np.arange(int(catalog.counts.sum())) if rows is None else rows
        for step in self.selection:
            found = step.rows(catalog, found)
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}  # not what follows from them

    def __len__(self) -> int:
        """The exact number of items of an iteration for this rank.

        DatasetError where filter(), a missing manifest, or repeat() without end leaves it open.
        """
        steps = self.steps
        if not steps.counted:
            fact = "its length is not known before it is read, since filter() may drop any item"
            raise DatasetError("len()", fact, "count while iterating, or use where() or select() in place of filter()")
        if self.reading.turns is None:
            raise DatasetError("len()", "repeat() has no end", "use repeat(n), or epoch_size(n)")
        samples = len(self._share(0, 0))
        if steps.batch is None:
            return samples * self.reading.turns
        low, high = batch_limits(steps, samples)
        return max(0, -(-(high - low) // steps.batch.size)) * self.reading.turns

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        steps = "".join(f".{type(op).__name__.lower()}" for op in self.ops)
        return f"<shardkit.Dataset {self.content!r}{steps}>"

    # What to do with it

    def shuffle(self, size: int | bool = True, *, seed: int | None = None) -> Dataset:
        """In a new random order each epoch, through a buffer of `size` samples (True: 10,000; False or 0: none).

        The order is that of reading/order.py: a function of seed, epoch, size and the number of lanes alone.
        """
        reading = replace(self.reading, buffer=buffer_size(size), seed=self.reading.seed if seed is None else seed)
        return self._with(reading=reading)

    def decode(self, **options: Any) -> Dataset:
        """Images as arrays, and other fields by their extension (cls, txt, json, npy; anything else stays bytes).

        Options, all of `DecodeOptions`: size (an int or (height, width)), crop ("resize", "center", "random"), flip,
        interpolation, color, exact, dtype, rescale, layout, orientation, label, on_error, skip_limit, max_pixels.
        A sample then holds its image as an array (height, width, channels), uint8 unless dtype or rescale says else.
        Raises UsageError for an option that makes no sense; iterating raises DecodeError with shard, byte and key.
        """
        try:
            made = DecodeOptions(**options)
        except TypeError as exc:
            names = ", ".join(DecodeOptions.__dataclass_fields__)
            raise UsageError("decode()", str(exc).rpartition("() ")[2], f"its options are {names}") from exc
        return self._with(Decode(made))

    def map(self, fn: Callable[[Any], Any]) -> Dataset:
        """`fn(item)` instead of each item (a sample, or after batch() a batch), called in the decoding threads."""
        return self._with(Map(fn))

    def filter(self, fn: Callable[[Any], Any]) -> Dataset:
        """Only the items for which `fn(item)` is true. The length is then not known."""
        return self._with(Filter(fn))

    def batch(self, size: int, *, drop_last: bool = False) -> Dataset:
        """`size` items as one: decoded images as a Batch, which unpacks as (images, labels); else a dict of lists.

        drop_last leaves out a last batch that is smaller.
        """
        at_least("batch(size)", size, 1)
        return self._with(BatchUp(size, bool(drop_last)))

    def take(self, count: int) -> Dataset:
        """The first `count` items of each epoch: of the whole epoch before it is dealt to ranks, of each rank's after
        batch()."""
        at_least("take(count)", count, 0)
        return self._with(Take(count))

    def skip(self, count: int) -> Dataset:
        """All but the first `count` items of each epoch, counted as in `take`."""
        at_least("skip(count)", count, 0)
        return self._with(Skip(count))

    def repeat(self, count: int | None = None) -> Dataset:
        """`count` epochs, each in its own order, in one iteration; without end if no count is given."""
        return self._with(reading=replace(self.reading, turns=count))

    def epoch_size(self, count: int) -> Dataset:
        """Epochs of `count` items that go on where the last one stopped: of samples of all ranks together, or, after
        batch(), of batches of each rank. Every sample comes up equally often in the long run."""
        at_least("epoch_size(count)", count, 1)
        return self._with(reading=replace(self.reading, epoch_size=count), ops=(EpochSize(),))

    # Views, from the index

    def __getitem__(self, item: Any) -> Any:
        """A sample by its number or key; a view for a slice, list, or array of numbers or bools.

        Numbers count in the order of the shards, or of the view that this is. A sample is decoded if decode() was
        called before, with the random numbers of epoch 0. NotFoundError for one that is not there.
        """
        if isinstance(item, (str, int, np.integer)) and not isinstance(item, bool):
            return self._one(item)
        return self._selected(AtNumbers(numbers_of(item)))

    def select(self, classes: str | int | Sequence[str | int]) -> Dataset:
        """Only the samples of these classes, by name or label. The labels stay as they are."""
        names = [classes] if isinstance(classes, (str, int)) else list(classes)
        return self._selected(OfClasses(tuple(names)))

    def where(self, expression: pc.Expression) -> Dataset:
        """Only the samples for which a pyarrow expression over the index's columns is true.

        >>> import pyarrow.compute as pc
        >>> large = ds.where((pc.field("width") >= 224) & (pc.field("height") >= 224))  # doctest: +SKIP
        """
        return self._selected(Where(expression))

    def split(self, fractions: Mapping[str, float], *, seed: int = 0, stratify: bool = True) -> dict[str, Dataset]:
        """Parts by name, dealt at random in proportion to the fractions; nothing is copied.

        stratify: in each class by itself. The same seed gives the same parts.
        """
        parts = tuple((str(name), float(share)) for name, share in fractions.items())
        split_rows(np.arange(1), None, dict(parts), seed)  # raises for fractions that make no sense
        return {name: self._selected(PartOf(parts, name, seed, stratify)) for name, _ in parts}

    def balance(self) -> Dataset:
        """Each class equally often, as many samples an epoch as before: see `weight`."""
        return replace(self._with(), weights=Weights(None))

    def weight(self, weights: Mapping[str | int, float] | Sequence[float] | NDArray[Any]) -> Dataset:
        """Samples as often as their weights say, as many an epoch as before.

        weights: for classes, by name or label (a class without a weight is left out); or a number for each sample in
        the order of the shards (or of this view). Classes stay evenly mixed along the epoch; samples of small ones
        come up several times.
        """
        kept = dict(weights) if isinstance(weights, Mapping) else np.asarray(weights, np.float64)
        return replace(self._with(), weights=Weights(kept))

    # Where it is

    def set_epoch(self, epoch: int) -> None:
        """Make `epoch` the number of the next iteration; those after it count on. Changes this Dataset in place."""
        at_least("set_epoch(epoch)", epoch, 0)
        self.progress.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Where the latest iteration is, as plain JSON: the epoch, and the samples that were delivered.

        It can be loaded with any number of ranks and workers. With filter() each rank has a state of its own.
        """
        rank, world_size = self.rank
        identity, filtered = self.order_identity, not self.steps.counted
        cursor = self.progress.where()
        return make_state(cursor, order=identity, rank=rank, world_size=world_size, filtered=filtered)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Make the next iteration go on at the very next sample after `state`. Changes this Dataset in place.

        Raises StateError for a state of another dataset, order or version.
        """
        rank, world_size = self.rank
        self.progress.load(read_state(state, order=self.order_identity, rank=rank, world_size=world_size))

    @property
    def identity(self) -> str:
        """Tells the content and selection from others."""
        return "/".join([self.content.identity, *(step.describe() for step in self.selection)])

    @property
    def order_identity(self) -> str:
        """The text that the order of samples follows from, but for the epoch."""
        window = ",".join(f"{type(op).__name__}{op.count}" for op in self.steps.window)
        weights = "" if self.weights is None else self.weights.describe()
        size = f"{self.reading.epoch_size}x{self.batch_size if self._batched_size else 1}"
        parts = (self.identity, weights, self.reading.buffer, self.reading.seed, self.lanes, window, size)
        return "\x1f".join(map(str, parts))

    # Reading it

    def __iter__(self) -> Iterator[Any]:
        cursor = self.progress.begin()
        while True:
            for taken, item in self.run(cursor.epoch, done=cursor.done, delivered=cursor.delivered):
                cursor.taken = taken
                cursor.delivered += 1
                yield item
            if self.reading.turns is not None and cursor.turn + 1 >= self.reading.turns:
                break
            cursor = self.progress.next_epoch(cursor)
        self.progress.end(cursor)

    def run(
        self, epoch: int, *, done: int = 0, delivered: int = 0, start: int = 0, worker: int = 0, workers: int = 1
    ) -> Iterator[Item]:
        """The items of an epoch, each with the number of this rank's samples that were taken up to it.

        done: samples of all ranks that are over; delivered: items that were given out before.
        worker of workers takes its part of the batches, or of the samples where there are no batches; start: the
        number that came with its last item.
        """
        reading, steps, streams = self.reading, self.steps, self.content.streams
        rank, world_size = self.rank
        threads = reading.threads or cores()
        if streams:
            source: BlockSource = self._streamed(streams, epoch, rank * workers + worker, world_size * workers)
            start += done
        else:
            share = self._share(epoch, done)
            source = IndexedBlocks(self.content.catalog, self.order(epoch), share, reading.seed, epoch, worker, workers)
        run = Run(source, steps, threads, reading.ahead or threads + 2, reading.decoders)
        return streamed(run.items(start), steps.after, delivered)

    def _streamed(self, streams: Sequence[Location], epoch: int, part: int, parts: int) -> BlockSource:
        from shardkit.reading.stream import StreamBlocks

        if parts > 1 and self.reading.remainder in ("drop", "pad"):
            fact = "shards without a manifest can't be dealt to ranks equally: their samples are not counted"
            raise DatasetError(str(streams[0]), fact, f'count them with: shardkit index "{streams[0]}"')
        return StreamBlocks(streams, self.reading.buffer, self.reading.seed, epoch, part, parts)

    def order(self, epoch: int) -> Order:
        """The order of an epoch over all ranks."""
        if self._batched_size or self.reading.epoch_size:
            return EndlessOrder(lru_cache(maxsize=2)(self._order), self.epoch_samples)
        return self._order(epoch)

    def _order(self, epoch: int) -> Order:
        own = self.content.order(self.reading, self.lanes, epoch)
        if own is not None:
            return own
        catalog, rows = self.content.catalog, self.rows()
        if self.weights is not None:
            line = EpochOrder(catalog.counts, self.reading.buffer, self.reading.seed, epoch, 1).line(rows)
            chosen = self.weights.drawn(line, rows, catalog, stream_key("weights", self.reading.seed, epoch))
            whole = EpochOrder(np.array([len(chosen)]), self.reading.buffer, self.reading.seed, epoch, self.lanes)
            return SelectedOrder(whole, chosen)
        return usual_order(catalog, rows, self.reading, self.lanes, epoch)

    @property
    def rank(self) -> tuple[int, int]:
        """(rank, world size), found as reading/ranks.py says."""
        return find_rank(self.reading.rank, self.reading.world_size)

    @property
    def lanes(self) -> int:
        """The lanes of the epoch's order."""
        return self.reading.lanes or default_lanes(self.reading.buffer > 0)

    @property
    def remainder(self) -> Remainder:
        """What becomes of samples that can't be dealt evenly: "drop" for a shuffled dataset, "pad" for one in order."""
        return self.reading.remainder or ("drop" if self.reading.buffer else "pad")

    @property
    def _batched_size(self) -> bool:
        """Whether epoch_size() counts batches."""
        return self.steps.sized_batches

    def _share(self, epoch: int, done: int) -> Share:
        rank, world_size = self.rank
        lost = lost_by(world_size, self.lanes)
        if lost is not None and self.reading.buffer:
            log.log(logging.DEBUG if lost in _SAID else logging.WARNING, "%s", lost)
            _SAID.add(lost)
        low, high = 0, self.epoch_samples
        if self.reading.epoch_size is not None:
            size = self.reading.epoch_size * (world_size * (self.batch_size or 1) if self._batched_size else 1)
            low, high = epoch * size, (epoch + 1) * size
        low, high = cut(low, high, self.steps.window)
        return Share(low, high, rank, world_size, self.remainder, done)

    def _one(self, item: Any) -> Any:
        if self.steps.batch is not None:
            raise UsageError("dataset[…]", "batches have no number", "take samples, before batch()")
        catalog, rows = self.content.catalog, self.rows()
        if isinstance(item, str):
            row = catalog.row_of(item)
            if row is None or (rows is not None and row not in rows):
                raise NotFoundError(repr(self.content), f"there is no sample {item!r}", "check the key")
        else:
            total = self.epoch_samples
            if not -total <= item < total:
                fact = f"there is no sample {item} among {total}"
                raise SampleIndexError(repr(self.content), fact, "samples count from 0")
            row = int(item) % total if rows is None else int(rows[item])
        source = OneBlock(catalog, row, self.reading.seed)
        found = next(Run(source, self.steps, 1, 1, self.reading.decoders).items(), None)
        if found is None:
            raise NotFoundError(repr(self.content), f"filter() drops sample {item!r}", "ask the unfiltered dataset")
        return found[1]

    def _selected(self, step: Selection) -> Dataset:
        if isinstance(self.content, Mixed) or self.weights is not None:
            raise UsageError(
                "select, where, split, [ ]", "they come after mix(), weight() or balance()", "call them before"
            )
        if self.content.streams:
            _ = self.content.catalog  # raises: a view needs an index
        return replace(self._with(), selection=(*self.selection, step))

    def _with(self, *new: Op, reading: Reading | None = None, ops: tuple[Op, ...] = ()) -> Dataset:
        chain = (*self.ops, *new, *ops)
        steps_of(chain)
        return replace(self, reading=reading or self.reading, ops=chain, progress=Progress())

    # Going on elsewhere

    def to_torch(self) -> TorchDataset:
        """A torch IterableDataset of the same items, arrays as tensors. Needs the extra `torch`."""
        from shardkit.adapters.torch import to_torch

        return to_torch(self)

    def to_tf(self) -> tf.data.Dataset:
        """A tf.data.Dataset of (images, labels). Needs the extra `tensorflow`."""
        from shardkit.adapters.tensorflow import to_tf

        return to_tf(self)


_SAID: set[str] = set()
"""Warnings that were given, so that each comes once a process."""


def dataset(
    source: SourceLike,
    *,
    shuffle: bool | int = False,
    seed: int = 0,
    lanes: int | None = None,
    rank: int | None = None,
    world_size: int | None = None,
    remainder: Remainder | None = None,
    threads: int | None = None,
    ahead: int | None = None,
    verify: bool = False,
    decoders: Mapping[str, Callable[[bytes], Any]] | None = None,
) -> Dataset:
    """The samples of some shards, or of a class directory.

    source: a glob ("shards/train-*.tar"), a brace range, a prefix ("shards/train"), a list of these, a manifest, or a
    folder of class folders, which is read as it is.
    shuffle: False, True (a buffer of 10,000 samples), or the size of the buffer. seed: of all that is random.
    lanes: see reading/order.py; by default 16, or 1 without shuffling, which keeps the order of the shards.
    rank, world_size: by default those of torch.distributed, JAX or the launcher's environment, see reading/ranks.py.
    remainder: what becomes of samples that ranks can't share evenly, see reading/share.py: "drop" (the default when
    shuffled), "pad" (the default in order: repeats are marked in the batch's `repeats`), or "uneven".
    threads: for decoding and map() (default: the cores). ahead: batches, or runs of 64 samples, that they may be ahead.
    verify: check each shard's CRC-32C when it is first opened. decoders: extension -> function of bytes, for fields
    that decode() does not know.

    Iterating gives a dict for each sample: `__key__` and `__url__` (str), the image's bytes under its extension
    (`jpg`), `cls` (int), and any other field as bytes.
    Nothing is opened here. NotFoundError, ManifestError, DamagedError and StorageError come when it is read.
    """
    reading = Reading(
        buffer=buffer_size(shuffle), seed=seed, lanes=lanes, rank=rank, world_size=world_size, remainder=remainder,
        threads=threads, ahead=ahead, decoders={**FIELD_DECODERS, **(decoders or {})},
    )  # fmt: skip
    return Dataset(Named(source, verify=verify), reading)


def concat(datasets: Sequence[Dataset]) -> Dataset:
    """The samples of several datasets, one after the other, as one. Classes of one name become one class.

    Their selections count; shuffle, decode and all the rest is said of the whole. UsageError for none, or for datasets
    that are more than selections.
    """
    return Dataset(Concatenated(_parts("concat()", datasets)), Reading())


def mix(datasets: Sequence[Dataset], weights: Sequence[float] | None = None, *, seed: int = 0) -> Dataset:
    """Samples of several datasets interleaved, each as often as its weight says (by default as its length says).

    Each keeps its own order and shuffling, and begins again when it is used up; an epoch has as many samples as they
    have together. In 1,000 samples in a row the shares are exact.
    """
    parts = _parts("mix()", datasets)
    given = [part.epoch_samples for part in parts] if weights is None else list(weights)
    if len(given) != len(parts):
        raise UsageError("mix()", f"{len(given)} weights for {len(parts)} datasets", "give one for each")
    return Dataset(Mixed(parts, given), Reading(seed=seed))


def _parts(name: str, datasets: Sequence[Dataset]) -> Sequence[Dataset]:
    if not datasets:
        raise UsageError(name, "there is no dataset", "give at least one")
    for part in datasets:
        if part.ops or part.weights is not None or isinstance(part.content, Mixed):
            raise UsageError(
                name, f"{part!r} is more than a selection", "call decode(), batch() and so on on the result"
            )
    return datasets


def buffer_size(shuffle: bool | int) -> int:
    """The samples of the shuffle buffer that a user means."""
    if isinstance(shuffle, bool):
        return DEFAULT_BUFFER if shuffle else 0
    at_least("shuffle", shuffle, 0)
    return shuffle


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
