"""Several Datasets as one: `concat()` and `mix()`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from shardkit.errors import UsageError
from shardkit.reading.chains import as_view
from shardkit.reading.content import Concatenated, Mixed
from shardkit.reading.dataset import Dataset
from shardkit.reading.options import Reading


def concat(datasets: Sequence[Dataset]) -> Dataset:
    """The samples of several datasets, one after the other, as one. Classes of one name become one class.

    Their selections count; shuffle, decode and all the rest is said of the whole. UsageError for none, or for datasets
    that are more than selections.
    """
    parts = _parts("concat()", datasets)
    for part in parts:
        if part.weights is not None:
            raise UsageError("concat()", f"{part!r} has weights", "call weight() or balance() on the result")
    return Dataset(Concatenated(parts), _shared_reading("concat()", parts))


def mix(datasets: Sequence[Dataset], weights: Sequence[float] | None = None, *, seed: int = 0) -> Dataset:
    """Samples of several datasets interleaved, each as often as its weight says (by default as its length says).

    Each keeps its own order, shuffling and weights, and begins again when it is used up; an epoch has as many samples
    as they have together. In 1,000 samples in a row the shares are exact, so a weight is at least a thousandth of
    their sum.
    """
    parts = _parts("mix()", datasets)
    given = [part.epoch_samples for part in parts] if weights is None else list(weights)
    if len(given) != len(parts):
        raise UsageError("mix()", f"{len(given)} weights for {len(parts)} datasets", "give one for each")
    reading = replace(_shared_reading("mix()", parts), seed=seed)
    if reading.remainder is None and any(part.reading.buffer for part in parts):
        reading = replace(reading, remainder="drop")  # as each of them would
    return Dataset(Mixed(parts, given), reading)


def _shared_reading(name: str, parts: Sequence[Dataset]) -> Reading:
    """The options of the parts that say nothing of order. UsageError where they say that they are of other ranks."""
    first = parts[0].reading
    shared = {key: getattr(first, key) for key in ("rank", "world_size", "remainder", "threads", "ahead", "decoders")}
    for part in parts:
        if (part.reading.rank, part.reading.world_size) != (first.rank, first.world_size):
            raise UsageError(name, "the datasets have different ranks", "give all the same rank= and world_size=")
    return Reading(**shared)


def _parts(name: str, datasets: Sequence[Dataset]) -> Sequence[Dataset]:
    if not isinstance(datasets, (list, tuple)) or not all(isinstance(part, Dataset) for part in datasets):
        raise UsageError(name, f"{type(datasets).__name__} is not a list of datasets", f"call {name[:-1]}[a, b])")
    if not datasets:
        raise UsageError(name, "there is no dataset", "give at least one")
    views = [as_view(part) for part in datasets]
    for part in views:
        if part.ops or part.reading.turns != 1 or isinstance(part.content, Mixed):
            raise UsageError(
                name, f"{part!r} is more than a selection", "call decode(), batch() and so on on the result"
            )
    return views
