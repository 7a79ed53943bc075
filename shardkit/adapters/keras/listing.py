"""The samples in the batches of an epoch, and the order in which Keras lists the files of a tree."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shardkit.errors import DatasetError, UsageError
from shardkit.reading.blocks.block import index_table
from shardkit.sample import path_of_text

if TYPE_CHECKING:
    from shardkit.reading.dataset import Dataset

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class KerasListing:
    """Samples in some order. places: their numbers in the view (int64). labels: int64; paths, keys: as in the index."""

    places: Rows
    labels: Rows
    keys: Sequence[str]
    paths: Sequence[str]


def delivered(dataset: Dataset, epochs: Sequence[int]) -> KerasListing:
    """The samples of these epochs in the order of their batches, for this rank.

    DatasetError if that can't be predicted: with filter(), on_error="skip", or without an index.
    """
    decode = dataset.steps.decode
    if not dataset.steps.counted or (decode is not None and decode.options.on_error == "skip"):
        fact = "the samples can't be predicted, since filter() or on_error may omit some"
        raise DatasetError("labels", fact, "collect .labels and .keys of each batch")
    rows = np.concatenate([dataset.epoch(epoch).rows_in_order for epoch in epochs])
    return _listed(dataset, rows, rows)


def listed(dataset: Dataset) -> KerasListing:
    """All samples of the view, in its order."""
    rows = dataset.rows()
    places = np.arange(dataset.epoch_samples)
    return _listed(dataset, places, places if rows is None else rows)


def _listed(dataset: Dataset, places: Rows, rows: Rows) -> KerasListing:
    catalog = dataset.content.catalog
    names = ("key", "path")
    table = index_table(catalog, names)
    keys, paths = (_texts(table[name], rows) for name in names)
    return KerasListing(places, catalog.labels()[rows], keys, [os.fsdecode(path_of_text(path)) for path in paths])


def _texts(column: Any, rows: Rows) -> list[str]:
    found: list[str] = column.take(rows).to_pylist()
    return found


def keras_order(listing: KerasListing, classes: Sequence[int] | None) -> KerasListing:
    """The samples of these classes as Keras lists them: class by class, folders by path, then files by name.

    Without classes, all samples, with the folders of all classes sorted together, as Keras does for labels=None.
    (`iter_valid_files` of keras/src/utils/dataset_utils.py: `sorted(os.walk(…))`, then sorted names.)
    """
    turn = None if classes is None else {label: number for number, label in enumerate(classes)}
    labels = listing.labels.tolist()
    chosen = [n for n, label in enumerate(labels) if turn is None or label in turn]
    split = [path.rpartition("/") for path in listing.paths]
    chosen.sort(key=lambda n: (0 if turn is None else turn[labels[n]], split[n][0], split[n][2]))
    return taken(listing, chosen)


def taken(listing: KerasListing, numbers: Any) -> KerasListing:
    """The samples with these numbers."""
    chosen = np.asarray(numbers, np.int64)
    keys, paths = ([values[n] for n in chosen.tolist()] for values in (listing.keys, listing.paths))
    return KerasListing(listing.places[chosen], listing.labels[chosen], keys, paths)


def class_part(listing: KerasListing, share: tuple[float, float]) -> KerasListing:
    """From each class (classes are consecutive), the samples between two fractions, as with Keras' `subset`."""
    bounds = np.flatnonzero(np.diff(listing.labels, prepend=-1, append=-1))
    chosen = [
        np.arange(first + int(share[0] * (last - first)), first + int(share[1] * (last - first)))
        for first, last in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
    ]
    return taken(listing, np.concatenate([np.empty(0, np.int64), *chosen]))


def chosen_classes(dataset: Dataset, names: Sequence[str] | None, argument: str) -> tuple[list[str], list[int]]:
    """(the class names in the requested order, their labels in the dataset). UsageError for an unknown class."""
    known = dataset.classes
    wanted = known if names is None else [str(name) for name in names]
    for name in wanted:
        if name not in known:
            raise UsageError(argument, f"there is no class {name!r}", f"the classes are {', '.join(known[:10])}")
    return wanted, [known.index(name) for name in wanted]
