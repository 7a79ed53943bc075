"""A Dataset as a graph of TensorFlow's own operations on its TFRecord shards, without Python or shardkit's threads.

    file names, in a new order each time -> interleave(TFRecordDataset) -> shuffle buffer -> parse, decode -> batch

Random values are derived from the seed, the number of the iteration and the bytes of the image, so that they are the
same for any number of threads, and however a tf.distribute strategy shards the files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from shardkit.adapters.corrected import DELETED, corrected_labels
from shardkit.adapters.inputs import column_names
from shardkit.adapters.sample_weights import weights_by_key
from shardkit.adapters.tensorflow.handover import counted, element_spec, untuned, with_names
from shardkit.errors import NotFoundError, StorageError, UsageError
from shardkit.formats.format import FORMATS, format_of_head, format_of_name
from shardkit.formats.tar.headers import GZIP_MAGIC
from shardkit.formats.tfrecord.features import ENCODED, KEY, LABEL
from shardkit.formats.tfrecord.stream import is_packed
from shardkit.images.crops import CENTER_SHARE, RATIO, SCALE, TRIES
from shardkit.images.decoder import HEADROOM, DecodeOptions
from shardkit.reading.content import Named
from shardkit.reading.ops import ALL, clip
from shardkit.reading.options import SampleWeight
from shardkit.sample import IMAGE_FIELDS
from shardkit.shards.manifest import require_as_packed

if TYPE_CHECKING:
    from shardkit.location import Location
    from shardkit.reading.dataset import Dataset

__all__ = ["to_tf_graph"]

HEAD_BYTES = 512
"""Bytes at the start of a shard that identify its format and compression."""

CYCLE = 16
"""Shards that are read in parallel when shuffled; shardkit's own order also has 16 lanes."""

KERNELS = {"bilinear": "triangle", "bicubic": "keyscubic", "lanczos": "lanczos3"}
"""shardkit's names -> filters of `ScaleAndTranslate`, which `tf.image.resize(antialias=True)` uses too."""

DECODED = ("jpg", "jpeg", "png", "gif", "bmp")
"""The image fields that TensorFlow can decode."""

RATIOS = (1, 2, 4, 8)
"""Scales at which the JPEG decoder can decode."""

DRAWS = 3 + 2 * TRIES
"""Number of random values per sample: flip, top, left, then (area, ratio) for each try."""


def to_tf_graph(dataset: Dataset, sample_weight: SampleWeight | None = None) -> tf.data.Dataset:
    """Build the graph, with the same element_spec, cardinality and `class_names` as `to_tf`.

    sample_weight: an array, as for `Dataset.to_keras`; the weights are looked up by the keys of the records.

    Raises UsageError for what TensorFlow's operations can't do. Defects in the data raise TensorFlow's errors.
    """
    options = _require_options(dataset)
    paths, packing = _files(dataset)
    steps, reading = dataset.steps, dataset.reading
    assert steps.batch is not None
    corrected = corrected_labels(dataset)
    records = _records(paths, packing, shuffled=reading.buffer > 0, seed=reading.seed)
    deleted = _table({key: 1 for key, label in corrected.items() if label == DELETED}, 0)
    if deleted is not None:
        records = records.filter(lambda record, _: deleted.lookup(_key(record)) == 0)
    if reading.buffer:
        records = records.shuffle(reading.buffer, seed=reading.seed)
    labels = _table({key: label for key, label in corrected.items() if label != DELETED}, DELETED)
    decoder = _decoder(dataset, options, _weights(dataset, sample_weight), labels)
    samples = _window(records, steps.window).map(decoder, num_parallel_calls=tf.data.AUTOTUNE)
    made = samples.batch(steps.batch.size, drop_remainder=steps.batch.drop_last, num_parallel_calls=tf.data.AUTOTUNE)
    made = _window(made, steps.batch_window)
    spec = element_spec(dataset)
    if isinstance(spec, tuple):
        made = made.map(lambda images, labels, *weights: (*map(_shaped, (images, labels), spec), *weights))
    elif sample_weight is None:
        made = made.map(lambda images, _: _shaped(images, spec))
    else:
        raise UsageError("sample_weight", "the samples have no labels to be weighed", "omit it")
    if reading.turns != 1:
        made = made.repeat(reading.turns)
    deal = tf.data.Options()
    deal.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.FILE
    return with_names(untuned(counted(made, dataset).with_options(deal).prefetch(tf.data.AUTOTUNE)), dataset)


def _require_options(dataset: Dataset) -> DecodeOptions:
    """The options of decode(). UsageError for what the graph can't do."""
    element_spec_cure = "add .decode(size=224).batch(32)"
    steps = dataset.steps
    if steps.decode is not None and steps.decode.options.views is not None:
        raise _refused("decode(views=…) makes several crops of each image with shardkit's decoder", "omit graph=True")
    if steps.buckets is not None:
        raise _refused("buckets() needs shardkit's order", "omit graph=True")
    if steps.batch is None or steps.decode is None or steps.decode.options.size is None:
        raise _refused("it needs batches of decoded images of one size", element_spec_cure)
    if column_names(dataset):
        raise _refused("decode(columns=…) reads the index, which TensorFlow's operations do not", "omit graph=True")
    if len(steps.samples) > 1 or steps.after:
        fact = "map() and filter() call Python"
        raise _refused(fact, "omit graph=True, or use the methods of the returned tf.data.Dataset")
    if dataset.selection or dataset.weights is not None or not isinstance(dataset.content, Named):
        fact = "views, weights, concat() and mix() need shardkit's order, but a graph reads whole shards"
        raise _refused(fact, "omit graph=True")
    if dataset.reading.epoch_size is not None:
        raise _refused("epoch_size() needs shardkit's order", "omit graph=True, or use take()")
    rank, world_size = dataset.reading.ranks
    if world_size > 1:
        fact = f"this is rank {rank} of {world_size}, but a graph is sharded by its strategy"
        cure = "give dataset() rank=0, world_size=1 under a tf.distribute strategy, or omit graph=True"
        raise _refused(fact, cure)
    defaults, options = DecodeOptions(), steps.decode.options
    refused = {name: getattr(options, name) for name in ("exact", "orientation", "on_error", "max_pixels", "augment")}
    refused |= {name: getattr(options, name) for name in ("scale", "ratio", "padding", "mean", "std", "boxes", "masks")}
    for name, kept in (("flip", (False, True, "horizontal")), ("interpolation", (*KERNELS, "nearest", "area"))):
        if getattr(options, name) not in kept:
            raise _not_by_tensorflow(name, getattr(options, name))
    for name, value in refused.items():
        if value != getattr(defaults, name):
            raise _not_by_tensorflow(name, value)
    return options


def _not_by_tensorflow(name: str, value: object) -> UsageError:
    return _refused(
        f"decode({name}={value!r}) can't be done with TensorFlow's operations", "omit it, or omit graph=True"
    )


def _refused(fact: str, cure: str) -> UsageError:
    return UsageError("to_tf(graph=True)", fact, cure)


def _files(dataset: Dataset) -> tuple[list[str], str]:
    """(the paths of the shards, their compression). UsageError for shards that are not TFRecord, or not accessible."""
    content = dataset.content
    if content.streams:
        places, packed, form = list(content.streams), list(content.streams), ""
    else:
        files = content.catalog.files()
        places, packed = [file.location for file in files], [file.location for file in files if file.unpacked]
        manifest = content.catalog.manifest
        form = "class directory" if manifest is None else manifest.shard_format
        if content.names is not None and manifest is not None and files:
            require_as_packed(manifest, files[0].url, "records with features of other names have no keys")
        if content.catalog.kind:
            raise _refused("labels of several classes, and numbers, are stored as JSON", "omit graph=True")
        others = sorted(set(content.catalog.fields) & IMAGE_FIELDS - set(DECODED))
        if others:
            fact = f"there are {', '.join(others)} images, which TensorFlow can't decode"
            raise _refused(fact, "omit graph=True")
    known = tf.io.gfile.get_registered_schemes()
    for place in places:
        if place.scheme and place.scheme not in known:
            fact = f"this TensorFlow does not read {place.scheme}://"
            raise _refused(fact, "omit graph=True, or see whether tensorflow-io supports it")
    kinds = {""} if len(packed) < len(places) else set[str]()
    for place in packed:  # without a manifest, all of them
        head = _head(place)
        form = form or format_of_name(place.name) or format_of_head(head)
        kinds.add(_compression(head))
    if form not in FORMATS or not FORMATS[form].holds_examples:
        fact = f"TensorFlow reads TFRecord shards, but this is {'a' if form[0] != 't' else 'made of'} {form}"
        how = "pack" if form == "class directory" else "convert"
        raise _refused(fact, f'make them with shardkit.{how}(source, dest, format="tfrecord")')
    if len(kinds) > 1:
        said = ", ".join(kind or "not compressed" for kind in sorted(kinds))
        raise _refused(f"the shards are compressed in more than one way ({said})", "omit graph=True")
    return [place.url for place in places], kinds.pop()


def _head(place: Location) -> bytes:
    """The first bytes of a shard, as read by TensorFlow. NotFoundError, StorageError."""
    try:
        with tf.io.gfile.GFile(place.url, "rb") as file:
            return bytes(file.read(HEAD_BYTES))
    except tf.errors.NotFoundError as exc:
        raise NotFoundError(place.url, "there is no such shard", "check the name and the working directory") from exc
    except tf.errors.OpError as exc:
        raise StorageError(place.url, exc.message, "check the store and its permissions") from exc


def _compression(head: bytes) -> str:
    """TensorFlow's name for the compression of a TFRecord shard, from its first bytes; "" if it is not compressed."""
    if not is_packed(head):
        return ""
    return "GZIP" if head[:2] == GZIP_MAGIC else "ZLIB"


def _records(paths: list[str], packing: str, *, shuffled: bool, seed: int) -> tf.data.Dataset:
    """(record, number of the iteration) of all shards; the number is TensorFlow's own random seed."""
    names = tf.constant(paths, tf.string)

    def in_turn(turn: Any) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(names, tf.stack([tf.cast(seed, tf.int64), turn]))
        return tf.data.Dataset.from_tensor_slices(order if shuffled else names).map(lambda name: (name, turn))

    def of_file(name: Any, turn: Any) -> tf.data.Dataset:
        return tf.data.TFRecordDataset(name, compression_type=packing).map(lambda record: (record, turn))

    turn = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True).take(1)
    files = turn.flat_map(in_turn)
    if not shuffled:
        return files.flat_map(of_file)
    return files.interleave(of_file, cycle_length=min(CYCLE, len(paths)), num_parallel_calls=tf.data.AUTOTUNE)


def _key(record: Any) -> Any:
    """The key of a record."""
    return tf.io.parse_single_example(record, {KEY: tf.io.FixedLenFeature((), tf.string)})[KEY]


def _table(values: Mapping[str, int], other: int) -> tf.lookup.StaticHashTable | None:
    """Key -> number as a table of TensorFlow; None for no keys. other: for keys that it does not have."""
    if not values:
        return None
    keys, numbers = tf.constant(list(values), tf.string), tf.constant(list(values.values()), tf.int64)
    return tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, numbers), other)


def _window(made: tf.data.Dataset, window: Any) -> tf.data.Dataset:
    """Apply take() and skip()."""
    if not window:
        return made
    low, high = clip(0, ALL, window)
    return made.skip(low).take(high - low)


def _shaped(value: Any, kind: Any) -> Any:
    return tf.ensure_shape(value, kind.shape)


def _weights(dataset: Dataset, sample_weight: SampleWeight | None) -> tf.lookup.StaticHashTable | None:
    """Key -> weight as a table of TensorFlow. UsageError for what has no keys in the records."""
    if sample_weight is None:
        return None
    if isinstance(sample_weight, str):
        fact = f"{sample_weight!r} names a JSON value, which TensorFlow's operations can't read"
        raise UsageError("sample_weight", fact, "give an array in the order of Dataset.labels, or omit graph=True")
    if dataset.content.streams or dataset.content.names is not None:
        fact = "weights are looked up by key, and these records have none that a manifest lists"
        raise UsageError("sample_weight", fact, "omit graph=True")
    found = weights_by_key(dataset, sample_weight)
    keys, values = tf.constant(list(found), tf.string), tf.constant(list(found.values()), tf.float32)
    return tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, values), math.nan)


def _decoder(dataset: Dataset, options: DecodeOptions, weights: Any, labels: Any) -> Callable[..., Any]:
    names = dataset.content.names
    classes = 0 if dataset.content.streams else len(dataset.classes)
    if options.label == "binary" and classes != 2:
        raise UsageError("label", f'"binary" needs two classes, but there are {classes}', 'use "int" or "onehot"')
    image = (names and names.image) or ENCODED
    label = (names and names.label) or LABEL
    assert options.height_width is not None
    return _Decoder(options, options.height_width, image, label, classes, weights, labels)


@dataclass(frozen=True, slots=True)
class _Decoder:
    """Turns a record into (image, label), and its weight if there is a table of them. corrected: a table of the labels
    that were corrected."""

    options: DecodeOptions
    size: tuple[int, int]
    image: str
    label: str
    classes: int
    weights: Any = None
    corrected: Any = None

    def __call__(self, record: Any, turn: Any) -> Any:
        kinds = {
            self.image: tf.io.FixedLenFeature((), tf.string),
            self.label: tf.io.FixedLenFeature((), tf.int64, default_value=-1),
        }
        if self.weights is not None or self.corrected is not None:
            kinds[KEY] = tf.io.FixedLenFeature((), tf.string)
        parsed = tf.io.parse_single_example(record, kinds)
        data = parsed[self.image]
        draws: Any = None
        if self.options.flip or self.options.cropped in ("random", "random-cover"):
            mark = tf.strings.to_hash_bucket_fast(data, (1 << 63) - 1)
            draws = tf.random.stateless_uniform((DRAWS,), tf.stack([turn, mark]))
        pixels, box = tf.cond(tf.io.is_jpeg(data), lambda: self._jpeg(data, draws), lambda: self._other(data, draws))
        image = self._resized(pixels, box)
        if self.options.flip:
            image = tf.cond(draws[0] < 0.5, lambda: tf.reverse(image, (1,)), lambda: image)
        label = parsed[self.label]
        if self.corrected is not None:
            new = self.corrected.lookup(parsed[KEY])
            label = tf.where(new == DELETED, label, new)
        sample = self._finished(image), self._encoded(label)
        return sample if self.weights is None else (*sample, self.weights.lookup(parsed[KEY]))

    @property
    def channels(self) -> int:
        """The number of channels of an image."""
        return 1 if self.options.color == "gray" else 3

    def _jpeg(self, data: Any, draws: Any) -> tuple[Any, Any]:
        """(pixels, box in them): decodes only what the crop needs, at a smaller scale if that is enough."""
        shape = tf.io.extract_jpeg_shape(data)
        height, width = shape[0], shape[1]
        box = self._box(height, width, draws)
        if self.options.interpolation not in KERNELS:
            return self._window_of(data, height, width, box, 1)
        headroom = HEADROOM if self.options.interpolation == "bilinear" else 2 * HEADROOM
        shrink = tf.reduce_min(box[2:] / tf.constant(self.size, tf.float32)) / headroom
        number = tf.reduce_sum(tf.cast(shrink >= tf.constant(RATIOS[1:], tf.float32), tf.int32))
        ways = [lambda ratio=ratio: self._window_of(data, height, width, box, ratio) for ratio in RATIOS]
        return tf.switch_case(number, ways)  # type: ignore[no-any-return]

    def _window_of(self, data: Any, height: Any, width: Any, box: Any, ratio: int) -> tuple[Any, Any]:
        """The pixels around a box of an image that is shrunk by `ratio`, and the position of the box in them."""
        box = box / ratio
        limit = -(-tf.stack([height, width]) // ratio)
        low = tf.cast(tf.floor(box[:2]), tf.int32)
        high = tf.minimum(tf.cast(tf.math.ceil(box[:2] + box[2:]), tf.int32), limit)
        window = tf.concat([low, high - low], 0)
        pixels = tf.image.decode_and_crop_jpeg(data, window, channels=self.channels, ratio=ratio)
        return pixels, tf.concat([box[:2] - tf.cast(low, tf.float32), box[2:]], 0)

    def _other(self, data: Any, draws: Any) -> tuple[Any, Any]:
        """(pixels, box in them) of a PNG, GIF or BMP."""
        pixels = tf.io.decode_image(data, channels=self.channels, expand_animations=False)
        shape = tf.shape(pixels)
        box = self._box(shape[0], shape[1], draws)
        top, left, height, width = tf.unstack(tf.cast(box, tf.int32))
        pixels = pixels[top : top + height, left : left + width]
        return pixels, tf.concat([tf.zeros(2), box[2:]], 0)

    def _box(self, height: Any, width: Any, draws: Any) -> Any:
        """float32 (top, left, height, width) in whole pixels, like those of images/crops.py."""
        whole = tf.cast(tf.stack([height, width]), tf.float32)
        if self.options.cropped == "resize":
            return tf.concat([tf.zeros(2), whole], 0)
        if self.options.cropped == "random":
            return _random_box(whole, draws[1:])
        size, share = tf.constant(self.size, tf.float32), CENTER_SHARE if self.options.cropped == "center" else 1.0
        inner = tf.maximum(1.0, tf.round(np.float32(share) * tf.reduce_min(whole / size) * size))
        if self.options.cropped == "random-cover":
            return tf.concat([tf.floor(draws[1:3] * (whole - inner + 1)), inner], 0)
        return tf.concat([(whole - inner) // 2, inner], 0)

    def _resized(self, pixels: Any, box: Any) -> Any:
        """float32 (height, width, channels), integers from 0 to 255."""
        kernel = KERNELS.get(self.options.interpolation)
        if kernel is None:
            image = tf.image.resize(pixels, self.size, method=self.options.interpolation)
        else:
            scale = tf.constant(self.size, tf.float32) / box[2:]
            image = tf.raw_ops.ScaleAndTranslate(
                images=pixels[None], size=self.size, scale=scale, translation=-box[:2] * scale, kernel_type=kernel,
                antialias=True,
            )[0]  # fmt: skip
        image = tf.ensure_shape(image, (*self.size, self.channels))
        return tf.clip_by_value(tf.round(tf.cast(image, tf.float32)), 0.0, 255.0)

    def _finished(self, image: Any) -> Any:
        options = self.options
        if options.rescale is not None:
            image = image * np.float32(options.rescale)
        image = tf.cast(image, options.dtype or ("uint8" if options.rescale is None else "float32"))
        return tf.transpose(image, (2, 0, 1)) if options.layout == "chw" else image

    def _encoded(self, label: Any) -> Any:
        if self.options.label == "int":
            return label
        inside = tf.debugging.Assert(
            (label >= 0) & (label < self.classes), [f"expected a label from 0 to {self.classes - 1}, but found", label]
        )
        with tf.control_dependencies([inside]):
            label = tf.identity(label)
        return tf.cast(label, tf.float32) if self.options.label == "binary" else tf.one_hot(label, self.classes)


def _random_box(whole: Any, draws: Any) -> Any:
    """Like `crops.random_box`, from the size `whole` (height, width) and random numbers top, left, area, ratio, …"""
    area = tf.reduce_prod(whole) * (SCALE[0] + (SCALE[1] - SCALE[0]) * draws[2::2])
    low, high = math.log(RATIO[0]), math.log(RATIO[1])
    ratio = tf.exp(low + (high - low) * draws[3::2])
    sizes = tf.round(tf.sqrt(tf.stack([area / ratio, area * ratio], 1)))
    fits = tf.reduce_all((sizes > 0) & (sizes <= whole), 1)
    first = sizes[tf.argmax(tf.cast(fits, tf.int32))]
    place = tf.floor(draws[:2] * (whole - first + 1))
    widest = tf.stack(
        [tf.minimum(whole[0], tf.round(whole[1] / RATIO[0])), tf.minimum(whole[1], tf.round(whole[0] * RATIO[1]))]
    )
    fits_any = tf.reduce_any(fits)
    size = tf.where(fits_any, first, widest)
    return tf.concat([tf.where(fits_any, place, (whole - widest) // 2), size], 0)
