"""Which places of an epoch one reader takes: pure arithmetic, the same on every rank.

Rank r of W takes the places low + r, low + r + W, … With L lanes and W a divisor of L these are the lanes r, r + W, ….
Any other W gives the same epoch, distributed as evenly; but then a rank reads through W / gcd(W, L) times its part.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from shardkit.reading.order.epoch_order import Order

Remainder = Literal["drop", "pad", "uneven"]


@dataclass(frozen=True, slots=True)
class Share:
    """The part of `rank` of `world_size` in the places low … high - 1, of which the first `done` are finished.

    remainder: how to treat the samples left over when the places are distributed evenly: "drop" omits them, "pad"
    repeats places from `low` on until each rank has the same number, "uneven" gives some ranks one more.
    """

    low: int
    high: int
    rank: int = 0
    world_size: int = 1
    remainder: Remainder = "uneven"
    done: int = 0

    def __len__(self) -> int:
        left = max(0, self.high - self.low - self.done)
        if self.remainder == "drop":
            return left // self.world_size
        if self.remainder == "pad":
            return -(-left // self.world_size)
        return max(0, -(-(left - self.rank) // self.world_size))

    def places(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The places in the epoch of this share's samples with these numbers; those of repeats are beyond its end."""
        places: NDArray[np.int64] = self.low + self.done + self.rank + numbers * self.world_size
        return places

    def rows(self, order: Order, numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_] | None]:
        """The rows of this share's samples with these (ascending) numbers, and which are repeats (None: none)."""
        places = self.places(numbers)
        marks = places >= self.high
        if not marks.any():
            return order.rows_at(places), None
        again = self.low + (places[marks] - self.high) % (self.high - self.low)
        return np.concatenate([order.rows_at(places[~marks]), order.rows_at(again)]), marks


def lost_by(world_size: int, lanes: int) -> str | None:
    """What is lost if the world size does not divide the lanes, with a `lanes=` that works; None if it does."""
    fold = world_size // gcd(world_size, lanes)
    if fold == 1:
        return None
    better = -(-lanes // world_size) * world_size
    return (
        f"a world of {world_size} does not divide {lanes} lanes: the epoch and the equal parts stay as they are, but "
        f"each rank reads through {fold} times its part of the shards; lanes={better} avoids that (another order)"
    )
