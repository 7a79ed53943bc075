"""Objects of stores by chunks that the processes of a machine share: each is fetched by the first that needs it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from shardkit.checksums import crc32c
from shardkit.storage.cache.store import Content
from shardkit.storage.mapping import Mapping, view_of
from shardkit.storage.node.client import Claim, Node
from shardkit.storage.node.memory import Memory

if TYPE_CHECKING:
    from typing_extensions import Buffer

Fetch = Callable[[int, int], "Iterable[Buffer]"]
"""The bytes start … end - 1 of the object, from its store."""


class Chunks:
    """Chunks of objects, by what these must be. Thread-safe."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._sizes: set[int] = set()
        self._mapped: WeakValueDictionary[bytes, Mapping] = WeakValueDictionary()
        self._lock = threading.Lock()

    def pieces(self, content: Content, start: int, end: int, size: int, fetch: Fetch) -> Iterator[Buffer]:
        """The bytes start … end - 1 of an object, in order, from whole chunks of `size` bytes."""
        self._sizes.add(size)
        for first in range(start // size * size, end, size):
            stop = min(first + size, content.bytes)
            view = memoryview(self._chunk(content, first, stop, fetch)).cast("B")
            yield view[max(start - first, 0) : min(end, stop) - first]

    def drop(self, content: Content, start: int) -> None:
        """The chunk with this byte was damaged on its way."""
        for size in list(self._sizes):
            first = start // size * size
            key = _key(content, first, min(first + size, content.bytes))
            with self._lock:
                self._mapped.pop(key, None)
            self._node.drop(key)

    def _chunk(self, content: Content, first: int, stop: int, fetch: Fetch) -> Buffer:
        key = _key(content, first, stop)
        with self._lock:
            mapping = self._mapped.get(key)
        if mapping is None:
            arrived: list[Buffer] = []
            found = self._node.take(key)
            if isinstance(found, Claim):
                found = found.put(_kept(fetch(first, stop), arrived))
            mapping = None if found is None else _mapped(found, stop - first)
            if mapping is None and sum(memoryview(part).nbytes for part in arrived) == stop - first:
                return b"".join(arrived)
            if mapping is None:
                return b"".join(fetch(first, stop))
            with self._lock:
                self._mapped[key] = mapping
        return view_of(mapping)


class NodeCache:
    """Takes the place of a cache in a folder: small objects are shared while some process needs them."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._claims: dict[bytes, Claim] = {}

    def entry(self, url: str, size: int, crc: int) -> None:
        """None: there is no room."""

    def load(self, url: str, size: int, crc: int) -> bytes | None:
        """The bytes of a small object, checked. None if nobody has them: then `save` shares them."""
        key = key_of("object", url, size, crc)
        found = self._node.take(key)
        if isinstance(found, Claim):
            self._claims[key] = found
            return None
        mapping = None if found is None else _mapped(found, size)
        data = None if mapping is None else bytes(mapping)
        return data if data is not None and crc32c(data) == crc else None

    def save(self, url: str, data: bytes, crc: int) -> None:
        """Share a small object, if `load` was told to."""
        claim = self._claims.pop(key_of("object", url, len(data), crc), None)
        memory = None if claim is None else claim.put([data])
        if memory is not None:
            memory.close()


def key_of(*parts: object) -> bytes:
    """16 bytes for some values, by their text."""
    return blake2b("\0".join(map(str, parts)).encode("utf-8", "surrogateescape"), digest_size=16).digest()


def _key(content: Content, first: int, stop: int) -> bytes:
    return key_of("chunk", *content, first, stop)


def _kept(parts: Iterable[Buffer], kept: list[Buffer]) -> Iterator[Buffer]:
    """The parts, which are kept until all were written: there may be no memory to share them."""
    for part in parts:
        kept.append(part)
        yield part


def _mapped(memory: Memory, size: int) -> Mapping | None:
    """The bytes of memory; None if it has another size, or can't be mapped."""
    try:
        return memory.mapped() if memory.bytes == size else None
    except OSError:
        return None
    finally:
        memory.close()
