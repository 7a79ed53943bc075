"""Random numbers that are functions of a key and a counter, the same on every machine and for every NumPy.

SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014): the n-th number is
`mix(key + n * GAMMA)`, so that any position can be computed without the ones before it.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

GAMMA = np.uint64(0x9E3779B97F4A7C15)
_M1 = np.uint64(0xBF58476D1CE4E5B9)
_M2 = np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31, _S11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)
_MASK = (1 << 64) - 1


def stream_key(*parts: int | str) -> int:
    """A 64-bit key for an independent stream: the first 8 bytes, little-endian, of BLAKE2b over the parts' text."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def bits(key: int, counters: NDArray[np.integer]) -> NDArray[np.uint64]:
    """64 random bits for each counter (uint64, same shape)."""
    z = counters.astype(np.uint64)
    z += np.uint64(1)
    z *= GAMMA
    z += np.uint64(key & _MASK)
    z ^= z >> _S30
    z *= _M1
    z ^= z >> _S27
    z *= _M2
    z ^= z >> _S31
    return z


def uniform(key: int, counters: NDArray[np.integer]) -> NDArray[np.float64]:
    """A number in [0, 1) for each counter, with 53 random bits (float64, same shape)."""
    z = bits(key, counters)
    z >>= _S11
    u = z.astype(np.float64)
    u *= 2.0**-53
    return u


def permutation(n: int, key: int) -> NDArray[np.int64]:
    """A permutation of 0 … n-1 (int64): the order of the counters by their 64 bits, ties in counting order."""
    return np.argsort(bits(key, np.arange(n, dtype=np.uint64)), kind="stable")
