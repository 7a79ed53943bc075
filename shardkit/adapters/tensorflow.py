"""A Dataset as a tf.data.Dataset of batches, made by our threads and handed over whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from shardkit.errors import MissingExtraError, UsageError
from shardkit.reading.batch import Batch
from shardkit.reading.decode import ImageDecoder
from shardkit.reading.ops import Map, steps_of

if TYPE_CHECKING:
    from shardkit.reading.dataset import Dataset

try:
    import tensorflow as tf
except ImportError as exc:
    raise MissingExtraError("to_tf()", "TensorFlow is not installed", 'pip install "shardkit[tensorflow]"') from exc


def to_tf(dataset: Dataset) -> tf.data.Dataset:
    """The batches as (images, labels), with their shapes and dtypes known and the number of batches as cardinality.

    Each new iteration is the next epoch. Raises UsageError for a Dataset without decode(size=…) and batch().
    """
    signature = element_spec(dataset)

    def batches() -> Iterator[tuple[Any, Any]]:
        for batch in dataset:
            yield batch.images, batch.labels

    made = tf.data.Dataset.from_generator(batches, output_signature=signature)
    if steps_of(dataset.ops).counted:
        made = made.apply(tf.data.experimental.assert_cardinality(len(dataset)))
    return made.prefetch(2)


def element_spec(dataset: Dataset) -> tuple[tf.TensorSpec, tf.TensorSpec]:
    """The shapes and dtypes of a batch. The batch's length is known where every batch has it."""
    steps = steps_of(dataset.ops)
    if steps.decode is None or steps.batch is None:
        raise UsageError("to_tf()", "TensorFlow needs batches of decoded images", "add .decode(size=224).batch(32)")
    decoder = ImageDecoder(steps.decode.options)
    mapped = any(isinstance(op, Map) for op in (*steps.samples, *steps.after))
    if decoder.shape is None or mapped:
        return _seen(dataset)
    whole = steps.batch.drop_last and steps.decode.options.on_error == "raise"
    size = steps.batch.size if whole else None
    kind = steps.decode.options.label
    labels = {
        "int": tf.TensorSpec((size,), tf.int64),
        "onehot": tf.TensorSpec((size, len(dataset.classes) if kind == "onehot" else None), tf.float32),
        "binary": tf.TensorSpec((size,), tf.float32),
    }
    return tf.TensorSpec((size, *decoder.shape), tf.as_dtype(decoder.dtype)), labels[kind]


def _seen(dataset: Dataset) -> tuple[tf.TensorSpec, tf.TensorSpec]:
    """What a first batch looks like, with its length open: for what map() makes nothing else tells."""
    _, batch = next(dataset.run(0))
    if not isinstance(batch, Batch):
        raise UsageError("to_tf()", "what map() gives after batch() is no Batch", "map the samples before batch()")
    images, labels = batch.images, batch.labels
    return (
        tf.TensorSpec((None, *images.shape[1:]), tf.as_dtype(images.dtype)),
        tf.TensorSpec((None, *labels.shape[1:]), tf.as_dtype(labels.dtype)),
    )
