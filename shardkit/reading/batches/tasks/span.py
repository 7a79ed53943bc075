"""A part of a block: the samples of one task."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from shardkit.images.decoder import ImageDecoder
from shardkit.images.views.decoder import ViewDecoder
from shardkit.reading.batches.columns import Further
from shardkit.reading.blocks.block import Block
from shardkit.reading.blocks.source import Numbers

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Span:
    """Samples begin … end - 1 of a block, with their numbers in the share."""

    block: Block
    begin: int
    end: int
    numbers: Numbers
    draws: NDArray[np.float64] | None
    repeats: NDArray[np.bool_] | None
    counters: Numbers | None
    """Counters that determine the random numbers of the block's samples, if they are needed."""
    decoder: ImageDecoder | ViewDecoder | None
    """Of these images."""
    nbytes: float = 0.0
    """Of these samples as they are stored, on the average of the block."""
    further: Callable[[], Further] | None = None
    """The further columns of the whole block, if any are asked for."""

    @property
    def places(self) -> slice:
        """Where its samples are in the block."""
        return slice(self.begin, self.end)

    def counter(self, number: int) -> int:
        """The counter of one of these samples."""
        return 0 if self.counters is None else int(self.counters[self.begin + number])

    @property
    def taken(self) -> int:
        """The number of the share's samples up to the last of these."""
        return int(self.numbers[-1]) + 1


class Once(Generic[T]):
    """Calls a function once, in the first thread that asks for its result."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make, self._lock = make, threading.Lock()
        self._made: list[T] = []

    def __call__(self) -> T:
        """The result, which is waited for while another thread makes it."""
        with self._lock:
            if not self._made:
                self._made.append(self._make())
            return self._made[0]


def seeks(decoder: ImageDecoder | ViewDecoder) -> bool:
    """Whether seek points are worth reading: the views of an image take nearly all of it together."""
    return isinstance(decoder, ImageDecoder) and decoder.seeks
