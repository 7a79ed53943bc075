"""Batches of encoded images, for decoders elsewhere, such as on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from shardkit.checksums import differing
from shardkit.errors import DatasetError, DecodeError, UsageError
from shardkit.images.header import image_header
from shardkit.images.options import Crop, DecodeOptions, Flip
from shardkit.images.orientation import is_turned_on_its_side
from shardkit.native import load
from shardkit.options.keywords import named_options
from shardkit.reading.batches.batch import REPEAT, stacked_labels
from shardkit.reading.batches.crops import Crops, crops_of
from shardkit.reading.blocks.block import Block, Buffer, Unchecked
from shardkit.sample import IMAGE_FIELDS, AnySample
from shardkit.threads import cached_property

CURE = "leave such samples out with filter() or where(), or use batch() without encoded=True"


@dataclass(frozen=True, slots=True)
class Chances:
    """What the random numbers of a batch depend on: the key of seed and epoch, and a counter for each sample."""

    key: int
    counters: NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class Later:
    """What a batch asks for when it is first used.

    empty: memory for `data`. shapes: (height, width) of the images, 0 where it is not known; None if it is for none.
    fields: the other fields.
    """

    empty: Callable[[tuple[int, ...], DTypeLike], NDArray[Any]] = np.empty
    shapes: Callable[[], NDArray[np.int32] | None] = lambda: None
    fields: Callable[[], dict[str, list[Any]]] = dict


class EncodedBatch:
    """The encoded images of a batch, for a decoder on a GPU or elsewhere: `batch(n, encoded=True)` makes it.

    data: the bytes of all images, one after the other (uint8, (total,), writable). They are copied once, when it is
    first used. offsets: where each image begins in it, and the total (int64, (n + 1,)). sizes: the bytes of each
    (int64, (n,)). images: each image as an array in `data` (uint8, (size,)). views: each image where it is, without any
    copy: read-only arrays (uint8, (size,)) of the mapped shard, which must not become shorter while they are in use.
    shapes: height and width of each image as stored, from the index or else its header (int32, (n, 2)).
    extensions: the field of each image, such as "jpg" or "png". labels: int64 (n,), None if the samples have none.
    keys: n str. repeats: bool (n,), True for samples that fill up the last batch (remainder="pad"), or None.
    fields: the other fields of the samples, lists of bytes, None for a sample without it; also by `batch["json"]`.
    columns: the further columns that `batch(columns=)` asks for, as in a Batch; also by `batch["age"]`.
    """

    columns: dict[str, Any]

    def __init__(
        self,
        found: Unchecked,
        labels: NDArray[np.int64] | None,
        *,
        keys: Sequence[str],
        extensions: Sequence[str],
        chances: Chances,
        later: Later,
        repeats: NDArray[np.bool_] | None = None,
    ) -> None:
        """found: the bytes of each image, which are checked when they are first used."""
        self.labels, self.keys, self.extensions, self.repeats = labels, list(keys), list(extensions), repeats
        self._sources, self._sums, self._damaged = found
        self._chances, self._later = chances, later
        self.columns = {}
        self.sizes: NDArray[np.int64] = np.array([len(source) for source in self._sources], np.int64)

    def __len__(self) -> int:
        return len(self._sources)

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """Where each image begins in `data`, and the number of its bytes (int64, (n + 1,))."""
        offsets = np.zeros(len(self) + 1, np.int64)
        np.cumsum(self.sizes, out=offsets[1:])
        return offsets

    @cached_property
    def data(self) -> NDArray[np.uint8]:
        """The bytes of all images, one after the other (uint8, (total,))."""
        total = int(self.offsets[-1])
        step = max(1, 1 << total.bit_length() >> 3)  # most batches then need as much, and the memory is used again
        data = self._later.empty((-(-total // step) * step,), np.uint8)[:total]
        self._require(join(self._sources, data, self._sums))
        return data

    def _require(self, wrong: list[int]) -> None:
        """Raise the error for the first of some images, if there is one; they are not checked again otherwise."""
        if wrong and self._damaged is not None:
            raise self._damaged(wrong[0])
        self._sums = None

    @property
    def images(self) -> list[NDArray[np.uint8]]:
        """Each image as an array in `data` (uint8, (size,))."""
        bounds = self.offsets.tolist()
        return [self.data[start:end] for start, end in pairwise(bounds)]

    @property
    def views(self) -> list[NDArray[np.uint8]]:
        """Each image where it is, without a copy (uint8, (size,), read-only)."""
        if self._sums is not None:
            self._require(differing(self._sources, self._sums))
        return [np.frombuffer(source, np.uint8) for source in self._sources]

    @cached_property
    def shapes(self) -> NDArray[np.int32]:
        """(height, width) of each image as stored (int32, (n, 2)). DecodeError for one without a valid header."""
        shapes = self._known_shapes()
        for number in np.flatnonzero((shapes <= 0).any(axis=1)).tolist():
            try:
                _, width, height = image_header(bytes(self._sources[number]), decode_rare=False)
            except ValueError as exc:
                raise DecodeError("", f"the image has no size: {exc}", CURE, None, self.keys[number]) from exc
            shapes[number] = height, width
        return shapes

    def _upright_shapes(self) -> NDArray[np.int32]:
        """(height, width) of each image after it is turned upright."""
        shapes = self.shapes.copy()
        for number, view in enumerate(self.views):
            try:
                if is_turned_on_its_side(view_of_array(view)):
                    shapes[number] = shapes[number, ::-1]
            except ValueError as exc:
                raise DecodeError("", f"the image has no orientation: {exc}", CURE, None, self.keys[number]) from exc
        return shapes

    def _known_shapes(self) -> NDArray[np.int32]:
        found = self.__dict__.get("shapes")
        if found is None:
            found = self._later.shapes()
        return np.zeros((len(self), 2), np.int32) if found is None else found

    @cached_property
    def fields(self) -> dict[str, list[Any]]:
        """The other fields of the samples."""
        return self._later.fields()

    @named_options
    def crops(
        self,
        *,
        size: int | tuple[int, int] | None = None,
        crop: Crop = "resize",
        flip: bool | Flip = False,
        scale: tuple[float, float] | None = None,
        ratio: tuple[float, float] | None = None,
        orientation: bool = False,
    ) -> Crops:
        """The boxes and flips that `decode()` with these options uses for the same samples, seed and epoch.

        The options are those of `Dataset.decode`. With orientation, the boxes are those of the images turned upright,
        for a decoder that applies the EXIF orientation; without it, of the images as stored. The result has boxes
        (int32, (n, 4): top, left, height, width), flips
        and vertical_flips (bool, (n,)). Resizing the box to size and mirroring it is up to the decoder. Raises
        UsageError for impossible options and crop="pad", DecodeError for an image whose size is not known.
        """
        if crop == "pad":
            fact = 'crop="pad" shifts the image after resizing, which a box of the stored image cannot express'
            raise UsageError("crops()", fact, 'use crop="resize" and shift the decoded images, or decode with decode()')
        options = DecodeOptions(size=size, crop=crop, flip=flip, scale=scale, ratio=ratio, orientation=orientation)
        shapes = self._upright_shapes() if options.orientation else self.shapes
        return crops_of(options, shapes, self._chances.key, self._chances.counters)

    def __getitem__(self, field: str) -> Any:
        return self.columns[field] if field in self.columns else self.fields[field]

    def __reduce__(self) -> tuple[Any, ...]:
        state = self.labels, self.keys, self.extensions, self._known_shapes(), self.fields, self.repeats, self.columns
        return _rebuilt, (self.data, self.offsets, self._chances, state)

    def __repr__(self) -> str:
        fields = "".join(f", {name}=…" for name in (*self.columns, *self.__dict__.get("fields", ())))
        return f"{type(self).__name__}(images={len(self)}, bytes={int(self.sizes.sum())}{fields})"


def encoded_block(
    block: Block, begin: int, end: int, chances: Chances, *, plain: bool, empty: Any, repeats: Any
) -> EncodedBatch:
    """The batch of samples begin … end - 1 of a block. plain: whether they have no other fields. empty: of `Later`.

    DecodeError for a sample without an image, DatasetError if only some have a label.
    """
    extensions, keys, labels = block.fields[begin:end], block.keys[begin:end], block.labels[begin:end]
    if "" in extensions:
        number = begin + extensions.index("")
        place, offset, key = block.place(number)
        raise DecodeError(place, "this sample has no image", CURE, offset, key)
    found = block.unchecked(begin, end)
    if found is None:
        datas, wrong = block.images(begin, end)
        if wrong:
            raise wrong[min(wrong)]
        found = Unchecked(datas, None, None)
    given: NDArray[np.int64] | None = labels
    if len(labels) and labels.min() < 0:
        known = [None if label < 0 else label for label in labels.tolist()]
        given = None if labels.max() < 0 else stacked_labels(known, keys)

    def fields() -> dict[str, list[Any]]:
        if plain:
            return {}
        return other_fields([block.sample(number) for number in range(begin, end)], extensions)

    later = Later(empty, lambda: block.shapes(begin, end), fields)
    return EncodedBatch(found, given, keys=keys, extensions=extensions, chances=chances, later=later, repeats=repeats)


def encoded_samples(samples: Sequence[Any], chances: Chances, *, empty: Any) -> EncodedBatch:
    """The batch of samples that went through filter() or map(). DatasetError for items without an encoded image."""
    extensions = [_image_of(sample) for sample in samples]
    sources = [memoryview(sample[name]).cast("B") for sample, name in zip(samples, extensions, strict=True)]
    keys = [str(sample.get("__key__", "")) for sample in samples]
    labels = [sample.get("cls") for sample in samples]
    given = None if all(label is None for label in labels) else stacked_labels(labels, keys)
    marks = np.array([REPEAT in sample for sample in samples])
    later = Later(empty, fields=lambda: other_fields(samples, extensions))
    return EncodedBatch(
        Unchecked(list(sources), None, None), given, keys=keys, extensions=extensions, chances=chances, later=later,
        repeats=marks if marks.any() else None,
    )  # fmt: skip


def _image_of(sample: Any) -> str:
    """The field of a sample with its encoded image."""
    if isinstance(sample, dict):
        for name, value in sample.items():
            if name in IMAGE_FIELDS and isinstance(value, (bytes, bytearray, memoryview)):
                return str(name)
        key = repr(sample.get("__key__", "a sample"))
        raise DatasetError("batch(encoded=True)", f"{key} has no field with an encoded image", CURE)
    fact = f"it needs samples, which are dicts, but map() returned {type(sample).__name__}"
    raise DatasetError("batch(encoded=True)", fact, "call map() after batch(), or omit encoded=True")


def other_fields(samples: Sequence[AnySample], extensions: Sequence[str]) -> dict[str, list[Any]]:
    """The fields of samples besides image, key, shard and label; None for a sample without it."""
    names = sorted(set().union(*samples) - {"cls", "__key__", "__url__", REPEAT})
    columns = {
        name: [None if name == image else sample.get(name) for sample, image in zip(samples, extensions, strict=True)]
        for name in names
    }
    images = set(extensions)
    return {n: values for n, values in columns.items() if n not in images or any(v is not None for v in values)}


def _rebuilt(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], chances: Chances, state: tuple[Any, ...]
) -> EncodedBatch:
    labels, keys, extensions, shapes, fields, repeats, columns = state
    whole = view_of_array(data)
    found = Unchecked([whole[start:end] for start, end in pairwise(offsets.tolist())], None, None)
    later = Later(shapes=lambda: shapes, fields=lambda: fields)
    batch = EncodedBatch(found, labels, keys=keys, extensions=extensions, chances=chances, later=later, repeats=repeats)
    batch.__dict__.update(data=data, offsets=offsets, columns=columns)
    return batch


def view_of_array(data: NDArray[np.uint8]) -> memoryview:
    """The memory of an array."""
    return memoryview(data)  # type: ignore[arg-type]  # NumPy's types do not know the protocol before Python 3.12


def join(sources: Sequence[Buffer], data: NDArray[np.uint8], sums: NDArray[np.uint32] | None) -> list[int]:
    """Copy buffers into an array of their whole size, one after the other.

    Returns the numbers of those whose CRC-32C is not the one in sums.
    """
    native = load("samples")[0]
    if native is not None and (sums is None or native.summed):
        wrong: list[int] = native.join(sources, data, sums)
        return wrong
    at, view = 0, view_of_array(data)
    for source in sources:
        view[at : at + len(source)] = source
        at += len(source)
    return [] if sums is None else differing(sources, sums)
