"""Shards for Keras, with any backend: replacements for its own loaders. Needs the extra `keras`.

from shardkit.keras import ImageDataGenerator, flow_from_shards, image_dataset_from_shards
"""

from __future__ import annotations

from shardkit.adapters.keras import (
    ImageDataGenerator,
    KerasDataset,
    flow_from_shards,
    image_dataset_from_shards,
    to_keras,
)

__all__ = ["ImageDataGenerator", "KerasDataset", "flow_from_shards", "image_dataset_from_shards", "to_keras"]
