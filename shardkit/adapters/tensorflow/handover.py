"""A Dataset as a tf.data.Dataset of batches, made by shardkit's threads and handed over whole.

TensorFlow takes a NumPy array without a copy if it is aligned to 64 bytes, and copies it otherwise (py_func.cc).
`Dataset.from_generator` does that as fast as `numpy_function`; `py_function` is several times slower.
"""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from shardkit.adapters.inputs import IMAGES, column_names, column_types, inputs_of
from shardkit.adapters.sample_weights import weighed
from shardkit.errors import MissingExtraError, StateError, UsageError, installs
from shardkit.formats.format import FORMATS
from shardkit.formats.tfrecord.features import feature_description
from shardkit.images.decoder import DecodeOptions
from shardkit.images.views.decoder import ViewDecoder
from shardkit.reading.batches.batch import Batch
from shardkit.reading.batches.labels import has_labels
from shardkit.reading.batches.tasks.work import decoder_of
from shardkit.reading.ops import Map, steps_of
from shardkit.reading.options import SampleWeight
from shardkit.sample import IMAGE_FIELDS
from shardkit.shards.columns.arrays import shape_of

if TYPE_CHECKING:
    from shardkit.reading.dataset import Dataset

try:
    import tensorflow as tf
except ImportError as exc:
    raise MissingExtraError("tensorflow", "TensorFlow is not installed", installs("tensorflow")) from exc

__all__ = ["element_spec", "feature_spec", "to_tf"]

BATCHES_AHEAD = 2
"""Batches that TensorFlow holds, in addition to those made ahead by the threads."""


def to_tf(dataset: Dataset, *, graph: bool = False, sample_weight: SampleWeight | None = None) -> tf.data.Dataset:
    """The batches as (images, labels), with known shapes and dtypes, and the number of batches as cardinality.

    With further columns (`decode(columns=)`), a dict takes the place of the images: they are its "images", or views by
    their names, and the columns are beside them. After `load_state_dict`, the first iteration is the rest of that
    epoch, and the cardinality is unknown. The batches are only the images if the samples have no labels. graph: use
    TensorFlow's own operations, see graph.py. sample_weight: see `Dataset.to_keras`. Each new iteration is the next
    epoch. The result has `class_names`, like the results of Keras' own loaders. If a map() after batch() replaces the
    Batch, it must return an array, or a tuple or dict of arrays. Raises UsageError for a Dataset without decode(size=…)
    and batch().
    """
    if graph:
        from shardkit.adapters.tensorflow.graph import to_tf_graph

        return to_tf_graph(dataset, sample_weight)
    column_types(dataset, "to_tf()", texts=True)
    dataset = weighed(dataset, sample_weight)
    return handed_over(dataset, element_spec(dataset), partial(_plain, columns=column_names(dataset)))


def handed_over(dataset: Dataset, signature: Any, convert: Callable[[Any], Any]) -> tf.data.Dataset:
    """`convert(item)` for each item, with the given signature."""
    made = generated(dataset, signature, convert)
    return with_names(dealt(untuned(counted(made, dataset).prefetch(BATCHES_AHEAD)), dataset), dataset)


def generated(dataset: Dataset, signature: Any, convert: Callable[[Any], Any]) -> tf.data.Dataset:
    """`convert(item)` for each item. An iteration raises StateError if a state was loaded after this was called."""
    resuming = dataset.position.resume is not None

    def begin() -> _Handed:
        if not resuming and dataset.position.resume is not None:
            fact = "a state was loaded after to_tf(), which had given TensorFlow the number of batches of a whole epoch"
            raise StateError("load_state_dict()", fact, "load the state first, and call to_tf() after it")
        return _Handed(dataset, convert)

    return tf.data.Dataset.from_generator(begin, output_signature=signature)


def dealt(made: tf.data.Dataset, dataset: Dataset) -> tf.data.Dataset:
    """The same; if it is the part of one of several ranks, keep a tf.distribute strategy from sharding it again."""
    options = tf.data.Options()
    if dataset.reading.ranks[1] > 1:
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return made.with_options(options)


def untuned(made: tf.data.Dataset) -> tf.data.Dataset:
    """The same without autotuning, which delays the end of epochs.

    An iterator that ends often waits until the tuning thread wakes, which takes 10 ms, then 20, 40 and so on up to a
    minute (seen with TensorFlow 2.21), so that epochs take up to twice as long.

    AUTOTUNE then means the number of cores. `with_options` turns it on again.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return made.with_options(options)


def counted(made: tf.data.Dataset, dataset: Dataset) -> tf.data.Dataset:
    """The same with its length as cardinality, if that is known and the next epoch is a whole one."""
    if dataset.position.resume is not None:
        return made
    if dataset.reading.turns is None:
        return made.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
    if dataset.countable:
        return made.apply(tf.data.experimental.assert_cardinality(len(dataset)))
    return made


class _Handed:
    """The items of one iteration. They end when the interpreter exits: TensorFlow's threads keep asking until then."""

    _live: ClassVar[weakref.WeakSet[_Handed]] = weakref.WeakSet()

    def __init__(self, dataset: Dataset, convert: Callable[[Any], Any]) -> None:
        self._items = iter(dataset)
        self._convert = convert
        self._lock = threading.Lock()
        self._live.add(self)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        with self._lock:
            return self._convert(next(self._items))

    def close(self) -> None:
        """Stop after the item in progress is finished."""
        with self._lock:
            self._items.close()  # type: ignore[attr-defined]  # a generator

    @classmethod
    def close_all(cls) -> None:
        """Close all. A TensorFlow thread that is waiting for an item gets a moment to notice."""
        live = list(cls._live)
        for one in live:
            one.close()
        if live:
            time.sleep(0.05)


atexit.register(_Handed.close_all)


def with_names(made: tf.data.Dataset, dataset: Dataset) -> tf.data.Dataset:
    """The same with the attribute `class_names`; empty for shards without a manifest."""
    made.class_names = [] if dataset.content.streams else dataset.classes
    return made


def element_spec(dataset: Dataset) -> Any:
    """The shapes and dtypes of a batch, (images, labels), or only the images if the samples have no labels.

    The batch dimension is known if all batches are equal.
    """
    steps = steps_of(dataset.ops)
    if steps.batch is None:
        raise UsageError("to_tf()", "TensorFlow needs batches of decoded images", "add .decode(size=224).batch(32)")
    if steps.batch.ragged:
        raise UsageError("to_tf()", 'collate="list" keeps images apart, and TensorFlow needs arrays', "omit collate=")
    size = batch_length(dataset)
    images = None if steps.decode is None else _images_spec(steps.decode.options, size)
    mapped = any(isinstance(op, Map) for op in (*steps.samples, *steps.after))
    if images is None or mapped:
        return _seen(dataset, size)
    assert steps.decode is not None
    if column_names(dataset):
        images = (images if isinstance(images, dict) else {IMAGES: images}) | _columns_spec(dataset, size)
    if not dataset.content.streams and not has_labels(dataset.content.catalog):
        return images
    targets = "" if dataset.content.streams else dataset.content.catalog.kind
    if targets == "number":
        return _seen(dataset, size)  # only a sample shows how many there are
    kind = "multihot" if targets else steps.decode.options.label
    labels = tf.TensorSpec((size,), tf.int64 if kind == "int" else tf.float32)
    if kind in ("onehot", "multihot"):
        labels = tf.TensorSpec((size, len(dataset.classes)), tf.float32)
    return images, labels


def _images_spec(options: DecodeOptions, size: int | None) -> Any:
    """Of the images of a batch, or of their views by name; None without a size."""
    decoder = decoder_of(options)
    dtype = tf.as_dtype(decoder.dtype)
    if isinstance(decoder, ViewDecoder):
        return {name: tf.TensorSpec((size, *shape), dtype) for name, shape in decoder.shapes.items()}
    if options.by_bucket:
        sides = (None, None, decoder.channels) if options.layout == "hwc" else (decoder.channels, None, None)
        return tf.TensorSpec((size, *sides), dtype)
    return None if decoder.shape is None else tf.TensorSpec((size, *decoder.shape), dtype)


def _columns_spec(dataset: Dataset, size: int | None) -> dict[str, Any]:
    """Of the further columns of a batch."""
    found = {}
    for name, text in column_types(dataset, "to_tf()", texts=True).items():
        dtype, shape = shape_of(text)
        found[name] = tf.TensorSpec((size, *shape), tf.string if dtype.hasobject else tf.as_dtype(dtype))
    return found


def batch_length(dataset: Dataset) -> int | None:
    """The length of every batch; None if it varies."""
    steps = steps_of(dataset.ops)
    assert steps.batch is not None
    skips = steps.decode is not None and steps.decode.options.on_error == "skip"
    if skips:
        return None
    if steps.batch.drop_last:
        return steps.batch.size
    if not steps.counted or dataset.content.streams or steps.buckets is not None:
        return None
    low, high = dataset.epoch(0).span
    return steps.batch.size if high > low and (high - low) % steps.batch.size == 0 else None


def _seen(dataset: Dataset, size: int | None) -> Any:
    """The element_spec of a first batch: the only way to know what map() returns. UsageError with buckets."""
    if dataset.steps.buckets is not None:
        fact = "with buckets() the batches differ in shape, and what map() returns is only known from the first"
        raise UsageError("to_tf()", fact, "use map() of the tf.data.Dataset")
    found = next(dataset.run(0), None)
    if found is None:
        raise UsageError(
            "to_tf()", "the dataset is empty, so the output of map() is not known", "give a dataset with samples"
        )
    item = _plain(found[1], columns=column_names(dataset))
    for leaf in tf.nest.flatten(item):
        if getattr(leaf, "shape", None) is None or not leaf.shape or leaf.dtype.hasobject:
            fact = f"a batch holds {type(leaf).__name__}, but TensorFlow only accepts arrays"
            raise UsageError("to_tf()", fact, "add .decode(size=224), and make map() after batch() return arrays")
    return tf.nest.map_structure(lambda leaf: tf.TensorSpec((size, *leaf.shape[1:]), tf.as_dtype(leaf.dtype)), item)


def _plain(item: Any, *, columns: tuple[str, ...] = ()) -> Any:
    """Convert an item for TensorFlow: a Batch becomes a tuple, or only the images if there are no labels."""
    if isinstance(item, Batch):
        inputs = inputs_of(item, columns)
        return (inputs, item.labels) if item.labels is not None else inputs
    return item


def bytes_by_batch(dataset: Dataset, labels: Callable[[Sequence[str], Any], Any]) -> tf.data.Dataset:
    """(bytes of the image, label) of single samples, undecoded; `labels(keys, labels)` returns the labels of a batch.

    The samples are handed over in batches: one at a time would cost as much as decoding a small image.
    """

    def convert(batch: dict[str, Any]) -> tuple[Any, Any]:
        images = [name for name in batch if name in IMAGE_FIELDS]
        rows = zip(*(batch[name] for name in images), strict=True)
        datas = [next(bytes(data) for data in row if data is not None) for row in rows]
        return datas, labels(batch["__key__"], batch.get("cls"))

    kinds = labels([], [])
    signature = (
        tf.TensorSpec((None,), tf.string),
        tf.TensorSpec((None, *kinds.shape[1:]), tf.as_dtype(kinds.dtype)),
    )
    made = generated(dataset, signature, convert)
    return dealt(made.unbatch().apply(tf.data.experimental.assert_cardinality(dataset.epoch_samples)), dataset)


def feature_spec(dataset: Dataset) -> dict[str, Any]:
    """The `features` argument of `tf.io.parse_example` for the TFRecord shards of this dataset: feature name -> kind.

    All are single values: `image/class/label` an int64, the others (`image/encoded`, `image/format`,
    `image/class/text`, `image/filename`, `image/key`, `field/NAME`) strings. A value that a sample lacks is "", or -1
    for the label. Raises UsageError for anything but one dataset of TFRecord shards.
    """
    manifest = dataset.content.catalog.manifest
    if manifest is None or not FORMATS[manifest.shard_format].holds_examples:
        cure = 'make them with shardkit.convert(source, dest, format="tfrecord")'
        raise UsageError("feature_spec()", f"{dataset!r} is not a dataset of TFRecord shards", cure)
    kinds = {"bytes": tf.string, "int64": tf.int64}
    return {
        name: tf.io.FixedLenFeature(shape, kinds[kind], default_value=default)
        for name, (kind, shape, default) in feature_description(manifest).items()
    }
