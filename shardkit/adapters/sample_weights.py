"""Sample weights as the third member of a batch, as Keras' `fit` takes them: (images, labels, weights)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shardkit.adapters.inputs import column_names, inputs_of
from shardkit.errors import DatasetError, UsageError
from shardkit.reading.batches.batch import Batch
from shardkit.reading.chains import as_view
from shardkit.reading.columns import texts_of_view
from shardkit.reading.content import Mixed
from shardkit.reading.options import SampleWeight

if TYPE_CHECKING:
    from shardkit.reading.dataset import Dataset

_PLACE = "sample_weight"

_LARGEST = float(np.finfo(np.float32).max)


def weighed(dataset: Dataset, sample_weight: SampleWeight | None) -> Dataset:
    """The same batches as (images, labels, weights), weights float32 (n,); unchanged for None.

    Raises UsageError for weights that are not finite numbers, or not one for each sample. Iterating raises DatasetError
    for a sample without a weight.
    """
    if sample_weight is None:
        return dataset
    if dataset.batch_size is None:
        raise UsageError(_PLACE, "weights are given to batches", "add .batch(32), after .decode(size=…)")
    if isinstance(sample_weight, str):
        found = dataset.map(FieldWeights(sample_weight, columns=column_names(dataset)))
    else:
        found = dataset.map(_ByKey(weights_by_key(dataset, sample_weight), column_names(dataset)))
    return replace(found, watch=dataset.watch)  # its statistics are those of the Dataset that the user has


def weights_by_key(dataset: Dataset, sample_weight: Sequence[float] | NDArray[Any]) -> Mapping[str, float]:
    """The weight of each sample by its key, from an array in the order of the view. UsageError as in `weighed`."""
    if isinstance(dataset.content, Mixed):
        raise UsageError(_PLACE, "a mixture has no order of its samples", "give the name of a JSON value")
    weights = _numbers(sample_weight)
    keys = texts_of_view(as_view(replace(dataset, weights=None)), "key").tolist()
    if weights.shape != (len(keys),):
        fact = f"it has the shape {weights.shape}, and there are {len(keys)} samples"
        raise UsageError(_PLACE, fact, "give one number for each sample, in the order of Dataset.labels")
    bad = np.flatnonzero(~np.isfinite(weights))
    if len(bad):
        fact = f"{len(bad)} of {len(weights)} weights are not finite, such as that of {keys[bad[0]]!r}"
        raise UsageError(_PLACE, fact, "give finite numbers")
    found = dict(zip(keys, weights.tolist(), strict=True))
    if len(found) < len(keys):
        other = next((key for key, weight in zip(keys, weights.tolist(), strict=True) if found[key] != weight), None)
        if other is not None:
            fact = f"several samples have the key {other!r}, and their weights differ"
            raise UsageError(_PLACE, fact, "give them one weight, or the name of a JSON value")
    return found


def _numbers(values: Any) -> NDArray[np.float32]:
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise UsageError(_PLACE, f"an array of {array.dtype} does not hold numbers", "give one number for each sample")
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused
        return array.astype(np.float32)


@dataclass(frozen=True, slots=True)
class _ByKey:
    """Weights by the keys of the samples."""

    weights: Mapping[str, float]
    columns: tuple[str, ...] = ()

    def __call__(self, batch: Any) -> tuple[Any, Any, NDArray[np.float32]]:
        images, labels = _of_batch(batch, self.columns)
        return images, labels, np.array([self.weights[key] for key in batch.keys], np.float32)


@dataclass(frozen=True, slots=True)
class FieldWeights:
    """Weights from the samples: a value of this name in the field `json`."""

    name: str
    argument: str = _PLACE
    columns: tuple[str, ...] = ()

    def __call__(self, batch: Any) -> tuple[Any, Any, NDArray[np.float32]]:
        """(images, labels, weights) of a batch."""
        images, labels = _of_batch(batch, self.columns)
        return images, labels, self.of(batch)

    def of(self, batch: Batch) -> NDArray[np.float32]:
        """The weights of a batch, float32 (n,). DatasetError for a sample without one."""
        records = batch.fields.get("json", [None] * len(batch.keys))
        weights = [self._weight(key, record) for key, record in zip(batch.keys, records, strict=True)]
        return np.array(weights, np.float32)

    def _weight(self, key: str, record: Any) -> float:
        value = record.get(self.name) if isinstance(record, dict) else None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= _LARGEST:
            fact = f"{self.name!r} of sample {key!r} is {value!r}, which is not a finite number"
            if value is None:
                fact = f"sample {key!r} has no value {self.name!r} in a field json"
            raise DatasetError(self.argument, fact, "fix the sample, or give sample_weight an array to to_keras()")
        return float(value)


def _of_batch(batch: Any, columns: tuple[str, ...]) -> tuple[Any, Any]:
    """The images, with further columns if there are any, and labels of a batch. DatasetError where a map() has replaced
    it, and without labels."""
    if not isinstance(batch, Batch):
        fact = f"map() after batch() returns a {type(batch).__name__}, which has no keys and fields"
        raise DatasetError(_PLACE, fact, "return the weights from that function")
    if batch.labels is None:
        raise DatasetError(_PLACE, "the samples have no labels to be weighed", "omit it")
    return inputs_of(batch, columns), batch.labels
