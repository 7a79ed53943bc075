"""A Dataset for Keras, with any backend: `KerasDataset`, a `keras.utils.PyDataset` of whole batches."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shardkit.adapters.inputs import column_names, column_types, inputs_of
from shardkit.adapters.keras.absent import absent
from shardkit.adapters.keras.listing import KerasListing, delivered
from shardkit.adapters.sample_weights import weighed
from shardkit.errors import DatasetError, MissingExtraError, SampleIndexError, UsageError, installs
from shardkit.reading.batches.batch import Batch
from shardkit.reading.batches.labels import require_class_labels
from shardkit.reading.content import Named
from shardkit.reading.dataset import Dataset
from shardkit.reading.ops import Map
from shardkit.reading.options import SampleWeight
from shardkit.reading.order.ranks import TF_CONFIG

try:
    import keras
except ImportError as exc:
    if exc.name in (None, "keras"):
        raise MissingExtraError("keras", "Keras is not installed", installs("keras")) from exc
    missing = exc.name.partition(".")[0]
    fact = f"Keras can't load its backend, since {missing} is not installed"
    brings = installs(missing) if missing in ("tensorflow", "torch") else f"pip install {missing}"
    cure = f"{brings}, or choose another backend with the variable KERAS_BACKEND"
    raise MissingExtraError("keras", fact, cure) from exc


log = logging.getLogger(__name__)

__all__ = ["KerasDataset", "keras", "to_keras"]

PEEKED = 2
"""Batches that Keras' TensorFlow trainer reads before it starts again from the first one. They are kept for that."""


class KerasDataset(keras.utils.PyDataset):  # type: ignore[misc]  # keras is not available to mypy
    """Batches for `fit`, `evaluate` and `predict`, in order, made ahead of use by the threads of the Dataset.

    The attributes `labels`, `classes`, `keys` and `filenames` are in the order of the batches of the epoch that was
    read last, or else will be read first. So they match the output of `predict`, shuffled or not. A pass over the
    batches 0, 1, … is one epoch, and the next pass the next epoch. As an iterator (`next()`) it is endless, like Keras'
    own; a `for` loop over it is one epoch. With TensorFlow as the backend `Dataset.to_tf()` is faster: Keras reads this
    class through a tf.data pipeline with autotuning, which makes it wait at the end of epochs, see `untuned` in
    adapters/tensorflow/handover.py.
    """

    def __init__(
        self, dataset: Dataset, *, convert: Callable[[Any], Any] | None = None, class_names: list[str] | None = None,
        relabelled: Callable[[NDArray[np.int64]], NDArray[np.int64]] | None = None,
    ) -> None:  # fmt: skip
        if dataset.batch_size is None:
            raise UsageError("to_keras()", "Keras needs batches", "add .batch(32), after .decode(size=…)")
        steps = dataset.steps
        if steps.batch is not None and steps.batch.ragged:
            raise UsageError("to_keras()", 'collate="list" keeps images apart, and Keras needs arrays', "omit collate=")
        if steps.decode is None and not any(isinstance(op, Map) for op in (*steps.samples, *steps.after)):
            fact = "the images are not decoded, and Keras needs arrays"
            raise UsageError("to_keras()", fact, "add .decode(size=224) before .batch()")
        if os.environ.get(TF_CONFIG) and keras.backend.backend() == "tensorflow" and dataset.reading.ranks[1] > 1:
            rank, world_size = dataset.reading.ranks
            fact = f"this is rank {rank} of {world_size}, and a strategy from ${TF_CONFIG} would shard it again"
            raise UsageError("to_keras()", fact, "use to_tf(), which a strategy does not shard again")
        super().__init__(workers=1)
        self.dataset = dataset
        column_types(dataset, "to_keras()", texts=False)
        self._convert = convert or partial(as_keras, columns=column_names(dataset))
        self._class_names = class_names
        self._relabelled = relabelled
        self._lock = threading.RLock()
        self._epoch = dataset.position.where().epoch
        self._items: Iterator[Any] | None = None
        self._at = self._place = 0
        self._head: dict[int, Any] = {}
        self._touched = self._over = self._within = False
        self._next = 0
        self.total_batches_seen = 0
        self._listing: tuple[int, KerasListing] | None = None

    def __repr__(self) -> str:
        about = f"batches={self.num_batches}, batch_size={self.batch_size}"
        return f"<{type(self).__name__} of {self.dataset!r}: {about}>"

    def __getattr__(self, name: str) -> Any:
        """Raise AttributeError; for what only Keras' own iterators have, with what to use instead."""
        raise absent(self, name)

    # Interface that Keras calls

    @property
    def num_batches(self) -> int | None:
        """The batches of a pass; None if that is not known, or it is endless: then pass `steps_per_epoch`."""
        try:
            return len(self.dataset)
        except DatasetError:
            return None

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, number: int) -> Any:
        """Batch `number` of this pass. Fast in order from 0 on; any other number starts reading again from that place.

        Within an epoch of Keras it is the next batch, whatever the number: `fit(shuffle=True)`, its default, requests
        batches in random order, which would restart reading for each batch only to shuffle whole batches.
        """
        count = self.num_batches
        if count is not None and not 0 <= number < count:
            raise SampleIndexError(
                repr(self.dataset), f"there is no batch {number} among {count}", "numbers start at 0"
            )
        with self._lock:
            self.total_batches_seen += 1
            if count is not None and self._within:
                self._over = self._over or self._place == count
                number, self._place = self._place % count, self._place % count + 1
            again = count is None and self._at > PEEKED
            if number == 0 and (self._over or again):
                self._begin_epoch(self._epoch + self._turns)
            return self._batch(number, count)

    def _batch(self, number: int, count: int | None) -> Any:
        if number in self._head:
            return self._head.pop(number)
        if self._items is None or number != self._at:
            self._stop()
            self._items = self._read(number)
        item = self._convert(self._following())
        self._touched = True
        self._at = number + 1
        if number < PEEKED and not self._within:
            self._head[number] = copied(item)
        if self._at == count:
            self._end_reading()
        return item

    @property
    def use_multiprocessing(self) -> bool:
        """False: a pass reads the batches in order, which parallel processes can't. Threads decode."""
        return False

    @use_multiprocessing.setter
    def use_multiprocessing(self, value: bool) -> None:
        if value:
            log.warning("use_multiprocessing=True has no effect on a KerasDataset: its threads decode all the same")

    def on_epoch_begin(self) -> None:
        """Called by Keras at the start of an epoch, which is a pass."""
        with self._lock:
            if self._over:
                self._begin_epoch(self._epoch + self._turns)
            self._within, self._place = True, 0

    def on_epoch_end(self) -> None:
        """Called by Keras at the end of an epoch; advances to the next pass. Without a length there are no passes.

        Keras also calls it before the first epoch, after looking at some batches: that is not a pass.
        """
        with self._lock:
            if self._within:
                self._end_pass()
            self._within = False

    # For loops

    def __iter__(self) -> Iterator[Any]:
        """The batches of one epoch."""
        self._end_pass()
        return map(self.__getitem__, range(len(self)))

    def __next__(self) -> Any:
        if self._next == len(self):
            self._next = 0
            self._end_pass()
        self._next += 1
        return self[self._next - 1]

    next = __next__

    def reset(self) -> None:
        """Make `next()` start again from the first batch."""
        self._next = 0

    def set_epoch(self, epoch: int) -> None:
        """Make `epoch` the number of the next pass."""
        with self._lock:
            self._stop()
            self._begin_epoch(epoch)

    # Contents

    @property
    def class_names(self) -> list[str]:
        """The names of the classes in label order."""
        return self.dataset.classes if self._class_names is None else self._class_names

    @property
    def class_indices(self) -> dict[str, int]:
        """Class name -> label."""
        return {name: label for label, name in enumerate(self.class_names)}

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    @property
    def labels(self) -> NDArray[np.int32]:
        """The label of every sample in the order of the batches (int32, shape (samples,)).

        UsageError if samples have several classes, or numbers.
        """
        require_class_labels(self.dataset.content.catalog, "labels")
        labels = self.listing.labels
        return (labels if self._relabelled is None else self._relabelled(labels)).astype(np.int32)

    classes = labels

    @property
    def keys(self) -> list[str]:
        """The key of every sample in the order of the batches."""
        return list(self.listing.keys)

    @property
    def filenames(self) -> list[str]:
        """The original path relative to the root of every sample, in the order of the batches."""
        return list(self.listing.paths)

    @property
    def filepaths(self) -> list[str]:
        """The path of every image, in the order of the batches. Only of a class directory: shards have none."""
        tree = self.dataset.content.found.tree if isinstance(self.dataset.content, Named) else None
        if tree is None:
            raise absent(self, "filepaths")
        return [os.path.join(tree.path, name) for name in self.filenames]

    @property
    def index_array(self) -> NDArray[np.int64]:
        """The places of the samples in `filenames`, `keys` and `labels`, which are in the order of the batches."""
        return np.arange(self.samples)

    @property
    def batch_index(self) -> int:
        """The number of the batch that `next()` returns next."""
        return self._next % max(1, len(self))

    @property
    def samples(self) -> int:
        """The number of samples in a pass."""
        return self.dataset.epoch(0).taken * self._turns

    n = samples

    @property
    def batch_size(self) -> int:
        """The number of samples in each batch but the last."""
        size = self.dataset.batch_size
        assert size is not None
        return size

    @property
    def listing(self) -> KerasListing:
        """The samples of the pass that started last, in the order of its batches."""
        with self._lock:
            epoch = self._epoch
            if self._listing is None or self._listing[0] != epoch:
                self._listing = (epoch, delivered(self.dataset, range(epoch, epoch + self._turns)))
            return self._listing[1]

    # Reading

    @property
    def _turns(self) -> int:
        """The epochs in a pass, from repeat()."""
        return self.dataset.reading.turns or 1

    def _end_pass(self) -> None:
        with self._lock:
            self._over = self._touched and self.num_batches is not None

    def _begin_epoch(self, epoch: int) -> None:
        self._epoch = epoch
        self._over = self._touched = False
        self._at = 0
        self._stop()

    def _stop(self) -> None:
        self._head.clear()
        self._end_reading()

    def _end_reading(self) -> None:
        if self._items is not None:
            self._items.close()  # type: ignore[attr-defined]  # a generator: closing it ends its threads
            self._items = None

    def _following(self) -> Any:
        assert self._items is not None
        for item in self._items:
            return item
        raise DatasetError(repr(self.dataset), "there are fewer batches than its length", "see on_error and map()")

    def _read(self, number: int) -> Iterator[Any]:
        """The items of this pass from `number` on. If their number is not known, they continue over the epochs."""
        dataset, epoch = self.dataset, self._epoch
        steps = dataset.steps
        if not steps.counted or dataset.content.streams:
            found = False
            while True:
                for _, item in dataset.run(epoch):
                    found = True
                    number -= 1
                    if number < 0:
                        yield item
                if not found:
                    return
                epoch += 1
        low, high = dataset.epoch(0).span
        each = max(1, -(-(high - low) // self.batch_size))
        epoch, number = epoch + number // each, number % each
        while high > low:
            for _, item in dataset.run(epoch, delivered=number, start=low + number * self.batch_size if number else 0):
                yield item
            epoch, number = epoch + 1, 0


def as_keras(item: Any, *, columns: tuple[str, ...] = ()) -> Any:
    """Convert an item for Keras: a Batch becomes (images, labels), or (images,) if there are no labels. With further
    columns, a dict of both takes the place of the images."""
    if not isinstance(item, Batch):
        return item
    inputs = inputs_of(item, columns)
    return (inputs,) if item.labels is None else (inputs, item.labels)


def copied(item: Any) -> Any:
    """The item with its arrays copied, so that in-place changes do not affect the original."""
    return keras.tree.map_structure(lambda leaf: leaf.copy() if isinstance(leaf, np.ndarray) else leaf, item)


def to_keras(dataset: Dataset, *, sample_weight: SampleWeight | None = None) -> KerasDataset:
    """The Dataset for Keras. sample_weight: see `Dataset.to_keras`."""
    return KerasDataset(weighed(dataset, sample_weight))
