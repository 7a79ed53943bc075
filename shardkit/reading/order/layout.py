"""The layout of an epoch's order: for how many ranks its line is cut, and which of a step's places each rank takes.

The line of N samples is shared by one section for each of V ranks, and each section by L lanes, which are runs of the
line (order/epoch_order.py). Place p of the epoch belongs to section s = p % V, and there to lane (p // V) % L. So each
run of places takes equally from all sections, and a section's samples come from its own parts of the line only.

In a step of G places, which all ranks read at the same time, the places are sorted by section, then by lane, then by
place, and rank r takes the r-th of W equal runs. With W = V that is the section of its number; with another W it reads
about V L / W neighbouring lanes. A step's places, and with them the samples of a global batch, depend on neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]

MOST_SECTIONS = 1 << 16
"""The largest layout. Its lanes are listed in memory."""

COSTLY = 1.5
"""How many times its part of the shards a rank may read through without a warning."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The parts of an epoch's line. lanes: of each section. sections: V, the ranks that the order is laid out for.

    node: the ranks of a node, which keep the same part of the line in all epochs; 0 for none.
    """

    lanes: int
    sections: int = 1
    node: int = 0

    @property
    def all_lanes(self) -> int:
        """The lanes of all sections."""
        return self.lanes * self.sections


def nth_by_residue(numbers: Numbers, first: Numbers, size: Numbers, period: int) -> Numbers:
    """The offsets with these numbers, if 0 … size - 1 are sorted by ((first + offset) % period, offset).

    All are int64 and broadcast. g or g + 1 offsets have the same residue, g = size // period: one more in the residues
    from `first` on, and in as many at the beginning as are left over at the end of the period.
    """
    few, extra = np.divmod(size, period)
    many, few_or_one = few + 1, np.maximum(few, 1)
    begin = first % period
    wrapped = np.maximum(0, begin + extra - period)
    stop = np.minimum(begin + extra, period)
    ends_1 = wrapped * many
    ends_2 = ends_1 + (begin - wrapped) * few
    ends_3 = ends_2 + (stop - begin) * many
    residue, turn = np.divmod(numbers, many)
    for low, residue_low, each, here in (
        (ends_1, wrapped, few_or_one, numbers >= ends_1),
        (ends_2, begin, many, numbers >= ends_2),
        (ends_3, stop, few_or_one, numbers >= ends_3),
    ):
        more, within = np.divmod(numbers - low, each)
        residue, turn = np.where(here, residue_low + more, residue), np.where(here, within, turn)
    found: Numbers = (residue - begin) % period + turn * period
    return found


def deal(numbers: Numbers, first: Numbers, size: int, layout: Layout) -> Numbers:
    """The places with these numbers, if the places first … first + size - 1 are sorted by section, lane and place."""
    sections = layout.sections
    offsets = nth_by_residue(numbers, first, np.full_like(first, size), sections)
    turn, lead = np.divmod(offsets, sections)
    own = (size - lead + sections - 1) // sections  # places of this section
    begin, section = np.divmod(first + lead, sections)
    found: Numbers = (begin + nth_by_residue(turn, begin, own, layout.lanes)) * sections + section
    return found


def reads_through(world_size: int, layout: Layout, *, in_runs: bool) -> float:
    """How many times its part of the shards the rank with most lanes reads through. in_runs: whether it takes runs."""
    lanes = layout.all_lanes
    even = gcd(world_size, lanes)
    if not in_runs:
        return world_size / even
    # rank r begins within lane r L / W, whose fractions are all multiples of gcd(W, L) / W: the latest costs most
    touched = -(-(world_size - even + lanes) // world_size)
    return touched * world_size / lanes


def cost_of(world_size: int, layout: Layout, *, in_runs: bool) -> str | None:
    """A warning for an order whose layout costs this world much reading; None if it does not."""
    times = reads_through(world_size, layout, in_runs=in_runs)
    if times < COSTLY:
        return None
    return (
        f"the epoch's order is laid out for {layout.sections} rank{'s' * (layout.sections > 1)} with {layout.lanes} "
        f"lanes each, so each of these {world_size} ranks reads through {times:.3g} times its part of the shards; "
        f"layout={world_size} avoids that (another order)"
    )
