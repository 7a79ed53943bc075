"""The corrections of a dataset for frameworks that read its shards themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from shardkit.reading.blocks.catalog import IndexCatalog
from shardkit.shards.corrections.read import read_overlay
from shardkit.shards.objects import Objects

if TYPE_CHECKING:
    from shardkit.reading.dataset import Dataset

DELETED = -2
"""In the place of a label: the sample is deleted. (-1 is a sample without a label.)"""


def corrected_labels(dataset: Dataset) -> Mapping[str, int]:
    """Key -> new class number of each sample that was relabelled, and DELETED of each that was deleted."""
    catalog = None if dataset.content.streams else dataset.content.catalog
    if not isinstance(catalog, IndexCatalog):
        return {}
    overlay = read_overlay(Objects(dataset.content.remote), catalog.location, catalog.manifest, keys=True)
    if overlay is None:
        return {}
    labels = np.where(overlay.deleted, DELETED, overlay.labels)
    changed = overlay.deleted | (overlay.labels >= 0)
    return dict(zip(overlay.keys[changed].tolist(), labels[changed].tolist(), strict=True))
