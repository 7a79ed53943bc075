"""`dataset()` and the Dataset it gives: immutable values that say what to read, and iterate over it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from shardkit.errors import DatasetError, UsageError
from shardkit.reading.catalog import Catalog, IndexCatalog
from shardkit.reading.decode import DecodeOptions
from shardkit.reading.fields import FIELD_DECODERS
from shardkit.reading.ops import BatchUp, Decode, Filter, Map, Op, Skip, Steps, Take, cut, steps_of
from shardkit.reading.order import EpochOrder, default_lanes
from shardkit.reading.pipeline import Item, Run, batch_limits, streamed
from shardkit.reading.resolve import Found, SourceLike, resolve
from shardkit.reading.share import Remainder, Share

if TYPE_CHECKING:
    import tensorflow as tf
    import torch.utils.data

DEFAULT_BUFFER = 10_000
"""The shuffle buffer for shuffle=True, in samples."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How a dataset is read. Raises UsageError for values that make no sense."""

    buffer: int = 0
    seed: int = 0
    lanes: int | None = None
    rank: int = 0
    world_size: int = 1
    remainder: Remainder = "uneven"
    threads: int | None = None
    ahead: int | None = None
    verify: bool = False
    decoders: Mapping[str, Callable[[bytes], Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("buffer", "rank"):
            at_least(name if name != "buffer" else "shuffle", getattr(self, name), 0)
        for name in ("lanes", "world_size", "threads", "ahead"):
            if getattr(self, name) is not None:
                at_least(name, getattr(self, name), 1)
        if self.rank >= self.world_size:
            raise UsageError("rank", f"rank {self.rank} of a world of {self.world_size}", "ranks count from 0")
        if self.remainder not in ("drop", "pad", "uneven"):
            raise UsageError("remainder", f"{self.remainder!r} is not one of drop, pad, uneven", "choose one of these")


def at_least(name: str, value: object, least: int) -> None:
    """Raises UsageError for what is not a whole number from `least` on."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(name, f"{value!r} is not a whole number from {least} on", "give such a number")


class _Opened:
    """What a Dataset and all that are made from it share: what was found, opened once for each process."""

    def __init__(self, source: SourceLike, verify: bool) -> None:
        self.source = source
        self.verify = verify
        self._lock = threading.Lock()
        self._found: Found | None = None
        self._catalog: Catalog | None = None
        self._process = 0

    def __getstate__(self) -> dict[str, Any]:
        return {"source": self.source, "verify": self.verify}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    @property
    def found(self) -> Found:
        with self._lock:
            if self._found is None:
                self._found = resolve(self.source)
            return self._found

    @property
    def catalog(self) -> Catalog:
        """The catalog. DatasetError for shards without a manifest."""
        found = self.found
        with self._lock:
            if self._catalog is None or self._process != os.getpid():
                self._catalog = self._open(found)
                self._process = os.getpid()
            return self._catalog

    def _open(self, found: Found) -> Catalog:
        if found.tree is not None:
            from shardkit.reading.tree import TreeCatalog

            return TreeCatalog(found.tree.path)
        if found.manifest is None or found.location is None:
            fact = "these shards have no manifest, so that their number of samples and classes are not known"
            place = str(found.shards[0])
            raise DatasetError(place, fact, f'make one with: shardkit index "{place}"')
        return IndexCatalog(found.manifest, found.location, shards=found.numbers, verify=self.verify)


class _Epochs:
    """The number of the next epoch: what `set_epoch` and each new iteration change. Thread safe."""

    def __init__(self, following: int = 0) -> None:
        self.following = following
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"following": self.following}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def next(self) -> int:
        with self._lock:
            epoch = self.following
            self.following += 1
            return epoch

    def set(self, epoch: int) -> None:
        with self._lock:
            self.following = epoch


class _Cursor:
    """How far the latest iteration of a Dataset has come."""

    def __init__(self) -> None:
        self.epoch = 0
        self.taken = 0
        self.delivered = 0


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples, or what was made of them, to iterate over as often as wanted. Made by `dataset()`.

    A value: each method gives a new Dataset and leaves this one as it was; only `set_epoch` changes it. Nothing is
    opened before it is iterated or asked for its content. Each new iteration is the next epoch, and may run in a
    thread or process of its own.
    """

    opened: _Opened
    reading: Reading
    ops: tuple[Op, ...] = ()
    epochs: _Epochs = field(default_factory=_Epochs)

    # What is in it

    @property
    def classes(self) -> list[str]:
        """The names of the classes in label order. DatasetError for shards without a manifest."""
        return [entry.name for entry in self.opened.catalog.classes]

    @property
    def class_counts(self) -> dict[str, int]:
        """The samples of each class in the whole dataset. DatasetError for shards without a manifest."""
        return {entry.name: entry.count for entry in self.opened.catalog.classes}

    def class_weight(self) -> dict[int, float]:
        """A weight for each label so that all classes count alike: samples / (classes x count), as in scikit-learn's
        "balanced"; 0.0 for a class without samples. For Keras' `fit(class_weight=)`."""
        counts = list(self.class_counts.values())
        filled, total = sum(1 for count in counts if count), sum(counts)
        return {label: total / (filled * count) if count else 0.0 for label, count in enumerate(counts)}

    @property
    def fields(self) -> list[str]:
        """The names of the fields that samples have. DatasetError for shards without a manifest."""
        return list(self.opened.catalog.fields)

    @property
    def batch_size(self) -> int | None:
        """The n of `batch(n)`; None for single samples."""
        batch = steps_of(self.ops).batch
        return None if batch is None else batch.size

    def __len__(self) -> int:
        """The exact number of items of an epoch for this rank. DatasetError where a filter or a missing manifest hides
        it."""
        steps = steps_of(self.ops)
        if not steps.counted:
            fact = "its length is not known before it is read, since filter() may drop any sample"
            raise DatasetError("len()", fact, "count while iterating, or filter before packing")
        samples = len(self._share(steps, self.opened.catalog))
        if steps.batch is None:
            return samples
        low, high = batch_limits(steps, samples)
        return max(0, -(-(high - low) // steps.batch.size))

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        steps = "".join(f".{type(op).__name__.lower()}" for op in self.ops)
        return f"<shardkit.Dataset {self.opened.source!r}{steps}>"

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

    def set_epoch(self, epoch: int) -> None:
        """Make `epoch` the number of the next iteration; those after it count on. Changes this Dataset in place."""
        at_least("set_epoch(epoch)", epoch, 0)
        self.epochs.set(epoch)

    # Reading it

    def __iter__(self) -> Iterator[Any]:
        for _, item in self.run(self.epochs.next()):
            yield item

    def run(
        self, epoch: int, *, start: int = 0, delivered: int = 0, worker: int = 0, workers: int = 1
    ) -> Iterator[Item]:
        """The items of an epoch, each with the number of this rank's samples that were taken up to it.

        start: samples to leave out, as such a number says; delivered: items that were given out before it.
        worker of workers takes its part of the batches, or of the samples where there are no batches.
        """
        steps, reading = steps_of(self.ops), self.reading
        found = self.opened.found
        threads = reading.threads or cores()
        if found.manifest is None and found.tree is None:
            source: Any = self._stream(found, epoch, worker, workers)
        else:
            source = self._indexed(steps, epoch, worker, workers)
        run = Run(source, steps, threads, reading.ahead or threads + 2, reading.decoders)
        return streamed(run.items(start), steps.after, delivered)

    def _indexed(self, steps: Steps, epoch: int, worker: int, workers: int) -> Any:
        from shardkit.reading.blocks import IndexedBlocks

        catalog, reading = self.opened.catalog, self.reading
        order = EpochOrder(catalog.counts, reading.buffer, reading.seed, epoch, self.lanes)
        return IndexedBlocks(catalog, order, self._share(steps, catalog), worker, workers)

    def _stream(self, found: Found, epoch: int, worker: int, workers: int) -> Any:
        from shardkit.reading.stream import StreamBlocks

        reading = self.reading
        part, parts = reading.rank * workers + worker, reading.world_size * workers
        return StreamBlocks(found.shards, reading.buffer, reading.seed, epoch, part, parts)

    @property
    def lanes(self) -> int:
        """The lanes of the epoch's order."""
        return self.reading.lanes or default_lanes(self.reading.buffer > 0)

    def _share(self, steps: Steps, catalog: Catalog) -> Share:
        low, high = cut(0, int(catalog.counts.sum()), steps.window)
        return Share(low, high, self.reading.rank, self.reading.world_size, self.reading.remainder)

    def _with(self, *ops: Op, reading: Reading | None = None) -> Dataset:
        made = Dataset(self.opened, reading or self.reading, (*self.ops, *ops))
        steps_of(made.ops)
        return made

    # Going on elsewhere

    def to_torch(self) -> torch.utils.data.IterableDataset[Any]:
        """A torch IterableDataset of the same items, arrays as tensors. Needs the extra `torch`."""
        from shardkit.adapters.torch import to_torch

        return to_torch(self)

    def to_tf(self) -> tf.data.Dataset:
        """A tf.data.Dataset of (images, labels). Needs the extra `tensorflow`."""
        from shardkit.adapters.tensorflow import to_tf

        return to_tf(self)


def dataset(
    source: SourceLike,
    *,
    shuffle: bool | int = False,
    seed: int = 0,
    lanes: int | None = None,
    rank: int = 0,
    world_size: int = 1,
    remainder: Remainder = "uneven",
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
    rank, world_size, remainder: see reading/share.py.
    threads: for decoding and map() (default: the cores). ahead: batches, or runs of 64 samples, that they may be ahead.
    verify: check each shard's CRC-32C when it is first opened. decoders: extension -> function of bytes, for fields
    that decode() does not know.

    Iterating gives a dict for each sample: `__key__` and `__url__` (str), the image's bytes under its extension
    (`jpg`), `cls` (int), and any other field as bytes.
    Nothing is opened here. NotFoundError, ManifestError, DamagedError and StorageError come when it is read.
    """
    reading = Reading(
        buffer=buffer_size(shuffle), seed=seed, lanes=lanes, rank=rank, world_size=world_size, remainder=remainder,
        threads=threads, ahead=ahead, verify=verify, decoders={**FIELD_DECODERS, **(decoders or {})},
    )  # fmt: skip
    return Dataset(_Opened(source, verify), reading)


def buffer_size(shuffle: bool | int) -> int:
    """The samples of the shuffle buffer that a user means."""
    if isinstance(shuffle, bool):
        return DEFAULT_BUFFER if shuffle else 0
    at_least("shuffle", shuffle, 0)
    return shuffle


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
