"""A Dataset as a tf.data.Dataset of batches, made by our threads and handed over whole.

TensorFlow takes over a NumPy array without a copy where it begins at a multiple of 64 bytes, and copies it otherwise
(py_func.cc). `Dataset.from_generator` does so as fast as `numpy_function`; `py_function` is several times as slow.
"""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from shardkit.errors import MissingExtraError, UsageError
from shardkit.formats.format import FORMATS
from shardkit.formats.tfrecord.features import feature_description
from shardkit.images.decoder import ImageDecoder
from shardkit.reading.batches.batch import Batch
from shardkit.reading.ops import Map, steps_of
from shardkit.sample import IMAGE_FIELDS

if TYPE_CHECKING:
    from shardkit.reading.dataset import Dataset

try:
    import tensorflow as tf
except ImportError as exc:
    raise MissingExtraError("tensorflow", "TensorFlow is not installed", 'pip install "shardkit[tensorflow]"') from exc

__all__ = ["element_spec", "feature_spec", "to_tf"]

BATCHES_AHEAD = 2
"""Batches that TensorFlow holds, besides those that the threads are ahead."""


def to_tf(dataset: Dataset, *, graph: bool = False) -> tf.data.Dataset:
    """The batches as (images, labels), with their shapes and dtypes known and the number of batches as cardinality.

    graph: as TensorFlow's own operations, see tf_graph.py.
    Each new iteration is the next epoch. The result has `class_names`, as those of Keras' own loaders have. What a
    map() after batch() gives in place of a Batch has to be an array, or a tuple or dict of arrays.
    Raises UsageError for a Dataset without decode(size=…) and batch().
    """
    if graph:
        from shardkit.adapters.tensorflow.graph import to_tf_graph

        return to_tf_graph(dataset)
    return handed_over(dataset, element_spec(dataset), _plain)


def handed_over(dataset: Dataset, signature: Any, convert: Callable[[Any], Any]) -> tf.data.Dataset:
    """`convert(item)` for each item, of which the signature is known."""

    made = tf.data.Dataset.from_generator(lambda: _Handed(dataset, convert), output_signature=signature)
    return with_names(dealt(untuned(counted(made, dataset).prefetch(BATCHES_AHEAD)), dataset), dataset)


def dealt(made: tf.data.Dataset, dataset: Dataset) -> tf.data.Dataset:
    """The same; where it is the part of one of several ranks, a tf.distribute strategy does not deal it again."""
    options = tf.data.Options()
    if dataset.reading.ranks[1] > 1:
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return made.with_options(options)


def untuned(made: tf.data.Dataset) -> tf.data.Dataset:
    """The same without the thread that tunes it: an iterator often waits at its end until that thread wakes, which is
    10 ms, then 20, 40 and so on up to a minute (seen with TensorFlow 2.21), so that epochs take up to twice as long.
    AUTOTUNE then stands for the number of cores. `with_options` turns it on again.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return made.with_options(options)


def counted(made: tf.data.Dataset, dataset: Dataset) -> tf.data.Dataset:
    """The same with its length as cardinality, where that is known."""
    if dataset.reading.turns is None:
        return made.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
    if dataset.countable:
        return made.apply(tf.data.experimental.assert_cardinality(len(dataset)))
    return made


class _Handed:
    """The items of one iteration. They end when the interpreter does: TensorFlow's threads go on asking until then."""

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
        """End, once the item that is under way is made."""
        with self._lock:
            self._items.close()  # type: ignore[attr-defined]  # it is a generator

    @classmethod
    def close_all(cls) -> None:
        """End all. A thread of TensorFlow's that asks just then gets a moment to learn of it."""
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
    """The shapes and dtypes of a batch, (images, labels). The batch's length is known where every batch has it."""
    steps = steps_of(dataset.ops)
    if steps.batch is None:
        raise UsageError("to_tf()", "TensorFlow needs batches of decoded images", "add .decode(size=224).batch(32)")
    size = batch_length(dataset)
    decoder = None if steps.decode is None else ImageDecoder(steps.decode.options)
    mapped = any(isinstance(op, Map) for op in (*steps.samples, *steps.after))
    if decoder is None or decoder.shape is None or mapped:
        return _seen(dataset, size)
    assert steps.decode is not None
    targets = "" if dataset.content.streams else dataset.content.catalog.kind
    if targets == "number":
        return _seen(dataset, size)  # how many of them, only a sample tells
    kind = "multihot" if targets else steps.decode.options.label
    labels = tf.TensorSpec((size,), tf.int64 if kind == "int" else tf.float32)
    if kind in ("onehot", "multihot"):
        labels = tf.TensorSpec((size, len(dataset.classes)), tf.float32)
    return tf.TensorSpec((size, *decoder.shape), tf.as_dtype(decoder.dtype)), labels


def batch_length(dataset: Dataset) -> int | None:
    """The length of every batch; None where it is not the same for all of them."""
    steps = steps_of(dataset.ops)
    assert steps.batch is not None
    skips = steps.decode is not None and steps.decode.options.on_error == "skip"
    if skips:
        return None
    if steps.batch.drop_last:
        return steps.batch.size
    if not steps.counted or dataset.content.streams:
        return None
    low, high = dataset.epoch(0).span
    return steps.batch.size if high > low and (high - low) % steps.batch.size == 0 else None


def _seen(dataset: Dataset, size: int | None) -> Any:
    """What a first batch looks like: for what map() makes nothing else tells."""
    found = next(dataset.run(0), None)
    if found is None:
        raise UsageError("to_tf()", "the dataset is empty, and what map() makes is not known", "give it samples")
    item = _plain(found[1])
    for leaf in tf.nest.flatten(item):
        if getattr(leaf, "shape", None) is None or not leaf.shape or leaf.dtype.hasobject:
            fact = f"a batch holds {type(leaf).__name__}, and TensorFlow takes arrays only"
            raise UsageError("to_tf()", fact, "add .decode(size=224), and let map() after batch() give arrays")
    return tf.nest.map_structure(lambda leaf: tf.TensorSpec((size, *leaf.shape[1:]), tf.as_dtype(leaf.dtype)), item)


def _plain(item: Any) -> Any:
    """The item as TensorFlow takes it: a Batch as a tuple, without labels just the images."""
    if isinstance(item, Batch):
        return (item.images, item.labels) if item.labels is not None else item.images
    return item


def bytes_by_batch(dataset: Dataset, labels: Callable[[Sequence[str], Any], Any]) -> tf.data.Dataset:
    """(bytes of the image, label) of single samples, undecoded; `labels(keys, labels)` gives the labels of a batch.

    The samples are handed over by the batch: one by one that costs as much as decoding a small image.
    """

    def convert(batch: dict[str, Any]) -> tuple[Any, Any]:
        images = [name for name in batch if name in IMAGE_FIELDS]
        rows = zip(*(batch[name] for name in images), strict=True)
        datas = [next(bytes(data) for data in row if data is not None) for row in rows]
        return datas, labels(batch["__key__"], batch["cls"])

    kinds = labels([], [])
    signature = (
        tf.TensorSpec((None,), tf.string),
        tf.TensorSpec((None, *kinds.shape[1:]), tf.as_dtype(kinds.dtype)),
    )
    made = tf.data.Dataset.from_generator(lambda: _Handed(dataset, convert), output_signature=signature)
    return dealt(made.unbatch().apply(tf.data.experimental.assert_cardinality(dataset.epoch_samples)), dataset)


def feature_spec(dataset: Dataset) -> dict[str, Any]:
    """What `tf.io.parse_example` needs for the TFRecord shards of this dataset: feature name -> its kind.

    All are single values: `image/class/label` an int64, the others (`image/encoded`, `image/format`,
    `image/class/text`, `image/filename`, `image/key`, `field/NAME`) strings. What not every sample has comes as "",
    or -1 for the label. Raises UsageError for what is no one dataset of TFRecord shards.
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
