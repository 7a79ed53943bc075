"""The steps of a Dataset as frozen values, and the combination of a chain of them; pipeline.py runs them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from shardkit.errors import UsageError
from shardkit.images.decoder import DecodeOptions
from shardkit.reading.batches.columns import Asked


@dataclass(frozen=True, slots=True)
class Decode:
    """Decode images to arrays, other fields by their extension. columns: further columns to add."""

    options: DecodeOptions
    columns: tuple[Asked, ...] = ()


@dataclass(frozen=True, eq=False)
class Buckets:
    """Sort the samples into buckets by the sizes of their images.

    shapes: (height, width) of each; or the number of shapes to choose, whose sides are multiples of a number and which
    have as many pixels as size (height, width).
    """

    shapes: tuple[tuple[int, int], ...] | int
    size: tuple[int, int] | None = None
    multiple: int = 1


@dataclass(frozen=True, slots=True)
class Map:
    """Replace each item by `fn(item)`; with `rng`, by `fn(item, generator)` or `fn(item, seed)`."""

    fn: Callable[..., Any]
    rng: Literal["", "generator", "seed"] = ""


@dataclass(frozen=True, slots=True)
class Filter:
    """Keep only the items for which `fn(item)` is true."""

    fn: Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class BatchUp:
    """Combine `size` items into one."""

    size: int
    drop_last: bool
    encoded: bool = False
    """Whether the images stay as they are, for a decoder elsewhere."""
    columns: tuple[Asked, ...] = ()
    """Further columns to add."""
    ragged: bool = False
    """Whether images stay apart, each an array of its own shape."""


@dataclass(frozen=True, slots=True)
class Take:
    """Keep the first `count` items."""

    count: int


@dataclass(frozen=True, slots=True)
class Skip:
    """Omit the first `count` items."""

    count: int


@dataclass(frozen=True, slots=True)
class EpochSize:
    """Marks where in the chain epoch_size() was called: before batch() it counts samples, after it batches."""


ALL = 1 << 48
"""More items than any dataset has, yet small enough to be multiplied."""

Op = Buckets | Decode | Map | Filter | BatchUp | Take | Skip | EpochSize


@dataclass(frozen=True)
class Steps:
    """The combination of a chain of ops.

    window: takes and skips of samples, done before anything is read. samples: steps for each sample. batch: None for
    none. batch_window: takes and skips of batches that also need no reading. after: steps for the resulting items: maps
    in the threads, the others one by one.
    """

    window: tuple[Take | Skip, ...] = ()
    samples: tuple[Decode | Map | Filter, ...] = ()
    batch: BatchUp | None = None
    batch_window: tuple[Take | Skip, ...] = ()
    after: tuple[Map | Filter | Take | Skip, ...] = ()
    counted: bool = field(default=True)
    """Whether the number of items is known without reading: there is no filter."""
    sized_batches: bool = False
    """Whether epoch_size() counts batches."""
    buckets: Buckets | None = None
    """Of which each batch has only one."""

    @property
    def whole(self) -> bool:
        """Whether batch limits are known before anything is read: no filter of samples."""
        return not any(isinstance(op, Filter) for op in self.samples)

    @property
    def threaded(self) -> bool:
        """Whether there is work for threads."""
        return bool(self.samples) or any(isinstance(op, Map) for op in self.after)

    @property
    def none(self) -> bool:
        """Whether the items are the samples themselves."""
        return not self.samples and self.batch is None and not self.after

    @property
    def random(self) -> bool:
        """Whether a map() needs random numbers."""
        return any(isinstance(op, Map) and op.rng for op in (*self.samples, *self.after))

    @property
    def decode(self) -> Decode | None:
        """The decode step, if there is one."""
        return next((op for op in self.samples if isinstance(op, Decode)), None)

    @property
    def columns(self) -> tuple[str, tuple[Asked, ...]]:
        """The further columns of samples and batches, and where they were asked for."""
        if self.decode is not None and self.decode.columns:
            return "decode(columns)", self.decode.columns
        return "batch(columns)", () if self.batch is None else self.batch.columns

    def needs_replay(self, start: int) -> bool:
        """Whether resuming in an epoch requires reading it again from the start.

        That is the case if a take() followed by another filter() has let through more than was delivered. start: a
        number of samples that came without a number of items.
        """
        after = self.after
        first = next((place for place, op in enumerate(after) if isinstance(op, Take)), len(after))
        counts = any(isinstance(op, Take | Skip) for op in after)
        return any(isinstance(op, Filter) for op in after[first:]) or (start > 0 and counts)

    def require_buckets_used(self) -> None:
        """UsageError for buckets without anything that they are for."""
        if self.buckets is None:
            return
        if self.batch is None or self.decode is None:
            fact = "it decides which images are decoded to one shape for a batch, but there is no " + (
                "batch()" if self.batch is None else "decode()"
            )
            raise UsageError("buckets()", fact, "write .buckets(…).decode(…).batch(16)")

    def require_dealable(self, workers: int) -> None:
        """UsageError for steps that several workers can't do in parallel."""
        if workers > 1 and any(isinstance(op, Take | Skip) for op in self.after):
            fact = "after filter() they count the items of each worker, not those of all workers"
            raise UsageError("take(), skip()", fact, "call them before filter(), or use num_workers=0: threads decode")


def steps_of(ops: Sequence[Op]) -> Steps:
    """The combined steps of a chain. UsageError for an invalid chain."""
    window: list[Take | Skip] = []
    samples: list[Decode | Map | Filter] = []
    batch_window: list[Take | Skip] = []
    after: list[Map | Filter | Take | Skip] = []
    batch: BatchUp | None = None
    buckets: Buckets | None = None
    filtered = sized_batches = False
    for op in ops:
        if isinstance(op, EpochSize):
            sized_batches = batch is not None
            continue
        if isinstance(op, Buckets):
            if buckets is not None or batch is not None or samples:
                fact = "it comes after another one, decode(), map(), filter() or batch()"
                raise UsageError("buckets()", fact, "call it once, before them")
            buckets = op
            continue
        if buckets is not None and batch is None and isinstance(op, Take | Skip | Filter):
            name = f"{type(op).__name__.lower()}()"
            fact = "it comes between buckets() and batch(), whose batches are full of the samples of one bucket"
            raise UsageError(name, fact, f"call {name} before buckets(), or after batch()")
        if isinstance(op, Filter):
            filtered = True
        if isinstance(op, BatchUp):
            if batch is not None:
                raise UsageError("batch()", "the samples are already in batches", "call batch() once")
            if after:
                raise UsageError(
                    "batch()", "it comes after a take() or skip() that follows a filter()", "call batch() first"
                )
            if op.encoded and any(isinstance(step, Decode) for step in samples):
                fact = "decode() comes before it, so the images are already arrays"
                cure = "omit decode(), and give its size, crop and flip to crops() of each batch"
                raise UsageError("batch(encoded=True)", fact, cure)
            if op.columns and any(isinstance(step, Decode) for step in samples):
                cure = "give them to decode(columns=)"
                raise UsageError("batch(columns)", "decode() comes before it, whose samples have them", cure)
            batch = op
        elif isinstance(op, Decode):
            if batch is not None or any(isinstance(step, (Decode, Map, Filter)) for step in samples):
                raise UsageError(
                    "decode()", "it comes after map(), filter(), batch() or decode()", "call it before them"
                )
            samples.append(op)
        elif isinstance(op, (Take, Skip)):
            early = window if batch is None else batch_window
            (after if filtered else early).append(op)
        elif batch is None and not after:
            samples.append(op)
        else:
            if isinstance(op, Map) and op.rng and any(not isinstance(step, Map) for step in after):
                fact = "rng= depends on the sample or batch, unknown after filter(), take() or skip() of batches"
                raise UsageError("map()", fact, "call map(fn, rng=True) before them")
            after.append(op)
    return Steps(
        tuple(window), tuple(samples), batch, tuple(batch_window), tuple(after), not filtered, sized_batches, buckets
    )  # fmt: skip


def clip(low: int, high: int, window: Sequence[Take | Skip]) -> tuple[int, int]:
    """What takes and skips leave of the range low … high."""
    for op in window:
        if isinstance(op, Take):
            high = min(high, low + op.count)
        else:
            low = min(high, low + op.count)
    return low, high
