"""The order in which a packing writes its samples, shared by the ranks in runs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shardkit.reading.order.epoch_order import Positions


@dataclass(frozen=True)
class PackedOrder:
    """The rows 0 … N - 1 in `sections` runs, whose lengths differ by one at most: place p is the next of run
    p % sections. A single run is the order of the rows."""

    samples: int
    sections: int

    def rows_at(self, places: Positions) -> Positions:
        """The rows at these places."""
        turns, sections = np.divmod(places, self.sections)
        base, longer = divmod(self.samples, self.sections)
        found: Positions = sections * base + np.minimum(sections, longer) + turns
        return found
