"""Which places of an epoch one reader takes: pure arithmetic, the same on every rank.

The W ranks take steps of W n places, n of them each: the batch size, or 1 without batches. Of each step, rank r takes
the r-th run by section and lane (order/layout.py), so that it reads neighbouring parts of the line; without batches,
the r-th place. The places of a step do not depend on the number of ranks, nor on how they are shared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from shardkit.reading.order.epoch_order import Order
from shardkit.reading.order.layout import Layout, deal

Remainder = Literal["drop", "pad", "uneven"]

ONE_LANE = Layout(1)


@dataclass(frozen=True, slots=True)
class Share:
    """The part of `rank` of `world_size` in the places low … high - 1, of which the first `done` are finished.

    remainder: how to treat the samples left over when the places are distributed evenly: "drop" omits them, "pad"
    repeats places from `low` on until each rank has the same number, "uneven" gives some ranks one more.
    unit: the places of each rank in a step. layout: that of the order.
    """

    low: int
    high: int
    rank: int = 0
    world_size: int = 1
    remainder: Remainder = "uneven"
    done: int = 0
    unit: int = 1
    layout: Layout = ONE_LANE

    def __len__(self) -> int:
        left = max(0, self.high - self.low - self.done)
        if self.remainder == "drop":
            return left // self.world_size
        if self.remainder == "pad":
            return -(-left // self.world_size)
        return max(0, -(-(left - self.rank) // self.world_size))

    def places(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The places in the epoch of this share's samples with these numbers; those of repeats are beyond its end.

        The places of a step are ascending.
        """
        first = self.low + self.done
        if self.unit == 1 or self.world_size == 1:
            found: NDArray[np.int64] = first + self.rank + numbers * self.world_size
            return found
        steps, within = np.divmod(numbers, self.unit)
        whole = max(0, self.high - first) // (self.unit * self.world_size)
        chosen, which = np.unique(steps[steps < whole], return_inverse=True)
        size = self.unit * self.world_size
        taken = self._sorted(first + chosen * size, size, self.rank * self.unit, self.unit)
        found = np.empty(len(numbers), np.int64)
        found[steps < whole] = taken[which, within[steps < whole]]
        if len(which) < len(numbers):
            last = self._sorted(np.array([first + whole * size]), *self._rest(max(0, self.high - first) - whole * size))
            found[steps >= whole] = last[0, within[steps >= whole] + (steps[steps >= whole] - whole) * self.unit]
        return found

    def _rest(self, left: int) -> tuple[int, int, int]:
        """Of the last step, which is smaller: its places, the number of this rank's first one, and how many it has."""
        each, more = divmod(left, self.world_size)
        if self.remainder == "uneven":
            return left, self.rank * each + min(self.rank, more), each + (self.rank < more)
        each += self.remainder == "pad" and more > 0
        return each * self.world_size, self.rank * each, each

    def _sorted(self, firsts: NDArray[np.int64], size: int, begin: int, count: int) -> NDArray[np.int64]:
        """The ascending places of this rank in steps that begin at `firsts` (int64, steps x count)."""
        return np.sort(deal(begin + np.arange(count)[None], firsts[:, None], size, self.layout), axis=1)

    def rows(self, order: Order, numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_] | None]:
        """The rows of this share's samples with these (ascending) numbers, and which are repeats (None: none)."""
        places = self.places(numbers)
        marks = places >= self.high
        if not marks.any():
            return order.rows_at(places), None
        again = self.low + (places[marks] - self.high) % (self.high - self.low)
        return np.concatenate([order.rows_at(places[~marks]), order.rows_at(again)]), marks
