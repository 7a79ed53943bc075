"""Shards in place of a class directory: `image_dataset_from_shards`, like Keras' `image_dataset_from_directory`.

See `flow.py`. Keras' own loader does not support PPM, TIFF and WebP, which pack() does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from shardkit.adapters.keras.arguments import class_list, flags, fraction, one_of, two_sides
from shardkit.adapters.keras.flow import ColorMode, Loading, Relabel, as_dataset, shuffled
from shardkit.adapters.keras.listing import KerasListing, chosen_classes, keras_order, listed, taken
from shardkit.adapters.keras.pydataset import KerasDataset, keras
from shardkit.errors import MissingExtraError, UsageError
from shardkit.images.augment import checks
from shardkit.images.decoder import Interpolation
from shardkit.options.keywords import named_options
from shardkit.reading.batches.batch import Batch
from shardkit.reading.batches.labels import has_labels
from shardkit.reading.dataset import Dataset
from shardkit.reading.options import at_least
from shardkit.shards.find.shards import SourceLike

TF_FILTERS: dict[str, Interpolation] = {
    "bilinear": "bilinear",
    "nearest": "nearest",
    "bicubic": "bicubic",
    "area": "area",
    "lanczos3": "lanczos",
}
"""Keras' names for TensorFlow's methods -> shardkit's; only TensorFlow has the others."""


@named_options
def image_dataset_from_shards(
    source: SourceLike | Dataset,
    *,
    labels: Literal["inferred"] | Sequence[int] | None = "inferred",
    label_mode: Literal["int", "categorical", "binary"] | None = "int",
    class_names: Sequence[str] | None = None,
    color_mode: ColorMode = "rgb",
    batch_size: int | None = 32,
    image_size: int | tuple[int, int] = (256, 256),
    shuffle: bool = True,
    seed: int | None = None,
    validation_split: float | None = None,
    subset: Literal["training", "validation", "both"] | None = None,
    interpolation: str = "bilinear",
    follow_links: bool = False,
    crop_to_aspect_ratio: bool = False,
    pad_to_aspect_ratio: bool = False,
    data_format: Literal["channels_first", "channels_last"] | None = None,
    format: Literal["tf", "keras"] | None = None,
    exact: bool = False,
    verbose: bool = True,
) -> Any:
    """`keras.utils.image_dataset_from_directory` on shards: float32 images (uint8 for "nearest") and labels.

    label_mode determines the form of the labels. format: "tf" returns a tf.data.Dataset with `class_names` and
    `file_paths` (relative to the tree's root), "keras" a KerasDataset for any backend; the default depends on Keras'
    backend. Other arguments are Keras'; follow_links has no effect, since links are always followed. subset="both"
    returns a list of two. Samples, splits, labels, shapes and lengths match Keras' own; with shuffle=False the order
    does too. Unlike in Keras, pixels are resized with antialiasing; with exact=True TensorFlow decodes and resizes
    them, bit-identical to Keras (format "tf" only). crop_to_aspect_ratio, pad_to_aspect_ratio, "rgba", and the filters
    lanczos5, gaussian and mitchellcubic also work this way.
    """
    shuffle, exact, verbose, crop_to_aspect_ratio, pad_to_aspect_ratio = flags(
        shuffle=shuffle, exact=exact, verbose=verbose, crop_to_aspect_ratio=crop_to_aspect_ratio,
        pad_to_aspect_ratio=pad_to_aspect_ratio,
    )  # fmt: skip
    data_format = keras.config.image_data_format() if data_format is None else data_format
    side, seed = checks.plain_of(image_size), checks.seed(seed)
    size = two_sides((side, side) if isinstance(side, int) else image_size, "image_size")
    options = _Options(
        None if label_mode is None else labels, None if labels is None else label_mode, color_mode,
        batch_size, size, interpolation, crop_to_aspect_ratio, pad_to_aspect_ratio, data_format, exact,
        ("tf" if keras.backend.backend() == "tensorflow" else "keras") if format is None else format,
    )  # fmt: skip
    options.check()
    _check_subset(validation_split, subset, shuffle, seed)
    base = as_dataset(source)
    listing, names, numbers = options.listed(base, class_list("class_names", class_names))
    if options.label_mode == "binary" and len(names) != 2:
        raise UsageError("label_mode", f'"binary" needs two classes, but there are {len(names)}', 'use "int"')
    if shuffle:  # deals the files like Keras, so that the parts of a split match Keras' own
        order = np.arange(len(listing.places))
        np.random.RandomState(seed or 0).shuffle(order)
        listing, numbers = taken(listing, order), numbers[order]
    if verbose:
        found = f"Found {len(listing.places)} files"
        print(f"{found}." if options.labels is None else f"{found} belonging to {len(names)} classes.")
    parts = _parts(len(listing.places), validation_split, subset, verbose)
    made = [
        options.made(base, taken(listing, part), numbers[part], names, shuffle and name != "of both", seed or 0)
        for name, part in parts
    ]
    return made if subset == "both" else made[0]


def _check_subset(validation_split: float | None, subset: str | None, shuffle: bool, seed: int | None) -> None:
    one_of("subset", subset, ("training", "validation", "both", None))
    if (validation_split is None) != (subset is None) or (
        validation_split is not None and not fraction(validation_split)
    ):
        fact = f"validation_split={validation_split!r} and subset={subset!r} do not fit"
        raise UsageError("subset", fact, "give both, with a fraction between 0 and 1, or neither")
    if subset is not None and shuffle and seed is None:
        raise UsageError("seed", "both parts of a shuffled split need the same seed", "give seed=, or shuffle=False")


def _parts(
    count: int, validation_split: float | None, subset: str | None, verbose: bool
) -> list[tuple[str, NDArray[np.int64]]]:
    """The requested parts by name, as sample numbers. Keras does not shuffle the validation part of "both"."""
    every = np.arange(count)
    if subset is None or validation_split is None:
        return [("", every)]
    held = int(validation_split * count)
    if verbose and subset != "validation":
        print(f"Using {count - held} files for training.")
    if verbose and subset != "training":
        print(f"Using {held} files for validation.")
    parts = {"training": every[: count - held], "validation": every[count - held :]}
    for name, part in parts.items():
        if not len(part) and subset in (name, "both"):
            fact = f"no samples are left for {name} of {count}"
            raise UsageError("validation_split", fact, "choose another fraction")
    if subset == "both":
        return [("training", parts["training"]), ("of both", parts["validation"])]
    return [(subset, parts[subset])]


@dataclass(frozen=True, slots=True)
class _Options:
    labels: Any
    label_mode: str | None
    color_mode: str
    batch_size: int | None
    size: tuple[int, int]
    interpolation: str
    crop: bool
    pad: bool
    data_format: str
    exact: bool
    format: str

    def check(self) -> None:
        """UsageError for contradictory options; MissingExtraError if TensorFlow is needed but not installed."""
        one_of("label_mode", self.label_mode, ("int", "categorical", "binary", None))
        one_of("color_mode", self.color_mode, ("rgb", "rgba", "grayscale"))
        one_of("format", self.format, ("tf", "keras"))
        one_of("data_format", self.data_format, ("channels_first", "channels_last"))
        one_of("interpolation", self.interpolation, (*TF_FILTERS, "lanczos5", "gaussian", "mitchellcubic"))
        if self.crop and self.pad:
            raise UsageError("pad_to_aspect_ratio", "crop_to_aspect_ratio is also set", "set only one of them")
        if self.by_tensorflow and self.format == "keras":
            fact = "exact=True, aspect ratios, rgba and TensorFlow's own filters need TensorFlow"
            raise UsageError("format", fact, 'use format="tf", or flow_from_shards')
        if self.crop and keras.backend.backend() != "tensorflow":
            fact = "Keras' own function for this runs on its backend, which is not TensorFlow"
            raise UsageError("crop_to_aspect_ratio", fact, "choose that backend, or use flow_from_shards")
        if self.batch_size is not None:
            at_least("batch_size", self.batch_size, 1)
        elif self.format == "keras":
            raise UsageError("batch_size", "Keras needs batches", 'give a number, or format="tf"')

    @property
    def by_tensorflow(self) -> bool:
        """Whether TensorFlow has to decode."""
        return self.exact or self.crop or self.pad or self.color_mode == "rgba" or self.interpolation not in TF_FILTERS

    def listed(
        self, base: Dataset, class_names: Sequence[str] | None
    ) -> tuple[KerasListing, list[str], NDArray[np.int64]]:
        """(the samples in Keras' order, the class names, a label for each sample)."""
        whole = listed(base)
        if isinstance(self.labels, str):
            if self.labels != "inferred":
                fact = f'{self.labels!r} is neither "inferred" nor a list of numbers nor None'
                raise UsageError("labels", fact, "choose one of these")
            if self.label_mode is not None and not has_labels(base.content.catalog):
                raise UsageError("labels", "the samples have no labels", "use labels=None")
            names, chosen = chosen_classes(base, class_names, "class_names")
            listing = keras_order(whole, chosen)
            return listing, names, Relabel(chosen, len(base.classes))(listing.labels)
        if class_names:
            raise UsageError("class_names", 'they require labels="inferred"', "omit them")
        listing = keras_order(whole, None)
        if self.labels is None:
            return listing, [], np.zeros(len(listing.places), np.int64)
        given = checks.require_real("labels", self.labels, "give an integer for each sample")
        if given.dtype.kind not in "iu":
            raise UsageError(
                "labels", f"an array of {given.dtype} does not contain integers", "give an integer for each sample"
            )
        numbers = given.astype(np.int64)
        if numbers.shape != listing.places.shape:
            fact = f"{numbers.size} labels for {len(listing.places)} samples"
            raise UsageError("labels", fact, "give one per sample, in the order of the sorted file paths")
        return listing, [str(label) for label in sorted(set(numbers.tolist()))], numbers

    def made(
        self,
        base: Dataset,
        listing: KerasListing,
        numbers: NDArray[np.int64],
        names: list[str],
        shuffle: bool,
        seed: int,
    ) -> Any:
        """The dataset of these samples, in this order or reshuffled each epoch."""
        view = shuffled(base[np.sort(listing.places) if shuffle else listing.places], shuffle, seed)
        encode = Encode(self.label_mode, len(names), dict(zip(listing.keys, numbers.tolist(), strict=True)))
        batches = view
        if not self.by_tensorflow:
            load = Loading(self.size, self.color_mode, "nearest", self.data_format, None, None, "float32")
            batches = view.decode(
                size=self.size, color="gray" if self.color_mode == "grayscale" else "rgb", layout=load.layout,
                interpolation=TF_FILTERS[self.interpolation],
                dtype="uint8" if self.interpolation == "nearest" else "float32",  # like TensorFlow's resize
            )  # fmt: skip
        batches = batches.batch(32 if self.batch_size is None else self.batch_size)
        if self.format == "keras":
            made: Any = KerasDataset(batches.map(encode.batch), class_names=names)
        else:
            made = self._tensors(batches, encode)
            made.class_names = names if self.labels is not None else None
        made.file_paths = list(listing.paths)
        return made

    def _tensors(self, batches: Dataset, encode: Encode) -> Any:
        try:
            from shardkit.adapters.tensorflow import handover as adapter
        except MissingExtraError as exc:
            raise MissingExtraError("image_dataset_from_shards()", exc.fact, exc.cure) from exc
        import tensorflow as tf

        if self.by_tensorflow:
            return self._by_tensorflow(adapter, batches, encode)
        spec = adapter.element_spec(batches)
        images = spec[0] if isinstance(spec, tuple) else spec  # without labels
        images = tf.TensorSpec((None, *images.shape[1:]), images.dtype)
        kinds = encode.labels((), None)
        signature: Any = images
        if self.label_mode is not None:
            signature = images, tf.TensorSpec((None, *kinds.shape[1:]), tf.as_dtype(kinds.dtype))
        made = adapter.handed_over(batches, signature, encode.batch)
        return made.unbatch() if self.batch_size is None else made

    def _by_tensorflow(self, adapter: Any, batches: Dataset, encode: Encode) -> Any:
        import tensorflow as tf

        def load(data: Any, label: Any) -> Any:
            image = self._loaded(tf, data)
            return image if self.label_mode is None else (image, label)

        made = adapter.bytes_by_batch(batches, encode.labels).map(load, num_parallel_calls=tf.data.AUTOTUNE)
        if self.batch_size is not None:
            made = made.batch(self.batch_size)
        return adapter.untuned(made.prefetch(tf.data.AUTOTUNE))

    def _loaded(self, tf: Any, data: Any) -> Any:
        """Load images like Keras' `_load_image_tf` (keras/src/utils/image_dataset_utils.py)."""
        channels = {"rgb": 3, "rgba": 4, "grayscale": 1}[self.color_mode]
        image = tf.image.decode_image(data, channels=channels, expand_animations=False)
        if self.crop:
            image = keras.preprocessing.image.smart_resize(
                image, self.size, interpolation=self.interpolation, data_format="channels_last"
            )
        elif self.pad:
            image = tf.image.resize_with_pad(image, *self.size, method=self.interpolation)
        else:
            image = tf.image.resize(image, self.size, method=self.interpolation)
        image = tf.ensure_shape(image, (*self.size, channels))
        return tf.transpose(image, (2, 0, 1)) if self.data_format == "channels_first" else image


@dataclass(frozen=True, slots=True)
class Encode:
    """Labels in the form specified by label_mode."""

    mode: str | None
    classes: int
    by_key: dict[str, int]

    def labels(self, keys: Sequence[str], _: Any) -> NDArray[Any]:
        """int32 (n,); float32 (n, 1) for binary; float32 (n, classes) for categorical."""
        labels = np.array([self.by_key[key] for key in keys], np.int64)
        if self.mode == "binary":
            return labels.astype(np.float32)[:, None]
        if self.mode == "categorical":
            return np.eye(self.classes, dtype=np.float32)[labels]
        return labels.astype(np.int32)

    def batch(self, batch: Batch) -> Any:
        """(images, labels), or the images alone."""
        return batch.images if self.mode is None else (batch.images, self.labels(batch.keys, None))
