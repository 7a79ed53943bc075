"""Keras, with any backend: the implementation of `shardkit.keras`."""

from __future__ import annotations

from shardkit.adapters.keras.flow import flow_from_shards
from shardkit.adapters.keras.generator import ImageDataGenerator
from shardkit.adapters.keras.image_dataset import image_dataset_from_shards
from shardkit.adapters.keras.pydataset import KerasDataset, to_keras

__all__ = ["ImageDataGenerator", "KerasDataset", "flow_from_shards", "image_dataset_from_shards", "to_keras"]
