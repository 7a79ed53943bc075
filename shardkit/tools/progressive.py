"""How many JPEGs of a dataset are progressive, which decode slowly; `pack --baseline` converts them without loss.

They are counted when they are packed. Of other datasets, the headers of some images are read.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from shardkit.images.jpeg import is_progressive
from shardkit.sample import IMAGE_FIELDS
from shardkit.shards.index_file import index_entries, open_index
from shardkit.shards.manifest import Manifest
from shardkit.storage.files import translated

if TYPE_CHECKING:
    from shardkit.reading.dataset import Dataset

LOOKED_AT = 64
"""Images whose headers are read, evenly spread over the dataset."""

TIMES = 4
"""How many times as fast a baseline JPEG decodes: a progressive one takes a pass over all pixels for each scan."""


@dataclass(frozen=True, slots=True)
class JpegKinds:
    """JPEGs among images of a dataset, and how many of them are progressive.

    whole: whether these are all of its images, so that it is a count and not an estimate. gain: how many times as fast
    the progressive ones decode as baseline JPEGs, where that was measured.
    """

    jpegs: int
    progressive: int
    whole: bool = False
    gain: float | None = None

    @property
    def advice(self) -> str:
        """What to do about progressive JPEGs, in a sentence; "" if there are none."""
        if not self.progressive:
            return ""
        if self.whole:
            many = f"{self.progressive} of the {self.jpegs} JPEGs are progressive"
        else:
            share = f"{self.progressive / self.jpegs:.0%}"
            looked = f"{self.progressive} of {self.jpegs} that were looked at"
            many = f"an estimated {share} of the JPEGs are progressive ({looked})"
        times = f"about {TIMES}" if self.gain is None else f"{self.gain:.1f}"
        faster = f"'shardkit pack --baseline' converts them losslessly, and they decode {times} times as fast"
        return f"{many}: {faster}"


NO_JPEGS = JpegKinds(0, 0)


def jpeg_kinds(source: str | os.PathLike[str] | Dataset) -> JpegKinds:
    """The JPEGs of a dataset, if they were counted when it was packed; else look at some images of it, or of a class
    directory. Errors as from `dataset`."""
    from shardkit.reading.blocks.catalog import IndexCatalog
    from shardkit.reading.dataset import Dataset, dataset

    data = source if isinstance(source, Dataset) else dataset(source)
    catalog = data.content.catalog
    if isinstance(catalog, IndexCatalog) and len(data) == catalog.manifest.samples:
        counted = counted_kinds(catalog.manifest)
        if counted is not None:
            return counted
    samples = data[_rows(len(data))]
    images = (next((bytes(value) for name, value in sample.items() if name in IMAGE_FIELDS), b"") for sample in samples)
    return kinds_of(images, whole=looks_at_all(len(data)))


def packed_jpeg_kinds(prefix: str, manifest: Manifest) -> JpegKinds:
    """As `jpeg_kinds`, for a dataset that was just packed on this disk: nothing of `reading` is loaded for it."""
    counted = counted_kinds(manifest)
    if counted is not None or not manifest.appended:
        return counted or NO_JPEGS
    return kinds_of(_packed_images(prefix, manifest), whole=looks_at_all(manifest.samples))


def counted_kinds(manifest: Manifest) -> JpegKinds | None:
    """The JPEGs of a dataset as they were counted when it was packed; None if they were not, or none is progressive."""
    found = manifest.jpegs
    return None if found is None else JpegKinds(*found, whole=True)


def looks_at_all(samples: int, jpegs: int = 0) -> bool:
    """Whether these are all JPEGs of a dataset of this size: either its images are few, or they were counted."""
    return samples <= LOOKED_AT or jpegs > LOOKED_AT


def _packed_images(prefix: str, manifest: Manifest) -> Iterator[bytes]:
    folder, rows = os.path.dirname(prefix), _rows(manifest.samples)
    for entry, shards in index_entries(manifest):
        path = os.path.join(folder, entry.name)
        index = open_index(path, entry, shards, place=path)
        ends = list(accumulate((shard.samples for shard in shards), initial=0))
        for group, shard in enumerate(shards):
            chosen = rows[(rows >= ends[group]) & (rows < ends[group + 1])] - ends[group]
            if not len(chosen):
                continue
            places = index.columns(group, ["image_offset", "image_size"])
            wanted = [(int(places["image_offset"][row]), int(places["image_size"][row])) for row in chosen.tolist()]
            yield from _read(os.path.join(folder, shard.name), [place for place in wanted if place[0] >= 0])
        rows = rows[rows >= ends[-1]] - ends[-1]


def _read(path: str, places: Iterable[tuple[int, int]]) -> list[bytes]:
    """The bytes at these (offset, size) of a file. Raises StorageError."""
    found = []
    with translated(path), open(path, "rb", buffering=0) as file:
        for offset, size in places:
            file.seek(offset)
            found.append(file.read(size))
    return found


def _rows(samples: int) -> NDArray[np.int64]:
    """The samples to look at, ascending; they are distinct, since there are no more of them than samples."""
    return np.linspace(0, samples - 1, min(LOOKED_AT, samples)).astype(np.int64)


def kinds_of(images: Iterable[bytes], *, whole: bool = False) -> JpegKinds:
    """Count the JPEGs among images, and the progressive ones, by their headers. whole: as in JpegKinds."""
    jpegs = progressive = 0
    for image in images:
        found = is_progressive(image)  # None also if it is damaged: verify and report say so
        jpegs += found is not None
        progressive += found is True
    return JpegKinds(jpegs, progressive, whole)
