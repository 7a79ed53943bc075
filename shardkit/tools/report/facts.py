"""A dataset's facts for the report: columns with one entry per sample, from the index or the files of a class tree."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shardkit.checksums import crc32c
from shardkit.errors import DatasetError, ShardkitError
from shardkit.events import Progress, ProgressFn
from shardkit.images.header import image_header
from shardkit.location import locate
from shardkit.reading.blocks.block import Catalog, index_table
from shardkit.reading.dataset import Dataset, dataset
from shardkit.sample import fs_text
from shardkit.shards.find.find import resolve
from shardkit.shards.find.shards import SourceLike
from shardkit.shards.manifest import Manifest
from shardkit.shards.names import split_names_of, without_versions
from shardkit.shards.objects import Objects
from shardkit.storage.access import Remote
from shardkit.threads import in_threads, thread_count

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

Numbers = NDArray[Any]
CHUNK = 256  # samples per thread task


@dataclass(frozen=True, slots=True, eq=False)
class Facts:
    """A dataset as columns, with one entry per sample in the order of the shards.

    folder: the name of the folder that contains it. labels: -1 for none. sizes: bytes of the image, -1 for no image.
    widths, heights: pixels, 0 if unknown. crcs: CRC-32C of the image's bytes; summed: whether they are known. shards:
    (name, samples, bytes) of each; empty for a class tree. quality: an array of QUALITY_TYPES, NaN for null; None if
    the index has no quality columns.
    """

    name: str
    folder: str
    source: SourceLike
    data: Dataset
    manifest: Manifest | None
    classes: tuple[str, ...]
    keys: Sequence[str]
    labels: Numbers
    sizes: Numbers
    widths: Numbers
    heights: Numbers
    crcs: Numbers
    shards: tuple[tuple[str, int, int], ...]
    summed: bool = True
    quality: Numbers | None = None
    storage_options: Mapping[str, Any] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def counts(self) -> list[int]:
        """The number of samples of each class."""
        counts: list[int] = np.bincount(self.labels[self.labels >= 0], minlength=len(self.classes)).tolist()
        return counts

    @property
    def known(self) -> NDArray[np.bool_]:
        """Which samples have an image with known width and height."""
        return (self.widths > 0) & (self.heights > 0)

    def class_of(self, row: int) -> str:
        """The class name of a sample, for display."""
        label = int(self.labels[row])
        return self.classes[label] if label >= 0 else "no label"

    def key_column(self) -> pa.ChunkedArray:
        """The keys as an Arrow column."""
        import pyarrow as pa

        return (
            self.keys.column if isinstance(self.keys, _Keys) else pa.chunked_array([pa.array(self.keys, pa.string())])
        )

    def prints(self) -> Numbers:
        """A fingerprint of each image, from CRC-32C and size, equal for equal images: uint64, 0 without an image or
        where checksums are not known."""
        both = self.sizes.clip(0).astype(np.uint64) << np.uint64(32) | self.crcs.astype(np.uint64)
        return np.where((self.sizes >= 0) & self.summed, both, np.uint64(0))


class _Keys(Sequence[str]):
    """An Arrow column of strings as a sequence, without a Python object for each."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self.column = column

    def __len__(self) -> int:
        return len(self.column)

    def __getitem__(self, item: Any) -> Any:
        return self.column[item].as_py()


def collect(source: SourceLike, progress: ProgressFn, storage_options: Mapping[str, Any] | None = None) -> Facts:
    """Collect the facts of a dataset. Raises DatasetError for shards without a manifest, and errors as `dataset`."""
    found, data = resolve(source, Remote(storage_options)), dataset(source, storage_options=storage_options)
    catalog = data.content.catalog
    if not int(catalog.counts.sum()):
        raise DatasetError(_place(source), "the dataset has no samples", "pack a tree with images")
    columns = _from_files(data, progress) if found.tree is not None else _from_index(catalog)
    shards: tuple[tuple[str, int, int], ...] = ()
    if found.manifest is not None:
        numbers = range(len(found.manifest.shards)) if found.numbers is None else found.numbers
        entries = [found.manifest.shards[number] for number in numbers]
        counts = catalog.counts.tolist()
        shards = tuple((entry.name, count, entry.bytes) for entry, count in zip(entries, counts, strict=True))
    place = found.tree or found.location or locate("dataset")
    path = Path(place.path)
    whole = path.absolute() if place.is_local else path
    name, folder = fs_text(found.stem or path.name), fs_text(whole.parent.name)
    classes = tuple(entry.name for entry in catalog.classes)
    return Facts(
        name, folder, source, data, found.manifest, classes, shards=shards, storage_options=storage_options, **columns
    )  # fmt: skip


def _place(source: SourceLike) -> str:
    return source if isinstance(source, str) else "dataset"


def _from_index(catalog: Catalog) -> dict[str, Any]:
    from shardkit.shards.index import as_numpy, quality_array
    from shardkit.shards.quality import QUALITY

    names = {"labels": "label", "sizes": "image_size", "widths": "width", "heights": "height", "crcs": "crc32c"}
    has_quality = set(QUALITY) <= set(catalog.index_schema().names)
    table = index_table(catalog, ["key", *names.values(), *(QUALITY if has_quality else ())])
    columns: dict[str, Any] = {ours: as_numpy(table[theirs]) for ours, theirs in names.items()}
    summed = catalog.manifest is None or catalog.manifest.has_checksums
    quality = quality_array(table) if has_quality else None
    return {"keys": _Keys(table["key"]), "summed": summed, "quality": quality, **columns}


def _from_files(data: Dataset, progress: ProgressFn) -> dict[str, Any]:
    """The columns of a class tree, whose files are all read."""
    from shardkit.shards.index import QUALITY_TYPES
    from shardkit.shards.quality import quality_of_images

    catalog = data.content.catalog
    table, total = index_table(catalog), int(catalog.counts.sum())
    widths, heights = np.zeros(total, np.int32), np.zeros(total, np.int32)
    crcs, sizes = np.zeros(total, np.uint32), np.zeros(total, np.int64)
    quality = np.zeros(total, QUALITY_TYPES)

    def read(begin: int) -> int:
        rows = np.arange(begin, min(begin + CHUNK, total))
        block = catalog.block(rows)
        for number, row in enumerate(rows.tolist()):
            content = bytes(block.image(number))
            sizes[row], crcs[row] = len(content), crc32c(content)
            quality[row] = np.frombuffer(quality_of_images(content, [(0, len(content))])[0], QUALITY_TYPES)[0]
            try:
                _, widths[row], heights[row] = image_header(content)
            except ValueError as exc:
                log.debug("%s: %s", block.place(number)[0], exc)  # remains 0 x 0: unknown
        return int(rows[-1]) + 1

    for done in in_threads(read, range(0, total, CHUNK), thread_count(None)):
        progress(Progress("read", done, total))
    return {
        "keys": _Keys(table["key"]), "labels": catalog.labels(), "sizes": sizes, "widths": widths, "heights": heights,
        "crcs": crcs, "summed": True, "quality": quality,
    }  # fmt: skip


def siblings(facts: Facts, progress: ProgressFn) -> list[Facts]:
    """The sibling splits of a dataset that is itself a split, found by name (train, validation, test …).

    A split that can't be read is omitted, with a warning.
    """
    remote = Remote(facts.storage_options)
    found = resolve(facts.source, remote)
    own = found.location or found.tree
    if own is None:
        return []
    names = [
        name
        for name in without_versions(Objects(remote).names(own.parent, ""))
        if (name.endswith(".json") if found.tree is None else os.path.isdir(own.sibling(name).path))
    ]
    splits = set(split_names_of([name.removesuffix(".json") for name in names]))
    if own.name.removesuffix(".json") not in splits:
        return []
    others = []
    for name in names:
        if name == own.name or name.removesuffix(".json") not in splits:
            continue
        try:
            others.append(collect(str(own.sibling(name)), progress, facts.storage_options))
        except ShardkitError as exc:
            log.warning("omitted from the search for images in several splits: %s", exc)
    return others
