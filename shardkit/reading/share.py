"""Which places of an epoch one reader takes: pure arithmetic, the same on every rank.

Rank r of W takes the places low + r, low + r + W, … With L lanes and W a divisor of L these are the lanes r, r + W, ….
Any other W works too, and reads from every lane that shares a residue with r modulo gcd(W, L).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from shardkit.reading.order import EpochOrder

Remainder = Literal["drop", "pad", "uneven"]


@dataclass(frozen=True, slots=True)
class Share:
    """The part that `rank` of `world_size` has of the places low … high - 1.

    remainder says what becomes of the (high - low) % world_size samples that are over: "drop" leaves them out, "pad"
    repeats samples from the beginning until each rank has the same number, "uneven" gives some ranks one more.
    """

    low: int
    high: int
    rank: int = 0
    world_size: int = 1
    remainder: Remainder = "uneven"

    def __len__(self) -> int:
        total = self.high - self.low
        if self.remainder == "drop":
            return total // self.world_size
        if self.remainder == "pad":
            return -(-total // self.world_size)
        return max(0, -(-(total - self.rank) // self.world_size))

    def rows(self, order: EpochOrder, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.bool_] | None]:
        """The rows of this share's samples start … stop - 1, and which of them are repeats (None: none is)."""
        world = self.world_size
        first = self.low + self.rank + start * world
        own = max(0, min(stop - start, -(-(self.high - first) // world)))
        rows = order.rows(first, first + own * world - (world - 1) if own else first, world)
        if own == stop - start:
            return rows, None
        extra = np.arange(first + own * world, first + (stop - start) * world, world)
        again = self.low + (extra - self.high) % (self.high - self.low)
        repeated = np.concatenate([order.rows(place, place + 1) for place in again.tolist()])
        marks = np.zeros(stop - start, bool)
        marks[own:] = True
        return np.concatenate([rows, repeated]), marks
