"""Decoded batches that the processes of a machine share: the first that needs one decodes it, the others map it.

A batch is known by all that its pixels follow from: the content of the shards, the rows, what was drawn for each image,
and the options. So nothing about orders, ranks and states is involved: readers that differ in any of it do not meet.

| bytes of a shared batch | content |
|---|---|
| 0 … 7 | the number of bytes of the next (little-endian) |
| 8 … | JSON: [name, dtype, shape, first byte] of each array |
| … | the arrays: the first from the next multiple of 64 on, from which the bytes count, the others, too |
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import math
import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from hashlib import blake2b
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from shardkit.images.options import DecodeOptions
from shardkit.native import load
from shardkit.reading.batches.memory import ALIGNMENT
from shardkit.reading.blocks.block import Catalog
from shardkit.storage.node.client import Claim, Node
from shardkit.storage.node.memory import Memory
from shardkit.version import __version__

log = logging.getLogger(__name__)

Arrays = dict[str, NDArray[Any]]
"""The arrays of a batch by name."""

MOST_HEAD = 1 << 16
"""Bytes that describe the arrays."""

PARTS = ("jpeg", "png", "webp", "augment")
PACKAGES = ("pillow", "simplejpeg", "numpy")
"""What decodes: other versions may round in another way."""

_CONTENTS: WeakKeyDictionary[Catalog, bytes | None] = WeakKeyDictionary()


class SharedBatches:
    """Batches of one dataset, decoded with the same options. Thread-safe."""

    def __init__(self, node: Node, made_from: bytes) -> None:
        """made_from: identifies the content and the options."""
        self._node, self._made_from = node, made_from

    def take(self, *drawn: NDArray[Any] | None) -> Arrays | Claim | None:
        """The arrays of a batch, which may be written to: nobody else sees it. A Claim if it is to be decoded here for
        all, None if only for this process. drawn: rows and random numbers of its samples."""
        digest = blake2b(self._made_from, digest_size=16)
        for numbers in drawn:
            digest.update(b"-" if numbers is None else repr((numbers.dtype.str, numbers.shape)).encode())
            digest.update(b"" if numbers is None else np.ascontiguousarray(numbers).tobytes())
        found = self._node.take(digest.digest())
        return opened(found) if isinstance(found, Memory) else found


def shared_batches(
    node: Node | None, catalog: Catalog, options: DecodeOptions, shapes: Sequence[tuple[int, int]] = ()
) -> SharedBatches | None:
    """What is shared of a catalog's batches with these options; None where their pixels may depend on more. shapes: of
    the buckets, if there are any: the nearest one is that of a sample."""
    content = None if node is None else _content_of(catalog)
    if node is None or content is None:
        return None
    if options.augment is not None and options.augment.preprocessing_function is not None:
        return None
    made_from = pickle.dumps(
        (content, options, list(shapes), _software()) if shapes else (content, options, _software())
    )  # to be hashed, never to be loaded
    return SharedBatches(node, blake2b(made_from).digest())


def share(claim: Claim, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Hand a decoded batch to all."""
    memory = claim.put(_written(arrays))
    if memory is not None:
        memory.close()


def opened(memory: Memory) -> Arrays | None:
    """The arrays of a shared batch; None if they can't be had."""
    try:
        return _arrays(memory.mapped(writable=True))
    except (OSError, ValueError, TypeError, OverflowError, RecursionError) as exc:
        log.debug("a shared batch is not as expected: %s", exc)
        return None
    finally:
        memory.close()


def _written(arrays: Mapping[str, NDArray[Any]]) -> Iterator[Any]:
    described, at = [], 0
    for name, array in arrays.items():
        described.append((name, array.dtype.str, array.shape, at))
        at += _aligned(array.nbytes)
    head = json.dumps(described).encode()
    yield (len(head).to_bytes(8, "little") + head).ljust(_aligned(8 + len(head)), b"\0")
    for array in arrays.values():
        yield np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        yield bytes(_aligned(array.nbytes) - array.nbytes)


def _arrays(data: Any) -> Arrays:
    """Raises ValueError, TypeError, OverflowError or RecursionError for anything else than `_written` writes."""
    size = int.from_bytes(data[:8], "little")
    if not 0 < size <= min(MOST_HEAD, len(data)):
        raise ValueError("no description")
    found = {}
    for name, kind, shape, first in json.loads(bytes(data[8 : 8 + size])):
        dtype = np.dtype(kind)
        if dtype.hasobject or not all(isinstance(side, int) and side >= 0 for side in shape):
            raise ValueError("not numbers")
        array = np.frombuffer(data, dtype, math.prod(shape), _aligned(8 + size) + first)
        found[str(name)] = array.reshape(shape)
    return found


def _aligned(at: int) -> int:
    return -(-at // ALIGNMENT) * ALIGNMENT


def _content_of(catalog: Catalog) -> bytes | None:
    """A digest of all that is in a catalog; None for files that have no checksums, as those of a class directory."""
    if catalog not in _CONTENTS:
        files = catalog.files()
        known = len(files) == len(catalog.counts) > 0 and all(file.crc32c >= 0 for file in files)
        what = [(file.bytes, file.crc32c, file.unpacked) for file in files]
        text = repr((what, catalog.counts.tolist(), [entry.name for entry in catalog.classes], _fields_of(catalog)))
        _CONTENTS[catalog] = blake2b(text.encode("utf-8", "surrogatepass")).digest() if known else None
    return _CONTENTS[catalog]


def _fields_of(catalog: Catalog) -> object:
    """What the labels are, and which features of TFRecord shards were named as image and label."""
    parts: Sequence[Catalog] = getattr(catalog, "parts", ())
    return [_fields_of(part) for part in parts] if parts else (catalog.kind, getattr(catalog, "names", None))


@lru_cache(maxsize=1)
def _software() -> tuple[Any, ...]:
    versions = []
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions.append((name, importlib.metadata.version(name)))
    return __version__, tuple(versions), tuple(load(name)[0] is not None for name in PARTS)
