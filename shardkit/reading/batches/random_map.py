"""Random numbers for the functions that users give to `map()`: a function of seed, epoch, and sample alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from shardkit.reading.ops import Filter, Map
from shardkit.rng import bits, stream_key

SEED_BITS = 32
"""Bits of a seed: as many as `np.random.seed`, `random.seed`, `torch.manual_seed` and albumentations all take."""


def callers(ops: Sequence[Map | Filter], seed: int, epoch: int) -> list[Callable[[Any, int], Any]]:
    """Return a function of (item, counter) for each op, in order.

    counter: the number of the item's sample that its random numbers follow from; of a batch, of its first sample. Each
    map() that asks for random numbers draws from a stream of its own.
    """
    made = []
    streams = itertools.count()
    for op in ops:
        if isinstance(op, Map) and op.rng:
            made.append(_random(op, stream_key("map", next(streams), seed, epoch)))
        else:
            made.append(_plain(op.fn))
    return made


def _plain(fn: Callable[[Any], Any]) -> Callable[[Any, int], Any]:
    return lambda item, counter: fn(item)


def _random(op: Map, key: int) -> Callable[[Any, int], Any]:
    fn = op.fn
    if op.rng == "seed":
        return lambda item, counter: fn(item, _number(key, counter) >> (64 - SEED_BITS))
    return lambda item, counter: fn(item, _generator(key, counter))


def _number(key: int, counter: int) -> int:
    return int(bits(key, np.array([counter]))[0])


def _generator(key: int, counter: int) -> np.random.Generator:
    """A generator whose stream no other sample shares: Philox takes 128 bits as its key without hashing them."""
    return np.random.Generator(np.random.Philox(key=np.array([key, counter], np.uint64)))
