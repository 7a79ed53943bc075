"""Shards in place of a class directory: `flow_from_shards`, with the signature of Keras' `flow_from_directory`.

Samples, labels and lengths match Keras' own on the tree that was packed; with shuffle=False, the order does too. The
packed files count: pack() omits hidden files, and includes GIF and WebP, which Keras' loader does not support.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from shardkit.adapters.keras.arguments import class_list, flags, folder_of, one_of, require_part, two_sides
from shardkit.adapters.keras.listing import chosen_classes, class_part, keras_order, listed
from shardkit.adapters.keras.pydataset import KerasDataset, keras
from shardkit.adapters.sample_weights import FieldWeights
from shardkit.errors import DecodeError, MissingFileError, UsageError
from shardkit.images.augment import checks
from shardkit.images.augment.augmenter import Augmenter
from shardkit.images.augment.options import Augment
from shardkit.images.augment.transform import DRAWS
from shardkit.images.decoder import Interpolation
from shardkit.options.keywords import named_options
from shardkit.reading.batches.batch import Batch, image_field
from shardkit.reading.batches.labels import has_labels
from shardkit.reading.content import Named
from shardkit.reading.dataset import Dataset, dataset
from shardkit.reading.options import DEFAULT_BUFFER, at_least
from shardkit.sample import IMAGE_FIELDS, AnySample
from shardkit.shards.find.shards import SourceLike
from shardkit.storage.files import storage_error

ColorMode = Literal["rgb", "rgba", "grayscale"]
Subset = Literal["training", "validation"]
ImageFunction = Callable[[NDArray[Any]], NDArray[Any]]

PILLOW_FILTERS: dict[str, Interpolation] = {
    "nearest": "nearest", "bilinear": "bilinear", "bicubic": "bicubic", "box": "area", "lanczos": "lanczos",
}  # fmt: skip
"""Keras' names for Pillow's filters -> shardkit's; only Keras' own loader has "hamming"."""


@named_options
def flow_from_shards(
    source: SourceLike | Dataset,
    *,
    target_size: tuple[int, int] = (256, 256),
    color_mode: ColorMode = "rgb",
    classes: Sequence[str] | None = None,
    class_mode: Literal["binary", "categorical", "sparse", "input"] | None = "categorical",
    weight_col: str | None = None,
    batch_size: int = 32,
    shuffle: bool = True,
    seed: int | None = None,
    data_format: Literal["channels_first", "channels_last"] | None = None,
    save_to_dir: str | os.PathLike[str] | None = None,
    save_prefix: str = "",
    save_format: str = "png",
    follow_links: bool = False,
    subset: Subset | None = None,
    interpolation: str = "nearest",
    keep_aspect_ratio: bool = False,
    dtype: str | None = None,
    validation_split: float = 0.0,
    rescale: float | None = None,
    preprocessing_function: ImageFunction | None = None,
    augment: Augment | None = None,
    exact: bool = False,
    verbose: bool = True,
) -> KerasDataset:
    """`ImageDataGenerator.flow_from_directory` on shards: float32 batches (images, labels) of values 0 … 255.

    The arguments are Keras'; validation_split, rescale and preprocessing_function are those of its ImageDataGenerator.
    With shuffle=False, batches, labels, classes, file names and lengths match Keras' own; with exact=True the pixels
    are also bit-identical, since Keras' own function loads them (in shardkit's threads). Otherwise, unless
    interpolation="nearest", JPEGs may be decoded at a smaller scale, which is several times as fast for photographs.
    follow_links has no effect: pack() has already followed links, and reading a class directory follows them too.
    weight_col: batches are (images, labels, weights), with the value of this name in the field `json` of each sample,
    where pack() puts the other columns of a list or DataFrame; DatasetError if it is missing in one.
    Shuffled, the order is shardkit's, a new one in each epoch; seed=None is seed 0. augment: everything else in
    ImageDataGenerator (rotation, zoom …), in place of rescale and preprocessing_function; see
    `shardkit.keras.ImageDataGenerator`. Prints what Keras prints, unless verbose is False.
    """
    if augment is not None and (rescale is not None or preprocessing_function is not None):
        fact = "augment has a rescale and a preprocessing_function of its own"
        raise UsageError("augment", fact, "set them there")
    _check_flow(color_mode, class_mode, interpolation, subset, validation_split)
    shuffle, keep_aspect_ratio, exact, verbose = flags(
        shuffle=shuffle, keep_aspect_ratio=keep_aspect_ratio, exact=exact, verbose=verbose
    )
    batch_size = at_least("batch_size", batch_size, 1)
    save_to_dir = folder_of("save_to_dir", save_to_dir)
    data_format = keras.config.image_data_format() if data_format is None else data_format
    one_of("data_format", data_format, ("channels_first", "channels_last"))
    base = as_dataset(source)
    classes = class_list("classes", classes)
    names, labels = chosen_classes(base, classes, "classes")
    if class_mode not in (None, "input") and not has_labels(base.content.catalog):
        raise UsageError("class_mode", f'"{class_mode}" needs labels, and the samples have none', "use None")
    if class_mode == "binary" and len(names) != 2:
        raise UsageError("class_mode", f'"binary" needs two classes, but there are {len(names)}', 'use "sparse"')
    view, listing, split = base, None, None
    if classes is not None or subset is not None or not shuffle or save_to_dir is not None:
        listing = keras_order(listed(base), labels)
        if subset is not None:
            split = (0, validation_split) if subset == "validation" else (validation_split, 1)
            listing = class_part(listing, split)
        view = base[listing.places if not shuffle else np.sort(listing.places)]
    view = shuffled(view, shuffle, checks.seed(seed))
    floatx = checks.dtype("dtype", dtype or keras.config.floatx())
    load = Loading(
        two_sides(target_size), color_mode, interpolation, data_format, rescale, preprocessing_function, floatx, augment
    )  # fmt: skip
    by_keras = exact or interpolation == "hamming" or keep_aspect_ratio or color_mode == "rgba"
    batches = load.by_keras(view, keep_aspect_ratio) if by_keras else load.by_shardkit(view)
    relabel = Relabel(labels, len(base.classes))
    weights = None if weight_col is None else FieldWeights(weight_col, "weight_col")
    finish = Finish(class_mode, relabel, len(names), floatx, weights=weights)
    if save_to_dir is not None:
        assert listing is not None
        numbers = {key: number for number, key in enumerate(listing.keys)}
        finish = replace(finish, save=Saving(save_to_dir, save_prefix, save_format, load.layout, numbers))
    made = KerasDataset(
        batches.batch(batch_size).map(finish), class_names=names, relabelled=relabel if classes is not None else None
    )
    made.__dict__.update(
        image_shape=load.shape, target_size=load.size, color_mode=color_mode, interpolation=interpolation,
        keep_aspect_ratio=keep_aspect_ratio, data_format=data_format, dtype=floatx, class_mode=class_mode,
        shuffle=shuffle, seed=seed, subset=subset, save_to_dir=save_to_dir, save_prefix=save_prefix,
        save_format=save_format, directory=base.content.source if isinstance(base.content, Named) else None,
    )  # fmt: skip
    if split is not None:
        made.split = split
    if weight_col is None:
        made.sample_weight = None
    if verbose:
        print(f"Found {made.samples} images belonging to {made.num_classes} classes.")
    return made


def _check_flow(
    color_mode: str, class_mode: str | None, interpolation: str, subset: str | None, validation_split: float
) -> None:
    one_of("color_mode", color_mode, ("rgb", "rgba", "grayscale"))
    one_of("class_mode", class_mode, ("binary", "categorical", "sparse", "input", None))
    one_of("interpolation", interpolation, (*PILLOW_FILTERS, "hamming"))
    require_part(subset, validation_split)


def as_dataset(source: SourceLike | Dataset) -> Dataset:
    """Return the dataset, opening it if needed. UsageError for one that is already decoded or batched."""
    found = source if isinstance(source, Dataset) else dataset(source)
    if found.ops:
        raise UsageError("source", f"{found!r} does more than select samples", "omit decode(), batch() etc.")
    if found.content.catalog.kind:
        fact = "Keras' own loaders expect one class per sample, but these samples have several classes, or numbers"
        raise UsageError("source", fact, "use dataset(…).decode(size=224).batch(32).to_keras()")
    return found


def shuffled(view: Dataset, shuffle: bool, seed: int | None) -> Dataset:
    """The view in a new order each epoch, or in its own.

    One process and a buffer as large as the view make one lane: a few samples in 16 lanes would hardly be shuffled.
    """
    if not shuffle:
        return view.shuffle(False)
    made = view.shuffle(view.reading.buffer or DEFAULT_BUFFER, seed=seed)
    whole = made.epoch_samples <= made.reading.buffer and made.reading.ranks[1] == 1
    return replace(made, reading=replace(made.reading, lanes=made.reading.lanes or (1 if whole else None)))


@dataclass(frozen=True, slots=True)
class Loading:
    """How images become arrays."""

    size: tuple[int, int]
    color_mode: str
    interpolation: str
    data_format: str
    rescale: float | None
    function: ImageFunction | None
    dtype: str
    augment: Augment | None = None

    @property
    def layout(self) -> Literal["hwc", "chw"]:
        """shardkit's layout for the data format."""
        return "chw" if self.data_format == "channels_first" else "hwc"

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an image."""
        channels = {"rgb": 3, "rgba": 4, "grayscale": 1}[self.color_mode]
        return (channels, *self.size) if self.layout == "chw" else (*self.size, channels)

    def by_shardkit(self, view: Dataset) -> Dataset:
        """Decode with shardkit, in place in the batch; one image at a time if there is a function to apply."""
        own = self.function is not None
        made = view.decode(
            size=self.size, color="gray" if self.color_mode == "grayscale" else "rgb", layout=self.layout,
            interpolation=PILLOW_FILTERS[self.interpolation], dtype="float32", rescale=None if own else self.rescale,
            augment=self.augment,
        )  # fmt: skip
        return made.map(self._decoded) if own else made

    def by_keras(self, view: Dataset, keep_aspect_ratio: bool) -> Dataset:
        """Load with Keras' own function, in shardkit's threads."""
        augmenter = None
        if self.augment is not None:
            augmenter = Augmenter(self.augment, channels_first=self.layout == "chw")

        def load(sample: AnySample, generator: np.random.Generator | None = None) -> AnySample:
            name = next(name for name in sample if name in IMAGE_FIELDS)
            try:
                image = keras.utils.load_img(
                    io.BytesIO(sample[name]), color_mode=self.color_mode, target_size=self.size,
                    interpolation=self.interpolation, keep_aspect_ratio=keep_aspect_ratio,
                )  # fmt: skip
            except Exception as exc:  # Pillow raises nearly anything on damaged data
                fact = f"the image can't be decoded: {exc}"
                raise DecodeError(sample["__url__"], fact, "fix or remove it", None, sample["__key__"]) from exc
            if augmenter is None or generator is None:
                array = self._finished(keras.utils.img_to_array(image, self.data_format, dtype="float32"))
            else:
                array = np.empty(self.shape, np.float32)
                pixels = keras.utils.img_to_array(image, "channels_last", dtype="float32")
                augmenter.into(pixels, array, generator.random(DRAWS))
            made = {"__key__": sample["__key__"], name: array, "cls": sample["cls"]}
            return made | {"json": msgspec.json.decode(sample["json"])} if "json" in sample else made

        return view.map(load) if augmenter is None else view.map(load, rng=True)

    def _decoded(self, sample: AnySample) -> AnySample:
        name = image_field(sample) or ""  # an image returned by decode() has one
        return {**sample, name: self._finished(sample[name])}

    def _finished(self, image: NDArray[Any]) -> NDArray[Any]:
        """Apply the function first, then the scale, like ImageDataGenerator.standardize."""
        if self.function is not None:
            image = np.asarray(self.function(image), np.float32)
        return image if self.rescale is None else image * np.float32(self.rescale)


@dataclass(frozen=True, slots=True)
class Relabel:
    """Maps labels of the dataset to labels among the chosen classes."""

    chosen: Sequence[int]
    classes: int

    def __call__(self, labels: Any) -> NDArray[np.int64]:
        """int64, -1 for a class that was not chosen."""
        table = np.full(self.classes, -1, np.int64)
        table[list(self.chosen)] = np.arange(len(self.chosen))
        return table[np.asarray(labels, np.int64)]


@dataclass(frozen=True, slots=True)
class Saving:
    """Saves batches as image files, named by prefix, sample number and a digest of the image."""

    folder: str
    prefix: str
    format: str
    layout: str
    numbers: Mapping[str, int]

    def __call__(self, batch: Batch) -> None:
        """Save each image of the batch, scaled so that its minimum is black and its maximum white, as Keras does."""
        for key, image in zip(batch.keys, batch.images, strict=True):
            self.image(self.numbers[key], image)

    def image(self, number: int, image: NDArray[Any]) -> None:
        """Save the image of the sample with this number."""
        data_format = "channels_first" if self.layout == "chw" else "channels_last"
        mark = int.from_bytes(hashlib.blake2b(image.tobytes(), digest_size=4).digest(), "big") % 10_000_000
        name = f"{self.prefix}_{number}_{mark}.{self.format}"
        path = os.path.join(self.folder, name)
        picture = keras.utils.array_to_img(image, data_format, scale=True)
        try:
            picture.save(path)
        except OSError as exc:
            if not os.path.isdir(self.folder):
                fact = f"there is no folder {self.folder!r}"
                raise MissingFileError("save_to_dir", fact, "create it before the first batch") from exc
            if exc.errno is None:  # of Pillow: for an image with alpha as JPEG
                raise self._refused(exc) from exc
            raise storage_error(path, exc) from exc
        except (ValueError, KeyError) as exc:
            raise self._refused(exc) from exc

    def _refused(self, exc: Exception) -> UsageError:
        fact = f"Pillow can't save such an image as {self.format!r} ({exc})"
        return UsageError("save_format", fact, 'give "png"')


@dataclass(frozen=True, slots=True)
class Finish:
    """Converts a Batch to (images, labels) as specified by class_mode."""

    class_mode: str | None
    relabel: Relabel
    classes: int
    dtype: str
    save: Saving | None = None
    weights: FieldWeights | None = None

    def __call__(self, batch: Batch) -> Any:
        """The images with their labels, and weights; only the images for class_mode None."""
        images = batch.images.astype(self.dtype, copy=False)
        if self.save is not None:
            self.save(batch)
        if self.class_mode is None:
            return images
        targets = images.copy() if self.class_mode == "input" else self._labels(batch)
        return (images, targets) if self.weights is None else (images, targets, self.weights.of(batch))

    def _labels(self, batch: Batch) -> NDArray[Any]:
        labels = self.relabel(batch.labels)
        if self.class_mode == "categorical":
            return np.eye(self.classes, dtype=self.dtype)[labels]
        return labels.astype(self.dtype)
