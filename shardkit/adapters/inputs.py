"""What a model is given of a batch: its images, or with further columns a dict of both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from shardkit.errors import DatasetError, UsageError, printable
from shardkit.reading.epoch import column_reader
from shardkit.reading.ops import Map

if TYPE_CHECKING:
    from shardkit.reading.batches.batch import Batch
    from shardkit.reading.dataset import Dataset

IMAGES = "images"
"""The images' name beside further columns; views have their own names."""


def column_names(dataset: Dataset) -> tuple[str, ...]:
    """The names of the further columns that decode() was asked for."""
    return tuple(asked.name for asked in dataset.steps.columns[1])


def column_types(dataset: Dataset, place: str, *, texts: bool) -> Mapping[str, str]:
    """The further columns with their types. UsageError for one that can't be given to a model: dates, and unless
    `texts` text. Those of batches that went through map() are up to it."""
    reader = column_reader(dataset.content, dataset.steps)
    if reader is None:
        return {}
    steps = dataset.steps
    for name, text in reader.types.items():
        if any(isinstance(op, Map) for op in (*steps.samples, *steps.after)):
            break
        if text.startswith(("date", "timestamp")) or (text == "string" and not texts):
            what = "text" if text == "string" else "dates"
            fact = f"the column {printable(name)!r} is {text}, and models are not given {what}"
            raise UsageError(place, fact, "make numbers of it with map(), or omit it from decode(columns=)")
    return reader.types


def inputs_of(batch: Batch, columns: tuple[str, ...]) -> Any:
    """The images of a batch. With further columns, a dict of the images (views by their names) and the columns, text as
    bytes. DatasetError for a text that is null."""
    if not columns:
        return batch.images
    found: dict[str, Any] = dict(batch.images) if isinstance(batch.images, dict) else {IMAGES: batch.images}
    for name in columns:
        if name in batch.fields:
            values = batch.fields[name]
            found[name] = _encoded(name, values, batch.keys) if isinstance(values, list) else values
    return found


def _encoded(name: str, values: list[Any], keys: list[str]) -> Any:
    if None in values:
        fact = f"the sample {printable(keys[values.index(None)])!r} has no value in the column {printable(name)!r}"
        raise DatasetError("decode(columns)", fact, f'give a value for it: columns={{{name!r}: ""}}')
    return np.array([value.encode() if isinstance(value, str) else value for value in values])
