"""A Dataset for Ray Data: a datasource whose tasks each read a run of whole shards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shardkit.adapters.inputs import column_names
from shardkit.adapters.names import checked_names, not_an_item
from shardkit.errors import MissingExtraError, UsageError
from shardkit.images.decoder import ImageDecoder
from shardkit.reading.batches.batch import image_field
from shardkit.reading.chains import as_view, is_cut, require_order
from shardkit.reading.content import Mixed
from shardkit.reading.dataset import Dataset
from shardkit.reading.select import AtNumbers

OLDEST = (2, 50)
"""The first version of Ray whose datasources have the present interface."""

_CURE = 'pip install "ray[data]>=2.50"'

try:
    import ray
    from ray.data import Datasource, ReadTask
    from ray.data.block import BlockAccessor, BlockMetadata
except ImportError as exc:
    raise MissingExtraError("to_ray()", "Ray Data is not installed", _CURE) from exc
if tuple(int(part) for part in ray.__version__.split(".")[:2]) < OLDEST:
    raise MissingExtraError("to_ray()", f"Ray {ray.__version__} is too old", _CURE)

BLOCK_SAMPLES = 64
"""Samples in a block of Ray."""


class ShardSource(Datasource):  # type: ignore[misc]  # Ray is not available to mypy
    """The samples of a Dataset for `ray.data.read_datasource`: each task reads some whole shards, one after the other.

    A dataset with fewer shards than tasks gets a task for each shard. The nodes need shardkit, and the shards under the
    same location.
    """

    def __init__(self, dataset: Dataset, *, names: tuple[str, str] | None = None) -> None:
        super().__init__()
        _require_readable(dataset)
        self._names = None if names is None else checked_names(dataset, names)
        reading = replace(dataset.reading, rank=0, world_size=1, threads=dataset.reading.threads or 1)
        self._dataset = as_view(replace(dataset, reading=reading))

    def get_name(self) -> str:
        """The name in Ray's logs."""
        return "Shardkit"

    def estimate_inmemory_data_size(self) -> int:
        """The bytes of all samples, as Ray will hold them."""
        return self._dataset.epoch_samples * self._sample_bytes

    @property
    def _sample_bytes(self) -> int:
        decode = self._dataset.steps.decode
        decoder = None if decode is None else ImageDecoder(decode.options)
        if decoder is None or decoder.shape is None:
            return self._dataset.content.catalog.mean_bytes
        return int(np.prod(decoder.shape)) * np.dtype(decoder.dtype).itemsize

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        """At most `parallelism` tasks, each for a run of whole shards. Called by Ray."""
        runs = shard_runs(self._dataset, parallelism)
        return [self._task(low, high, per_task_row_limit) for low, high in runs]

    def _task(self, low: int, high: int, limit: int | None) -> ReadTask:
        part = replace(self._dataset, selection=(*self._dataset.selection, AtNumbers(slice(low, high))))
        decode = part.steps.decode
        exact = part.steps.counted and (decode is None or decode.options.on_error == "raise")
        metadata = BlockMetadata(
            num_rows=high - low if exact else None, size_bytes=(high - low) * self._sample_bytes, input_files=None,
            exec_stats=None,
        )  # fmt: skip
        return ReadTask(partial(_blocks, part, self._names), metadata, per_task_row_limit=limit)


def to_ray(dataset: Dataset, *, names: tuple[str, str] | None = None) -> ray.data.Dataset:
    """The Dataset for Ray Data. See `Dataset.to_ray`."""
    return ray.data.read_datasource(ShardSource(dataset, names=names))


def shard_runs(dataset: Dataset, count: int) -> list[tuple[int, int]]:
    """The ranges of a view's samples that at most `count` tasks read: whole shards, as equal as these allow. An empty
    view is read by one task."""
    if not dataset.epoch_samples:
        return [(0, 0)]
    rows, ends = dataset.rows(), np.cumsum(dataset.content.catalog.counts)
    samples = dataset.epoch_samples
    if rows is None:
        limits: NDArray[np.int64] = ends
    elif (rows[1:] > rows[:-1]).all():
        limits = np.searchsorted(rows, ends)
    else:  # samples in an order of the user's own
        limits = np.arange(1, samples + 1)
    limits = np.unique(np.concatenate([[0], limits]))
    wanted = np.linspace(0, samples, max(1, count) + 1)[1:-1]
    after = np.searchsorted(limits, wanted).clip(1)
    nearest = np.where(wanted - limits[after - 1] < limits[after] - wanted, after - 1, after)
    bounds = np.unique(np.concatenate([[0], limits[nearest], [samples]]))
    return list(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True))


def _require_readable(dataset: Dataset) -> None:
    """UsageError for what tasks that run in parallel, and again in each epoch, would read otherwise than iterating."""
    if not isinstance(dataset, Dataset):
        raise _refused(
            f"{type(dataset).__name__} is not a Dataset", 'give one, such as shardkit.dataset("shards/train")'
        )
    require_order(dataset, "to_ray()")
    (rank, world_size), steps, decode = dataset.reading.ranks, dataset.steps, dataset.steps.decode
    if steps.batch is not None:
        raise _refused("Ray makes its own batches", "omit batch(), and use iter_batches(batch_size=…) of the result")
    if world_size > 1:
        fact = f"this is the part of rank {rank} of {world_size}, and Ray would distribute it to the ranks again"
        cure = (
            "call to_ray() where the trainer is made and pass it as datasets={…}, or read the part with "
            "batch(…).to_torch().loader()"
        )
        raise _refused(fact, cure)
    if dataset.reading.buffer:
        cure = "omit shuffle=, and use random_shuffle() or iter_batches(local_shuffle_buffer_size=…) of the result"
        raise _refused("the dataset is shuffled, but Ray's tasks run in parallel, in an order of Ray's own", cure)
    reading = dataset.reading
    ordered = dataset.weights is not None or reading.epoch_size is not None or isinstance(dataset.content, Mixed)
    if ordered or reading.turns != 1 or is_cut(as_view(dataset)):
        fact = "weight(), balance(), mix(), epoch_size(), repeat(), and take() of their results need shardkit's epochs"
        raise _refused(fact, "omit them, and use the methods of the result")
    if steps.random or (decode is not None and decode.options.random):
        fact = "Ray reads the same again in each epoch, so random crops, flips and so on would not change"
        raise _refused(fact, "omit them, and use map_batches() of the result")


def _refused(fact: str, cure: str) -> UsageError:
    return UsageError("to_ray()", fact, cure)


def _blocks(part: Dataset, names: tuple[str, str] | None) -> Iterator[Any]:
    """The blocks of a task: of some samples each."""
    further = column_names(part)
    rows = (_row(item, names, further) for _, item in part.run(0))
    while chosen := list(islice(rows, BLOCK_SAMPLES)):
        columns = dict.fromkeys(name for row in chosen for name in row)
        yield BlockAccessor.batch_to_block({name: _column([row.get(name) for row in chosen]) for name in columns})


def _row(item: Any, names: tuple[str, str] | None, further: Sequence[str]) -> Mapping[str, Any]:
    if names is None:
        return item if isinstance(item, dict) else {"item": item}
    image = image_field(item) if isinstance(item, dict) else None
    if image is None:
        raise not_an_item(item)
    more = {name: item[name] for name in further if name in item}
    return {names[0]: item[image]} | ({names[1]: item["cls"]} if "cls" in item else {}) | more


def _column(values: list[Any]) -> NDArray[Any]:
    """One array if the values are numbers, or arrays of one shape; otherwise an array of objects."""
    first = values[0]
    if isinstance(first, np.ndarray) and all(np.shape(value) == first.shape for value in values):
        return np.stack(values)
    if isinstance(first, (bool, int, float, str, np.generic)) and None not in values:
        return np.asarray(values)
    column = np.empty(len(values), object)
    column[:] = values
    return column
