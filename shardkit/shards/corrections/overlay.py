"""An overlay: all corrections of a version of a dataset, a row for each corrected sample. It is a Parquet file.

    shard    int32    number of the shard, rising
    row      int32    number of the sample in its shard as packed, rising within the shard
    key      string   the sample's key, for people: readers go by the numbers
    deleted  bool     whether the sample is deleted
    label    int64    its class number; null: as packed, or deleted
    target   string   its label of several classes, or numbers, as JSON (field `cls.json`); null: as packed, or deleted

Each overlay holds everything that differs from the shards as packed, so that a reader needs one.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from shardkit.errors import ManifestError
from shardkit.shards.corrections.block import Corrections, OverlayEntry
from shardkit.shards.index import TEXT_BYTES, as_numpy, combine
from shardkit.shards.parquet.sources import FileKind, open_parquet, raise_unreadable

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = b"shardkit.overlay"
VERSION = b"1"

CURE = "restore it, or open another version: NAME@N"

OVERLAY = FileKind("overlay", CURE)

_COLUMNS = ("shard", "row", "deleted", "label", "target")


class Overlay(msgspec.Struct, frozen=True, eq=False):
    """The corrections of a dataset, sorted by shard and row.

    places: shard << 32 | row (int64, n). deleted: bool (n). labels: int64 (n), -1 where the label is as packed.
    targets: JSON of the new labels that are not class numbers, None elsewhere (object, n). keys: str or None if they
    were not read (object, n).
    """

    places: NDArray[np.int64]
    deleted: NDArray[np.bool_]
    labels: NDArray[np.int64]
    targets: NDArray[np.object_]
    keys: NDArray[np.object_]

    def __len__(self) -> int:
        return len(self.places)

    @property
    def shards(self) -> NDArray[np.int64]:
        """The number of each sample's shard (int64, n)."""
        return self.places >> 32

    @property
    def rows(self) -> NDArray[np.int64]:
        """The number of each sample in its shard (int64, n)."""
        return self.places & 0xFFFFFFFF

    def at(self, shard: int) -> slice:
        """The corrections of a shard."""
        first, stop = np.searchsorted(self.places, [shard << 32, (shard + 1) << 32])
        return slice(int(first), int(stop))

    def pick(self, which: Any) -> Overlay:
        """Some of them, in order."""
        return Overlay(
            self.places[which], self.deleted[which], self.labels[which], self.targets[which], self.keys[which]
        )

    def deleted_counts(self) -> tuple[tuple[int, int], ...]:
        """(shard, deleted samples in it), rising."""
        shards, counts = np.unique(self.shards[self.deleted], return_counts=True)
        return tuple(zip(shards.tolist(), counts.tolist(), strict=True))

    def corrected(self, later: Overlay) -> Overlay:
        """These corrections with those of `later`, which win where both have one."""
        places = np.concatenate([self.places, later.places])
        order = np.argsort(places, kind="stable")
        last = np.append(np.diff(places[order]) != 0, np.ones(min(1, len(order)), np.bool_))
        both = Overlay(
            places,
            np.concatenate([self.deleted, later.deleted]),
            np.concatenate([self.labels, later.labels]),
            np.concatenate([self.targets, later.targets]),
            np.concatenate([self.keys, later.keys]),
        )
        return both.pick(order[last])

    @property
    def has_targets(self) -> bool:
        """Whether any label is not a class number."""
        return bool(np.any(self.targets != None))  # noqa: E711


def no_corrections() -> Overlay:
    """An overlay without rows."""
    return Overlay(
        np.zeros(0, np.int64), np.zeros(0, np.bool_), np.zeros(0, np.int64), np.empty(0, object), np.empty(0, object)
    )


def encode_overlay(overlay: Overlay) -> bytes:
    """The file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "shard": pa.array(overlay.shards.astype(np.int32)),
            "row": pa.array(overlay.rows.astype(np.int32)),
            "key": pa.array(overlay.keys.tolist(), pa.string()),
            "deleted": pa.array(overlay.deleted),
            "label": pa.array(overlay.labels, mask=overlay.labels < 0),
            "target": pa.array(overlay.targets.tolist(), pa.string()),
        }
    ).replace_schema_metadata({FORMAT: VERSION})
    sink = io.BytesIO()
    options: dict[str, Any] = {"compression": "zstd", "use_dictionary": ["label"], "write_page_checksum": True}
    encodings = {"shard": "DELTA_BINARY_PACKED", "row": "DELTA_BINARY_PACKED"}
    pq.write_table(table, sink, column_encoding=encodings, row_group_size=max(1, len(overlay)), **options)
    return sink.getvalue()


def decode_overlay(source: pa.NativeFile, entry: OverlayEntry, place: str, *, keys: bool = False) -> Overlay:
    """The corrections in a file that is the one in the manifest. keys: with the keys.

    Raises ManifestError if it is damaged, or of a later version.
    """
    try:
        texts = ["target", *(["key"] if keys else [])]
        with open_parquet(source, read_dictionary=texts) as file:
            version = (file.metadata.metadata or {}).get(FORMAT, b"")
            if version != VERSION:
                fact = f"the overlay has version {version.decode(errors='replace') or '?'}, and this shardkit reads 1"
                raise ManifestError(place, fact, "install a newer shardkit")
            if file.metadata.num_rows != entry.rows:
                raise ValueError(f"it has {file.metadata.num_rows} rows, and {entry.rows} are expected")
            _require_bounded(file, texts)
            table = file.read([*_COLUMNS, *texts[1:]], use_threads=False)
        return _decoded(table, entry.rows)
    except ManifestError:
        raise
    except Exception as exc:  # pyarrow raises nearly anything on damaged data
        raise_unreadable(exc, place, OVERLAY)


def _require_bounded(file: Any, texts: Sequence[str]) -> None:
    """ValueError for more text than names and labels can have."""
    names = {file.metadata.schema.column(at).path: at for at in range(len(file.metadata.schema))}
    for group in map(file.metadata.row_group, range(file.metadata.num_row_groups)):
        for name in texts:
            column = group.column(names[name])
            if any(encoding.startswith("DELTA") for encoding in column.encodings):
                raise ValueError(f"its column {name!r} is encoded as {', '.join(column.encodings)}")
            if column.total_uncompressed_size > (group.num_rows + 1) * TEXT_BYTES:
                raise ValueError(f"its column {name!r} has {column.total_uncompressed_size} bytes")


def _decoded(table: pa.Table, rows: int) -> Overlay:
    shards, numbers, labels = (as_numpy(table[name]).astype(np.int64) for name in ("shard", "row", "label"))
    deleted = np.asarray(table["deleted"].to_pylist() or [], np.bool_)
    places = shards << 32 | numbers
    if rows and (min(shards.min(), numbers.min()) < 0 or not bool(np.all(np.diff(places) > 0))):
        raise ValueError("its rows are not in order")
    if rows and labels.min() < -1:
        raise ValueError("a label is negative")
    missing: NDArray[np.object_] = np.empty(rows, object)
    keys = _texts(table["key"]) if "key" in table.column_names else missing
    return Overlay(places, deleted, labels, _texts(table["target"]), keys)


def _texts(column: pa.ChunkedArray) -> NDArray[np.object_]:
    """Texts or None (object, n), each distinct one once in memory."""
    array = combine(column)
    found = np.empty(len(array), object)
    if array.null_count < len(array):
        words = np.array([*array.dictionary.to_pylist(), None], object)
        found[:] = words[as_numpy(array.indices)]
    return found


class AppliedOverlay:
    """An overlay as readers of an index file apply it. first: the number of the file's first shard."""

    def __init__(self, overlay: Overlay, first: int) -> None:
        self.overlay, self.first = overlay, first

    def left(self, group: int, rows: int) -> NDArray[np.int64] | None:
        """The rows of a shard that are not deleted (int64); None for all of them."""
        mine = self.overlay.pick(self.overlay.at(self.first + group))
        if not mine.deleted.any():
            return None
        kept = np.ones(rows, np.bool_)
        kept[mine.rows[mine.deleted]] = False
        return np.flatnonzero(kept)

    def targets(self, group: int) -> dict[int, bytes]:
        """The new labels of a shard that are not class numbers, by the number of the sample among those left."""
        mine = self.overlay.pick(self.overlay.at(self.first + group))
        if not mine.has_targets:
            return {}
        before = np.cumsum(mine.deleted)
        numbers = zip((mine.rows - before).tolist(), mine.targets.tolist(), strict=True)
        return {number: target.encode() for number, target in numbers if target is not None}

    def new_labels(self, group: int) -> dict[int, int]:
        """The new class numbers of a shard, by the number of the sample among those left."""
        mine = self.overlay.pick(self.overlay.at(self.first + group))
        numbers = mine.rows - np.cumsum(mine.deleted)
        new = mine.labels >= 0
        return dict(zip(numbers[new].tolist(), mine.labels[new].tolist(), strict=True))

    def table(self, table: pa.Table, groups: Sequence[int], sizes: Sequence[int]) -> pa.Table:
        """Index rows as they are corrected. table: those of some shards, each with as many rows as `sizes` says."""
        import pyarrow as pa

        at, which = self._rows_of(groups, sizes)
        if not len(at):
            return table
        labels = self.overlay.labels[which]
        if "label" in table.column_names and (labels >= 0).any():
            values = as_numpy(table["label"]).astype(np.int64)
            values[at[labels >= 0]] = labels[labels >= 0]
            number = table.column_names.index("label")
            column = pa.chunked_array([pa.array(values, mask=values < 0)])
            table = table.set_column(number, pa.field("label", pa.int64()), column)
        deleted = at[self.overlay.deleted[which]]
        if len(deleted):
            kept = np.ones(len(table), np.bool_)
            kept[deleted] = False
            table = table.take(pa.array(np.flatnonzero(kept)))
        return table

    def _rows_of(self, groups: Sequence[int], sizes: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(rows of the table, their numbers in the overlay) that are corrected."""
        at, which, begin = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], 0
        for group, size in zip(groups, sizes, strict=True):
            some = self.overlay.at(self.first + group)
            if some.stop > some.start:
                at.append(self.overlay.rows[some] + begin)
                which.append(np.arange(some.start, some.stop))
            begin += size
        return np.concatenate(at), np.concatenate(which)


def require_fits(overlay: Overlay, corrections: Corrections, samples: Sequence[int], place: str) -> Overlay:
    """The overlay. ManifestError unless it is of these shards, and deletes as many samples as the manifest says.

    samples: those in each shard.
    """
    if len(overlay):
        shards = overlay.shards
        inside = int(shards[-1]) < len(samples)
        if not inside or bool((overlay.rows >= np.array(samples, np.int64)[shards]).any()):
            raise ManifestError(place, "the overlay corrects samples that the shards do not have", CURE)
    if overlay.deleted_counts() != corrections.deleted:
        raise ManifestError(place, "the overlay deletes other samples than its manifest says", CURE)
    return overlay
