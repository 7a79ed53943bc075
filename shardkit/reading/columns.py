"""Columns of the index as arrays: labels, keys and paths of the samples that a Dataset has, in the order of `ds[i]`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from shardkit.reading.batches.labels import require_class_labels
from shardkit.reading.blocks.block import index_table
from shardkit.reading.chains import as_view, require_order

if TYPE_CHECKING:
    from shardkit.reading.dataset import Dataset


def labels_array(data: Dataset) -> NDArray[np.int64]:
    """Class numbers (int64, n); -1 where a sample has none. UsageError where samples have several labels or numbers."""
    require_order(data, "labels")
    view = as_view(data)
    catalog, rows = view.content.catalog, view.content.members(view.rows())
    require_class_labels(catalog, "labels")
    return catalog.labels()[slice(None) if rows is None else rows].astype(np.int64)


def texts_array(data: Dataset, column: str) -> NDArray[np.object_]:
    """A column of text (object, n)."""
    require_order(data, f"{column}s")
    return texts_of_view(as_view(data), column)


def texts_of_view(view: Dataset, column: str) -> NDArray[np.object_]:
    """A column of text (object, n) of the samples that a view selects, whatever is done with them."""
    catalog, rows = view.content.catalog, view.content.members(view.rows())
    found = index_table(catalog, [column])[column]
    chosen = found if rows is None else found.take(rows)
    texts = np.empty(len(chosen), object)
    texts[:] = chosen.to_pylist()
    return texts
