"""Shards for Keras, with any backend: replacements for its own loaders. Needs the extra `keras`.

from shardkit.keras import flow_from_shards, image_dataset_from_shards
"""

from __future__ import annotations

from shardkit.adapters.keras import KerasDataset, flow_from_shards, image_dataset_from_shards, to_keras

__all__ = ["KerasDataset", "flow_from_shards", "image_dataset_from_shards", "to_keras"]
