"""Which samples belong to which bucket, from the widths and heights in the index."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from shardkit.errors import DatasetError, UsageError
from shardkit.images.orientation import is_turned_on_its_side
from shardkit.reading.blocks.block import Catalog, Rows
from shardkit.reading.buckets.shapes import Shape, best_shapes, nearest
from shardkit.reading.order.derived import SelectedOrder, order_of_rows
from shardkit.reading.order.epoch_order import EpochOrder, Order
from shardkit.reading.order.groups import PIECE, Places, group_places
from shardkit.reading.order.layout import Layout

if TYPE_CHECKING:
    from shardkit.reading.content import Content
    from shardkit.reading.ops import Buckets

log = logging.getLogger(__name__)

CHECKED = 2048
"""Images whose orientation is looked up together."""

_CURE = "omit them before buckets(): .where((pc.field('width') > 0) & (pc.field('height') > 0))"

Sizes = NDArray[np.int32]
"""(height, width) of images (n, 2), 0 where it is not known."""


@dataclass(frozen=True, eq=False)
class Sorted:
    """The samples of a view by bucket. shapes: of all buckets. places: those of the samples in the view, by bucket,
    ascending in each; bounds: of the buckets among them. rows: of the view, None for all rows."""

    shapes: Sequence[Shape]
    places: Places
    bounds: NDArray[np.int64]
    rows: Rows | None

    @property
    def counts(self) -> Mapping[Shape, int]:
        """The samples of each bucket."""
        return dict(zip(self.shapes, np.diff(self.bounds).tolist(), strict=True))

    def orders(self, counts: NDArray[np.int64], *, buffer: int, seed: int, epoch: int, layout: Layout) -> list[Order]:
        """The order of each bucket's samples. counts: the samples of each shard of the dataset.

        The buffer is distributed in proportion to the samples. The shards have the same order in all buckets.
        """
        firsts, total, found = np.cumsum(counts) - counts, len(self.places), list[Order]()
        for low, high in zip(self.bounds[:-1].tolist(), self.bounds[1:].tolist(), strict=True):
            places = self.places[low:high].astype(np.int64)
            rows = places if self.rows is None else self.rows[places]
            own = -(-buffer * (high - low) // max(1, total))
            if bool((rows[1:] > rows[:-1]).all()):  # also shards without a sample of this bucket have their turn
                bounds = np.searchsorted(rows, np.append(firsts, counts.sum()))
                whole = EpochOrder(np.diff(bounds), own, seed, epoch, layout.lanes, layout.sections, layout.node)
                found.append(SelectedOrder(whole, rows))
            else:
                found.append(order_of_rows(rows, firsts, buffer=own, seed=seed, epoch=epoch, layout=layout))
        return found


_kept: WeakKeyDictionary[Buckets, tuple[int, Content, Rows | None, bool, Sorted]] = WeakKeyDictionary()
"""Last step -> (process, content, rows of the view, orientation, result)."""


def sorted_into(content: Content, rows: Rows | None, buckets: Buckets, *, orientation: bool) -> Sorted:
    """The samples of these rows of a content by bucket. orientation: by the sizes of images that are turned upright.

    DatasetError for samples whose size is not known, UsageError if there are none.
    """
    kept, process = _kept.get(buckets), os.getpid()
    if kept is not None and (kept[0], kept[3]) == (process, orientation) and kept[1] is content and kept[2] is rows:
        return kept[4]
    found = _sort(content.catalog, rows, buckets, orientation)
    _kept[buckets] = process, content, rows, orientation, found
    return found


def _sort(catalog: Catalog, rows: Rows | None, buckets: Buckets, orientation: bool) -> Sorted:
    sizes = _sizes(catalog, rows)
    if not len(sizes):
        raise UsageError("buckets()", "there are no samples", "check the source and the selection")
    _require_known(catalog, rows, sizes)
    if orientation:
        _turn(catalog, rows, sizes)
    shapes: Sequence[Shape]
    if isinstance(buckets.shapes, int):
        assert buckets.size is not None
        words, counts = np.unique(sizes[:, 0].astype(np.int64) << 32 | sizes[:, 1], return_counts=True)
        unique = np.stack([words >> 32, words & 0xFFFFFFFF], axis=1)
        shapes = best_shapes(unique, counts, buckets.shapes, buckets.size, buckets.multiple)
    else:
        shapes = buckets.shapes

    def bucket_of(low: int, high: int) -> NDArray[np.int64]:
        parts = [nearest(part, shapes) for part in np.array_split(sizes[low:high], -(-(high - low) // (PIECE // 16)))]
        return np.concatenate(parts)

    places, bounds = group_places(bucket_of, len(sizes), len(shapes))
    filled = np.diff(bounds) > 0
    empty = [f"{height} x {width}" for (height, width), full in zip(shapes, filled.tolist(), strict=True) if not full]
    if empty and not isinstance(buckets.shapes, int):
        log.warning("buckets(): no sample is nearest to %s, so there are no batches of this shape", ", ".join(empty))
    kept = [shape for shape, full in zip(shapes, filled.tolist(), strict=True) if full]
    return Sorted(kept, places, np.append(bounds[:-1][filled], bounds[-1]), rows)


def _sizes(catalog: Catalog, rows: Rows | None) -> Sizes:
    """The sizes of the images in these rows."""
    if not {"width", "height"} <= set(catalog.index_schema().names):
        fact = "the sizes of the images are not known before they are read: there is no index"
        raise UsageError("buckets()", fact, "pack the files: shardkit pack SOURCE DEST")
    sizes, at = np.zeros((int(catalog.counts.sum()), 2), np.int32), 0
    for table in catalog.index_tables(["width", "height"]):
        for column, name in enumerate(("height", "width")):
            sizes[at : at + len(table), column] = table[name].fill_null(0).to_numpy()
        at += len(table)
    return sizes if rows is None else sizes[rows]


def _require_known(catalog: Catalog, rows: Rows | None, sizes: Sizes) -> None:
    unknown = np.flatnonzero((sizes <= 0).any(axis=1))
    if len(unknown):
        row = int(unknown[0] if rows is None else rows[unknown[0]])
        place, _, key = catalog.block(np.array([row])).place(0)
        fact = f"the index has no width and height of {len(unknown):,} of {len(sizes):,} samples, such as {key!r}"
        raise DatasetError(place, fact, _CURE)


def _turn(catalog: Catalog, rows: Rows | None, sizes: Sizes) -> None:
    """Exchange height and width of the images that are turned on their side. Only the images tell, so that all have to
    be opened. UsageError for those of a store."""
    if any(not file.location.is_local for file in catalog.files()):
        fact = "the index has the sizes of the images as stored, and the orientation of images in a store is not known"
        cure = "pack them with `orient`, which turns them for good, or omit `orientation`"
        raise UsageError("buckets(), decode(orientation=True)", fact, cure)
    for low, high in _parts(len(sizes)):
        block = catalog.block(np.arange(low, high) if rows is None else rows[low:high])
        for number in range(high - low):
            try:
                turned = is_turned_on_its_side(block.image(number))
            except (DatasetError, ValueError):  # told when it is decoded, if it is
                continue
            if turned:
                sizes[low + number] = sizes[low + number, ::-1].copy()


def _parts(count: int) -> Iterator[tuple[int, int]]:
    return ((low, min(low + CHECKED, count)) for low in range(0, count, CHECKED))
