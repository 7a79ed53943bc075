"""What there is to do in an epoch of one reader."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from shardkit.images.decoder import DecodeOptions, ImageDecoder
from shardkit.images.views.decoder import ViewDecoder
from shardkit.reading.batches.columns import ColumnReader
from shardkit.reading.batches.memory import Memory
from shardkit.reading.batches.shared import SharedBatches
from shardkit.reading.blocks.source import BlockSource
from shardkit.reading.ops import Steps
from shardkit.reading.stats.record import Recorder
from shardkit.reading.stats.tuner import Tuner

Item = tuple[int, Any]
"""(samples of the share taken so far, the user's item)."""


Group = tuple[int, Iterable[Any]]
"""(samples of the share taken up to the first item, the user's items). Each item after the first takes one more."""


class _Lost:
    def __reduce__(self) -> str:
        return "LOST"


LOST = _Lost()
"""Placeholder for a batch none of whose images could be decoded; it counts as a batch."""


@dataclass(frozen=True)
class Work:
    """One epoch of one reader, and what it needs."""

    source: BlockSource
    steps: Steps
    threads: int
    ahead: int
    decoders: Mapping[str, Callable[[bytes], Any]]
    memory: Memory | None = None
    """Where batches are decoded; by default in memory of this process."""
    shared: SharedBatches | None = None
    """What the processes of this machine share of them."""
    record: Recorder = field(default_factory=Recorder)
    """What it spends its time on."""
    tuner: Tuner | None = None
    """What chooses threads and batches ahead, if they are not fixed."""
    columns: ColumnReader | None = None
    """Reads the further columns of the samples."""


def decoder_of(options: DecodeOptions) -> ImageDecoder | ViewDecoder:
    """What decodes the images of a dataset."""
    return ImageDecoder(options) if options.views is None else ViewDecoder(options)
