"""`dataset()` and the Dataset it returns: immutable values that say what to read, and iterate over it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Generic, Literal, Never, get_args, overload

import numpy as np
from numpy.typing import NDArray

from shardkit.errors import DatasetError, LengthError, ReplacedError, UsageError
from shardkit.formats.tfrecord.samples import FieldNames
from shardkit.images.annotations.options import Boxes
from shardkit.images.augment.options import Augment
from shardkit.images.decoder import (
    Color,
    Crop,
    DecodeOptions,
    Flip,
    Interpolation,
    LabelEncoding,
    Layout,
    OnError,
    PixelType,
    Statistics,
)
from shardkit.images.options import BucketOptions
from shardkit.images.pillow import MAX_PIXELS
from shardkit.images.views.options import View
from shardkit.options.keywords import METHODS, cure_of_choice, named_options, no_attribute
from shardkit.options.numbers import switch
from shardkit.reading.batches.batch import Batch
from shardkit.reading.batches.columns import ColumnsLike, asked_columns
from shardkit.reading.batches.encoded import EncodedBatch
from shardkit.reading.batches.fields import FIELD_DECODERS
from shardkit.reading.batches.labels import require_class_labels
from shardkit.reading.batches.memory import Memory
from shardkit.reading.batches.tasks.work import LOST, Group, Item
from shardkit.reading.buckets.given import given_buckets
from shardkit.reading.chains import as_view, require_order
from shardkit.reading.columns import labels_array, texts_array
from shardkit.reading.content import Content, Named
from shardkit.reading.epoch import Epoch
from shardkit.reading.fingerprint import fingerprint_of, require_same
from shardkit.reading.numbered import KERAS, TORCH, one_of, read_by, reader, require_numbered
from shardkit.reading.ops import BatchUp, Decode, EpochSize, Filter, Map, Op, Skip, Steps, Take, steps_of
from shardkit.reading.options import Auto, Reading, SampleWeight, at_least, buffer_size, callable_of
from shardkit.reading.order.derived import label_counts, require_fractions
from shardkit.reading.order.share import Remainder
from shardkit.reading.select import (
    AtNumbers,
    Chosen,
    Fold,
    OfClasses,
    PartOf,
    Selection,
    Weights,
    Where,
    chosen_of,
    forget_chosen,
    numbers_of,
    samples_of,
)
from shardkit.reading.state import Cursor, Placement, ReadPosition
from shardkit.reading.stats.live import StatsFn, Watch
from shardkit.reading.stats.record import Recorder
from shardkit.reading.stats.stats import Stats
from shardkit.sample import DecodedSample, Sample
from shardkit.shards.find.files import TRIES
from shardkit.shards.find.shards import SourceLike
from shardkit.storage.access import remote_of, sharing
from shardkit.threads import cached_property

if TYPE_CHECKING:
    import pyarrow.compute as pc
    import ray
    import tensorflow as tf

    from shardkit.adapters.keras import KerasDataset
    from shardkit.adapters.torch import TorchDataset, TorchMap
    from shardkit.adapters.webdataset import WebDatasetPipeline

if TYPE_CHECKING:  # Python 3.11 has no defaults of type variables
    from typing_extensions import TypeVar

    T_co = TypeVar("T_co", default=Any, covariant=True)
else:
    from typing import TypeVar

    T_co = TypeVar("T_co", covariant=True)

U = TypeVar("U")

Rows = NDArray[np.int64]

Collate = Literal["stack", "list"]

_MOVED = {
    "items_of": "epoch(number).item_count()",
    "lanes": "reading.order_lanes",
    "members": "content.members(rows)",
    "order": "epoch(number).order",
    "progress": "position",
    "rank": "reading.ranks",
    "remainder": "reading.order_remainder",
    "rows_of_epoch": "epoch(number).rows_in_order",
    "span": "epoch(number).span",
}
"""Attributes of Dataset that have moved -> their replacements."""

_PLUMBING = frozenset({
    "content", "countable", "epoch", "forget", "identity", "ops", "order_identity", "placement", "position", "reading",
    "rows", "run", "selection", "steps", "watch", "weights",
})  # fmt: skip
"""Attributes for adapters and tools, which `dir()` and the completion of a notebook leave out."""

_INSTEAD = {**METHODS, **{name: f"it is now dataset.{new}" for name, new in _MOVED.items()}}


@dataclass(frozen=True, eq=False)
class Dataset(Generic[T_co]):
    """Samples, or items made from them, that can be iterated any number of times. Made by `dataset()`.

    Type checkers know its items: `Dataset[Sample]` until it is decoded, then `Dataset[DecodedSample]`, after batch()
    `Dataset[Batch]`, and after map() what the function returns. `Dataset` alone is one of any items.

    A Dataset is a value: each method returns a new one and leaves this one unchanged; only `set_epoch` and
    `load_state_dict` change it. Nothing is opened before it is iterated or asked for its content. Each new iteration is
    the next epoch, and may run in a thread or process of its own.
    """

    content: Content
    reading: Reading
    ops: tuple[Op, ...] = ()
    selection: tuple[Selection, ...] = ()
    weights: Weights | None = None
    position: ReadPosition = field(default_factory=ReadPosition)
    watch: Watch = field(default_factory=Watch)

    # Content

    @property
    def classes(self) -> list[str]:
        """The names of the classes in label order. DatasetError for shards without a manifest."""
        return [entry.name for entry in self.content.catalog.classes]

    @property
    def class_counts(self) -> dict[str, int]:
        """The number of samples per class in one iteration, over all ranks, by the stored labels.

        For a mix, the counts of its parts. DatasetError for shards without a manifest, UsageError if each epoch has
        different samples.
        """
        require_order(self, "class_counts")
        turns = self.reading.turns or 1
        return {name: count * turns for name, count in as_view(self)._class_counts().items()}

    def _class_counts(self) -> dict[str, int]:
        catalog, rows = self.content.catalog, self.content.members(self.rows())
        if rows is None and (
            catalog.kind or sum(entry.count for entry in catalog.classes) == int(catalog.counts.sum())
        ):
            return {entry.name: entry.count for entry in catalog.classes}
        require_class_labels(catalog, "class_counts")
        counts = np.zeros(len(catalog.classes), np.int64)
        found = label_counts(rows, samples_of(catalog, rows), catalog.labels())[1:]
        counts[: len(found)] = found
        return {entry.name: int(count) for entry, count in zip(catalog.classes, counts, strict=True)}

    def class_weight(self) -> dict[int, float]:
        """A weight for each label that gives all classes equal influence: samples / (classes x count).

        This is scikit-learn's "balanced"; 0.0 for a class without samples. For Keras' `fit(class_weight=)`.
        """
        counts = list(self.class_counts.values())
        filled, total = sum(1 for count in counts if count), sum(counts)
        return {label: total / (filled * count) if count else 0.0 for label, count in enumerate(counts)}

    @property
    def labels(self) -> NDArray[np.int64]:
        """The class number of each sample (int64, n), in the order of `ds[0]` … `ds[n - 1]`; -1 where it has none.

        `train_test_split(np.arange(len(ds)), stratify=ds.labels)` gives numbers for `ds[numbers]`. UsageError where
        samples have several labels or numbers, and where each epoch has other samples.
        """
        return labels_array(self)

    @property
    def keys(self) -> NDArray[np.object_]:
        """The key of each sample (str, n), in the order of `labels`."""
        return texts_array(self, "key")

    @property
    def paths(self) -> NDArray[np.object_]:
        """The path that each sample had in the source (str, n), in the order of `labels`."""
        return texts_array(self, "path")

    @property
    def fields(self) -> list[str]:
        """The names of the samples' fields. DatasetError for shards without a manifest."""
        return list(self.content.catalog.fields)

    @property
    def batch_size(self) -> int | None:
        """The n of `batch(n)`; None for single samples."""
        batch = self.steps.batch
        return None if batch is None else batch.size

    @cached_property
    def steps(self) -> Steps:
        """The combined steps of the chain of methods."""
        return steps_of(self.ops)

    @property
    def epoch_samples(self) -> int:
        """The number of samples per epoch of all ranks, before take() and skip(). DatasetError without a manifest."""
        return self.content.samples(self.rows())

    def rows(self) -> Rows | None:
        """The rows of the catalog in this view, in its order (int64); None for all of them."""
        return self._chosen[0]

    @cached_property
    def _chosen(self) -> Chosen:
        """The rows, and the description of each selection."""
        return chosen_of(self.content, self.selection)

    def forget(self) -> None:
        """Look the content up again at the next use."""
        self.content.forget()
        forget_chosen(self.selection)
        self.__dict__.pop("_chosen", None)

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}  # without the values derived from them

    def __len__(self) -> int:
        """The exact number of items of an iteration for this rank.

        DatasetError if filter(), a missing manifest, or an endless repeat() makes it unknown.
        """
        steps = self.steps
        if not steps.counted:
            fact = "its length is not known before it is read, since filter() may drop any item"
            raise LengthError("len()", fact, "count while iterating, or use where() or select() instead of filter()")
        if self.reading.turns is None:
            raise LengthError("len()", "repeat() is endless", "use repeat(n), or epoch_size(n)")
        if self.content.streams:
            try:
                _ = self.content.catalog
            except DatasetError as exc:
                raise LengthError(exc.place, exc.fact, exc.cure) from exc
        return self.epoch(0).item_count() * self.reading.turns

    @property
    def countable(self) -> bool:
        """Whether the number of items of an epoch is known before it is read."""
        return self.steps.counted and not self.content.streams

    def __bool__(self) -> bool:
        return True

    def __dir__(self) -> list[str]:
        return sorted({*dir(type(self))} - _PLUMBING)

    def __repr__(self) -> str:
        from shardkit.reading.shown import line_of

        return line_of(self)

    def _repr_html_(self) -> str | None:
        """A few of the images, with their classes, for notebooks."""
        from shardkit.reading.shown import page_of

        return page_of(self)

    @cached_property
    def _for_keras(self) -> KerasDataset:
        """What Keras reads if it is given this Dataset itself."""
        return self.to_keras()

    if not TYPE_CHECKING:

        @property
        def __class__(self) -> type:
            """The class; to Keras, that of `to_keras()`, so that it reads a Dataset given to `model.fit` as one."""
            return type(self._for_keras) if read_by(KERAS, 1) else type(self)

        def __getattr__(self, name: str) -> Any:
            """Raise AttributeError; for names of earlier versions and of other libraries, with what to write.

            Keras gets its own attributes.
            """
            if read_by(KERAS, 1):
                return getattr(self._for_keras, name)
            raise no_attribute(self, name, dir(self), _INSTEAD)

    # Steps

    @named_options
    def shuffle(self, size: int | bool = True, *, seed: int | None = None) -> Dataset[T_co]:
        """Use a new random order in each epoch, through a buffer of `size` samples (True: 10,000; False or 0: none).

        The order is that of order/epoch_order.py: a function of only seed, epoch, size and the number of lanes. It
        covers the samples that remain after preceding take(), skip() and views; of several shuffles the last one
        counts.
        """
        require_order(self, "shuffle()")
        buffer = buffer_size(size)
        data = as_view(self) if buffer else self
        return data._with(
            reading=replace(data.reading, buffer=buffer, seed=data.reading.seed if seed is None else seed)
        )

    @named_options
    def buckets(
        self,
        shapes: int | Sequence[int | tuple[int, int]],
        *,
        size: int | tuple[int, int] | None = None,
        multiple: int = 8,
    ) -> Dataset[T_co]:
        """Make batches of images of one shape each, for images of several sizes: each is decoded to the shape nearest
        to its own, and the batches of the shapes alternate.

        shapes: (height, width) in pixels of each, a number for a square; or how many to choose, so that as little as
        possible of the images is cut off, by the widths and heights in the index. size: of chosen shapes, which have as
        many pixels as this square or (height, width), or a few less. multiple: of which their sides are multiples.

        `decode()` after it takes no size, and its crop is "cover" by default. Each batch has samples of one bucket; in
        a step all ranks have the same shape, but for what is left over. A sample occurs once in an epoch at most:
        batch(drop_last=True) omits the incomplete batch of each bucket, and `remainder="drop"` the batches of an
        incomplete last step. The order depends only on the index, the seed, the epoch, the batch size and the layout
        for ranks. Raises UsageError for impossible shapes, and after mix(), weight(), filter(), epoch_size() and
        repeat(); reading raises DatasetError for samples whose size is not in the index.
        """
        require_order(self, "buckets()")
        return as_view(self)._with(given_buckets(shapes, size, multiple))

    @property
    def bucket_counts(self) -> dict[tuple[int, int], int]:
        """The number of samples of each shape (height, width) of `buckets()`; shapes without samples are left out."""
        if self.steps.buckets is None:
            raise UsageError("bucket_counts", "there are no buckets", "call it after buckets()")
        return dict(self.epoch(0).sorted.counts)

    @named_options
    def decode(
        self,
        *,
        size: int | tuple[int, int] | None = None,
        views: Mapping[str, View | tuple[int, int | tuple[int, int]] | Mapping[str, Any]] | None = None,
        crop: Crop | None = None,
        flip: bool | Flip = False,
        scale: tuple[float, float] | None = None,
        ratio: tuple[float, float] | None = None,
        padding: int | None = None,
        fill: int | tuple[int, int, int] = 0,
        interpolation: Interpolation = "bilinear",
        color: Color = "rgb",
        exact: bool = False,
        dtype: PixelType | None = None,
        rescale: float | None = None,
        mean: float | Sequence[float] | Statistics | None = None,
        std: float | Sequence[float] | Statistics | None = None,
        augment: Augment | None = None,
        boxes: str | Boxes | None = None,
        masks: str | Sequence[str] | None = None,
        layout: Layout = "hwc",
        orientation: bool = False,
        label: LabelEncoding = "int",
        on_error: OnError = "raise",
        skip_limit: int = 100,
        max_pixels: int = MAX_PIXELS,
        columns: ColumnsLike | None = None,
    ) -> Dataset[DecodedSample]:
        """Decode images to arrays, and other fields by their extension (cls, txt, json, npy; all others remain bytes).

        A sample then holds its image as an array (height, width, channels), uint8 unless dtype, rescale, mean or std is
        given; a batch of images of one size is an array (samples, height, width, channels).

        size: the side of a square or (height, width), in pixels; None keeps the size of each image.
        views: several random crops of each image, decoded once, for each name a `View` or (count, size):
        {"global": (2, 224), "local": (8, 96)}. The image is then a dict of arrays (count, height, width, channels), and
        the images of a batch one of arrays (samples, count, height, width, channels). Each view has a crop and flip of
        its own, from the seed, the epoch, the sample and the number of the view.
        crop: "resize", without views the default, squashes the whole image into size, "center" takes its middle,
        "cover" the largest part with the proportions of size, from the middle or, with "random-cover", at random, and
        "random" is torchvision's RandomResizedCrop. "pad" squashes it, pads it, and takes a random window of size: with
        padding=4 the usual recipe for CIFAR.
        flip: mirror images at random with probability 1/2: True or "horizontal", "vertical", or "both" independently.
        scale: of a random crop, (low, high) shares of the image's area; None is 0.08 to 1. ratio: of a random crop,
        (low, high) of width / height; None is 3/4 to 4/3. padding: pixels that crop="pad" adds on each side. fill:
        their value, 0 to 255, or one for each channel.
        interpolation: the filter for resizing, antialiased as Pillow's.
        color: "rgb" (3 channels) or "gray" (1).
        exact: the same pixels as Pillow, which takes longer.
        dtype: of the values; None is uint8, or float32 with rescale, mean or std. "bfloat16" needs ml_dtypes.
        rescale: a factor for each value, such as 1/255. mean: subtracted from values that are from 0 to 1 (divided by
        255, unless rescale is given), one number or one for each channel. std: divides what is left. "imagenet" and
        "clip" stand for the numbers of these models. With augment this comes last.
        augment: random rotations, shifts, zooms and so on, after size, crop and flip; see `shardkit.Augment`.
        boxes: the boxes of objects, which are moved with the image: a path such as "json/boxes", or `shardkit.Boxes`.
        Those that the crop leaves out are removed, with their labels. masks: the field or fields with masks, images or
        arrays of the image's size, which are moved with it by nearest pixels.
        layout: "hwc" is (height, width, channels), "chw" (channels, height, width).
        orientation: rotate each image according to its EXIF or XMP metadata.
        label: "int" is int64; "onehot", "binary" and "multihot" are float32.
        on_error: with "raise" the first image that can't be decoded is a DecodeError; "skip" omits and logs them.
        skip_limit: the most images that "skip" omits. max_pixels: an image with more is refused before it is decoded.
        columns: further columns of the index, which a list of samples brought along: ["age", "city"]. They are values
        of a sample, and of a batch arrays (samples,), (samples, N) for lists of N numbers, and lists of text:
        `batch["age"]`. Null is NaN, NaT or None; in columns of whole numbers or truth values it is a DatasetError,
        unless a value for it is given: {"age": -1, "city": ""}.

        Raises UsageError for impossible options, and after map(), filter(), batch() or another decode(). Iterating
        raises DecodeError with shard, byte and key.
        """
        kind = DecodeOptions if self.steps.buckets is None else BucketOptions
        options = kind(
            size=size, views=views, crop=crop, flip=flip, scale=scale, ratio=ratio, padding=padding, fill=fill,
            interpolation=interpolation, color=color, exact=exact, dtype=dtype, rescale=rescale, mean=mean, std=std,
            augment=augment, boxes=boxes, masks=masks, layout=layout, orientation=orientation, label=label,
            on_error=on_error, skip_limit=skip_limit, max_pixels=max_pixels,
        )  # fmt: skip
        return self._with(Decode(options, asked_columns("decode(columns)", columns)))

    @overload
    def map(self, fn: Callable[[T_co], U], *, rng: Literal[False] = False) -> Dataset[U]: ...
    @overload
    def map(self, fn: Callable[[T_co, np.random.Generator], U], *, rng: Literal[True]) -> Dataset[U]: ...
    @overload
    def map(self, fn: Callable[[T_co, int], U], *, rng: Literal["seed"]) -> Dataset[U]: ...

    @named_options
    def map(self, fn: Callable[..., U], *, rng: bool | Literal["seed"] = False) -> Dataset[U]:
        """Replace each item (a sample, or after batch() a batch) by `fn(item)`, called in the decoding threads.

        rng: True calls `fn(item, rng)` with the item's own `numpy.random.Generator`, "seed" calls `fn(item, seed)` with
        an int in 0 … 2³² - 1. Both depend only on the dataset's seed, the epoch, and the sample (of a batch, its first
        one), so that augmentation is the same for any number of threads and workers, and after resuming. Raises
        UsageError after a filter(), take() or skip() of batches.
        """
        if rng not in (False, True, "seed"):
            raise UsageError("map(rng)", f"{rng!r} is not a valid choice", 'use True for a Generator, "seed", or False')
        return self._with(Map(callable_of("map(fn)", fn), "seed" if rng == "seed" else "generator" if rng else ""))

    @named_options
    def filter(self, fn: Callable[[T_co], object]) -> Dataset[T_co]:
        """Keep only the items for which `fn(item)` is true. The length is then unknown."""
        return self._with(Filter(callable_of("filter(fn)", fn)))

    @overload
    def batch(
        self,
        size: int,
        *,
        drop_last: bool = False,
        encoded: Literal[True],
        columns: ColumnsLike | None = None,
        collate: Literal["stack"] = "stack",
    ) -> Dataset[EncodedBatch]: ...
    @overload
    def batch(
        self: Dataset[Never],
        size: int,
        *,
        drop_last: bool = False,
        encoded: Literal[False] = False,
        columns: ColumnsLike | None = None,
        collate: Collate = "stack",
    ) -> Dataset[Any]: ...
    @overload
    def batch(
        self: Dataset[DecodedSample],
        size: int,
        *,
        drop_last: bool = False,
        encoded: Literal[False] = False,
        columns: ColumnsLike | None = None,
        collate: Collate = "stack",
    ) -> Dataset[Batch]: ...
    @overload
    def batch(
        self: Dataset[Sample],
        size: int,
        *,
        drop_last: bool = False,
        encoded: Literal[False] = False,
        columns: ColumnsLike | None = None,
        collate: Collate = "stack",
    ) -> Dataset[dict[str, Any]]: ...
    @overload
    def batch(
        self,
        size: int,
        *,
        drop_last: bool = False,
        encoded: bool = False,
        columns: ColumnsLike | None = None,
        collate: Collate = "stack",
    ) -> Dataset[Any]: ...

    @named_options
    def batch(
        self,
        size: int,
        *,
        drop_last: bool = False,
        encoded: bool = False,
        columns: ColumnsLike | None = None,
        collate: Collate = "stack",
    ) -> Dataset[Any]:
        """Combine `size` items: decoded images to a Batch, which unpacks as (images, labels); others to a dict.

        The dict holds lists. drop_last omits a smaller last batch. A field that a sample lacks is None in its list.
        DatasetError if some of the samples have a label or a decoded image, and others do not.
        collate: "list" keeps decoded images apart: `images` is then a list of arrays, each of its own shape, and other
        fields are lists too, as detectors take them; labels are an array.
        encoded: combine undecoded samples to an `EncodedBatch` instead: their images in one buffer with offsets, and
        the boxes and flips that decode() would draw, for a decoder on a GPU. UsageError after decode(). Iterating
        raises DecodeError for a sample without an image.
        columns: further columns of the index for samples that are not decoded, as in `decode`.
        """
        if collate not in get_args(Collate):
            raise UsageError(
                "collate",
                f"{collate!r} is not 'stack' or 'list'",
                cure_of_choice("collate", collate, get_args(Collate)),
            )
        if collate == "list" and encoded:
            raise UsageError("collate", "with encoded=True images are in one buffer already", "omit one of them")
        require_order(self, "batch()")
        number = min(at_least("batch(size)", size, 1), sys.maxsize)  # no dataset has more samples
        asked = asked_columns("batch(columns)", columns)
        ragged = collate == "list"
        return self._with(BatchUp(number, switch("drop_last", drop_last), switch("encoded", encoded), asked, ragged))

    @named_options
    def take(self, count: int) -> Dataset[T_co]:
        """Keep the first `count` items of each epoch: of the whole epoch, or after batch() or filter(), of each rank's.

        In a shuffled dataset they differ in each epoch: to separate a fixed part from the rest, call take() and skip()
        before shuffle(), or use split(). An image that `decode(on_error="skip")` omits counts.
        """
        require_order(self, "take()")
        return self._with(Take(at_least("take(count)", count, 0)))

    @named_options
    def skip(self, count: int) -> Dataset[T_co]:
        """Omit the first `count` items of each epoch, counted as in `take`."""
        require_order(self, "skip()")
        return self._with(Skip(at_least("skip(count)", count, 0)))

    @named_options
    def repeat(self, count: int | None = None) -> Dataset[T_co]:
        """Read `count` epochs, each in its own order, in one iteration; endless without a count."""
        before = self.reading.turns
        turns = None if count is None or before is None else before * at_least("turns", count, 1)
        return self._with(reading=replace(self.reading, turns=turns))

    @named_options
    def epoch_size(self, count: int) -> Dataset[T_co]:
        """Use epochs of `count` items, each continuing where the previous one stopped.

        The items are samples of all ranks together or, after batch(), batches of each rank. Every sample occurs equally
        often in the long run.
        """
        require_order(self, "epoch_size()")
        data = as_view(self)
        reading = replace(data.reading, epoch_size=at_least("epoch_size(count)", count, 1))
        return data._with(reading=reading, ops=(EpochSize(),))

    # Views, from the index

    @overload
    def __getitem__(self, item: int | np.integer[Any] | str) -> T_co: ...
    @overload
    def __getitem__(self, item: slice | Sequence[int] | NDArray[np.integer[Any] | np.bool_]) -> Dataset[T_co]: ...

    def __getitem__(self, item: Any) -> Any:
        """A sample by its number or key; a view for a slice, list, or array of numbers or bools.

        Numbers refer to the order of the shards, or of this view. A sample is decoded if decode() was called before,
        with the random numbers of epoch 0. NotFoundError for one that does not exist; UsageError if the samples differ
        from epoch to epoch, and if the caller is a torch DataLoader that should be given `to_torch()`.
        """
        if isinstance(item, (str, int, np.integer)) and not isinstance(item, bool):
            if read_by(KERAS, 1):
                return self._for_keras[int(item)]
            by = reader(1)
            if by is not None:
                require_numbered(self, by)
            require_order(self, "dataset[key]" if isinstance(item, str) else "dataset[number]")
            return one_of(as_view(self), item)
        return self._select("dataset[…]", AtNumbers(numbers_of(item)))

    def __getitems__(self, numbers: Sequence[int]) -> list[T_co]:
        """Samples by number: called by a torch DataLoader.

        UsageError if the samples or their order would differ from iterating.
        """
        require_numbered(self, TORCH)
        return [self[number] for number in numbers]

    @named_options
    def select(self, classes: str | int | Sequence[str | int]) -> Dataset[T_co]:
        """Keep only the samples of these classes, by name or label. The labels remain unchanged."""
        if callable(classes):
            fact = "it takes names or labels of classes, and a function was given"
            raise UsageError("select()", fact, "call `.filter(fn)`, or `.where(expression)` for columns of the index")
        names = [classes] if isinstance(classes, (str, int, np.integer)) else list(classes)
        return self._select("select()", OfClasses(tuple(names)))

    @named_options
    def where(self, expression: pc.Expression) -> Dataset[T_co]:
        """Keep only the samples for which a pyarrow expression over the index's columns is true.

        >>> import pyarrow.compute as pc
        >>> large = ds.where((pc.field("width") >= 224) & (pc.field("height") >= 224))  # doctest: +SKIP
        """
        import pyarrow.compute as pc

        if not isinstance(expression, pc.Expression):
            fact = f"{expression!r} is not an expression of pyarrow.compute"
            raise UsageError("where()", fact, 'write it as pc.field("width") > 100, after import pyarrow.compute as pc')
        return self._select("where()", Where(expression))

    @overload
    def split(
        self, fractions: Mapping[str, float], *, seed: int = 0, stratify: bool = True
    ) -> dict[str, Dataset[T_co]]: ...
    @overload
    def split(
        self, fractions: int, *, seed: int = 0, stratify: bool = True
    ) -> list[tuple[Dataset[T_co], Dataset[T_co]]]: ...

    @named_options
    def split(
        self, fractions: Mapping[str, float] | int, *, seed: int = 0, stratify: bool = True
    ) -> dict[str, Dataset[T_co]] | list[tuple[Dataset[T_co], Dataset[T_co]]]:
        """Split the samples randomly into parts or folds; nothing is copied.

        fractions: by name, such as {"train": 0.8, "validation": 0.2}, gives a dict of parts; a number k ≥ 2 gives the k
        folds of a cross-validation, as (train, validation) pairs whose validation parts are disjoint.
        stratify: split each class in these proportions; if classes have few samples, the remainders are distributed so
        that the parts have the right sizes, like scikit-learn. The same seed gives the same parts. A part that gets no
        sample is logged. Raises UsageError for fractions that make no sense.
        """
        if isinstance(fractions, (int, np.integer)):
            require_order(self, "split()")
            return self._folds(at_least("split(k)", fractions, 2), seed, stratify)
        try:
            shares = tuple((str(name), float(share)) for name, share in fractions.items())
        except (AttributeError, TypeError, ValueError) as exc:
            cure = 'give {"train": 0.8, …}, or a number of folds'
            raise UsageError("split()", f"{fractions!r} is not a dict of fractions", cure) from exc
        require_fractions(dict(shares))
        return {name: self._select("split()", PartOf(shares, name, seed, stratify)) for name, _ in shares}

    def _folds(self, folds: int, seed: int, stratify: bool) -> list[tuple[Dataset[T_co], Dataset[T_co]]]:
        samples = as_view(self).epoch_samples
        if folds > samples:
            raise UsageError("split(k)", f"{folds} folds of {samples} samples", "give at most one fold for each sample")

        def part(number: int, others: bool) -> Dataset[T_co]:
            return self._select("split()", Fold(number, folds, seed, stratify, others))

        return [(part(number, True), part(number, False)) for number in range(folds)]

    @named_options
    def balance(self) -> Dataset[T_co]:
        """Make each class occur equally often, with as many samples per epoch as before: see `weight`."""
        require_order(self, "balance()")
        return replace(as_view(self)._with(), weights=Weights(None))

    @named_options
    def weight(self, weights: Mapping[str | int, float] | Sequence[float] | NDArray[Any]) -> Dataset[T_co]:
        """Make samples occur in proportion to their weights, with as many samples per epoch as before.

        weights: for classes, by name or label (a class without a weight is omitted); or a number for each sample in the
        order of the shards (or of this view). Classes stay evenly mixed along the epoch; samples of small classes occur
        several times.
        """
        require_order(self, "weight()")
        try:
            kept = dict(weights) if isinstance(weights, Mapping) else np.asarray(weights, np.float64)
        except (TypeError, ValueError) as exc:
            fact = f"{type(weights).__name__} is neither a dict of weights by class nor an array with one per sample"
            raise UsageError("weight()", fact, "give a dict, or an array of numbers") from exc
        return replace(as_view(self)._with(), weights=Weights(kept))

    # Position

    @named_options
    def set_epoch(self, epoch: int) -> None:
        """Set the epoch number of the next iteration; later ones count from it. Changes this Dataset in place.

        A loaded state of this same epoch that was not yet resumed from is kept, so that a loop may call `set_epoch` in
        every epoch, including the resumed one.
        """
        self.position.set_epoch(at_least("set_epoch(epoch)", epoch, 0))

    def state_dict(self) -> dict[str, Any]:
        """The position of the latest iteration, as plain JSON: the epoch, and the samples that were delivered.

        It can be loaded with any number of ranks and workers. With filter() each rank has its own state. DatasetError
        for shards without a manifest, in which a position can't be found again.
        """
        _ = self.content.catalog
        return self.position.state_dict(
            order=self.order_identity, ranks=self.reading.ranks, placement=self.placement, steps=self.steps,
            versions=self.content.versions,
        )  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Make the next iteration resume at the next sample after `state`. Changes this Dataset in place.

        Raises StateError for a state of another dataset, order or version.
        """
        _ = self.content.catalog
        reading = self.reading  # the size of a node comes from the state
        given = self.content.layout(replace(reading, node_affinity=1 if reading.node_affinity else False))
        self.position.load_state_dict(
            state, order=self.order_identity, ranks=reading.ranks, layout=given.sections if reading.layout else None,
            affinity=given.node > 0, steps=self.steps, versions=self.content.versions,
        )  # fmt: skip

    def stats(self) -> Stats:
        """What the latest iteration has spent its time on so far, and what limits it: waiting, fetching, decoding and
        so on, with a sentence that names the option that would change it. Zeros before the first iteration.

        It may be called in the loop, after it, or in another thread. `to_torch()`, `to_tf()` and `to_keras()` of this
        Dataset record here, too, as far as they read in this process.
        """
        return self.watch.stats()

    @property
    def placement(self) -> Placement:
        """How the order is laid out for ranks: as in a loaded state, or for those there are."""
        layout = self.content.layout(self._reading_in_use)
        return layout.sections, layout.node

    @property
    def _reading_in_use(self) -> Reading:
        """The reading options with the layout of a loaded state."""
        kept = self.position.placement
        if kept is None:
            return self.reading
        return replace(self.reading, layout=kept[0], node_affinity=kept[1] or False)

    @property
    def identity(self) -> str:
        """A text that identifies the content and selection."""
        return "/".join([self.content.identity, *self._chosen[1]])

    @property
    def order_identity(self) -> str:
        """The text that determines the order of samples, except for the epoch."""
        window = ",".join(f"{type(op).__name__}{op.count}" for op in self.steps.window)
        weights = "" if self.weights is None else self.weights.describe()
        size = f"{self.reading.epoch_size}x{self.batch_size if self.steps.sized_batches else 1}"
        parts = [self.identity, weights, self.reading.buffer, self.reading.seed, self.reading.order_lanes, window, size]
        if self.steps.buckets is not None:
            parts.append(self.epoch(0).describe_batches())
        return "\x1f".join(map(str, parts))

    @property
    def fingerprint(self) -> str:
        """32 hex digits that identify the samples and their order: equal on every machine and path.

        Ranks of torch.distributed or JAX compare it when an epoch begins: DatasetError if they differ.
        """
        return fingerprint_of(self)

    # Reading

    def __iter__(self) -> Iterator[T_co]:
        cursor, record = self.position.begin(), self._record()
        while True:
            require_same(self)
            empty = not cursor.delivered
            for taken, items in self._groups(cursor, record):
                for cursor.taken, item in enumerate(items, taken):
                    cursor.delivered += 1
                    if item is not LOST:
                        empty = False
                        yield item
            if self.reading.turns is not None and cursor.turn + 1 >= self.reading.turns:
                break
            if self.reading.turns is None and empty:
                raise DatasetError(
                    "repeat()",
                    "an epoch has no items, so the iteration would never end",
                    "check the source and the steps",
                )
            cursor = self.position.next_epoch(cursor)
        self.position.end(cursor)

    def _record(self) -> Recorder:
        """The record of a new iteration."""
        return self.watch.begin(self.reading.on_stats, self.reading.progress)

    def _groups(self, cursor: Cursor, record: Recorder) -> Iterator[Group]:
        """The items of an epoch from a cursor on, for this process alone."""

        def begin() -> Iterator[Group]:
            return self.epoch(cursor.epoch, done=cursor.done).groups(record, delivered=cursor.delivered)

        return begin() if self.content.resolved else self._begun(begin)

    def run(
        self,
        epoch: int,
        *,
        done: int = 0,
        delivered: int = 0,
        start: int = 0,
        worker: int = 0,
        workers: int = 1,
        lost: bool = False,
        memory: Memory | None = None,
    ) -> Iterator[Item]:
        """The items of an epoch, each with the number of this rank's samples taken so far.

        done: finished samples of all ranks; delivered: items that were delivered before. Worker `worker` of `workers`
        takes its part of the batches, or of the samples if there are no batches; start: the number that came with its
        last item. lost: yield LOST for a batch none of whose images could be decoded. memory: where batches are made.
        """

        def begin() -> Iterator[Item]:
            return self.epoch(epoch, done=done).items(
                self._record(), delivered=delivered, start=start, worker=worker, workers=workers, memory=memory
            )

        alone = workers == 1 and not self.content.resolved
        items = self._begun(begin) if alone else begin()
        if lost or self.steps.decode is None or self.steps.batch is None:
            return items
        return (item for item in items if item[1] is not LOST)

    def _begun(self, begin: Callable[[], Iterator[U]]) -> Iterator[U]:
        """Yield from `begin`; retry if the content was replaced before the first item and nothing of it is in use yet.

        It is then looked up again, so that a new reader gets either the old or the new dataset.
        """
        for _ in range(TRIES - 1):
            with suppress(ReplacedError):
                items = begin()
                return chain(list(islice(items, 1)), items)
            self.forget()
        return begin()

    def epoch(self, number: int, *, done: int = 0) -> Epoch:
        """An epoch as this rank reads it, after `done` samples of all ranks."""
        reading = self._reading_in_use
        return Epoch(number, self.content.now(reading), self.rows(), self.weights, reading, self.steps, done)

    def _select(self, method: str, step: Selection) -> Dataset[T_co]:
        require_order(self, method)
        view = as_view(self)
        return replace(view._with(), selection=(*view.selection, step))

    def _with(self, *new: Op, reading: Reading | None = None, ops: tuple[Op, ...] = ()) -> Dataset[Any]:
        chain = (*self.ops, *new, *ops)
        steps_of(chain)
        return replace(self, reading=reading or self.reading, ops=chain, position=ReadPosition(), watch=Watch())

    # Conversion

    @overload
    def to_torch(
        self,
        *,
        map_style: Literal[False] = False,
        channels_last: bool = False,
        names: tuple[str, str] | None = None,
    ) -> TorchDataset: ...

    @overload
    def to_torch(
        self, *, map_style: Literal[True], channels_last: bool = False, names: tuple[str, str] | None = None
    ) -> TorchMap: ...

    @named_options
    def to_torch(
        self, *, map_style: bool = False, channels_last: bool = False, names: tuple[str, str] | None = None
    ) -> TorchDataset | TorchMap:
        """A torch IterableDataset of the same items, arrays as tensors on the same memory. Needs the extra `torch`.

        map_style: instead, a torch Dataset of single samples by number, as (image, label). channels_last: images as (…,
        channels, height, width) in torch's memory format of that name, without a copy. names: batches and samples as
        dicts with these keys for images and labels, such as ("pixel_values", "labels") for Hugging Face's models.
        """
        from shardkit.adapters.torch import to_torch

        return to_torch(self, map_style=map_style, channels_last=channels_last, names=names)

    @named_options
    def to_tf(self, *, graph: bool = False, sample_weight: SampleWeight | None = None) -> tf.data.Dataset:
        """A tf.data.Dataset of (images, labels). Needs the extra `tensorflow`.

        sample_weight: batches are (images, labels, weights), weights float32 (n,), as for `to_keras`; with graph=True
        an array.

        graph: a graph of TensorFlow's own operations on TFRecord shards instead of shardkit's threads, which a
        tf.distribute strategy can shard by file to several machines. It has the same samples, but in TensorFlow's order
        (without shuffling, that of the shards), and it can't be resumed; its shuffle buffer holds encoded images, and
        random crops differ. UsageError for steps that such operations can't do.
        """
        from shardkit.adapters.tensorflow.handover import to_tf

        return to_tf(self, graph=graph, sample_weight=sample_weight)

    @named_options
    def to_keras(self, *, sample_weight: SampleWeight | None = None) -> KerasDataset:
        """A keras.utils.PyDataset of (images, labels), for any backend. Needs the extra `keras`.

        sample_weight: batches are (images, labels, weights), weights float32 (n,), which `fit` and `evaluate` take. The
        name of a value in the samples' field `json` (other columns of a packed list are there), or an array with a
        number for each sample, in the order of `labels` before any shuffle. Raises UsageError for numbers that are not
        finite or not one for each sample; iterating raises DatasetError for a sample without a weight.
        """
        from shardkit.adapters.keras import to_keras

        return to_keras(self, sample_weight=sample_weight)

    @named_options
    def to_ray(self, *, names: tuple[str, str] | None = None) -> ray.data.Dataset:
        """A ray.data.Dataset of the same samples, read by Ray's tasks: a run of whole shards each. Needs Ray Data 2.50.

        Rows have the fields of a sample as columns, with images as arrays after decode(); with `names`, such as
        ("image", "label"), only these two columns. Their order is Ray's. For Ray Train, pass it to the trainer as one
        of its `datasets`, which it distributes to the ranks. Raises UsageError for a part of a rank, and for what Ray's
        own methods do: shuffling, batches, repetition, and random crops, which would be equal in each epoch.
        """
        from shardkit.adapters.ray import to_ray

        return to_ray(self, names=names)

    def to_webdataset(self) -> WebDatasetPipeline:
        """A webdataset pipeline of the same samples, with fields as bytes unless decode() was called.

        It has the methods of `wds.WebDataset`, and may be the source of a `wds.DataPipeline`. Needs the extra
        `webdataset`.
        """
        from shardkit.adapters.webdataset import to_webdataset

        return to_webdataset(self)


@named_options
def dataset(
    source: SourceLike,
    *,
    index: str | os.PathLike[str] | None = None,
    pack_to: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    shuffle: bool | int = False,
    seed: int = 0,
    lanes: int | None = None,
    layout: int | None = None,
    node_affinity: bool | int = False,
    rank: int | None = None,
    world_size: int | None = None,
    remainder: Remainder | None = None,
    threads: int | Auto | None = None,
    ahead: int | Auto | None = None,
    verify: bool | None = None,
    decoders: Mapping[str, Callable[[bytes], Any]] | None = None,
    image_field: str | None = None,
    label_field: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    cache: str | os.PathLike[str] | None = None,
    cache_bytes: int | str | None = None,
    ahead_bytes: int | str | None = None,
    timeout_seconds: float | None = None,
    shared: bool | str | os.PathLike[str] | None = None,
    on_stats: StatsFn | None = None,
    progress: bool = False,
) -> Dataset[Sample]:
    """Open shards, or a class directory, as a Dataset of samples.

    source: a glob ("shards/train-*.tar"), a brace range, a prefix ("shards/train"), a list of these, a manifest, or a
    folder of class folders, which is read directly. Shards may be in a store: "s3://bucket/train", "https://…".
    index: the index of shards that have none beside them: the prefix or folder that `index_shards` was given as `out`.
    `source` then names all or some of its shards; others are a UsageError on reading. "auto" keeps one in the user's
    cache, by the URLs, sizes and versions (ETags) of the shards; the first use makes it, as `index_shards` does.
    pack_to: pack the class directory `source` while the first epoch reads it, into the shards that `pack` would make;
    later epochs read these. A destination, or a dict of `dest` and options of `pack`: {"dest": "shards/train",
    "max_bytes": "64MB"}. Errors are those of `pack`, raised on reading. See docs/guides/train-while-packing.md.
    shuffle: False, True (a buffer of 10,000 samples), or the size of the buffer. seed: for everything random.
    lanes: see order/epoch_order.py; default 16, or 1 without shuffling, which keeps the order of the shards.
    layout: the number of ranks that a shuffled order is laid out for, by default the world size. With a fixed number,
    any world reads the same order, with the same global batches; each rank reads neighbouring shards if it is about the
    world size. A state that is loaded brings its own. See order/layout.py.
    node_affinity: each node keeps its part of the shards in all epochs, so that its cache serves all but the first:
    samples are then shuffled within a node only. True takes the number of ranks on a node from the environment.
    rank, world_size: by default from torch.distributed, JAX or the launcher's environment, see order/ranks.py.
    remainder: how to treat samples that can't be shared evenly by the ranks, see order/share.py: "drop" (the default
    when shuffled), "pad" (the default in order; repeats are marked: `repeats` in a batch, `__repeat__` in a sample), or
    "uneven".

    threads: for decoding and map() (default: one per core). ahead: batches, or runs of 64 samples, to decode ahead.
    Each may be "auto": it is then chosen while reading, by what the reading is limited by. The batches ahead take at
    most ahead_bytes, or with a store a quarter of it. The order of samples does not depend on either.
    verify: by default the CRC-32C of each decoded image is checked, and in TFRecord shards and stores that of every
    image. True also checks each whole shard when it is first opened (in a store, the checksum reported by the store or
    the cache); False does not check the images of local tar shards.
    decoders: extension -> function of bytes, for fields that decode() does not support.
    image_field, label_field: the features of other software's TFRecord shards that hold the image and the class number,
    if they are not `image/encoded` and `image/class/label`.

    storage_options: for the store, in the terms of its library: credentials, endpoint, region. They are pickled with
    the Dataset, and stored nowhere else.
    cache: a folder for local copies of the shards, of at most cache_bytes ("200GB"; default: no limit).
    ahead_bytes: limit for fetched bytes of a store that wait in memory (default: 2 GiB; see blocks/fetch_ahead.py);
    timeout_seconds: limit for one request, with all its attempts (default: 300).
    shared: True for one reader on this machine: its processes (ranks, workers, other trainings of this user) share what
    they fetch from a store, and batches that several of them decode in the same way, in memory that is freed with them.
    A folder for the processes of all users and containers that can use it. By default the workers of one loader share
    what they fetch; with False nothing is shared. See docs/storage.md.

    on_stats: called with the `Stats` of what happened since its last call, about once a second and at the end of each
    epoch, in the thread of the loop, for batches and decoded samples. progress: show a line with them in a notebook, or
    on stderr if that is a terminal.

    Iterating yields a dict for each sample: `__key__` and `__url__` (str), the image's bytes under its extension
    (`jpg`), `cls` (int), and any other field as bytes. Nothing is opened here: NotFoundError, ManifestError,
    DamagedError and StorageError are raised on reading.
    """
    reading = Reading(
        buffer=buffer_size(shuffle), seed=seed, lanes=lanes, layout=layout, node_affinity=node_affinity, rank=rank,
        world_size=world_size, remainder=remainder, threads=threads, ahead=ahead,
        decoders={**FIELD_DECODERS, **(decoders or {})}, shared=sharing(shared),
        on_stats=None if on_stats is None else callable_of("on_stats", on_stats), progress=switch("progress", progress),
    )  # fmt: skip
    names = FieldNames(image_field, label_field) if image_field is not None or label_field is not None else None
    remote = remote_of(storage_options, cache, cache_bytes, ahead_bytes, timeout_seconds, reading.shared)
    if pack_to is None:
        return Dataset(Named(source, index=index, verify=verify, names=names, remote=remote), reading)
    from shardkit.adapters.pack_to.content import packed_while_read

    for name, value in {"index": index, "image_field": image_field, "label_field": label_field}.items():
        if value is not None:
            raise UsageError("pack_to", f"given together with `{name}`, which is for shards", "give one of the two")
    return Dataset(packed_while_read(source, pack_to, storage_options, verify=verify, remote=remote), reading)
