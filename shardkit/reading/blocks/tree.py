"""Read a class directory directly, without packing: each file is a shard of one sample."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shardkit.errors import NotFoundError, SourceError, StorageError, printable
from shardkit.reading.batches.labels import Kind
from shardkit.reading.blocks.block import Images, Labels, Unchecked, images_of
from shardkit.reading.blocks.prefetch import NoPrefetch
from shardkit.sample import AnySample, field_of, fs_text, text_of_path
from shardkit.shards.buffers import ShardFile
from shardkit.shards.columns.arrays import Values, nothing
from shardkit.shards.columns.ranges import Holds
from shardkit.shards.columns.types import Types
from shardkit.shards.manifest import ClassEntry, Manifest
from shardkit.sources.source import Source, find_splits, scan_tree
from shardkit.threads import cached_property

if TYPE_CHECKING:
    import pyarrow as pa


class TreeCatalog:
    """The files of a class tree in scan order: by class, then as Keras sorts them. Scanned once."""

    plain = True
    kind: Kind = ""
    one_image_each = True
    manifest: Manifest | None = None
    prefetch = NoPrefetch()

    def __init__(self, source: Source) -> None:
        self.source = source
        self.root = os.fsencode(source.root)
        self.counts = np.ones(len(source), np.int64)
        self.starts = np.array([0, len(source)])
        self.classes = tuple(map(ClassEntry, source.classes, source.counts.tolist()))
        self.mean_bytes = max(1, int(source.sizes.mean()))
        self.identity = f"tree:{_digest(source)}"
        extensions = {path.rpartition(b".")[2] for path in source.paths}
        self.fields = tuple(sorted({"cls", *map(field_of, map(os.fsdecode, extensions))}))

    def scanned(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows of the source that are at these rows."""
        return rows

    def files(self) -> Sequence[ShardFile]:
        """Empty: the files are too small for reading ahead."""
        return ()

    def hold(self) -> None:
        """Do nothing: a tree has too many files."""

    def labels(self) -> Labels:
        """The labels of all rows."""
        return self.source.labels

    def index_schema(self) -> pa.Schema:
        """Keys, paths, labels and sizes of all files."""
        import pyarrow as pa

        return pa.schema({"key": pa.string(), "path": pa.string(), "label": pa.int64(), "image_size": pa.int64()})

    def index_tables(self, names: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """These columns, in one part."""
        import pyarrow as pa

        rows = self.scanned(np.arange(len(self.source)))
        columns: dict[str, Callable[[], Any]] = {
            "key": lambda: self.source.keys(rows),
            "path": lambda: list(map(text_of_path, self.source.paths.take(rows))),
            "label": self.labels,
            "image_size": lambda: self.source.sizes[rows],
        }
        wanted = columns if names is None else names
        found = self.index_schema()
        schema = pa.schema([found.field(name) for name in wanted])
        yield pa.table({name: columns[name]() for name in wanted}, schema=schema)

    def candidates(self, names: Sequence[str], holds: Holds) -> Iterator[tuple[NDArray[np.int64], pa.Table]]:
        """All rows: nothing is known of them before."""
        return ((np.arange(len(table)), table) for table in self.index_tables(names))

    def further(self, rows: NDArray[np.int64], types: Types) -> dict[str, Values]:
        """Nothing: a tree has no further columns."""
        return {name: nothing(len(rows), text) for name, text in types.items()}

    def rows_of(self, key: str) -> list[int]:
        """The row of a key, found by a linear search."""
        keys = self.source.keys(self.scanned(np.arange(len(self.source))))
        return [keys.index(key)] if key in keys else []

    def block(self, rows: NDArray[np.int64]) -> TreeBlock:
        """The samples at these rows."""
        return TreeBlock(self, rows)


def tree_catalog(root: str) -> TreeCatalog:
    """The catalog of a folder of class folders. SourceError for a folder of splits, and as from `scan_tree`."""
    splits = find_splits(root)
    if splits is not None:
        fact = f"this folder holds splits, not classes: {', '.join(map(printable, splits))}"
        raise SourceError(
            fs_text(root), fact, f"open each separately, such as {fs_text(os.path.join(root, splits[0]))}"
        )
    return TreeCatalog(scan_tree(root))


def _digest(source: Source) -> str:
    """32 hex digits for the paths and sizes of all files."""
    found = hashlib.blake2b(source.paths.blob.data, digest_size=16)
    found.update(source.paths.offsets.data)
    found.update(np.ascontiguousarray(source.sizes).data)
    return found.hexdigest()


class TreeBlock:
    """Samples of a class tree, read on demand."""

    arriving = ()

    def __init__(self, catalog: TreeCatalog, rows: NDArray[np.int64]) -> None:
        self.catalog, self.rows = catalog, rows
        scanned = catalog.scanned(rows)
        self.paths = catalog.source.paths.take(scanned)
        self.keys = catalog.source.keys(scanned)
        self.labels = catalog.source.labels[scanned].astype(np.int64)

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def fields(self) -> list[str]:
        """The name of each sample's image field."""
        return [field_of(os.fsdecode(path.rpartition(b".")[2])) for path in self.paths]

    @property
    def nbytes(self) -> int:
        """The bytes of the files."""
        return int(self.catalog.source.sizes[self.rows].sum())

    def wanted(self) -> None:
        """None: the files are too small for reading ahead."""
        return

    def image(self, number: int) -> bytes:
        """The bytes of the file. Raises NotFoundError, StorageError."""
        path = os.path.join(self.catalog.root, self.paths[number])
        try:
            with open(path, "rb", buffering=0) as file:
                return file.readall()
        except FileNotFoundError as exc:
            raise NotFoundError(
                fs_text(path), "the file has vanished since the scan", "open the dataset again"
            ) from exc
        except OSError as exc:
            raise StorageError(fs_text(path), exc.strerror or str(exc), "check the disk and its permissions") from exc

    def images(self, begin: int, end: int) -> Images:
        """The bytes of each file."""
        return images_of(self, begin, end)

    def seek_points(self, begin: int, end: int) -> None:
        """None: there is no index to know them from."""
        return

    def unchecked(self, begin: int, end: int) -> Unchecked | None:
        """None: files are read one by one."""
        return None

    def shapes(self, begin: int, end: int) -> None:
        """None: only their headers tell."""
        return

    def target(self, number: int) -> None:
        """None: a file has one class."""
        return

    def sample(self, number: int, *, checked: bool = False) -> AnySample:
        """Key, file, image and label."""
        url = fs_text(os.path.join(self.catalog.root, self.paths[number]))
        label = int(self.labels[number])
        return {"__key__": self.keys[number], "__url__": url, self.fields[number]: self.image(number), "cls": label}

    def samples(self) -> Iterator[AnySample]:
        """All samples in order."""
        return map(self.sample, range(len(self)))

    def place(self, number: int) -> tuple[str, int | None, str]:
        """(file, None, key)."""
        return fs_text(os.path.join(self.catalog.root, self.paths[number])), None, self.keys[number]
