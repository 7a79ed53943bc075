"""The further columns of repaired samples: those of their rows in the index, as far as it can be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from shardkit.shards.columns.types import Types, joined_types
from shardkit.shards.columns.values import encoded_columns, gathered_table
from shardkit.shards.open import Opened
from shardkit.tools.repair.salvaged import Salvaged

if TYPE_CHECKING:
    import pyarrow as pa


def columns_of(opened: Opened) -> Types:
    """The further columns of a dataset: those that its manifest names, or else those of its index."""
    if opened.manifest is not None:
        return opened.manifest.columns
    return joined_types([index.further_types for index in opened.index])


def columns_of_samples(opened: Opened, samples: Sequence[Salvaged], types: Types) -> bytes:
    """The further columns of some samples, as `encoded_columns` gives them; null for a sample without an index row, and
    where the index can't be read."""
    if not types:
        return b""
    homes = np.array([sample.home for sample in samples], np.int64)
    rows = np.array([sample.row for sample in samples], np.int64)
    tables = {number: _table(opened, number, types) for number in np.unique(homes).tolist()}
    return encoded_columns(gathered_table(tables, homes, rows, types))


def _table(opened: Opened, number: int, types: Types) -> pa.Table | None:
    table = opened.shards[number].further()
    try:
        return None if table is None else gathered_table({0: table}, *_all_of(table), types)
    except ValueError:  # its index is damaged: the values are of other types
        return None


def _all_of(table: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return np.zeros(len(table), np.int64), np.arange(len(table))
