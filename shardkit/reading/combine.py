"""Combine several Datasets: `concat()` and `mix()`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from shardkit.errors import UsageError
from shardkit.options.keywords import named_options
from shardkit.reading.chains import as_view, require_order
from shardkit.reading.content import Concatenated, Mixed
from shardkit.reading.dataset import Dataset
from shardkit.reading.options import Reading
from shardkit.reading.order.schedule import Schedule
from shardkit.sample import Sample


@named_options
def concat(datasets: Sequence[Dataset[Sample]]) -> Dataset[Sample]:
    """Concatenate several datasets into one. Classes with the same name become one class.

    Their selections are kept; call shuffle, decode etc. on the result. UsageError for no datasets, or for datasets that
    do more than select samples.
    """
    parts = _parts("concat()", datasets)
    for part in parts:
        if part.weights is not None:
            raise UsageError("concat()", f"{part!r} has weights", "call weight() or balance() on the result")
    return Dataset(Concatenated(parts), _shared_reading("concat()", parts))


@named_options
def mix(
    datasets: Sequence[Dataset[Sample]],
    weights: Sequence[float] | Callable[[int], Sequence[float]] | None = None,
    *,
    seed: int = 0,
) -> Dataset[Sample]:
    """Interleave samples of several datasets in proportion to the weights (default: their lengths).

    Each keeps its own order, shuffling and weights, and starts again when it is exhausted; an epoch has as many samples
    as the datasets have together. In every 1,000 consecutive samples the proportions are exact, so a weight must be at
    least a thousandth of their sum.

    weights: numbers, or a function of the sample that returns them, for a mix that changes in training. It is given
    the number of samples before, of all ranks since the first epoch (a step of all ranks is batch size times world size
    of them), at every 1,000 samples of each rank, and its weights are rounded to thousandths, also to 0. It must return
    the same for the same number: then the mix is exact on all ranks and after resuming. UsageError for weights that
    make no sense, here for sample 0 and otherwise when they are read.
    """
    parts = _parts("mix()", datasets)
    given: Sequence[float] | Schedule
    if callable(weights):
        given = Schedule(weights, len(parts))
    else:
        given = [part.epoch_samples for part in parts] if weights is None else list(weights)
    if not isinstance(given, Schedule) and len(given) != len(parts):
        raise UsageError("mix()", f"{len(given)} weights for {len(parts)} datasets", "give one for each")
    reading = replace(_shared_reading("mix()", parts), seed=seed)
    if reading.remainder is None and any(part.reading.buffer for part in parts):
        reading = replace(reading, remainder="drop")  # as each of them would
    return Dataset(Mixed(parts, given), reading)


def _shared_reading(name: str, parts: Sequence[Dataset]) -> Reading:
    """The common options of the parts, apart from order. UsageError if their ranks or layouts differ."""
    first = parts[0].reading
    kept = ("rank", "world_size", "remainder", "threads", "ahead", "decoders", "shared", "on_stats", "progress")
    shared = {key: getattr(first, key) for key in kept}
    for key, name_of_all in (("layout", "layouts"), ("node_affinity", "node affinities")):
        given = list(dict.fromkeys(value for part in parts if (value := getattr(part.reading, key))))
        if len(given) > 1:
            fact = f"the datasets have {name_of_all} {' and '.join(map(repr, given))}"
            raise UsageError(f"{name}, {key}", fact, "give all the same, or omit it")
        shared |= {key: given[0]} if given else {}
    for part in parts:
        if (part.reading.rank, part.reading.world_size) != (first.rank, first.world_size):
            raise UsageError(name, "the datasets have different ranks", "give all the same rank= and world_size=")
    return Reading(**shared)


def _parts(name: str, datasets: Sequence[Dataset]) -> Sequence[Dataset]:
    if not isinstance(datasets, (list, tuple)) or not all(isinstance(part, Dataset) for part in datasets):
        raise UsageError(name, f"{type(datasets).__name__} is not a list of datasets", f"call {name[:-1]}[a, b])")
    if not datasets:
        raise UsageError(name, "no datasets are given", "give at least one")
    for part in datasets:
        require_order(part, name)
    views = [as_view(part) for part in datasets]
    for part in views:
        if part.ops or part.reading.turns != 1 or isinstance(part.content, Mixed):
            raise UsageError(
                name, f"{part!r} does more than select samples", "call decode(), batch() etc. on the result"
            )
    return views
