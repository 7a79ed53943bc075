"""Describe a dataset from its manifest and index; no shard is opened."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shardkit import checksums
from shardkit.errors import DatasetError, NotFoundError
from shardkit.location import Location
from shardkit.options.fields import checked_by
from shardkit.reading.blocks.tree import tree_catalog
from shardkit.shards.find.find import resolve
from shardkit.shards.find.found import Found
from shardkit.shards.manifest import ClassEntry, Manifest
from shardkit.shards.objects import Objects
from shardkit.storage.access import Remote
from shardkit.tools.progressive import counted_kinds, jpeg_kinds
from shardkit.tools.settings import InfoSettings
from shardkit.units import short_repr

COMMON_SIZES = 5


@dataclass(frozen=True, slots=True)
class Range:
    """Minimum, median and maximum. The median of an even count is the lower of the two middle values."""

    min: int
    median: int
    max: int


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """Contents of a dataset, or of a class directory.

    source: its manifest, or the directory, for which shard_format is "" and shards 0. bytes: total of the shards;
    image_bytes: total of the images in them. shard_bytes: per shard.
    classes: name and number of samples, in label order. width, height: of the stored images, in pixels; None if the
    index has none. common_sizes: the most frequent (width, height, images), at most 5. unknown_sizes: images whose size
    is not in the index. options: those the dataset was packed with. jpegs: the JPEGs, if they
    were counted when it was packed, as progressive ones are; else those whose headers were read, spread over the
    dataset (0 for one in a store); progressive: how many of these are progressive. columns: the further columns of
    the index, with their types.
    """

    source: str
    shard_format: str
    samples: int
    shards: int
    bytes: int
    image_bytes: int
    shard_bytes: Range | None
    classes: tuple[ClassEntry, ...]
    fields: tuple[str, ...]
    width: Range | None
    height: Range | None
    common_sizes: tuple[tuple[int, int, int], ...]
    unknown_sizes: int
    options: dict[str, Any]
    version: int = 1
    jpegs: int = 0
    progressive: int = 0
    columns: dict[str, str] = field(default_factory=dict)

    __repr__ = short_repr


@checked_by(InfoSettings)
def info(source: str | os.PathLike[str], *, storage_options: Mapping[str, Any] | None = None) -> DatasetInfo:
    """Describe the dataset `source`: a prefix (`shards/train`), a manifest, or a glob or brace range of its shards.

    A class directory is described too: its images, their bytes and classes.

    storage_options: for its store, as in `dataset`. Memory holds one shard's columns at a time; for a store, one index
    file. Of a dataset on a disk, the headers of some JPEGs are read too. Raises NotFoundError if there is no manifest,
    ManifestError if manifest or index is damaged, SourceError for a tree of splits.
    """
    remote = Remote(storage_options)
    found = resolve(source, remote)
    if found.tree is not None:
        return _of_tree(found.tree)
    place, manifest = _manifest_of(source, found)
    sizes: Counter[tuple[int, int]] = Counter()
    image_bytes = 0
    for columns in _index_columns(place, manifest, Objects(remote)):
        image_bytes += int(columns["image_size"][columns["image_size"] > 0].sum())
        has_image = columns["image_size"] >= 0
        sizes.update(_pairs(columns["width"][has_image], columns["height"][has_image]))
    unknown = sizes.pop((0, 0), 0)
    frequent = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))
    return DatasetInfo(
        source=str(place),
        shard_format=manifest.shard_format,
        samples=manifest.samples,
        shards=len(manifest.shards),
        bytes=manifest.bytes,
        image_bytes=image_bytes,
        shard_bytes=_range(Counter(shard.bytes for shard in manifest.shards)),
        classes=manifest.classes,
        fields=manifest.fields,
        width=_range(_sums(sizes, 0)),
        height=_range(_sums(sizes, 1)),
        common_sizes=tuple((width, height, count) for (width, height), count in frequent[:COMMON_SIZES]),
        unknown_sizes=unknown,
        options=dict(manifest.options),
        columns=dict(manifest.columns),
        version=manifest.number,
        **_kinds(place, manifest),
    )


def _of_tree(place: Location) -> DatasetInfo:
    """Describe a class directory. SourceError for one of splits."""
    catalog = tree_catalog(place.path)
    size = int(catalog.source.sizes.sum())
    return DatasetInfo(
        source=str(place),
        shard_format="",
        samples=len(catalog.source),
        shards=0,
        bytes=size,
        image_bytes=size,
        shard_bytes=None,
        classes=catalog.classes,
        fields=catalog.fields,
        width=None,
        height=None,
        common_sizes=(),
        unknown_sizes=len(catalog.source),
        options={},
        **_kinds(place),
    )


def _kinds(place: Location, manifest: Manifest | None = None) -> dict[str, Any]:
    """The counts of JPEGs. If they were not counted when they were packed: none for a dataset in a store, or one whose
    shards can't be read, which verify reports."""
    kinds = None if manifest is None else counted_kinds(manifest)
    if kinds is None and not place.is_local:
        return {}
    try:
        kinds = kinds or jpeg_kinds(str(place))
    except DatasetError:
        return {}
    return {"jpegs": kinds.jpegs, "progressive": kinds.progressive}


def _manifest_of(source: str | os.PathLike[str], found: Found) -> tuple[Location, Manifest]:
    """The location of the manifest that was found, and its content. NotFoundError without one."""
    if found.manifest is None or found.location is None:
        cure = (
            f'make one with: shardkit index "{source}"'
            if found.shards
            else "pack it first, or inspect it with 'shardkit report'"
        )
        raise NotFoundError(str(source), "there is no dataset here (no manifest)", cure)
    return found.location, found.manifest


def _index_columns(beside: Location, manifest: Manifest, objects: Objects) -> Iterator[dict[str, NDArray[Any]]]:
    """The columns of each shard's rows. Raises ManifestError if an index file is missing or damaged."""
    from shardkit.shards.corrections.read import corrected_index_files, read_overlay

    for index in corrected_index_files(objects, beside, manifest, read_overlay(objects, beside, manifest)):
        yield from index.groups(("image_size", "width", "height"))


def _pairs(width: NDArray[np.int32], height: NDArray[np.int32]) -> Counter[tuple[int, int]]:
    """Count each (width, height)."""
    both, counts = np.unique(width.astype(np.int64) << 32 | height, return_counts=True)
    pairs = zip((both >> 32).tolist(), (both & 0xFFFFFFFF).tolist(), strict=True)
    return Counter(dict(zip(pairs, counts.tolist(), strict=True)))


def _sums(sizes: Counter[tuple[int, int]], axis: int) -> Counter[int]:
    sums: Counter[int] = Counter()
    for pair, count in sizes.items():
        sums[pair[axis]] += count
    return sums


def _range(counts: Counter[int]) -> Range | None:
    """Range of the numbers, each occurring as often as `counts` says; None for none."""
    if not counts:
        return None
    numbers = sorted(counts)
    middle, seen = (counts.total() - 1) // 2, 0
    for number in numbers:
        seen += counts[number]
        if seen > middle:
            break
    return Range(numbers[0], number, numbers[-1])


def build_info() -> dict[str, str]:
    """Describe this build of shardkit: its version, the JPEG decoder and the other C parts in use."""
    from shardkit.formats.tar import fast_write
    from shardkit.images import fused
    from shardkit.images.rewrite import lossless
    from shardkit.version import __version__

    loops = {"packing of small JPEGs": fast_write.extension(), "checksums": checksums.parts_extension()}
    said = {name: "Python" if extension is None else "C" for name, extension in loops.items()}
    said["rewriting of JPEGs"] = "C" if lossless.available() else "not there"
    return {"shardkit": __version__, **fused.build_info(), **said}
