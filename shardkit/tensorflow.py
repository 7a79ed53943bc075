"""Shards as tf.data, and the specs that TensorFlow's own TFRecord reader needs. Needs the extra `tensorflow`."""

from __future__ import annotations

from shardkit.adapters.tensorflow.handover import element_spec, feature_spec, to_tf

__all__ = ["element_spec", "feature_spec", "to_tf"]
