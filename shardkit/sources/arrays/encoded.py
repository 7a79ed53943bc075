"""Images of an array as PNG files, so that they are packed, split, and resumed as the files of a tree are.

PNG keeps every pixel. The images are encoded once, in threads, into one temporary file, which all workers read.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from msgspec.structs import replace

from shardkit.checksums import crc32c
from shardkit.errors import SourceError
from shardkit.events import Progress, ProgressFn, no_progress
from shardkit.sample import fs_text
from shardkit.sources.archives.members import stored
from shardkit.sources.arrays.files import (
    ArraysOfSplit,
    class_names_in,
    open_arrays,
    require_images,
    splits_of_arrays,
    translated,
)
from shardkit.sources.columns import PathColumn
from shardkit.sources.left_out import LeftOut
from shardkit.sources.lists.in_memory import label_column
from shardkit.sources.lists.labels import NO_LABELS, Labels, class_map, labels_of, number_labels
from shardkit.sources.origin import Rows
from shardkit.sources.readers import AnyFiles, ArchiveMembers, stamp_of
from shardkit.sources.source import Inline, Source
from shardkit.storage.files import translated as translated_storage
from shardkit.threads import in_threads
from shardkit.units import cores

AT_ONCE = 1024
"""Images that are read together."""

IMAGES_NAME = "images"
"""The temporary file in its folder."""

_PLAIN = re.compile(r"[^/\\\0-\x1f]+")

COMPRESSION = 6
"""zlib's level: a fixed one, so that equal arrays give equal bytes."""


class TemporaryFolder:
    """A folder that is removed with the last reference to this, and at the end of the process."""

    def __init__(self) -> None:
        with translated_storage(tempfile.gettempdir()):
            self.name = tempfile.mkdtemp(prefix="shardkit-")
        weakref.finalize(self, shutil.rmtree, self.name, ignore_errors=True)


class InArrays(msgspec.Struct, frozen=True, eq=False):
    """Encoded images in a temporary file."""

    path: str
    folder: TemporaryFolder
    offsets: Rows
    crcs: Rows
    readable = True

    @property
    def spool(self) -> str:
        """The file."""
        return os.path.join(self.folder.name, IMAGES_NAME)

    def at(self, rows: Rows) -> InArrays:
        """The origin of some rows."""
        return replace(self, offsets=self.offsets[rows], crcs=self.crcs[rows])

    def prepared(self, work: str) -> InArrays:
        """Return itself: the images are encoded already."""
        return self

    def files(self, rows: Rows) -> AnyFiles:
        """The images, as ranges of the temporary file."""
        return ArchiveMembers(
            archive=os.fsencode(os.path.abspath(self.path)), file=os.fsencode(self.spool), stamp=stamp_of(self.spool),
            numbers=stored(self.offsets[rows]),
        )  # fmt: skip

    def watched(self, rows: Rows) -> list[bytes]:
        """The file of arrays."""
        return [os.fsencode(os.path.abspath(self.path))]

    def marks(self, rows: Rows) -> bytes:
        """The CRC-32C of each image."""
        return self.crcs[rows].tobytes()


class Arrays:
    """A file of arrays as a source. Raises SourceError, MissingExtraError."""

    def __init__(self, path: str, *, in_order: bool) -> None:
        self._path, self._place, self._in_order = path, fs_text(path), in_order
        with open_arrays(path) as arrays:
            self._splits = splits_of_arrays(list(arrays), self._place)
        self.splits: Sequence[str] | None = None if "" in self._splits else list(self._splits)

    def scan(self, classes: Sequence[str] | None, progress: ProgressFn = no_progress) -> Mapping[str, Source]:
        """Encode the images. classes: as for a list; by default the names that the file has."""
        with open_arrays(self._path) as arrays:
            labels = {split: self._labels(arrays, each) for split, each in self._splits.items()}
            kinds = {each.kind for each in labels.values()}
            if classes is None and kinds <= {"class", "multi"}:
                classes = class_names_in(arrays, self._place)
            order = class_map(((self._place, each) for each in labels.values()), classes)
            return {
                split: self._source(arrays[each.images], labels[split], order, progress)
                for split, each in self._splits.items()
            }

    def _labels(self, arrays: Mapping[str, Any], split: ArraysOfSplit) -> Labels:
        count = require_images(arrays[split.images], split.images, self._place)
        if split.labels is None:
            return NO_LABELS
        import pyarrow as pa

        with translated(f"{self._place}: {split.labels}"):
            values = np.asarray(arrays[split.labels][:])
        column = label_column(split.labels, values)
        if len(column) != count:
            fact = f"{split.images!r} has {count} images, and {split.labels!r} has {len(column)} labels"
            raise SourceError(self._place, fact, "save one label for each image")
        found = labels_of(pa.chunked_array([column]), self._place, split.labels, None)
        if None in found.values:
            fact = f"row {found.values.index(None)} of {split.labels!r} has no label"
            raise SourceError(self._place, fact, "give every image a label")
        return found

    def _source(self, images: Any, labels: Labels, classes: tuple[str, ...], progress: ProgressFn) -> Source:
        values, wrong = number_labels(labels, classes)
        if wrong:
            row, reason = next(iter(wrong.items()))
            raise SourceError(f"{self._place}: row {row}", reason, "fix the label, or name all classes with `classes`")
        count = int(images.shape[0])
        numbers = np.array(values if labels.kind == "class" else np.full(count, -1), np.int32)
        order = np.arange(count) if self._in_order else np.argsort(numbers, kind="stable")
        origin, sizes = self._encoded(images, progress)
        folders = [_folder(name, label) for label, name in enumerate(classes)]
        names = [f"{folders[label] if label >= 0 else 'images'}/{row:09}.png" for row, label in enumerate(numbers)]
        return Source(
            root=os.fsencode(os.path.abspath(self._path)), classes=classes,
            paths=PathColumn.of(os.fsencode(names[row]) for row in order), sizes=sizes[order], labels=numbers[order],
            renamed={}, left_out=LeftOut(), elsewhere=origin.at(order),
            inline=_inline(labels, values, order, listed=folders != list(classes)),
        )  # fmt: skip

    def _encoded(self, images: Any, progress: ProgressFn) -> tuple[InArrays, Rows]:
        folder = TemporaryFolder()
        sizes, crcs = list[int](), list[int]()
        path = os.path.join(folder.name, IMAGES_NAME)
        with translated_storage(path), open(path, "wb") as file:
            for data in self._pngs(images):
                file.write(data)
                sizes.append(len(data))
                crcs.append(crc32c(data))
                if len(sizes) % AT_ONCE == 0:
                    progress(Progress("scan", len(sizes), int(images.shape[0]), file.tell()))
        lengths = np.array(sizes, np.int64)
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])[:-1]
        return InArrays(self._path, folder, offsets, np.array(crcs, np.int64)), lengths

    def _pngs(self, images: Any) -> Iterator[bytes]:
        return in_threads(png_of, self._pixels(images), cores(), name="shardkit-encode")

    def _pixels(self, images: Any) -> Iterator[Any]:
        for begin in range(0, int(images.shape[0]), AT_ONCE):
            with translated(self._place):
                part = np.asarray(images[begin : begin + AT_ONCE])
            yield from part


def png_of(pixels: Any) -> bytes:
    """An image (height, width) or (height, width, channels), uint8, as PNG."""
    from PIL import Image

    sink = io.BytesIO()
    image = Image.fromarray(pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels)
    image.save(sink, "PNG", compress_level=COMPRESSION)
    return sink.getvalue()


def _folder(name: str, label: int) -> str:
    """The folder of a class in the paths of the index: its name, or where that can't be a folder's, its number."""
    return name if _PLAIN.fullmatch(name) and not name.startswith(".") else str(label)


def _inline(labels: Labels, values: Sequence[Any], order: Rows, *, listed: bool) -> Inline | None:
    import msgspec

    if labels.kind == "class":
        return Inline({}, "listed") if listed else None
    if labels.kind == "none":
        return Inline({}, "none")
    return Inline({"cls.json": PathColumn.of(msgspec.json.encode(values[row]) for row in order)}, labels.kind)
