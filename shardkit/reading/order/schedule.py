"""The weights of a mix as a function of the sample: how many samples of each dataset each block has, and had before.

A block is MIX_BLOCK samples of each section (layout.py). The function is called with the number of samples of the mix,
over all ranks and epochs, before the block; so it depends neither on the ranks that read, nor on the batch size.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shardkit.errors import UsageError
from shardkit.reading.order.derived import MIX_BLOCK, apportion

Weights = Callable[[int], Sequence[float]]

_CURE = "return a number from 0 on for each dataset, above 0 for at least one"


class Schedule:
    """Weights that change while a mix is read. Thread safe, and pickled with its function.

    UsageError, here and when it is asked, for a function that does not return valid weights. With one that returns
    others for the same sample, ranks would read different mixes: this is tried for the first sample.
    """

    def __init__(self, fn: Weights, datasets: int) -> None:
        self._fn, self._datasets = fn, datasets
        self._lock = threading.Lock()
        self._sums: dict[int, tuple[NDArray[np.int64], int]] = {}
        """By the number of sections: the samples of each dataset before each block, and how many of these are known."""
        if self.quotas_at(0).tolist() != self.quotas_at(0).tolist():
            fact = "the function returned different weights for the same sample"
            raise UsageError("mix(weights=)", fact, "compute them from the number of the sample alone")

    def __reduce__(self) -> tuple[Any, ...]:
        try:
            pickle.dumps(self._fn)
        except Exception as exc:  # pickling calls the user's own code
            fact = f"the function of the weights can't be passed to another process ({exc})"
            cure = "define it at the top of a module, or read without worker processes: threads decode all the same"
            raise UsageError("mix(weights=)", fact, cure) from exc
        return Schedule, (self._fn, self._datasets)

    def quotas_at(self, sample: int) -> NDArray[np.int64]:
        """The samples of each dataset in a block that begins with this sample (int64, datasets); they add up to
        MIX_BLOCK."""
        given = self._fn(sample)
        try:
            values = np.asarray(given, np.float64)
        except (TypeError, ValueError) as exc:
            raise UsageError("mix(weights=)", f"the weights of sample {sample:,} are {given!r}", _CURE) from exc
        if values.shape != (self._datasets,):
            count = "no list of weights" if values.ndim != 1 else f"{len(values)} weights"
            fact = f"the function returned {count} for {self._datasets} datasets, of sample {sample:,}"
            raise UsageError("mix(weights=)", fact, "return one for each")
        if not np.isfinite(values).all() or (values < 0).any() or not values.sum():
            fact = f"the weights of sample {sample:,} are {values.tolist()}, which are not valid"
            raise UsageError("mix(weights=)", fact, _CURE)
        return apportion(values, MIX_BLOCK)

    def block(self, number: int, sections: int) -> tuple[list[int], list[int]]:
        """(samples of each dataset in a block of a section, samples of each in the blocks of the section before)."""
        with self._lock:
            sums, filled = self._sums.get(sections, (np.zeros((1, self._datasets), np.int64), 1))
            if number + 2 > len(sums):
                sums = np.concatenate([sums, np.zeros((number + 2, self._datasets), np.int64)])
            for at in range(filled, number + 2):
                sums[at] = sums[at - 1] + self.quotas_at((at - 1) * MIX_BLOCK * sections)
            self._sums[sections] = sums, max(filled, number + 2)
        before = sums[number]
        return (sums[number + 1] - before).tolist(), before.tolist()

    def describe(self, samples: int) -> str:
        """A digest of the weights in an epoch of so many samples, at its beginning and after 1, 2, 4, … blocks."""
        return blake2b(self._within(samples).tobytes(), digest_size=16).hexdigest()

    def mean_quotas(self, samples: int) -> list[int]:
        """The mean samples of each dataset in a block of such an epoch, at these blocks."""
        found: list[int] = np.rint(self._within(samples).mean(axis=0)).astype(np.int64).tolist()
        return found

    def _within(self, samples: int) -> NDArray[np.int64]:
        blocks = [0, *(1 << power for power in range(max(0, (samples - 1) // MIX_BLOCK).bit_length()))]
        return np.stack([self.quotas_at(block * MIX_BLOCK) for block in blocks])
