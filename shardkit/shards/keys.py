"""Find keys that occur more than once in a dataset, by hashes of 8 bytes, so that few keys are compared."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from shardkit.errors import DatasetError
from shardkit.location import Location


def find_repeats(hashes: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """The numbers, sorted, that occur more than once in some arrays: hashes of keys that may be equal."""
    values, counts = np.unique(np.concatenate([np.empty(0, np.int64), *hashes]), return_counts=True)
    return values[counts > 1]


def require_unique(shards: Sequence[tuple[Location, Sequence[str], NDArray[np.int64]]]) -> None:
    """DatasetError for the first key that an earlier sample has. shards: (place, keys, offsets, which may be -1)."""
    hashes = [np.fromiter(map(hash, keys), np.int64, len(keys)) for _, keys, _ in shards]
    suspects = find_repeats(hashes)
    first: dict[str, Location] = {}
    for (place, keys, offsets), own in zip(shards, hashes, strict=True):
        for row in np.flatnonzero(np.isin(own, suspects)).tolist() if len(suspects) else ():
            key, offset = keys[row], int(offsets[row])
            if key in first:
                fact = f"the key is already in {first[key].name}, but keys must be unique"
                cure = "give one of them another key with 'shardkit repair'"
                raise DatasetError(str(place), fact, cure, offset if offset >= 0 else None, key)
            first[key] = place
